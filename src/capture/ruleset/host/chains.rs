//! What stays in the host's rules: what is looked up in which map, and what becomes of it.

use super::collections::UNITS;
use super::matches::{DECLARED, FROM_GUEST, NO_TCP, TO_GUEST, marked, redirected, taken};
use super::tunnels;
use crate::capture::ruleset::{
    Chain, Exclusions, FRAGMENTS, GUEST_MARK, HBONE_PORT, LOOPBACK, MARK_MASK, NOT_OPENING,
    OPENING, OUTBOUND_PORT, OUTSIDE, PLAINTEXT_PORT, Rule, rule, squatted, way_back,
};

/// Every chain of the table, for cgroups down to so many levels.
pub(super) fn chains(
    own: &str,
    exclusions: &Exclusions,
    levels: usize,
    guests: bool,
) -> Vec<Chain> {
    let mut chains = vec![
        // Before those that call it.
        workloads(levels),
        zones(guests),
        marks(own, exclusions),
    ];
    if guests {
        chains.extend([tunnels::sent(own), from_guest(), to_guest()]);
    }
    chains.extend([
        passing(exclusions, guests),
        outbound(own, exclusions, guests),
        inbound(exclusions, guests),
        outbound_guard(own, exclusions, guests),
        inbound_guard(exclusions, guests),
    ]);
    if guests {
        chains.push(forward_guard(exclusions));
    }
    chains
}

/// Where the one look into each map is. A cgroup overrides a user, and those above it.
fn workloads(levels: usize) -> Chain {
    let mut rules = vec![rule(
        "meta mark set meta skuid map @users",
        "programs of a captured user",
    )];
    rules.extend((1..=levels).map(|level| {
        rule(
            format!("meta mark set socket cgroupv2 level {level} map @{UNITS}{level}"),
            "programs of captured units",
        )
    }));
    rules.push(rule(
        format!("{} ct mark set meta mark", marked()),
        "where nobody can forge it",
    ));
    Chain {
        name: "workloads",
        base: "",
        rules,
    }
}

/// As in a workload's own namespace; here, for what is captured alone. Whoever else assigns zones
/// does it at -300, and has the say.
fn zones(guests: bool) -> Chain {
    let mut to: Vec<String> = DECLARED.map(str::to_owned).into();
    if guests {
        to.extend(TO_GUEST.map(|to| format!("{to} meta l4proto tcp")));
        to.extend(FROM_GUEST.map(|from| format!("{from} meta l4proto tcp")));
    }
    Chain {
        name: "zones",
        base: "type filter hook prerouting priority -299; policy accept;",
        rules: to
            .into_iter()
            .map(|to| {
                rule(
                    format!("iif != \"lo\" {to} ct original zone set {OUTSIDE}"),
                    "tell a client's connection from the proxy's in its name",
                )
            })
            .collect(),
    }
}

/// A route chain, so that the kernel looks for a route again once the mark is set.
fn marks(own: &str, exclusions: &Exclusions) -> Chain {
    let mut rules: Vec<Rule> = way_back(own).into();
    rules.extend([
        rule(format!("{own} accept"), "the proxy itself"),
        rule(
            format!(
                "{OPENING} {} meta mark set meta mark & {:#x}",
                marked(),
                !MARK_MASK
            ),
            "who a workload is, is not for programs to say",
        ),
        rule(NO_TCP, "not captured"),
    ]);
    rules.extend(LOOPBACK.map(|to| rule(format!("{to} accept"), "within the host")));
    // Before what is let alone: that is not told from its pieces.
    rules.extend(FRAGMENTS.map(|made| {
        rule(
            format!("{made} jump workloads"),
            "fragments, for the guard to drop",
        )
    }));
    rules.extend(exclusions.outbound());
    rules.push(rule(
        format!("{OPENING} jump workloads"),
        "whose connection it is",
    ));
    Chain {
        name: "marks",
        base: "type route hook output priority -150; policy accept;",
        rules,
    }
}

