//! Tunnels that are let in or refused, and bytes through them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ::http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::agent::report::{LocalStates, Verdict};
use crate::hbone::testing::{eventually, soon};
use crate::hbone::{ConnectError, TunnelIo};
use crate::model::route::{Kind, Target};
use crate::model::testing::workload;
use crate::waypoint::State;
use crate::waypoint::testing::told::{in_turns, rule, told};
use crate::waypoint::testing::{Rig, echo};

/// What a connection says first, and then to a question.
async fn ask(mut io: TunnelIo, question: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
    let mut name = [0; 6];
    soon("a banner", io.read_exact(&mut name)).await?;
    io.write_all(question).await?;
    io.shutdown().await?;
    let mut answer = Vec::new();
    soon("the end", io.read_to_end(&mut answer)).await?;
    Ok((String::from_utf8_lossy(&name).into_owned(), answer))
}

#[tokio::test]
async fn bytes_go_through_to_an_endpoint_and_back() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(echo(program, "cart-1"));
    rig.publish().await;
    // More than any window or buffer on the way.
    let question: Vec<u8> = (0..20 << 20).map(|n: u32| (n % 251) as u8).collect();
    let io = TunnelIo::new(rig.cart(90).await);
    let (reader, mut writer) = tokio::io::split(io);
    let mut reader = reader;
    let sent = question.clone();
    let writing = async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let reading = async move {
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let ((), answer) = soon("all of it", async { tokio::join!(writing, reading) }).await;
    assert_eq!(&answer[..6], b"cart-1", "the server may speak first");
    assert!(answer[6..] == question, "whole and in order");
    let told = rig.told.lock().unwrap()[0].clone();
    assert_eq!(
        told.peer, "spiffe://cluster.local/ns/shop/sa/wp-1",
        "as itself"
    );
    assert_eq!(told.authority, "10.1.0.11:8080");
    assert_eq!(
        told.baggage, "k8s.namespace.name=shop,service.name=web",
        "the client's"
    );
    assert!(
        told.forwarded.ends_with(";host=cart.shop.mesh.internal"),
        "{told:?}"
    );
    eventually("it is counted", || {
        rig.metric("istio_tcp_connections_closed", "reporter=\"waypoint\"") == 1
    })
    .await;
    let received = rig.metric(
        "istio_tcp_received_bytes",
        "destination_workload=\"cart-1\"",
    );
    assert_eq!(received, question.len() as u64);
    let principal = "source_principal=\"spiffe://cluster.local/ns/shop/sa/web\"";
    assert_eq!(rig.metric("istio_tcp_connections_opened", principal), 1);
}

