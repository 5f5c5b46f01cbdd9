//! Keeps the rules of the host's network as they should be, for workloads that come and go there:
//! units that start and stop, users, guests behind interfaces.
//!
//! [`Host`] is handed the workloads as plain values, finds out how the rules can know each
//! ([`resolve`]), and changes the table in one transaction when that changes ([`mod@apply`]).

pub mod apply;
mod keep;
pub mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::apply::clear;
use super::attach::Target;
use super::cgroups::{CgroupError, Cgroups};
use super::elements;
use super::error::CaptureError;
use super::links::links;
use super::netns::Netns;
use super::reconcile::{captured, told};
use super::ruleset::host::Mark;
use super::ruleset::{DESTINATIONS, Datagrams, HostPlan, OF_GUESTS, TABLE, WantedDatagrams};
use super::terms::Terms;
use super::watch::Changes;
use apply::Applied;
use resolve::Resolver;

/// Between attempts while the rules cannot be applied or read.
const RETRY: Duration = Duration::from_millis(500);
/// How long rules go unseen while units come and go.
const LONGEST_UNSEEN: Duration = Duration::from_millis(500);
/// Between looks at whether a unit that starts is captured.
const LOOK: Duration = Duration::from_millis(5);
/// How often rules are made anew at once, since a cgroup that they name went away meanwhile.
const AGAIN: usize = 20;

/// A workload to capture on the host's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wanted {
    /// What names it, to the rules and in the sockets that the proxy accepts.
    pub mark: Mark,
    /// Where it is.
    pub target: Target,
    /// Its addresses: the host's own, or a guest's.
    pub addresses: BTreeSet<IpAddr>,
    /// The ports it declares; a guest's are all its own.
    pub ports: BTreeSet<u16>,
    /// The ports of UDP that it declares. Not said where there are none: a keeper of before does not know
    /// of any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub udp_ports: BTreeSet<u16>,
}

impl Wanted {
    /// Where it is called; at whatever ports it declares, a guest at all there are.
    fn inbound(&self) -> BTreeSet<SocketAddr> {
        match self.target {
            Target::Interface(_) => BTreeSet::new(),
            _ => self.at(&self.ports),
        }
    }

    /// Where it is sent datagrams.
    fn datagrams(&self) -> BTreeSet<SocketAddr> {
        self.at(&self.udp_ports)
    }

    fn at(&self, ports: &BTreeSet<u16>) -> BTreeSet<SocketAddr> {
        let at = |ip: &IpAddr| {
            let ip = *ip;
            ports.iter().map(move |port| SocketAddr::new(ip, *port))
        };
        self.addresses.iter().flat_map(at).collect()
    }
}

/// All workloads to capture; `None` until it is known who they are, and rules stay as they are.
pub type Workloads = Option<Arc<[Wanted]>>;

/// How a workload is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Standing {
    /// Captured.
    Captured,
    /// Nothing of it is there now: its unit does not run, its interface is not there. What calls it
    /// is captured.
    Absent,
    /// It cannot be captured, for this reason; tried again whenever something changes.
    Failed(Arc<str>),
}

/// How the host's network is.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Each workload whose rules are in place, or who has none; until others have been told of, whoever
    /// the rules of an earlier process are for.
    pub workloads: BTreeMap<Mark, Standing>,
    /// Why the rules are not as they should be; tried again until they are.
    pub failed: Option<Arc<CaptureError>>,
}

/// The component that keeps the host's table.
#[derive(Debug)]
pub struct Host {
    ns: Netns,
    terms: Terms,
    workloads: watch::Receiver<Workloads>,
    /// Which datagrams come to the proxy, where any do: those that go to a destination.
    datagrams: Option<watch::Receiver<WantedDatagrams>>,
    /// From which ports the proxy has answered.
    answered: BTreeSet<u16>,
    changes: Changes,
    cgroups: Cgroups,
    outcome: watch::Sender<Arc<Outcome>>,
}

/// What woke the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Rules or routes may be other than they were.
    Notice,
    /// What they should be may be.
    News,
}

