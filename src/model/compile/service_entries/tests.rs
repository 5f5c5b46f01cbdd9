use super::super::sample::outside::{endpoint, entry};
use super::super::sample::{gateway, labels, mesh, namespace, using};
use super::super::{Assignments, Compiled, Reported, compile, recompile};
use super::*;
use crate::model::declaration::WaypointFor;
use crate::model::service::{AppProtocol, ServicePort};

fn compiled(entries: Vec<ServiceEntry>) -> Compiled {
    let mut mesh = mesh();
    mesh.gateways = vec![gateway("wp", WaypointFor::Service)];
    mesh.service_entries = entries;
    compile(&mesh, &Reported::default(), &Assignments::default()).unwrap()
}

fn service<'a>(compiled: &'a Compiled, host: &str) -> Option<&'a Arc<Service>> {
    compiled.services.iter().find(|s| &*s.key.hostname == host)
}

/// Endpoints of a host: uid, address or name, and the port mapped.
fn endpoints(compiled: &Compiled, host: &str) -> Vec<(String, String, Vec<PortMapping>)> {
    let of_host = |w: &&Arc<Workload>| w.services.keys().any(|key| &*key.hostname == host);
    let workloads = compiled.workloads.iter().filter(of_host);
    let told = workloads.map(|w| {
        assert_eq!(
            (w.tunnel, w.network_mode),
            (TunnelProtocol::None, NetworkMode::HostNetwork)
        );
        let at = w
            .addresses
            .first()
            .map_or_else(|| w.hostname.to_string(), ToString::to_string);
        let mapped = w.services.values().next().unwrap().clone();
        (w.uid.to_string(), at, mapped)
    });
    told.collect()
}

fn uid(rest: &str) -> String {
    format!("Kubernetes/networking.istio.io/ServiceEntry/shop/{rest}")
}

#[test]
fn each_host_is_a_service() {
    let mut shown = entry("ext", &["a.example", "b.example"], Resolution::Dns);
    shown.export_to = ExportTo::Own;
    shown.use_waypoint = using("wp");
    let compiled = compiled(vec![shown]);
    let (a, b) = (
        service(&compiled, "a.example"),
        service(&compiled, "b.example"),
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.key.to_string(), "shop/a.example");
    let port = ServicePort {
        service_port: 443,
        target_port: 8443,
        app_protocol: AppProtocol::Tls,
    };
    assert_eq!(a.ports, [port]);
    assert_eq!(a.visibility, Visibility::Namespace);
    assert_eq!(*a.subject_alt_names, [Arc::from("spiffe://x/y")]);
    assert!(a.waypoint.is_some() && b.waypoint == a.waypoint);
    assert_eq!(a.vips.len(), 2, "one of each family: {:?}", a.vips);
    assert_ne!(a.vips, b.vips);
}

#[test]
fn endpoints_are_found_as_it_says() {
    let mut listed = entry("listed", &["a.example"], Resolution::Static);
    listed.endpoints = vec![endpoint("192.0.2.1"), endpoint("2001:db8::1")];
    listed.endpoints[0].external.ports = BTreeMap::from([(443, 9443)]);
    listed.endpoints[0].external.weight = 3;
    let mut named = entry("named", &["b.example"], Resolution::Dns);
    named.endpoints = vec![endpoint("origin.example"), endpoint("192.0.2.2")];
    let mut selecting = entry("selecting", &["d.example"], Resolution::Static);
    selecting.selector = labels(&[("app", "cart")]);
    let mut asked = entry("asked", &["e.example"], Resolution::None);
    asked.addresses = vec![
        "192.0.2.9/32".parse().unwrap(),
        "198.51.100.0/24".parse().unwrap(),
    ];
    let implied = entry("implied", &["c.example"], Resolution::DnsRoundRobin);
    let compiled = compiled(vec![listed, named, implied, selecting, asked]);
    let own = PortMapping {
        service_port: 443,
        target_port: 9443,
    };
    let told = |name: &str, at: &str, ports: Vec<PortMapping>| {
        (uid(&format!("{name}/{at}")), at.to_owned(), ports)
    };
    for (host, want) in [
        (
            "a.example",
            vec![
                told("listed", "192.0.2.1", vec![own]),
                told("listed", "2001:db8::1", vec![]),
            ],
        ),
        (
            "b.example",
            vec![
                told("named", "192.0.2.2", vec![]),
                told("named", "origin.example", vec![]),
            ],
        ),
        ("c.example", vec![told("implied", "c.example", vec![])]),
        ("e.example", vec![]),
    ] {
        assert_eq!(endpoints(&compiled, host), want, "{host}");
    }
    let cart = compiled
        .workloads
        .iter()
        .find(|w| &*w.name == "cart-1")
        .unwrap();
    assert!(
        cart.services
            .keys()
            .any(|key| &*key.hostname == "d.example")
    );
    let asked = service(&compiled, "e.example").unwrap();
    assert_eq!(asked.load_balancing.mode, BalanceMode::Passthrough);
    assert_eq!(
        asked.vips.len(),
        1,
        "its own, and no other: {:?}",
        asked.vips
    );
    let heavy = compiled.workloads.iter().find(|w| w.capacity == 3);
    assert_eq!(heavy.unwrap().addresses[0].to_string(), "192.0.2.1");
}

