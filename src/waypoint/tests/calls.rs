//! Calls of the waypoint's own.

use std::time::Duration;

use ::http::{Request, Response, Version};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::http::text;
use super::program::{Plan, Shop};
use crate::model::testing::key;
use crate::waypoint::http::{Bounds, CallError, Callee, Unanswered, grpc_message, grpc_request};
use crate::waypoint::testing::told::told;

const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(5),
    answer: 1 << 10,
};

fn to(service: &str, port: u16) -> Callee {
    Callee {
        service: key(service),
        port,
    }
}

fn post(body: &'static str) -> Request<Bytes> {
    let request = Request::post("/v1/spans").header("x-own", "1");
    request.body(Bytes::from_static(body.as_bytes())).unwrap()
}

#[tokio::test]
async fn a_service_is_called_by_the_waypoints_own_identity() {
    let shop = Shop::new(told()).await;
    let caller = &shop.rig.caller;
    for body in ["spans", ""] {
        let called = caller
            .call(&to("v1", 80), post(body), BOUNDS)
            .await
            .unwrap();
        assert_eq!(
            (called.head.status.as_u16(), &*called.body),
            (200, &b"v1"[..])
        );
        let asked = shop.v1.last();
        assert_eq!((&*asked.target, &*asked.body), ("/v1/spans", body));
        assert_eq!(
            asked.header("host").as_deref(),
            Some("v1.shop.mesh.internal:80")
        );
        assert_eq!(asked.header("x-own").as_deref(), Some("1"));
        assert_eq!(asked.version, Version::HTTP_11);
    }
    let told = shop.rig.told.lock().unwrap();
    assert_eq!(told.len(), 1, "the second goes by the same tunnel");
    assert_eq!(told[0].peer, "spiffe://cluster.local/ns/shop/sa/wp-1");
}

#[tokio::test]
async fn grpc_is_called_over_http2() {
    let shop = Shop::new(told()).await;
    let answer = Response::builder()
        .header("grpc-status", "0")
        .body(text(&b"\0\0\0\0\x04\x0a\x02hi"[..]));
    shop.v1.plan(Plan::Answer(answer.unwrap()));
    let request = grpc_request("/p.S/M", &"ho".to_owned());
    let called = shop.rig.caller.call(&to("v1", 80), request, BOUNDS).await;
    assert_eq!(grpc_message::<String>(called.unwrap()).unwrap(), "hi");
    let asked = shop.v1.last();
    assert_eq!((&*asked.target, asked.version), ("/p.S/M", Version::HTTP_2));
    assert_eq!(asked.body, "\0\0\0\0\x04\x0a\x02ho");
}

#[tokio::test]
async fn what_cannot_be_called_says_why() {
    let shop = Shop::new(told()).await;
    let caller = &shop.rig.caller;
    let (_never, until) = oneshot::channel();
    shop.v1.plan(Plan::Until(until));
    let long = Response::new(text("x".repeat(1025)));
    shop.v2.plan(Plan::Answer(long));
    let brief = Bounds {
        time: Duration::from_millis(200),
        ..BOUNDS
    };
    for (name, callee, bounds, want) in [
        (
            "no service",
            to("gone", 80),
            BOUNDS,
            "the mesh has no service shop/gone.shop.mesh.internal",
        ),
        (
            "no port",
            to("v1", 8),
            BOUNDS,
            "service shop/v1.shop.mesh.internal declares no port 8",
        ),
        ("no answer", to("v1", 80), brief, "no answer within 200ms"),
        (
            "too much of it",
            to("v2", 80),
            BOUNDS,
            "its answer is longer than 1024 bytes",
        ),
    ] {
        let failed = caller.call(&callee, post(""), bounds).await.unwrap_err();
        assert_eq!(failed.to_string(), want, "{name}");
    }
    let nobody = caller.call(&to("free", 80), post(""), BOUNDS).await;
    assert!(matches!(
        nobody,
        Err(
            CallError::Unanswered(Unanswered::Untold(_) | Unanswered::Unchosen(_))
                | CallError::NoPort { .. }
        )
    ));
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_no_failure() {
    let shop = Shop::new(told()).await;
    let v1 = to("v1", 80);
    let call = || shop.rig.caller.call(&v1, post("spans"), BOUNDS);
    call().await.unwrap();
    shop.v1.leaves();
    // The program takes none on the old connection, and the new one ends too: that is told.
    let lost = call().await.unwrap_err();
    assert!(
        matches!(lost, CallError::Unanswered(Unanswered::Lost(_))),
        "{lost}"
    );
}
