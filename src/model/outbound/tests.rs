//! The vectors of `spec/hbone-dataplane.md` §12 that are decisions of the client's node, by their
//! numbers.

use std::collections::BTreeMap;

use super::*;
use crate::model::balance::RoundRobin;
use crate::model::service::{BalanceMode, IpFamilies, Scope, Visibility};
use crate::model::testing::{port, service, view, waypoint_at, waypoint_named, workload};
use crate::model::workload::Workload;

mod properties;
mod waypoints;

const VIP: &str = "10.9.0.1";

fn told(outcome: &Result<Route, Refusal>) -> String {
    match outcome {
        Ok(Route::Passthrough { to }) => format!("pass {to}"),
        Ok(Route::Plain { endpoint, .. }) => format!("plain {}", endpoint.address),
        Ok(Route::Named { workload, port, .. }) => format!("name {}:{port}", workload.hostname),
        Ok(Route::Tunnel(t)) => format!("tunnel {} for {}", t.hop, t.target),
        Err(Refusal::SelfCall { .. }) => "self-call".to_owned(),
        Err(Refusal::NoPort { .. }) => "no port".to_owned(),
        Err(Refusal::NoEndpoint { .. }) => "no endpoint".to_owned(),
        Err(Refusal::NotVisible { .. }) => "not visible".to_owned(),
        Err(Refusal::NoWaypoint { .. }) => "no waypoint".to_owned(),
        Err(Refusal::OtherNetwork { .. }) => "other network".to_owned(),
        Err(Refusal::NoIdentity { .. }) => "no identity".to_owned(),
        Err(Refusal::NobodyThere { .. }) => "nobody there".to_owned(),
    }
}

fn ask(view: &View, source: &Workload, to: &str) -> String {
    told(&decide(
        view,
        source,
        to.parse().unwrap(),
        &mut RoundRobin::default(),
    ))
}

fn web() -> Workload {
    workload("web", &["10.0.0.1", "2001:db8::1"])
}

