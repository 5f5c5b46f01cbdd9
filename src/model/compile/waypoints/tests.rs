//! From routes as they are written to what a waypoint is told: vectors 7 to 9, 17, 19 and 20 of
//! `spec/waypoint-l7.md` §11 as far as they are about attachment.

mod delegates;
mod extensions;
mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use super::super::sample::outside::{endpoint, entry};
use super::super::sample::routes::{at, backend, http, route};
use super::super::sample::{gateway, labels, mesh, namespace, node, service, using, workload};
use super::super::{Assignments, Compiled, Observed, Reported, compile, recompile, workload_uid};
use super::*;
use crate::model::declaration::{
    Attachment, Canary, DestinationRule, ExportTo, ParentKind, Port, RateLimit, ServiceEntry,
    SubsetLabels, TargetKind, TargetRef, WaypointFor,
};
use crate::model::limit;
use crate::model::route::{Kind, Match, Mirror, RouteKey, TlsSelection, TlsTable};
use crate::model::service::AppProtocol;
use crate::model::traffic::TrafficPolicy;
use crate::model::waypoint::{BoundPort, Resolution, TrafficKey};
use crate::model::workload::Health;

fn port(port: u16, app_protocol: AppProtocol) -> Port {
    Port {
        name: None,
        port,
        target_port: port,
        app_protocol,
    }
}

/// §11: `echo` with ports 80 and 9000 for HTTP, 90 for TCP, 8443 for TLS, and backends `v1` and `v2`,
/// all behind `shop/wp`.
fn shop(routes: Vec<declaration::Route>) -> Mesh {
    let mut mesh = mesh();
    mesh.nodes.insert(Arc::from("edge-3"), node("edge-3"));
    mesh.namespaces
        .insert(Arc::from("other"), namespace("other"));
    mesh.gateways = vec![gateway("wp", WaypointFor::Service)];
    mesh.services = vec![service("echo"), service("v1"), service("v2")];
    mesh.services[0].ports = vec![
        port(80, AppProtocol::Http11),
        port(9000, AppProtocol::Http11),
        port(90, AppProtocol::Tcp),
        port(8443, AppProtocol::Tls),
        port(7000, AppProtocol::Unknown),
    ];
    mesh.namespaces.get_mut("shop").unwrap().use_waypoint = using("wp");
    mesh.routes = routes;
    mesh
}

fn compiled(mesh: &Mesh) -> Compiled {
    compile(mesh, &Reported::default(), &Assignments::default()).unwrap()
}

fn told(compiled: &Compiled) -> &Arc<Resources> {
    &compiled.waypoints[&"shop/wp".parse().unwrap()]
}

fn key(name: &str) -> ServiceKey {
    let namespace = Arc::from("shop");
    super::super::service_key(name, &namespace, "mesh.internal")
}

/// `own | general` of a port of `echo`.
fn lists(told: &Resources, number: u16) -> String {
    let mut ports = told.services[&key("echo")].ports.iter();
    let port: &BoundPort = ports.find(|p| p.port == number).unwrap();
    let names = |routes: &[RouteKey]| {
        let names: Vec<&str> = routes.iter().map(|r| &*r.name).collect();
        names.join(" ")
    };
    format!("{} | {}", names(&port.routes), names(&port.general))
}