#[tokio::test]
async fn an_endpoint_that_takes_no_tunnels_is_reached_plainly() {
    let mut rig = Rig::new().await;
    let program = rig.plain_endpoint("cart-1", "10.1.0.11").await;
    rig.run(echo(program, "cart-1"));
    rig.publish().await;
    let io = TunnelIo::new(rig.cart(90).await);
    let (name, answer) = ask(io, b"hello").await.unwrap();
    assert_eq!(
        (name.as_str(), answer.as_slice()),
        ("cart-1", &b"hello"[..])
    );
    eventually("it is counted", || {
        rig.metric("istio_tcp_received_bytes", "reporter=\"waypoint\"") == 5
            && rig.metric("istio_tcp_sent_bytes", "reporter=\"waypoint\"") == 11
    })
    .await;
    assert!(rig.told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_bound_is_refused() {
    let mut rig = Rig::new().await;
    rig.dead_endpoint("cart-1", "10.1.0.11");
    rig.publish().await;
    for (name, authority) in [
        ("an undeclared port", "10.96.0.10:8080"),
        ("an unbound service", "10.96.0.11:80"),
        ("an endpoint's own address", "10.1.0.11:8080"),
        ("the waypoint itself", "127.0.0.1:15008"),
        ("a stranger", "192.0.2.1:80"),
    ] {
        let refused = rig.connect(authority).await.unwrap_err();
        let status = StatusCode::NOT_FOUND;
        assert!(
            matches!(refused, ConnectError::Refused { status: s } if s == status),
            "{name}: {refused:?}"
        );
    }
    assert_eq!(
        rig.connector.dials.load(Ordering::Relaxed),
        0,
        "nobody was asked"
    );
}

#[tokio::test]
async fn another_endpoint_is_tried_before_anything_is_sent() {
    let mut rig = Rig::new().await;
    rig.dead_endpoint("cart-0", "10.1.0.10");
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(echo(program, "cart-1"));
    rig.resources = Some(in_turns());
    rig.publish().await;
    for _ in 0..4 {
        let (name, answer) = ask(TunnelIo::new(rig.cart(90).await), b"hello")
            .await
            .unwrap();
        assert_eq!(
            (name.as_str(), answer.as_slice()),
            ("cart-1", &b"hello"[..])
        );
    }
    assert!(
        rig.metric("istio_tcp_connections_failed", "cart-0") > 0,
        "it was tried"
    );
}

#[tokio::test]
async fn backends_get_their_shares_of_connections() {
    let mut rig = Rig::new().await;
    for (service, vip, address, banner) in [
        ("v1", "10.96.0.21", "10.1.0.21", "v1 says"),
        ("v2", "10.96.0.22", "10.1.0.22", "v2 says"),
        ("v3", "10.96.0.23", "10.1.0.23", "v3 says"),
    ] {
        rig.add_service(service, vip);
        let name = format!("{service}-1");
        let program = rig.endpoint_of(service, &name, address).await;
        rig.run(echo(program, &banner[..6]));
    }
    let split = rule().leading_to("v1", 90, 1).leading_to("v2", 90, 1);
    let split = split.leading_to("v3", 90, 0);
    rig.resources = Some(told().with_route(Kind::Tcp, "cart", None, vec![split.clone()]));
    rig.publish().await;
    let mut first = 0;
    for _ in 0..100 {
        let io = TunnelIo::new(rig.cart(90).await);
        let (name, answer) = ask(io, b"?").await.unwrap();
        assert_eq!(answer, b"?");
        assert_ne!(name, "v3 say", "it has no share");
        first += usize::from(name == "v1 say");
    }
    // Four standard deviations of 100 draws.
    assert!((30..=70).contains(&first), "{first}");

    let nobody = Target::Invalid(std::sync::Arc::from("there is no such service"));
    let none = rule().with_backend(nobody, 1, Vec::new());
    for (name, rules) in [("nobody", vec![none]), ("no weight", vec![rule()])] {
        rig.resources = Some(told().with_route(Kind::Tcp, "cart", None, rules));
        rig.publish().await;
        let io = TunnelIo::new(rig.cart(90).await);
        assert!(ask(io, b"?").await.is_err(), "{name}: closed");
    }
}

#[tokio::test]
async fn without_an_endpoint_a_tunnel_is_closed() {
    let mut rig = Rig::new().await;
    rig.publish().await;
    let mut io = TunnelIo::new(rig.cart(90).await);
    let mut heard = Vec::new();
    let read = soon("the end", io.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(read, 0);
}

/// What the control plane hears of the waypoint's instance.
fn heard(states: &LocalStates) -> Option<Verdict> {
    let probe = states.waypoints.get("wp-1")?.probe.as_ref();
    probe.map(|probe| probe.verdict)
}

#[tokio::test]
async fn the_control_plane_hears_whether_it_serves() {
    let mut rig = Rig::new().await;
    rig.refuses.store(true, Ordering::Relaxed);
    assert_eq!(heard(&rig.reports.borrow()), None, "nobody says who it is");
    rig.tell();
    let failing = |states: &LocalStates| heard(states) == Some(Verdict::Failing);
    let without = rig.reports.wait_for(failing);
    drop(soon("it has no certificate", without).await.unwrap());
    rig.refuses.store(false, Ordering::Relaxed);
    let passing = |states: &LocalStates| heard(states) == Some(Verdict::Passing);
    let serving = rig.reports.wait_for(passing);
    drop(soon("it serves", serving).await.unwrap());
    rig.mesh.send_replace(Default::default());
    let gone = rig.reports.wait_for(|states| heard(states).is_none());
    drop(soon("it is nobody's instance", gone).await.unwrap());
}

#[tokio::test]
async fn who_stops_says_so_and_serves_until_that_is_known() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(echo(program, "cart-1"));
    rig.publish().await;
    rig.stop.cancel();
    let draining = rig.reports.wait_for(|states| states.draining);
    drop(soon("it says so", draining).await.unwrap());
    let (name, _) = ask(TunnelIo::new(rig.cart(90).await), b"hello")
        .await
        .unwrap();
    assert_eq!(name, "cart-1", "nobody knows of it yet");
    rig.lose_instance();
    soon("it ends", rig.waypoint.join_next()).await;
}

#[tokio::test]
async fn a_waypoint_waits_for_its_place_in_the_mesh() {
    let mut rig = Rig::new().await;
    let pending = |s: &State| matches!(s, State::Pending(r) if r.contains("no waypoint shop/wp on node edge-1"));
    soon("it says so", rig.state.wait_for(pending))
        .await
        .unwrap();
    rig.publish().await;
    let before = rig.at();
    assert!(tokio::net::TcpStream::connect(before).await.is_ok());
    rig.mesh.send_replace(Default::default());
    soon("it is gone", rig.state.wait_for(pending))
        .await
        .unwrap();
    let refused = tokio::net::TcpStream::connect(before).await;
    assert!(refused.is_err(), "its port is closed");
}

#[tokio::test]
async fn a_waypoint_serves_once_it_can_prove_who_it_is() {
    let mut rig = Rig::new().await;
    rig.refuses.store(true, Ordering::Relaxed);
    rig.tell();
    let unproven = |s: &State| matches!(s, State::Pending(r) if r.contains("no certificate for"));
    soon("it says so", rig.state.wait_for(unproven))
        .await
        .unwrap();
    rig.refuses.store(false, Ordering::Relaxed);
    rig.publish().await;
}

#[tokio::test]
async fn what_is_open_may_finish_when_it_stops() {
    let mut rig = Rig::draining(Duration::from_secs(60)).await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(echo(program, "cart-1"));
    rig.publish().await;
    let at = rig.at();
    let mut io = TunnelIo::new(rig.cart(90).await);
    let mut name = [0; 6];
    soon("a banner", io.read_exact(&mut name)).await.unwrap();
    rig.stop.cancel();
    let closed = async {
        while tokio::net::TcpStream::connect(at).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the port closes", closed).await;
    io.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    soon("an echo", io.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"still here");
    assert!(rig.waypoint.try_join_next().is_none(), "it waits");
    io.shutdown().await.unwrap();
    drop(io);
    soon("it has ended", rig.waypoint.join_next())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut() {
    let mut rig = Rig::draining(Duration::from_millis(50)).await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(echo(program, "cart-1"));
    rig.publish().await;
    let mut io = TunnelIo::new(rig.cart(90).await);
    let mut name = [0; 6];
    soon("a banner", io.read_exact(&mut name)).await.unwrap();
    rig.stop.cancel();
    soon("it has ended", rig.waypoint.join_next())
        .await
        .unwrap()
        .unwrap();
    let cut = soon("a cut", io.read_u8()).await;
    assert!(cut.is_err());
}

#[tokio::test]
async fn a_bound_workload_is_served_on_any_port() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("batch", "10.1.0.21").await;
    rig.run(echo(program, "batch1"));
    rig.bind_workload(workload("batch", &["10.1.0.21"]));
    rig.publish().await;
    let tunnel = rig.connect("10.1.0.21:9999").await.unwrap();
    let (name, answer) = ask(TunnelIo::new(tunnel), b"hello").await.unwrap();
    assert_eq!(
        (name.as_str(), answer.as_slice()),
        ("batch1", &b"hello"[..])
    );
    let told = rig.told.lock().unwrap()[0].clone();
    assert_eq!(told.authority, "10.1.0.21:9999");
}