#[test]
fn each_vector_has_its_route() {
    let b = || workload("b", &["10.0.0.2"]);
    let cart = || service("cart", &[VIP]);
    let wp = || workload("wp", &["10.0.0.10", "2001:db8::10"]);
    let wp_service = || service("wp", &[]).ports(&[port(15008, 15008)]);
    let gone = || workload("far", &["10.0.0.7"]).on_network("remote");
    let dual = || workload("d", &["10.0.0.4", "2001:db8::4"]).of("cart");
    for (name, workloads, services, to, want) in [
        ("1 unknown", vec![], vec![], "1.2.3.4:80", "pass 1.2.3.4:80"),
        (
            "2 tunnelled",
            vec![b()],
            vec![],
            "10.0.0.2:80",
            "tunnel 10.0.0.2:15008 for 10.0.0.2:80",
        ),
        (
            "3 same node",
            vec![b().on_node("edge-1")],
            vec![],
            "10.0.0.2:80",
            "tunnel 10.0.0.2:15008 for 10.0.0.2:80",
        ),
        (
            "4 plain",
            vec![b().plain()],
            vec![],
            "10.0.0.2:80",
            "plain 10.0.0.2:80",
        ),
        (
            "5 service",
            vec![b().of("cart")],
            vec![cart()],
            "10.9.0.1:80",
            "tunnel 10.0.0.2:15008 for 10.0.0.2:8080",
        ),
        (
            "6 no endpoints",
            vec![],
            vec![cart()],
            "10.9.0.1:80",
            "no endpoint",
        ),
        (
            "7 no such port",
            vec![b().of("cart")],
            vec![cart()],
            "10.9.0.1:81",
            "no port",
        ),
        (
            "8 mapped by the workload",
            vec![
                b().of("cart"),
                workload("m", &["10.0.0.3"]).mapping("cart", 80, 1234),
            ],
            vec![cart().ports(&[port(80, 0)])],
            "10.9.0.1:80",
            "tunnel 10.0.0.3:15008 for 10.0.0.3:1234",
        ),
        (
            "9 passthrough service",
            vec![b().of("cart")],
            vec![cart().balanced(BalanceMode::Passthrough, &[])],
            "10.9.0.1:80",
            "pass 10.9.0.1:80",
        ),
        (
            "10 passthrough with waypoint",
            vec![wp()],
            vec![
                cart()
                    .balanced(BalanceMode::Passthrough, &[])
                    .through(waypoint_at("10.0.0.10")),
            ],
            "10.9.0.1:80",
            "tunnel 10.0.0.10:15008 for 10.9.0.1:80",
        ),
        (
            "11 waypoint by name, v6",
            vec![wp().of("wp")],
            vec![
                wp_service(),
                service("cart", &["2001:db8:9::1"]).through(waypoint_named("wp")),
            ],
            "[2001:db8:9::1]:80",
            "tunnel [2001:db8::10]:15008 for [2001:db8:9::1]:80",
        ),
        (
            "12 waypoint by v4, v6 asked",
            vec![wp()],
            vec![service("cart", &["2001:db8:9::1"]).through(waypoint_at("10.0.0.10"))],
            "[2001:db8:9::1]:80",
            "tunnel 10.0.0.10:15008 for [2001:db8:9::1]:80",
        ),
        (
            "13 dangling waypoint",
            vec![b().of("cart")],
            vec![cart().through(waypoint_named("gone"))],
            "10.9.0.1:80",
            "no waypoint",
        ),
        (
            "13 waypoint without instance",
            vec![b().of("cart")],
            vec![wp_service(), cart().through(waypoint_named("wp"))],
            "10.9.0.1:80",
            "no waypoint",
        ),
        (
            "16 workload's waypoint",
            vec![wp(), b().behind(waypoint_at("10.0.0.10"))],
            vec![],
            "10.0.0.2:80",
            "tunnel 10.0.0.10:15008 for 10.0.0.2:80",
        ),
        (
            "19 by service, which has none",
            vec![wp(), b().of("cart").behind(waypoint_at("10.0.0.10"))],
            vec![cart()],
            "10.9.0.1:80",
            "tunnel 10.0.0.2:15008 for 10.0.0.2:8080",
        ),
        (
            "22 other network",
            vec![gone()],
            vec![],
            "10.0.0.7:80",
            "pass 10.0.0.7:80",
        ),
        (
            "22 other network by service",
            vec![gone().of("cart")],
            vec![cart()],
            "10.9.0.1:80",
            "no endpoint",
        ),
        (
            "25 strict, nobody matches",
            vec![b().of("cart").on_node("edge-9")],
            vec![cart().balanced(BalanceMode::Strict, &[Scope::Node])],
            "10.9.0.1:80",
            "no endpoint",
        ),
        (
            "27 v6 only, v4 asked",
            vec![dual()],
            vec![cart().families(IpFamilies::Ipv6Only)],
            "10.9.0.1:80",
            "tunnel [2001:db8::4]:15008 for [2001:db8::4]:8080",
        ),
        (
            "dual, same family",
            vec![dual()],
            vec![service("cart", &["2001:db8:9::1"])],
            "[2001:db8:9::1]:80",
            "tunnel [2001:db8::4]:15008 for [2001:db8::4]:8080",
        ),
        (
            "28 host network by address",
            vec![b().host_network()],
            vec![],
            "10.0.0.2:80",
            "pass 10.0.0.2:80",
        ),
        (
            "28 host network by service",
            vec![b().host_network().of("cart")],
            vec![cart()],
            "10.9.0.1:80",
            "tunnel 10.0.0.2:15008 for 10.0.0.2:8080",
        ),
        (
            "a shared address, at a port that somebody serves",
            vec![
                b().host_network().of("cart"),
                workload("a", &["10.0.0.2"]).host_network(),
            ],
            vec![cart()],
            "10.0.0.2:8080",
            "tunnel 10.0.0.2:15008 for 10.0.0.2:8080",
        ),
        (
            "who is not captured there",
            vec![b().plain().host_network().of("cart")],
            vec![cart()],
            "10.0.0.2:8080",
            "pass 10.0.0.2:8080",
        ),
        (
            "itself there",
            vec![web().host_network().of("cart")],
            vec![cart()],
            "10.0.0.1:8080",
            "pass 10.0.0.1:8080",
        ),
        (
            "31 self-call",
            vec![],
            vec![],
            "127.0.0.1:15001",
            "self-call",
        ),
        (
            "32 own service",
            vec![web().of("cart")],
            vec![cart()],
            "10.9.0.1:80",
            "tunnel 10.0.0.1:15008 for 10.0.0.1:8080",
        ),
        (
            "all unhealthy",
            vec![b().of("cart").unhealthy()],
            vec![cart()],
            "10.9.0.1:80",
            "no endpoint",
        ),
        (
            "all unhealthy, allowed",
            vec![b().of("cart").unhealthy()],
            vec![cart().allow_all()],
            "10.9.0.1:80",
            "tunnel 10.0.0.2:15008 for 10.0.0.2:8080",
        ),
        (
            "no capacity",
            vec![b().of("cart").weighing(0)],
            vec![cart()],
            "10.9.0.1:80",
            "no endpoint",
        ),
        (
            "endpoint without address",
            vec![workload("n", &[]).of("cart")],
            vec![cart()],
            "10.9.0.1:80",
            "no endpoint",
        ),
        (
            "endpoint known by its name alone",
            vec![workload("n", &[]).called("a.example").plain().of("cart")],
            vec![cart()],
            "10.9.0.1:80",
            "name a.example.shop.mesh.internal:8080",
        ),
        (
            "endpoint known by its name alone, and taking tunnels",
            vec![workload("n", &[]).called("a.example").of("cart")],
            vec![cart()],
            "10.9.0.1:80",
            "no endpoint",
        ),
        (
            "service of another namespace only",
            vec![b().of("cart")],
            vec![cart().in_namespace("secret", Visibility::Namespace)],
            "10.9.0.1:80",
            "not visible",
        ),
        (
            "endpoint of no allowed family is no candidate",
            vec![b().of("cart"), dual()],
            vec![cart().families(IpFamilies::Ipv6Only)],
            "10.9.0.1:80",
            "tunnel [2001:db8::4]:15008 for [2001:db8::4]:8080",
        ),
        (
            "21 only on another network, behind its gateway",
            vec![gone().of("cart").gateway(waypoint_at("10.22.1.1"))],
            vec![cart()],
            "10.9.0.1:80",
            "other network",
        ),
        (
            "nobody elsewhere is picked while somebody is here",
            vec![
                gone().of("cart").gateway(waypoint_at("10.22.1.1")),
                workload("z", &["10.0.0.9"]).of("cart"),
            ],
            vec![cart()],
            "10.9.0.1:80",
            "tunnel 10.0.0.9:15008 for 10.0.0.9:8080",
        ),
        (
            "waypoint by the address of its service",
            vec![wp().of("wp")],
            vec![
                service("wp", &["10.9.0.10"]).ports(&[port(15008, 15009)]),
                cart().through(waypoint_at("10.9.0.10")),
            ],
            "10.9.0.1:80",
            "tunnel 10.0.0.10:15009 for 10.9.0.1:80",
        ),
        (
            "waypoint by a workload's host name, v6 asked",
            vec![wp().called("wp")],
            vec![service("cart", &["2001:db8:9::1"]).through(waypoint_named("wp"))],
            "[2001:db8:9::1]:80",
            "tunnel [2001:db8::10]:15008 for [2001:db8:9::1]:80",
        ),
        (
            "waypoint by a host name that has no address",
            vec![workload("wp", &[]).called("wp")],
            vec![cart().through(waypoint_named("wp"))],
            "10.9.0.1:80",
            "no waypoint",
        ),
        (
            "waypoint known by its name alone",
            vec![workload("wp", &[]).called("a.example").plain().of("wp")],
            vec![wp_service(), cart().through(waypoint_named("wp"))],
            "10.9.0.1:80",
            "no waypoint",
        ),
        (
            "service's waypoint on another network",
            vec![
                wp().on_network("remote")
                    .of("wp")
                    .gateway(waypoint_at("10.22.1.1")),
            ],
            vec![wp_service(), cart().through(waypoint_named("wp"))],
            "10.9.0.1:80",
            "other network",
        ),
        (
            "v4 written as v6",
            vec![b()],
            vec![],
            "[::ffff:10.0.0.2]:80",
            "tunnel 10.0.0.2:15008 for 10.0.0.2:80",
        ),
        (
            "31 self-call written as v6",
            vec![],
            vec![],
            "[::ffff:127.0.0.1]:15006",
            "self-call",
        ),
        (
            "workload before service",
            vec![b()],
            vec![service("cart", &["10.0.0.2"])],
            "10.0.0.2:80",
            "tunnel 10.0.0.2:15008 for 10.0.0.2:80",
        ),
    ] {
        assert_eq!(ask(&view(workloads, services), &web(), to), want, "{name}");
    }
}