#[test]
fn a_wildcard_is_in_force_behind_a_waypoint_alone() {
    for (name, waypoint, there) in [
        ("behind one", using("wp"), true),
        ("behind none", None, false),
        ("behind one that is not there", using("other"), true),
    ] {
        let mut entry = entry("any", &["*.ext.example"], Resolution::DynamicDns);
        entry.use_waypoint = waypoint;
        let compiled = compiled(vec![entry]);
        assert_eq!(
            service(&compiled, "*.ext.example").is_some(),
            there,
            "{name}"
        );
    }
}

#[test]
fn what_is_outside_is_reached_from_every_network() {
    let mut mesh = mesh();
    let mut far = namespace("far");
    far.name = Arc::from("far");
    mesh.namespaces.insert(Arc::from("far"), far);
    let mut web = crate::model::declaration::Workload::clone(&mesh.workloads[1]);
    web.network = Arc::from("net-2");
    mesh.workloads[1] = web.into();
    let mut listed = entry("listed", &["a.example"], Resolution::Static);
    listed.endpoints = vec![endpoint("192.0.2.1")];
    mesh.service_entries = vec![listed];
    let before = compile(&mesh, &Reported::default(), &Assignments::default()).unwrap();
    let uids: Vec<_> = endpoints(&before, "a.example")
        .into_iter()
        .map(|e| e.0)
        .collect();
    assert_eq!(
        uids,
        [uid("listed/192.0.2.1"), uid("listed/192.0.2.1/net-2")]
    );
    // Nobody is there any more.
    mesh.workloads.pop();
    let reported = Reported::default();
    let again = recompile(&mesh, &reported, &before.assignments, &before).unwrap();
    let fresh = compile(&mesh, &reported, &before.assignments).unwrap();
    assert_eq!(again.workloads, fresh.workloads);
    assert_eq!(again.endpoints, fresh.endpoints);
    assert_eq!(again.services, fresh.services);
}

#[test]
fn a_change_of_workloads_leaves_the_outside_alone() {
    let mut mesh = mesh();
    let mut listed = entry("listed", &["a.example"], Resolution::Static);
    listed.endpoints = vec![endpoint("192.0.2.1")];
    mesh.service_entries = vec![listed];
    let reported = Reported::default();
    let before = compile(&mesh, &reported, &Assignments::default()).unwrap();
    mesh.workloads.pop();
    let again = recompile(&mesh, &reported, &before.assignments, &before).unwrap();
    let outside = |compiled: &Compiled| {
        let mut all = compiled.workloads.iter();
        Arc::clone(all.find(|w| w.uid.contains("ServiceEntry")).unwrap())
    };
    assert!(Arc::ptr_eq(&outside(&before), &outside(&again)));
    let fresh = compile(&mesh, &reported, &before.assignments).unwrap();
    assert_eq!(again, fresh);
}

#[test]
fn nobody_is_assigned_an_address_of_an_entry() {
    let mut mesh = mesh();
    mesh.settings.service_range = vec!["240.240.0.0/30".parse().unwrap()];
    mesh.services.truncate(1);
    let mut asked = entry("asked", &["e.example"], Resolution::None);
    // Where the hash of the service's name leads.
    asked.addresses = vec!["240.240.0.2/32".parse().unwrap()];
    mesh.service_entries = vec![asked];
    let compiled = compile(&mesh, &Reported::default(), &Assignments::default()).unwrap();
    let vip = &service(&compiled, "cart.shop.mesh.internal").unwrap().vips[0];
    assert_eq!(vip.address.to_string(), "240.240.0.1");
}
