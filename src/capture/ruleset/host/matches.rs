//! What tells packets apart, in nft's words, where several chains ask the same.

use crate::capture::ruleset::{FIRST_MARK, GUEST_MARK, MARK_MASK};

/// A connection that one of the workloads here opens.
pub(super) fn marked() -> String {
    format!("meta mark & {MARK_MASK:#x} >= {FIRST_MARK:#x}")
}

/// What was taken on its way from a guest or to one: nothing else that comes in keeps such a mark.
pub(super) fn taken() -> String {
    format!("meta mark & {MARK_MASK:#x} {{ {GUEST_MARK:#x}, {FIRST_MARK:#x}-{MARK_MASK:#x} }}")
}

/// What redirects to a port of this host what it sends by other interfaces, by family. To an address
/// that it sends from, not to ::1: firewalld refuses what goes there by another interface.
pub(super) fn redirected(port: u16) -> [String; 2] {
    [
        format!("meta nfproto ipv4 redirect to :{port}"),
        format!("meta nfproto ipv6 dnat ip6 to ip6 saddr : {port}"),
    ]
}

/// What only rules for datagrams take.
pub(super) const NO_TCP: &str = "meta l4proto != tcp accept";
/// To a port that a workload of this host declares.
pub(super) const DECLARED: [&str; 2] = [
    "ip daddr . tcp dport @declared4",
    "ip6 daddr . tcp dport @declared6",
];
/// To a guest of this host.
pub(super) const TO_GUEST: [&str; 2] =
    ["ip daddr @guest_addresses4", "ip6 daddr @guest_addresses6"];

/// From a guest of this host: whatever comes out of its link, and what bears its address wherever it comes
/// in, by a bridge or by a network on one. That a guest of a bridge has no other address its table sees to.
pub(super) const FROM_GUEST: [&str; 3] = [
    "iifname @guest_interfaces",
    "ip saddr @guest_addresses4",
    "ip6 saddr @guest_addresses6",
];
