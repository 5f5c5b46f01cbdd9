//! nftables rules as data, rendered once (`spec/hbone-dataplane.md` §6, DESIGN §7): [`netns`] for a
//! workload in a namespace of its own, [`host`] for all that share the host's network.
//!
//! Everything is in one `inet` table, so that IPv6 cannot leak beside IPv4. The proxy's own packets
//! are known by the user who owns their socket and the mark that it bears. Neither exempts alone: any
//! program with NET_RAW can set a mark (`spec/reliability.md` §0 F3), and commands that probe a
//! workload run as the proxy's user, though without what setting a mark takes.
//!
//! The way back of a connection that the proxy opened under its client's address needs help, since
//! the program's answers are addressed to that client. The connection is marked where the proxy
//! opens it, in connection tracking, which no workload can write to; the answers take their mark
//! from there, and [`super::routes`] bends marked packets back to the proxy.
//!
//! Redirection judges the first packet of each connection. Packets of connections older than the
//! rules look the same as first ones, so whatever does not open a connection is let alone, and such
//! connections live on. Alone, that would be a way out: a program with NET_RAW sends a stray
//! acknowledgement, which makes the kernel track a connection that nobody redirected, and then
//! connects with the same ports. The guards behind the redirection close it: no segment that opens
//! a connection leaves, or arrives, other than through the proxy.

mod collection;
mod datagrams;
mod dns;
pub mod exclusions;
mod family;
pub mod host;
pub mod netns;
mod table;

use std::fmt;

use super::privilege::Exemption;

pub(in crate::capture) use datagrams::{DESTINATIONS, OF_GUESTS, SETS, priority, read};
pub use datagrams::{Datagrams, WantedDatagrams};
pub use exclusions::Exclusions;
use exclusions::one_of;
pub(in crate::capture) use family::Family;
pub use host::{By, Cgroup, HostPlan, Member};
pub use netns::{Plan, plan};
pub(in crate::capture) use table::Table;

/// Name of our tables: of family `inet`, and of family `bridge` for guests there.
pub const TABLE: &str = "lateen";
/// Mark of the proxy's sockets.
pub const PROXY_MARK: u32 = 0x539;
/// Mark of answers that must go back to the proxy, and of what this host sends by QUIC to a guest.
pub const RETURN_MARK: u32 = 0x111;
/// Mark of datagrams that a workload sends and that must come to the proxy.
pub const DATAGRAM_MARK: u32 = 0x222;
/// Mark of what is on its way to a guest and must come to the proxy first.
pub const GUEST_MARK: u32 = 0x333;
/// The first of the marks that name a workload on the host's network; all above are.
pub const FIRST_MARK: u32 = 0x600;
/// The bits of a mark that are ours.
pub const MARK_MASK: u32 = 0xfff;
/// Where connections that the workload opens are redirected to.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where plain connections to the workload are redirected to.
pub const PLAINTEXT_PORT: u16 = 15006;
/// Where tunnels arrive.
pub const HBONE_PORT: u16 = 15008;
/// Connection tracking zone of what comes from outside; all else is in zone 0.
const OUTSIDE: u16 = 1;

const NOT_OPENING: &str = "tcp flags & (syn | ack) != syn";
const OPENING: &str = "tcp flags & (syn | ack) == syn";
/// Pieces of a packet. The kernel makes them after the hooks where this is asked: there, only raw
/// sockets do, to hide the flags.
const FRAGMENTS: [&str; 2] = ["ip frag-off & 0x3fff != 0", "exthdr frag exists"];
/// To a socket that is there and is none of the proxy's, all but one of which are marked.
const UNMARKED_LISTENER: &str = "socket mark & 0xfff != 0x539";
/// To addresses of this host alone. What was redirected is on its way there too, though its
/// interface is still the one of before.
const LOOPBACK: [&str; 2] = ["ip daddr 127.0.0.0/8", "ip6 daddr ::1"];

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    name: &'static str,
    /// Type, hook and priority; empty where other chains call it. The priority is a number: older
    /// nft knows the names of few hooks.
    base: &'static str,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    text: String,
    /// Why, for whoever reads `nft list ruleset`; at most 128 bytes.
    comment: &'static str,
}

fn rule(text: impl Into<String>, comment: &'static str) -> Rule {
    Rule {
        text: text.into(),
        comment,
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if !self.base.is_empty() {
            writeln!(f, "\t\t{}", self.base)?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{} comment \"{}\"", rule.text, rule.comment)?;
        }
        writeln!(f, "\t}}")
    }
}

/// What is true of the proxy's own packets, and of no others.
fn own(exemption: Exemption) -> String {
    let mark = format!("meta mark & {MARK_MASK:#x} == {PROXY_MARK:#x}");
    match exemption {
        Exemption::Uid(uid) => format!("meta skuid {uid} {mark}"),
        Exemption::Mark => mark,
    }
}

/// While the proxy is away anybody may listen on its ports. What is redirected there is not for them:
/// without privileges a socket has neither a mark nor an address that is not its own. `proxys` is what
/// is true of the proxy's listeners and not of others.
fn squatted(proxys: &str) -> Rule {
    let ports = format!("tcp dport {{ {OUTBOUND_PORT}, {PLAINTEXT_PORT} }} {OPENING}");
    rule(
        format!("{ports} {proxys} counter reject with tcp reset"),
        "to a program that has taken the proxy's port",
    )
}

/// The two rules for the way back of connections that the proxy opens to programs. They belong into
/// a route chain, so that the kernel looks for a route again once the mark is set.
fn way_back(own: &str) -> [Rule; 2] {
    let others = !MARK_MASK;
    [
        rule(
            format!(
                "{own} oif \"lo\" ct state new ct mark set ct mark & {others:#x} | {RETURN_MARK:#x}"
            ),
            "the proxy connects to the program: remember the connection",
        ),
        rule(
            format!(
                "ct direction reply ct mark & {MARK_MASK:#x} == {RETURN_MARK:#x} \
                 meta mark set meta mark & {others:#x} | {RETURN_MARK:#x} accept"
            ),
            "the program's answers go back to the proxy",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that has all the lines of another, and more.
    pub(super) fn assert_only_adds(plain: &str, with: &str) {
        let lost = plain
            .lines()
            .filter(|line| !with.lines().any(|l| l == *line));
        let lost: Vec<_> = lost.collect();
        assert!(lost.is_empty(), "{lost:?}");
    }

    /// What holds for every rule: nft takes it, and it cannot break out of its quotes.
    pub(super) fn assert_explained(chains: &[Chain]) {
        for chain in chains {
            for rule in &chain.rules {
                let bytes = rule.comment.len();
                assert!((1..=128).contains(&bytes), "{}: {rule:?}", chain.name);
                assert!(!rule.comment.contains('"'), "{rule:?}");
            }
        }
    }

    #[test]
    fn workloads_marks_are_none_of_the_others() {
        for mark in [PROXY_MARK, RETURN_MARK, DATAGRAM_MARK, GUEST_MARK] {
            assert!(mark < FIRST_MARK && mark & !MARK_MASK == 0, "{mark:#x}");
        }
    }
}
