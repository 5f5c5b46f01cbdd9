//! The rules by which a workload's datagrams for the mesh, and those for ports that it declares, come to
//! the proxy (`spec/hbone-dataplane.md` §6.8). All other datagrams are let alone.
//!
//! Each datagram is judged by itself: nothing is translated, so the proxy reads its destination off it,
//! and it does not matter what connection tracking remembers of the same ends. What a program sends is
//! marked, routed to this network by the mark, and handed to the proxy's socket there. Once marked it
//! never leaves: where the route is not there, or the program's socket is bound to a device, which
//! routes by marks do not bend, it is dropped.
//!
//! Answers bear the address that was asked. A socket of the proxy cannot be bound to a port that a
//! program of this network has, nor without powers to one below 1024. So it is bound to any other, says
//! by its priority which one it answers from, and that is written into what it sends.
//!
//! A conversation that the proxy opens to a program is remembered as connections are, by its ends. A
//! client in plain text and the proxy in its name have the same ends, and are one conversation to
//! connection tracking: the program's answers are the proxy's, whose own are let alone.

pub(super) mod elements;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{
    Chain, DATAGRAM_MARK, Exclusions, FRAGMENTS, MARK_MASK, OUTBOUND_PORT, PLAINTEXT_PORT,
    PROXY_MARK, Plan, RETURN_MARK, Rule, own, rule,
};

/// Which datagrams come to the proxy.
///
/// Ports of the proxy itself, and addresses that are no single host's elsewhere, are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Datagrams {
    /// Where those go to that the workload sends into the mesh: addresses of services and of workloads,
    /// each with a port.
    pub destinations: BTreeSet<SocketAddr>,
    /// Ports of the workload, on each of its addresses, at which it is called from outside.
    pub ports: BTreeSet<u16>,
}

/// Which datagrams come to the proxy; `None` until it is known, and what was captured stays so.
pub type WantedDatagrams = Option<std::sync::Arc<Datagrams>>;

/// To what the mesh takes, by family of addresses.
pub(super) const CAPTURED: [&str; 2] =
    ["ip daddr . udp dport @udp4", "ip6 daddr . udp dport @udp6"];
/// To what the mesh takes of guests, by family: what they ask for names as well, which of others is
/// another affair.
pub(super) const TAKEN: [&str; 2] = [
    "ip daddr . udp dport @guest_udp4",
    "ip6 daddr . udp dport @guest_udp6",
];

/// From outside to a port that the workload declares; not to a group, whose datagrams are others' too.
const DECLARED: &str = "iif != \"lo\" meta pkttype host udp dport @udp_ports";

impl Plan {
    /// The same, with these datagrams; `exclusions` is what is let alone. With questions for names, what
    /// is sent to port 53 is theirs.
    #[must_use]
    pub fn with_udp(mut self, exclusions: &Exclusions, datagrams: &Datagrams) -> Self {
        let own = own(self.exemption);
        for chain in &mut self.table.chains {
            let rules = &mut chain.rules;
            match chain.name {
                "answers" => drop(rules.splice(0..0, outbound(&own, exclusions))),
                "outbound_guard" => {
                    let made = FRAGMENTS.map(fragments);
                    let at = rules
                        .iter()
                        .position(|r| r.text.starts_with("meta l4proto tcp"));
                    let at = at.unwrap_or(rules.len());
                    drop(rules.splice(at..at, made));
                    rules.extend(exclusions.datagrams());
                    rules.extend(CAPTURED.map(beside));
                }
                "inbound_guard" => {
                    drop(rules.splice(0..0, for_the_proxy()));
                    rules.extend(exclusions.datagrams());
                    rules.push(not_the_proxys(DECLARED));
                }
                _ => {}
            }
        }
        self.table.chains.insert(0, answered(&own));
        self.table.chains.extend([taken(exclusions), on_the_wire()]);
        self.holding(datagrams)
    }

    /// The same with other datagrams, which changes elements of its sets alone; nothing where it is
    /// without any.
    #[must_use]
    pub fn holding(mut self, datagrams: &Datagrams) -> Self {
        if self.captures_udp() {
            let names = self
                .table
                .chains
                .iter()
                .any(|chain| chain.name == "questions");
            let before = &self.table.collections;
            self.table.collections = elements::collections(datagrams, names, before);
        }
        self
    }

    /// Whether datagrams are captured.
    pub fn captures_udp(&self) -> bool {
        self.table.chains.iter().any(|chain| chain.name == "taken")
    }

    /// The nftables script that makes this plan of an earlier one by elements alone; empty where they
    /// are the same, `None` where it takes more.
    pub fn changing(&self, from: &Self) -> Option<String> {
        self.table.turning(&from.table)
    }
}

