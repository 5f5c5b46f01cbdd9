//! Vectors 2 to 14 of `spec/labels-and-policy.md` §7: from what is written to where a connection
//! goes, by the decision a node takes.

use std::net::SocketAddr;

use super::super::sample::{gateway, mesh, namespace, node, using};
use super::super::{Assignments, Observed, Reported, compile, recompile};
use super::*;
use crate::model::balance::RoundRobin;
use crate::model::declaration::{AllowedRoutes, Canary, CanaryWeight, Machines, WaypointFor};
use crate::model::inbound::Target;
use crate::model::outbound::{Route, decide};
use crate::model::service::HealthPolicy;
use crate::model::view::View;
use crate::model::waypoint::admit;
use crate::model::workload::Health;

const VIP: &str = "240.240.0.10:80";
const CART: &str = "10.1.0.11:8080";

/// `cart`, `cart-1`, `web-1`, and the waypoints of §7, each on a machine of its own. `written` sets
/// `use-waypoint`s: `shop=wp cart=none cart-1=wl`.
fn written(written: &str) -> Mesh {
    let mut mesh = mesh();
    mesh.services[0].addresses = vec!["240.240.0.10".parse().unwrap()];
    mesh.namespaces
        .insert(Arc::from("infra"), namespace("infra"));
    let waypoints = [
        ("shop", "wp", WaypointFor::Service),
        ("shop", "wl", WaypointFor::Workload),
        ("shop", "all", WaypointFor::All),
        ("shop", "off", WaypointFor::None),
        ("infra", "wp", WaypointFor::Service),
    ];
    for (at, (namespace, name, waypoint_for)) in waypoints.into_iter().enumerate() {
        let mut waypoint = gateway(name, waypoint_for);
        waypoint.namespace = Arc::from(namespace);
        let on: Arc<str> = Arc::from(format!("n-{namespace}-{name}"));
        waypoint.machines = Machines::One(Arc::clone(&on));
        let mut machine = node(&on);
        machine.addresses = vec![format!("192.0.2.{}", at + 1).parse().unwrap()];
        mesh.nodes.insert(Arc::clone(&machine.name), machine);
        mesh.gateways.push(waypoint);
    }
    for (whose, waypoint) in written
        .split_whitespace()
        .map(|w| w.split_once('=').unwrap())
    {
        match whose {
            "shop" => mesh.namespaces.get_mut("shop").unwrap().use_waypoint = using(waypoint),
            "cart" => mesh.services[0].use_waypoint = using(waypoint),
            "cart-1" => {
                let mut cart = declaration::Workload::clone(&mesh.workloads[0]);
                cart.use_waypoint = using(waypoint);
                mesh.workloads[0] = cart.into();
            }
            other => panic!("{other}?"),
        }
    }
    mesh
}

fn compiled(mesh: &Mesh) -> super::super::Compiled {
    compile(mesh, &Reported::default(), &Assignments::default()).unwrap()
}

fn seen(mesh: &Mesh) -> View {
    let compiled = compiled(mesh);
    View::new(compiled.workloads, compiled.services)
}

/// `NS/WAYPOINT TARGET`, `direct`, or `refused`.
fn way(view: &View, from: &str, to: &str) -> String {
    let source = view
        .workloads()
        .find(|w| *w.uid.rsplit_once('/').unwrap().1 == *from);
    let to: SocketAddr = to.parse().unwrap();
    let mut turns = RoundRobin::default();
    match decide(view, source.unwrap(), to, &mut turns) {
        Ok(Route::Tunnel(t)) if t.workload.uid.contains("/Gateway/") => {
            format!("{}/{} {}", t.workload.namespace, t.workload.name, t.target)
        }
        Ok(Route::Tunnel(_) | Route::Plain { .. }) => "direct".to_owned(),
        Ok(Route::Passthrough { .. } | Route::Named { .. }) => "out".to_owned(),
        Err(_refusal) => "refused".to_owned(),
    }
}

