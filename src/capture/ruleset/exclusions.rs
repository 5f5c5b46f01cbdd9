//! What capture lets alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;

use super::{Rule, rule};

/// Traffic that goes past the proxy, whoever's it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// Connections to these ports, and datagrams, out and in.
    pub ports: BTreeSet<u16>,
    /// All that goes to these destinations.
    pub ranges: BTreeSet<IpNet>,
    /// Connections that these users open, and datagrams that they send.
    pub users: BTreeSet<u32>,
    /// All that comes from these sources to workloads: whoever probes them beside the proxy.
    pub probes: BTreeSet<IpNet>,
}

impl Exclusions {
    /// Rules of what programs here open.
    pub(super) fn outbound(&self) -> Vec<Rule> {
        [self.ports(), self.destinations(), self.users()].concat()
    }

    /// Rules of what comes from outside.
    pub(super) fn inbound(&self) -> Vec<Rule> {
        [self.ports(), self.sources()].concat()
    }

    /// Rules of what passes through from one host to another, whose user is not known.
    pub(super) fn passing(&self) -> Vec<Rule> {
        [self.ports(), self.destinations(), self.sources()].concat()
    }

    /// Rules of what comes out of a link, each as a text, in either family of addresses.
    pub(in crate::capture) fn frames(&self) -> impl Iterator<Item = String> {
        let rules = [self.ports(), self.destinations()].concat();
        rules.into_iter().map(|rule| rule.text)
    }

    /// Rules of the datagrams that programs here send.
    pub(super) fn datagrams_out(&self) -> Vec<Rule> {
        [self.datagrams(), self.destinations(), self.users()].concat()
    }

    /// Rules of the datagrams that come from outside.
    pub(super) fn datagrams_in(&self) -> Vec<Rule> {
        [self.datagrams(), self.sources()].concat()
    }

    /// Rules of datagrams to ports that are let alone.
    pub(super) fn datagrams(&self) -> Vec<Rule> {
        to_ports("udp", &self.ports)
    }

    fn destinations(&self) -> Vec<Rule> {
        ranges("daddr", &self.ranges, "a destination let alone")
    }

    fn sources(&self) -> Vec<Rule> {
        ranges("saddr", &self.probes, "a prober let alone")
    }

    pub(super) fn ports(&self) -> Vec<Rule> {
        to_ports("tcp", &self.ports)
    }

    pub(super) fn users(&self) -> Vec<Rule> {
        let text = one_of("meta skuid", &self.users);
        let text = text.map(|text| rule(format!("{text} accept"), "a user let alone"));
        text.into_iter().collect()
    }
}

fn to_ports(protocol: &str, ports: &BTreeSet<u16>) -> Vec<Rule> {
    let text = one_of(&format!("{protocol} dport"), ports);
    let text = text.map(|text| rule(format!("{text} accept"), "a port let alone"));
    text.into_iter().collect()
}

/// One rule for each family that has ranges. Ranges within others are left out: nft takes them for
/// a conflict.
fn ranges(side: &str, ranges: &BTreeSet<IpNet>, comment: &'static str) -> Vec<Rule> {
    let widest = IpNet::aggregate(&ranges.iter().copied().collect());
    let of = |wanted: bool| {
        let mut of: Vec<_> = widest.clone();
        of.retain(|range| matches!(range, IpNet::V4(_)) == wanted);
        of.sort_unstable();
        of
    };
    [("ip", of(true)), ("ip6", of(false))]
        .into_iter()
        .filter_map(|(family, of)| one_of(&format!("{family} {side}"), &of))
        .map(|text| rule(format!("{text} accept"), comment))
        .collect()
}

/// `what { a, b }`; nothing where there is nothing to choose from.
pub(super) fn one_of<T: std::fmt::Display>(
    what: &str,
    values: impl IntoIterator<Item = T>,
) -> Option<String> {
    let mut values = values.into_iter();
    let mut text = format!("{what} {{ {}", values.next()?);
    for value in values {
        // Writing to a string cannot fail.
        let _infallible = write!(text, ", {value}");
    }
    text.push_str(" }");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_a_rule_and_none_is_empty() {
        let texts = |rules: Vec<Rule>| rules.into_iter().map(|r| r.text).collect::<Vec<_>>();
        let nothing = Exclusions::default();
        assert!(nothing.outbound().is_empty() && nothing.inbound().is_empty());
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let all = Exclusions {
            ports: [9100, 22].into(),
            ranges: ["10.1.0.0/16", "10.0.0.0/8", "fd00::/8"].map(net).into(),
            users: [33].into(),
            probes: ["192.0.2.7/32"].map(net).into(),
        };
        assert_eq!(
            texts(all.outbound()),
            [
                "tcp dport { 22, 9100 } accept",
                "ip daddr { 10.0.0.0/8 } accept",
                "ip6 daddr { fd00::/8 } accept",
                "meta skuid { 33 } accept",
            ]
        );
        assert_eq!(
            texts(all.inbound()),
            [
                "tcp dport { 22, 9100 } accept",
                "ip saddr { 192.0.2.7/32 } accept",
            ]
        );
    }
}
