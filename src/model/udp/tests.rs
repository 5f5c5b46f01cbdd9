use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::balance::RoundRobin;
use crate::model::policy::Policies;
use crate::model::service::Visibility;
use crate::model::testing::{port, service, view, waypoint_at, workload};

const VIP: &str = "10.9.0.1";

fn told(outcome: &Result<Route, Refusal>) -> String {
    match outcome {
        Ok(Route::Past) => "past".to_owned(),
        Ok(Route::Tunnel(t)) => format!("tunnel {} for {}", t.hop, t.target),
        Err(Refusal::NoEndpoint { .. }) => "no endpoint".to_owned(),
        Err(Refusal::NotVisible { .. }) => "not visible".to_owned(),
        Err(Refusal::OtherNetwork { .. }) => "other network".to_owned(),
        Err(other) => other.to_string(),
    }
}

fn ask(view: &View, source: &Workload, to: &str) -> String {
    let to = to.parse().unwrap();
    told(&decide(view, source, to, &mut RoundRobin::default()))
}

fn web() -> Workload {
    workload("web", &["10.0.0.1", "2001:db8::1"])
}

/// UDP 53 to 5353 beside the TCP port 80.
fn dns() -> Service {
    service("dns", &[VIP]).udp(&[(53, 5353)])
}

/// An endpoint of it.
fn b() -> Workload {
    workload("b", &["10.0.0.2"]).of("dns").udp()
}

#[test]
fn datagrams_to_udp_ports_of_the_mesh_go_through_tunnels() {
    let straight = "tunnel 10.0.0.2:15008 for 10.0.0.2:5353";
    let far = || b().on_network("remote");
    for (name, workloads, services, to, want) in [
        ("a service", vec![b()], vec![dns()], "10.9.0.1:53", straight),
        (
            "as IPv6 sockets see it",
            vec![b()],
            vec![dns()],
            "[::ffff:10.9.0.1]:53",
            straight,
        ),
        (
            "an endpoint",
            vec![b()],
            vec![dns()],
            "10.0.0.2:5353",
            straight,
        ),
        (
            "one of another family",
            vec![workload("b", &["2001:db8::2"]).of("dns").udp()],
            vec![dns()],
            "10.9.0.1:53",
            "tunnel [2001:db8::2]:15008 for [2001:db8::2]:5353",
        ),
        ("nobody's", vec![b()], vec![dns()], "192.0.2.1:53", "past"),
        ("a TCP port", vec![b()], vec![dns()], "10.9.0.1:80", "past"),
        ("no port", vec![b()], vec![dns()], "10.9.0.1:54", "past"),
        (
            "the service's port at an endpoint",
            vec![b()],
            vec![dns()],
            "10.0.0.2:53",
            "past",
        ),
        (
            "another's port of UDP",
            vec![b(), workload("c", &["10.0.0.3"]).udp()],
            vec![dns()],
            "10.0.0.3:5353",
            "past",
        ),
        (
            "oneself",
            vec![web().of("dns").udp()],
            vec![dns()],
            "10.0.0.1:5353",
            "past",
        ),
        (
            "a node that carries none",
            vec![workload("b", &["10.0.0.2"]).of("dns")],
            vec![dns()],
            "10.9.0.1:53",
            "past",
        ),
        (
            "its endpoint",
            vec![workload("b", &["10.0.0.2"]).of("dns")],
            vec![dns()],
            "10.0.0.2:5353",
            "past",
        ),
        (
            "not captured",
            vec![b().plain()],
            vec![dns()],
            "10.9.0.1:53",
            "past",
        ),
        (
            "only one node carries",
            vec![workload("a", &["10.0.0.9"]).of("dns"), b()],
            vec![dns()],
            "10.9.0.1:53",
            straight,
        ),
        (
            "it is sick",
            vec![workload("a", &["10.0.0.9"]).of("dns"), b().unhealthy()],
            vec![dns()],
            "10.9.0.1:53",
            "no endpoint",
        ),
        (
            "no endpoints",
            vec![],
            vec![dns()],
            "10.9.0.1:53",
            "no endpoint",
        ),
        (
            "on another network",
            vec![far().gateway(waypoint_at("10.0.0.7"))],
            vec![dns()],
            "10.9.0.1:53",
            "other network",
        ),
        (
            "behind a waypoint",
            vec![b(), workload("wp", &["10.0.0.7"])],
            vec![dns().through(waypoint_at("10.0.0.7"))],
            "10.9.0.1:53",
            straight,
        ),
        (
            "an endpoint behind one",
            vec![b().behind(waypoint_at("10.0.0.7"))],
            vec![dns()],
            "10.0.0.2:5353",
            straight,
        ),
        (
            "left to the client",
            vec![b()],
            vec![dns().balanced(BalanceMode::Passthrough, &[])],
            "10.9.0.1:53",
            "past",
        ),
        (
            "of UDP alone",
            vec![b()],
            vec![dns().ports(&[])],
            "10.9.0.1:53",
            straight,
        ),
        (
            "hidden",
            vec![],
            vec![dns().in_namespace("secret", Visibility::Namespace)],
            "10.9.0.1:53",
            "not visible",
        ),
        (
            "a hidden one's TCP port",
            vec![],
            vec![dns().in_namespace("secret", Visibility::Namespace)],
            "10.9.0.1:80",
            "past",
        ),
        (
            "on its machine's network",
            vec![b().host_network()],
            vec![dns()],
            "10.0.0.2:5353",
            straight,
        ),
        (
            "another port there",
            vec![b().host_network()],
            vec![dns()],
            "10.0.0.2:53",
            "past",
        ),
    ] {
        assert_eq!(ask(&view(workloads, services), &web(), to), want, "{name}");
    }
}

