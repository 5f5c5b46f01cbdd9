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

/// Longest name of an interface (`IFNAMSIZ`, less its zero), and longest path, in bytes.
const LONGEST_INTERFACE: usize = 15;
const LONGEST_PATH: usize = 4096;

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
        let mut users = BTreeSet::new();
        let already = |wanted: &Wanted| {
            let target = &wanted.target;
            Err(Arc::from(format!(
                "another workload of this host is {target} already"
            )))
        };
        for wanted in workloads {
            let guest = matches!(wanted.target, Target::Interface(_));
            let known = match taken.insert((&wanted.target, guest.then_some(&wanted.addresses))) {
                true => self.by(wanted, &units),
                false => already(wanted),
            };
            let known = match known {
                // By another name.
                Ok((By::User(uid), _)) if !users.insert(uid) => already(wanted),
                known => known,
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
                datagrams: wanted.datagrams(),
            });
        }
        (members, standings)
    }

    /// How it is known, and how it is then; else why it cannot be known.
    fn by(&self, wanted: &Wanted, units: &Units) -> Result<(By, Standing), Arc<str>> {
        if !is_word(&wanted.target) {
            let target = wanted.target.to_string();
            let start = target.chars().take(80).flat_map(char::escape_debug);
            let said = format!("no rule can name {}", start.collect::<String>());
            return Err(Arc::from(said));
        }
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

/// Whether a rule can name it, in quotes that it does not end, whatever the proxy has become. One that
/// cannot be named is not captured; the rules of all others are none the worse for it.
fn is_word(target: &Target) -> bool {
    let (name, longest) = match target {
        Target::Interface(name) => (name, LONGEST_INTERFACE),
        Target::Netns(name) | Target::Unit(name) | Target::Cgroup(name) | Target::User(name) => {
            (name, LONGEST_PATH)
        }
    };
    let foul = |c: char| c.is_control() || matches!(c, '"' | '*');
    // Nor does one lead out of the cgroups.
    let astray = |name: &str| name.split('/').any(|part| matches!(part, "" | "." | ".."));
    let is_path = matches!(target, Target::Cgroup(_));
    (1..=longest).contains(&name.len()) && !name.contains(foul) && !(is_path && astray(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(nth: usize, target: Target) -> Wanted {
        Wanted {
            mark: Mark::all().nth(nth).unwrap(),
            target,
            addresses: ["192.0.2.1".parse().unwrap()].into(),
            ports: [80].into(),
            udp_ports: BTreeSet::new(),
        }
    }

    async fn resolved(targets: Vec<Target>) -> (Vec<Member>, Vec<Standing>) {
        let cgroups = Cgroups::new().unwrap();
        let resolver = Resolver {
            links: &[],
            twice: false,
            cgroups: &cgroups,
            reserved: &BTreeSet::new(),
        };
        let targets = targets.into_iter().enumerate();
        let workloads: Vec<_> = targets.map(|(nth, target)| wanted(nth, target)).collect();
        let (members, standings) = resolver.resolve(&workloads);
        (members, standings.into_values().collect())
    }

    #[tokio::test]
    async fn a_name_that_is_more_than_a_word_of_a_rule_fails_alone() {
        let name = |name: &str| Arc::<str>::from(name);
        for foul in ["tap0\n", "a\" accept; flush ruleset; \"", "", "tap*"] {
            for make in [
                Target::Interface,
                Target::Cgroup,
                Target::Unit,
                Target::User,
            ] {
                let good = Target::User(name("4711"));
                let (members, standings) = resolved(vec![make(name(foul)), good]).await;
                assert!(matches!(standings[0], Standing::Failed(_)), "{standings:?}");
                assert_eq!(members[0].by, By::Nothing);
                assert_eq!(members[1].by, By::User(4711));
            }
        }
        for path in ["../etc", "/etc", "a//b", "a/."] {
            let (_members, standings) = resolved(vec![Target::Cgroup(name(path))]).await;
            assert!(matches!(standings[0], Standing::Failed(_)), "{path}");
        }
        let long = resolved(vec![Target::Interface(name("tap0123456789abc"))]).await;
        assert!(matches!(long.1[0], Standing::Failed(_)), "{:?}", long.1);
        for fair in ["tap0", "br-1.2", "wg#0=a", "a+b"] {
            let (_members, standings) = resolved(vec![Target::Interface(name(fair))]).await;
            assert_eq!(standings, [Standing::Absent], "{fair}");
        }
    }

    #[tokio::test]
    async fn one_user_by_two_names_is_one_workload() {
        let Ok(uid) = users::uid("daemon") else {
            return eprintln!("skipped: no user `daemon` here");
        };
        let targets = ["daemon", &uid.to_string()].map(|name| Target::User(name.into()));
        let (members, standings) = resolved(targets.into()).await;
        assert_eq!(standings[0], Standing::Captured);
        assert!(matches!(&standings[1], Standing::Failed(r) if r.contains("already")));
        assert_eq!(members[1].by, By::Nothing);
    }
}