#[test]
fn connections_pass_the_waypoints_that_are_asked_for() {
    for (name, labels, to_service, to_workload) in [
        ("2", "shop=wp", "shop/wp 240.240.0.10:80", "direct"),
        (
            "2 all",
            "shop=all",
            "shop/all 240.240.0.10:80",
            "shop/all 10.1.0.11:8080",
        ),
        ("3", "shop=wp cart=none", "direct", "direct"),
        (
            "4 by fall-through",
            "shop=wp cart=wl",
            "shop/wp 240.240.0.10:80",
            "direct",
        ),
        ("4 without", "cart=wl", "refused", "direct"),
        ("5 own", "cart-1=wp", "direct", "refused"),
        ("5 inherited", "shop=wl", "direct", "shop/wl 10.1.0.11:8080"),
        ("6", "shop=wp cart=nope", "refused", "direct"),
        ("7", "cart=infra/wp", "refused", "direct"),
        (
            "9",
            "cart=wp cart-1=wl",
            "shop/wp 240.240.0.10:80",
            "shop/wl 10.1.0.11:8080",
        ),
        ("10", "cart-1=wl", "direct", "shop/wl 10.1.0.11:8080"),
        ("13 own", "cart=off", "refused", "direct"),
        ("13 inherited", "shop=off", "direct", "direct"),
    ] {
        let view = seen(&written(labels));
        assert_eq!(
            way(&view, "web-1", VIP),
            to_service,
            "{name} to the service"
        );
        assert_eq!(
            way(&view, "web-1", CART),
            to_workload,
            "{name} to the workload"
        );
    }
}

#[test]
fn a_waypoint_of_another_namespace_takes_whom_it_admits() {
    // Vector 8.
    let mut mesh = written("cart=infra/wp");
    mesh.gateways[4].allowed_routes = AllowedRoutes::All;
    assert_eq!(way(&seen(&mesh), "web-1", VIP), "infra/wp 240.240.0.10:80");
    let mut mesh = written("shop=infra/wp cart=wp");
    mesh.gateways[4].allowed_routes = AllowedRoutes::All;
    assert_eq!(way(&seen(&mesh), "web-1", VIP), "shop/wp 240.240.0.10:80");
}

#[test]
fn without_a_living_instance_it_is_refused() {
    // Vector 11.
    let compiled = compiled(&written("cart=wp"));
    let dead = |w: &Arc<Workload>| match w.uid.contains("/Gateway/") {
        true => Arc::new(Workload {
            health: Health::Unhealthy,
            ..Workload::clone(w)
        }),
        false => Arc::clone(w),
    };
    let view = View::new(compiled.workloads.iter().map(dead), compiled.services);
    assert_eq!(way(&view, "web-1", VIP), "refused");
}

#[test]
fn waypoints_have_none() {
    // Vector 12.
    let mesh = written("shop=all");
    let view = seen(&mesh);
    assert_eq!(way(&view, "all", CART), "direct", "no loop");
    assert_eq!(
        way(&view, "wl", CART),
        "shop/all 10.1.0.11:8080",
        "another one"
    );
    for service in view
        .services()
        .filter(|s| s.key.hostname.starts_with("wp."))
    {
        assert_eq!(service.waypoint, None);
    }
    assert!(
        view.workloads()
            .filter(|w| w.uid.contains("/Gateway/"))
            .all(|w| w.waypoint.is_none())
    );
}

#[test]
fn a_canary_gets_its_share() {
    // Vector 14: of 10,000 connections one fifth.
    for (weight, want) in [(20, 2_000), (0, 0), (100, 10_000)] {
        let mut mesh = written("cart=wp");
        mesh.services[0].canary = Canary {
            waypoint: using("all"),
            weight: Some(CanaryWeight::Percent(weight)),
        };
        let view = seen(&mesh);
        let source = view.workload_at("", "10.1.0.12".parse().unwrap()).unwrap();
        for name in ["wp", "all"] {
            let instance = view.workload(&format!("Kubernetes/lateen/Gateway/shop/{name}"));
            let target = Target::Address(VIP.parse().unwrap());
            let admitted = admit(&view, None, instance.unwrap(), target);
            assert!(admitted.is_ok(), "{name} takes what is sent to it");
        }
        let mut turns = RoundRobin::default();
        let mut through = |_| match decide(&view, source, VIP.parse().unwrap(), &mut turns) {
            Ok(Route::Tunnel(t)) => t.workload.name.to_string(),
            other => format!("{other:?}"),
        };
        let all: Vec<String> = (0..10_000).map(&mut through).collect();
        let share = all.iter().filter(|name| *name == "all").count();
        assert_eq!(share, want, "{weight} %");
        let rest = all.iter().filter(|name| *name == "wp").count();
        assert_eq!(share + rest, 10_000, "{weight} %");
        let service = view
            .service_at("", "240.240.0.10".parse().unwrap(), "shop")
            .unwrap();
        let weights: Vec<u32> = service
            .weighted_waypoints
            .iter()
            .map(|w| w.weight)
            .collect();
        assert_eq!(weights, [100 - u32::from(weight), u32::from(weight)]);
        assert_eq!(
            service.waypoint.as_ref(),
            Some(&service.weighted_waypoints[0].waypoint)
        );
    }
}

