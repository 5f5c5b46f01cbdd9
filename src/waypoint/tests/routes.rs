//! Requests go where routes have them go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;

use super::http::{Http1, Text, get, read, websocket};
use super::program::Shop;
use crate::hbone::testing::{eventually, soon};
use crate::model::route::{
    Abort, Cors, DirectResponse, Fault, Filter, Fraction, Kind, OriginPattern, PathChange,
    Redirect, Rule, Target, UnmatchedPreflights,
};
use crate::model::testing::{key, workload};
use crate::model::traffic::Settings;
use crate::model::waypoint::Resources;
use crate::waypoint::State;
use crate::waypoint::testing::told::{rule, set, told};

fn with(mut request: Request<Text>, name: &'static str, value: &str) -> Request<Text> {
    let value = HeaderValue::from_str(value).unwrap();
    request.headers_mut().append(name, value);
    request
}

fn header<'a>(response: &'a Response<Incoming>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|v| v.to_str().unwrap())
}

#[tokio::test]
async fn a_rule_takes_what_it_matches() {
    let rules = vec![rule().at("/v1").to("v1", 1), rule().at("/v2").to("v2", 1)];
    let shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    for (path, want) in [
        ("/v1", (200, "v1")),
        ("/v2/x", (200, "v2")),
        ("/v2/../v1", (200, "v1")),
        ("/", (404, "")),
        ("/v1x", (404, "")),
        ("/v1/%0", (400, "")),
    ] {
        let (status, text) = client.get(path).await;
        assert_eq!((status.as_u16(), &*text), want, "{path}");
    }
    assert_eq!(
        shop.v1.last().target,
        "/v1",
        "in the form it was matched in"
    );
    assert_eq!(shop.v1.last().header("host").as_deref(), Some("cart"));
    assert!(
        shop.cart.asked().is_empty(),
        "none falls through to the service"
    );
    eventually("both are counted", || {
        shop.rig
            .metric("istio_requests_total", "response_flags=\"NR\"")
            == 2
    })
    .await;
    // Of the backend, not of what was asked for.
    let v2 = "destination_service=\"v2.shop.mesh.internal\"";
    assert_eq!(shop.rig.metric("istio_requests_total", v2), 1);
    let mut request = get("/v1x");
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", grpc);
    let response = client.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "grpc-status"), Some("12"));
}

#[tokio::test]
async fn routes_are_of_the_service_that_was_asked_for() {
    let rules = vec![
        rule()
            .to("v1", 1)
            .with(Filter::ResponseHeaders(set("x-header-set", "set"))),
    ];
    let mut shop = Shop::new(told().ruled(rules)).await;
    shop.rig
        .bind_workload(workload("v1-1", &["10.1.0.21"]).of("v1"));
    shop.rig.publish().await;
    let mut client = Http1::to(&shop.rig).await;
    let response = client.send(get("/")).await;
    assert_eq!(header(&response, "x-header-set"), Some("set"));
    assert_eq!(read(response.into_body()).await, "v1");
    // `Host` says nothing about which service it is.
    let v2 = shop.rig.to("10.96.0.22:80".parse().unwrap()).await;
    let response = Http1::through(v2).await.send(get("/")).await;
    assert_eq!(header(&response, "x-header-set"), None);
    assert_eq!(read(response.into_body()).await, "v2");
}

#[tokio::test]
async fn what_names_the_port_is_tried_before_what_does_not() {
    let sets = |value| {
        let change = Filter::ResponseHeaders(set("x-of", value));
        vec![rule().to("v1", 1).with(change)]
    };
    let resources = told()
        .with_route(Kind::Http, "a-general", None, sets("general"))
        .with_route(Kind::Http, "b-port", Some(80), sets("port"));
    let shop = Shop::new(resources).await;
    for (port, want) in [(80, "port"), (9000, "general")] {
        let mut client = Http1::through(shop.rig.cart(port).await).await;
        let response = client.send(get("/")).await;
        assert_eq!(header(&response, "x-of"), Some(want), "{port}");
    }
}

#[tokio::test]
async fn a_port_that_is_left_open_is_the_one_asked_for() {
    let open = Target::Service {
        key: key("v1"),
        port: 0,
        subset: None,
    };
    let shop = Shop::new(told().ruled(vec![rule().with_backend(open, 1, Vec::new())])).await;
    for port in [80, 9000] {
        let mut client = Http1::through(shop.rig.cart(port).await).await;
        assert_eq!(client.get("/").await.1, "v1", "{port}");
    }
}