pub(in crate::capture) use elements::{DESTINATIONS, OF_GUESTS, SETS, priority, read};

/// Keeps the bits of a mark that are others', and sets ours.
pub(super) fn with_mark(mark: u32) -> String {
    format!("& {:#x} | {mark:#x}", !MARK_MASK)
}

pub(super) fn bears(mark: u32) -> String {
    format!("meta mark & {MARK_MASK:#x} == {mark:#x}")
}

/// Before connection tracking, which would not know an answer by the port that its socket has.
pub(super) fn answered(own: &str) -> Chain {
    Chain {
        name: "answered",
        base: "type filter hook output priority -300; policy accept;",
        rules: vec![rule(
            format!("{own} udp sport set meta priority map @udp_sources"),
            "answers come from the port that was asked",
        )],
    }
}

/// What programs send. Before the way back: an end that the mesh takes is the proxy's, whatever
/// connection tracking has made of an answer that came after it had forgotten the question.
fn outbound(own: &str, exclusions: &Exclusions) -> Vec<Rule> {
    let mark = bears(DATAGRAM_MARK);
    let mut rules = vec![
        rule(
            format!(
                "{own} meta l4proto udp oif \"lo\" ct direction original ct mark set ct mark {}",
                with_mark(RETURN_MARK)
            ),
            "the proxy speaks to the program: remember the conversation",
        ),
        rule(format!("{own} meta l4proto udp accept"), "the proxy itself"),
        rule(
            format!("meta l4proto udp {mark} counter drop"),
            "what is captured, is not for programs to say",
        ),
        rule(
            format!(
                "meta l4proto {{ icmp, ipv6-icmp }} ct state related ct mark & {MARK_MASK:#x} == \
                 {DATAGRAM_MARK:#x} drop"
            ),
            "that a program is gone, with what it was answered",
        ),
        rule(
            "meta l4proto udp oif \"lo\" accept",
            "to the workload itself",
        ),
    ];
    rules.extend(asked_alone(exclusions));
    let mark = with_mark(DATAGRAM_MARK);
    // Two rules: what is not tracked is captured all the same.
    rules.extend(CAPTURED.map(|to| {
        rule(
            format!("{to} ct mark set ct mark {mark}"),
            "whose errors are not to leave",
        )
    }));
    rules.extend(CAPTURED.map(|to| {
        rule(
            format!("{to} meta mark set meta mark {mark} accept"),
            "into the mesh",
        )
    }));
    rules
}

/// What programs send that is let alone, but for answers: those are the way of their questions.
pub(super) fn asked_alone(exclusions: &Exclusions) -> impl Iterator<Item = Rule> {
    exclusions.datagrams_out().into_iter().map(|mut alone| {
        alone.text = format!("meta l4proto udp ct direction original {}", alone.text);
        alone
    })
}

/// A marked datagram has not left this network. That it is for the mesh, and from here, is asked once
/// more: frames that are forged onto the loopback interface have not been asked.
fn taken(exclusions: &Exclusions) -> Chain {
    let mark = bears(DATAGRAM_MARK);
    let pairs = CAPTURED.into_iter().zip(["ip", "ip6"]);
    let mut rules: Vec<_> = pairs
        .map(|(to, family)| {
            let which = format!("iif \"lo\" {mark} fib saddr type local {to}");
            rule(
                format!("{which} tproxy {family} to :{OUTBOUND_PORT} accept"),
                "into the mesh",
            )
        })
        .collect();
    rules.extend(from_outside(exclusions));
    rules.push(rule(
        format!("{DECLARED} tproxy to :{PLAINTEXT_PORT} accept"),
        "from outside, in plain text",
    ));
    Chain {
        name: "taken",
        base: "type filter hook prerouting priority -150; policy accept;",
        rules,
    }
}

fn from_outside(exclusions: &Exclusions) -> Vec<Rule> {
    let mut rules = exclusions.datagrams_in();
    for alone in &mut rules {
        alone.text = format!("meta l4proto udp iif != \"lo\" {}", alone.text);
    }
    rules
}

/// Here alone it is known which interface a datagram leaves by once its mark is set.
fn on_the_wire() -> Chain {
    Chain {
        name: "on_the_wire",
        base: "type filter hook postrouting priority 0; policy accept;",
        rules: vec![rule(
            format!(
                "oif != \"lo\" meta l4proto udp {} counter drop",
                bears(DATAGRAM_MARK)
            ),
            "on its way past the proxy: no route, or bound to a device",
        )],
    }
}

pub(super) fn fragments(made: &str) -> Rule {
    rule(
        format!("meta l4proto udp {made} counter drop"),
        "fragments made to slip past the rules below",
    )
}