/// What a guest sends.
fn from_guest() -> Chain {
    Chain {
        name: "from_guest",
        base: "",
        rules: vec![
            rule(
                "socket transparent 1 accept",
                "of a connection the proxy has",
            ),
            rule(
                format!("{OPENING} tproxy to :{OUTBOUND_PORT} accept"),
                "to the proxy",
            ),
            rule(
                format!("meta mark set meta mark & {:#x}", !MARK_MASK),
                "older than these rules, or for the guard",
            ),
        ],
    }
}

/// What is sent to a guest.
fn to_guest() -> Chain {
    let set = format!(
        "meta mark set meta mark & {:#x} | {GUEST_MARK:#x}",
        !MARK_MASK
    );
    let taken = |port: u16| format!("tproxy to :{port} {set} accept");
    Chain {
        name: "to_guest",
        base: "",
        rules: vec![
            rule(
                format!("socket transparent 1 {set} accept"),
                "of a connection the proxy has",
            ),
            rule(
                format!("tcp dport {HBONE_PORT} {OPENING} {}", taken(HBONE_PORT)),
                "tunnels",
            ),
            rule(
                format!("{OPENING} {}", taken(PLAINTEXT_PORT)),
                "all else, in plain text",
            ),
        ],
    }
}

/// What comes in, before it is known where it goes.
fn passing(exclusions: &Exclusions, guests: bool) -> Chain {
    let mut rules = vec![
        rule(
            format!("iif \"lo\" tcp dport {OUTBOUND_PORT} {OPENING} meta mark set ct mark"),
            "frames forged onto the loopback interface have none",
        ),
        rule("iif \"lo\" accept", "within the host"),
    ];
    if guests {
        rules.extend(tunnels::arriving());
        rules.push(rule(NO_TCP, "not captured"));
        rules.push(rule(
            format!("{} meta mark set meta mark & {:#x}", taken(), !MARK_MASK),
            "what others mark so was not taken",
        ));
        rules.extend(exclusions.passing());
        for (source, family) in [("ip saddr", 4), ("ip6 saddr", 6)] {
            rules.push(rule(
                format!("meta mark set iifname . {source} map @guests{family} goto from_guest"),
                "a guest's",
            ));
        }
        rules.extend(TO_GUEST.map(|to| rule(format!("{to} goto to_guest"), "to a guest")));
    }
    Chain {
        name: "passing",
        base: "type filter hook prerouting priority -150; policy accept;",
        rules,
    }
}

fn outbound(own: &str, exclusions: &Exclusions, guests: bool) -> Chain {
    let mut rules = Vec::new();
    if guests {
        rules.extend(tunnels::connected(&format!("{own} ")));
    }
    rules.push(rule(format!("{own} accept"), "the proxy itself"));
    rules.extend(LOOPBACK.map(|to| rule(format!("{to} accept"), "within the host")));
    rules.push(rule(
        format!("{NOT_OPENING} accept"),
        "older than these rules",
    ));
    rules.extend(redirected(OUTBOUND_PORT).map(|redirected| {
        rule(
            format!("{} meta l4proto tcp {redirected}", marked()),
            "what captured workloads open",
        )
    }));
    rules.extend(exclusions.users());
    rules.extend(DECLARED.map(|to| {
        rule(
            format!("{to} redirect to :{PLAINTEXT_PORT}"),
            "from this host to a workload, in plain text",
        )
    }));
    if guests {
        rules.extend(exclusions.ports());
        // A waypoint's, which is a program as any other.
        rules.extend(tunnels::connected(""));
        let pairs = TO_GUEST.into_iter().zip(redirected(PLAINTEXT_PORT));
        rules.extend(pairs.map(|(to, redirected)| {
            rule(
                format!("{to} meta l4proto tcp {redirected}"),
                "from this host to a guest, in plain text",
            )
        }));
    }
    Chain {
        name: "outbound",
        base: "type nat hook output priority -100; policy accept;",
        rules,
    }
}

