//! The rules by which a workload's questions for names come to the proxy
//! (`spec/hbone-dataplane.md` §6.1, O2 and O3).
//!
//! What a workload asks on loopback is its own affair, as all else there is. Everything that it asks
//! elsewhere is answered by the proxy, under the address that was asked, or by nobody.

use super::{Chain, OPENING, OUTSIDE, Plan, Rule, UNMARKED_LISTENER, own, rule};

/// Where questions for names are redirected to.
pub(super) const DNS_PORT: u16 = 15053;
/// Where they are sent to.
pub(super) const ASKED: u16 = 53;

impl Plan {
    /// The same, with what the workload asks of name servers.
    #[must_use]
    pub fn with_dns(mut self) -> Self {
        let own = own(self.exemption);
        for chain in &mut self.table.chains {
            match chain.name {
                "zones" => chain.rules.push(rule(
                    format!("iif != \"lo\" udp sport {ASKED} ct zone set {OUTSIDE}"),
                    "tell answers to the proxy from those to the workload",
                )),
                "outbound" => {
                    // Before the last one, which takes what is left.
                    let last = chain.rules.pop();
                    for protocol in ["udp", "tcp"] {
                        chain.rules.push(rule(
                            format!("{protocol} dport {ASKED} redirect to :{DNS_PORT}"),
                            "questions for names",
                        ));
                    }
                    chain.rules.extend(last);
                }
                "inbound_guard" => drop(chain.rules.splice(0..0, squatted())),
                "outbound_guard" => chain.rules.push(rule(
                    format!("udp dport {ASKED} counter reject"),
                    "asked beside the proxy",
                )),
                _ => {}
            }
        }
        self.table.chains.insert(0, questions(&own));
        self
    }
}

/// To a program that has taken the port while the proxy is away.
pub(super) fn squatted() -> [Rule; 2] {
    let to = [
        format!("udp dport {DNS_PORT}"),
        format!("tcp dport {DNS_PORT} {OPENING}"),
    ];
    to.map(|to| {
        rule(
            format!("{to} {UNMARKED_LISTENER} counter reject"),
            "to a program that has taken the proxy's port",
        )
    })
}

/// The proxy asks the same servers as the workload would, one day from the same port. In one zone its
/// question would be taken for the workload's, and redirected with it.
fn questions(own: &str) -> Chain {
    Chain {
        name: "questions",
        base: "type filter hook output priority -300; policy accept;",
        rules: vec![rule(
            format!("{own} udp dport {ASKED} ct zone set {OUTSIDE}"),
            "tell the proxy's questions from the workload's",
        )],
    }
}

#[cfg(test)]
mod tests {
    use crate::capture::Exemption;
    use crate::capture::ruleset::plan;

    #[test]
    fn questions_are_taken_over_and_nothing_else_changes() {
        let plain = plan(&Exemption::Uid(1337)).nft();
        let with = plan(&Exemption::Uid(1337)).with_dns().nft();
        let added: Vec<&str> = with
            .lines()
            .filter(|line| !plain.lines().any(|l| l == *line))
            .map(str::trim)
            .collect();
        let rules: Vec<&str> = added
            .iter()
            .map(|line| line.split_once(" comment").map_or(*line, |(rule, _)| rule))
            .collect();
        assert_eq!(
            rules,
            [
                "chain questions {",
                "type filter hook output priority -300; policy accept;",
                "meta skuid 1337 meta mark & 0xfff == 0x539 udp dport 53 ct zone set 1",
                "iif != \"lo\" udp sport 53 ct zone set 1",
                "udp dport 53 redirect to :15053",
                "tcp dport 53 redirect to :15053",
                "udp dport 53 counter reject",
                "udp dport 15053 socket mark & 0xfff != 0x539 counter reject",
                "tcp dport 15053 tcp flags & (syn | ack) == syn socket mark & 0xfff != 0x539 \
                 counter reject",
            ]
        );
        let kept = plain
            .lines()
            .filter(|line| !with.lines().any(|l| l == *line));
        assert_eq!(kept.count(), 0, "{with}");
        let at = |text: &str| with.find(text).unwrap();
        assert!(
            at("tcp dport 53 redirect") < at("redirect to :15001"),
            "{with}"
        );
        assert!(
            at("older than these rules") < at("udp dport 53 redirect"),
            "{with}"
        );
    }
}
