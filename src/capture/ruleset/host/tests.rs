use super::*;
use crate::capture::ruleset::tests::assert_explained;

fn mark(bits: u32) -> Mark {
    Mark::of(bits).unwrap()
}

fn member(bits: u32, by: By, inbound: &[&str]) -> Member {
    Member {
        mark: mark(bits),
        by,
        inbound: inbound.iter().map(|at| at.parse().unwrap()).collect(),
        datagrams: [].into(),
    }
}

fn unit(path: &str, id: u64) -> By {
    By::Cgroup(Cgroup {
        path: Arc::from(path),
        id,
    })
}

fn guest() -> By {
    By::Guest {
        interface: Arc::from("tap3"),
        port: None,
        addresses: ["10.9.0.2", "fd09::2"].map(|ip| ip.parse().unwrap()).into(),
    }
}

fn plan(members: &[Member]) -> HostPlan {
    HostPlan::new(Exemption::Uid(1337), &Exclusions::default(), members)
}

#[test]
fn a_mark_names_a_workload_in_our_bits_alone() {
    for (name, socket, want) in [
        ("the first", 0x600, Some(0x600)),
        ("the last", 0xfff, Some(0xfff)),
        ("beside bits of others", 0x12601, Some(0x601)),
        ("the proxy", PROXY, None),
        ("nobody", 0, None),
        ("others alone", 0xf_f000, None),
    ] {
        assert_eq!(Mark::of(socket).map(Mark::bits), want, "{name}");
    }
    assert_eq!(Mark::all().count(), 2560);
}

const PROXY: u32 = super::super::PROXY_MARK;

#[test]
fn each_way_is_an_element_of_its_map() {
    let text = plan(&[
        member(
            0x601,
            unit("system.slice/cart.service", 7),
            &["192.0.2.1:8080", "[fd00::1]:8080"],
        ),
        member(
            0x602,
            unit("a.slice/a-b.slice/a-b-c.slice/a-b-c-d.slice/x.service", 8),
            &[],
        ),
        member(0x603, By::User(1001), &["192.0.2.1:9090"]),
        member(0x604, guest(), &[]),
        member(0x605, By::Nothing, &["192.0.2.1:7070"]),
    ])
    .nft();
    for element in [
        "map units_2 {\n\t\ttype cgroupsv2 : mark;\n\t\telements = { \"system.slice/cart.service\" : 0x601 }",
        "x.service\" : 0x602 }",
        "map users {\n\t\ttype uid : mark;\n\t\telements = { 1001 : 0x603 }",
        "elements = { 192.0.2.1 . 7070, 192.0.2.1 . 8080, 192.0.2.1 . 9090 }",
        "elements = { fd00::1 . 8080 }",
        "elements = { \"tap3\" . 10.9.0.2 : 0x604 }",
        "elements = { \"tap3\" . fd09::2 : 0x604 }",
        "socket cgroupv2 level 5 map @units_5",
    ] {
        assert!(text.contains(element), "{element} in {text}");
    }
    assert!(!text.contains("units_6"));
}

#[test]
fn what_changes_is_elements_and_the_rest_stays() {
    let cart = |id| {
        member(
            0x601,
            unit("system.slice/cart.service", id),
            &["192.0.2.1:8080"],
        )
    };
    let web = member(0x602, By::User(1001), &[]);
    let refilled = "flush map inet lateen units_2\n\
        add element inet lateen units_2 { \"system.slice/cart.service\" : 0x601 }\n";
    let added = "flush map inet lateen users\nadd element inet lateen users { 1001 : 0x602 }\n";
    for (name, then, now, want) in [
        ("nothing", vec![cart(1)], vec![cart(1)], Some(String::new())),
        (
            "made again",
            vec![cart(1)],
            vec![cart(2)],
            Some(refilled.to_owned()),
        ),
        (
            "another",
            vec![cart(1)],
            vec![cart(1), web.clone()],
            Some(added.to_owned()),
        ),
        (
            "gone",
            vec![cart(1), web.clone()],
            vec![cart(1)],
            Some("flush map inet lateen users\n".to_owned()),
        ),
        (
            "deeper",
            vec![cart(1)],
            vec![member(0x601, unit("a/b/c/d/e", 1), &[])],
            None,
        ),
        ("a guest", vec![], vec![member(0x604, guest(), &[])], None),
    ] {
        assert_eq!(plan(&now).changing(&plan(&then)), want, "{name}");
    }
}