#[test]
fn a_waypoint_is_a_service_and_an_instance() {
    let mesh = written("shop=wp");
    let compiled = compiled(&mesh);
    let service = compiled
        .services
        .iter()
        .find(|s| &*s.key.hostname == "wp.shop.mesh.internal");
    let service = service.unwrap();
    assert_eq!(service.vips.len(), 2, "one of each family");
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|p| (p.service_port, p.target_port))
        .collect();
    assert_eq!(ports, [(15008, 15008)]);
    assert_eq!(
        service.subject_alt_names,
        [Arc::from("spiffe://cluster.local/ns/shop/sa/wp")]
    );
    let uid = "Kubernetes/lateen/Gateway/shop/wp";
    let instance = compiled.workloads.iter().find(|w| &*w.uid == uid).unwrap();
    assert!(instance.services.contains_key(&service.key));
    assert_eq!(instance.tunnel, TunnelProtocol::None);
    assert_eq!(instance.network_mode, NetworkMode::HostNetwork);
    assert_eq!(instance.addresses, mesh.nodes["n-shop-wp"].addresses);
    assert_eq!(
        instance.identity().unwrap().to_string(),
        *service.subject_alt_names[0]
    );
    assert!(
        compiled.placements["n-shop-wp"].is_empty(),
        "nobody captures it"
    );
    let uids: Vec<_> = compiled.workloads.iter().map(|w| &w.uid).collect();
    assert!(uids.is_sorted());
}

#[test]
fn beside_workloads_it_listens_elsewhere() {
    let port = |mesh: &Mesh| {
        let compiled = compiled(mesh);
        let cart = compiled
            .services
            .iter()
            .find(|s| &*s.name == "cart")
            .unwrap();
        cart.waypoint.as_ref().unwrap().hbone_port
    };
    let mut mesh = written("cart=wp");
    assert_eq!(port(&mesh), 15008);
    mesh.gateways[0].hbone_port = Some(15009);
    assert_eq!(port(&mesh), 15009, "as it is written");
    mesh.gateways[0].hbone_port = None;
    mesh.gateways[0].machines = Machines::One(Arc::from("edge-1"));
    assert_eq!(port(&mesh), 15009, "where cart-1 is");
}

#[test]
fn ingress_passes_it_where_that_is_asked_for() {
    // Vector 15, as far as it is not a matter of spelling.
    for (name, waypoint, own, theirs, want) in [
        ("own false", "cart=wp", Some(false), Some(true), false),
        ("own true", "cart=wp", Some(true), None, true),
        ("the namespace's", "cart=wp", None, Some(true), true),
        ("not bound", "cart=none", Some(true), Some(true), false),
        ("nobody says", "cart=wp", None, None, false),
    ] {
        let mut mesh = written(waypoint);
        mesh.services[0].ingress_use_waypoint = own;
        mesh.namespaces
            .get_mut("shop")
            .unwrap()
            .ingress_use_waypoint = theirs;
        let compiled = compiled(&mesh);
        let cart = compiled
            .services
            .iter()
            .find(|s| &*s.name == "cart")
            .unwrap();
        assert_eq!(cart.ingress_use_waypoint, want, "{name}");
    }
}

#[test]
fn a_waypoint_opens_nothing_for_others() {
    // Vector 16.
    let view = seen(&written("cart=wp"));
    let instance = view.workload("Kubernetes/lateen/Gateway/shop/wp").unwrap();
    let web = view.services().find(|s| &*s.name == "web").unwrap();
    let unbound = SocketAddr::new(web.vips[0].address, 80).to_string();
    for (name, to, opens) in [
        ("its service", VIP, true),
        ("an unbound service", unbound.as_str(), false),
        ("a port nobody declared", "240.240.0.10:81", false),
        ("a workload", CART, false),
    ] {
        let target = Target::Address(to.parse().unwrap());
        assert_eq!(
            admit(&view, None, instance, target).is_ok(),
            opens,
            "{name}"
        );
    }
}

