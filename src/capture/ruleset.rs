//! The nftables rules of a captured workload, as data rendered once
//! (`spec/hbone-dataplane.md` §6, DESIGN §7).
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

mod dns;

use std::fmt::Write as _;

use super::privilege::Exemption;
use super::routes::{self, Family};

/// Name of our table, of family `inet`.
pub const TABLE: &str = "lateen";
/// Mark of the proxy's sockets.
pub const PROXY_MARK: u32 = 0x539;
/// Mark of answers that must go back to the proxy.
pub const RETURN_MARK: u32 = 0x111;
/// The bits of a mark that are ours.
pub const MARK_MASK: u32 = 0xfff;
/// Where connections that the workload opens are redirected to.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where plain connections to the workload are redirected to.
pub const PLAINTEXT_PORT: u16 = 15006;
/// Where tunnels arrive; never redirected.
pub const HBONE_PORT: u16 = 15008;
/// Connection tracking zone of what comes from outside; all else is in zone 0.
const OUTSIDE: u16 = 1;

/// What capture puts into a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    exemption: Exemption,
    chains: Vec<Chain>,
}

/// A chain that the kernel calls by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    name: &'static str,
    /// Type, hook and priority. The priority is a number: older nft knows the names of few hooks.
    base: &'static str,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    text: String,
    /// Why, for whoever reads `nft list ruleset`; at most 128 bytes.
    comment: &'static str,
}

/// The plan for a workload in a namespace of its own.
pub fn plan(exemption: &Exemption) -> Plan {
    let own = own(exemption);
    Plan {
        exemption: *exemption,
        chains: vec![
            zones(),
            answers(&own),
            outbound(&own),
            inbound(),
            outbound_guard(&own),
            inbound_guard(),
        ],
    }
}

/// What matches the proxy's own packets.
fn own(exemption: &Exemption) -> String {
    let mark = format!("meta mark & {MARK_MASK:#x} == {PROXY_MARK:#x}");
    match exemption {
        Exemption::Uid(uid) => format!("meta skuid {uid} {mark}"),
        Exemption::Mark => mark,
    }
}

impl Plan {
    /// How these rules know the proxy.
    pub fn exemption(&self) -> Exemption {
        self.exemption
    }

    /// The nftables script: replaces our table, whatever it held, in one transaction.
    pub fn nft(&self) -> String {
        // The first line makes the second legal where there was no table.
        let mut text =
            format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
        for chain in &self.chains {
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "\tchain {} {{\n\t\t{}", chain.name, chain.base);
            for rule in &chain.rules {
                let _infallible = writeln!(text, "\t\t{} comment \"{}\"", rule.text, rule.comment);
            }
            text.push_str("\t}\n");
        }
        text.push_str("}\n");
        text
    }

    /// The commands, each without its leading `ip`, that make the way back for answers. Those for
    /// IPv6 are for namespaces that have it.
    pub fn ip(&self) -> Vec<String> {
        let families = [Family::V4, Family::V6].into_iter();
        let way_back = families.flat_map(routes::commands);
        [routes::LOOPBACK_UP.to_owned()]
            .into_iter()
            .chain(way_back)
            .collect()
    }

    /// All of it, in the order in which it is applied, as a script that a person can read and run
    /// inside the namespace.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for command in self.ip() {
            let _infallible = writeln!(text, "ip {command}");
        }
        let _infallible = write!(text, "nft -f - <<'END'\n{}END\n", self.nft());
        text
    }
}

fn rule(text: impl Into<String>, comment: &'static str) -> Rule {
    Rule {
        text: text.into(),
        comment,
    }
}

/// A client's own connection and the one the proxy opens in its name go to the same address and
/// port; one day they are also from the same port. In one zone the second would be taken for the
/// first, and redirected with it.
fn zones() -> Chain {
    Chain {
        name: "zones",
        base: "type filter hook prerouting priority -300; policy accept;",
        rules: vec![rule(
            format!("iif != \"lo\" meta l4proto tcp ct original zone set {OUTSIDE}"),
            "tell a client's connection from the proxy's in its name",
        )],
    }
}

/// A route chain, so that the kernel looks for a route again once the mark is set.
fn answers(own: &str) -> Chain {
    Chain {
        name: "answers",
        base: "type route hook output priority -150; policy accept;",
        rules: vec![
            rule(
                format!("{own} oif \"lo\" ct state new ct mark set {RETURN_MARK:#x}"),
                "the proxy connects to the program: remember the connection",
            ),
            rule(
                format!(
                    "ct direction reply ct mark & {MARK_MASK:#x} == {RETURN_MARK:#x} \
                     meta mark set {RETURN_MARK:#x}"
                ),
                "the program's answers go back to the proxy",
            ),
        ],
    }
}

