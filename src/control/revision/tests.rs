use std::time::{Duration, Instant, UNIX_EPOCH};

use super::*;
use crate::model::compile::sample::routes;
use crate::model::compile::{Assignments, Observed, Reported, compile, recompile, sample};
use crate::model::declaration::{Machines, Mesh, WaypointFor};
use crate::model::service::{HealthPolicy, Service};

pub(crate) fn compiled(mesh: &Mesh) -> Compiled {
    compile(mesh, &Reported::default(), &Assignments::default()).unwrap()
}

pub(crate) fn title(number: u64) -> Title {
    Title {
        epoch: [0xab; 16],
        serial: 0,
        number,
        source: "test".to_owned(),
        compiled_at: UNIX_EPOCH + Duration::from_secs(number),
        warnings: 0,
        expired_grace: Duration::ZERO,
        domain: String::new(),
    }
}

/// A revision with the given policies, following `previous`.
pub(crate) fn revision(
    number: u64,
    compiled: &Compiled,
    policies: &[&str],
    previous: Option<&Revision>,
) -> Arc<Revision> {
    let content = Content::encode(&Arc::new(compiled.clone()), previous.map(Revision::content));
    let policies = policies
        .iter()
        .map(|p| ((*p).to_owned(), p.as_bytes().to_vec()));
    let content = content.with_authorizations(policies);
    Arc::new(Revision::new(title(number), content, previous))
}

fn changed(before: &Compiled, after: &Compiled) -> Vec<String> {
    let first = revision(1, before, &[], None);
    let second = revision(2, after, &[], Some(&first));
    let steps: Vec<&Changes> = second.changes_since(1).unwrap().collect();
    assert_eq!(steps.len(), 1);
    steps[0].addresses.iter().map(ToString::to_string).collect()
}

const CART: &str = "Kubernetes/lateen/Workload/shop/cart-1";
const CART_SERVICE: &str = "shop/cart.shop.mesh.internal";

fn edit(compiled: &Compiled, edit: impl FnOnce(&mut Service)) -> Compiled {
    let mut edited = compiled.clone();
    let mut service = (*edited.services[0]).clone();
    edit(&mut service);
    edited.services[0] = Arc::new(service);
    edited
}

