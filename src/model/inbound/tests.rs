//! The vectors of `spec/hbone-dataplane.md` §12 that are decisions of the server's node.

use super::*;
use crate::model::service::WeightedWaypoint;
use crate::model::testing::{port, service, view, waypoint_at, waypoint_named, workload};

fn told(outcome: Result<Delivery, Refusal>) -> String {
    match outcome {
        Ok(delivery) => {
            let service = delivery
                .service
                .map_or(String::new(), |s| format!(" of {}", s.name));
            format!("{}{service}", delivery.to)
        }
        Err(refusal) => refusal.status().to_string(),
    }
}

#[test]
fn each_vector_has_its_answer() {
    let me = workload("me", &["10.0.0.2"])
        .of("cart")
        .mapping("moved", 80, 9090);
    let services = vec![
        service("cart", &["10.9.0.1"]),
        service("moved", &[]).ports(&[port(80, 0)]),
        service("other", &["10.9.0.2"]),
    ];
    let view = view(vec![me.clone()], services);
    let address = |a: &str| Target::Address(a.parse().unwrap());
    let name = |host| Target::Name { host, port: 80 };
    for (row, target, want) in [
        ("own address", address("10.0.0.2:80"), "10.0.0.2:80"),
        (
            "a service's target",
            address("10.0.0.2:8080"),
            "10.0.0.2:8080 of cart",
        ),
        ("39 another address", address("10.0.0.3:80"), "400"),
        (
            "own address written as v6",
            address("[::ffff:10.0.0.2]:80"),
            "10.0.0.2:80",
        ),
        (
            "40 a service's address: no waypoint here",
            address("10.9.0.1:80"),
            "400",
        ),
        (
            "42 a service by name",
            name("cart.shop.mesh.internal"),
            "10.0.0.2:8080 of cart",
        ),
        (
            "42 mapped by the workload",
            name("moved.shop.mesh.internal"),
            "10.0.0.2:9090 of moved",
        ),
        ("43 unknown name", name("nobody.shop.mesh.internal"), "503"),
        (
            "43 a service it is not in",
            name("other.shop.mesh.internal"),
            "503",
        ),
        (
            "43 a port it has not",
            Target::Name {
                host: "cart.shop.mesh.internal",
                port: 81,
            },
            "503",
        ),
        ("44 proxy port 15001", address("10.0.0.2:15001"), "503"),
        ("44 proxy port 15006", address("10.0.0.2:15006"), "503"),
        ("44 proxy port 15008", address("10.0.0.2:15008"), "503"),
    ] {
        let local = "10.0.0.2".parse().unwrap();
        assert_eq!(
            told(tunnelled(&view, &me, local, target, Caller::default())),
            want,
            "{row}"
        );
    }
}

#[test]
fn a_waypoint_takes_what_is_meant_for_those_it_stands_for() {
    let me = workload("wp", &["10.0.0.10"]).of("wp");
    let bound = |name: &str, n: u8| workload(name, &[&format!("10.0.0.{n}")]).of("direct");
    let workloads = vec![
        me.clone(),
        bound("by-address", 2).behind(waypoint_at("10.0.0.10")),
        bound("by-name", 3).behind(waypoint_named("wp")),
        bound("elsewhere", 4).behind(waypoint_at("10.0.0.11")),
        bound("unbound", 5),
        workload("other", &["10.0.0.11"]),
    ];
    let services = vec![
        service("wp", &["10.9.0.10"]).ports(&[port(15008, 15008)]),
        service("cart", &["10.9.0.1"]).through(waypoint_named("wp")),
        service("direct", &["10.9.0.2"]),
    ];
    let view = view(workloads, services);
    for (row, to, want) in [
        ("40 its service", "10.9.0.1:80", "10.0.0.10:80 of cart"),
        ("41 a service of its workload", "10.9.0.2:80", "400"),
        ("its workload, by address", "10.0.0.2:80", "10.0.0.10:80"),
        ("its workload, by name", "10.0.0.3:80", "10.0.0.10:80"),
        ("another waypoint's workload", "10.0.0.4:80", "400"),
        ("nobody's workload", "10.0.0.5:80", "400"),
        ("its service, proxy port", "10.9.0.1:15001", "503"),
        ("an address nobody has", "10.0.0.99:80", "400"),
    ] {
        let local = "10.0.0.10".parse().unwrap();
        let target = Target::Address(to.parse().unwrap());
        let got = told(tunnelled(&view, &me, local, target, Caller::default()));
        assert_eq!(got, want, "{row}");
    }
}

#[test]
fn the_peer_names_the_service_only_where_it_is_true() {
    let me = workload("me", &["10.0.0.2"]).of("cart").of("basket");
    let view = view(
        vec![me.clone()],
        vec![
            service("cart", &[]),
            service("basket", &[]),
            service("other", &[]),
        ],
    );
    let local = "10.0.0.2".parse().unwrap();
    let target = Target::Address("10.0.0.2:8080".parse().unwrap());
    for (row, host, want) in [
        (
            "named",
            Some("cart.shop.mesh.internal"),
            "10.0.0.2:8080 of cart",
        ),
        (
            "not one of its own",
            Some("other.shop.mesh.internal"),
            "10.0.0.2:8080 of basket",
        ),
        ("not named", None, "10.0.0.2:8080 of basket"),
    ] {
        assert_eq!(
            told(tunnelled(
                &view,
                &me,
                local,
                target,
                Caller { peer: None, host }
            )),
            want,
            "{row}"
        );
    }
}

