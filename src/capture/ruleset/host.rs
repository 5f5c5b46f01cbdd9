//! The rules of the host's own network, for all workloads that share it: units and other cgroups,
//! users, and guests behind an interface of the host (DESIGN §7).
//!
//! Each workload has a mark, in the bits that are ours. What opens a connection is given its
//! workload's mark by one look into a map, keyed by the cgroup or the user of its socket; marked
//! connections are redirected, and `tcp_fwmark_accept` hands the mark on to the socket that the
//! proxy accepts, provided the listener has none of its own. Marks that programs set are taken off,
//! and the proxy's port takes them from connection tracking, which frames that are forged onto the
//! loopback interface have not been through: a mark names a workload and cannot be forged.
//!
//! What comes to a port that a workload declares is redirected as well, from outside and from
//! programs of this host that are not captured. A guest is another host to the kernel: its
//! connections are taken in passing (TPROXY), and so are those on the way to it.
//!
//! Datagrams for the mesh carry the mark of their workload as well ([`mod@datagrams`]).
//!
//! Maps and sets hold what changes, chains what does not: a unit that starts changes an element, in
//! one transaction that leaves all else as it is.

mod bridge;
mod chains;
mod collections;
mod datagrams;
mod dns;
mod matches;
mod tunnels;

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Exclusions, FIRST_MARK, Family, MARK_MASK, Table, own};
use crate::capture::privilege::Exemption;
use crate::capture::routes::{self, Ways};
use chains::chains;
use collections::collections;

pub(in crate::capture) use collections::{Turnover, by_marks, units};

/// What has no way through a proxy: addresses that mean another host on every link, and groups.
const NOWHERE: [&str; 4] = ["169.254.0.0/16", "224.0.0.0/4", "fe80::/10", "ff00::/8"];

/// What names a workload of the host's network to the rules, and in the sockets it opened: from
/// 0x600 to 0xfff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mark(u32);

/// A number that names no workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:#x} is no workload's mark, which are from {FIRST_MARK:#x} to {MARK_MASK:#x}")]
pub struct NoMark(u32);

impl TryFrom<u32> for Mark {
    type Error = NoMark;

    fn try_from(bits: u32) -> Result<Self, NoMark> {
        let range = FIRST_MARK..=MARK_MASK;
        range
            .contains(&bits)
            .then_some(Self(bits))
            .ok_or(NoMark(bits))
    }
}

impl From<Mark> for u32 {
    fn from(mark: Mark) -> Self {
        mark.0
    }
}

impl Mark {
    /// Every mark there is, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (FIRST_MARK..=MARK_MASK).map(Self)
    }

    /// The mark that a socket bears, among bits of others.
    pub fn of(socket: u32) -> Option<Self> {
        let ours = socket & MARK_MASK;
        (ours >= FIRST_MARK).then_some(Self(ours))
    }

    /// As a socket bears it.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A cgroup as it is now. One that is made again has another number under the same path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup {
    /// Below the root of the cgroups, without a leading slash.
    pub path: Arc<str>,
    /// The number the kernel knows it by, and its directory's inode.
    pub id: u64,
}

/// How what a workload opens is told from what others do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// By the cgroup its sockets were made in, or one above.
    Cgroup(Cgroup),
    /// By the user its sockets belong to.
    User(u32),
    /// By the interface it comes in at, and its own addresses.
    Guest {
        /// The host's end of its link, or the bridge that it is a port of.
        interface: Arc<str>,
        /// That port.
        port: Option<Arc<str>>,
        /// Its addresses.
        addresses: BTreeSet<IpAddr>,
    },
    /// Not at all: it does not run now, though others may call it.
    Nothing,
}

/// A workload on the host's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What names it.
    pub mark: Mark,
    /// How it is known.
    pub by: By,
    /// Where it is called: its addresses with the ports it declares. A guest has none, since all
    /// of its ports are.
    pub inbound: BTreeSet<SocketAddr>,
    /// Where it is sent datagrams: its addresses with the ports of UDP it declares, a guest's too.
    pub datagrams: BTreeSet<SocketAddr>,
}

/// What capture puts into the host's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    exemption: Exemption,
    guests: bool,
    table: Table,
    /// That of family `bridge`, where a guest is a port of one.
    bridge: Option<Table>,
}

