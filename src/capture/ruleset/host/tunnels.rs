//! Tunnels of this host's to guests, and those by QUIC of anybody: what is on its way to the port of tunnels
//! at a guest's address ends here. By QUIC the proxy's socket answers from that address.

use super::matches::{TO_GUEST, redirected};
use crate::capture::ruleset::datagrams::{not_the_proxys, with_mark};
use crate::capture::ruleset::{Chain, GUEST_MARK, HBONE_PORT, OPENING, RETURN_MARK, Rule, rule};

const WHY: &str = "tunnels to a guest, whose end is here";

/// To a guest's, by family of addresses.
fn to_guests() -> [(String, &'static str); 2] {
    let pairs = [(TO_GUEST[0], "ip"), (TO_GUEST[1], "ip6")];
    pairs.map(|(to, family)| (format!("{to} udp dport {HBONE_PORT}"), family))
}

/// Connections of whoever is told here, as nft has it.
pub(super) fn connected(whose: &str) -> [Rule; 2] {
    let [v4, v6] = redirected(HBONE_PORT);
    [(TO_GUEST[0], v4), (TO_GUEST[1], v6)].map(|(to, redirected)| {
        rule(
            format!("{whose}{to} tcp dport {HBONE_PORT} {redirected}"),
            WHY,
        )
    })
}

/// What this host sends by QUIC. A route chain, so that the kernel looks for a route again once the mark is set;
/// before that of workloads, which lets the proxy's own alone. That route leads to the socket by itself, which is
/// bound to no address.
pub(super) fn sent(own: &str) -> Chain {
    let mark = with_mark(RETURN_MARK);
    let mut rules = vec![rule(
        format!("{own} meta l4proto udp ct direction reply accept"),
        "what the proxy answers, to a guest who has called from that port",
    )];
    let back = to_guests().map(|(to, _)| rule(format!("{to} meta mark set meta mark {mark}"), WHY));
    rules.extend(back);
    Chain {
        name: "tunnels",
        base: "type route hook output priority -151; policy accept;",
        rules,
    }
}

/// What comes from outside, and past whom other rules would find the same socket.
pub(super) fn arriving() -> [Rule; 3] {
    let mark = with_mark(GUEST_MARK);
    let [v4, v6] = to_guests().map(|(to, family)| {
        let taken =
            format!("tproxy {family} to :{HBONE_PORT} meta mark set meta mark {mark} accept");
        rule(format!("{to} {taken}"), WHY)
    });
    let others = rule(
        format!("udp dport {HBONE_PORT} accept"),
        "tunnels to others",
    );
    [v4, v6, others]
}

/// To a program that has taken the port while the proxy is away: without privileges a socket has neither a
/// mark nor an address that is not its own.
pub(super) fn squatted() -> [Rule; 3] {
    let [v4, v6] = to_guests().map(|(to, _)| not_the_proxys(&to));
    let connected = format!("ct status dnat tcp dport {HBONE_PORT} {OPENING} socket transparent 0");
    [
        v4,
        v6,
        rule(
            format!("{connected} counter reject with tcp reset"),
            "to a program that has taken the proxy's port",
        ),
    ]
}

/// What passes through while the proxy is away.
pub(super) fn guarded() -> [Rule; 2] {
    to_guests().map(|(to, _)| rule(format!("{to} counter reject"), "a tunnel beside the proxy"))
}
