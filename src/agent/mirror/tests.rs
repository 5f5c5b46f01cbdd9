//! What a node holds of what it hears, response by response.

use super::*;
use crate::model::compile::sample::routes::rerouted;
use crate::model::policy::{Request, Verdict};
use crate::model::service::{Service, ServiceKey};
use crate::model::testing::workload;
use crate::model::workload::Workload;
use crate::wire::convert::{WaypointResource, encode_policy};
use std::time::SystemTime;

fn service(name: &str) -> Vec<u8> {
    let key = ServiceKey {
        namespace: Arc::from("shop"),
        hostname: Arc::from(format!("{name}.shop.mesh.internal")),
    };
    let service = Service {
        key,
        name: Arc::from(name),
        vips: Vec::new(),
        udp_ports: Vec::new(),
        ports: Vec::new(),
        subject_alt_names: Vec::new(),
        waypoint: None,
        load_balancing: Default::default(),
        ip_families: Default::default(),
        canonical: false,
        weighted_waypoints: Vec::new(),
        ingress_use_waypoint: false,
        visibility: Default::default(),
    };
    Address::Service(Arc::new(service)).encode()
}

fn resource(name: &str, version: &str, bytes: Vec<u8>) -> Resource {
    super::resource("", name, version, bytes)
}

fn addresses(names: &[&str], removed: &[&str]) -> DeltaDiscoveryResponse {
    let full = |n: &&str| format!("shop/{n}.shop.mesh.internal");
    DeltaDiscoveryResponse {
        type_url: ADDRESS.to_owned(),
        resources: names
            .iter()
            .map(|n| resource(&full(n), "v1", service(n)))
            .collect(),
        removed_resources: removed.iter().map(full).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn policies(bodies: &[(&str, Option<&[u8]>)]) -> DeltaDiscoveryResponse {
    let one = |(name, body): &(&str, Option<&[u8]>)| {
        let mut one = resource(name, "", body.unwrap_or_default().to_vec());
        one.resource = one.resource.filter(|_| body.is_some());
        one
    };
    DeltaDiscoveryResponse {
        type_url: AUTHORIZATION.to_owned(),
        resources: bodies.iter().map(one).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn revision(names: &[&str]) -> DeltaDiscoveryResponse {
    let named = names.iter().map(|name| (*name, "v1"));
    revision_of(&named.collect::<Vec<_>>())
}

/// Of services with their versions.
fn revision_of(services: &[(&str, &str)]) -> DeltaDiscoveryResponse {
    let full = |(n, version): &(&str, &str)| {
        (
            format!("shop/{n}.shop.mesh.internal"),
            (*version).to_owned(),
        )
    };
    let services: Vec<_> = services.iter().map(full).collect();
    let lines = services.iter().map(|(n, v)| (ADDRESS, n.as_str(), v));
    let total = u32::try_from(services.len()).unwrap();
    let summary = RevisionSummary {
        epoch: [0; 16],
        serial: 0,
        number: 7,
        digest: digest(lines),
        source: String::new(),
        compiled_at: SystemTime::UNIX_EPOCH,
        totals: [(ADDRESS.to_owned(), total)].into(),
        warnings: 0,
        expired_grace: std::time::Duration::ZERO,
        domain: String::new(),
    };
    DeltaDiscoveryResponse {
        type_url: REVISION.to_owned(),
        resources: vec![resource(REVISION_NAME, "7", encode_revision(&summary))],
        ..DeltaDiscoveryResponse::default()
    }
}

#[test]
fn nothing_is_seen_before_its_revision() {
    let mut mirror = Mirror::default();
    let heard = mirror.take(addresses(&["cart", "web"], &[]), true);
    assert!(!heard.complete && heard.refused.is_none());
    let heard = mirror.take(revision(&["cart", "web"]), true);
    assert!(heard.complete && !heard.lost);
    let state = mirror.state();
    assert_eq!(state.view.size(), (0, 2));
    assert_eq!(state.revision.unwrap().number, 7);
    assert_eq!(mirror.versions(ADDRESS).len(), 2);
}

#[test]
fn what_was_held_is_taken_up_again() {
    let mut before = Mirror::default();
    before.take(addresses(&["cart", "web"], &[]), true);
    before.take(revision(&["cart", "web"]), true);
    let kept = before.held().responses();
    let mut after = Mirror::default();
    assert!(after.restore(kept.clone()));
    assert_eq!(after.state().view.size(), (0, 2));
    assert_eq!(after.state().revision, before.state().revision);
    assert_eq!(after.versions(ADDRESS), before.versions(ADDRESS));
    let mut torn = kept;
    torn[0].resources.pop();
    assert!(!after.restore(torn), "what does not add up is not believed");
    assert_eq!(after.state().view.size(), (0, 0));
    let mut unstaged = Mirror::default();
    unstaged.take(addresses(&["cart"], &[]), false);
    assert!(after.restore(unstaged.held().responses()));
    assert_eq!(after.state().view.size(), (0, 1));
}

#[test]
fn a_server_without_revisions_is_followed_response_by_response() {
    let mut mirror = Mirror::default();
    let first = mirror.take(addresses(&["cart"], &[]), false);
    assert!(!first.complete, "nobody knows yet which policies hold");
    assert!(mirror.take(policies(&[]), false).complete);
    assert!(mirror.take(addresses(&["web"], &[]), false).complete);
    assert!(mirror.take(addresses(&[], &["web"]), false).complete);
    assert!(mirror.take(addresses(&[], &["cart"]), false).complete);
    assert_eq!(mirror.state().view.size(), (0, 0));
}

#[test]
fn what_a_policy_closes_is_closed_after_a_start_from_disk_too() {
    // Field 2 is the namespace, field 3 the scope; without a name nobody can read it.
    let of_shop: &[u8] = b"\x12\x04shop\x18\x01";
    let request = Request::new(None, Some([10, 0, 0, 9].into()), ([10, 0, 0, 2], 80).into());
    let of = |namespace: &str| Workload {
        namespace: Arc::from(namespace),
        ..workload("me", &["10.0.0.2"])
    };
    for (name, body, shop, bank) in [
        ("a namespace's", Some(of_shop), true, false),
        ("unreadable", Some(&[0xff][..]), true, true),
        ("no body", None, true, true),
        ("listed", Some(&b"\x18\x02"[..]), false, false),
    ] {
        let closed = |mirror: &mut Mirror| {
            let view = mirror.state().view;
            let guard = |n| view.policies().guard(&of(n));
            let closed = |n| matches!(guard(n).judge(&request), Verdict::Denied(_));
            ["shop", "bank"].map(closed)
        };
        let mut before = Mirror::default();
        before.take(addresses(&["cart"], &[]), false);
        assert_eq!(closed(&mut before), [false; 2], "{name}");
        let heard = before.take(policies(&[("p", body)]), false);
        assert!(
            heard.refused.is_some(),
            "{name}: and its sender hears of it"
        );
        assert_eq!(closed(&mut before), [shop, bank], "{name}");
        let mut after = Mirror::default();
        assert!(after.restore(before.held().responses()), "{name}");
        assert_eq!(closed(&mut after), [shop, bank], "{name}, from disk");
        let mut gone = policies(&[]);
        gone.removed_resources = vec!["p".to_owned()];
        before.take(gone, false);
        assert_eq!(closed(&mut before), [false; 2], "{name}, removed");
    }
}

#[test]
fn a_policy_that_no_longer_reads_holds_as_it_last_did() {
    let denies = encode_policy(&policy::Policy {
        key: Arc::from("shop/p"),
        namespace: Arc::from("shop"),
        name: Arc::from("p"),
        scope: policy::Scope::Namespace,
        effect: policy::Effect::Deny,
        dry_run: false,
        rules: Vec::new(),
        origin: None,
        unreadable: None,
    });
    let request = Request::new(None, Some([10, 0, 0, 9].into()), ([10, 0, 0, 2], 80).into());
    let closed = |mirror: &mut Mirror| {
        let guard = mirror.state().view.policies().guard(&workload("me", &[]));
        matches!(guard.judge(&request), Verdict::Denied(_))
    };
    let mut mirror = Mirror::default();
    mirror.take(policies(&[("shop/p", Some(&denies))]), false);
    assert!(!closed(&mut mirror), "it denies nobody");
    let heard = mirror.take(policies(&[("shop/p", Some(&[0xff]))]), false);
    assert!(heard.refused.unwrap().contains("shop/p"));
    assert!(!closed(&mut mirror), "and goes on so");
    let mut after = Mirror::default();
    assert!(after.restore(mirror.held().responses()));
    assert!(closed(&mut after), "nobody knows what it was");
}

#[test]
fn what_does_not_add_up_is_refused_and_asked_for_again() {
    let mut mirror = Mirror::default();
    mirror.take(addresses(&["cart"], &[]), true);
    let heard = mirror.take(revision(&["cart", "web"]), true);
    assert!(heard.lost && !heard.complete && heard.refused.is_some());
    mirror.forget();
    assert!(mirror.versions(ADDRESS).is_empty());
}

#[test]
fn what_is_not_counted_right_is_refused() {
    for (name, type_url, total, agrees) in [
        ("as many", ADDRESS, 1, true),
        ("more", ADDRESS, 2, false),
        ("a policy too many", AUTHORIZATION, 1, false),
        ("a type of another version", "later", 9, true),
    ] {
        let mut mirror = Mirror::default();
        mirror.take(addresses(&["cart"], &[]), true);
        mirror.take(revision(&["cart"]), true);
        let (_version, held) = mirror.held.revision.as_mut().unwrap();
        held.totals.insert(type_url.to_owned(), total);
        assert_eq!(mirror.agrees(), agrees, "{name}");
    }
}

#[test]
fn a_bad_resource_is_named_and_its_last_good_form_kept() {
    let mut mirror = Mirror::default();
    mirror.take(addresses(&["cart"], &[]), false);
    let name = "shop/cart.shop.mesh.internal";
    let mut response = addresses(&["web"], &[]);
    response
        .resources
        .push(resource(name, "v2", vec![0xff, 0xff]));
    let heard = mirror.take(response, false);
    assert!(heard.refused.unwrap().contains(name));
    assert_eq!(
        mirror.state().view.size(),
        (0, 2),
        "the good one applied, the old one kept"
    );
    assert_eq!(mirror.versions(ADDRESS)[name], "v1");
}

fn unreadable(name: &str, version: &str) -> DeltaDiscoveryResponse {
    let mut response = addresses(&[], &[]);
    let name = format!("shop/{name}.shop.mesh.internal");
    response.resources = vec![resource(&name, version, vec![0xff])];
    response
}

#[test]
fn a_revision_that_cannot_be_read_puts_nothing_in_force() {
    let mut mirror = Mirror::default();
    mirror.take(addresses(&["cart"], &[]), true);
    assert!(mirror.take(revision(&["cart"]), true).complete);
    mirror.take(addresses(&["web"], &[]), true);
    let mut bad = revision(&["cart", "web"]);
    bad.resources = vec![resource(REVISION_NAME, "8", vec![0xff])];
    let heard = mirror.take(bad, true);
    assert!(heard.refused.is_some() && !heard.complete && !heard.lost);
    assert!(mirror.take(revision(&["cart", "web"]), true).complete);
}

#[test]
fn an_address_that_cannot_be_read_holds_up_no_revision() {
    let mut mirror = Mirror::default();
    mirror.take(addresses(&["cart"], &[]), true);
    assert!(mirror.take(unreadable("web", "v1"), true).refused.is_some());
    assert!(mirror.take(revision(&["cart", "web"]), true).complete);
    assert_eq!(mirror.state().view.size(), (0, 1), "it is absent");
    let web = "shop/web.shop.mesh.internal";
    assert_eq!(mirror.versions(ADDRESS)[web], "", "and asked for again");
    assert!(mirror.lacks(ADDRESS));

    mirror.take(unreadable("cart", "v2"), true);
    let both = revision_of(&[("cart", "v2"), ("web", "v1")]);
    assert!(mirror.take(both.clone(), true).complete);
    assert_eq!(mirror.state().view.size(), (0, 1), "as it last was");
    let mut after = Mirror::default();
    assert!(after.restore(mirror.held().responses()), "from disk too");
    assert_eq!(after.state().view.size(), (0, 1));
    assert_eq!(after.versions(ADDRESS), mirror.versions(ADDRESS));
    let other = revision_of(&[("cart", "v2"), ("web", "v2")]);
    assert!(after.take(other, true).lost, "it is counted, not ignored");

    mirror.take(addresses(&["cart"], &["web"]), true);
    assert!(mirror.take(revision(&["cart"]), true).complete);
    assert!(!mirror.lacks(ADDRESS), "mended, and gone");
}

/// What `shop/wp` is told of `cart`, which is rerouted.
fn told() -> Vec<Resource> {
    let compiled = crate::control::revision::tests::compiled(&rerouted());
    let (name, told) = compiled.waypoints.first_key_value().unwrap();
    let one = |told: WaypointResource| resource(&told.name(name), "v1", told.encode(name));
    WaypointResource::all(told).map(one).collect()
}

fn waypoints(resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: WAYPOINT.to_owned(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

const ROUTE: &str = "shop/wp/http-route/shop/a";

#[test]
fn a_route_that_cannot_be_read_is_not_there() {
    let wp: WaypointName = "shop/wp".parse().unwrap();
    let mut mirror = Mirror::default();
    let heard = mirror.take(waypoints(told(), &[]), true);
    assert_eq!((heard.refused, heard.complete), (None, false));
    mirror.take(revision(&[]), true);
    let before = mirror.state();
    let known = &before.waypoints[&wp];
    assert_eq!((known.services.len(), known.routes.len()), (2, 1));
    assert!(known.gateway.is_some());
    let bad = resource(ROUTE, "v2", vec![0xff]);
    let heard = mirror.take(waypoints(vec![bad], &[]), true);
    let refused = heard.refused.unwrap();
    assert!(
        refused.starts_with(&format!("{ROUTE}: resource: not decodable")),
        "{refused}"
    );
    let state = mirror.state();
    let now = &state.waypoints[&wp];
    assert!(
        now.routes.is_empty(),
        "neither it nor what was there before"
    );
    assert_eq!(known.routes.len(), 1, "what is in force stays as it is");
    let cart = now
        .services
        .values()
        .find(|s| !s.ports[0].general.is_empty());
    assert!(cart.is_some(), "what refers to it is refused");
    // It is asked for again, and on disk it is not there either.
    assert!(!mirror.versions(WAYPOINT).contains_key(ROUTE));
    let mut after = Mirror::default();
    assert!(after.restore(mirror.held().responses()));
    assert_eq!(after.state().waypoints, state.waypoints);
    assert_eq!(after.versions(WAYPOINT), mirror.versions(WAYPOINT));
}

#[test]
fn a_version_that_reads_less_still_starts_from_disk() {
    let mut mirror = Mirror::default();
    mirror.take(waypoints(told(), &[]), true);
    mirror.take(revision(&[]), true);
    let mut kept = mirror.held().responses();
    let told = kept.iter_mut().find(|r| r.type_url == WAYPOINT).unwrap();
    let route = told.resources.iter_mut().find(|r| r.name == ROUTE).unwrap();
    route.resource.as_mut().unwrap().value = vec![0xff];
    let mut after = Mirror::default();
    assert!(after.restore(kept));
    let state = after.state();
    let known = state.waypoints.values().next().unwrap();
    assert!(known.routes.is_empty() && known.gateway.is_some());
}

#[test]
fn a_waypoint_that_is_no_more_is_told_nothing() {
    let mut mirror = Mirror::default();
    let names: Vec<String> = told().into_iter().map(|r| r.name).collect();
    mirror.take(waypoints(told(), &[]), true);
    mirror.take(waypoints(Vec::new(), &[ROUTE, "shop/wp/nobody"]), true);
    let state = mirror.state();
    let known = state.waypoints.values().next().unwrap();
    assert_eq!((known.services.len(), known.routes.len()), (2, 0));
    let names: Vec<&str> = names.iter().map(|n| &**n).collect();
    mirror.take(waypoints(Vec::new(), &names), true);
    assert!(mirror.state().waypoints.is_empty());
}

#[test]
fn a_waypoint_of_which_nothing_can_be_read_is_told_nothing_and_not_left_alone() {
    let mut mirror = Mirror::default();
    let bad = resource("shop/wp", "v1", vec![0xff]);
    assert!(
        mirror
            .take(waypoints(vec![bad], &[]), true)
            .refused
            .is_some()
    );
    mirror.take(revision(&[]), true);
    let nothing = waypoint::Resources::default();
    let of = |mut mirror: Mirror| {
        let waypoints = mirror.state().waypoints;
        waypoints
            .values()
            .map(|told| (**told).clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of(mirror.clone()), std::slice::from_ref(&nothing));
    let mut after = Mirror::default();
    assert!(after.restore(mirror.held().responses()));
    assert_eq!(of(after), [nothing]);
    mirror.take(waypoints(Vec::new(), &["shop/wp"]), true);
    assert_eq!(of(mirror), []);
}