/// `wp` on two machines, one of which runs workloads.
fn on_two_machines() -> Mesh {
    let mut mesh = written("cart=wp");
    let machines = ["edge-1", "n-shop-wp"].map(Arc::from);
    mesh.gateways[0].machines = Machines::Each(machines.to_vec());
    let edge = mesh.nodes.get_mut("edge-1").unwrap();
    edge.addresses = vec!["192.0.2.99".parse().unwrap()];
    mesh
}

#[test]
fn each_of_its_machines_is_an_instance() {
    let mesh = on_two_machines();
    let compiled = compiled(&mesh);
    let uids: Vec<_> = compiled.workloads.iter().map(|w| &*w.uid).collect();
    let wp = |node: &str| format!("Kubernetes/lateen/Gateway/shop/wp/{node}");
    assert!(
        uids.is_sorted() && uids.contains(&&*wp("edge-1")) && uids.contains(&&*wp("n-shop-wp"))
    );
    assert_eq!(compiled.served["edge-1"].len(), 1);
    assert_eq!(*compiled.served["edge-1"][0].uid, wp("edge-1"));
    let view = View::new(compiled.workloads, compiled.services);
    let name = "shop/wp".parse().unwrap();
    let web = view.workload_at("", "10.1.0.12".parse().unwrap()).unwrap();
    let mut turns = RoundRobin::default();
    for node in ["edge-1", "n-shop-wp", "edge-1"] {
        let instance = crate::model::waypoint::instance(&view, &name, node).unwrap();
        assert_eq!(*instance.uid, wp(node));
        let port = crate::model::waypoint::hbone_port(&view, &name, instance);
        assert_eq!(port, Some(15009), "the same for both");
        let target = Target::Address(VIP.parse().unwrap());
        assert!(admit(&view, None, instance, target).is_ok(), "{node}");
    }
    let mut hop = |_| match decide(&view, web, VIP.parse().unwrap(), &mut turns) {
        Ok(Route::Tunnel(t)) => (t.workload.uid.to_string(), t.hop.port()),
        other => panic!("{other:?}"),
    };
    let hops: Vec<_> = (0..4).map(&mut hop).collect();
    for node in ["edge-1", "n-shop-wp"] {
        let share = hops.iter().filter(|hop| **hop == (wp(node), 15009));
        assert_eq!(share.count(), 2, "{node}: {hops:?}");
    }
}

#[test]
fn an_instance_is_as_healthy_as_its_machine_reports() {
    let mesh = on_two_machines();
    let wp = |node: &str| Arc::<str>::from(format!("Kubernetes/lateen/Gateway/shop/wp/{node}"));
    let failing = Observed {
        health: Health::Unhealthy,
        ..Observed::default()
    };
    let held = Observed {
        held: true,
        ..Observed::default()
    };
    type Said<'a> = &'a [(&'a str, Observed)];
    let rows: [(&str, Said<'_>, [bool; 2], HealthPolicy); 5] = [
        (
            "nothing is heard",
            &[],
            [true, true],
            HealthPolicy::OnlyHealthy,
        ),
        (
            "one fails",
            &[("edge-1", failing)],
            [false, true],
            HealthPolicy::OnlyHealthy,
        ),
        (
            "both fail, so both are tried",
            &[("edge-1", failing), ("n-shop-wp", failing)],
            [false, false],
            HealthPolicy::AllowAll,
        ),
        (
            "one goes up and down",
            &[("edge-1", held)],
            [false, true],
            HealthPolicy::OnlyHealthy,
        ),
        (
            "the last one does",
            &[("edge-1", held), ("n-shop-wp", failing)],
            [true, false],
            HealthPolicy::OnlyHealthy,
        ),
    ];
    let mut before = compiled(&mesh);
    for (name, said, want, policy) in rows {
        let reported: Reported = said.iter().map(|(node, o)| (wp(node), *o)).collect();
        let assignments = before.assignments.clone();
        let next = recompile(&mesh, &reported, &assignments, &before).unwrap();
        assert_eq!(
            next,
            compile(&mesh, &reported, &assignments).unwrap(),
            "{name}"
        );
        let healthy = |node| {
            let mut all = next.workloads.iter();
            all.find(|w| w.uid == wp(node)).unwrap().health == Health::Healthy
        };
        assert_eq!(["edge-1", "n-shop-wp"].map(healthy), want, "{name}");
        let mut services = next.services.iter();
        let service = services.find(|s| &*s.key.hostname == "wp.shop.mesh.internal");
        let balancing = &service.unwrap().load_balancing;
        assert_eq!(balancing.health_policy, policy, "{name}");
        before = next;
    }
}
