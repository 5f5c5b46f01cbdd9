//! Datagrams of guests: what they send into the mesh is taken in passing, as their connections are, and
//! so is what is on its way to a port that they declare. What the proxy says to a guest itself is answered
//! to its socket.

use super::{DECLARED, asked_alone};
use crate::capture::ruleset::datagrams::{TAKEN, with_mark};
use crate::capture::ruleset::host::matches::{FROM_GUEST, TO_GUEST};
use crate::capture::ruleset::{
    Chain, Exclusions, FRAGMENTS, GUEST_MARK, MARK_MASK, OUTBOUND_PORT, PLAINTEXT_PORT, Rule, rule,
};

const ERRORS: &str = "meta l4proto { icmp, ipv6-icmp }";

fn unmarked() -> String {
    format!("meta mark set meta mark & {:#x}", !MARK_MASK)
}

/// What comes in from a guest, with what a guest says is wrong with what it was sent. Who it is from is
/// looked up last: what is let alone keeps the marks of others.
pub(super) fn passing() -> Vec<Rule> {
    let sources = [
        "iifname . ip saddr map @guests4",
        "iifname . ip6 saddr map @guests6",
    ];
    let asked = TAKEN.into_iter().zip(sources).map(|(to, whose)| {
        rule(
            format!("{to} meta mark set {whose} jump from_guest_datagrams"),
            "of a guest, for the mesh",
        )
    });
    // Behind them, whose own look for a socket passes over those that only answer.
    let answered = sources.map(|whose| {
        rule(
            format!(
                "meta l4proto {{ udp, icmp, ipv6-icmp }} socket transparent 1 meta mark set {whose} accept"
            ),
            "of a guest to the proxy, who has spoken to it",
        )
    });
    asked.chain(answered).collect()
}

/// Before the chains that call them.
pub(super) fn chains(exclusions: &Exclusions) -> [Chain; 2] {
    [from_guest(exclusions), to_guest()]
}

fn from_guest(exclusions: &Exclusions) -> Chain {
    let unmarked = unmarked();
    let mut rules: Vec<_> = asked_alone(exclusions)
        .map(|mut alone| {
            let what = alone.text.trim_end_matches("accept");
            alone.text = format!("{what}{unmarked} return");
            alone
        })
        .collect();
    // Two rules: what is not tracked is captured all the same.
    rules.extend(TAKEN.map(|to| {
        rule(
            format!("{to} ct mark set ct mark {}", with_mark(GUEST_MARK)),
            "whose errors are not to leave",
        )
    }));
    let pairs = TAKEN.into_iter().zip(["ip", "ip6"]);
    rules.extend(pairs.map(|(to, family)| {
        rule(
            format!("{to} tproxy {family} to :{OUTBOUND_PORT} accept"),
            "into the mesh",
        )
    }));
    rules.push(rule(unmarked, "for the guard"));
    Chain {
        name: "from_guest_datagrams",
        base: "",
        rules,
    }
}

/// What comes to a port that a guest declares.
fn to_guest() -> Chain {
    Chain {
        name: "to_guest_datagrams",
        base: "",
        rules: vec![
            rule(
                format!("meta mark set meta mark {}", with_mark(GUEST_MARK)),
                "to be taken in passing",
            ),
            rule(
                format!("meta l4proto udp tproxy to :{PLAINTEXT_PORT} accept"),
                "to the proxy",
            ),
            rule(unmarked(), "for the guard"),
        ],
    }
}

/// Of what comes to declared ports, what is for a guest.
pub(super) fn declared() -> [Rule; 2] {
    TO_GUEST.map(|to| rule(format!("{to} goto to_guest_datagrams"), "to a guest"))
}

/// What the proxy says to a guest.
pub(super) fn spoken(own: &str) -> [Rule; 2] {
    TO_GUEST.map(|to| {
        let mark = with_mark(GUEST_MARK);
        rule(
            format!("{own} meta l4proto udp {to} ct direction original ct mark set ct mark {mark}"),
            "the proxy speaks to a guest: whose errors are not to leave",
        )
    })
}

/// What programs of this host send to a port that a guest declares.
pub(super) fn within() -> [Rule; 2] {
    let pairs = [(TO_GUEST[0], DECLARED[0]), (TO_GUEST[1], DECLARED[1])];
    pairs.map(|(guest, to)| {
        rule(
            format!("oif != \"lo\" ct direction original {guest} {to} jump within"),
            "from this host to a guest, in plain text",
        )
    })
}

/// What is on its way past the proxy, before what is let alone of connections.
pub(super) fn guarded(exclusions: &Exclusions) -> Vec<Rule> {
    let spoken = format!("ct mark & {MARK_MASK:#x} == {GUEST_MARK:#x}");
    let mut rules = vec![
        rule(
            format!("meta l4proto udp ct direction reply {spoken} counter drop"),
            "an answer to the proxy, who has gone",
        ),
        rule(
            format!("{ERRORS} ct state related ct protocol udp {spoken} drop"),
            "that a program is gone, with what it was sent",
        ),
    ];
    rules.extend(exclusions.datagrams_in().into_iter().map(|mut alone| {
        alone.text = format!("meta l4proto udp {}", alone.text);
        alone
    }));
    rules.push(rule(
        "meta l4proto udp ct direction reply ct status snat accept",
        "what a guest has asked for, under this host's address",
    ));
    rules.extend(DECLARED.map(|to| rule(format!("{to} counter reject"), "sent beside the proxy")));
    rules
}

/// The same, behind it.
pub(super) fn forwarded(exclusions: &Exclusions) -> Vec<Rule> {
    let [anything, v4, v6] = FROM_GUEST;
    let ways = |[of_v4, of_v6]: [&'static str; 2]| {
        [
            (anything, of_v4),
            (anything, of_v6),
            (v4, of_v4),
            (v6, of_v6),
        ]
    };
    let mut rules: Vec<_> = ways(FRAGMENTS)
        .map(|(from, made)| {
            rule(
                format!("{from} meta l4proto udp {made} counter drop"),
                "fragments made to slip past the rules below",
            )
        })
        .into();
    rules.extend(asked_alone(exclusions));
    rules.extend(ways(TAKEN).map(|(from, to)| {
        rule(
            format!("{from} {to} counter reject"),
            "sent by a guest beside the proxy",
        )
    }));
    rules.push(rule(
        format!(
            "meta l4proto udp ct direction original ct mark & {MARK_MASK:#x} == {GUEST_MARK:#x} \
             ct mark set ct mark & {:#x}",
            !MARK_MASK
        ),
        "let alone now: answers may pass",
    ));
    rules
}
