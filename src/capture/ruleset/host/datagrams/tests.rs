use super::*;
use crate::capture::Exemption;
use crate::capture::ruleset::host::{By, Mark};
use crate::capture::ruleset::tests::{assert_explained, assert_only_adds};

fn member(bits: u32, datagrams: &[&str]) -> Member {
    Member {
        mark: Mark::of(bits).unwrap(),
        by: By::Nothing,
        inbound: [].into(),
        datagrams: datagrams.iter().map(|at| at.parse().unwrap()).collect(),
    }
}

fn some() -> Datagrams {
    Datagrams {
        destinations: ["10.200.0.1:514", "[fd99::1]:514", "10.200.0.1:53"]
            .map(|at| at.parse().unwrap())
            .into(),
        ports: [161].into(),
    }
}

fn plan(exclusions: &Exclusions, dns: bool) -> HostPlan {
    let members = [
        member(0x601, &["192.0.2.1:7946", "192.0.2.1:22"]),
        member(0x602, &[]),
    ];
    let plan = HostPlan::new(Exemption::Uid(1337), exclusions, &members);
    let plan = if dns { plan.with_dns(exclusions) } else { plan };
    plan.with_udp(exclusions, &members, &some())
}

#[test]
fn datagrams_are_added_and_nothing_else_changes() {
    let none = Exclusions::default();
    for dns in [false, true] {
        let plain = HostPlan::new(Exemption::Uid(1337), &none, &[]);
        let plain = if dns { plain.with_dns(&none) } else { plain };
        let with = plan(&none, dns);
        assert_explained(&with.table.chains);
        assert_eq!(with.ip().len(), plain.ip().len() + 2);
        let (plain, with) = (plain.nft(), with.nft());
        assert_only_adds(&plain, &with);
        let at = |text: &str| with.find(text).unwrap_or_else(|| panic!("{text}: {with}"));
        for (first, then) in [
            ("chain workloads {", "chain into_the_mesh {"),
            ("chain into_the_mesh {", "chain marks {"),
            ("chain declared {", "chain passing {"),
            ("meta l4proto udp accept", "jump into_the_mesh"),
            ("jump into_the_mesh", "ct direction reply ct mark"),
            ("tproxy ip to :15001", "iif \"lo\" accept"),
            ("iif \"lo\" accept", "goto declared"),
        ] {
            assert!(at(first) < at(then), "{first} before {then}: {with}");
        }
        assert_eq!(with.contains("10.200.0.1 . 53"), !dns, "{with}");
    }
}

#[test]
fn whose_a_datagram_is_takes_both_marks() {
    let text = plan(&Exclusions::default(), false).nft();
    for element in [
        "elements = { 0x601 . 0x601, 0x602 . 0x602 }",
        "elements = { 192.0.2.1 . 22, 192.0.2.1 . 7946 }",
        "{ 16:0 : 0x16, 1f0a:0 : 0x1f0a, 202:0 : 0x202, 35:0 : 0x35, a1:0 : 0xa1 }",
    ] {
        assert!(text.contains(element), "{element} in {text}");
    }
    let both = "meta mark & 0xfff . ct mark & 0xfff @udp_marks";
    // Two families to the proxy, and the guard.
    assert_eq!(text.matches(both).count(), 3, "{text}");
    assert!(!text.contains("udp_ports"), "{text}");
}

#[test]
fn what_is_let_alone_is_so_everywhere() {
    let exclusions = Exclusions {
        ports: [22].into(),
        users: [33].into(),
        probes: ["192.0.2.7/32".parse().unwrap()].into(),
        ranges: ["10.9.0.0/16".parse().unwrap()].into(),
    };
    let text = plan(&exclusions, false).nft();
    for (rule, times) in [
        // Into the mesh, within the host, from outside; guarded.
        ("udp dport { 22 } accept", 4),
        ("ct direction original meta skuid { 33 } accept", 2),
        (
            "meta l4proto udp ct direction original ip daddr { 10.9.0.0/16",
            2,
        ),
    ] {
        assert_eq!(text.matches(rule).count(), times, "{rule}: {text}");
    }
    assert!(!text.contains("192.0.2.1 . 22"), "{text}");
}

#[test]
fn other_datagrams_change_elements_alone() {
    let none = Exclusions::default();
    let then = plan(&none, false);
    let members = [member(0x601, &["192.0.2.1:5353"])];
    let now = HostPlan::new(Exemption::Uid(1337), &none, &members);
    let now = now.with_udp(&none, &members, &some());
    let script = now.changing(&then).unwrap();
    assert!(
        script.contains("flush set inet lateen declared_udp4"),
        "{script}"
    );
    assert!(!script.contains("units"), "{script}");
    assert_eq!(then.changing(&then).as_deref(), Some(""));
    let without = HostPlan::new(Exemption::Uid(1337), &none, &members);
    assert_eq!(now.changing(&without), None);
}

fn with_guest(exclusions: &Exclusions) -> [HostPlan; 2] {
    with_guest_at(exclusions, "tap3", None, &some())
}

fn guest(interface: &str, port: Option<&str>) -> Member {
    Member {
        by: By::Guest {
            interface: interface.into(),
            port: port.map(Into::into),
            addresses: ["10.2.0.2", "fd02::2"].map(|ip| ip.parse().unwrap()).into(),
        },
        ..member(0x603, &["10.2.0.2:7946", "[fd02::2]:7946"])
    }
}

fn with_guest_at(
    exclusions: &Exclusions,
    interface: &str,
    port: Option<&str>,
    datagrams: &Datagrams,
) -> [HostPlan; 2] {
    let members = [member(0x601, &["192.0.2.1:7946"]), guest(interface, port)];
    let plain = HostPlan::new(Exemption::Uid(1337), exclusions, &members);
    let with = plain.clone().with_udp(exclusions, &members, datagrams);
    [plain, with]
}

