//! The host's rules where guests are ports of a bridge: below the network layer they meet each other
//! past all other rules, and could take each other's addresses.

use std::net::IpAddr;

use super::datagrams::{DECLARED, DECLARED_SETS};
use super::{By, Member};
use crate::capture::ruleset::collection::Collection;
use crate::capture::ruleset::datagrams::{CAPTURED, DESTINATIONS};
use crate::capture::ruleset::{
    Chain, Exclusions, FRAGMENTS, Family, OPENING, Rule, Table, one_of, rule,
};

/// A guest by its port, and its addresses of either family.
struct Guest<'a> {
    port: &'a str,
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

impl Guest<'_> {
    /// What is true of what comes from any other address, of either family.
    fn foreign(&self) -> [String; 2] {
        let v4 = one_of("ip saddr !=", &self.v4).unwrap_or_else(|| "ether type ip".to_owned());
        let v6 = one_of("ip6 saddr !=", &self.v6).unwrap_or_else(|| "ether type ip6".to_owned());
        [v4, v6]
    }
}

/// Our table of family `bridge`; none where no guest takes one.
pub(super) fn table(members: &[Member], exclusions: &Exclusions) -> Option<Table> {
    let guests: Vec<_> = members.iter().filter_map(guest).collect();
    let chains = || {
        vec![
            pinned(&guests),
            foreign(&guests, exclusions),
            meeting(&guests, exclusions),
        ]
    };
    (!guests.is_empty()).then(|| Table::new(Family::Bridge, chains()))
}

/// Has the table see to datagrams too, to the destinations and declared ports that are in the sets of
/// these names among `collections`.
///
/// Of pieces the first alone is looked at. It holds the ports, since those are the first bytes of UDP and
/// no piece has less than eight; what has lost it is never whole again.
pub(super) fn datagrams(
    table: &mut Table,
    members: &[Member],
    exclusions: &Exclusions,
    collections: &[Collection],
) {
    let guests: Vec<_> = members.iter().filter_map(guest).collect();
    for chain in &mut table.chains {
        let rules = match chain.name {
            "foreign" => guests.iter().flat_map(sent_as_another).collect(),
            "meeting" => met(&guests),
            _ => continue,
        };
        chain.rules.extend(exclusions.datagrams());
        chain.rules.extend(rules);
    }
    let wanted = [DESTINATIONS, DECLARED_SETS].concat();
    let wanted = collections.iter().filter(|c| wanted.contains(&&*c.name));
    table.collections.extend(wanted.cloned());
}

fn sent_as_another(guest: &Guest<'_>) -> Vec<Rule> {
    let sources = guest.foreign().into_iter().zip(CAPTURED);
    let drop = |(source, to)| {
        rule(
            format!("iifname \"{}\" {source} {to} counter drop", guest.port),
            "an address that is not the guest's",
        )
    };
    sources.map(drop).collect()
}

fn met(guests: &[Guest<'_>]) -> Vec<Rule> {
    let [from, to] = ways(guests);
    let drop = |what| rule(format!("{what} counter drop"), "sent below the proxy");
    let into = CAPTURED.map(|mesh| drop(format!("{from} {mesh}")));
    let declared = DECLARED.map(|port| drop(format!("{to} {port}")));
    into.into_iter().chain(declared).collect()
}

/// From one of the guests, and to one.
fn ways(guests: &[Guest<'_>]) -> [String; 2] {
    let ports: Vec<_> = guests.iter().map(|g| format!("\"{}\"", g.port)).collect();
    ["iifname", "oifname"].map(|way| one_of(way, &ports).unwrap_or_default())
}

fn guest(member: &Member) -> Option<Guest<'_>> {
    let By::Guest {
        port: Some(port),
        addresses,
        ..
    } = &member.by
    else {
        return None;
    };
    let (v4, v6) = addresses.iter().partition(|ip| ip.is_ipv4());
    Some(Guest { port, v4, v6 })
}

/// The other rules know a guest by its address, so nobody else on the bridge may have it.
fn pinned(guests: &[Guest<'_>]) -> Chain {
    let of = |guest: &Guest<'_>| {
        let port = guest.port;
        let sources = [
            one_of("ip saddr", &guest.v4),
            one_of("arp saddr ip", &guest.v4),
            one_of("ip6 saddr", &guest.v6),
        ];
        let drop = |source: String| {
            rule(
                format!("iifname != \"{port}\" {source} counter drop"),
                "another's address",
            )
        };
        sources.into_iter().flatten().map(drop).collect::<Vec<_>>()
    };
    Chain {
        name: "pinned",
        base: "type filter hook prerouting priority -300; policy accept;",
        rules: guests.iter().flat_map(of).collect(),
    }
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
    let fragments = |way: &String| {
        FRAGMENTS.map(|made| {
            rule(
                format!("{way} meta l4proto tcp {made} counter drop"),
                "fragments made to slip past the rules below",
            )
        })
    };
    let mut rules: Vec<Rule> = ways.iter().flat_map(fragments).collect();
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
