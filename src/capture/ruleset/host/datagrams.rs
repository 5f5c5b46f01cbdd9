//! Datagrams of units and users (`spec/hbone-dataplane.md` §6.8): what their programs send into the mesh
//! comes to the proxy under the mark of the workload, and so does what is sent to ports that they declare.
//! Guests' are taken in passing ([`guests`]).
//!
//! As in a network of its own each datagram is judged by itself and nothing is translated. But a datagram
//! has no listener that would take a mark over from it: the proxy reads the mark off the datagram, which
//! has to bear it to the end. By the marks of workloads no route may lead, though. They are many, and
//! other software has some of the same in these bits, tunnels that are sent as datagrams above all. So a
//! datagram is given one mark by which it is routed to this host, and that of its workload behind it.
//!
//! Connection tracking remembers the mark too, where frames that are forged onto the loopback interface
//! cannot write: the two must be the same. Neither is enough alone. What is remembered is of the last
//! program that sent from that end, and ends can be shared; a mark on a frame is whatever who forged it likes.

mod guests;

use super::bridge;
use super::collections::Pair;
use super::dns::insert;
use super::matches::{NO_TCP, marked};
use super::{HostPlan, Member};
use crate::capture::ruleset::collection::Collection;
use crate::capture::ruleset::datagrams::{
    CAPTURED, Datagrams, answered, asked_alone, bears, elements, fragments, not_the_proxys,
    the_proxys_ports, with_mark,
};
use crate::capture::ruleset::dns::DNS_PORT;
use crate::capture::ruleset::{
    Chain, DATAGRAM_MARK, Exclusions, FIRST_MARK, FRAGMENTS, MARK_MASK, OUTBOUND_PORT,
    PLAINTEXT_PORT, RETURN_MARK, Rule, own, rule,
};

/// Pairs of the mark of a datagram and the one that is remembered of it.
const SAME: &str = "udp_marks";
/// To a port that a workload of this host declares.
const DECLARED: [&str; 2] = [
    "ip daddr . udp dport @declared_udp4",
    "ip6 daddr . udp dport @declared_udp6",
];
/// From outside; not to a group, whose datagrams are others' too.
const OUTSIDE: &str = "iif != \"lo\" meta pkttype host";

impl HostPlan {
    /// The same, with the datagrams of these members, who must be the plan's; `exclusions` is what is let
    /// alone. `datagrams` tells where those go to that come to the proxy, and from which ports it goes on
    /// to answer. With questions for names, of which the plan is to know before, what is sent to port 53
    /// is theirs.
    #[must_use]
    pub fn with_udp(
        mut self,
        exclusions: &Exclusions,
        members: &[Member],
        datagrams: &Datagrams,
    ) -> Self {
        let (own, guests) = (own(self.exemption), self.guests);
        for chain in &mut self.table.chains {
            let rules = &mut chain.rules;
            match chain.name {
                "marks" => drop(rules.splice(0..0, sent(&own, guests))),
                "passing" => {
                    insert(rules, "iif \"lo\" accept", taken());
                    // Before what is let alone of guests.
                    let lo = |r: &Rule| r.text == "iif \"lo\" accept";
                    let at = rules.iter().position(|r| r.text == NO_TCP);
                    let at = at.or_else(|| Some(rules.iter().position(lo)? + 1));
                    let at = at.unwrap_or(rules.len());
                    let guests = guests.then(guests::passing).into_iter().flatten();
                    drop(rules.splice(at..at, guests.chain(from_outside())));
                }
                "forward_guard" => {
                    drop(rules.splice(0..0, guests::guarded(exclusions)));
                    rules.extend(guests::forwarded(exclusions));
                }
                "outbound_guard" => {
                    let made = FRAGMENTS.map(|made| fragments(&format!("{} {made}", marked())));
                    insert(
                        rules,
                        &format!("{} meta l4proto tcp", marked()),
                        made.into(),
                    );
                }
                "inbound_guard" => {
                    drop(rules.splice(0..0, for_the_proxy()));
                    rules.extend(exclusions.datagrams());
                    rules.extend(DECLARED.map(|to| not_the_proxys(&format!("{OUTSIDE} {to}"))));
                }
                _ => {}
            }
        }
        // Behind the one that it calls, before the ones that call them.
        let mut called = vec![into_the_mesh(exclusions), within(exclusions)];
        if guests {
            called.extend(guests::chains(exclusions));
        }
        called.push(declared(exclusions, guests));
        drop(self.table.chains.splice(1..1, called));
        self.table
            .chains
            .extend([answered(&own), named(), on_the_wire()]);
        let collected = self.collected(exclusions, members, datagrams);
        if let Some(table) = &mut self.bridge {
            bridge::datagrams(table, members, exclusions, &collected);
        }
        self.table.collections.extend(collected);
        self
    }