async fn shares(client: &mut Http1, requests: usize) -> BTreeMap<(u16, String), usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let (status, text) = client.get("/").await;
        *shares.entry((status.as_u16(), text)).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn backends_get_their_shares() {
    let split = rule().to("v1", 70).to("v2", 30).to("v3", 0);
    let mut shop = Shop::new(told().ruled(vec![split])).await;
    let mut client = Http1::to(&shop.rig).await;
    let seen = shares(&mut client, 600).await;
    let of = |name: &str| seen.get(&(200, name.to_owned())).copied().unwrap_or(0);
    // Four standard deviations of 600 draws.
    assert!((375..=465).contains(&of("v1")), "{seen:?}");
    assert_eq!((of("v1") + of("v2"), of("v3")), (600, 0), "{seen:?}");

    let missing = || Target::Invalid(Arc::from("there is no such service"));
    let half = rule().to("v1", 1).with_backend(missing(), 1, Vec::new());
    shop.tell(told().ruled(vec![half])).await;
    let seen = shares(&mut client, 200).await;
    let good = seen.get(&(200, "v1".to_owned())).copied().unwrap_or(0);
    let bad = seen.get(&(500, String::new())).copied().unwrap_or(0);
    assert!((70..=130).contains(&good) && good + bad == 200, "{seen:?}");

    shop.rig.add_service("empty", "10.96.0.30");
    let half = rule().to("v1", 1).to("empty", 1);
    shop.tell(told().ruled(vec![half])).await;
    let seen = shares(&mut client, 200).await;
    let unserved = (503, "no healthy upstream".to_owned());
    let bad = seen.get(&unserved).copied().unwrap_or(0);
    assert!((70..=130).contains(&bad) && seen.len() == 2, "{seen:?}");

    for (name, rule) in [
        ("no weight", rule().to("v1", 0).to("v2", 0)),
        ("no backend", rule()),
        ("missing", rule().with_backend(missing(), 1, Vec::new())),
        (
            "a filter that is not there",
            rule()
                .to("v1", 1)
                .with(Filter::Unresolved(Arc::from("there is no such plugin"))),
        ),
    ] {
        shop.tell(told().ruled(vec![rule])).await;
        let answer = client.get("/").await;
        let want = (StatusCode::INTERNAL_SERVER_ERROR, String::new());
        assert_eq!(answer, want, "{name}");
    }
    eventually("they are counted", || {
        shop.rig
            .metric("istio_requests_total", "response_flags=\"NC\"")
            >= 4
    })
    .await;
}

fn redirect(status: u16) -> Redirect {
    Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status,
    }
}

#[tokio::test]
async fn a_rule_may_answer_by_itself() {
    let text = |text: &str| Some(Arc::from(text));
    let elsewhere = Redirect {
        host: text("example.org"),
        ..redirect(302)
    };
    let mut shop = Shop::new(told()).await;
    let mut client = Http1::to(&shop.rig).await;
    for (name, at, answer, path, want) in [
        (
            "a host",
            "/",
            elsewhere.clone(),
            "/x",
            (302, "http://example.org/x"),
        ),
        (
            "a status",
            "/",
            Redirect {
                status: 301,
                ..elsewhere
            },
            "/x",
            (301, "http://example.org/x"),
        ),
        (
            "a scheme",
            "/",
            Redirect {
                scheme: text("https"),
                ..redirect(302)
            },
            "/x",
            (302, "https://cart/x"),
        ),
        (
            "a port",
            "/",
            Redirect {
                port: Some(8083),
                ..redirect(308)
            },
            "/x",
            (308, "http://cart:8083/x"),
        ),
        (
            "a path",
            "/old",
            Redirect {
                path: Some(PathChange::Prefix(Arc::from("/new"))),
                ..redirect(303)
            },
            "/old/lemon?q=1",
            (303, "http://cart/new/lemon?q=1"),
        ),
    ] {
        let rules = vec![rule().at(at).with(Filter::Redirect(answer))];
        shop.tell(told().ruled(rules)).await;
        let response = client.send(get(path)).await;
        let location = header(&response, "location").unwrap_or_default();
        assert_eq!((response.status().as_u16(), location), want, "{name}");
        assert_eq!(read(response.into_body()).await, "", "{name}");
    }
    let direct = DirectResponse {
        status: 418,
        body: Arc::from("short and stout"),
    };
    let rules = vec![rule().with(Filter::Direct(direct))];
    shop.tell(told().ruled(rules)).await;
    let (status, text) = client.get("/").await;
    assert_eq!((status.as_u16(), &*text), (418, "short and stout"));
}