#[test]
fn routes_are_attached_where_they_belong_and_in_order() {
    let other = |mut route: declaration::Route| {
        route.key.namespace = Arc::from("other");
        route
    };
    let virtual_service = |name, line, host| route(Kind::VirtualService, name, line, host, &["v1"]);
    const ECHO: &str = "echo.shop.mesh.internal";
    for (name, routes, want) in [
        (
            "8: the port's own list beside that for all",
            vec![
                http("a", 1, "echo:80", &["v1:80"]),
                http("b", 2, "echo", &["v1:80"]),
            ],
            ["a | b", " | b", " | ", " | "],
        ),
        (
            "9: a consumer's route is of no account",
            vec![other(http("a", 1, "echo", &["v1:80"]))],
            [" | ", " | ", " | ", " | "],
        ),
        (
            "7: one of another service",
            vec![http("a", 1, "v1", &["v1:80"])],
            [" | ", " | ", " | ", " | "],
        ),
        (
            "17: the older comes first, whatever its name",
            vec![
                http("a", 2, "echo", &["v2:80"]),
                http("b", 1, "echo", &["v1:80"]),
            ],
            [" | b a", " | b a", " | ", " | "],
        ),
        (
            "one kind holds on a port, in both lists",
            vec![
                http("h", 1, "echo:80", &["v1:80"]),
                route(Kind::Grpc, "g", 2, "echo", &["v1:80"]),
                http("i", 3, "echo:9000", &["v1:80"]),
            ],
            [" | g", " | g", " | ", " | "],
        ),
        (
            "a kind that is not spoken there is no kind",
            vec![
                http("h", 1, "echo", &["v1:80"]),
                route(Kind::Tcp, "t", 2, "echo", &["v1:80"]),
            ],
            [" | h", " | h", " | t", " | t"],
        ),
        (
            "what no server name is of goes on to the tcp-routes",
            vec![
                route(Kind::Tcp, "t", 1, "echo", &["v1:80"]),
                route(Kind::Tls, "s", 2, "echo:8443", &["v1:80"]),
            ],
            [" | ", " | ", " | t", "s | t"],
        ),
        (
            "virtual services come last, by the names they are for",
            vec![
                virtual_service("exact", 3, ECHO),
                virtual_service("wild", 2, "*.shop.mesh.internal"),
                virtual_service("elsewhere", 1, "v1.shop.mesh.internal"),
                http("h", 4, "echo:80", &["v1:80"]),
            ],
            ["h | wild exact", " | wild exact", " | ", " | "],
        ),
        (
            "a virtual service of a consumer",
            vec![other(virtual_service("a", 1, "*"))],
            [" | ", " | ", " | ", " | "],
        ),
    ] {
        let compiled = compiled(&shop(routes));
        let told = told(&compiled);
        let got = [80, 9000, 90, 8443].map(|port| lists(told, port));
        assert_eq!(got, want, "{name}");
        // Every route that is named is there, and no other.
        let ports = told.services.values().flat_map(|s| &s.ports);
        let named = ports.flat_map(|p| p.routes.iter().chain(&p.general));
        let named: BTreeSet<_> = named.collect();
        assert_eq!(named, told.routes.keys().collect(), "{name}");
    }
}

#[test]
fn a_route_of_the_waypoints_namespace_is_a_producers() {
    let mut mesh = shop(vec![http("a", 1, "echo", &["v1:80"])]);
    mesh.routes[0].key.namespace = Arc::from("other");
    mesh.gateways[0].namespace = Arc::from("other");
    mesh.gateways[0].allowed_routes = declaration::AllowedRoutes::All;
    mesh.namespaces.get_mut("shop").unwrap().use_waypoint = using("other/wp");
    let compiled = compiled(&mesh);
    let told = &compiled.waypoints[&"other/wp".parse().unwrap()];
    assert_eq!(lists(told, 80), " | a");
}

#[test]
fn a_port_of_unknown_protocol_takes_the_first_kind_there_is() {
    let tcp = || route(Kind::Tcp, "t", 1, "echo", &["v1:80"]);
    let alone = compiled(&shop(vec![tcp()]));
    assert_eq!(lists(told(&alone), 7000), " | t");
    let beside = compiled(&shop(vec![tcp(), http("h", 2, "echo", &["v1:80"])]));
    assert_eq!(lists(told(&beside), 7000), " | h");
}

#[test]
fn backends_are_who_is_meant_or_nobody() {
    let to = |name: &str, port: u16| Target::Service {
        key: key(name),
        port,
        subset: None,
    };
    let nobody = |why: &str| Target::Invalid(Arc::from(why));
    for (name, written, want) in [
        ("20: there", "v1:80", to("v1", 80)),
        (
            "19: missing",
            "v9:80",
            nobody("there is no service shop/v9"),
        ),
        (
            "19: of an unknown kind",
            "NonExistent=v1:80",
            nobody("nothing of kind `NonExistent` can be a backend"),
        ),
        (
            "no such port",
            "v1:81",
            nobody("shop/v1.shop.mesh.internal declares no port 81"),
        ),
        (
            "another namespace",
            "other/v1:80",
            nobody("there is no service other/v1"),
        ),
        ("a host name", "host=v1.shop.mesh.internal:80", to("v1", 80)),
        ("a short one", "host=v1:80", to("v1", 80)),
        ("with its namespace", "host=v1.shop:80", to("v1", 80)),
        ("whatever its case", "host=V1.shop:80", to("v1", 80)),
        (
            "nobody's",
            "host=v1.example:80",
            nobody("no service has the host name v1.example"),
        ),
        ("the only port", "host=v1", to("v1", 80)),
        ("the port that is asked for", "host=echo", to("echo", 0)),
        (
            "a subset of nobody's",
            "host=v1:80#blue",
            nobody("shop/v1.shop.mesh.internal has no subset blue"),
        ),
    ] {
        let compiled = compiled(&shop(vec![http("a", 1, "echo", &[written])]));
        let route = told(&compiled).routes.values().next().unwrap();
        assert_eq!(route.rules[0].backends[0].to, want, "{name}");
    }
    let none = compiled(&shop(vec![http("a", 1, "echo", &[])]));
    let route = told(&none).routes.values().next().unwrap();
    assert!(route.rules[0].backends.is_empty(), "19: no backends");
}

