//! Who goes through a waypoint, to which instance, and who may answer there.

use super::*;
use crate::model::balance::Untried;
use crate::model::service::{Service, WeightedWaypoint};
use crate::model::workload::Health::{Healthy, Unhealthy};

#[test]
fn a_waypoint_is_not_sent_to_itself() {
    let wp = workload("wp", &["10.0.0.10"]).of("wp");
    let twin = workload("wp-2", &["10.0.0.12"]).of("wp");
    let impostor = Workload {
        service_account: Arc::clone(&wp.service_account),
        ..workload("impostor", &["10.0.0.11"])
    };
    let neighbour = workload("neighbour", &["10.0.0.10"]).host_network();
    let services = vec![service("wp", &["10.9.0.10"]).ports(&[port(15008, 15008)])];
    let direct = "tunnel 10.0.0.2:15008 for 10.0.0.2:80";
    let through = "tunnel 10.0.0.10:15008 for 10.0.0.2:80";
    for (name, reference, source, want) in [
        ("17 by address", waypoint_at("10.0.0.10"), &wp, direct),
        ("17 by name", waypoint_named("wp"), &twin, direct),
        (
            "17 by service address",
            waypoint_at("10.9.0.10"),
            &twin,
            direct,
        ),
        (
            "18 its identity",
            waypoint_at("10.0.0.10"),
            &impostor,
            through,
        ),
        (
            "18 its identity, by name",
            waypoint_named("wp"),
            &impostor,
            through,
        ),
        (
            "another of its service",
            waypoint_at("10.0.0.10"),
            &twin,
            through,
        ),
        ("on its host", waypoint_at("10.0.0.10"), &neighbour, through),
    ] {
        let b = workload("b", &["10.0.0.2"]).behind(reference);
        let workloads = vec![
            b,
            wp.clone(),
            twin.clone(),
            impostor.clone(),
            neighbour.clone(),
        ];
        let view = view(workloads, services.clone());
        assert_eq!(ask(&view, source, "10.0.0.2:80"), want, "{name}");
    }
}

#[test]
fn a_source_is_not_sent_through_its_own_waypoint() {
    let source = web().behind(waypoint_at("10.0.0.10"));
    let view = view(vec![source.clone(), workload("wp", &["10.0.0.10"])], vec![]);
    assert_eq!(ask(&view, &source, "1.2.3.4:80"), "pass 1.2.3.4:80", "20");
}

#[test]
fn instances_of_a_workloads_waypoint_take_turns() {
    let one = workload("wp-1", &["10.0.0.10"]).of("wp");
    let two = workload("wp-2", &["10.0.0.11"]).of("wp");
    let b = workload("b", &["10.0.0.2"]).behind(waypoint_named("wp"));
    let wp = service("wp", &[]).ports(&[port(15008, 15008)]);
    let view = view(vec![one, two, b], vec![wp]);
    let mut turns = RoundRobin::default();
    let to: SocketAddr = "10.0.0.2:80".parse().unwrap();
    let mut hop = || told(&decide(&view, &web(), to, &mut turns));
    assert_eq!(hop(), "tunnel 10.0.0.10:15008 for 10.0.0.2:80");
    assert_eq!(hop(), "tunnel 10.0.0.11:15008 for 10.0.0.2:80");
}

#[test]
fn who_may_answer_at_a_waypoint_is_the_instance_and_whom_its_service_names() {
    let other = "spiffe://cluster.local/ns/infra/sa/wp";
    let wp = workload("wp", &["10.0.0.10"]).of("wp");
    let wp_service = service("wp", &[]).ports(&[port(15008, 15008)]);
    let cart = service("cart", &[VIP]).accepting("spiffe://cluster.local/ns/shop/sa/cart");
    let services = vec![
        wp_service.accepting(other),
        cart.through(waypoint_named("wp")),
    ];
    let view = view(vec![wp, workload("b", &["10.0.0.2"]).of("cart")], services);
    let to = "10.9.0.1:80".parse().unwrap();
    let Ok(Route::Tunnel(tunnel)) = decide(&view, &web(), to, &mut RoundRobin::default()) else {
        panic!("a tunnel");
    };
    let ids: Vec<String> = tunnel.accepted.iter().map(ToString::to_string).collect();
    assert_eq!(ids, [other, "spiffe://cluster.local/ns/shop/sa/wp"]);
    assert_eq!(
        &*tunnel.service.unwrap().name,
        "cart",
        "the service addressed"
    );
}

#[test]
fn a_canary_gets_its_share_of_what_is_tried_again_too() {
    let named = |name: &str, weight| WeightedWaypoint {
        waypoint: waypoint_named(name),
        weight,
    };
    let cart = Service {
        weighted_waypoints: vec![named("wp", 9), named("zz", 1)],
        ..service("cart", &[VIP]).through(waypoint_named("wp"))
    };
    let of = |name: &str| service(name, &[]).ports(&[port(15008, 15008)]);
    let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 15008));
    let (first, second, canary) = (at(10), at(11), at(20));
    let second_is = |health| Workload {
        health,
        ..workload("wp-2", &["10.0.0.11"]).of("wp")
    };
    for (name, health, tried, want) in [
        ("at first", Healthy, &[][..], [45, 45]),
        ("past the first instance", Healthy, &[first], [0, 90]),
        ("past both", Healthy, &[first, second], [0, 0]),
        (
            "past the only one that is well",
            Unhealthy,
            &[first],
            [0, 0],
        ),
    ] {
        let workloads = vec![
            workload("wp-1", &["10.0.0.10"]).of("wp"),
            second_is(health),
            workload("zz-1", &["10.0.0.20"]).of("zz"),
        ];
        let view = view(workloads, vec![of("wp"), of("zz"), cart.clone()]);
        let mut turns = RoundRobin::default();
        let to = "10.9.0.1:80".parse().unwrap();
        let mut hops = BTreeMap::new();
        for _ in 0..100 {
            let mut untried = Untried::new(tried, &mut turns);
            let Ok(Route::Tunnel(tunnel)) = decide(&view, &web(), to, &mut untried) else {
                panic!("{name}: a tunnel");
            };
            *hops.entry(tunnel.hop).or_insert(0) += 1;
        }
        let shares = [first, second, canary].map(|hop| hops.get(&hop).copied().unwrap_or(0));
        let [one, two] = want;
        assert_eq!(shares, [one, two, 100 - one - two], "{name}");
    }
}
