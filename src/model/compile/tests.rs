use std::collections::HashSet;

use super::sample::{labels, large, mesh, service, workload};
use super::*;
use crate::model::service::UdpPort;
use proptest::prelude::*;

fn compiled(mesh: &Mesh) -> Compiled {
    compile(mesh, &Reported::default(), &Assignments::default()).unwrap()
}

fn uid(name: &str) -> Arc<str> {
    workload_uid("Kubernetes", "shop", name)
}

fn captured(name: &str) -> Reported {
    let observed = Observed {
        captured: true,
        ..Observed::default()
    };
    [(uid(name), observed)].into_iter().collect()
}

#[test]
fn names_and_membership() {
    let compiled = compiled(&mesh());
    let cart = &compiled.workloads[0];
    assert_eq!(&*cart.uid, "Kubernetes/lateen/Workload/shop/cart-1");
    let services: Vec<String> = cart.services.keys().map(ToString::to_string).collect();
    assert_eq!(services, ["shop/cart.shop.mesh.internal"]);
    assert_eq!(compiled.services[0].key.to_string(), services[0]);
    assert_eq!(compiled.placements["edge-1"].len(), 1);
    assert_eq!(compiled.placements["edge-1"][0].uid, cart.uid);
    assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
}

#[test]
fn selectors() {
    for (name, namespace, selector, want) in [
        ("one pair", "shop", &[("app", "cart")][..], true),
        (
            "all pairs",
            "shop",
            &[("app", "cart"), ("version", "v1")],
            true,
        ),
        (
            "one pair missing",
            "shop",
            &[("app", "cart"), ("version", "v2")],
            false,
        ),
        ("a prefix is no match", "shop", &[("app", "car")], false),
        ("other namespace", "other", &[("app", "cart")], false),
        ("an empty selector selects nothing", "shop", &[], false),
    ] {
        let mut mesh = mesh();
        mesh.workloads[0].labels = labels(&[("app", "cart"), ("version", "v1")]);
        mesh.services = vec![service("cart")];
        mesh.services[0].namespace = Arc::from(namespace);
        mesh.services[0].selector = labels(selector);
        let compiled = compiled(&mesh);
        assert_eq!(!compiled.workloads[0].services.is_empty(), want, "{name}");
    }
}

#[test]
fn tunnels_only_what_is_enrolled_and_captured() {
    use DataplaneMode::{Ambient, None as Off};
    for (name, namespace, own, capture, reported, want) in [
        (
            "captured",
            Some(Ambient),
            None,
            true,
            true,
            TunnelProtocol::Hbone,
        ),
        (
            "not yet captured",
            Some(Ambient),
            None,
            true,
            false,
            TunnelProtocol::None,
        ),
        (
            "own word wins",
            Some(Ambient),
            Some(Off),
            true,
            true,
            TunnelProtocol::None,
        ),
        (
            "own word enrols",
            None,
            Some(Ambient),
            true,
            true,
            TunnelProtocol::Hbone,
        ),
        (
            "nobody said so",
            None,
            None,
            true,
            true,
            TunnelProtocol::None,
        ),
        (
            "no way to capture",
            Some(Ambient),
            None,
            false,
            true,
            TunnelProtocol::None,
        ),
    ] {
        let mut mesh = mesh();
        for declared in mesh.namespaces.values_mut() {
            declared.dataplane_mode = namespace;
        }
        mesh.workloads[0].dataplane_mode = own;
        if !capture {
            mesh.workloads[0].capture = None;
        }
        let reported = match reported {
            true => captured("cart-1"),
            false => Reported::default(),
        };
        let compiled = compile(&mesh, &reported, &Assignments::default()).unwrap();
        assert_eq!(compiled.workloads[0].tunnel, want, "{name}");
    }
}