#[test]
fn what_is_only_a_backend_is_told_of_too() {
    let mut mesh = shop(vec![http("a", 1, "echo", &["v1:80"])]);
    let mirror = Filter::Mirror(Mirror {
        to: backend("v2:80"),
        share: crate::model::route::Fraction::ALL,
    });
    mesh.routes[0].rules[0].filters = vec![mirror];
    mesh.namespaces.get_mut("shop").unwrap().use_waypoint = None;
    mesh.services[0].use_waypoint = using("wp");
    let compiled = compiled(&mesh);
    let services = told(&compiled).services.values();
    let bound: Vec<_> = services.map(|s| (s.key.clone(), s.bound)).collect();
    assert_eq!(
        bound,
        [(key("echo"), true), (key("v1"), false), (key("v2"), false)]
    );
    let v1 = &told(&compiled).services[&key("v1")];
    assert!(!v1.addresses.is_empty() && v1.ports[0].general.is_empty());
}

#[test]
fn a_canary_is_told_the_same() {
    let mut mesh = shop(vec![http("a", 1, "echo", &["v1:80"])]);
    mesh.gateways.push(gateway("canary", WaypointFor::Service));
    mesh.services[0].canary.waypoint = using("canary");
    let compiled = compiled(&mesh);
    let canary = &compiled.waypoints[&"shop/canary".parse().unwrap()];
    assert_eq!(lists(canary, 80), lists(told(&compiled), 80));
    assert!(!canary.services[&key("v1")].bound);
}

#[test]
fn a_waypoint_is_told_what_the_mesh_says_of_all() {
    let mut mesh = shop(Vec::new());
    let options = |mesh: &Mesh| {
        let gateway = told(&compiled(mesh)).gateway.clone();
        gateway.unwrap().options.clone()
    };
    let usual = Options {
        // There is always somebody to tell.
        telemetry: options(&mesh).telemetry,
        ..Options::default()
    };
    assert_eq!(options(&mesh), usual);
    mesh.settings.retry.attempts = 7;
    mesh.settings.locality.enabled = false;
    let told = options(&mesh);
    assert_eq!(told.default_retry, mesh.settings.retry);
    assert_eq!(told.locality, mesh.settings.locality);
}

#[test]
fn the_server_names_of_a_tls_route() {
    for (name, hosts, want) in [
        (
            "its own",
            vec!["a.example", "*.b.example"],
            vec!["*.b.example", "a.example"],
        ),
        ("each parent's own", vec![], vec![]),
    ] {
        let mut tls = route(Kind::Tls, "s", 1, "echo", &["v1:80"]);
        tls.hosts = hosts.into_iter().map(Arc::from).collect();
        let compiled = compiled(&shop(vec![tls]));
        let route = told(&compiled).routes.values().next().unwrap();
        let names: Vec<&str> = route.server_names.iter().map(|n| &**n).collect();
        assert_eq!(names, want, "{name}");
    }
}

#[test]
fn a_tls_route_with_two_parents_is_for_each_one_s_own_name() {
    let mut tls = route(Kind::Tls, "s", 1, "echo:8443", &["v1:80"]);
    let mut second = tls.parents[0].clone();
    second.name = Arc::from("v2");
    tls.parents.push(second);
    let mut mesh = shop(vec![tls]);
    mesh.services[2].ports = vec![port(8443, AppProtocol::Tls)];
    let compiled = compiled(&mesh);
    let told = told(&compiled);
    for (parent, asked, taken) in [
        ("echo", "echo", true),
        ("echo", "v2", false),
        ("v2", "v2", true),
        ("v2", "echo", false),
    ] {
        let binding = &told.services[&key(parent)];
        let mut ports = binding.ports.iter();
        let port = ports.find(|port| port.port == 8443).unwrap();
        let table = TlsTable::new(told, &binding.key.hostname, port).unwrap();
        let got = table.select(Some(&key(asked).hostname));
        let rule = matches!(got, TlsSelection::Rule(_));
        assert_eq!(rule, taken, "{asked} at {parent}");
    }
}