fn outbound(own: &str) -> Chain {
    Chain {
        name: "outbound",
        base: "type nat hook output priority -100; policy accept;",
        rules: vec![
            rule(format!("{own} accept"), "the proxy itself"),
            rule("oif \"lo\" accept", "to the workload itself"),
            rule(format!("{NOT_OPENING} accept"), "older than these rules"),
            rule(
                format!("meta l4proto tcp redirect to :{OUTBOUND_PORT}"),
                "all else the workload opens",
            ),
        ],
    }
}

fn inbound() -> Chain {
    Chain {
        name: "inbound",
        base: "type nat hook prerouting priority -100; policy accept;",
        rules: vec![
            rule("iif \"lo\" accept", "from the proxy or the workload itself"),
            rule(format!("tcp dport {HBONE_PORT} accept"), "tunnels"),
            rule(format!("{NOT_OPENING} accept"), "older than these rules"),
            rule(
                format!("meta l4proto tcp redirect to :{PLAINTEXT_PORT}"),
                "all else from outside, in plain text",
            ),
        ],
    }
}

const NOT_OPENING: &str = "tcp flags & (syn | ack) != syn";
const OPENING: &str = "tcp flags & (syn | ack) == syn";

/// What was redirected is on its way to a loopback address by now, though its interface is still
/// the one of before.
fn outbound_guard(own: &str) -> Chain {
    Chain {
        name: "outbound_guard",
        base: "type filter hook output priority 0; policy accept;",
        rules: vec![
            rule(format!("{own} accept"), "the proxy itself"),
            rule("oif \"lo\" accept", "to the workload itself"),
            rule("ip daddr 127.0.0.0/8 accept", "redirected to the proxy"),
            rule("ip6 daddr ::1 accept", "redirected to the proxy"),
            rule(
                format!("{OPENING} counter reject with tcp reset"),
                "opened beside the proxy",
            ),
            // The kernel fragments after this hook: here only raw sockets do, to hide the flags.
            rule(
                "meta l4proto tcp ip frag-off & 0x3fff != 0 counter drop",
                "fragments made to slip past the rule above",
            ),
            rule(
                "meta l4proto tcp exthdr frag exists counter drop",
                "fragments made to slip past the rule above",
            ),
        ],
    }
}

fn inbound_guard() -> Chain {
    Chain {
        name: "inbound_guard",
        base: "type filter hook input priority 0; policy accept;",
        rules: vec![
            rule("iif \"lo\" accept", "from the proxy or the workload itself"),
            rule(
                format!("tcp dport {{ {PLAINTEXT_PORT}, {HBONE_PORT} }} accept"),
                "to the proxy",
            ),
            rule(
                format!("{OPENING} counter reject with tcp reset"),
                "opened beside the proxy",
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_told_by_user_and_mark_or_where_there_is_one_user_by_mark() {
        let mark = "meta mark & 0xfff == 0x539";
        for (name, exemption, exempt, by_user) in [
            (
                "users",
                Exemption::Uid(1337),
                format!("meta skuid 1337 {mark}"),
                3,
            ),
            ("one user", Exemption::Mark, mark.to_owned(), 0),
        ] {
            let text = plan(&exemption).nft();
            assert_eq!(text.matches(&exempt).count(), 3, "{name}");
            assert_eq!(text.matches(mark).count(), 3, "{name}: never by half of it");
            assert_eq!(text.matches("meta skuid").count(), by_user, "{name}");
        }
    }

    #[test]
    fn the_plan_replaces_our_table_and_names_no_other() {
        let text = plan(&Exemption::Uid(1)).nft();
        assert!(text.starts_with("table inet lateen\ndelete table inet lateen\n"));
        assert!(!text.contains("flush"));
        assert_eq!(text.matches("table").count(), 3);
    }

    #[test]
    fn every_rule_says_why_within_the_length_nft_takes() {
        for chain in plan(&Exemption::Mark).chains {
            for rule in chain.rules {
                let bytes = rule.comment.len();
                assert!((1..=128).contains(&bytes), "{}: {rule:?}", chain.name);
                assert!(!rule.comment.contains('"'), "{rule:?}");
            }
        }
    }

    #[test]
    fn a_plan_reads_as_a_script() {
        let text = plan(&Exemption::Uid(1)).render();
        let first = text.lines().next();
        assert_eq!(first, Some("ip link set lo up"));
        assert_eq!(text.matches("ip -4 ").count(), 2);
        assert_eq!(text.matches("ip -6 ").count(), 2);
        assert!(text.ends_with("}\nEND\n"));
    }
}