#[test]
fn guests_are_added_and_nothing_else_changes() {
    let [plain, with] = with_guest(&Exclusions::default());
    assert_explained(&with.table.chains);
    let (plain, with) = (plain.nft(), with.nft());
    assert_only_adds(&plain, &with);
    let at = |text: &str| with.find(text).unwrap_or_else(|| panic!("{text}: {with}"));
    for (first, then) in [
        ("chain from_guest_datagrams {", "chain passing {"),
        ("chain to_guest_datagrams {", "chain declared {"),
        ("map @guests6 jump from_guest_datagrams", "goto declared"),
        ("goto declared", "goto from_guest comment"),
        (
            "jump from_guest_datagrams",
            "socket transparent 1 meta mark set iifname",
        ),
        // Whose socket is that of everything at its port.
        (
            "udp dport 15008 accept",
            "socket transparent 1 meta mark set iifname",
        ),
    ] {
        assert!(at(first) < at(then), "{first} before {then}: {with}");
    }
}

#[test]
fn what_guests_ask_for_names_is_taken_whoever_else_is_answered_by_the_proxy() {
    let none = Exclusions::default();
    let members = [guest("br0", Some("tap3"))];
    let all = "elements = { 10.200.0.1 . 514, 10.200.0.1 . 53 }";
    for (name, dns, of_others) in [
        ("names are nobody's", false, all),
        ("the proxy answers", true, "elements = { 10.200.0.1 . 514 }"),
    ] {
        let plan = HostPlan::new(Exemption::Mark, &none, &members);
        let plan = if dns { plan.with_dns(&none) } else { plan };
        let text = plan.with_udp(&none, &members, &some()).nft();
        let set = |set: &str, of: &str| {
            format!("set {set} {{\n\t\ttype ipv4_addr . inet_service;\n\t\t{of}\n\t}}")
        };
        assert_eq!(
            text.matches(&set("udp4", of_others)).count(),
            1,
            "{name}: {text}"
        );
        // Of this layer and below.
        assert_eq!(
            text.matches(&set("guest_udp4", all)).count(),
            2,
            "{name}: {text}"
        );
    }
}

#[test]
fn what_is_let_alone_is_so_of_guests_too() {
    let exclusions = Exclusions {
        ports: [22].into(),
        ranges: ["10.9.0.0/16".parse().unwrap()].into(),
        probes: ["192.0.2.7/32".parse().unwrap()].into(),
        ..Exclusions::default()
    };
    let [_plain, with] = with_guest(&exclusions);
    let text = with.nft();
    for (rule, times) in [
        // A guest's keeps no mark; forwarded.
        (
            "udp dport { 22 } meta mark set meta mark & 0xfffff000 return",
            1,
        ),
        (
            "original ip daddr { 10.9.0.0/16 } meta mark set meta mark & 0xfffff000 return",
            1,
        ),
        ("meta l4proto udp ip saddr { 192.0.2.7/32 } accept", 1),
    ] {
        assert_eq!(text.matches(rule).count(), times, "{rule}: {text}");
    }
}

fn bridged(exclusions: &Exclusions, datagrams: &Datagrams) -> [HostPlan; 2] {
    with_guest_at(exclusions, "br0", Some("tap3"), datagrams)
}

#[test]
fn below_the_network_layer_the_same_destinations_are_known() {
    let exclusions = Exclusions {
        ports: [22].into(),
        ..Exclusions::default()
    };
    let [plain, with] = bridged(&exclusions, &some());
    let [plain, with] = [plain, with].map(|plan| plan.bridge().cloned().unwrap());
    assert_explained(&with.chains);
    assert_only_adds(&plain.declared(), &with.declared());
    let text = with.declared();
    for (rule, times) in [
        ("elements = { 10.200.0.1 . 514, 10.200.0.1 . 53 }", 1),
        ("elements = { \"tap3\" . 7946 }", 1),
        (
            "iifname \"tap3\" ip saddr != { 10.2.0.2 } ip daddr . udp dport @guest_udp4 counter drop",
            1,
        ),
        (
            "iifname { \"tap3\" } ip6 daddr . udp dport @guest_udp6 counter drop",
            1,
        ),
        ("oifname . udp dport @guest_ports counter drop", 1),
        // Both ways, and of what is sent under another address.
        ("udp dport { 22 } accept", 3),
    ] {
        assert_eq!(text.matches(rule).count(), times, "{rule}: {text}");
    }
    let at = |text: &str| with.declared().find(text).unwrap();
    assert!(at("udp dport { 22 } accept") < at("@guest_udp4 counter drop"));
}

#[test]
fn both_tables_learn_of_another_destination_at_once() {
    let none = Exclusions::default();
    let [plain, then] = bridged(&none, &some());
    let mut more = some();
    more.destinations.insert("10.200.0.2:514".parse().unwrap());
    let [_plain, now] = bridged(&none, &more);
    let script = now.changing(&then).unwrap();
    for set in [
        "inet lateen udp4",
        "inet lateen guest_udp4",
        "bridge lateen guest_udp4",
    ] {
        let flushed = format!("flush set {set}\n");
        assert_eq!(script.matches(&flushed).count(), 1, "{script}");
    }
    assert_eq!(script.matches("10.200.0.2 . 514").count(), 3, "{script}");
    assert_eq!(now.changing(&now).as_deref(), Some(""));
    assert_eq!(then.changing(&plain), None);
    let [_plain, routed] = with_guest(&none);
    assert_eq!(routed.changing(&then), None);
}