#[tokio::test]
async fn a_fault_is_done_on_purpose() {
    let delay = Duration::from_millis(200);
    let none = Fraction {
        numerator: 0,
        denominator: 100,
    };
    let fault = |delay, abort| {
        let fault = Fault { delay, abort };
        vec![Rule {
            fault,
            ..rule().to("v1", 1)
        }]
    };
    let abort = (Abort::Http(418), Fraction::ALL);
    let mut shop = Shop::new(told().ruled(fault(Some((delay, Fraction::ALL)), Some(abort)))).await;
    let mut client = Http1::to(&shop.rig).await;
    let asked = Instant::now();
    let (status, text) = client.get("/").await;
    assert_eq!((status.as_u16(), &*text), (418, "fault filter abort"));
    assert!(asked.elapsed() >= delay, "{:?}", asked.elapsed());
    assert!(shop.v1.asked().is_empty());
    eventually("it is counted", || {
        let flags = "response_flags=\"DI,FI\"";
        shop.rig.metric("istio_requests_total", flags) == 1
    })
    .await;

    let rare = fault(
        Some((Duration::from_secs(3600), none)),
        Some((Abort::Http(418), none)),
    );
    shop.tell(told().ruled(rare)).await;
    assert_eq!(client.get("/").await, (StatusCode::OK, "v1".to_owned()));

    let grpc = fault(None, Some((Abort::Grpc(8), Fraction::ALL)));
    shop.tell(told().ruled(grpc)).await;
    let response = client.send(get("/")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "grpc-status"), Some("8"));
}

fn cors() -> Cors {
    let text = |text: &str| Arc::from(text);
    Cors {
        allow_origins: vec![
            OriginPattern::Exact(text("https://www.foo.com")),
            OriginPattern::Wildcard(text("https://"), text(".bar.com")),
        ],
        allow_methods: vec![text("GET"), text("OPTIONS")],
        allow_headers: vec![text("x-header-1")],
        expose_headers: Vec::new(),
        allow_credentials: true,
        max_age: Some(Duration::from_secs(3600)),
        unmatched_preflights: UnmatchedPreflights::Refuse,
    }
}

fn preflight(origin: &str) -> Request<Text> {
    let request = Request::options("/").header("host", "cart");
    let request = request.body(Empty::new().boxed()).unwrap();
    let request = with(request, "origin", origin);
    with(request, "access-control-request-method", "GET")
}

#[tokio::test]
async fn browsers_are_told_what_they_may() {
    let rules = vec![rule().to("v1", 1).with(Filter::Cors(cors()))];
    let mut shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    let allowed = "access-control-allow-origin";
    let response = client.send(preflight("https://www.foo.com")).await;
    assert_eq!(response.status(), StatusCode::OK);
    for (name, want) in [
        (allowed, "https://www.foo.com"),
        ("access-control-allow-methods", "GET"),
        ("access-control-allow-headers", "x-header-1"),
        ("access-control-max-age", "3600"),
        ("access-control-allow-credentials", "true"),
    ] {
        let told = header(&response, name);
        assert!(
            told.is_some_and(|told| told.contains(want)),
            "{name}: {told:?}"
        );
    }
    for (origin, want) in [
        ("https://xpto.www.bar.com", Some("https://xpto.www.bar.com")),
        ("https://foobar.com", None),
    ] {
        let response = client.send(preflight(origin)).await;
        assert_eq!(response.status(), StatusCode::OK, "{origin}");
        assert_eq!(header(&response, allowed), want, "{origin}");
    }
    assert!(shop.v1.asked().is_empty(), "a preflight stays here");
    for (origin, want) in [
        ("https://www.foo.com", Some("https://www.foo.com")),
        ("https://foobar.com", None),
    ] {
        let response = client.send(with(get("/"), "origin", origin)).await;
        assert_eq!(header(&response, allowed), want, "{origin}");
        assert_eq!(read(response.into_body()).await, "v1", "{origin}");
    }

    let anybody = Cors {
        allow_origins: vec![OriginPattern::Any],
        allow_methods: vec![Arc::from("*")],
        allow_credentials: true,
        ..cors()
    };
    let rules = vec![rule().to("v1", 1).with(Filter::Cors(anybody))];
    shop.tell(told().ruled(rules)).await;
    let mut request = preflight("https://any.example");
    let put = HeaderValue::from_static("PUT");
    request
        .headers_mut()
        .insert("access-control-request-method", put);
    let response = client.send(request).await;
    assert_eq!(header(&response, allowed), Some("https://any.example"));
    let methods = header(&response, "access-control-allow-methods");
    assert_eq!(methods, Some("PUT"));
}

