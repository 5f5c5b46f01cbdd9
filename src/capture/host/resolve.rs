//! Finds out how the rules can know each workload of the host's network now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Standing, Wanted};
use crate::capture::attach::Target;
use crate::capture::cgroups::{CgroupError, Cgroups};
use crate::capture::links::Link;
use crate::capture::ruleset::host::Mark;
use crate::capture::ruleset::{By, Cgroup, Member};
use crate::capture::users;

/// What it takes to find out.
pub(super) struct Resolver<'a> {
    /// The host's links, where some guest is behind one.
    pub(super) links: &'a [Link],
    /// Whether the rules see frames of bridges below the network layer too, where the sockets
    /// that they are given to are lost again.
    pub(super) twice: bool,
    pub(super) cgroups: &'a Cgroups,
    /// Users whom no workload may be.
    pub(super) reserved: &'a BTreeSet<u32>,
}

type Units = Result<BTreeMap<Arc<str>, Cgroup>, CgroupError>;

impl Resolver<'_> {
    /// Each workload as the rules know it, and how it is once they are in place.
    pub(super) fn resolve(&self, workloads: &[Wanted]) -> (Vec<Member>, BTreeMap<Mark, Standing>) {
        let units = self.cgroups.units(&units(workloads));
        let mut members = Vec::new();
        let mut standings = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for wanted in workloads {
            let guest = matches!(wanted.target, Target::Interface(_));
            let known = match taken.insert((&wanted.target, guest.then_some(&wanted.addresses))) {
                true => self.by(wanted, &units),
                false => Err(Arc::from(format!(
                    "another workload of this host is {} already",
                    wanted.target
                ))),
            };
            let (by, standing) = match known {
                Ok(known) => known,
                Err(reason) => (By::Nothing, Standing::Failed(reason)),
            };
            standings.insert(wanted.mark, standing);
            members.push(Member {
                mark: wanted.mark,
                by,
                inbound: wanted.inbound(),
            });
        }
        (members, standings)
    }

    /// How it is known, and how it is then; else why it cannot be known.
    fn by(&self, wanted: &Wanted, units: &Units) -> Result<(By, Standing), Arc<str>> {
        match &wanted.target {
            Target::Netns(name) => Err(Arc::from(format!(
                "network namespace `{name}` is not on the host's network"
            ))),
            Target::Unit(name) => {
                let found = units.as_ref().map_err(|e| reason(e))?;
                Ok(running(found.get(name).cloned()))
            }
            Target::Cgroup(path) => {
                let found = self.cgroups.at(path).map_err(|e| reason(&e))?;
                Ok(running(found))
            }
            Target::User(name) => {
                let uid = users::captured(name, self.reserved);
                let uid = uid.map_err(|e| reason(&e))?;
                Ok((By::User(uid), Standing::Captured))
            }
            Target::Interface(name) => Ok(self.guest(name, wanted)),
        }
    }

    /// The rules name the interface whether it is there or not: when it comes, they hold already.
    fn guest(&self, name: &Arc<str>, wanted: &Wanted) -> (By, Standing) {
        let link = self.links.iter().find(|link| link.ifname == **name);
        let bridge = link.and_then(|link| self.bridge(link));
        let guest = By::Guest {
            interface: bridge.map_or_else(|| Arc::clone(name), |bridge| Arc::from(&*bridge.ifname)),
            port: bridge.map(|_| Arc::clone(name)),
            addresses: wanted.addresses.clone(),
        };
        let standing = match (link, bridge) {
            (None, _) => Standing::Absent,
            (Some(_), Some(bridge)) if self.twice => Standing::Failed(Arc::from(format!(
                "the kernel gives frames of bridge `{}` to the rules before it is done with them; \
                 set net.bridge.bridge-nf-call-iptables=0 and net.bridge.bridge-nf-call-ip6tables=0",
                bridge.ifname
            ))),
            (Some(_), _) => Standing::Captured,
        };
        (guest, standing)
    }

    /// The bridge that a link is a port of.
    fn bridge(&self, link: &Link) -> Option<&Link> {
        let master = link.master.as_ref()?;
        let master = self.links.iter().find(|link| link.ifname == *master);
        master.filter(|link| link.is_bridge())
    }
}

fn running(cgroup: Option<Cgroup>) -> (By, Standing) {
    match cgroup {
        Some(cgroup) => (By::Cgroup(cgroup), Standing::Captured),
        None => (By::Nothing, Standing::Absent),
    }
}

fn units(workloads: &[Wanted]) -> BTreeSet<Arc<str>> {
    let unit = |wanted: &Wanted| match &wanted.target {
        Target::Unit(name) => Some(Arc::clone(name)),
        _ => None,
    };
    workloads.iter().filter_map(unit).collect()
}

fn reason(error: &dyn std::error::Error) -> Arc<str> {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Arc::from(text)
}