impl Host {
    /// Prepares to keep the table of `ns` for the workloads that `workloads` tells of, with the rules for
    /// datagrams where `datagrams` tells to which destinations they come to the proxy: until it does,
    /// what is captured stays so. The receiver tells how the workloads are.
    ///
    /// # Errors
    /// When the namespace may not be entered, or the kernel's notices not be had.
    pub fn new(
        ns: Netns,
        terms: Terms,
        workloads: watch::Receiver<Workloads>,
        datagrams: Option<watch::Receiver<WantedDatagrams>>,
    ) -> io::Result<(Self, watch::Receiver<Arc<Outcome>>)> {
        // From here on no change goes unnoticed, those between applying and looking included.
        let changes = Changes::new(&ns)?;
        let before = elements::marks(&ns)?.into_iter();
        let (outcome, receiver) = watch::channel(Arc::new(Outcome {
            workloads: before.map(|mark| (mark, Standing::Captured)).collect(),
            failed: None,
        }));
        let host = Self {
            changes,
            cgroups: Cgroups::new()?,
            ns,
            terms,
            workloads,
            datagrams,
            answered: BTreeSet::new(),
            outcome,
        };
        Ok((host, receiver))
    }

    /// Applies the rules, changes them as workloads come and go, and puts them back within a second
    /// of any change by others, until `shutdown`. They stay then: what they capture is refused, not
    /// leaked. They go when there is no workload any more.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut applied = None;
        let mut cause = Cause::Notice;
        let mut looked = Instant::now();
        loop {
            // Notices rest for a moment, which news without end would not leave them.
            if looked.elapsed() > LONGEST_UNSEEN {
                cause = Cause::Notice;
            }
            if cause == Cause::Notice {
                looked = Instant::now();
            }
            let settled = self.settle(&mut applied, cause).await;
            let failed = settled.is_err();
            self.publish(settled);
            self.changes.rest();
            cause = tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.cgroups.changed() => Cause::News,
                Ok(()) = self.workloads.changed() => Cause::News,
                () = told(&mut self.datagrams) => Cause::News,
                () = self.changes.next() => Cause::Notice,
                () = tokio::time::sleep(RETRY), if failed => Cause::Notice,
            };
        }
    }

    /// Leaves the rules as they should be; how each workload is then.
    async fn settle(
        &mut self,
        applied: &mut Option<Applied>,
        cause: Cause,
    ) -> Result<BTreeMap<Mark, Standing>, CaptureError> {
        let Some(workloads) = self.workloads.borrow_and_update().clone() else {
            return Ok(self.outcome.borrow().workloads.clone());
        };
        if workloads.is_empty() {
            if applied.take().is_some() || cause == Cause::Notice {
                self.remove().await?;
            }
            return Ok(BTreeMap::new());
        }
        if let Some(held) = applied
            && cause == Cause::Notice
            && !held.intact().await?
        {
            warn!("capture rules of the host were changed by somebody else, putting them back");
            // What they were first, since until then nothing holds a program back.
            if let Err(_told_below) = held.mend().await {
                *applied = None;
            }
        }
        let datagrams = self.datagrams(&workloads)?;
        let mut attempts = 0..AGAIN;
        loop {
            let (ns, terms, cgroups) = (&self.ns, &self.terms, &self.cgroups);
            let (plan, standings) =
                planned(ns, terms, cgroups, &workloads, datagrams.as_ref()).await?;
            let outcome = match applied {
                Some(held) => held.change(&plan).await,
                None => apply::apply(&self.ns, &plan)
                    .await
                    .map(|now| *applied = Some(now)),
            };
            match outcome {
                // It was there when it was looked for.
                Err(e) if is_cgroup_gone(&e) && attempts.next().is_some() => {}
                other => return other.map(|()| standings),
            }
        }
    }

    /// The datagrams that were told of last, and from which ports there is to be an answer: from those of
    /// before too, as long as this runs.
    fn datagrams(&mut self, workloads: &[Wanted]) -> Result<Option<Datagrams>, CaptureError> {
        let Some(datagrams) = &mut self.datagrams else {
            return Ok(None);
        };
        let told = datagrams.borrow_and_update().clone();
        let destinations = match told {
            Some(told) => told.destinations.clone(),
            None => captured(&self.ns, &before())?.destinations,
        };
        let asked = destinations.iter().map(SocketAddr::port);
        let own = workloads.iter().flat_map(|w| w.udp_ports.iter().copied());
        self.answered.extend(asked.chain(own));
        Ok(Some(Datagrams {
            destinations,
            ports: self.answered.clone(),
        }))
    }

    /// Takes the rules away, where there are any.
    async fn remove(&self) -> Result<(), CaptureError> {
        if !super::apply::is_there(&self.ns)? {
            return Ok(());
        }
        clear(&self.ns).await?;
        info!("no workload is on the host's network, capture rules removed");
        Ok(())
    }

    fn publish(&self, settled: Result<BTreeMap<Mark, Standing>, CaptureError>) {
        self.outcome.send_if_modified(|old| {
            let now = match settled {
                Ok(workloads) => Outcome {
                    workloads,
                    failed: None,
                },
                Err(e) => Outcome {
                    workloads: old.workloads.clone(),
                    failed: Some(Arc::new(e)),
                },
            };
            let news =
                now.failed.is_some() || old.failed.is_some() || now.workloads != old.workloads;
            *old = Arc::new(now);
            news
        });
    }
}