fn destination(namespace: &str, name: &str, line: u32, host: &str) -> DestinationRule {
    DestinationRule {
        origin: at(line),
        name: Arc::from(name),
        namespace: Arc::from(namespace),
        host: Arc::from(host),
        traffic: TrafficPolicy::default(),
        subsets: Vec::new(),
    }
}

#[test]
fn the_destination_rule_that_holds() {
    const ECHO: &str = "echo.shop.mesh.internal";
    let d = destination;
    for (name, rules, want) in [
        ("none", vec![], None),
        (
            "for another",
            vec![d("shop", "a", 1, "v1.shop.mesh.internal")],
            None,
        ),
        (
            "of a namespace that has no say",
            vec![d("other", "a", 1, ECHO)],
            None,
        ),
        (
            "the namespace before the root",
            vec![d("istio-system", "a", 1, ECHO), d("shop", "b", 2, "*")],
            Some("b"),
        ),
        ("the root", vec![d("istio-system", "a", 1, ECHO)], Some("a")),
        (
            "exact before wildcard, the longer before the shorter",
            vec![d("shop", "a", 1, "*"), d("shop", "b", 2, "*.mesh.internal")],
            Some("b"),
        ),
        (
            "exact before wildcard",
            vec![
                d("shop", "a", 1, "*.shop.mesh.internal"),
                d("shop", "b", 2, ECHO),
            ],
            Some("b"),
        ),
        (
            "the older of two alike",
            vec![d("shop", "a", 2, ECHO), d("shop", "b", 1, ECHO)],
            Some("b"),
        ),
    ] {
        let mut mesh = shop(Vec::new());
        mesh.destination_rules = rules;
        let compiled = compiled(&mesh);
        let told = told(&compiled);
        let holding = told.services[&key("echo")].traffic.as_ref();
        assert_eq!(holding.map(|key| &*key.name), want, "{name}");
        assert!(
            holding.is_none_or(|key| told.traffic.contains_key(key)),
            "{name}"
        );
    }
}

/// `echo-1` of version v1 and `echo-2` of v2, and a destination rule with both as subsets.
fn split() -> Mesh {
    let mut mesh = shop(vec![http("a", 1, "echo", &["host=echo:80#v1"])]);
    mesh.workloads = ["v1", "v2"]
        .iter()
        .enumerate()
        .map(|(n, version)| {
            let name = format!("echo-{}", n + 1);
            let mut one = workload(&name, "echo", "edge-1", &format!("10.1.0.{}", 20 + n));
            one.labels
                .insert("version".to_owned(), (*version).to_owned());
            one.into()
        })
        .collect();
    let mut rule = destination("shop", "split", 1, "echo.shop.mesh.internal");
    let subset = |name: &str, traffic| SubsetLabels {
        name: Arc::from(name),
        labels: labels(&[("version", name)]),
        traffic,
    };
    rule.subsets = vec![
        subset("v1", Some(TrafficPolicy::default())),
        subset("v2", None),
    ];
    mesh.destination_rules = vec![rule];
    mesh
}

#[test]
fn subsets_are_workloads_by_their_labels() {
    let compiled = compiled(&split());
    let told = told(&compiled);
    let echo = &told.services[&key("echo")];
    let uid = |name| workload_uid("Kubernetes", "shop", name);
    assert_eq!(echo.subsets[0].uids, [uid("echo-1")]);
    assert_eq!(echo.subsets[1].uids, [uid("echo-2")]);
    let named = |subset: &str| TrafficKey {
        namespace: Arc::from("shop"),
        name: Arc::from("split"),
        subset: Arc::from(subset),
    };
    assert_eq!(echo.traffic, Some(named("")));
    assert_eq!(echo.subsets[0].traffic, Some(named("v1")));
    assert_eq!(echo.subsets[1].traffic, None);
    assert!(told.traffic.keys().eq([&named(""), &named("v1")]));
    let route = told.routes.values().next().unwrap();
    let Target::Service { subset, .. } = &route.rules[0].backends[0].to else {
        panic!("{route:?}");
    };
    assert_eq!(subset.as_deref(), Some("v1"));
}

