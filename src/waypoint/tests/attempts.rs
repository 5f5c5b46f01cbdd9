//! How often and how long endpoints are asked.

use std::time::{Duration, Instant};

use ::http::{HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::http::{Http1, Text, get, read, text};
use super::program::{Plan, Program, Shop};
use crate::hbone::testing::{eventually, soon};
use crate::model::route::{Retry, RetryOn, Rule, Target, Timeouts};
use crate::waypoint::testing::Rig;
use crate::waypoint::testing::told::{in_turns, rule, told};

/// Long enough for what answers at once, on a busy machine too.
const LIMIT: Duration = Duration::from_millis(500);

/// As `retry` of an `http-route` is read.
fn retry(attempts: u32, codes: &[u16]) -> Retry {
    let mut retry = Retry {
        attempts,
        codes: codes.iter().copied().collect(),
        ..Retry::usual()
    };
    retry.on.extend([RetryOn::Reset, RetryOn::AttemptTimeout]);
    retry
}

fn retried(retry: Retry) -> Rule<Target> {
    Rule {
        retry: Some(retry),
        ..rule().to("v1", 1)
    }
}

fn post(body: Text) -> Request<Text> {
    let request = Request::post("/").header("host", "cart");
    request.body(body).unwrap()
}

#[tokio::test]
async fn a_request_may_take_so_long_and_no_longer() {
    let within = |request, backend_request| Timeouts {
        request,
        backend_request,
    };
    let timed = |timeouts| Rule {
        timeouts,
        ..rule().to("v1", 1)
    };
    let late = (
        StatusCode::GATEWAY_TIMEOUT,
        "upstream request timeout".to_owned(),
    );
    let good = (StatusCode::OK, "v1".to_owned());
    let mut shop = Shop::new(told()).await;
    let mut client = Http1::to(&shop.rig).await;
    for (name, rule, plan, want) in [
        (
            "all of it",
            timed(within(Some(LIMIT), None)),
            Plan::Never,
            &late,
        ),
        (
            "the one attempt",
            timed(within(None, Some(LIMIT))),
            Plan::Never,
            &late,
        ),
        (
            "no limit",
            timed(within(None, None)),
            Plan::Late(Duration::from_millis(100)),
            &good,
        ),
        (
            "another attempt",
            Rule {
                timeouts: within(None, Some(LIMIT)),
                ..retried(retry(2, &[]))
            },
            Plan::Never,
            &good,
        ),
    ] {
        shop.tell(told().ruled(vec![rule])).await;
        shop.v1.plan(plan);
        assert_eq!(&client.get("/").await, want, "{name}");
    }
    eventually("they are counted", || {
        shop.rig
            .metric("istio_requests_total", "response_flags=\"UT\"")
            == 2
    })
    .await;
    assert_eq!(shop.v1.asked().len(), 5);
}

#[tokio::test]
async fn time_runs_from_the_end_of_the_request_to_the_end_of_the_answer() {
    let timeouts = Timeouts {
        request: Some(LIMIT),
        backend_request: None,
    };
    let rules = vec![Rule {
        timeouts,
        ..rule().to("v1", 1)
    }];
    let shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    let (give, frames) = mpsc::channel(1);
    let frames = ReceiverStream::new(frames).map(|data: Bytes| Ok(Frame::data(data)));
    let asking = client.send(post(StreamBody::new(frames).boxed()));
    let asked = Instant::now();
    let sending = async {
        // The client takes its time.
        tokio::time::sleep(LIMIT * 2).await;
        give.send(Bytes::from_static(b"late")).await.unwrap();
        drop(give);
    };
    let (response, ()) = tokio::join!(asking, sending);
    assert_eq!(response.status(), StatusCode::OK);
    assert!(asked.elapsed() >= LIMIT * 2);
    assert_eq!(read(response.into_body()).await, "v1");
    assert_eq!(shop.v1.last().body, "late");

    // An answer that has begun can only be broken off.
    let (_open, frames) = mpsc::channel(1);
    let frames = ReceiverStream::new(frames).map(|data: Bytes| Ok(Frame::data(data)));
    let endless = Response::new(StreamBody::new(frames).boxed());
    shop.v1.plan(Plan::Answer(endless));
    let response = client.send(get("/")).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body = soon("the end", response.into_body().collect()).await;
    assert!(body.is_err(), "{body:?}");
    eventually("it is counted", || {
        shop.rig
            .metric("istio_requests_total", "response_flags=\"UT\"")
            == 1
    })
    .await;
}

#[tokio::test]
async fn a_grpc_client_says_how_long_it_waits() {
    let shop = Shop::new(told().ruled(vec![rule().to("v1", 1)])).await;
    let mut client = Http1::to(&shop.rig).await;
    shop.v1.plan(Plan::Never);
    let mut request = get("/");
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("grpc-timeout", "100m"),
    ] {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
    }
    let response = client.send(request).await;
    assert_eq!(response.headers().get("grpc-status").unwrap(), "14");
}