fn beside(to: &str) -> Rule {
    let mark = format!("meta mark & {MARK_MASK:#x} != {DATAGRAM_MARK:#x}");
    rule(
        format!("{to} {mark} counter reject"),
        "sent beside the proxy",
    )
}

/// What is on its way to the proxy's sockets is for nobody else, whoever has the same port, and nothing
/// else is for those that take what is captured.
fn for_the_proxy() -> [Rule; 2] {
    let marks = format!(
        "iif \"lo\" meta l4proto udp meta mark & {MARK_MASK:#x} {{ {RETURN_MARK:#x}, {DATAGRAM_MARK:#x} }}"
    );
    [not_the_proxys(&marks), the_proxys_ports()]
}

pub(super) fn the_proxys_ports() -> Rule {
    rule(
        format!("udp dport {{ {OUTBOUND_PORT}, {PLAINTEXT_PORT} }} counter reject"),
        "the ports are for what is captured",
    )
}

pub(super) fn not_the_proxys(what: &str) -> Rule {
    rule(
        format!("{what} socket mark & {MARK_MASK:#x} != {PROXY_MARK:#x} counter reject"),
        "to a program while the proxy is away",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Exemption;
    use crate::capture::ruleset::plan;
    use crate::capture::ruleset::tests::{assert_explained, assert_only_adds};

    fn some() -> Datagrams {
        Datagrams {
            destinations: ["10.200.0.1:514", "[fd99::1]:514", "10.200.0.1:53"]
                .map(|at| at.parse().unwrap())
                .into(),
            ports: [7946].into(),
        }
    }

    #[test]
    fn datagrams_are_added_and_nothing_else_changes() {
        let plain = plan(&Exemption::Uid(1337));
        let none = Exclusions::default();
        let with = plain.clone().with_udp(&none, &some());
        assert_explained(&with.table.chains);
        let (plain, with) = (plain.nft(), with.nft());
        assert_only_adds(&plain, &with);
        let at = |text: &str| with.find(text).unwrap_or_else(|| panic!("{text}: {with}"));
        for (first, then) in [
            ("set udp4", "chain answered"),
            ("meta l4proto udp accept", "0x222 counter drop"),
            ("0x222 counter drop", "| 0x222 accept"),
            ("| 0x222 accept", "ct direction reply ct mark"),
        ] {
            assert!(at(first) < at(then), "{first} before {then}: {with}");
        }
    }

    #[test]
    fn questions_for_names_are_others() {
        let none = Exclusions::default();
        let with = |plan: Plan| plan.with_udp(&none, &some()).nft();
        let plain = with(plan(&Exemption::Mark));
        assert!(plain.contains("10.200.0.1 . 53"), "{plain}");
        let names = with(plan(&Exemption::Mark).with_dns());
        assert!(!names.contains(" . 53"), "{names}");
        assert!(names.contains("10.200.0.1 . 514"), "{names}");
    }

    #[test]
    fn other_datagrams_change_elements_alone() {
        let none = Exclusions::default();
        let then = plan(&Exemption::Mark).with_udp(&none, &some());
        let mut other = some();
        other.ports = [7946, 5353].into();
        let now = then.clone().holding(&other);
        assert_eq!(now.changing(&now).as_deref(), Some(""));
        let script = now.changing(&then).unwrap();
        assert!(!script.contains("delete"), "{script}");
        assert!(
            script.contains("add element inet lateen udp_ports { 5353 }"),
            "{script}"
        );
        // What is still answered has its port.
        let back = now.clone().holding(&Datagrams::default());
        let script = back.changing(&now).unwrap();
        assert!(!script.contains("udp_sources"), "{script}");
        assert_eq!(
            plan(&Exemption::Mark).holding(&other),
            plan(&Exemption::Mark)
        );
        assert_eq!(then.changing(&plan(&Exemption::Mark)), None);
    }

    #[test]
    fn what_is_let_alone_is_so_everywhere() {
        let exclusions = Exclusions {
            ports: [161].into(),
            users: [33].into(),
            probes: ["192.0.2.7/32".parse().unwrap()].into(),
            ranges: ["10.9.0.0/16".parse().unwrap()].into(),
        };
        let plain = Plan::excluding(Exemption::Uid(1), &exclusions);
        let text = plain.with_udp(&exclusions, &some()).nft();
        for (rule, times) in [
            // Marked, guarded; from outside, guarded.
            ("udp dport { 161 } accept", 4),
            ("ct direction original meta skuid { 33 } accept", 1),
            ("ct direction original ip daddr { 10.9.0.0/16 } accept", 1),
            ("iif != \"lo\" ip saddr { 192.0.2.7/32 } accept", 1),
        ] {
            assert_eq!(text.matches(rule).count(), times, "{rule}: {text}");
        }
    }
}
