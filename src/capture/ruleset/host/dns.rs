//! What units and users of the host ask of name servers. Guests ask whom they like.
//!
//! As with connections, the one look into a map says whose question it is, and the proxy learns that
//! from the mark. What is asked on loopback, of the host's own resolver say, is within the host.

use super::HostPlan;
use super::matches::marked;
use crate::capture::ruleset::dns::{ASKED, DNS_PORT, squatted};
use crate::capture::ruleset::{Chain, Exclusions, LOOPBACK, MARK_MASK, OPENING, Rule, rule};

impl HostPlan {
    /// The same, with what the workloads ask of name servers; `exclusions` is what is let alone.
    #[must_use]
    pub fn with_dns(mut self, exclusions: &Exclusions) -> Self {
        for chain in &mut self.table.chains {
            match chain.name {
                "marks" => insert(
                    &mut chain.rules,
                    "meta l4proto != tcp",
                    vec![rule(
                        format!("udp dport {ASKED} jump names"),
                        "whose question it is",
                    )],
                ),
                "passing" => insert(
                    &mut chain.rules,
                    "iif \"lo\" accept",
                    [
                        format!("udp dport {DNS_PORT}"),
                        format!("tcp dport {DNS_PORT} {OPENING}"),
                    ]
                    .map(|to| {
                        rule(
                            format!("iif \"lo\" {to} meta mark set ct mark"),
                            "frames forged onto the loopback interface have none",
                        )
                    })
                    .into(),
                ),
                "outbound" => insert(
                    &mut chain.rules,
                    &format!("{} meta l4proto tcp", marked()),
                    ["udp", "tcp"]
                        .map(|protocol| {
                            let asked = format!("{} {protocol} dport {ASKED}", marked());
                            rule(
                                format!("{asked} redirect to :{DNS_PORT}"),
                                "questions for names",
                            )
                        })
                        .into(),
                ),
                "inbound_guard" => {
                    // By TCP it cannot be told: the listener that hands marks on has none itself.
                    let [by_udp, _by_tcp] = squatted();
                    chain.rules.insert(0, by_udp);
                }
                "outbound_guard" => insert(
                    &mut chain.rules,
                    &format!("{} {OPENING}", marked()),
                    vec![rule(
                        format!("{} udp dport {ASKED} counter reject", marked()),
                        "asked beside the proxy",
                    )],
                ),
                _ => {}
            }
        }
        // Behind the one that it calls, before the one that calls it.
        let at = usize::from(!self.table.chains.is_empty());
        self.table.chains.insert(at, names(exclusions));
        self
    }
}

/// Puts rules before the first that begins so.
pub(super) fn insert(rules: &mut Vec<Rule>, before: &str, more: Vec<Rule>) {
    let at = rules.iter().position(|rule| rule.text.starts_with(before));
    let at = at.unwrap_or(rules.len());
    rules.splice(at..at, more);
}

fn names(exclusions: &Exclusions) -> Chain {
    let mut rules = vec![rule(
        format!("{} meta mark set meta mark & {:#x}", marked(), !MARK_MASK),
        "who a workload is, is not for programs to say",
    )];
    rules.extend(LOOPBACK.map(|to| rule(format!("{to} accept"), "within the host")));
    rules.extend(exclusions.outbound());
    rules.push(rule("jump workloads", "whose question it is"));
    Chain {
        name: "names",
        base: "",
        rules,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Exemption;

    #[test]
    fn questions_are_marked_then_redirected_and_nothing_else_changes() {
        let none = Exclusions::default();
        let plain = HostPlan::new(Exemption::Uid(1337), &none, &[]);
        let with = plain.clone().with_dns(&none).nft();
        let plain = plain.nft();
        let rules = |text: &str| -> Vec<String> {
            let lines = text.lines().map(|line| line.trim().to_owned());
            let rule = |line: String| match line.split_once(" comment") {
                Some((rule, _)) => rule.to_owned(),
                None => line,
            };
            lines.map(rule).collect()
        };
        let (plain, with) = (rules(&plain), rules(&with));
        let gone: Vec<_> = plain.iter().filter(|rule| !with.contains(rule)).collect();
        assert!(gone.is_empty(), "{gone:?}");
        let at = |rule: &str| {
            with.iter()
                .position(|r| r == rule)
                .unwrap_or_else(|| panic!("{rule}: {with:#?}"))
        };
        let marked = marked();
        for (first, then) in [
            ("chain workloads {".to_owned(), "chain names {".to_owned()),
            ("chain names {".to_owned(), "chain marks {".to_owned()),
            (
                "udp dport 53 jump names".to_owned(),
                "meta l4proto != tcp accept".to_owned(),
            ),
            (
                "iif \"lo\" udp dport 15053 meta mark set ct mark".to_owned(),
                "iif \"lo\" accept".to_owned(),
            ),
            (
                format!("{marked} udp dport 53 redirect to :15053"),
                format!("{marked} meta l4proto tcp meta nfproto ipv4 redirect to :15001"),
            ),
            (
                format!("{marked} udp dport 53 counter reject"),
                format!("{marked} {OPENING} counter reject with tcp reset"),
            ),
        ] {
            assert!(at(&first) < at(&then), "{first} before {then}");
        }
    }
}
