use super::*;
use crate::model::testing::{key, service, view, waypoint_at, waypoint_named, workload};

fn named(uid: &str, address: &str) -> Workload {
    workload(uid, &[address])
}

/// The same resources, in the other order.
fn both_orders(workloads: &[Workload], services: &[Service]) -> [View; 2] {
    let reversed = |_| {
        let workloads = workloads.iter().rev().cloned().collect();
        view(workloads, services.iter().rev().cloned().collect())
    };
    [view(workloads.to_vec(), services.to_vec()), reversed(())]
}

#[test]
fn of_workloads_on_one_address_one_is_found() {
    const AT: &str = "10.0.0.2";
    let (pod, other_pod) = ("c//Pod/shop/z", "c//Pod/shop/y");
    for (name, workloads, want) in [
        ("nobody", vec![], None),
        ("the one", vec![named("a", AT)], Some("a")),
        (
            "not another network's",
            vec![named("a", AT).on_network("remote")],
            None,
        ),
        (
            "past another network's",
            vec![named("a", AT).on_network("remote"), named("b", AT)],
            Some("b"),
        ),
        ("never a host's", vec![named("a", AT).host_network()], None),
        (
            "past a host's",
            vec![named("a", AT).host_network(), named("b", AT)],
            Some("b"),
        ),
        (
            "tunnels before none",
            vec![named("a", AT).plain(), named("b", AT)],
            Some("b"),
        ),
        (
            "a pod before tunnels",
            vec![named("a", AT), named(pod, AT).plain()],
            Some(pod),
        ),
        (
            "a pod that takes tunnels first",
            vec![named(other_pod, AT).plain(), named(pod, AT)],
            Some(pod),
        ),
        (
            "the first by uid",
            vec![named("b", AT), named("a", AT)],
            Some("a"),
        ),
    ] {
        for view in both_orders(&workloads, &[]) {
            let found = view.workload_at("", AT.parse().unwrap());
            assert_eq!(found.map(|w| &*w.uid), want, "{name}");
        }
    }
}

#[test]
fn of_services_on_one_address_the_callers_is_found() {
    const VIP: &str = "10.9.0.1";
    let at = |name: &str| service(name, &[VIP]);
    let of = |name: &str, namespace: &str| at(name).in_namespace(namespace, Visibility::Public);
    let hidden = |name: &str| at(name).in_namespace("secret", Visibility::Namespace);
    for (name, services, network, from, want) in [
        ("nobody", vec![], "", "shop", None),
        ("anybody's", vec![at("a")], "", "web", Some("a")),
        (
            "own namespace first",
            vec![of("a", "x").canonical(), of("b", "web")],
            "",
            "web",
            Some("b"),
        ),
        (
            "then a canonical one",
            vec![of("a", "x"), of("b", "y").canonical()],
            "",
            "web",
            Some("b"),
        ),
        (
            "then the first by key",
            vec![of("b", "y"), of("a", "x")],
            "",
            "web",
            Some("a"),
        ),
        ("not what is hidden", vec![hidden("a")], "", "shop", None),
        (
            "what is hidden, from within",
            vec![hidden("a"), of("b", "x")],
            "",
            "secret",
            Some("a"),
        ),
        (
            "past what is hidden",
            vec![hidden("a").canonical(), of("b", "x")],
            "",
            "shop",
            Some("b"),
        ),
        (
            "not another network's",
            vec![at("a")],
            "remote",
            "shop",
            None,
        ),
        (
            "by its own network",
            vec![at("a").vips_on("remote"), at("b")],
            "remote",
            "shop",
            Some("a"),
        ),
    ] {
        for view in both_orders(&[], &services) {
            let found = view.service_at(network, VIP.parse().unwrap(), from);
            assert_eq!(found.map(|s| &*s.name), want, "{name}");
            let here = |s: &&Service| s.vips.iter().any(|v| &*v.network == network);
            let known = services.iter().find(here).is_some();
            assert_eq!(view.is_vip(network, VIP.parse().unwrap()), known, "{name}");
        }
    }
}