#[test]
fn subsets_have_endpoints_outside_as_each_network_has_them() {
    let labelled = |address: &str, version: &str| {
        let mut endpoint = endpoint(address);
        endpoint.labels = labels(&[("version", version)]);
        endpoint
    };
    let mut listed = entry("listed", &["a.example"], Resolution::Static);
    listed.endpoints = vec![labelled("192.0.2.1", "v1"), labelled("192.0.2.2", "v2")];
    let looked_up = entry("looked-up", &["b.example", "c.example"], Resolution::Dns);
    let mut rule = destination("shop", "all", 1, "*");
    let subset = |name: &str, of: &[(&str, &str)]| SubsetLabels {
        name: Arc::from(name),
        labels: labels(of),
        traffic: None,
    };
    rule.subsets = vec![subset("v1", &[("version", "v1")]), subset("all", &[])];
    let mut mesh = shop(Vec::new());
    mesh.service_entries = vec![listed, looked_up];
    mesh.destination_rules = vec![rule];
    let far = |network: &str| {
        let mut far = workload("far", "far", "edge-1", "10.1.0.97");
        far.network = Arc::from(network);
        far
    };
    let home = compiled(&mesh);
    mesh.workloads.push(far("net-2").into());
    let spread = recompile(&mesh, &Reported::default(), &home.assignments, &home).unwrap();
    for (name, compiled, host, subset, want) in [
        ("its own", &home, "a.example", 0, &["listed/192.0.2.1"][..]),
        (
            "all",
            &home,
            "a.example",
            1,
            &["listed/192.0.2.1", "listed/192.0.2.2"],
        ),
        (
            "the host itself",
            &home,
            "c.example",
            1,
            &["looked-up/c.example"],
        ),
        ("which carries nothing", &home, "c.example", 0, &[]),
        (
            "on each network",
            &spread,
            "a.example",
            0,
            &["listed/192.0.2.1", "listed/192.0.2.1/net-2"],
        ),
        (
            "the host itself, likewise",
            &spread,
            "b.example",
            1,
            &["looked-up/b.example", "looked-up/b.example/net-2"],
        ),
    ] {
        let key = ServiceKey {
            namespace: Arc::from("shop"),
            hostname: Arc::from(host),
        };
        let uids = &told(compiled).services[&key].subsets[subset].uids;
        let of_shop = "Kubernetes/networking.istio.io/ServiceEntry/shop";
        let want: Vec<_> = want.iter().map(|w| format!("{of_shop}/{w}")).collect();
        assert!(uids.iter().map(|uid| &**uid).eq(&want), "{name}: {uids:?}");
        let known = |uid: &Arc<str>| compiled.workloads.iter().any(|w| w.uid == *uid);
        assert!(uids.iter().all(known), "{name}: somebody has each of them");
    }
}

#[test]
fn a_service_entry_is_a_service_with_endpoints_elsewhere() {
    let mut mesh = shop(vec![http("a", 1, "ext", &["host=api.example:443"])]);
    mesh.routes[0].parents[0].kind = ParentKind::ServiceEntry;
    mesh.service_entries = vec![ServiceEntry {
        origin: at(5),
        name: Arc::from("ext"),
        namespace: Arc::from("shop"),
        hosts: vec![Arc::from("api.example")],
        addresses: vec![
            "192.0.2.7/32".parse().unwrap(),
            "198.51.100.0/24".parse().unwrap(),
        ],
        ports: vec![
            port(80, AppProtocol::Http11),
            port(443, AppProtocol::Http11),
        ],
        resolution: Resolution::Dns,
        endpoints: Vec::new(),
        selector: BTreeMap::new(),
        subject_alt_names: vec![Arc::from("api.example")],
        export_to: ExportTo::Own,
        use_waypoint: using("wp"),
        canary: Canary::default(),
        ingress_use_waypoint: None,
        labels: BTreeMap::new(),
    }];
    let compiled = compiled(&mesh);
    let told = told(&compiled);
    let key = ServiceKey {
        namespace: Arc::from("shop"),
        hostname: Arc::from("api.example"),
    };
    let entry = &told.services[&key];
    assert_eq!(entry.ports[0].general.len(), 1);
    assert_eq!(entry.addresses[0].address.to_string(), "192.0.2.7");
    let external = entry.external.as_ref().unwrap();
    assert_eq!(external.ranges.len(), 1);
    let route = told.routes.values().next().unwrap();
    let there = Target::Service {
        key,
        port: 443,
        subset: None,
    };
    assert_eq!(route.rules[0].backends[0].to, there);
    // Whoever is not of its namespace does not know it.
    mesh.routes[0].rules[0].backends[0].to.namespace = Arc::from("other");
    let compiled = self::compiled(&mesh);
    let route = self::told(&compiled).routes.values().next().unwrap();
    assert!(matches!(route.rules[0].backends[0].to, Target::Invalid(_)));
}

