//! Which endpoint a request gets, which are left alone, and what is too much.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Request, StatusCode, Version, header};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::http::{Http1, Text, get, read};
use super::program::{Plan, Program};
use crate::hbone::TunnelIo;
use crate::hbone::testing::{eventually, soon};
use crate::model::route::{Rule, Timeouts};
use crate::model::traffic::{Balance, HashKey, HashTable, OutlierDetection, Settings};
use crate::waypoint::testing::told::{rule, settings, told};
use crate::waypoint::testing::{Rig, echo};

/// So many endpoints of `cart`, which the waypoint treats so.
async fn served(count: usize, policy: Settings) -> (Rig, Vec<Program>) {
    let mut rig = Rig::new().await;
    let names = ["one", "two", "three"];
    let programs: Vec<_> = names[..count].iter().map(|n| Program::named(n)).collect();
    for (at, program) in programs.iter().enumerate() {
        let (name, address) = (format!("cart-{at}"), format!("10.1.0.{}", 11 + at));
        let listener = rig.plain_endpoint(&name, &address).await;
        rig.run(program.clone().serve(listener));
    }
    rig.resources = Some(told().treated("cart", policy));
    rig.publish().await;
    (rig, programs)
}

fn hashing(key: HashKey) -> Settings {
    settings(|s| {
        let table = HashTable::default();
        s.load_balancer.policy = Balance::Hash { key, table };
    })
}

fn with(name: &'static str, value: &str) -> Request<Text> {
    let mut request = get("/");
    let value = HeaderValue::from_str(value).unwrap();
    request.headers_mut().insert(name, value);
    request
}

/// Who answers so many requests, and how often.
async fn answers(
    client: &mut Http1,
    count: usize,
    request: impl Fn() -> Request<Text>,
) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let answer = client.send(request()).await;
        *answers.entry(read(answer.into_body()).await).or_default() += 1;
    }
    answers
}

#[tokio::test]
async fn requests_are_balanced_by_a_header_field() {
    let (rig, _programs) = served(3, hashing(HashKey::Header(Arc::from("x-user")))).await;
    let mut client = Http1::to(&rig).await;
    let mut owners = BTreeMap::new();
    for user in ["ann", "bob", "eve", "joe", "kim", "sue"] {
        let by = answers(&mut client, 20, || with("x-user", user)).await;
        assert_eq!(by.len(), 1, "{user}: {by:?}");
        owners.extend(by);
    }
    assert!(owners.len() > 1, "users are spread: {owners:?}");
    let by = answers(&mut client, 100, || get("/")).await;
    assert_eq!(by.len(), 3, "without the field: {by:?}");
}