#[test]
fn units_that_come_and_go_do_so_by_their_numbers() {
    let cart = |bits, id| member(bits, unit("system.slice/cart.service", id), &[]);
    let pay = member(0x602, unit("pay.slice", 7), &[]);
    let web = member(0x603, By::User(1001), &[]);
    let turnover = |map: &str, come: &[(u64, u32)], gone: &[u64]| Turnover {
        map: map.to_owned(),
        come: come.iter().map(|(id, bits)| (*id, mark(*bits))).collect(),
        gone: gone.iter().copied().collect(),
    };
    let level = "units_2";
    for (name, then, now, want) in [
        (
            "nothing",
            vec![cart(0x601, 1)],
            vec![cart(0x601, 1)],
            Some(vec![]),
        ),
        (
            "started",
            vec![],
            vec![cart(0x601, 1)],
            Some(vec![turnover(level, &[(1, 0x601)], &[])]),
        ),
        (
            "stopped",
            vec![cart(0x601, 1)],
            vec![member(0x601, By::Nothing, &[])],
            Some(vec![turnover(level, &[], &[1])]),
        ),
        (
            "made again, and one of another level",
            vec![cart(0x601, 1)],
            vec![cart(0x601, 2), pay.clone()],
            Some(vec![
                turnover("units_1", &[(7, 0x602)], &[]),
                turnover(level, &[(2, 0x601)], &[1]),
            ]),
        ),
        (
            "made again, of another workload",
            vec![cart(0x601, 1)],
            vec![cart(0x604, 2)],
            Some(vec![turnover(level, &[(2, 0x604)], &[1])]),
        ),
        (
            "of another workload",
            vec![cart(0x601, 1)],
            vec![cart(0x604, 1)],
            None,
        ),
        ("a user beside it", vec![], vec![cart(0x601, 1), web], None),
        (
            "called at a port",
            vec![cart(0x601, 1)],
            vec![member(0x601, By::Nothing, &["192.0.2.1:80"])],
            None,
        ),
        ("a guest", vec![], vec![member(0x604, guest(), &[])], None),
    ] {
        assert_eq!(plan(&now).turnovers(&plan(&then)), want, "{name}");
    }
}

#[test]
fn of_two_that_are_known_by_the_same_the_first_has_it() {
    let text = plan(&[
        member(0x601, By::User(7), &[]),
        member(0x602, By::User(7), &[]),
    ])
    .nft();
    assert!(
        text.contains("{ 7 : 0x601 }") && !text.contains("0x602"),
        "{text}"
    );
}

#[test]
fn no_port_that_is_let_alone_is_redirected() {
    let exclusions = Exclusions {
        ports: [22].into(),
        ..Exclusions::default()
    };
    let members = [member(
        0x601,
        By::Nothing,
        &["192.0.2.1:22", "192.0.2.1:80"],
    )];
    let text = HostPlan::new(Exemption::Uid(1), &exclusions, &members).nft();
    assert!(text.contains("elements = { 192.0.2.1 . 80 }"), "{text}");
    assert_eq!(text.matches("tcp dport { 22 } accept").count(), 3, "{text}");
}

#[test]
fn the_proxy_is_told_by_user_and_mark_everywhere() {
    let text = plan(&[member(0x604, guest(), &[])]).nft();
    let own = "meta skuid 1337 meta mark & 0xfff == 0x539";
    assert_eq!(text.matches(own).count(), 7);
    // One more has a listener's mark in it, which programs without powers cannot set.
    let half = text.matches("0x539").count() - text.matches("socket mark & 0xfff != 0x539").count();
    assert_eq!(half, 7, "never by half of it");
}

#[test]
fn guests_have_chains_where_there_are_guests() {
    let without = plan(&[member(0x601, By::User(7), &[])]);
    let with = plan(&[member(0x604, guest(), &[])]);
    assert!(!without.nft().contains("tproxy") && !without.nft().contains("hook forward"));
    assert!(with.nft().contains("tproxy to :15001") && with.nft().contains("hook forward"));
    assert!(with.ip().len() > without.ip().len());
    let whole = with.nft();
    let (_before, text) = whole.split_once("chain passing {").unwrap();
    let at = |rule: &str| text.find(rule).unwrap_or_else(|| panic!("{rule}: {text}"));
    assert!(
        at("daddr @guest_addresses6 udp dport 15008 tproxy ip6") < at("udp dport 15008 accept")
    );
    assert!(at("udp dport 15008 accept") < at("meta l4proto != tcp accept"));
    for plan in [with, without] {
        assert_explained(&plan.table.chains);
        let script = plan.render();
        assert!(script.starts_with("sysctl -w net.ipv4.tcp_fwmark_accept=1\nip link set lo up\n"));
        assert!(script.ends_with("}\nEND\n"));
    }
}

#[test]
fn guests_of_a_bridge_keep_to_their_ports_and_do_not_meet() {
    let bridged = By::Guest {
        interface: Arc::from("br0"),
        port: Some(Arc::from("tap3")),
        addresses: ["10.9.0.2", "fd09::2"].map(|ip| ip.parse().unwrap()).into(),
    };
    let on_bridge = plan(&[member(0x604, bridged, &[])]);
    let text = on_bridge.nft();
    for rule in [
        "{ \"br0\" . 10.9.0.2 : 0x604 }",
        "meta protocol { 0x8100, 0x88a8 } @nh,0,16 & 0xfff == 0 counter drop",
        "iifname { \"tap3\" } meta protocol { 0x8100, 0x88a8 } counter drop",
        "@th,64,128 0xfd090000000000000000000000000002 counter drop",
        "iifname != \"tap3\" ip saddr { 10.9.0.2 } counter drop",
        "iifname != \"tap3\" meta protocol arp arp saddr ip { 10.9.0.2 } counter drop",
        "iifname != \"tap3\" ip6 saddr { fd09::2 } counter drop",
        "iifname \"tap3\" ip saddr != { 10.9.0.2 } tcp flags & (syn | ack) == syn counter drop",
        "set guest_interfaces {\n\t\ttype ifname;\n\t}",
        "oifname { \"tap3\" } tcp flags & (syn | ack) == syn counter drop",
    ] {
        assert!(text.contains(rule), "{rule} in {text}");
    }
    let routed = plan(&[member(0x604, guest(), &[])]);
    assert!(on_bridge.bridged() && !routed.bridged());
    assert_eq!(on_bridge.changing(&routed), None);
}
