//! From a real control plane to the memory of a process that is a waypoint.

use super::failover::{EPOCH, Real};
use super::*;
use crate::agent::scripted::joined;
use crate::control::revision::tests::{compiled, revision};
use crate::model::compile::sample::routes::rerouted;
use crate::model::waypoint::WaypointName;
use crate::tls::testing::TestCa;

#[tokio::test]
async fn a_waypoint_is_told_what_is_written_and_knows_it_after_a_restart() {
    let ca = TestCa::new();
    let mut mesh = rerouted();
    let first = revision(1, &compiled(&mesh), &[], None);
    let mut control = Real::start(&ca, &first, "127.0.0.1:0").await;
    let name: WaypointName = "shop/wp".parse().unwrap();
    let controls = joined(&ca, EPOCH, &[&control.url]);
    let mut plain = Client::start(controls.clone(), brisk(), vec![EPOCH; 16]);
    let controls = controls.of_waypoints(vec![name.clone()]);
    let mut waypoint = Client::start(controls.clone(), brisk(), vec![EPOCH; 16]);
    let told = waypoint
        .sees("what it is told", |mesh| mesh.revision.is_some())
        .await;
    let want = compiled(&mesh).waypoints;
    assert_eq!(told.waypoints, want, "with its first revision");
    let other = plain.sees("a view", |mesh| mesh.revision.is_some()).await;
    assert!(other.waypoints.is_empty(), "it is no waypoint");

    mesh.routes[0].rules[0].backends[0].weight = 3;
    let second = revision(2, &compiled(&mesh), &[], Some(&first));
    control.publisher.send_replace(Some(second));
    let numbered = |mesh: &MeshState| mesh.revision.as_ref().is_some_and(|r| r.number == 2);
    let now = waypoint.sees("the change", numbered).await;
    let (before, after) = (&told.waypoints[&name], &now.waypoints[&name]);
    assert_eq!(after, &compiled(&mesh).waypoints[&name]);
    let same = |key| Arc::ptr_eq(&before.services[key], &after.services[key]);
    assert!(before.services.keys().all(same), "nothing else was sent");
    assert!(Arc::ptr_eq(&now.view, &told.view));

    control.server.shutdown().await;
    let kept = waypoint.stop().await;
    let mut again = Client::resume(controls, brisk(), vec![EPOCH; 16], kept);
    let known = again
        .sees("it on disk", |mesh| mesh.revision.is_some())
        .await;
    assert_eq!(known.waypoints, now.waypoints);
    let kept = again.stop().await;
    let controls = joined(&ca, EPOCH, &[&control.url]);
    let mut plain = Client::resume(controls, brisk(), vec![EPOCH; 16], kept);
    let known = plain.sees("a view", |mesh| mesh.revision.is_some()).await;
    assert!(known.waypoints.is_empty(), "nobody would ever correct it");

    // What a process kept that was no waypoint tells one nothing, which is not the same as no routes.
    let kept = plain.stop().await;
    let controls = joined(&ca, EPOCH, &[&control.url]);
    let other: WaypointName = "shop/other".parse().unwrap();
    let of_both = controls.of_waypoints(vec![name, other.clone()]);
    let mut later = Client::resume(of_both, brisk(), vec![EPOCH; 16], kept);
    let known = later.sees("a view", |mesh| mesh.revision.is_some()).await;
    assert_eq!(known.waypoints[&other].gateway, None);
}
