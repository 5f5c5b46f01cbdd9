//! Networks that rules are applied in, and what is applied there: to a namespace one plan, to the
//! host's own network that of the workloads which the command line names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::capture::host::{Standing, Wanted};
use crate::capture::{self, HostPlan, Mark, Netns, Plan, Target, Terms, host};
use crate::cli::Failure;
use crate::cli::output::NO;

/// What the host's own network is called.
pub(super) const HOST: &str = "host";

/// Workloads on the host's network.
#[derive(Debug, Args)]
pub struct Named {
    /// A systemd unit on the host's network; this and the next three may be given again
    #[arg(long)]
    unit: Vec<String>,
    /// A cgroup on the host's network, by its path below /sys/fs/cgroup
    #[arg(long)]
    cgroup: Vec<String>,
    /// A Unix user
    #[arg(long)]
    user: Vec<String>,
    /// The host's end of a guest's link; with --address, the guest's addresses
    #[arg(long, requires = "address")]
    interface: Vec<String>,
    /// An address of these workloads; may be given again
    #[arg(long)]
    address: Vec<IpAddr>,
    /// A port that these workloads declare; may be given again
    #[arg(long, requires = "address")]
    port: Vec<u16>,
}

impl Named {
    pub(super) fn is_empty(&self) -> bool {
        self.targets().is_empty()
    }

    fn targets(&self) -> Vec<Target> {
        type Make = fn(Arc<str>) -> Target;
        let kinds: [(Make, &[String]); 4] = [
            (Target::Unit, &self.unit),
            (Target::Cgroup, &self.cgroup),
            (Target::User, &self.user),
            (Target::Interface, &self.interface),
        ];
        let named = kinds
            .into_iter()
            .flat_map(|(make, names)| names.iter().map(move |name| make(Arc::from(name.as_str()))));
        named.collect()
    }

    fn wanted(&self) -> Vec<Wanted> {
        let targets = Mark::all().zip(self.targets());
        let wanted = targets.map(|(mark, target)| Wanted {
            mark,
            target,
            addresses: self.address.iter().copied().collect(),
            ports: self.port.iter().copied().collect(),
            udp_ports: std::collections::BTreeSet::new(),
        });
        wanted.collect()
    }
}

/// What is applied.
pub(super) enum Script {
    Netns(Plan),
    Host(HostPlan),
}

impl Script {
    /// With what is asked for names where `dns` says so, as of workloads that do not say otherwise.
    pub(super) async fn new(terms: &Terms, named: &Named, dns: bool) -> Result<Self, Failure> {
        if named.is_empty() {
            let plan = Plan::excluding(terms.exemption, &terms.exclusions);
            let plan = if dns { plan.with_dns() } else { plan };
            return Ok(Self::Netns(plan));
        }
        let wanted = named.wanted();
        let planned = host::plan(&open(HOST)?, terms, &wanted).await;
        let (plan, standings) = planned.map_err(|e| Failure::no("there is no plan", &e))?;
        for wanted in &wanted {
            if let Some(Standing::Failed(reason)) = standings.get(&wanted.mark) {
                return Err(Failure::plain(NO, format!("{}: {reason}", wanted.target)));
            }
        }
        Ok(Self::Host(plan))
    }

    pub(super) fn render(&self) -> String {
        match self {
            Self::Netns(plan) => plan.render(),
            Self::Host(plan) => plan.render(),
        }
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Netns(plan) => json!({ "ip": plan.ip(), "nft": plan.nft() }),
            Self::Host(plan) => {
                let sysctl = format!("{}=1", capture::ruleset::host::ACCEPT_MARKS);
                json!({ "sysctl": [sysctl.replace('/', ".")], "ip": plan.ip(), "nft": plan.nft() })
            }
        }
    }

    /// Whether the host takes it; nothing is changed.
    pub(super) async fn check(&self, ns: &Netns) -> Result<(), Failure> {
        let nft = match self {
            Self::Netns(plan) => plan.nft(),
            Self::Host(plan) => plan.nft(),
        };
        let checked = capture::preflight::accepts(ns, &nft).await;
        checked.map_err(|e| Failure::no(ns.name(), &e))?;
        Ok(())
    }

    pub(super) async fn apply(&self, ns: &Netns) -> Result<(), Failure> {
        let applied = match self {
            Self::Netns(plan) => capture::apply(ns, plan).await.map(drop),
            Self::Host(plan) => host::apply::apply(ns, plan).await.map(drop),
        };
        applied.map_err(|e| Failure::no(ns.name(), &e))
    }
}

/// Opens a network by its name.
pub(super) fn open(name: &str) -> Result<Netns, Failure> {
    if name == HOST {
        return Netns::current().map_err(|e| Failure::no(name, &e));
    }
    let target = Target::Netns(Arc::from(name));
    target.attach().map_err(|e| Failure::no(name, &e))
}

/// Waits until the rules know a unit that has started. Must be called in a runtime.
pub(super) async fn wait(unit: &str, timeout: Duration) -> Result<(), Failure> {
    let ns = Netns::current().map_err(|e| Failure::no(HOST, &e))?;
    let name = Arc::from(unit);
    match tokio::time::timeout(timeout, host::known(&ns, &name)).await {
        Ok(known) => known.map_err(|e| Failure::no(unit, &e)),
        Err(_elapsed) => {
            let message = format!(
                "unit `{unit}` is not captured after {} s; is the node running, and is the unit a \
                 workload of this node? see: lateen workloads",
                timeout.as_secs()
            );
            Err(Failure::plain(NO, message))
        }
    }
}