#[test]
fn a_host_name_is_found_as_an_address_is() {
    let of = |namespace: &str| service("cart", &[]).in_namespace(namespace, Visibility::Public);
    let view = view(vec![], vec![of("x"), of("y").canonical(), of("web")]);
    for (name, from, want) in [
        ("own namespace", "web", Some("web")),
        ("canonical", "elsewhere", Some("y")),
    ] {
        let found = view.service_named("cart.shop.mesh.internal", from);
        assert_eq!(found.map(|s| &*s.key.namespace), want, "{name}");
    }
    assert!(
        view.service_named("cart", "web").is_none(),
        "no short names"
    );
}

#[test]
fn endpoints_are_in_the_order_of_uids() {
    let of = |uid: &str| workload(uid, &[]).of("cart").of("unknown");
    for view in both_orders(&[of("b"), of("a"), of("c")], &[service("cart", &[])]) {
        let uids: Vec<&str> = view
            .endpoints(&key("cart"))
            .iter()
            .map(|w| &*w.uid)
            .collect();
        assert_eq!(uids, ["a", "b", "c"]);
        assert!(view.endpoints(&key("unknown")).is_empty());
        assert_eq!(view.size(), (3, 1));
    }
}

#[test]
fn a_reference_names_one_thing() {
    let workloads = [
        workload("by-address", &["10.0.0.2"]),
        workload("by-name", &["10.0.0.3"]).called("lone"),
        workload("shadowed", &["10.0.0.4"]).called("wp"),
        workload("instance", &["10.0.0.5"]).of("wp"),
    ];
    let services = [service("wp", &["10.9.0.1", "10.0.0.2"])];
    for (name, reference, want) in [
        (
            "a workload's address before a service's",
            waypoint_at("10.0.0.2"),
            "by-address",
        ),
        ("a service's address", waypoint_at("10.9.0.1"), "instance"),
        (
            "a service's name before a workload's",
            waypoint_named("wp"),
            "instance",
        ),
        ("a workload's name", waypoint_named("lone"), "by-name"),
        ("nothing, by address", waypoint_at("10.0.0.9"), ""),
        ("nothing, by name", waypoint_named("gone"), ""),
    ] {
        for view in both_orders(&workloads, &services) {
            let reference = &reference.destination;
            let found = view.gateway(reference, "shop").is_some();
            assert_eq!(found, !want.is_empty(), "{name}");
            for workload in &workloads {
                let instance = view.is_instance(reference, workload);
                assert_eq!(instance, &*workload.uid == want, "{name}: {}", workload.uid);
            }
        }
    }
}

#[test]
fn of_those_who_share_an_address_the_one_who_serves_the_port_is_found() {
    const AT: &str = "10.0.0.2";
    let shared = |uid: &str| named(uid, AT).host_network();
    let services = [
        service("cart", &["10.9.0.1"]),
        service("web", &["10.9.0.2"]),
    ];
    for (name, workloads, port, want) in [
        (
            "its own port",
            vec![shared("a"), shared("b").of("cart")],
            8080,
            Some("b"),
        ),
        (
            "mapped",
            vec![shared("a").mapping("web", 80, 7)],
            7,
            Some("a"),
        ),
        (
            "a service's port is none",
            vec![shared("a").of("cart")],
            80,
            None,
        ),
        ("nobody's", vec![shared("a").of("cart")], 81, None),
        (
            "the first of two by uid",
            vec![shared("b").of("cart"), shared("a").of("web")],
            8080,
            Some("a"),
        ),
        (
            "past one that takes no tunnels",
            vec![shared("b").of("cart"), shared("a").of("web").plain()],
            8080,
            Some("b"),
        ),
        (
            "not another network's",
            vec![shared("a").of("cart").on_network("remote")],
            8080,
            None,
        ),
        (
            "whose address is its own",
            vec![named("a", AT).of("cart")],
            8080,
            None,
        ),
        (
            "on no machine",
            vec![shared("a").of("cart").on_node("")],
            8080,
            None,
        ),
    ] {
        for view in both_orders(&workloads, &services) {
            let at = SocketAddr::new(AT.parse().unwrap(), port);
            let found = view.sharer_at("", at);
            assert_eq!(found.map(|w| &*w.uid), want, "{name}");
        }
    }
}