#[test]
fn workloads_come_and_go_behind_a_waypoint_that_is_not_told() {
    let mut mesh = shop(Vec::new());
    mesh.gateways[0].waypoint_for = WaypointFor::All;
    let before = compiled(&mesh);
    assert_eq!(told(&before).gateway.as_ref().unwrap().hbone_port, 15008);
    mesh.workloads.pop();
    let none = Reported::default();
    let again = recompile(&mesh, &none, &before.assignments, &before).unwrap();
    assert!(Arc::ptr_eq(told(&again), told(&before)));
    let fresh = compile(&mesh, &none, &before.assignments).unwrap();
    assert_eq!(told(&fresh), told(&before));
}

fn rate_limit(name: &str, line: u32, kind: TargetKind, target: &str) -> RateLimit {
    let target = TargetRef {
        kind,
        name: Arc::from(target),
    };
    RateLimit {
        origin: declaration::Origin {
            file: Arc::from("shop.toml"),
            line,
        },
        name: Arc::from(name),
        namespace: Arc::from("shop"),
        attachment: Attachment::Targets(vec![target]),
        rules: vec![limit::Rule {
            line,
            matches: vec![Match::default()],
            by: limit::Key::None,
            rate: limit::Rate::new(1, Duration::from_secs(1), 1).unwrap(),
        }],
    }
}

#[test]
fn limits_are_attached_where_they_belong_and_in_order() {
    let mut mesh = shop(Vec::new());
    mesh.rate_limits = vec![
        rate_limit("b", 2, TargetKind::Gateway, "wp"),
        rate_limit("a", 1, TargetKind::Service, "echo"),
        rate_limit("c", 3, TargetKind::Service, "nobody"),
    ];
    let compiled = compiled(&mesh);
    let told = told(&compiled);
    let names = |set: &AttachedSet| {
        let names: Vec<&str> = set.limits.iter().map(|key| &*key.name).collect();
        names.join(" ")
    };
    let of = |service: &str| names(&told.services[&key(service)].set);
    assert_eq!([of("echo"), of("v1")], ["a b", "b"]);
    let gateway = told.gateway.as_ref().unwrap();
    assert_eq!(names(&gateway.workload_set), "b");
    let known: Vec<&str> = told.limits.keys().map(|key| &*key.name).collect();
    assert_eq!(known, ["a", "b"], "what is attached nowhere is not told");
    let rules = told.limits.values().map(|limit| limit.rules[0].line);
    assert!(rules.eq([1, 2]));
}

#[test]
fn a_limit_that_is_named_and_not_there_is_missing() {
    let mut mesh = shop(Vec::new());
    mesh.rate_limits = vec![rate_limit("a", 1, TargetKind::Service, "echo")];
    let compiled = compiled(&mesh);
    let mut told = Resources::clone(told(&compiled));
    let set = told.services[&key("echo")].set.clone();
    assert_eq!(told.limits_of(&set).unwrap().len(), 1);
    told.limits.clear();
    assert_eq!(told.limits_of(&set).unwrap_err().to_string(), "shop/a");
}