/// The sets that say what rules of before capture.
fn before() -> Vec<&'static str> {
    [DESTINATIONS, OF_GUESTS].concat()
}

/// The plan for these workloads as they are now, and how each is under it.
///
/// # Errors
/// [`CaptureError`] when it cannot be told how they are.
pub async fn plan(
    ns: &Netns,
    terms: &Terms,
    workloads: &[Wanted],
) -> Result<(HostPlan, BTreeMap<Mark, Standing>), CaptureError> {
    let cgroups = Cgroups::new().map_err(CaptureError::Cgroups)?;
    planned(ns, terms, &cgroups, workloads, None).await
}

async fn planned(
    ns: &Netns,
    terms: &Terms,
    cgroups: &Cgroups,
    workloads: &[Wanted],
    datagrams: Option<&Datagrams>,
) -> Result<(HostPlan, BTreeMap<Mark, Standing>), CaptureError> {
    let is_guest = |wanted: &Wanted| matches!(wanted.target, Target::Interface(_));
    let links = match workloads.iter().any(is_guest) {
        true => links(ns).await?,
        false => Vec::new(),
    };
    let resolver = Resolver {
        twice: !links.is_empty() && bridges_call(ns)?,
        links: &links,
        cgroups,
        reserved: &terms.reserved,
    };
    let (members, standings) = resolver.resolve(workloads);
    let exclusions = terms.on_host();
    let plan = HostPlan::new(terms.exemption, &exclusions, &members);
    let plan = match terms.dns {
        true => plan.with_dns(&exclusions),
        false => plan,
    };
    let plan = match datagrams {
        Some(datagrams) => plan.with_udp(&exclusions, &members, datagrams),
        None => plan,
    };
    Ok((plan, standings))
}

/// Whether bridges call the rules of the network layer (the module `br_netfilter`).
fn bridges_call(ns: &Netns) -> Result<bool, CaptureError> {
    let on = |family: &str| {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        // Without the module there is no such setting.
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
    };
    ns.within(|| on("iptables") || on("ip6tables"))
        .map_err(|source| CaptureError::Namespace {
            name: ns.name().to_owned(),
            source,
        })
}

/// Returns once the rules that are in force know a unit by the cgroup it now has.
///
/// # Errors
/// [`UnknownUnit`].
pub async fn known(ns: &Netns, unit: &Arc<str>) -> Result<(), UnknownUnit> {
    let cgroups = Cgroups::new().map_err(UnknownUnit::Watch)?;
    let wanted = BTreeSet::from([Arc::clone(unit)]);
    loop {
        if let Some(cgroup) = cgroups.units(&wanted)?.get(unit)
            && elements::knows(ns, cgroup).map_err(UnknownUnit::Elements)?
        {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Why it cannot be told whether a unit is captured.
#[derive(Debug, thiserror::Error)]
pub enum UnknownUnit {
    /// There are no notices to be had of the file system.
    #[error("cannot watch cgroups")]
    Watch(#[source] io::Error),
    /// Cgroups do not tell units apart here.
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
    /// The kernel does not say what is in our sets.
    #[error("cannot read the sets of table inet {TABLE}")]
    Elements(#[source] io::Error),
}

/// `nft` did not find a cgroup that the rules name.
fn is_cgroup_gone(error: &CaptureError) -> bool {
    matches!(error, CaptureError::Refused { said, .. } if said.contains("cgroupv2 path fails"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_declares_ports_of_udp_alone() {
        let wanted = |target| Wanted {
            mark: Mark::of(0x601).unwrap(),
            target,
            addresses: ["192.0.2.1", "fd00::1"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            ports: [80, 443].into(),
            udp_ports: [53].into(),
        };
        let name = Arc::from("cart");
        let user = wanted(Target::User(Arc::clone(&name)));
        assert_eq!(user.inbound().len(), 4);
        assert_eq!(user.datagrams().len(), 2);
        let guest = wanted(Target::Interface(name));
        assert!(guest.inbound().is_empty());
        assert_eq!(guest.datagrams().len(), 2);
    }
}