#[tokio::test]
async fn what_it_was_not_told_is_not_served() {
    let shop_of = |name| {
        let mut resources = told().ruled(vec![rule().to("v1", 1)]);
        match name {
            "the service" => {
                resources.services.remove(&key("cart"));
            }
            "the route" => resources.routes.clear(),
            "the backend" => {
                resources.services.remove(&key("v1"));
            }
            "the backend's traffic policy" => {
                resources = resources.treated("v1", Settings::default());
                resources.traffic.clear();
            }
            "its own traffic policy" => {
                resources = told().treated("cart", Settings::default());
                resources.traffic.clear();
            }
            "the subset" => {
                let subset = Target::Service {
                    key: key("v1"),
                    port: 80,
                    subset: Some(Arc::from("blue")),
                };
                let rules = vec![rule().with_backend(subset, 1, Vec::new())];
                resources = told().ruled(rules);
            }
            _ => {}
        }
        resources
    };
    let mut shop = Shop::new(told()).await;
    let mut client = Http1::to(&shop.rig).await;
    for (name, want) in [
        ("nothing is missing", 200),
        ("the service", 503),
        ("the route", 503),
        ("the backend", 503),
        ("the backend's traffic policy", 503),
        ("its own traffic policy", 503),
        ("the subset", 503),
    ] {
        shop.tell(shop_of(name)).await;
        let (status, _text) = client.get("/").await;
        assert_eq!(status.as_u16(), want, "{name}");
    }
    assert!(
        shop.cart.asked().is_empty(),
        "nor sent on as if there were none"
    );
    assert_eq!(shop.v1.asked().len(), 1, "nor in plain text");
}

#[tokio::test]
async fn one_that_is_not_told_of_itself_does_not_serve() {
    let mut shop = Shop::new(told()).await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(client.get("/").await.0, StatusCode::OK);
    shop.rig.resources = Some(Resources {
        gateway: None,
        ..told()
    });
    shop.rig.tell();
    let untold = |s: &State| matches!(s, State::Pending(r) if r.contains("not told of itself"));
    let pending = shop.rig.state.wait_for(untold);
    soon("it does not serve", pending).await.unwrap();
    let reports = shop.rig.reports.borrow().waypoints.clone();
    let told_of = reports
        .values()
        .any(|w| format!("{w:?}").contains("not told of itself"));
    assert!(told_of, "its peers go by another: {reports:?}");
    shop.tell(told()).await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(client.get("/").await.0, StatusCode::OK, "once it is told");
}

#[tokio::test]
async fn a_websocket_goes_where_its_rule_has_it_go() {
    let rules = vec![rule().at("/chat").to("chat", 1), rule().to("v1", 1)];
    let mut shop = Shop::new(told()).await;
    shop.rig.add_service("chat", "10.96.0.31");
    let program = shop.rig.endpoint_of("chat", "chat-1", "10.1.0.31").await;
    shop.rig.run(websocket(program));
    shop.tell(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    let request = Request::get("/chat")
        .header("host", "cart")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "k");
    let request = request.body(Empty::new().boxed()).unwrap();
    let response = client.send(request).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let stream = soon("the switch", hyper::upgrade::on(response));
    let mut stream = TokioIo::new(stream.await.unwrap());
    let mut heard = [0; 5];
    soon("its words", stream.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(&heard, b"hello");
}