#[test]
fn where_a_waypoint_must_be_passed_follows_the_workload_and_its_services() {
    let of = |own: bool, primary: bool, canary: bool, also: &str| {
        let mut me = workload("me", &["10.0.0.2"]).of("cart").of(also);
        me.waypoint = own.then(|| waypoint_named("wp"));
        let mut cart = service("cart", &["10.9.0.1"]);
        cart.waypoint = primary.then(|| waypoint_named("wp"));
        let canary = canary.then(|| WeightedWaypoint {
            waypoint: waypoint_named("wp"),
            weight: 1,
        });
        cart.weighted_waypoints = canary.into_iter().collect();
        let view = view(vec![me.clone()], vec![cart, service("other", &[])]);
        Guarded::of(&view, &me)
    };
    let none = of(false, false, false, "cart");
    assert_eq!(none, of(false, false, false, "nobody"));
    for (name, other) in [
        ("its own", of(true, false, false, "cart")),
        ("its service's", of(false, true, false, "cart")),
        ("its service's second", of(false, false, true, "cart")),
        ("another service", of(false, false, false, "other")),
    ] {
        assert_ne!(none, other, "{name}");
    }
}

/// Vectors 9, 10 and 33 of `spec/labels-and-policy.md` §7, as far as policies have no part in them.
#[test]
fn only_waypoints_come_where_one_must_be_passed() {
    let shares = |name: &str, weight| WeightedWaypoint {
        waypoint: waypoint_named(name),
        weight,
    };
    let canaried = Service {
        weighted_waypoints: vec![shares("wp", 100), shares("other", 0)],
        ..service("canaried", &["10.9.0.3"]).through(waypoint_named("wp"))
    };
    let web = Some("web");
    for (row, cart, me, peer, host, want) in [
        (
            "9 by the service's",
            true,
            true,
            Some("wp"),
            Some("cart"),
            true,
        ),
        ("9 by the workload's", true, true, Some("other"), None, true),
        (
            "9 to the workload past its own",
            true,
            true,
            web,
            None,
            false,
        ),
        ("9 plain", true, true, None, None, false),
        (
            "10 to a service without",
            false,
            true,
            web,
            Some("cart"),
            true,
        ),
        ("10 to the workload", false, true, web, None, false),
        (
            "33 to the service",
            true,
            false,
            Some("wp"),
            Some("cart"),
            true,
        ),
        (
            "33 to the service past its waypoint",
            true,
            false,
            web,
            Some("cart"),
            false,
        ),
        ("33 to the workload", true, false, web, None, true),
        ("33 plain", true, false, None, None, true),
        (
            "any waypoint",
            true,
            false,
            Some("other"),
            Some("cart"),
            true,
        ),
        (
            "a service it is not in",
            true,
            true,
            web,
            Some("elsewhere"),
            false,
        ),
        (
            "that service, without a waypoint of its own",
            true,
            false,
            web,
            Some("elsewhere"),
            true,
        ),
        ("in capitals", true, false, web, Some("CART"), false),
        (
            "of a canary",
            false,
            false,
            Some("other"),
            Some("canaried"),
            true,
        ),
        ("past a canary", false, false, web, Some("canaried"), false),
    ] {
        let bound = |is: bool, service: Service| match is {
            true => service.through(waypoint_named("wp")),
            false => service,
        };
        let mut cart_1 = workload("cart-1", &["10.0.0.2"]).of("cart").of("canaried");
        if me {
            cart_1 = cart_1.behind(waypoint_named("other"));
        }
        let view = view(
            vec![
                cart_1.clone(),
                workload("web", &["10.0.0.1"]),
                workload("wp", &["10.0.0.10"]).of("wp"),
                workload("other", &["10.0.0.11"]).of("other"),
            ],
            vec![
                bound(cart, service("cart", &["10.9.0.1"])),
                canaried.clone(),
                service("elsewhere", &["10.9.0.2"]),
                service("wp", &["10.9.0.10"]).ports(&[port(15008, 15008)]),
                service("other", &["10.9.0.11"]).ports(&[port(15008, 15008)]),
            ],
        );
        let identity = |name| workload(name, &[]).identity().unwrap();
        let peer = peer.map(identity);
        let host = host.map(|name| format!("{name}.shop.mesh.internal"));
        let at: SocketAddr = "10.0.0.2:8080".parse().unwrap();
        let target = Target::Address(at);
        let caller = Caller {
            peer: peer.as_ref(),
            host: host.as_deref(),
        };
        let let_in = tunnelled(&view, &cart_1, at.ip(), target, caller);
        assert_eq!(let_in.is_ok(), want, "{row}");
        let plain = plaintext(&view, &cart_1, at);
        assert_eq!(plain.is_ok(), !me, "{row}, in plain text");
        if let Err(refusal) = let_in {
            assert_eq!(refusal.status(), 401, "{row}");
        }
        // By name it is a service, whoever else is named beside it.
        let by_name = Target::Name {
            host: "cart.shop.mesh.internal",
            port: 80,
        };
        let web = web.map(identity);
        let caller = Caller {
            peer: web.as_ref(),
            host: None,
        };
        let by_name = tunnelled(&view, &cart_1, at.ip(), by_name, caller);
        assert_eq!(by_name.is_ok(), !cart, "{row}, by name");
    }
}