#[tokio::test]
async fn requests_are_balanced_by_a_cookie_that_is_issued() {
    let key = HashKey::Cookie {
        name: Arc::from("user"),
        path: None,
        ttl: Some(Duration::from_secs(60)),
    };
    let (rig, _programs) = served(3, hashing(key)).await;
    let mut client = Http1::to(&rig).await;
    for _ in 0..5 {
        let first = client.send(get("/")).await;
        let issued = first.headers().get(header::SET_COOKIE).unwrap().clone();
        let issued = issued.to_str().unwrap().to_owned();
        assert!(issued.contains("; Max-Age=60"), "{issued}");
        let owner = read(first.into_body()).await;
        let pair = issued.split(';').next().unwrap();
        let again = client.send(with("cookie", pair)).await;
        assert!(!again.headers().contains_key(header::SET_COOKIE));
        assert_eq!(read(again.into_body()).await, owner);
        let by = answers(&mut client, 10, || with("cookie", pair)).await;
        assert_eq!(by.into_keys().collect::<Vec<_>>(), [owner]);
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_alone() {
    let policy = settings(|s| s.outlier_detection = Some(OutlierDetection::default()));
    let (rig, programs) = served(2, policy).await;
    for _ in 0..100 {
        programs[0].answers(500);
    }
    let mut client = Http1::to(&rig).await;
    let by = answers(&mut client, 100, || get("/")).await;
    assert_eq!(by["500"], 5, "{by:?}");
    assert_eq!(by["two"], 95, "{by:?}");
    assert_eq!(rig.metric("lateen_outlier_ejections_total", "cart"), 1);
    eventually("who is left alone is told", || {
        rig.metric("lateen_outlier_ejected", "cart") == 1
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_fails_however_it_does() {
    let policy = settings(|s| {
        s.outlier_detection = Some(OutlierDetection {
            consecutive_5xx: 2,
            ..OutlierDetection::default()
        });
    });
    let (mut rig, _programs) = served(1, policy).await;
    let listener = rig.plain_endpoint("cart-9", "10.1.0.19").await;
    // One that takes connections and says nothing on them.
    rig.run(async move {
        while let Ok((tcp, _from)) = listener.accept().await {
            drop(tcp);
        }
    });
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let by = answers(&mut client, 50, || get("/")).await;
    assert!(by["one"] >= 48, "{by:?}");
    assert_eq!(rig.metric("lateen_outlier_ejections_total", "cart"), 1);
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_left_alone() {
    let timed = |timeouts| Rule {
        timeouts,
        ..rule().to("cart", 1)
    };
    let limit = Some(Duration::from_millis(200));
    let all = Timeouts {
        request: limit,
        backend_request: None,
    };
    let of_the_client: fn() -> Request<Text> = || {
        let mut request = with("grpc-timeout", "200m");
        let grpc = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert(header::CONTENT_TYPE, grpc);
        request
    };
    for (name, timeouts, request) in [
        ("the rule's limit", all, (|| get("/")) as fn() -> _),
        ("the client's limit", Timeouts::default(), of_the_client),
    ] {
        let policy = settings(|s| {
            s.outlier_detection = Some(OutlierDetection {
                consecutive_5xx: 2,
                ..OutlierDetection::default()
            });
        });
        let (mut rig, programs) = served(2, policy.clone()).await;
        for _ in 0..100 {
            programs[0].plan(Plan::Never);
        }
        let rules = vec![timed(timeouts)];
        rig.resources = Some(told().treated("cart", policy).ruled(rules));
        rig.publish().await;
        let mut client = Http1::to(&rig).await;
        let by = answers(&mut client, 30, request).await;
        assert_eq!(by["two"], 28, "{name}: {by:?}");
        let out = rig.metric("lateen_outlier_ejections_total", "cart");
        assert_eq!(out, 1, "{name}");
    }
}

#[tokio::test]
async fn requests_stay_in_the_zone_while_somebody_is_well_there() {
    for (name, detects, want) in [
        ("with outlier-detection", true, &["one"][..]),
        ("without", false, &["one", "two"]),
    ] {
        let policy = settings(|s| {
            s.outlier_detection = detects.then(OutlierDetection::default);
        });
        let (mut rig, programs) = served(2, policy).await;
        for (workload, zone) in [("wp-1", "a"), ("cart-0", "a"), ("cart-1", "b")] {
            rig.change(workload, |w| w.locality.zone = Arc::from(zone));
        }
        rig.publish().await;
        let mut client = Http1::to(&rig).await;
        let by = answers(&mut client, 60, || get("/")).await;
        assert_eq!(by.into_keys().collect::<Vec<_>>(), want, "{name}");
        rig.unplug("10.1.0.11");
        // What waits for it still stands, and it closes that.
        programs[0].leaves();
        let by = answers(&mut client, 60, || get("/")).await;
        assert_eq!(by.into_keys().collect::<Vec<_>>(), ["two"], "{name}");
    }
}

/// Sends requests at once, each by a connection of its own; their statuses and texts as they come.
async fn at_once(rig: &Rig, count: usize) -> (mpsc::Receiver<(StatusCode, String)>, JoinSet<()>) {
    let (tell, told) = mpsc::channel(count);
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let mut client = Http1::to(rig).await;
        let tell = tell.clone();
        clients.spawn(async move {
            let answer = client.get("/").await;
            tell.send(answer).await.unwrap();
        });
    }
    (told, clients)
}

#[tokio::test]
async fn what_is_over_a_limit_is_turned_away_at_once() {
    let connections: fn(&mut Settings) = |s| {
        s.connection_pool.max_connections = 1;
        s.connection_pool.max_pending_requests = 1;
    };
    let requests: fn(&mut Settings) = |s| s.connection_pool.max_requests = 2;
    for (name, limits) in [("connections", connections), ("requests", requests)] {
        let (rig, programs) = served(1, settings(limits)).await;
        let (mut over, mut held) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (end, until) = oneshot::channel();
            programs[0].plan(Plan::Until(until));
            held.push(end);
        }
        let (mut answers, _clients) = at_once(&rig, 10).await;
        for _ in 0..8 {
            over.push(soon(name, answers.recv()).await.unwrap());
        }
        let text =
            "upstream connect error or disconnect/reset before headers. reset reason: overflow";
        let want = (StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
        assert!(
            over.iter().all(|answer| *answer == want),
            "{name}: {over:?}"
        );
        assert!(answers.try_recv().is_err(), "{name}: two wait");
        drop(held);
        for _ in 0..2 {
            let (status, _text) = soon(name, answers.recv()).await.unwrap();
            assert_eq!(status, StatusCode::OK, "{name}");
        }
        let flag = "response_flags=\"UO\"";
        assert_eq!(rig.metric("istio_requests_total", flag), 8, "{name}");
    }
}

/// Plans that the next requests wait until what is returned is dropped.
fn hold(program: &Program, count: usize) -> Vec<oneshot::Sender<()>> {
    let planned = (0..count).map(|_| {
        let (end, until) = oneshot::channel();
        program.plan(Plan::Until(until));
        end
    });
    planned.collect()
}

#[tokio::test]
async fn a_limit_holds_for_connections_that_came_before_it() {
    let (mut rig, programs) = served(1, Settings::default()).await;
    let held = hold(&programs[0], 4);
    let (mut answers, _clients) = at_once(&rig, 4).await;
    let all_there = async {
        while programs[0].asked().len() < 4 {
            tokio::task::yield_now().await;
        }
    };
    soon("four connections", all_there).await;
    drop(held);
    for _ in 0..4 {
        soon("an answer", answers.recv()).await.unwrap();
    }
    let one = settings(|s| {
        s.connection_pool.max_connections = 1;
        s.connection_pool.max_pending_requests = 1;
    });
    rig.resources = Some(told().treated("cart", one));
    rig.publish().await;
    let held = hold(&programs[0], 2);
    let (mut answers, _clients) = at_once(&rig, 10).await;
    for _ in 0..8 {
        let (status, text) = soon("who is over", answers.recv()).await.unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    }
    assert!(answers.try_recv().is_err(), "two wait");
    drop(held);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_makes_room() {
    let policy = settings(|s| s.connection_pool.max_connections = 1);
    let (rig, _programs) = served(2, policy).await;
    let mut client = Http1::to(&rig).await;
    // Each endpoint in its turn takes the one connection there may be.
    let by = answers(&mut client, 40, || get("/")).await;
    assert_eq!(by.len(), 2, "{by:?}");
}

#[tokio::test]
async fn a_connection_serves_so_many_requests() {
    let policy = settings(|s| s.connection_pool.max_requests_per_connection = 3);
    let (rig, _programs) = served(1, policy).await;
    let mut client = Http1::to(&rig).await;
    answers(&mut client, 9, || get("/")).await;
    let dials = rig
        .connector
        .dials
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(dials, 3);
}

#[tokio::test]
async fn what_is_spoken_may_be_said() {
    let upgraded: fn(&mut Settings) = |s| s.connection_pool.h2_upgrade = true;
    let clients: fn(&mut Settings) = |s| {
        s.connection_pool.h2_upgrade = true;
        s.connection_pool.use_client_protocol = true;
    };
    for (name, say, want) in [
        ("neither", (|_| {}) as fn(&mut Settings), Version::HTTP_11),
        ("upgraded", upgraded, Version::HTTP_2),
        ("the client's", clients, Version::HTTP_11),
    ] {
        let (rig, programs) = served(1, settings(say)).await;
        let mut client = Http1::to(&rig).await;
        answers(&mut client, 2, || get("/")).await;
        assert_eq!(programs[0].last().version, want, "{name}");
    }
}

#[tokio::test]
async fn retries_may_be_forbidden() {
    let policy = settings(|s| s.connection_pool.max_retries = 0);
    let (mut rig, _programs) = served(1, policy).await;
    rig.dead_endpoint("cart-9", "10.1.0.19");
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let by = answers(&mut client, 40, || get("/")).await;
    assert_eq!(by.len(), 2, "some fail: {by:?}");
    assert!(by["one"] > 5, "{by:?}");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed() {
    let mut rig = Rig::new().await;
    let program = rig.plain_endpoint("cart-1", "10.1.0.11").await;
    rig.run(echo(program, "cart-1"));
    let policy = settings(|s| s.connection_pool.max_connections = 1);
    rig.resources = Some(told().treated("cart", policy));
    rig.publish().await;
    let mut first = TunnelIo::new(rig.cart(90).await);
    let mut banner = [0; 6];
    let heard = first.read_exact(&mut banner);
    soon("a banner", heard).await.unwrap();
    let mut second = TunnelIo::new(rig.cart(90).await);
    let mut nothing = Vec::new();
    let heard = second.read_to_end(&mut nothing);
    assert_eq!(soon("its end", heard).await.unwrap(), 0);
    let flag = "response_flags=\"UO\"";
    assert_eq!(rig.metric("istio_tcp_connections_failed", flag), 1);
    drop(first);
    eventually("there is room again", || {
        rig.metric("istio_tcp_connections_closed", "reporter=\"waypoint\"") == 1
    })
    .await;
    let mut third = TunnelIo::new(rig.cart(90).await);
    let heard = third.read_exact(&mut banner);
    soon("a banner", heard).await.unwrap();
}