#[test]
fn who_shares_an_address_is_asked_for_by_name() {
    let view = view(
        vec![b().host_network()],
        vec![dns().accepting("spiffe://x/ns/a/sa/b")],
    );
    for (name, to) in [("service", "10.9.0.1:53"), ("endpoint", "10.0.0.2:5353")] {
        let route = decide(
            &view,
            &web(),
            to.parse().unwrap(),
            &mut RoundRobin::default(),
        );
        let Ok(Route::Tunnel(tunnel)) = route else {
            panic!("{name}: {route:?}");
        };
        let accepted: Vec<_> = tunnel.accepted.iter().map(ToString::to_string).collect();
        assert_eq!(accepted, ["spiffe://cluster.local/ns/shop/sa/b"], "{name}");
        assert!(tunnel.name.is_some(), "{name}");
    }
}

#[test]
fn endpoints_take_turns() {
    let c = workload("c", &["10.0.0.3"]).of("dns").udp();
    let none = workload("a", &["10.0.0.9"]).of("dns");
    let view = view(vec![none, b(), c], vec![dns()]);
    let mut turns = RoundRobin::default();
    let mut met = BTreeSet::new();
    for _ in 0..4 {
        let route = decide(&view, &web(), "10.9.0.1:53".parse().unwrap(), &mut turns);
        met.insert(told(&route));
    }
    assert_eq!(met.len(), 2, "{met:?}");
}

#[test]
fn what_arrives_is_for_a_udp_port_of_the_workload() {
    let twin = service("twin", &[]).ports(&[]).udp(&[(5300, 5353)]);
    let proxy = service("proxy", &[]).udp(&[(1, 15008)]);
    let b = b().of("twin").of("proxy").behind(waypoint_at("10.0.0.7"));
    let dns = dns().through(waypoint_at("10.0.0.7"));
    let view = view(vec![b.clone()], vec![dns, twin, proxy]);
    for (name, to, host, want) in [
        ("by the first", "10.0.0.2:5353", None, Ok("dns")),
        (
            "by the one named",
            "10.0.0.2:5353",
            Some("TWIN.shop.mesh.internal"),
            Ok("twin"),
        ),
        ("by nobody of his", "10.0.0.2:5353", Some("x"), Ok("dns")),
        ("in IPv6", "[::ffff:10.0.0.2]:5353", None, Ok("dns")),
        ("a service's port", "10.0.0.2:53", None, Err(503)),
        ("a TCP port", "10.0.0.2:8080", None, Err(503)),
        ("the proxy's", "10.0.0.2:15008", None, Err(503)),
        ("elsewhere", "10.0.0.3:5353", None, Err(400)),
        ("the service's address", "10.9.0.1:53", None, Err(400)),
    ] {
        let local = "10.0.0.2".parse().unwrap();
        let arrived = arrive(&view, &b, local, to.parse().unwrap(), host);
        let arrived = arrived.map(|d| d.service.unwrap().name.to_string());
        let arrived = arrived.map_err(|refusal| refusal.status());
        assert_eq!(arrived, want.map(str::to_owned), "{name}");
    }
}

#[test]
fn a_node_hears_where_datagrams_are_its_business() {
    let six = workload("six", &["2001:db8::6"]).of("dns").udp();
    let none = workload("none", &["10.0.0.9"]).of("dns").of("stock");
    let stock = service("stock", &["10.9.0.2"]).udp(&[(53, 53)]);
    let empty = service("empty", &["10.9.0.3"]).udp(&[(443, 8443)]);
    let view = view(
        vec![b().of("twice"), six, none],
        vec![
            dns(),
            stock,
            empty,
            service("twice", &[]).udp(&[(1, 5353), (2, 7), (3, 0)]),
            service("web", &["10.9.0.4"]),
        ],
    );
    let targets: Vec<_> = view.udp_targets().iter().map(ToString::to_string).collect();
    let want = [
        "10.0.0.2:7",
        "10.0.0.2:5353",
        "10.9.0.1:53",
        "10.9.0.3:443",
        "[2001:db8::6]:5353",
    ];
    assert_eq!(targets, want);
    for (uid, want) in [
        ("b", &[7, 5353][..]),
        ("six", &[5353]),
        ("none", &[]),
        ("nobody", &[]),
    ] {
        let ports: Vec<u16> = view.udp_inbound(uid).into_iter().collect();
        assert_eq!(ports, want, "{uid}");
    }
}