#[test]
fn a_ztunnels_workloads_tunnel_from_the_start() {
    for (name, capture, mode, want) in [
        ("as declared", true, None, TunnelProtocol::Hbone),
        ("captured by others", false, None, TunnelProtocol::Hbone),
        (
            "left alone",
            true,
            Some(DataplaneMode::None),
            TunnelProtocol::None,
        ),
    ] {
        let mut mesh = mesh();
        let node = mesh.workloads[0].node.clone().unwrap();
        mesh.nodes.get_mut(&node).unwrap().proxy = Proxy::Ztunnel;
        mesh.workloads[0].dataplane_mode = mode;
        if !capture {
            mesh.workloads[0].capture = None;
        }
        let compiled = compiled(&mesh);
        assert_eq!(compiled.workloads[0].tunnel, want, "{name}");
        assert!(
            compiled.warnings.is_empty(),
            "{name}: {:?}",
            compiled.warnings
        );
        let placed = &compiled.placements[&node][0];
        assert!(!placed.enrolled, "{name}: it is not ours to capture");
    }
}

#[test]
fn the_narrowest_word_on_the_transport_holds_where_there_is_a_choice() {
    use Transport::{Auto, Quic, Tcp};
    let (ours, stock) = (Some(Proxy::Lateen), Some(Proxy::Ztunnel));
    for (name, node, says, of_workload, of_waypoint) in [
        ("nobody says", ours, (Tcp, None, None, None), Tcp, Tcp),
        ("the mesh", ours, (Auto, None, None, None), Auto, Auto),
        ("the node", ours, (Auto, Some(Quic), None, None), Quic, Quic),
        (
            "the namespace",
            ours,
            (Tcp, Some(Quic), Some(Auto), None),
            Auto,
            Auto,
        ),
        (
            "the workload",
            ours,
            (Tcp, None, Some(Auto), Some(Quic)),
            Quic,
            Auto,
        ),
        (
            "not this one",
            ours,
            (Quic, None, Some(Quic), Some(Tcp)),
            Tcp,
            Quic,
        ),
        (
            "a ztunnel",
            stock,
            (Quic, Some(Quic), None, Some(Quic)),
            Tcp,
            Tcp,
        ),
        ("no node", None, (Quic, None, None, Some(Quic)), Tcp, Quic),
    ] {
        let (of_mesh, of_node, of_namespace, own) = says;
        let mut mesh = mesh();
        let at = Arc::clone(mesh.workloads[0].node.as_ref().unwrap());
        let mut waypoint = sample::gateway("wp", declaration::WaypointFor::Service);
        waypoint.machines = declaration::Machines::One(Arc::clone(&at));
        mesh.gateways.push(waypoint);
        mesh.settings.transport = of_mesh;
        for namespace in mesh.namespaces.values_mut() {
            namespace.transport = of_namespace;
        }
        let machine = mesh.nodes.get_mut(&at).unwrap();
        machine.transport = of_node;
        match node {
            Some(proxy) => machine.proxy = proxy,
            None => mesh.workloads[0].node = None,
        }
        mesh.workloads[0].transport = own;
        let compiled = compiled(&mesh);
        let over = |name: &str| {
            let mut all = compiled.workloads.iter();
            all.find(|w| &*w.name == name).unwrap().transport
        };
        assert_eq!(over("cart-1"), of_workload, "{name}");
        assert_eq!(over("wp"), of_waypoint, "{name}: a waypoint");
    }
}

#[test]
fn datagrams_are_carried_to_those_with_a_udp_port_by_our_own_proxy() {
    let port = UdpPort {
        service_port: 53,
        target_port: 5353,
    };
    for (name, proxy, udp, want) in [
        ("ours", Some(Proxy::Lateen), true, true),
        ("of TCP alone", Some(Proxy::Lateen), false, false),
        ("a ztunnel's", Some(Proxy::Ztunnel), true, false),
        ("on no node", None, true, false),
    ] {
        let mut mesh = mesh();
        let node = mesh.workloads[0].node.clone().unwrap();
        match proxy {
            Some(proxy) => mesh.nodes.get_mut(&node).unwrap().proxy = proxy,
            None => mesh.workloads[0].node = None,
        }
        mesh.services[0].ports.truncate(usize::from(!udp));
        mesh.services[0].udp_ports = udp.then_some(port).into_iter().collect();
        let compiled = compiled(&mesh);
        assert_eq!(compiled.workloads[0].udp, want, "{name}");
        assert!(!compiled.workloads[1].udp, "{name}: of another service");
        assert_eq!(compiled.services[0].udp_ports, mesh.services[0].udp_ports);
        assert_eq!(compiled.services[0].ports.is_empty(), udp, "{name}");
        assert!(!compiled.services[0].vips.is_empty(), "{name}");
    }
}