#[test]
fn who_may_answer_is_the_endpoint_and_whom_the_service_names() {
    let other = "spiffe://cluster.local/ns/shop/sa/other";
    let cart = service("cart", &[VIP])
        .accepting(other)
        .accepting("no identity");
    let view = view(vec![workload("b", &["10.0.0.2"]).of("cart")], vec![cart]);
    let to = "10.9.0.1:80".parse().unwrap();
    let Ok(Route::Tunnel(tunnel)) = decide(&view, &web(), to, &mut RoundRobin::default()) else {
        panic!("a tunnel");
    };
    let ids: Vec<String> = tunnel.accepted.iter().map(ToString::to_string).collect();
    assert_eq!(ids, ["spiffe://cluster.local/ns/shop/sa/b", other]);
}

#[test]
fn who_shares_an_address_is_asked_for_by_name_and_answers_alone() {
    let cart = service("cart", &[VIP]).accepting("spiffe://cluster.local/ns/shop/sa/first");
    for (name, b, want) in [
        (
            "an address of its own",
            workload("b", &["10.0.0.2"]),
            (None, 2),
        ),
        (
            "a shared one",
            workload("b", &["10.0.0.2"]).host_network(),
            (Some("b.shop.sa.cluster.local"), 1),
        ),
    ] {
        let view = view(vec![b.of("cart")], vec![cart.clone()]);
        let to = "10.9.0.1:80".parse().unwrap();
        let route = decide(&view, &web(), to, &mut RoundRobin::default());
        let Ok(Route::Tunnel(tunnel)) = route else {
            panic!("{name}: a tunnel");
        };
        let got = (tunnel.name.as_deref(), tunnel.accepted.len());
        assert_eq!(got, want, "{name}");
        assert!(
            tunnel
                .accepted
                .contains(&tunnel.workload.identity().unwrap())
        );
    }
}

