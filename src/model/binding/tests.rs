//! Every combination of labels, waypoints and traffic, against the rules of
//! `spec/labels-and-policy.md` §1.5 written out case by case.

use super::*;
use crate::model::compile::sample::{gateway, labels, mesh, namespace, using};

/// What stands in a `use-waypoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Absent,
    None,
    Ready,
    Missing,
    Denied,
}
use Label::{Absent, Denied, Missing, Ready};

const LABELS: [Label; 5] = [Absent, Label::None, Ready, Missing, Denied];
const FOR: [WaypointFor; 4] = [
    WaypointFor::Service,
    WaypointFor::Workload,
    WaypointFor::All,
    WaypointFor::None,
];

impl Label {
    fn names(self, ready: &str) -> Option<UseWaypoint> {
        match self {
            Absent => None,
            Self::None => using("none"),
            Ready => using(ready),
            Missing => using(&format!("{ready}-gone")),
            Denied => using(&format!("infra/{ready}")),
        }
    }
}

fn told(binding: &Binding<'_>) -> String {
    match binding {
        Binding::None => "none".to_owned(),
        Binding::Bound(Bound {
            waypoint,
            passed_over: Some(own),
            ..
        }) => format!("{} over {}", waypoint.name, own.name),
        Binding::Bound(bound) => bound.waypoint.name.to_string(),
        Binding::Unbound(unbound) => {
            let direct = if unbound.is_direct() { ", direct" } else { "" };
            format!("{} {}{direct}", unbound.named, unbound.reason.as_str())
        }
    }
}

/// The rules of §1.5, case by case.
fn expected(own: (Label, bool), theirs: (Label, bool), traffic: Traffic) -> &'static str {
    match (own, theirs, traffic) {
        ((Label::None, _), _, _) => "none",
        ((Missing, _), _, _) => "shop/own-gone WaypointIsNotReady",
        ((Denied, _), _, _) => "infra/own AttachmentDenied",
        ((Ready, true), _, _) => "own",
        ((Ready, false), (Ready, true), _) => "ns over own",
        ((Ready, false) | (Absent, _), (Missing, _), _) => "shop/ns-gone WaypointIsNotReady",
        ((Ready, false) | (Absent, _), (Denied, _), _) => "infra/ns AttachmentDenied",
        ((Ready, false), _, _) => "shop/own UnsupportedTrafficType",
        ((Absent, _), (Absent | Label::None, _), _) => "none",
        ((Absent, _), (Ready, true), _) => "ns",
        ((Absent, _), (Ready, false), Traffic::Service) => "shop/ns UnsupportedTrafficType, direct",
        ((Absent, _), (Ready, false), Traffic::Workload) => "none",
    }
}

#[test]
fn every_combination_is_bound_as_the_rules_say() {
    let mut mesh = mesh();
    let mut count = 0;
    for theirs in LABELS {
        for of_service in LABELS {
            for of_workload in LABELS {
                for for_ns in FOR {
                    for for_own in FOR {
                        mesh.gateways = vec![gateway("own", for_own), gateway("ns", for_ns)];
                        for refusing in ["own", "ns"] {
                            let mut refusing = gateway(refusing, WaypointFor::All);
                            refusing.namespace = Arc::from("infra");
                            mesh.gateways.push(refusing);
                        }
                        let shop = mesh.namespaces.get_mut("shop").unwrap();
                        shop.use_waypoint = theirs.names("ns");
                        mesh.services[0].use_waypoint = of_service.names("own");
                        let mut cart = declaration::Workload::clone(&mesh.workloads[0]);
                        cart.use_waypoint = of_workload.names("own");
                        let waypoints = Waypoints::new(&mesh);
                        for (object, own) in [
                            (Bindable::from(&mesh.services[0]), of_service),
                            (Bindable::from(&cart), of_workload),
                        ] {
                            let traffic = object.traffic;
                            let takes = |g: WaypointFor| g.takes(traffic);
                            let want =
                                expected((own, takes(for_own)), (theirs, takes(for_ns)), traffic);
                            let got = told(&waypoints.bind(object));
                            assert_eq!(
                                got, want,
                                "{traffic:?} {own:?} for {for_own:?}, namespace {theirs:?} for {for_ns:?}"
                            );
                            count += 1;
                        }
                    }
                }
            }
        }
    }
    // Labels of namespace, service and workload; what the two waypoints are for; both kinds of traffic.
    assert_eq!(count, 5 * 5 * 5 * 4 * 4 * 2);
}