fn inbound(exclusions: &Exclusions, guests: bool) -> Chain {
    let mut rules = vec![rule("iif \"lo\" accept", "within the host")];
    if guests {
        rules.push(rule(format!("{} accept", taken()), "taken in passing"));
    }
    rules.push(rule(
        format!("{NOT_OPENING} accept"),
        "older than these rules",
    ));
    rules.extend(exclusions.inbound());
    rules.extend(DECLARED.map(|to| {
        rule(
            format!("{to} redirect to :{PLAINTEXT_PORT}"),
            "from outside to a workload, in plain text",
        )
    }));
    Chain {
        name: "inbound",
        base: "type nat hook prerouting priority -100; policy accept;",
        rules,
    }
}

fn outbound_guard(own: &str, exclusions: &Exclusions, guests: bool) -> Chain {
    let mut rules = vec![rule(format!("{own} accept"), "the proxy itself")];
    rules.extend(LOOPBACK.map(|to| rule(format!("{to} accept"), "redirected, or within the host")));
    rules.push(rule(
        format!("ct status dnat tcp dport {{ {OUTBOUND_PORT}, {PLAINTEXT_PORT} }} accept"),
        "redirected",
    ));
    rules.push(rule(
        format!("{} {OPENING} counter reject with tcp reset", marked()),
        "opened beside the proxy",
    ));
    rules.extend(FRAGMENTS.map(|made| {
        rule(
            format!("{} meta l4proto tcp {made} counter drop", marked()),
            "fragments made to slip past the rule above",
        )
    }));
    rules.extend(exclusions.users());
    let mut to: Vec<&str> = DECLARED.into();
    if guests {
        rules.extend(exclusions.ports());
        to.extend(TO_GUEST);
    }
    rules.extend(to.into_iter().map(|to| {
        rule(
            format!("{to} {OPENING} counter reject with tcp reset"),
            "opened beside the proxy",
        )
    }));
    Chain {
        name: "outbound_guard",
        base: "type filter hook output priority 0; policy accept;",
        rules,
    }
}

fn inbound_guard(exclusions: &Exclusions, guests: bool) -> Chain {
    // The listener that hands marks on has none itself.
    let mut rules = vec![squatted("socket transparent 0")];
    if guests {
        rules.extend(tunnels::squatted());
    }
    rules.push(rule("iif \"lo\" accept", "within the host"));
    if guests {
        rules.push(rule(format!("{} accept", taken()), "taken in passing"));
    }
    rules.push(rule(
        format!("tcp dport {OUTBOUND_PORT} {OPENING} counter reject with tcp reset"),
        "the port is for programs of this host",
    ));
    rules.extend(exclusions.inbound());
    rules.extend(DECLARED.map(|to| {
        rule(
            format!("{to} {OPENING} counter reject with tcp reset"),
            "opened beside the proxy",
        )
    }));
    if guests {
        rules.extend(beside());
    }
    Chain {
        name: "inbound_guard",
        base: "type filter hook input priority 0; policy accept;",
        rules,
    }
}

fn beside() -> [Rule; 3] {
    FROM_GUEST.map(|from| {
        rule(
            format!("{from} {OPENING} counter reject with tcp reset"),
            "opened by a guest beside the proxy",
        )
    })
}

/// What reaches it goes past the proxy.
fn forward_guard(exclusions: &Exclusions) -> Chain {
    let [anything, v4, v6] = FROM_GUEST;
    let [made_v4, made_v6] = FRAGMENTS;
    let fragments = [
        (anything, made_v4),
        (anything, made_v6),
        (v4, made_v4),
        (v6, made_v6),
    ];
    let mut rules: Vec<_> = fragments
        .into_iter()
        .map(|(from, made)| {
            rule(
                format!("{from} meta l4proto tcp {made} counter drop"),
                "fragments made to slip past the rules below",
            )
        })
        .collect();
    // All of them are taken, whatever of connections is let alone.
    rules.extend(tunnels::guarded());
    rules.extend(exclusions.passing());
    rules.extend(beside());
    rules.extend(TO_GUEST.map(|to| {
        rule(
            format!("{to} {OPENING} counter reject with tcp reset"),
            "opened beside the proxy",
        )
    }));
    Chain {
        name: "forward_guard",
        base: "type filter hook forward priority 0; policy accept;",
        rules,
    }
}