#[test]
fn a_workload_not_yet_captured_is_to_be_sent_datagrams() {
    let view = view(vec![b().plain()], vec![dns()]);
    assert_eq!(view.udp_inbound("b"), [5353].into());
    assert!(view.udp_targets().is_empty());
}

#[test]
fn policies_judge_datagrams_by_the_port_they_arrive_at() {
    use crate::model::policy::{Clause, Effect, Match, Policy, Request, Rule, Scope, Values};
    let closed = Match {
        destination_ports: Values {
            any: vec![5353],
            not: Vec::new(),
        },
        ..Match::default()
    };
    let clauses = vec![Clause {
        matches: vec![closed],
    }];
    let policy = Policy {
        key: Policy::key_of("shop", "closed"),
        namespace: Arc::from("shop"),
        name: Arc::from("closed"),
        scope: Scope::Namespace,
        effect: Effect::Deny,
        dry_run: false,
        rules: vec![Rule { line: 0, clauses }],
        origin: None,
        unreadable: None,
    };
    let policies = Policies::new(vec![Arc::new(policy)]);
    let view = view(vec![b()], vec![dns()]).under(Arc::new(policies));
    let to = "10.0.0.2:5353".parse().unwrap();
    let arrived = arrive(&view, &b(), "10.0.0.2".parse().unwrap(), to, None).unwrap();
    let peer = web().identity().unwrap();
    let guard = view.policies().guard(&b());
    for (at, open) in [(arrived.to, false), ("10.0.0.2:53".parse().unwrap(), true)] {
        let request = Request::new(Some(&peer), "10.0.0.1".parse().ok(), at);
        let verdict = guard.judge(&request);
        let allowed = matches!(verdict, crate::model::policy::Verdict::Allowed(_));
        assert_eq!(allowed, open, "{at}");
    }
}

/// Few enough addresses and ports that they collide often.
fn one_workload() -> impl Strategy<Value = Workload> {
    let names = select(&["dns", "quic"][..]);
    let members = proptest::collection::vec(names, 0..3);
    let flags = (0..4, 0..4, 0..4, 0..4);
    (1u8..6, members, flags).prop_map(|(octet, members, (stock, plain, host, sick))| {
        let address = format!("10.0.0.{octet}");
        let mut w = workload("w", &[&address]);
        w = if stock == 0 { w } else { w.udp() };
        w = if plain == 0 { w.plain() } else { w };
        w = if host == 0 { w.host_network() } else { w };
        w = if sick == 0 { w.unhealthy() } else { w };
        members.into_iter().fold(w, |w, name| w.of(name))
    })
}

fn one_service(name: &'static str) -> impl Strategy<Value = Service> {
    let ports = proptest::collection::vec((52u16..54, 52u16..55), 0..3);
    (1u8..8, ports, 0..6).prop_map(move |(octet, ports, hidden)| {
        let address = format!("10.0.0.{octet}");
        let service = service(name, &[&address])
            .ports(&[port(80, 8080)])
            .udp(&ports);
        match hidden {
            0 => service.in_namespace("secret", Visibility::Namespace),
            _ => service,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What is told to be the mesh's is all that a node is asked to take, and what is sent is let in.
    #[test]
    fn both_ends_agree(
        workloads in proptest::collection::vec(one_workload(), 1..8),
        services in (one_service("dns"), one_service("quic")),
    ) {
        let workloads: Vec<_> = workloads.into_iter().enumerate().map(|(n, mut w)| {
            w.uid = Arc::from(format!("w{n}"));
            w
        }).collect();
        let view = view(workloads.clone(), vec![services.0, services.1]);
        let targets = view.udp_targets();
        for source in &workloads {
            for (octet, port) in (1u8..9).flat_map(|o| (51u16..56).map(move |p| (o, p))) {
                let to = SocketAddr::new(IpAddr::from([10, 0, 0, octet]), port);
                let route = decide(&view, source, to, &mut RoundRobin::default());
                if route != Ok(Route::Past) {
                    prop_assert!(targets.contains(&to), "{to}: {route:?}");
                }
                let Ok(Route::Tunnel(tunnel)) = route else {
                    continue;
                };
                let (workload, at) = (&tunnel.workload, tunnel.target);
                prop_assert!(workload.carries_udp());
                prop_assert!(view.udp_inbound(&workload.uid).contains(&at.port()));
                let host = tunnel.service.as_ref().map(|s| &*s.key.hostname);
                let arrived = arrive(&view, workload, at.ip(), at, host);
                prop_assert_eq!(arrived.map(|d| d.to), Ok(at));
            }
        }
    }
}
