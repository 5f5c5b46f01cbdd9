//! The rules of a workload in a network namespace of its own.

use std::fmt::Write as _;

use super::{
    Chain, Exclusions, FRAGMENTS, Family, HBONE_PORT, LOOPBACK, NOT_OPENING, OPENING,
    OUTBOUND_PORT, OUTSIDE, PLAINTEXT_PORT, Table, UNMARKED_LISTENER, own, rule, squatted,
    way_back,
};
use crate::capture::privilege::Exemption;
use crate::capture::routes::{self, Ways};

/// What capture puts into a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(super) exemption: Exemption,
    pub(super) table: Table,
}

/// The plan for a workload in a namespace of its own.
pub fn plan(exemption: &Exemption) -> Plan {
    Plan::excluding(*exemption, &Exclusions::default())
}

impl Plan {
    /// The plan that lets some traffic alone.
    pub fn excluding(exemption: Exemption, exclusions: &Exclusions) -> Self {
        let own = own(exemption);
        let chains = vec![
            zones(),
            answers(&own),
            outbound(&own, exclusions),
            inbound(exclusions),
            outbound_guard(&own, exclusions),
            inbound_guard(exclusions),
        ];
        Self {
            exemption,
            table: Table::new(Family::Inet, chains),
        }
    }

    /// How these rules know the proxy.
    pub fn exemption(&self) -> Exemption {
        self.exemption
    }

    /// The nftables script: replaces our table, whatever it held, in one transaction.
    pub fn nft(&self) -> String {
        format!("{}{}", Family::Inet.cleared(), self.table.declared())
    }

    /// Our table.
    pub(in crate::capture) fn table(&self) -> &Table {
        &self.table
    }

    /// The commands, each without its leading `ip`, that make the way back for answers. Those for
    /// IPv6 are for namespaces that have it.
    pub fn ip(&self) -> Vec<String> {
        let families = [routes::Family::V4, routes::Family::V6].into_iter();
        let way_back = families.flat_map(|family| routes::commands(family, self.ways()));
        [routes::LOOPBACK_UP.to_owned()]
            .into_iter()
            .chain(way_back)
            .collect()
    }

    /// What packets take a route of their own.
    pub(in crate::capture) fn ways(&self) -> Ways {
        Ways {
            guests: false,
            datagrams: self.captures_udp(),
        }
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

/// A client's own connection and the one the proxy opens in its name go to the same address and
/// port; one day they are also from the same port. In one zone the second would be taken for the
/// first, and redirected with it. Whoever else assigns zones does it at -300, and has the say.
fn zones() -> Chain {
    Chain {
        name: "zones",
        base: "type filter hook prerouting priority -299; policy accept;",
        rules: vec![rule(
            format!("iif != \"lo\" meta l4proto tcp ct original zone set {OUTSIDE}"),
            "tell a client's connection from the proxy's in its name",
        )],
    }
}

fn answers(own: &str) -> Chain {
    Chain {
        name: "answers",
        base: "type route hook output priority -150; policy accept;",
        rules: way_back(own).into(),
    }
}

fn outbound(own: &str, exclusions: &Exclusions) -> Chain {
    let mut rules = vec![
        rule(format!("{own} accept"), "the proxy itself"),
        rule("oif \"lo\" accept", "to the workload itself"),
        rule(format!("{NOT_OPENING} accept"), "older than these rules"),
    ];
    rules.extend(exclusions.outbound());
    rules.push(rule(
        format!("meta l4proto tcp redirect to :{OUTBOUND_PORT}"),
        "all else the workload opens",
    ));
    Chain {
        name: "outbound",
        base: "type nat hook output priority -100; policy accept;",
        rules,
    }
}

fn inbound(exclusions: &Exclusions) -> Chain {
    let mut rules = vec![
        rule("iif \"lo\" accept", "from the proxy or the workload itself"),
        rule(format!("tcp dport {HBONE_PORT} accept"), "tunnels"),
        rule(format!("{NOT_OPENING} accept"), "older than these rules"),
    ];
    rules.extend(exclusions.inbound());
    rules.push(rule(
        format!("meta l4proto tcp redirect to :{PLAINTEXT_PORT}"),
        "all else from outside, in plain text",
    ));
    Chain {
        name: "inbound",
        base: "type nat hook prerouting priority -100; policy accept;",
        rules,
    }
}

fn outbound_guard(own: &str, exclusions: &Exclusions) -> Chain {
    let mut rules = vec![
        rule(format!("{own} accept"), "the proxy itself"),
        rule("oif \"lo\" accept", "to the workload itself"),
    ];
    rules.extend(LOOPBACK.map(|to| rule(format!("{to} accept"), "redirected to the proxy")));
    // Before what is let alone: that is not told from its pieces.
    rules.extend(FRAGMENTS.map(|made| {
        rule(
            format!("meta l4proto tcp {made} counter drop"),
            "fragments made to slip past the rules below",
        )
    }));
    rules.extend(exclusions.outbound());
    rules.push(rule(
        format!("{OPENING} counter reject with tcp reset"),
        "opened beside the proxy",
    ));
    Chain {
        name: "outbound_guard",
        base: "type filter hook output priority 0; policy accept;",
        rules,
    }
}

fn inbound_guard(exclusions: &Exclusions) -> Chain {
    let mut rules = vec![
        squatted(UNMARKED_LISTENER),
        rule("iif \"lo\" accept", "from the proxy or the workload itself"),
        rule(
            format!("tcp dport {{ {PLAINTEXT_PORT}, {HBONE_PORT} }} accept"),
            "to the proxy",
        ),
    ];
    rules.extend(exclusions.inbound());
    rules.push(rule(
        format!("{OPENING} counter reject with tcp reset"),
        "opened beside the proxy",
    ));
    Chain {
        name: "inbound_guard",
        base: "type filter hook input priority 0; policy accept;",
        rules,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::ruleset::tests::assert_explained;

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
        assert_explained(&plan(&Exemption::Mark).table.chains);
    }

    #[test]
    fn what_is_let_alone_is_so_by_the_redirection_and_by_the_guard_behind_it() {
        let exclusions = Exclusions {
            ports: [9100].into(),
            users: [33].into(),
            probes: ["192.0.2.7/32".parse().unwrap()].into(),
            ..Exclusions::default()
        };
        let text = Plan::excluding(Exemption::Uid(1), &exclusions).nft();
        for (rule, chains) in [
            ("tcp dport { 9100 } accept", 4),
            ("meta skuid { 33 } accept", 2),
            ("ip saddr { 192.0.2.7/32 } accept", 2),
        ] {
            assert_eq!(text.matches(rule).count(), chains, "{rule}");
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
