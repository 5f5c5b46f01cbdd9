//! For whom a waypoint opens tunnels (vector 16 of `spec/labels-and-policy.md` §7), and where it
//! sends them on.

use std::collections::BTreeSet;

use super::*;
use crate::model::balance::RoundRobin;
use crate::model::service::Visibility;
use crate::model::testing::{port, service, view, waypoint_at, waypoint_named, workload};

/// `wp` stands for service `cart` and for workload `batch-1`, and knows of others.
fn mesh() -> View {
    let named = || waypoint_named("wp");
    view(
        vec![
            workload("wp-1", &["10.2.0.1"]).of("wp"),
            workload("other-1", &["10.2.0.2"]).of("other"),
            workload("cart-1", &["10.1.0.11"]).of("cart"),
            workload("cart-2", &["10.1.0.12"]).of("cart"),
            workload("batch-1", &["10.1.0.21"]).behind(named()),
            workload("loop-1", &["10.1.0.31"]).behind(waypoint_at("10.2.0.1")),
            workload("theirs-1", &["10.1.0.41"]).behind(waypoint_named("other")),
        ],
        vec![
            service("wp", &["10.96.0.1"]).ports(&[port(15008, 15008)]),
            service("other", &["10.96.0.2"]).ports(&[port(15008, 15008)]),
            service("cart", &["10.96.0.10"]).through(named()),
            service("hidden", &["10.96.0.11"])
                .through(named())
                .in_namespace("back", Visibility::Namespace),
            service("free", &["10.96.0.12"]),
            service("theirs", &["10.96.0.13"]).through(waypoint_named("other")),
            service("headless", &[]).through(named()),
        ],
    )
}

fn target(text: &str) -> (String, u16) {
    let (host, port) = text.rsplit_once(':').unwrap();
    (host.to_owned(), port.parse().unwrap())
}

fn ask(view: &View, text: &str) -> Result<Bound, Refusal> {
    let wp = view.workload("wp-1").unwrap();
    match text.parse() {
        Ok(address) => admit(view, None, wp, Target::Address(address)),
        Err(_name) => {
            let (host, port) = target(text);
            admit(view, None, wp, Target::Name { host: &host, port })
        }
    }
}