#[test]
fn what_only_its_namespace_sees_has_a_waypoint_of_its_namespace() {
    let mut mesh = mesh();
    let mut elsewhere = gateway("wp", WaypointFor::All);
    elsewhere.namespace = Arc::from("infra");
    elsewhere.allowed_routes = AllowedRoutes::All;
    mesh.gateways = vec![elsewhere, gateway("wp", WaypointFor::All)];
    for (waypoint, private, want) in [
        ("wp", true, "wp"),
        ("infra/wp", false, "wp"),
        ("infra/wp", true, "infra/wp CrossNamespaceWaypointForbidden"),
    ] {
        mesh.services[0].use_waypoint = using(waypoint);
        let waypoints = Waypoints::new(&mesh);
        let object = Bindable {
            private,
            ..Bindable::from(&mesh.services[0])
        };
        assert_eq!(told(&waypoints.bind(object)), want, "{waypoint} {private}");
    }
}

#[test]
fn listeners_say_which_namespaces_are_admitted() {
    let team = |value| AllowedRoutes::Labels(labels(&[("team", value)]));
    let called = |name| AllowedRoutes::Labels(labels(&[(NAME_LABEL, name)]));
    for (name, allowed, want) in [
        ("the same", AllowedRoutes::Same, "AttachmentDenied"),
        ("all", AllowedRoutes::All, "wp"),
        ("nobody", AllowedRoutes::Nobody, "AttachmentDenied"),
        ("its label", team("a"), "wp"),
        ("another label", team("b"), "AttachmentDenied"),
        (
            "no label in particular",
            AllowedRoutes::Labels(labels(&[])),
            "wp",
        ),
        ("its name", called("shop"), "wp"),
        ("another name", called("shops"), "AttachmentDenied"),
    ] {
        let mut mesh = mesh();
        let mut infra = gateway("wp", WaypointFor::Service);
        infra.namespace = Arc::from("infra");
        infra.allowed_routes = allowed;
        mesh.gateways = vec![infra];
        mesh.services[0].use_waypoint = using("infra/wp");
        let mut shop = namespace("shop");
        shop.labels = labels(&[("team", "a")]);
        mesh.namespaces.insert(Arc::from("shop"), shop);
        let waypoints = Waypoints::new(&mesh);
        let got = told(&waypoints.bind(Bindable::from(&mesh.services[0])));
        assert!(got.ends_with(want), "{name}: {got}");
    }
}

/// What a canary comes to, for `cart` bound to `shop/wp`.
fn canary(mesh: &Mesh) -> String {
    let waypoints = Waypoints::new(mesh);
    match waypoints.bind(Bindable::from(&mesh.services[0])) {
        Binding::Bound(bound) => match bound.canary {
            CanaryOutcome::None => "none".to_owned(),
            CanaryOutcome::Shares(canary, weight) => format!("{} {weight}", canary.name),
            CanaryOutcome::LeftOut { fault, .. } => fault.as_str().to_owned(),
        },
        other => told(&other),
    }
}