impl HostPlan {
    /// The plan for these workloads. Of two that are known by the same, the first has it.
    pub fn new(exemption: Exemption, exclusions: &Exclusions, members: &[Member]) -> Self {
        let configured = exclusions;
        let mut exclusions = exclusions.clone();
        let nowhere = NOWHERE
            .iter()
            .filter_map(|range| range.parse::<IpNet>().ok());
        exclusions.ranges.extend(nowhere);
        let guests = members.iter().any(|m| matches!(m.by, By::Guest { .. }));
        let collections = collections(members, &exclusions, guests);
        let levels = collections.iter().filter(|c| c.level().is_some()).count();
        let chains = chains(&own(exemption), &exclusions, levels, guests);
        let mut table = Table::new(Family::Inet, chains);
        table.collections = collections;
        Self {
            exemption,
            guests,
            table,
            bridge: bridge::table(members, configured, &exclusions),
        }
    }

    /// How these rules know the proxy.
    pub fn exemption(&self) -> Exemption {
        self.exemption
    }

    /// Whether there are guests, whose packets take routes of their own.
    pub fn guests(&self) -> bool {
        self.guests
    }

    /// What packets take a route of their own.
    pub(in crate::capture) fn ways(&self) -> Ways {
        Ways {
            guests: self.guests,
            datagrams: self.captures_udp(),
        }
    }

    /// Whether some guest is behind a port of a bridge, which takes a table of its own.
    pub fn bridged(&self) -> bool {
        self.bridge.is_some()
    }

    /// Our table of family `inet`.
    pub(in crate::capture) fn table(&self) -> &Table {
        &self.table
    }

    /// That of family `bridge`.
    pub(in crate::capture) fn bridge(&self) -> Option<&Table> {
        self.bridge.as_ref()
    }

    /// The nftables script: replaces our table, whatever it held, in one transaction.
    pub fn nft(&self) -> String {
        let tables = self.tables().into_iter();
        let there = tables.filter_map(|(family, table)| Some((family, table?)));
        there
            .map(|(family, table)| family.cleared() + &table)
            .collect()
    }

    /// Our tables of each family, in nft's words; `None` for one that is not to be there.
    pub(in crate::capture) fn tables(&self) -> [(Family, Option<String>); 2] {
        let bridge = self.bridge().map(Table::declared);
        let own = self.table.declared();
        [(Family::Inet, Some(own)), (Family::Bridge, bridge)]
    }

    /// The nftables script that makes this plan of an earlier one, in one transaction; empty where
    /// they are the same, `None` where it takes more than elements.
    pub fn changing(&self, from: &Self) -> Option<String> {
        let bridge = match (&self.bridge, &from.bridge) {
            (Some(now), Some(then)) => now.refilling(then)?,
            (None, None) => String::new(),
            _ => return None,
        };
        Some(self.table.refilling(&from.table)? + &bridge)
    }

    /// What has come and gone since an earlier plan, where that is all; `None` where more has changed.
    pub(in crate::capture) fn turnovers(&self, from: &Self) -> Option<Vec<Turnover>> {
        if self.bridge != from.bridge {
            return None;
        }
        let changed = self.table.changed(&from.table)?;
        changed.map(|(now, then)| now.turnover(then)).collect()
    }

    /// The commands, each without its leading `ip`, that make the routes. Those for IPv6 are for
    /// hosts that have it.
    pub fn ip(&self) -> Vec<String> {
        let families = [routes::Family::V4, routes::Family::V6].into_iter();
        let routes = families.flat_map(|family| routes::commands(family, self.ways()));
        [routes::LOOPBACK_UP.to_owned()]
            .into_iter()
            .chain(routes)
            .collect()
    }

    /// All of it, in the order in which it is applied, as a script that a person can read and run.
    pub fn render(&self) -> String {
        let mut text = format!("sysctl -w {}=1\n", ACCEPT_MARKS.replace('/', "."));
        for command in self.ip() {
            let _infallible = writeln!(text, "ip {command}");
        }
        let _infallible = write!(text, "nft -f - <<'END'\n{}END\n", self.nft());
        text
    }
}

/// The setting that hands a connection's mark on to the socket that accepts it, for IPv6 too.
pub const ACCEPT_MARKS: &str = "net/ipv4/tcp_fwmark_accept";

#[cfg(test)]
mod tests;