#[test]
fn what_did_not_change_is_the_same_memory() {
    let mesh = split();
    let before = compiled(&mesh);
    let next = |mesh: &Mesh, reported: &Reported| {
        let next = recompile(mesh, reported, &before.assignments, &before).unwrap();
        let anew = compile(mesh, reported, &before.assignments).unwrap();
        assert_eq!(next.waypoints, anew.waypoints);
        next
    };
    let same = |next: &Compiled| Arc::ptr_eq(told(next), told(&before));
    let failing = Observed {
        health: Health::Unhealthy,
        ..Observed::default()
    };
    let uid = workload_uid("Kubernetes", "shop", "echo-1");
    let reported: Reported = [(uid, failing)].into_iter().collect();
    assert!(same(&next(&mesh, &reported)), "who fails is told elsewhere");
    let mut elsewhere = mesh.clone();
    elsewhere
        .workloads
        .push(workload("x", "x", "edge-1", "10.1.0.99").into());
    assert!(same(&next(&elsewhere, &Reported::default())));
    let mut grown = mesh.clone();
    let mut third = workload("echo-3", "echo", "edge-1", "10.1.0.98");
    third.labels.insert("version".to_owned(), "v1".to_owned());
    grown.workloads.push(third.into());
    let after = next(&grown, &Reported::default());
    assert!(!same(&after), "a subset has one more");
    assert_eq!(told(&after).services[&key("echo")].subsets[0].uids.len(), 2);
    let shared = |after: &Compiled| {
        let (a, b) = (told(after), told(&before));
        let v1 = Arc::ptr_eq(&a.services[&key("v1")], &b.services[&key("v1")]);
        let route = Arc::ptr_eq(
            a.routes.values().next().unwrap(),
            b.routes.values().next().unwrap(),
        );
        (v1, route)
    };
    assert_eq!(shared(&after), (true, true));
    let mut rerouted = mesh.clone();
    rerouted.routes[0].rules[0].backends[0].weight = 2;
    assert_eq!(
        shared(&next(&rerouted, &Reported::default())),
        (true, false)
    );
}

#[test]
fn what_became_of_every_route() {
    let other = |mut route: declaration::Route| {
        route.key.namespace = Arc::from("other");
        route
    };
    for (name, written, accepted, resolved) in [
        (
            "in force",
            http("a", 1, "echo", &["v1:80"]),
            "Accepted",
            "ResolvedRefs",
        ),
        (
            "no such parent",
            http("a", 1, "nobody", &[]),
            "NoMatchingParent",
            "ResolvedRefs",
        ),
        (
            "no such port",
            http("a", 1, "echo:81", &[]),
            "NoMatchingParent",
            "ResolvedRefs",
        ),
        (
            "a consumer's",
            other(http("a", 1, "echo", &[])),
            "NotAllowedByListeners",
            "ResolvedRefs",
        ),
        (
            "not spoken there",
            http("a", 1, "echo:90", &[]),
            "UnsupportedProtocol",
            "ResolvedRefs",
        ),
        (
            "another kind is there",
            http("a", 1, "v2", &[]),
            "Conflicted",
            "ResolvedRefs",
        ),
        (
            "behind none",
            http("a", 1, "v1", &[]),
            "AncestorNotBound",
            "ResolvedRefs",
        ),
        (
            "no backend",
            http("a", 1, "echo", &["v9:80"]),
            "Accepted",
            "BackendNotFound",
        ),
        (
            "no kind",
            http("a", 1, "echo", &["Pod=x:80"]),
            "Accepted",
            "InvalidKind",
        ),
        (
            "of a wildcard",
            route(Kind::VirtualService, "a", 1, "*", &[]),
            "Accepted",
            "ResolvedRefs",
        ),
        (
            "of nobody's host",
            route(Kind::VirtualService, "a", 1, "x.example", &[]),
            "NoMatchingParent",
            "ResolvedRefs",
        ),
    ] {
        let grpc = route(Kind::Grpc, "g", 2, "v2", &[]);
        let mut mesh = shop(vec![written, grpc]);
        mesh.services[1].use_waypoint = using("none");
        let surveyed = survey(&mesh);
        let state = &surveyed.routes[0];
        let got = (state.parents[0].accepted.reason, state.resolved.reason);
        assert_eq!(got, (accepted, resolved), "{name}: {state:?}");
        assert_eq!(
            state.parents[0].accepted.status,
            accepted == "Accepted",
            "{name}"
        );
        // What is shown is what waypoints are told.
        let compiled = compiled(&mesh);
        let behind = told(&compiled).services.values().filter(|s| s.bound);
        let behind: Vec<_> = behind.map(|s| (&s.key, &s.ports)).collect();
        let shown = surveyed.services.iter().map(|s| (&s.service, &s.ports));
        assert!(shown.eq(behind.into_iter()), "{name}");
    }
}