#[test]
fn canaries_come_from_the_object_or_its_namespace() {
    let percent = |weight| Some(CanaryWeight::Percent(weight));
    let wrong = || Some(CanaryWeight::Invalid(Arc::from("101")));
    // Who names the first waypoint; the service's canary and weight; the namespace's.
    for (name, own, (waypoint, weight), (their_waypoint, their_weight), want) in [
        ("14", true, ("all", percent(20)), ("", None), "all 20"),
        (
            "14 a weight too many",
            true,
            ("all", wrong()),
            ("", None),
            "CanaryInvalidWeight",
        ),
        (
            "14 the same",
            true,
            ("wp", percent(20)),
            ("", None),
            "CanarySameAsPrimary",
        ),
        (
            "14 unknown",
            true,
            ("nope", percent(20)),
            ("", None),
            "WaypointIsNotReady",
        ),
        (
            "the same, before a wrong weight",
            true,
            ("wp", wrong()),
            ("", None),
            "CanarySameAsPrimary",
        ),
        (
            "a wrong weight, before unknown",
            true,
            ("nope", wrong()),
            ("", None),
            "CanaryInvalidWeight",
        ),
        ("no weight", true, ("all", None), ("", None), "all 0"),
        ("none", true, ("none", percent(20)), ("", None), "none"),
        (
            "for workloads",
            true,
            ("wl", percent(20)),
            ("", None),
            "UnsupportedTrafficType",
        ),
        (
            "not admitted",
            true,
            ("infra/wp", percent(20)),
            ("", None),
            "AttachmentDenied",
        ),
        (
            "the namespace's, of who has his own",
            true,
            ("", None),
            ("all", percent(20)),
            "none",
        ),
        (
            "the namespace's",
            false,
            ("", None),
            ("all", percent(20)),
            "all 20",
        ),
        (
            "own, at the namespace's weight",
            false,
            ("all", None),
            ("wp", percent(30)),
            "all 30",
        ),
        (
            "the namespace's, at its own weight",
            false,
            ("", percent(40)),
            ("all", percent(30)),
            "all 40",
        ),
        (
            "own none, before the namespace's",
            false,
            ("none", None),
            ("all", percent(30)),
            "none",
        ),
    ] {
        let mut mesh = mesh();
        let mut infra = gateway("wp", WaypointFor::Service);
        infra.namespace = Arc::from("infra");
        mesh.gateways = vec![
            gateway("wp", WaypointFor::Service),
            gateway("all", WaypointFor::All),
            gateway("wl", WaypointFor::Workload),
            infra,
        ];
        let named = |name: &str| using(name).filter(|_| !name.is_empty());
        let shop = mesh.namespaces.get_mut("shop").unwrap();
        shop.use_waypoint = using("wp").filter(|_| !own);
        shop.canary = Canary {
            waypoint: named(their_waypoint),
            weight: their_weight,
        };
        mesh.services[0].use_waypoint = using("wp").filter(|_| own);
        mesh.services[0].canary = Canary {
            waypoint: named(waypoint),
            weight,
        };
        assert_eq!(canary(&mesh), want, "{name}");
    }
}

#[test]
fn conditions_say_what_and_where() {
    let mut mesh = mesh();
    mesh.gateways = vec![
        gateway("wp", WaypointFor::Service),
        gateway("wl", WaypointFor::Workload),
    ];
    let told = |mesh: &Mesh, ingress| {
        let waypoints = Waypoints::new(mesh);
        let binding = waypoints.bind(Bindable::from(&mesh.services[0]));
        condition(&binding, ingress).map(|c| (c.status, c.reason, c.message))
    };
    assert_eq!(told(&mesh, Some(true)), None, "nothing is asked for");
    mesh.services[0].use_waypoint = using("wp");
    mesh.services[0].canary.waypoint = using("nope");
    let (status, reason, message) = told(&mesh, Some(true)).unwrap();
    assert_eq!((status, reason), (true, "WaypointAccepted"));
    assert_eq!(
        message,
        "behind shop/wp (mesh.toml:1); ingress gateways pass it too; canary shop/nope is not used: WaypointIsNotReady"
    );
    mesh.services[0].use_waypoint = using("wl");
    let (status, reason, message) = told(&mesh, None).unwrap();
    assert_eq!((status, reason), (false, "UnsupportedTrafficType"));
    assert_eq!(
        message,
        "waypoint shop/wl does not take traffic to a service"
    );
    let shop = mesh.namespaces.get_mut("shop").unwrap();
    shop.use_waypoint = using("wp");
    let (status, _, message) = told(&mesh, Some(false)).unwrap();
    assert!(status);
    for part in [
        "behind shop/wp",
        "shop/wl (mesh.toml:1), is for traffic to workload alone",
        "do not pass",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let surveyed = survey(&mesh);
    let keys: Vec<_> = surveyed.objects.iter().map(|o| &*o.key).collect();
    assert_eq!(keys, ["shop/cart", "shop/web"]);
    assert_eq!(surveyed.waypoints.len(), 2);
}