#[test]
fn datagrams_are_carried_to_whom_a_lateen_captures() {
    let name = || Arc::from("cart");
    for (capture, want) in [
        (None, false),
        (Some(Capture::Netns(name())), true),
        (Some(Capture::Unit(name())), true),
        (Some(Capture::Cgroup(name())), true),
        (Some(Capture::User(name())), true),
        (Some(Capture::Interface(name())), true),
    ] {
        let mut mesh = mesh();
        mesh.workloads[0].capture.clone_from(&capture);
        mesh.services[0].udp_ports = vec![UdpPort {
            service_port: 53,
            target_port: 5353,
        }];
        assert_eq!(compiled(&mesh).workloads[0].udp, want, "{capture:?}");
    }
}

#[test]
fn nobody_is_down_where_nobody_reports() {
    use Health::{Healthy, Unhealthy};
    let bad = Observed {
        captured: false,
        health: Unhealthy,
        held: false,
    };
    let held = Observed {
        captured: false,
        health: Healthy,
        held: true,
    };
    for (name, proxy, placed, observed, want) in [
        ("ours", Proxy::Lateen, true, bad, Unhealthy),
        ("ours, held back", Proxy::Lateen, true, held, Unhealthy),
        ("another proxy", Proxy::Ztunnel, true, bad, Healthy),
        ("held back before", Proxy::Ztunnel, true, held, Healthy),
        ("on no node", Proxy::Lateen, false, bad, Healthy),
    ] {
        let mut mesh = mesh();
        let node = mesh.workloads[0].node.clone().unwrap();
        mesh.nodes.get_mut(&node).unwrap().proxy = proxy;
        let mut twin = mesh.workloads[0].clone();
        twin.name = Arc::from("cart-2");
        mesh.workloads.push(twin);
        if !placed {
            mesh.workloads[0].node = None;
        }
        let uid = workload_uid("Kubernetes", "shop", "cart-1");
        let reported = Reported::from_iter([(uid, observed)]);
        let compiled = compile(&mesh, &reported, &Assignments::default()).unwrap();
        assert_eq!(compiled.workloads[0].health, want, "{name}");
        assert_eq!(
            compiled.mute.contains(&node),
            proxy == Proxy::Ztunnel,
            "{name}"
        );
    }
}

