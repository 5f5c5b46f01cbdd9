//! Copies of requests.

use ::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::Frame;

use super::http::{Http1, read};
use super::program::{Plan, Shop};
use crate::hbone::testing::eventually;
use crate::model::route::{Filter, Fraction, Mirror, Target};
use crate::waypoint::testing::told::{rule, target, told};

fn mirror(to: Target, share: Fraction) -> Filter<Target> {
    Filter::Mirror(Mirror { to, share })
}

async fn post(client: &mut Http1, body: String) {
    // Of a length that nobody is told beforehand.
    let frames = tokio_stream::iter([Ok(Frame::data(Bytes::from(body)))]);
    let request = Request::post("/x?y=1").header("host", "cart");
    let request = request.body(BoxBody::new(StreamBody::new(frames))).unwrap();
    let response = client.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(read(response.into_body()).await, "v1");
}

#[tokio::test]
async fn mirrors_get_a_copy_and_have_no_say() {
    let missing = Target::Invalid(std::sync::Arc::from("there is no such service"));
    let rules = vec![
        rule()
            .to("v1", 1)
            .with(mirror(target("v2"), Fraction::ALL))
            .with(mirror(missing, Fraction::ALL))
            .with(mirror(target("v3"), Fraction::ALL)),
    ];
    let shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    // One of them never answers.
    for _ in 0..20 {
        shop.v3.plan(Plan::Never);
    }
    for n in 0..20 {
        post(&mut client, format!("body {n}").repeat(1000)).await;
    }
    let mut wanted: Vec<_> = (0..20).map(|n| format!("body {n}").repeat(1000)).collect();
    wanted.sort();
    for mirror in [&shop.v2, &shop.v3] {
        eventually("each request has a copy", || mirror.asked().len() == 20).await;
        let mut bodies: Vec<_> = mirror.asked().into_iter().map(|a| a.body).collect();
        bodies.sort();
        assert!(bodies == wanted, "whole");
        let copy = mirror.last();
        assert_eq!(copy.header("host").as_deref(), Some("cart"));
        assert_eq!((copy.method.as_str(), &*copy.target), ("POST", "/x?y=1"));
    }
    assert_eq!(shop.rig.metric("lateen_mirrors_dropped_total", ""), 0);
}

#[tokio::test]
async fn a_get_keeps_the_body_that_it_has() {
    let rules = vec![rule().to("v1", 1).with(mirror(target("v2"), Fraction::ALL))];
    let shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    let frames = tokio_stream::iter([Ok(Frame::data(Bytes::from_static(b"what")))]);
    let request = Request::get("/")
        .header("host", "cart")
        .header("transfer-encoding", "chunked");
    let request = request.body(BoxBody::new(StreamBody::new(frames))).unwrap();
    assert_eq!(client.send(request).await.status(), StatusCode::OK);
    assert_eq!(shop.v1.last().body, "what");
    eventually("there is a copy", || shop.v2.asked().len() == 1).await;
    assert_eq!(shop.v2.last().body, "what");
}

#[tokio::test]
async fn a_share_is_mirrored() {
    let fifth = Fraction {
        numerator: 20,
        denominator: 100,
    };
    let rules = vec![rule().to("v1", 1).with(mirror(target("v2"), fifth))];
    let shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    for _ in 0..400 {
        post(&mut client, String::new()).await;
    }
    // Four standard deviations around 80.
    eventually("copies arrive", || shop.v2.asked().len() >= 48).await;
    assert!(shop.v2.asked().len() <= 112, "{}", shop.v2.asked().len());
}

#[tokio::test]
async fn a_mirror_that_is_too_slow_is_given_up() {
    let rules = vec![
        rule()
            .to("v1", 1)
            .with(mirror(target("empty"), Fraction::ALL)),
    ];
    let mut shop = Shop::new(told()).await;
    shop.rig.add_service("empty", "10.96.0.30");
    // Takes connections and nothing on them.
    let deaf = shop.rig.endpoint_of("empty", "empty-1", "10.1.0.30").await;
    shop.tell(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    post(&mut client, "a".repeat(20 << 20)).await;
    assert_eq!(shop.v1.last().body.len(), 20 << 20);
    assert_eq!(shop.rig.metric("lateen_mirrors_dropped_total", ""), 1);
    drop(deaf);
}