#[test]
fn a_tunnel_is_opened_for_what_is_bound() {
    let view = mesh();
    for (name, text, want) in [
        ("a declared port", "10.96.0.10:80", Ok("cart")),
        ("by mapped address", "[::ffff:10.96.0.10]:80", Ok("cart")),
        ("by name", "cart.shop.mesh.internal:80", Ok("cart")),
        (
            "seen by its own namespace only",
            "10.96.0.11:80",
            Ok("hidden"),
        ),
        ("a bound workload", "10.1.0.21:80", Ok("batch-1")),
        ("any port of it", "10.1.0.21:9", Ok("batch-1")),
        (
            "an undeclared port",
            "10.96.0.10:81",
            Err("declares no port 81"),
        ),
        (
            "a target port",
            "10.96.0.10:8080",
            Err("declares no port 8080"),
        ),
        (
            "a name's undeclared port",
            "cart.shop.mesh.internal:81",
            Err("declares no port 81"),
        ),
        ("an unbound service", "10.96.0.12:80", Err("neither")),
        ("its name", "free.shop.mesh.internal:80", Err("neither")),
        (
            "another waypoint's service",
            "10.96.0.13:80",
            Err("neither"),
        ),
        (
            "another waypoint's workload",
            "10.1.0.41:80",
            Err("neither"),
        ),
        (
            "an endpoint of a bound service",
            "10.1.0.11:8080",
            Err("neither"),
        ),
        (
            "the waypoint's own address",
            "10.2.0.1:15008",
            Err("neither"),
        ),
        ("its own service", "10.96.0.1:15008", Err("neither")),
        ("an unknown address", "192.0.2.1:80", Err("neither")),
        (
            "an unknown name",
            "nope.shop.mesh.internal:80",
            Err("neither"),
        ),
        (
            "a name without an address",
            "headless.shop.mesh.internal:80",
            Err("has no address"),
        ),
    ] {
        let got = ask(&view, text);
        match (got, want) {
            (Ok(Bound::Service { service, .. }), Ok(want)) => {
                assert_eq!(&*service.name, want, "{name}")
            }
            (Ok(Bound::Workload { workload, .. }), Ok(want)) => {
                assert_eq!(&*workload.uid, want, "{name}")
            }
            (Err(refusal), Err(want)) => {
                assert!(refusal.to_string().contains(want), "{name}: {refusal}");
                assert_eq!(refusal.status(), 404, "{name}");
            }
            (got, want) => panic!("{name}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn one_that_is_not_told_of_itself_takes_no_tunnel() {
    let view = mesh();
    let wp = view.workload("wp-1").unwrap();
    let target = Target::Address("10.96.0.10:80".parse().unwrap());
    let refused = admit(&view, Some(&Resources::default()), wp, target).unwrap_err();
    assert_eq!((&refused, refused.status()), (&Refusal::Untold, 503));
}

#[test]
fn a_waypoint_bound_to_itself_does_not_ask_itself() {
    let wp = workload("wp-1", &["10.2.0.1"]).behind(waypoint_at("10.2.0.1"));
    let view = view(vec![wp], vec![]);
    assert!(ask(&view, "10.2.0.1:80").is_err());
    // A workload bound by that address is no such circle.
    assert!(ask(&mesh(), "10.1.0.31:80").is_ok());
}

fn way(view: &View, text: &str, tried: &[SocketAddr], turns: &mut RoundRobin) -> String {
    let bound = ask(view, text).unwrap();
    let wp = view.workload("wp-1").unwrap();
    match onward(view, wp, &bound, tried, turns) {
        Ok(Route::Tunnel(t)) => format!("tunnel {} for {}", t.hop, t.target),
        Ok(Route::Plain { endpoint, .. }) => format!("plain {}", endpoint.address),
        Ok(Route::Named { workload, port, .. }) => format!("name {}:{port}", workload.hostname),
        Ok(Route::Passthrough { to }) => format!("as asked {to}"),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn what_comes_through_goes_straight_to_an_endpoint() {
    let view = mesh();
    let mut turns = RoundRobin::default();
    let mut next = |text, tried: &[SocketAddr]| way(&view, text, tried, &mut turns);
    let both: BTreeSet<_> = (0..2).map(|_| next("10.96.0.10:80", &[])).collect();
    let (first, second) = (
        "tunnel 10.1.0.11:15008 for 10.1.0.11:8080".to_owned(),
        "tunnel 10.1.0.12:15008 for 10.1.0.12:8080".to_owned(),
    );
    assert_eq!(both, BTreeSet::from([first, second.clone()]), "in turns");
    let one: SocketAddr = "10.1.0.11:8080".parse().unwrap();
    let two: SocketAddr = "10.1.0.12:8080".parse().unwrap();
    for _ in 0..3 {
        assert_eq!(next("10.96.0.10:80", &[one]), second, "the other one");
    }
    let none = next("10.96.0.10:80", &[one, two]);
    assert!(none.contains("no healthy endpoint"), "{none}");
    // Its own waypoint is this one: it is not gone through again.
    let batch = next("10.1.0.21:9", &[]);
    assert_eq!(batch, "tunnel 10.1.0.21:15008 for 10.1.0.21:9");
}

#[test]
fn the_mesh_may_change_while_a_tunnel_is_open() {
    let before = mesh();
    let bound = ask(&before, "10.96.0.10:80").unwrap();
    let wp = before.workload("wp-1").unwrap();
    let cart = service("cart", &["10.96.0.10"]);
    let moved = workload("cart-3", &["10.1.0.13"]).of("cart").plain();
    let after = view(vec![moved], vec![cart]);
    let mut turns = RoundRobin::default();
    let route = onward(&after, wp, &bound, &[], &mut turns).unwrap();
    assert!(
        matches!(route, Route::Plain { endpoint, .. } if endpoint.address.to_string() == "10.1.0.13:8080")
    );
    let gone = view(vec![], vec![]);
    assert!(onward(&gone, wp, &bound, &[], &mut turns).is_err());
}

#[test]
fn the_instance_is_the_one_of_this_node() {
    let view = view(
        vec![
            workload("wp-1", &["10.2.0.1"]).of("wp"),
            workload("wp-2", &["10.2.0.2"]).of("wp").on_node("edge-2"),
            workload("cart-1", &["10.1.0.11"]).of("cart"),
        ],
        vec![service("wp", &["10.96.0.1"]), service("cart", &[])],
    );
    for (name, waypoint, node, want) in [
        ("by its service", "shop/wp", "edge-1", Some("wp-1")),
        ("of another node", "shop/wp", "edge-2", Some("wp-2")),
        ("by its own name", "shop/wp-2", "edge-2", Some("wp-2")),
        ("not placed here", "shop/wp", "edge-3", None),
        ("of another namespace", "back/wp", "edge-1", None),
        ("unknown", "shop/nope", "edge-1", None),
    ] {
        let found = instance(&view, &waypoint.parse().unwrap(), node);
        assert_eq!(found.map(|w| &*w.uid), want, "{name}");
    }
}

#[test]
fn names_are_read_strictly() {
    for (text, good) in [
        ("shop/waypoint", true),
        ("shop/", false),
        ("/waypoint", false),
        ("waypoint", false),
        ("shop/way/point", false),
        ("Shop/waypoint", false),
    ] {
        let read = text.parse::<WaypointName>();
        assert_eq!(read.is_ok(), good, "{text}");
        if let Ok(name) = read {
            assert_eq!(name.to_string(), text);
        }
    }
}