#[test]
fn turns_are_taken_in_proportion() {
    let b = workload("b", &["10.0.0.2"]).of("cart").weighing(1);
    let c = workload("c", &["10.0.0.3"]).of("cart").weighing(3);
    let view = view(vec![b, c], vec![service("cart", &[VIP])]);
    let mut turns = RoundRobin::default();
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..4000 {
        let route = decide(&view, &web(), "10.9.0.1:80".parse().unwrap(), &mut turns);
        *count.entry(told(&route)).or_default() += 1;
    }
    let counts: Vec<usize> = count.into_values().collect();
    assert_eq!(counts, [1000, 3000], "26: exactly by capacity");
}

#[test]
fn each_port_has_turns_of_its_own() {
    let b = workload("b", &["10.0.0.2"]).of("cart");
    let c = workload("c", &["10.0.0.3"]).of("cart");
    let only = workload("only", &["10.0.0.4"]).mapping("cart", 90, 9090);
    let cart = service("cart", &[VIP]).ports(&[port(80, 8080), port(90, 0)]);
    let view = view(vec![b, c, only], vec![cart]);
    let mut turns = RoundRobin::default();
    let mut ask = |port: u16| {
        let to = SocketAddr::new(VIP.parse().unwrap(), port);
        match decide(&view, &web(), to, &mut turns) {
            Ok(Route::Tunnel(tunnel)) => tunnel.workload.uid.to_string(),
            other => panic!("{other:?}"),
        }
    };
    for want in ["b", "c", "only", "b"] {
        assert_eq!(ask(80), want);
        assert_eq!(ask(90), "only");
    }
}
