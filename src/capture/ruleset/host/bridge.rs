//! The host's rules where guests are ports of a bridge: below the network layer they meet each other
//! past all other rules, and could take each other's addresses.

use std::net::IpAddr;

use super::{By, Member};
use crate::capture::ruleset::collection::Collection;
use crate::capture::ruleset::datagrams::{OF_GUESTS, TAKEN};
use crate::capture::ruleset::{
    Chain, Exclusions, FRAGMENTS, Family, HBONE_PORT, OPENING, Rule, Table, one_of, rule,
};

/// Ports of UDP that guests declare, each with the port of the bridge that leads to it.
const DECLARED: &str = "guest_ports";
/// The first piece of a packet that has other headers before the one with the ports, which may then be
/// in the next. Nobody makes such in earnest.
const HEADLESS: &str = "ip6 version 6 frag nexthdr { 0, 43, 44, 60 }";
/// What has a second tag: behind that no rule sees addresses.
const TAGGED_TWICE: &str = "meta protocol { 0x8100, 0x88a8 }";
/// Tags that are for no network, and only give a priority: hosts take such off as if there were none. The
/// second one, and the first.
const EMPTY: [&str; 2] = ["@nh,0,16 & 0xfff == 0", "@ll,112,16 & 0xfff == 0"];

/// A guest by its port, and its addresses of either family.
struct Guest<'a> {
    port: &'a str,
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

impl<'a> Guest<'a> {
    fn of(member: &'a Member) -> Option<Self> {
        let By::Guest {
            port: Some(port),
            addresses,
            ..
        } = &member.by
        else {
            return None;
        };
        let (v4, v6) = addresses.iter().partition(|ip| ip.is_ipv4());
        Some(Self { port, v4, v6 })
    }

    /// What is true of what comes from any other address, of either family.
    fn foreign(&self) -> [String; 2] {
        let v4 = one_of("ip saddr !=", &self.v4);
        let v6 = one_of("ip6 saddr !=", &self.v6);
        [
            v4.unwrap_or_else(|| "ip version 4".to_owned()),
            v6.unwrap_or_else(|| "ip6 version 6".to_owned()),
        ]
    }
}

/// Our table of family `bridge`; none where no guest takes one. `exclusions` is what is let alone, and
/// `nowhere` the same with addresses that have no way through a proxy: of what a neighbour sends to those
/// of the link nothing is let alone.
pub(super) fn table(
    members: &[Member],
    exclusions: &Exclusions,
    nowhere: &Exclusions,
) -> Option<Table> {
    let guests: Vec<_> = members.iter().filter_map(Guest::of).collect();
    let chains = || {
        vec![
            pinned(&guests),
            foreign(&guests, nowhere),
            meeting(&guests, exclusions),
        ]
    };
    (!guests.is_empty()).then(|| Table::new(Family::Bridge, chains()))
}

/// Has the table see to datagrams too; the destinations are those of guests among `collections`.
///
/// Of pieces the first alone is looked at. It holds the ports, which are the first bytes of UDP: no piece
/// has less than eight. What has lost it is never whole again.
pub(super) fn datagrams(
    table: &mut Table,
    members: &[Member],
    exclusions: &Exclusions,
    collections: &[Collection],
) {
    let guests: Vec<_> = members.iter().filter_map(Guest::of).collect();
    for chain in &mut table.chains {
        let rules = &mut chain.rules;
        match chain.name {
            "foreign" => {
                rules.extend(exclusions.datagrams());
                rules.extend(guests.iter().flat_map(sent_as_another));
            }
            "meeting" => {
                rules.extend(exclusions.datagrams());
                rules.extend(sent(&guests));
                // First: destinations that are let alone are not asked of what comes to a guest, as above.
                let mut to_guests = exclusions.datagrams_in();
                to_guests.push(rule(
                    format!("oifname . udp dport @{DECLARED} counter drop"),
                    "sent below the proxy",
                ));
                drop(rules.splice(0..0, to_guests));
            }
            _ => {}
        }
    }
    let mut declared = Collection::new(DECLARED, "ifname . inet_service");
    for port in members.iter().flat_map(declared_at) {
        if !exclusions.ports.contains(&port.1) {
            declared.add(format!("\"{}\" . {}", port.0, port.1), None, 0);
        }
    }
    let destinations = collections.iter().filter(|c| OF_GUESTS.contains(&&*c.name));
    table.collections.extend(destinations.cloned());
    table.collections.push(declared);
}

/// The ports of UDP that a guest declares, each with the port of the bridge.
fn declared_at(member: &Member) -> impl Iterator<Item = (&str, u16)> {
    let guest = Guest::of(member).into_iter();
    guest.flat_map(|guest| {
        let ports = member.datagrams.iter().map(|at| at.port());
        ports.map(move |port| (guest.port, port))
    })
}

fn sent_as_another(guest: &Guest<'_>) -> Vec<Rule> {
    let sources = guest.foreign().into_iter().zip(TAKEN);
    let drop = |(source, to)| {
        rule(
            format!("iifname \"{}\" {source} {to} counter drop", guest.port),
            "an address that is not the guest's",
        )
    };
    sources.map(drop).collect()
}