    /// Whether datagrams are captured.
    pub fn captures_udp(&self) -> bool {
        self.table
            .chains
            .iter()
            .any(|chain| chain.name == "answered")
    }

    fn collected(
        &self,
        exclusions: &Exclusions,
        members: &[Member],
        datagrams: &Datagrams,
    ) -> Vec<Collection> {
        let mut datagrams = datagrams.clone();
        let mut declared = Pair::ends("declared_udp");
        let mut same = Collection::new(SAME, "mark . mark");
        for member in members {
            declared.add(&member.datagrams, exclusions);
            datagrams
                .ports
                .extend(member.datagrams.iter().map(|at| at.port()));
            let mark = member.mark;
            same.add(format!("{mark} . {mark}"), None, 0);
        }
        let names = self.table.chains.iter().any(|chain| chain.name == "names");
        let mut all = elements::collections(&datagrams, names, &[]);
        // Ports are declared with addresses here.
        all.retain(|collection| collection.name != "udp_ports");
        if self.guests {
            all.extend(elements::of_guests(&datagrams));
        }
        all.extend(declared.0);
        all.push(same);
        all
    }
}

/// What is true of datagrams that bear the mark of who sent them.
fn is_whose_it_says() -> String {
    format!("meta mark & {MARK_MASK:#x} . ct mark & {MARK_MASK:#x} @{SAME}")
}

/// The same, of those on their way to the proxy; questions for names have a way of their own.
fn arrived() -> String {
    format!("iif \"lo\" udp dport != {DNS_PORT} {}", is_whose_it_says())
}

/// What programs send, before the way back: as in a network of its own.
fn sent(own: &str, guests: bool) -> Vec<Rule> {
    let mut rules: Vec<_> = guests
        .then(|| guests::spoken(own))
        .into_iter()
        .flatten()
        .collect();
    rules.extend([
        rule(
            format!(
                "{own} meta l4proto udp oif \"lo\" ct direction original ct mark set ct mark {}",
                with_mark(RETURN_MARK)
            ),
            "the proxy speaks to the program: remember the conversation",
        ),
        rule(format!("{own} meta l4proto udp accept"), "the proxy itself"),
        rule(
            format!(
                "oif != \"lo\" meta l4proto {{ icmp, ipv6-icmp }} ct state related ct protocol udp \
                 ct mark & {MARK_MASK:#x} >= {FIRST_MARK:#x} drop"
            ),
            "that a program is gone, with what it was answered",
        ),
    ]);
    // Before what is let alone: that is not told from its pieces.
    rules.extend(FRAGMENTS.map(|made| {
        rule(
            format!("meta l4proto udp {made} jump workloads"),
            "fragments, for the guard to drop",
        )
    }));
    rules.extend(CAPTURED.map(|to| rule(format!("{to} jump into_the_mesh"), "if a workload's")));
    rules.extend(DECLARED.map(|to| {
        rule(
            format!("oif \"lo\" {to} jump within"),
            "from this host to a workload, in plain text",
        )
    }));
    rules.extend(guests.then(guests::within).into_iter().flatten());
    rules
}

/// What a workload sends is routed to this host.
fn into_the_mesh(exclusions: &Exclusions) -> Chain {
    let mut rules = vec![rule(
        format!("{} meta mark set meta mark & {:#x}", marked(), !MARK_MASK),
        "who a workload is, is not for programs to say",
    )];
    rules.extend(asked_alone(exclusions));
    rules.extend([
        rule("jump workloads", "whose it is"),
        rule(
            format!(
                "{} meta mark set meta mark {} accept",
                marked(),
                with_mark(DATAGRAM_MARK)
            ),
            "into the mesh",
        ),
    ]);
    Chain {
        name: "into_the_mesh",
        base: "",
        rules,
    }
}