#[test]
fn names_versions_and_info() {
    let revision = revision(7, &compiled(&sample::mesh()), &[], None);
    let cart = &revision.resources(Kind::Address, "edge-1")[CART];
    let version = cart.version.to_string();
    assert_eq!(version.len(), 16);
    assert!(version.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(&*cart.node, "edge-1");
    assert_eq!(revision.version_info(), "abababab/0/7");
    assert!(revision.knows("edge-1") && !revision.knows("edge-3"));
    assert!(revision.runs("edge-1", "shop", "cart"));
    assert!(!revision.runs("edge-1", "shop", "web"));
    let here = revision.expects("edge-1", CART);
    assert!(here.is_some_and(|e| e.capture && !e.probe));
    assert_eq!(revision.expects("edge-2", CART), None);
    assert!(revision.hears("edge-1") && revision.declares(CART));
    assert_eq!(revision.by_alias("/10.1.0.11"), [Arc::from(CART)]);
    assert!(revision.by_alias("/10.1.0.99").is_empty());
    assert_eq!(revision.resources(Kind::Placement, "edge-1").len(), 1);
    assert!(revision.resources(Kind::Placement, "edge-9").is_empty());
}

#[test]
fn content_alone_makes_versions() {
    let mesh = sample::large(200, 20);
    let first = revision(1, &compiled(&mesh), &[], None);
    for number in [2, 1_000] {
        let again = revision(number, &compiled(&mesh), &[], None);
        assert_eq!(again.summary().digest, first.summary().digest);
    }
    let second = revision(2, &compiled(&mesh), &[], Some(&first));
    assert!(second.content().same_as(first.content()));
    let shared = |kind| {
        let (a, b) = (
            first.resources(kind, "edge-1"),
            second.resources(kind, "edge-1"),
        );
        a.values().zip(b.values()).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    assert!(
        shared(Kind::Address) && shared(Kind::Placement),
        "unchanged is shared"
    );
}

/// Row 63 of §10: a hash made by another process, perhaps by another build, is the same.
#[test]
fn versions_are_the_same_in_every_process() {
    let revision = revision(1, &compiled(&sample::mesh()), &[], None);
    let version = |name: &str| revision.resources(Kind::Address, "edge-1")[name].version;
    let versions = [CART, CART_SERVICE].map(|name| version(name).to_string());
    assert_eq!(versions, ["0b8d7dec7b91a65b", "680a084bb0903665"]);
}

#[test]
fn workloads_are_sent_again_when_readers_derive_anew() {
    let base = compiled(&sample::mesh());
    let mut without = base.clone();
    without.services.remove(0);
    let allow_all = edit(&base, |service| {
        service.load_balancing.health_policy = HealthPolicy::AllowAll;
    });
    let other_port = edit(&base, |service| service.ports[0].target_port = 9_090);
    let both = vec![CART.to_owned(), CART_SERVICE.to_owned()];
    for (name, before, after, want) in [
        ("service deleted", &base, &without, both.clone()),
        ("service back", &without, &base, both.clone()),
        ("all endpoints allowed", &base, &allow_all, both),
        (
            "only the service changed",
            &base,
            &other_port,
            vec![CART_SERVICE.to_owned()],
        ),
        ("nothing changed", &base, &base, vec![]),
    ] {
        assert_eq!(changed(before, after), want, "{name}");
    }
}

#[test]
fn one_report_changes_one_workload() {
    let mesh = sample::large(1_000, 100);
    let before = compiled(&mesh);
    let uid = before.workloads[0].uid.clone();
    let observed = Observed {
        captured: true,
        ..Observed::default()
    };
    let reported: Reported = [(uid.clone(), observed)].into_iter().collect();
    let after = compile(&mesh, &reported, &before.assignments).unwrap();
    assert_eq!(changed(&before, &after), [uid.to_string()]);
}

#[test]
fn placements_change_for_both_nodes_when_a_workload_moves() {
    let mesh = sample::mesh();
    let mut moved = mesh.clone();
    moved.workloads[0].node = Some(Arc::from("edge-2"));
    let first = revision(1, &compiled(&mesh), &[], None);
    let second = revision(2, &compiled(&moved), &[], Some(&first));
    let changes: Vec<&Changes> = second.changes_since(1).unwrap().collect();
    let nodes: Vec<&str> = changes[0].placements.keys().map(|n| &**n).collect();
    assert_eq!(nodes, ["edge-1", "edge-2"]);
}

#[test]
fn a_node_may_be_what_it_serves_and_captures_none_of_it() {
    let mut mesh = sample::mesh();
    let mut waypoint = sample::gateway("wp", WaypointFor::Service);
    waypoint.service_account = Arc::from("gate");
    waypoint.machines = Machines::Each(["edge-1", "edge-2"].map(Arc::from).to_vec());
    let without = revision(1, &compiled(&mesh), &[], None);
    mesh.gateways = vec![waypoint.clone()];
    let with = revision(2, &compiled(&mesh), &[], Some(&without));
    waypoint.machines = Machines::One(Arc::from("edge-2"));
    mesh.gateways = vec![waypoint];
    let moved = revision(3, &compiled(&mesh), &[], Some(&with));
    for (name, revision, want) in [
        ("not declared", &without, [false, false]),
        ("on both", &with, [true, true]),
        ("on one of them", &moved, [false, true]),
    ] {
        let runs = |node| revision.runs(node, "shop", "gate");
        assert_eq!(["edge-1", "edge-2"].map(runs), want, "{name}");
        let listed = |node| revision.identities(node).any(|id| id == ("shop", "gate"));
        assert_eq!(["edge-1", "edge-2"].map(listed), want, "{name}");
        assert!(revision.runs("edge-1", "shop", "cart"), "{name}");
        for node in ["edge-1", "edge-2"] {
            let placements = |r: &Revision| r.resources(Kind::Placement, node).len();
            assert_eq!(placements(revision), placements(&without), "{name}");
        }
    }
    let wp = "Kubernetes/lateen/Gateway/shop/wp";
    let expected = Expected {
        capture: false,
        probe: true,
    };
    for (revision, node, uid, want) in [
        (&with, "edge-1", format!("{wp}/edge-1"), Some(expected)),
        (&with, "edge-1", format!("{wp}/edge-2"), None),
        (&moved, "edge-2", wp.to_owned(), Some(expected)),
        (&moved, "edge-1", wp.to_owned(), None),
    ] {
        assert_eq!(revision.expects(node, &uid), want, "{node} {uid}");
    }
}

#[test]
fn host_network_workloads_are_not_found_by_address() {
    let mut mesh = sample::mesh();
    mesh.workloads[0].capture = Some(crate::model::declaration::Capture::User(Arc::from("cart")));
    let revision = revision(1, &compiled(&mesh), &[], None);
    assert!(revision.by_alias("/10.1.0.11").is_empty());
}

/// The scale this is made for, with a bound that a debug build on a busy machine keeps: quadratic
/// work would miss it by far.
#[test]
fn ten_thousand_workloads_in_a_moment() {
    let mesh = sample::large(10_000, 1_000);
    let started = Instant::now();
    let first = revision(1, &compiled(&mesh), &[], None);
    let second = revision(2, &compiled(&mesh), &[], Some(&first));
    assert!(second.content().same_as(first.content()));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn what_waypoints_are_told_is_shared_as_long_as_it_is_the_same() {
    let mut mesh = routes::rerouted();
    mesh.gateways[0].machines = Machines::Each(["edge-1", "edge-2"].map(Arc::from).to_vec());
    let before = compiled(&mesh);
    let first = revision(1, &before, &[], None);
    let told = |of: &Revision, node| of.resources(Kind::Waypoint, node).clone();
    let (here, there) = (told(&first, "edge-1"), told(&first, "edge-2"));
    assert_eq!(here.len(), 4);
    assert!(
        here.values()
            .zip(there.values())
            .all(|(a, b)| Arc::ptr_eq(a, b))
    );
    mesh.routes[0].rules[0].backends[0].weight = 2;
    let after = recompile(&mesh, &Reported::default(), &before.assignments, &before).unwrap();
    let second = revision(2, &after, &[], Some(&first));
    let now = told(&second, "edge-1");
    let same = |name: &&Arc<str>| Arc::ptr_eq(&now[*name], &here[*name]);
    let changed: Vec<_> = here.keys().filter(|name| !same(name)).collect();
    assert_eq!(changed, [&Arc::from("shop/wp/http-route/shop/a")]);
    // They are nobody else's, so the mesh is the same for all others.
    assert_eq!(first.summary().digest, second.summary().digest);
    assert!(!second.content().same_as(first.content()));
    let steps: Vec<&Changes> = second.changes_since(1).unwrap().collect();
    for (node, count) in [("edge-1", Some(1)), ("edge-2", Some(1)), ("edge-3", None)] {
        let names = steps[0].names(Kind::Waypoint, node);
        assert_eq!(names.map(BTreeSet::len), count, "{node}");
    }
}
