//! The nftables rules of a captured workload, as data rendered once
//! (`spec/hbone-dataplane.md` §6, DESIGN §7).
//!
//! Everything is in one `inet` table, so that IPv6 cannot leak beside IPv4. The proxy's own packets
//! are known by the user who owns their socket. A packet mark exempts nothing: any program with
//! NET_RAW can set one (`spec/reliability.md` §0 F3).
//!
//! The way back of a connection that the proxy opened under its client's address needs help, since
//! the program's answers are addressed to that client: the connection is marked where the proxy
//! opens it, its answers take the mark on and are routed back to the proxy over loopback.

use std::fmt::Write as _;

use super::privilege::Exemption;

/// The table that is ours; no other is ever touched.
pub const TABLE: &str = "lateen";
/// Mark of the proxy's packets, the one Istio's tools know.
pub const PROXY_MARK: u32 = 0x539;
/// Mark of answers that must go back to the proxy.
pub const RETURN_MARK: u32 = 0x111;
/// The bits of a mark that are ours.
pub const MARK_MASK: u32 = 0xfff;
/// Preference of the routing rule for answers.
pub const RULE_PREFERENCE: u32 = 32764;
/// Routing table for answers.
pub const ROUTE_TABLE: u32 = 100;

/// What capture puts into a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The nftables transaction: replaces our table, whatever it held.
    pub nft: String,
    /// The arguments of `ip` that make the way back, in order, each for one family.
    pub routes: Vec<String>,
}

impl Plan {
    /// All of it as a script that a person can read and run.
    pub fn render(&self) -> String {
        let mut text = String::from("nft -f - <<'END'\n");
        text.push_str(&self.nft);
        text.push_str("END\n");
        for route in &self.routes {
            text.push_str("ip ");
            text.push_str(route);
            text.push('\n');
        }
        text
    }
}

/// The plan for a workload in a namespace of its own.
pub fn plan(exemption: &Exemption) -> Plan {
    Plan {
        nft: nft(exemption),
        routes: ["-4", "-6"].into_iter().flat_map(routes).collect(),
    }
}

fn nft(exemption: &Exemption) -> String {
    let own = match exemption {
        Exemption::Uid(uid) => format!("meta skuid {uid}"),
        Exemption::Mark => format!("meta mark & {MARK_MASK:#x} == {PROXY_MARK:#x}"),
    };
    let mut text = String::new();
    // The first line makes the second legal when there was no table; all of it is one transaction.
    for line in [
        format!("table inet {TABLE}"),
        format!("delete table inet {TABLE}"),
        format!("table inet {TABLE} {{"),
        "\tchain answers {".to_owned(),
        "\t\ttype route hook output priority -150; policy accept;".to_owned(),
        format!(
            "\t\t{own} oif \"lo\" ct state new ct mark set {RETURN_MARK:#x} \
             comment \"proxy to program: mark the connection\""
        ),
        format!(
            "\t\tct direction reply ct mark {RETURN_MARK:#x} meta mark set {RETURN_MARK:#x} \
             comment \"its answers go back to the proxy\""
        ),
        "\t}".to_owned(),
        "\tchain outbound {".to_owned(),
        "\t\ttype nat hook output priority -100; policy accept;".to_owned(),
        format!("\t\t{own} accept comment \"the proxy itself\""),
        "\t\toif \"lo\" accept comment \"to the workload itself\"".to_owned(),
        "\t\ttcp flags & (fin | syn | rst | ack) != syn accept \
         comment \"connections older than these rules\""
            .to_owned(),
        "\t\tmeta l4proto tcp redirect to :15001 comment \"all else the program opens\"".to_owned(),
        "\t}".to_owned(),
        "\tchain inbound {".to_owned(),
        "\t\ttype nat hook prerouting priority -100; policy accept;".to_owned(),
        "\t\tiif \"lo\" accept comment \"from the workload itself\"".to_owned(),
        "\t\ttcp dport 15008 accept comment \"tunnels\"".to_owned(),
        "\t\ttcp flags & (fin | syn | rst | ack) != syn accept \
         comment \"connections older than these rules\""
            .to_owned(),
        "\t\tmeta l4proto tcp redirect to :15006 comment \"plain text from outside\"".to_owned(),
        "\t}".to_owned(),
        "}".to_owned(),
    ] {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{line}");
    }
    text
}

fn routes(family: &str) -> [String; 2] {
    let mark = format!("fwmark {RETURN_MARK:#x}/{MARK_MASK:#x}");
    [
        format!("{family} rule add pref {RULE_PREFERENCE} {mark} lookup {ROUTE_TABLE}"),
        format!("{family} route replace local default dev lo table {ROUTE_TABLE}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_exempts_only_where_there_is_one_user() {
        for (name, exemption, exempt, other) in [
            (
                "by user",
                Exemption::Uid(1337),
                "meta skuid 1337",
                "meta mark &",
            ),
            (
                "by mark",
                Exemption::Mark,
                "meta mark & 0xfff == 0x539",
                "meta skuid",
            ),
        ] {
            let text = plan(&exemption).nft;
            assert_eq!(text.matches(exempt).count(), 2, "{name}");
            assert!(!text.contains(other), "{name}");
        }
    }

    #[test]
    fn the_plan_replaces_our_table_and_names_no_other() {
        let plan = plan(&Exemption::Uid(1));
        assert!(
            plan.nft
                .starts_with("table inet lateen\ndelete table inet lateen\n")
        );
        assert!(!plan.nft.contains("flush"));
        assert_eq!(plan.nft.matches("table").count(), 3);
        assert_eq!(plan.routes.len(), 4);
    }
}