/// What other programs of this host send to a declared port.
fn within(exclusions: &Exclusions) -> Chain {
    let mark = with_mark(DATAGRAM_MARK);
    let mut rules: Vec<_> = asked_alone(exclusions).collect();
    // Two rules: what is not tracked is captured all the same.
    rules.extend([
        rule(
            format!("ct mark set ct mark {mark}"),
            "where nobody can forge it",
        ),
        rule(
            format!("meta mark set meta mark {mark} accept"),
            "in plain text",
        ),
    ]);
    Chain {
        name: "within",
        base: "",
        rules,
    }
}

/// Once all have seen it who may give it another destination, and with it another route.
fn named() -> Chain {
    Chain {
        name: "named",
        base: "type filter hook output priority -99; policy accept;",
        rules: vec![rule(
            format!(
                "meta l4proto udp {} ct mark & {MARK_MASK:#x} >= {FIRST_MARK:#x} jump workloads",
                bears(DATAGRAM_MARK)
            ),
            "whose it is, for the proxy",
        )],
    }
}

/// What has come back to this host.
fn taken() -> Vec<Rule> {
    let in_plain = format!(
        "iif \"lo\" {} ct mark & {MARK_MASK:#x} == {DATAGRAM_MARK:#x}",
        bears(DATAGRAM_MARK)
    );
    let ways = [
        (arrived(), CAPTURED, OUTBOUND_PORT, "into the mesh"),
        (
            in_plain,
            DECLARED,
            PLAINTEXT_PORT,
            "from this host to a workload, in plain text",
        ),
    ];
    let both = |(which, to, port, why): (String, [&str; 2], u16, &'static str)| {
        [(to[0], "ip"), (to[1], "ip6")].map(|(to, family)| {
            let which = format!("{which} fib saddr type local {to}");
            rule(format!("{which} tproxy {family} to :{port} accept"), why)
        })
    };
    ways.into_iter().flat_map(both).collect()
}

fn from_outside() -> [Rule; 2] {
    DECLARED.map(|to| {
        rule(
            format!("{OUTSIDE} {to} goto declared"),
            "from outside, in plain text",
        )
    })
}

/// What comes from outside to a declared port.
fn declared(exclusions: &Exclusions, guests: bool) -> Chain {
    let mut rules = exclusions.datagrams_in();
    rules.extend(guests.then(guests::declared).into_iter().flatten());
    rules.push(rule(
        format!("meta l4proto udp tproxy to :{PLAINTEXT_PORT} accept"),
        "to the proxy",
    ));
    Chain {
        name: "declared",
        base: "",
        rules,
    }
}

/// What is on its way to the proxy's sockets is for nobody else, whoever has the same port, and nothing
/// else is for those that take what is captured.
fn for_the_proxy() -> [Rule; 3] {
    let marks = format!(
        "iif \"lo\" meta l4proto udp meta mark & {MARK_MASK:#x} {{ {RETURN_MARK:#x}, {DATAGRAM_MARK:#x} }}"
    );
    [
        not_the_proxys(&arrived()),
        not_the_proxys(&marks),
        the_proxys_ports(),
    ]
}

/// Here alone it is known which interface a datagram leaves by once its mark is set.
fn on_the_wire() -> Chain {
    let why = "on its way past the proxy: no route, or bound to a device";
    let mut rules = vec![rule(
        format!(
            "oif != \"lo\" meta l4proto udp {} counter drop",
            bears(DATAGRAM_MARK)
        ),
        why,
    )];
    // Others' datagrams may bear such marks, to elsewhere.
    rules.extend(
        CAPTURED.map(|to| rule(format!("oif != \"lo\" {to} {} counter drop", marked()), why)),
    );
    Chain {
        name: "on_the_wire",
        base: "type filter hook postrouting priority 0; policy accept;",
        rules,
    }
}

#[cfg(test)]
mod tests;