fn sent(guests: &[Guest<'_>]) -> [Rule; 2] {
    let [from, _to] = ways(guests);
    TAKEN.map(|to| rule(format!("{from} {to} counter drop"), "sent below the proxy"))
}

/// From one of the guests, and to one.
fn ways(guests: &[Guest<'_>]) -> [String; 2] {
    let ports: Vec<_> = guests.iter().map(|g| format!("\"{}\"", g.port)).collect();
    ["iifname", "oifname"].map(|way| one_of(way, &ports).unwrap_or_default())
}

/// The other rules know a guest by its address, so nobody else on the bridge may have it, nor hide that he
/// has.
fn pinned(guests: &[Guest<'_>]) -> Chain {
    let [from, _to] = ways(guests);
    let mut rules: Vec<Rule> = EMPTY
        .map(|empty| hidden(&format!("{TAGGED_TWICE} {empty}")))
        .into();
    rules.extend([
        hidden(&format!("{from} {TAGGED_TWICE}")),
        hidden(&format!("{from} {HEADLESS}")),
    ]);
    rules.extend(guests.iter().flat_map(pinned_to));
    Chain {
        name: "pinned",
        base: "type filter hook prerouting priority -300; policy accept;",
        rules,
    }
}

fn hidden(what: &str) -> Rule {
    rule(
        format!("{what} counter drop"),
        "made to hide what the next rules look at",
    )
}

fn pinned_to(guest: &Guest<'_>) -> Vec<Rule> {
    let port = guest.port;
    // That it is ARP or IPv6 nft would ask of where a tag may be, unless it is said.
    let said = guest.v6.iter().filter_map(|ip| match ip {
        // The address that somebody says he has (RFC 4861, section 4.4), for which older nft has no word.
        IpAddr::V6(ip) => Some(format!(
            "ip6 version 6 icmpv6 type nd-neighbor-advert @th,64,128 {:#x}",
            ip.to_bits()
        )),
        IpAddr::V4(_) => None,
    });
    let sources = [
        one_of("ip saddr", &guest.v4),
        one_of("meta protocol arp arp saddr ip", &guest.v4),
        one_of("ip6 saddr", &guest.v6),
    ];
    let drop = |source: String| {
        rule(
            format!("iifname != \"{port}\" {source} counter drop"),
            "another's address",
        )
    };
    sources
        .into_iter()
        .flatten()
        .chain(said)
        .map(drop)
        .collect()
}

/// Nor has a guest any other: the rules above know it by its own, and let alone who is not known.
fn foreign(guests: &[Guest<'_>], exclusions: &Exclusions) -> Chain {
    let of = |guest: &Guest<'_>| {
        let port = guest.port;
        let [v4, v6] = guest.foreign();
        let [made_v4, made_v6] = FRAGMENTS;
        let fragments = [(&v4, made_v4), (&v6, made_v6)]
            .map(|(source, made)| format!("{source} meta l4proto tcp {made}"));
        let opening = [&v4, &v6].map(|source| format!("{source} {OPENING}"));
        let drop = |what: String| {
            rule(
                format!("iifname \"{port}\" {what} counter drop"),
                "an address that is not the guest's",
            )
        };
        [fragments, opening]
            .concat()
            .into_iter()
            .map(drop)
            .collect::<Vec<_>>()
    };
    let mut rules = exclusions.passing();
    rules.extend(guests.iter().flat_map(of));
    Chain {
        name: "foreign",
        base: "type filter hook prerouting priority -299; policy accept;",
        rules,
    }
}

/// What goes from one port to another.
fn meeting(guests: &[Guest<'_>], exclusions: &Exclusions) -> Chain {
    let ways = ways(guests);
    let [_from, to] = &ways;
    // Where the bridge has customers' tags within its own, what had one has it again here.
    let mut rules: Vec<Rule> = ways
        .iter()
        .map(|way| hidden(&format!("{way} {TAGGED_TWICE}")))
        .collect();
    rules.push(hidden(&format!("{to} {HEADLESS}")));
    let [made_v4, made_v6] = FRAGMENTS;
    let made = [made_v4.to_owned(), format!("ip6 version 6 {made_v6}")];
    rules.extend(ways.iter().flat_map(|way| {
        made.each_ref().map(|made| {
            rule(
                format!("{way} meta l4proto tcp {made} counter drop"),
                "fragments made to slip past the rules below",
            )
        })
    }));
    rules.push(rule(
        format!("{to} udp dport {HBONE_PORT} counter drop"),
        "a tunnel below the proxy",
    ));
    rules.extend(exclusions.passing());
    rules.extend(ways.iter().map(|way| {
        rule(
            format!("{way} {OPENING} counter drop"),
            "opened below the proxy",
        )
    }));
    Chain {
        name: "meeting",
        base: "type filter hook forward priority -10; policy accept;",
        rules,
    }
}