#[tokio::test]
async fn answers_are_asked_for_again_where_the_rule_says_so() {
    let shop = Shop::new(told().ruled(vec![retried(retry(3, &[500]))])).await;
    let mut client = Http1::to(&shop.rig).await;
    for (name, fails, want, asked) in [
        ("twice", &[500, 500][..], (200, "v1"), 3),
        ("too often", &[500; 4], (500, "500"), 4),
        ("another code", &[503], (503, "503"), 1),
    ] {
        let before = shop.v1.asked().len();
        for status in fails {
            shop.v1.answers(*status);
        }
        let (status, text) = client.get("/").await;
        assert_eq!((status.as_u16(), &*text), want, "{name}");
        assert_eq!(shop.v1.asked().len() - before, asked, "{name}");
    }
    eventually("it is counted", || {
        shop.rig
            .metric("istio_requests_total", "response_flags=\"URX\"")
            == 1
    })
    .await;
}

#[tokio::test]
async fn a_body_is_sent_again_whole_or_not_at_all() {
    let shop = Shop::new(told().ruled(vec![retried(retry(3, &[500]))])).await;
    let mut client = Http1::to(&shop.rig).await;
    for (name, size, want, asked) in [
        ("short", 10, 200, 2),
        ("as long as it may be", 1 << 20, 200, 2),
        ("too long", (1 << 20) + 1, 500, 1),
    ] {
        let before = shop.v1.asked().len();
        shop.v1.answers(500);
        let body: Vec<u8> = (0..size).map(|n: u32| b'a' + (n % 26) as u8).collect();
        let response = client.send(post(text(body.clone()))).await;
        assert_eq!(response.status().as_u16(), want, "{name}");
        read(response.into_body()).await;
        let asked_now = shop.v1.asked().split_off(before);
        assert_eq!(asked_now.len(), asked, "{name}");
        let whole = |a: &super::program::Asked| a.body.as_bytes() == body;
        assert!(asked_now.iter().all(whole), "{name}");
    }
}

/// Two endpoints of `cart`, of which one refuses connections.
async fn half_dead() -> (Rig, Program) {
    let mut rig = Rig::new().await;
    let program = Program::named("cart");
    let listener = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(program.clone().serve(listener));
    rig.dead_endpoint("cart-2", "10.1.0.12");
    (rig, program)
}

#[tokio::test]
async fn by_default_only_what_nobody_has_served_is_asked_again() {
    let (mut rig, program) = half_dead().await;
    rig.resources = Some(told());
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    for _ in 0..8 {
        assert_eq!(client.get("/").await.0, StatusCode::OK);
    }
    program.answers(503);
    assert_eq!(client.get("/").await.0, StatusCode::SERVICE_UNAVAILABLE);

    let shop = Shop::new(told()).await;
    let mut client = Http1::to(&shop.rig).await;
    let unavailable = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "14");
    let unavailable = unavailable.body(text("")).unwrap();
    shop.cart.plan(Plan::Answer(unavailable));
    let mut request = get("/");
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", grpc);
    let response = client.send(request).await;
    assert_eq!(response.headers().get("grpc-status"), None);
    assert_eq!(read(response.into_body()).await, "cart");
}

#[tokio::test]
async fn retries_can_be_switched_off() {
    let (mut rig, _program) = half_dead().await;
    let never = Retry {
        attempts: 0,
        ..Retry::usual()
    };
    let rules = vec![Rule {
        retry: Some(never),
        ..rule().to("cart", 1)
    }];
    rig.resources = Some(in_turns().ruled(rules));
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let mut refused = 0;
    for _ in 0..4 {
        let (status, _text) = client.get("/").await;
        refused += usize::from(status == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(refused, 2, "in turns");
    eventually("they are counted", || {
        rig.metric("istio_requests_total", "response_flags=\"UF\"") == 2
    })
    .await;
}