#[test]
fn telemetry_names() {
    for (name, set, want) in [
        ("nothing set", &[][..], ["cart-1", "latest", "cart-1"]),
        (
            "plain labels",
            &[("app", "a"), ("version", "v")],
            ["a", "v", "cart-1"],
        ),
        (
            "recommended labels win",
            &[
                ("app", "a"),
                ("app.kubernetes.io/name", "n"),
                ("app.kubernetes.io/version", "2"),
            ],
            ["n", "2", "cart-1"],
        ),
        (
            "Istio's own win over all",
            &[
                ("app.kubernetes.io/name", "n"),
                ("service.istio.io/canonical-name", "c"),
                ("service.istio.io/canonical-revision", "r"),
                ("service.istio.io/workload-name", "w"),
            ],
            ["c", "r", "w"],
        ),
    ] {
        let mut mesh = mesh();
        mesh.workloads[0].labels = labels(set);
        let cart = &compiled(&mesh).workloads[0];
        let got = [
            &*cart.canonical_name,
            &*cart.canonical_revision,
            &*cart.workload_name,
        ];
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn inherits_from_the_node() {
    let mut mesh = mesh();
    let rack = Locality {
        region: Arc::from("eu"),
        ..Locality::default()
    };
    if let Some(node) = mesh.nodes.get_mut("edge-1") {
        node.locality = rack.clone();
        node.network = Arc::from("north");
    }
    let compiled = compiled(&mesh);
    assert_eq!(compiled.workloads[0].locality, rack);
    assert_eq!(&*compiled.workloads[0].network, "north");
    assert_eq!(&*compiled.workloads[1].network, "");
    let networks: Vec<&str> = compiled.services[0]
        .vips
        .iter()
        .map(|v| &*v.network)
        .collect();
    assert_eq!(networks, ["", "", "north", "north"], "reachable from both");
}

#[test]
fn shares_the_hosts_address() {
    for (name, capture, want) in [
        (
            "netns",
            Capture::Netns(Arc::from("x")),
            NetworkMode::Standard,
        ),
        (
            "interface",
            Capture::Interface(Arc::from("x")),
            NetworkMode::Standard,
        ),
        (
            "unit",
            Capture::Unit(Arc::from("x")),
            NetworkMode::HostNetwork,
        ),
        (
            "cgroup",
            Capture::Cgroup(Arc::from("x")),
            NetworkMode::HostNetwork,
        ),
        (
            "user",
            Capture::User(Arc::from("x")),
            NetworkMode::HostNetwork,
        ),
    ] {
        let mut mesh = mesh();
        mesh.workloads[0].capture = Some(capture);
        assert_eq!(compiled(&mesh).workloads[0].network_mode, want, "{name}");
    }
}

#[test]
fn stock_peers_are_told_whom_they_meet_at_a_shared_address() {
    let sharing = |account: &str, address: &str| {
        let mut shared = workload(account, account, "edge-1", address);
        shared.capture = Some(Capture::Unit(Arc::from(format!("{account}.service"))));
        shared
    };
    let api = || sharing("api", "10.77.0.11");
    let left_out = declaration::Workload {
        dataplane_mode: Some(DataplaneMode::None),
        ..api()
    };
    let netns = workload("api", "api", "edge-1", "10.77.0.11");
    for (name, first, want) in [
        ("the first by uid", Some(api()), &["api"][..]),
        (
            "at another address",
            Some(sharing("api", "10.77.0.12")),
            &[],
        ),
        ("not enrolled", Some(left_out), &[]),
        ("in a network of its own", Some(netns), &[]),
        ("gone", None, &[]),
    ] {
        let mut mesh = mesh();
        mesh.workloads = vec![sharing("cart", "10.77.0.11").into()];
        let before = compiled(&mesh);
        mesh.workloads.extend(first.map(Shared::from));
        // What is taken over from before must not be the names of then.
        let (none, assigned) = (Reported::default(), &before.assignments);
        let after = recompile(&mesh, &none, assigned, &before).unwrap();
        let names: Vec<&str> = after.services[0]
            .subject_alt_names
            .iter()
            .filter_map(|id| id.rsplit('/').next())
            .collect();
        assert_eq!(names, want, "{name}");
        assert!(after.services[1].subject_alt_names.is_empty(), "{name}");
        let back = recompile(&of_one(&mesh), &none, assigned, &after).unwrap();
        assert!(back.services[0].subject_alt_names.is_empty(), "{name}");
    }
}

/// The mesh with its first workload alone.
fn of_one(mesh: &Mesh) -> Mesh {
    let mut one = mesh.clone();
    one.workloads.truncate(1);
    one
}

#[test]
fn assigns_one_address_per_family_and_keeps_it() {
    let mesh = mesh();
    let first = compiled(&mesh);
    let cart = &first.services[0];
    let families: Vec<bool> = cart.vips.iter().map(|v| v.address.is_ipv4()).collect();
    assert_eq!(families, [true, false]);

    let mut grown = mesh.clone();
    grown.services.insert(0, service("aaa"));
    let from_nothing = compiled(&grown);
    assert_eq!(
        from_nothing.assignments.of(&cart.key),
        first.assignments.of(&cart.key),
        "another service changes nothing"
    );
}

#[test]
fn gives_way_to_declared_addresses() {
    let mesh = mesh();
    let first = compiled(&mesh);
    let key = first.services[0].key.clone();
    let had = first.assignments.of(&key)[0];
    let mut claimed = mesh.clone();
    claimed.workloads[1].addresses = vec![had];
    let second = compile(&claimed, &Reported::default(), &first.assignments).unwrap();
    assert_ne!(second.assignments.of(&key)[0], had);
    assert!(second.warnings.contains(&Warning::AddressMoved {
        service: key,
        from: had
    }));
}

#[test]
fn small_ranges_fill_up() {
    for (name, range, services, fits) in [
        ("a /30 has two hosts", "192.0.2.0/30", 2, true),
        ("but not three", "192.0.2.0/30", 3, false),
        ("a /32 has one", "192.0.2.7/32", 1, true),
        ("a /31 has two", "192.0.2.6/31", 2, true),
        ("a /126 leaves out its first", "2001:db8::/126", 3, true),
        ("and has no fourth", "2001:db8::/126", 4, false),
        ("host bits are ignored", "192.0.2.3/30", 2, true),
        ("all of IPv6", "::/0", 5, true),
        ("all of IPv4", "0.0.0.0/0", 5, true),
    ] {
        let mut mesh = mesh();
        mesh.settings.service_range = vec![range.parse().unwrap()];
        mesh.services = (0..services).map(|n| service(&format!("s{n}"))).collect();
        let compiled = compile(&mesh, &Reported::default(), &Assignments::default());
        assert_eq!(compiled.is_ok(), fits, "{name}: {compiled:?}");
    }
}

#[test]
fn refuses() {
    let mut twice = mesh();
    twice
        .workloads
        .push(workload("cart-1", "x", "edge-2", "10.9.9.9").into());
    let mut literal = mesh();
    literal.settings.domain = Arc::from("3.4");
    literal.services = vec![service("1")];
    literal.services[0].namespace = Arc::from("2");
    let mut rangeless = mesh();
    rangeless.settings.service_range.clear();
    for (name, mesh, want) in [
        ("one uid twice", twice, "declared twice"),
        (
            "a host name like an address",
            literal,
            "reads as an IP address",
        ),
        ("no range", rangeless, "no service range"),
    ] {
        let error = compile(&mesh, &Reported::default(), &Assignments::default()).unwrap_err();
        assert!(error.to_string().contains(want), "{name}: {error}");
    }
}

#[test]
fn headless_services_have_no_address() {
    let mut mesh = mesh();
    mesh.services[0].headless = true;
    let compiled = compiled(&mesh);
    assert!(compiled.services[0].vips.is_empty());
}

#[test]
fn a_large_mesh_is_linear_work() {
    // 10 million label comparisons in a debug build would be felt here as many seconds.
    let compiled = compiled(&large(10_000, 1_000));
    assert_eq!(compiled.workloads.len(), 10_000);
    assert!(compiled.workloads.iter().all(|w| w.services.len() == 1));
}

proptest! {
    #[test]
    fn assignments_are_unique_in_range_and_stable(
        first in prop::collection::btree_set("[a-e]{1,3}", 0..40),
        second in prop::collection::btree_set("[a-e]{1,3}", 0..40),
    ) {
        let with = |names: &BTreeSet<String>| {
            let mut mesh = mesh();
            mesh.settings.service_range = vec!["198.51.100.0/25".parse().unwrap()];
            mesh.services = names.iter().map(|n| service(n)).collect();
            mesh
        };
        let before = compiled(&with(&first));
        let mesh = with(&second);
        let after = compile(&mesh, &Reported::default(), &before.assignments).unwrap();
        let all: Vec<IpAddr> = after.assignments.iter().flat_map(|(_, a)| a.to_vec()).collect();
        prop_assert_eq!(all.len(), second.len());
        prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        prop_assert!(all.iter().all(|a| mesh.settings.service_range[0].contains(a)));
        for (key, addresses) in after.assignments.iter() {
            let had = before.assignments.of(key);
            prop_assert!(had.is_empty() || had == addresses);
        }
    }
}
