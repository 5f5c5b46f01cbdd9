//! Clients that stay with an endpoint.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Request, StatusCode};

use super::http::{Http1, Text, get, read};
use super::program::{Program, Shop};
use crate::model::route::{PersistBy, Persistence, Rule, Target};
use crate::waypoint::testing::told::{rule, told};

fn persisting(by: PersistBy, absolute_timeout: Option<Duration>) -> Rule<Target> {
    Rule {
        persistence: Some(Persistence {
            by,
            absolute_timeout,
        }),
        ..rule().to("v1", 1).to("v2", 1)
    }
}

fn cookie(permanent: bool) -> PersistBy {
    PersistBy::Cookie {
        name: Arc::from("sess"),
        path: Arc::from("/shop"),
        permanent,
    }
}

fn with(name: &'static str, value: &str) -> Request<Text> {
    let mut request = get("/");
    let value = HeaderValue::from_str(value).unwrap();
    request.headers_mut().insert(name, value);
    request
}

/// Adds a second endpoint to `v1` and to `v2`, told apart by what they answer.
async fn widen(shop: &mut Shop) {
    for (service, name, address) in [("v1", "v1b", "10.1.0.41"), ("v2", "v2b", "10.1.0.42")] {
        let listener = shop.rig.endpoint_of(service, name, address).await;
        shop.rig.run(Program::named(name).serve(listener));
    }
}

#[tokio::test]
async fn a_cookie_keeps_a_client_with_its_endpoint() {
    let mut shop = Shop::new(told()).await;
    widen(&mut shop).await;
    let age = Duration::from_secs(600);
    shop.tell(told().ruled(vec![persisting(cookie(true), Some(age))]))
        .await;
    let mut client = Http1::to(&shop.rig).await;
    let response = client.send(get("/")).await;
    let told_cookie = response.headers().get("set-cookie").unwrap();
    let told_cookie = told_cookie.to_str().unwrap().to_owned();
    for want in ["sess=", "; Path=/shop", "; Max-Age=600"] {
        assert!(told_cookie.contains(want), "{want}: {told_cookie}");
    }
    let mine = read(response.into_body()).await;
    let token = told_cookie.split(';').next().unwrap();
    let token = format!("other=1; {token}");
    for _ in 0..12 {
        let response = client.send(with("cookie", &token)).await;
        assert_eq!(response.headers().get("set-cookie"), None, "nothing is new");
        assert_eq!(
            read(response.into_body()).await,
            mine,
            "in spite of weights and turns"
        );
    }
    // Nobody but the waypoint makes tokens.
    let forged = client.send(with("cookie", "sess=AAAA")).await;
    assert!(forged.headers().contains_key("set-cookie"));
    read(forged.into_body()).await;

    let uid = match &*mine {
        "v1" => "v1-1",
        "v2" => "v2-1",
        other => other,
    }
    .to_owned();
    shop.rig.change(&uid, |w| w.capacity = 0);
    shop.rig.publish().await;
    let response = client.send(with("cookie", &token)).await;
    let served = read(response.into_body()).await;
    assert_eq!(served, mine, "it takes no new clients, and keeps this one");
    shop.rig.change(&uid, |w| w.services.clear());
    shop.rig.publish().await;
    let response = client.send(with("cookie", &token)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().contains_key("set-cookie"), "a new one");
    assert_ne!(read(response.into_body()).await, mine, "it has gone");
}

#[tokio::test]
async fn so_does_a_header() {
    let by = PersistBy::Header {
        name: Arc::from("x-session"),
    };
    let mut shop = Shop::new(told()).await;
    widen(&mut shop).await;
    shop.tell(told().ruled(vec![persisting(by, None)])).await;
    let mut client = Http1::to(&shop.rig).await;
    let response = client.send(get("/")).await;
    let token = response.headers().get("x-session").unwrap();
    let token = token.to_str().unwrap().to_owned();
    let mine = read(response.into_body()).await;
    for _ in 0..12 {
        let response = client.send(with("x-session", &token)).await;
        assert_eq!(read(response.into_body()).await, mine);
    }
}

#[tokio::test]
async fn another_instance_with_the_same_key_reads_the_token() {
    let rule = || persisting(cookie(false), None);
    let mut shops = Vec::new();
    for _ in 0..2 {
        let mut shop = Shop::new(told()).await;
        widen(&mut shop).await;
        shop.tell(told().ruled(vec![rule()])).await;
        shops.push(shop);
    }
    let mut client = Http1::to(&shops[0].rig).await;
    let response = client.send(get("/")).await;
    let cookie = response.headers().get("set-cookie").unwrap().clone();
    let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
    let mine = read(response.into_body()).await;
    let mut other = Http1::to(&shops[1].rig).await;
    for _ in 0..8 {
        let response = other.send(with("cookie", cookie)).await;
        assert_eq!(response.headers().get("set-cookie"), None);
        assert_eq!(read(response.into_body()).await, mine);
    }
}
