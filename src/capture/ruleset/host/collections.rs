//! What changes in the host's rules: who is known by what, and where they are called.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{By, Mark, Member};
use crate::capture::ruleset::Exclusions;
use crate::capture::ruleset::collection::Collection;

/// Levels of cgroups that there are maps for at least, so that what starts deeper changes no chain:
/// `a.slice/a-b.slice/a-b-c.slice/x.service` has four.
const LEVELS: usize = 4;

/// Cgroups that have come to a map of them, and that have gone, by the numbers that the kernel knows them
/// by: one that is gone has no name any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::capture) struct Turnover {
    /// The map.
    pub(in crate::capture) map: String,
    pub(in crate::capture) come: BTreeMap<u64, Mark>,
    pub(in crate::capture) gone: BTreeSet<u64>,
}

/// Name of the maps of cgroups, up to their level.
pub(super) const UNITS: &str = "units_";

/// Those of users, and of guests, up to their family.
const USERS: &str = "users";
const GUESTS: &str = "guests";

/// The names of all maps to marks, by kind: within a kind, after one that is not there comes no other.
pub(in crate::capture) fn by_marks() -> [Box<dyn Iterator<Item = String>>; 3] {
    [
        Box::new((1..).map(|level| format!("{UNITS}{level}"))),
        Box::new(std::iter::once(USERS.to_owned())),
        Box::new(
            ["4", "6"]
                .into_iter()
                .map(|family| format!("{GUESTS}{family}")),
        ),
    ]
}

impl Collection {
    pub(super) fn level(&self) -> Option<&str> {
        self.name.strip_prefix(UNITS)
    }

    /// What has come and gone since `then`; `None` where something else has changed.
    pub(super) fn turnover(&self, then: &Self) -> Option<Turnover> {
        self.level()?;
        let (now, then) = (self.numbered()?, then.numbered()?);
        let moved = |(id, mark): (&u64, &Mark)| now.get(id).is_some_and(|now| now != mark);
        if then.iter().any(moved) {
            return None;
        }
        let gone = then.keys().filter(|id| !now.contains_key(id)).copied();
        let gone = gone.collect();
        let come = now.into_iter().filter(|(id, _)| !then.contains_key(id));
        Some(Turnover {
            map: self.name.clone(),
            come: come.collect(),
            gone,
        })
    }

    /// Marks by the numbers of cgroups.
    fn numbered(&self) -> Option<BTreeMap<u64, Mark>> {
        let elements = self.elements.values();
        elements
            .map(|e| Some((e.id, Mark::try_from(e.value?).ok()?)))
            .collect()
    }
}

/// Every set and map of the table.
pub(super) fn collections(
    members: &[Member],
    exclusions: &Exclusions,
    guests: bool,
) -> Vec<Collection> {
    let mut units: Vec<_> = (1..=depth(members).max(LEVELS))
        .map(|level| Collection::new(format!("{UNITS}{level}"), "cgroupsv2 : mark"))
        .collect();
    let mut users = Collection::new(USERS, "uid : mark");
    let mut declared = Pair::ends("declared");
    let mut sources = Pair::new(
        GUESTS,
        "ifname . ipv4_addr : mark",
        "ifname . ipv6_addr : mark",
    );
    let mut addressed = Pair::new("guest_addresses", "ipv4_addr", "ipv6_addr");
    let mut interfaces = Collection::new("guest_interfaces", "ifname");
    for member in members {
        let mark = Some(member.mark.bits());
        declared.add(&member.inbound, exclusions);
        match &member.by {
            By::Cgroup(cgroup) => {
                if let Some(units) = units.get_mut(level(&cgroup.path) - 1) {
                    units.add(format!("\"{}\"", cgroup.path), mark, cgroup.id);
                }
            }
            By::User(uid) => users.add(uid.to_string(), mark, 0),
            By::Guest {
                interface,
                addresses,
                port,
            } => {
                if port.is_none() {
                    interfaces.add(format!("\"{interface}\""), None, 0);
                }
                for ip in addresses {
                    let key = format!("\"{interface}\" . {ip}");
                    sources.of(*ip).add(key, mark, 0);
                    addressed.of(*ip).add(ip.to_string(), None, 0);
                }
            }
            By::Nothing => {}
        }
    }
    let mut all = units;
    all.push(users);
    all.extend(declared.0);
    if guests {
        all.extend(sources.0.into_iter().chain(addressed.0));
        all.push(interfaces);
    }
    all
}

/// The same for IPv4 and IPv6.
pub(super) struct Pair(pub(super) [Collection; 2]);

impl Pair {
    fn new(name: &str, v4: &'static str, v6: &'static str) -> Self {
        Self([
            Collection::new(format!("{name}4"), v4),
            Collection::new(format!("{name}6"), v6),
        ])
    }

    /// Of addresses, each with a port.
    pub(super) fn ends(name: &str) -> Self {
        Self::new(name, "ipv4_addr . inet_service", "ipv6_addr . inet_service")
    }

    /// Adds ends whose ports are not let alone.
    pub(super) fn add(&mut self, ends: &BTreeSet<SocketAddr>, exclusions: &Exclusions) {
        for at in ends {
            if !exclusions.ports.contains(&at.port()) {
                let key = format!("{} . {}", at.ip(), at.port());
                self.of(at.ip()).add(key, None, 0);
            }
        }
    }

    fn of(&mut self, ip: IpAddr) -> &mut Collection {
        let Self([v4, v6]) = self;
        match ip {
            IpAddr::V4(_) => v4,
            IpAddr::V6(_) => v6,
        }
    }
}

fn depth(members: &[Member]) -> usize {
    let levels = members.iter().map(|member| match &member.by {
        By::Cgroup(cgroup) => level(&cgroup.path),
        By::User(_) | By::Guest { .. } | By::Nothing => 0,
    });
    levels.max().unwrap_or(0)
}

/// The name of the map that cgroups at a path like this are in.
pub(in crate::capture) fn units(path: &str) -> String {
    format!("{UNITS}{}", level(path))
}

/// How far below the root a cgroup is, the root itself being at 0; no cgroup of ours is the root.
fn level(path: &str) -> usize {
    path.split('/').count()
}
