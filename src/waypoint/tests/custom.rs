//! Providers that are asked whether a request may go on.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::http::{Http1, Text, get, read, text};
use super::program::{Plan, Shop};
use crate::hbone::TunnelIo;
use crate::hbone::testing::soon;
use crate::model::declaration::{
    CheckOver, CheckedBody, ExtAuthz, HttpCheck, Operation, PathPattern, Rule, Values,
};
use crate::model::policy::Pattern;
use crate::model::route::{Match, Target, TextMatch};
use crate::model::waypoint::Resources;
use crate::waypoint::testing::echo;
use crate::waypoint::testing::told::{custom, rule, target, told};
use crate::wire::proto::ext_authz as proto;
use proto::check_response::HttpResponse;

fn check(over: CheckOver) -> ExtAuthz {
    ExtAuthz {
        timeout: Duration::from_secs(5),
        fail_open: false,
        status_on_error: StatusCode::FORBIDDEN,
        clear_route_cache: false,
        body: None,
        over,
    }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|t| Pattern::parse(t).unwrap()).collect()
}

/// What may be said of `x-ext`, and is asked by `x-ask`.
fn over_http() -> HttpCheck {
    HttpCheck {
        path_prefix: Arc::from("/check"),
        request_headers: patterns(&["x-ask"]),
        additional_headers: vec![(
            HeaderName::from_static("x-mesh"),
            HeaderValue::from_static("shop"),
        )],
        upstream_on_allow: patterns(&["x-ext"]),
        downstream_on_allow: patterns(&["x-told", "set-cookie"]),
        downstream_on_deny: None,
    }
}

/// All that begins with a path.
fn under(path: &str) -> Vec<Rule> {
    let paths = Values {
        any: vec![PathPattern::Text(Pattern::parse(path).unwrap())],
        not: Vec::new(),
    };
    let operation = Operation {
        paths,
        ..Operation::default()
    };
    vec![Rule {
        to: vec![operation],
        ..Rule::default()
    }]
}

/// Everything is asked about at a provider.
fn asking(to: Target, check: ExtAuthz) -> Resources {
    let policies = vec![custom("opa", vec![Rule::default()])];
    told().authorized(policies).asking("opa", to, check)
}

fn answer(status: u16, fields: &[(&str, &str)], body: &'static str) -> Plan {
    let mut answer = Response::builder().status(status);
    for (name, value) in fields {
        answer = answer.header(*name, *value);
    }
    Plan::Answer(answer.body(text(body)).unwrap())
}

fn evil(path: &str) -> Request<Text> {
    let mut request = get(path);
    let headers = request.headers_mut();
    for (name, value) in [
        ("x-ext", "evil"),
        ("x-ask", "why"),
        ("x-own", "own"),
        ("authorization", "Bearer t"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    request
}

#[tokio::test]
async fn who_is_allowed_goes_on_with_what_the_provider_says() {
    let over = CheckOver::Http(over_http());
    let shop = Shop::new(asking(target("v1"), check(over))).await;
    let mut client = Http1::to(&shop.rig).await;
    let says = [
        ("x-ext", "a"),
        ("x-told", "b"),
        ("x-own", "c"),
        ("set-cookie", "d=1"),
    ];
    shop.v1.plan(answer(200, &says, ""));
    let cookie = [("set-cookie", "e=1"), ("x-told", "app")];
    shop.cart.plan(answer(200, &cookie, "cart"));
    let response = client.send(evil("/x?y=1")).await;
    assert_eq!(response.status(), StatusCode::OK);
    let told = |name: &str| -> Vec<_> {
        let values = response.headers().get_all(name).iter();
        values.map(|v| v.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(told("x-told"), ["b"], "in place of the program's");
    assert_eq!(told("set-cookie"), ["e=1", "d=1"], "beside the program's");
    let asked = shop.v1.last();
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("GET", "/check/x?y=1")
    );
    for (name, want) in [
        ("host", Some("cart")),
        ("content-length", Some("0")),
        ("authorization", Some("Bearer t")),
        ("x-ask", Some("why")),
        ("x-mesh", Some("shop")),
        ("x-own", None),
        ("x-ext", None),
    ] {
        assert_eq!(asked.header(name).as_deref(), want, "{name}");
    }
    let app = shop.cart.last();
    assert_eq!(app.target, "/x?y=1");
    assert_eq!(app.header("x-ext").as_deref(), Some("a"));
    assert_eq!(
        app.header("x-own").as_deref(),
        Some("own"),
        "not its to say"
    );
    // What it leaves out the client does not say in its place.
    shop.v1.plan(answer(200, &[], ""));
    assert_eq!(client.send(evil("/x")).await.status(), StatusCode::OK);
    assert_eq!(shop.cart.last().header("x-ext"), None);
    let outcome = "outcome=\"allowed\"";
    assert_eq!(shop.rig.metric("lateen_provider_checks", outcome), 2);
}

#[tokio::test]
async fn who_is_denied_is_told_as_the_provider_says() {
    let over = CheckOver::Http(over_http());
    let shop = Shop::new(asking(target("v1"), check(over))).await;
    let mut client = Http1::to(&shop.rig).await;
    let fields = [("location", "/login"), ("content-type", "text/html")];
    shop.v1.plan(answer(401, &fields, "<p>who?</p>"));
    let response = client.send(evil("/x")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["location"], "/login");
    assert_eq!(response.headers()["content-type"], "text/html");
    assert_eq!(read(response.into_body()).await, "<p>who?</p>");
    // gRPC has its own words for it.
    shop.v1.plan(answer(401, &[], "who?"));
    let mut request = get("/shop.Cart/Get");
    let kind = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", kind);
    let response = client.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "16");
    assert_eq!(response.headers()["grpc-message"], "who?");
    assert!(shop.cart.asked().is_empty());
    let outcome = "response_flags=\"UAEX\"";
    crate::hbone::testing::eventually("both are counted", || {
        shop.rig.metric("istio_requests_total", outcome) == 2
    })
    .await;
}

#[tokio::test]
async fn who_cannot_be_asked_has_not_allowed_it() {
    let over = || CheckOver::Http(over_http());
    let quick = ExtAuthz {
        timeout: Duration::from_millis(200),
        status_on_error: StatusCode::SERVICE_UNAVAILABLE,
        ..check(over())
    };
    let open = ExtAuthz {
        fail_open: true,
        ..quick.clone()
    };
    let busy = || answer(503, &[], "busy");
    let endless = || Plan::Answer(Response::new(text("a".repeat((256 << 10) + 1))));
    let nobody = || Target::Invalid(Arc::from("there is no such service"));
    let mut shop = Shop::new(told()).await;
    type Planned<'a> = Option<&'a dyn Fn() -> Plan>;
    let rows: [(&str, Target, &ExtAuthz, Planned<'_>, u16); 10] = [
        (
            "an error of its own",
            target("v1"),
            &check(over()),
            Some(&busy),
            403,
        ),
        (
            "with a status for it",
            target("v1"),
            &quick,
            Some(&busy),
            503,
        ),
        ("too slow", target("v1"), &quick, Some(&|| Plan::Never), 503),
        ("endless", target("v1"), &quick, Some(&endless), 503),
        ("without endpoints", target("empty"), &quick, None, 503),
        ("nobody", nobody(), &quick, None, 503),
        ("an error, and open", target("v1"), &open, Some(&busy), 200),
        (
            "too slow, and open",
            target("v1"),
            &open,
            Some(&|| Plan::Never),
            200,
        ),
        (
            "without endpoints, and open",
            target("empty"),
            &open,
            None,
            200,
        ),
        ("nobody, and open", nobody(), &open, None, 200),
    ];
    for (name, to, check, plan, want) in rows {
        shop.tell(asking(to, check.clone())).await;
        if let Some(plan) = plan {
            shop.v1.plan(plan());
        }
        let before = shop.cart.asked().len();
        let mut client = Http1::to(&shop.rig).await;
        let response = client.send(evil("/x")).await;
        assert_eq!(response.status(), want, "{name}");
        let reached = shop.cart.asked().len() - before;
        assert_eq!(reached, usize::from(want == 200), "{name}");
        if want == 200 {
            assert_eq!(
                shop.cart.last().header("x-ext"),
                None,
                "{name}: still not its own"
            );
        } else {
            assert_eq!(read(response.into_body()).await, "", "{name}");
        }
    }
}

#[tokio::test]
async fn an_unknown_provider_denies_what_its_rules_match() {
    let policies = vec![custom("opa", under("/a*"))];
    let shop = Shop::new(told().authorized(policies)).await;
    let mut client = Http1::to(&shop.rig).await;
    for (path, want) in [("/a", 403), ("/b", 200), ("/a/b", 403)] {
        assert_eq!(client.get(path).await.0, want, "{path}");
    }
}

#[tokio::test]
async fn all_providers_are_asked_in_order_until_one_denies() {
    let http = || check(CheckOver::Http(over_http()));
    let policies = vec![
        custom("first", vec![Rule::default()]),
        custom("second", under("/both*")),
    ];
    let resources = told().authorized(policies);
    let resources = resources.asking("first", target("v1"), http());
    let shop = Shop::new(resources.asking("second", target("v2"), http())).await;
    let mut client = Http1::to(&shop.rig).await;
    shop.v2.answers(401);
    for (path, want, asked) in [
        ("/one", 200, [1, 0]),
        ("/both", 401, [2, 1]),
        ("/both", 200, [3, 2]),
    ] {
        assert_eq!(client.get(path).await.0, want, "{path}");
        assert_eq!([shop.v1.asked().len(), shop.v2.asked().len()], asked);
    }
    shop.v1.answers(403);
    assert_eq!(client.get("/both").await.0, 403);
    assert_eq!(shop.v2.asked().len(), 2, "nobody asks further");
}

#[tokio::test]
async fn routes_go_by_the_provider_only_where_it_says_so() {
    let by_ext = |value: &str| {
        let mut rule = rule().to("v3", 1);
        let exact = TextMatch::Exact(Arc::from(value));
        rule.matches = vec![Match {
            headers: vec![(Arc::from("x-ext"), exact)],
            ..Match::default()
        }];
        rule
    };
    let mut shop = Shop::new(told()).await;
    for (cleared, want) in [(false, "cart"), (true, "v3")] {
        let check = ExtAuthz {
            clear_route_cache: cleared,
            ..check(CheckOver::Http(over_http()))
        };
        let rules = vec![by_ext("a"), rule().to("cart", 1)];
        shop.tell(asking(target("v1"), check).ruled(rules)).await;
        shop.v1.plan(answer(200, &[("x-ext", "a")], ""));
        let mut client = Http1::to(&shop.rig).await;
        assert_eq!(client.get("/x").await, (StatusCode::OK, want.to_owned()));
        let app = if cleared { &shop.v3 } else { &shop.cart };
        assert_eq!(app.last().header("x-ext").as_deref(), Some("a"));
    }
}

async fn post(client: &mut Http1, body: &str) -> StatusCode {
    let pieces: Vec<_> = body
        .as_bytes()
        .chunks(1000)
        .map(Bytes::copy_from_slice)
        .collect();
    let frames = tokio_stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))));
    let request = Request::post("/x").header("host", "cart");
    let request = request.body(BoxBody::new(StreamBody::new(frames))).unwrap();
    client.send(request).await.status()
}

#[tokio::test]
async fn a_body_is_shown_and_still_goes_on_whole() {
    let mut shop = Shop::new(told()).await;
    for (name, most, partial, size, want) in [
        ("all of it", 4000, false, 4000, Ok((4000, "false"))),
        ("none", 4000, false, 0, Ok((0, "false"))),
        ("the beginning", 4000, true, 50_000, Ok((4000, "true"))),
        (
            "too much",
            4000,
            false,
            4001,
            Err(StatusCode::PAYLOAD_TOO_LARGE),
        ),
    ] {
        let check = ExtAuthz {
            body: Some(CheckedBody {
                max_bytes: most,
                allow_partial: partial,
                as_bytes: false,
            }),
            ..check(CheckOver::Http(over_http()))
        };
        shop.tell(asking(target("v1"), check)).await;
        let before = (shop.v1.asked().len(), shop.cart.asked().len());
        let body: String = ('a'..='z').cycle().take(size).collect();
        let mut client = Http1::to(&shop.rig).await;
        let status = post(&mut client, &body).await;
        let Ok((shown, part)) = want else {
            assert_eq!(Err(status), want, "{name}");
            let after = (shop.v1.asked().len(), shop.cart.asked().len());
            assert_eq!(before, after, "{name}: nobody hears of it");
            continue;
        };
        assert_eq!(status, StatusCode::OK, "{name}");
        let asked = shop.v1.last();
        assert_eq!(asked.body, body[..shown], "{name}");
        let flag = asked.header("x-envoy-auth-partial-body");
        assert_eq!(flag.as_deref(), Some(part), "{name}");
        assert!(shop.cart.last().body == body, "{name}: whole and in order");
    }
}

/// Answers every check so, and keeps what it was asked.
#[derive(Clone, Default)]
struct Authorizer {
    says: Arc<Mutex<proto::CheckResponse>>,
    asked: Arc<Mutex<Vec<proto::CheckRequest>>>,
}

impl Authorizer {
    fn says(&self, code: i32, response: Option<HttpResponse>) {
        *self.says.lock().unwrap() = proto::CheckResponse {
            status: Some(proto::Status {
                code,
                message: String::new(),
            }),
            http_response: response,
        };
    }

    fn last(&self) -> proto::AttributeContext {
        let last = self.asked.lock().unwrap().pop();
        last.unwrap().attributes.unwrap()
    }

    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let (tcp, _from) = listener.accept().await.unwrap();
            let authorizer = self.clone();
            let service = service_fn(move |request| {
                let authorizer = authorizer.clone();
                async move { Ok::<_, Infallible>(authorizer.answer(request).await) }
            });
            connections.spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ended = builder.serve_connection(TokioIo::new(tcp), service).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Text> {
        assert_eq!(
            request.uri().path(),
            "/envoy.service.auth.v3.Authorization/Check"
        );
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let asked = proto::CheckRequest::decode(&body[5..]).unwrap();
        self.asked.lock().unwrap().push(asked);
        let says = self.says.lock().unwrap().encode_to_vec();
        let mut message = BytesMut::new();
        message.put_u8(0);
        message.put_u32(u32::try_from(says.len()).unwrap());
        message.put_slice(&says);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let frames = [Frame::data(message.freeze()), Frame::trailers(trailers)];
        let frames = tokio_stream::iter(frames.map(Ok));
        let response = Response::builder().header("content-type", "application/grpc");
        response
            .body(BoxBody::new(StreamBody::new(frames)))
            .unwrap()
    }
}

fn option(key: &str, value: &str, append: bool) -> proto::HeaderValueOption {
    proto::HeaderValueOption {
        header: Some(proto::HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append: Some(append),
        append_action: 0,
    }
}

async fn with_authorizer(check: ExtAuthz) -> (Shop, Authorizer) {
    let mut shop = Shop::new(told()).await;
    shop.rig.add_service("chat", "10.96.0.30");
    let listener = shop.rig.endpoint_of("chat", "chat-1", "10.1.0.30").await;
    let authorizer = Authorizer::default();
    shop.rig.run(authorizer.clone().serve(listener));
    shop.tell(asking(target("chat"), check)).await;
    (shop, authorizer)
}

#[tokio::test]
async fn grpc_says_who_asks_what_and_hears_what_becomes_of_it() {
    let body = CheckedBody {
        max_bytes: 100,
        allow_partial: false,
        as_bytes: true,
    };
    let (shop, authorizer) = with_authorizer(ExtAuthz {
        body: Some(body),
        ..check(CheckOver::Grpc)
    })
    .await;
    let ok = proto::OkHttpResponse {
        headers: vec![
            option("x-ext", "a", false),
            option("x-own", "more", true),
            option("x-new", "b", true),
        ],
        headers_to_remove: vec!["authorization".to_owned()],
        response_headers_to_add: vec![option("x-told", "c", false)],
        query_parameters_to_set: vec![proto::QueryParameter {
            key: "y".to_owned(),
            value: "2".to_owned(),
        }],
        query_parameters_to_remove: vec!["z".to_owned()],
    };
    authorizer.says(0, Some(HttpResponse::OkResponse(ok)));
    let mut client = Http1::to(&shop.rig).await;
    let mut request = evil("/x?y=1&z=3").map(|_empty| text("body"));
    *request.method_mut() = ::http::Method::POST;
    let response = client.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-told"], "c");
    let app = shop.cart.last();
    assert_eq!((app.target.as_str(), app.body.as_str()), ("/x?y=2", "body"));
    for (name, want) in [
        ("x-ext", Some("a")),
        ("x-own", Some("own,more")),
        ("x-new", Some("b")),
        ("authorization", None),
    ] {
        assert_eq!(app.header(name).as_deref(), want, "{name}");
    }
    let asked = authorizer.last();
    let peer = |peer: Option<proto::attribute_context::Peer>| {
        let peer = peer.unwrap();
        let address = peer.address.unwrap().address.unwrap();
        let proto::address::Address::SocketAddress(at) = address;
        (peer.principal, at.address, at.port_value)
    };
    let (principal, source, _port) = peer(asked.source);
    assert_eq!(principal, "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(source, "127.0.0.1", "where its tunnel comes from");
    let to = "spiffe://cluster.local/ns/shop/sa/wp-1".to_owned();
    let service = ("10.96.0.10".to_owned(), 80);
    assert_eq!(peer(asked.destination), (to, service.0, service.1));
    let http = asked.request.unwrap().http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str()),
        ("POST", "/x?y=1&z=3")
    );
    assert_eq!((http.host.as_str(), http.size), ("cart", 4));
    assert_eq!(
        (http.protocol.as_str(), &*http.raw_body),
        ("HTTP/1.1", &b"body"[..])
    );
    assert_eq!(http.headers["x-ext"], "evil");
    assert_eq!(http.headers[":authority"], "cart");
    assert_eq!(http.id, app.header("x-request-id").unwrap());
}

#[tokio::test]
async fn grpc_says_no_in_its_words_or_in_ours() {
    let (shop, authorizer) = with_authorizer(check(CheckOver::Grpc)).await;
    let denied = proto::DeniedHttpResponse {
        status: Some(proto::HttpStatus { code: 302 }),
        headers: vec![option("location", "/login", false)],
        body: "go there".to_owned(),
    };
    let mut client = Http1::to(&shop.rig).await;
    authorizer.says(7, Some(HttpResponse::DeniedResponse(denied)));
    let response = client.send(get("/x")).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], "/login");
    assert_eq!(read(response.into_body()).await, "go there");
    authorizer.says(7, None);
    assert_eq!(
        client.get("/x").await,
        (StatusCode::FORBIDDEN, String::new())
    );
    let lies = proto::OkHttpResponse {
        headers: vec![option("x-ext", "a\r\nx-admin: yes", false)],
        ..proto::OkHttpResponse::default()
    };
    authorizer.says(0, Some(HttpResponse::OkResponse(lies)));
    assert_eq!(client.get("/x").await.0, StatusCode::FORBIDDEN);
    assert!(shop.cart.asked().is_empty());
}

#[tokio::test]
async fn connections_are_asked_about_over_grpc_alone() {
    let (mut shop, authorizer) = with_authorizer(check(CheckOver::Grpc)).await;
    let listener = shop.rig.endpoint("cart-2", "10.1.0.12").await;
    shop.rig.run(echo(listener, "cart-2"));
    shop.rig.change("cart-1", |w| {
        w.health = crate::model::workload::Health::Unhealthy
    });
    for (name, over, code, open) in [
        ("allowed", CheckOver::Grpc, 0, true),
        ("denied", CheckOver::Grpc, 7, false),
        ("over HTTP", CheckOver::Http(over_http()), 0, false),
    ] {
        shop.tell(asking(target("chat"), check(over))).await;
        authorizer.says(code, None);
        let mut io = TunnelIo::new(shop.rig.cart(90).await);
        let mut banner = [0; 6];
        let read = soon(name, io.read_exact(&mut banner)).await;
        assert_eq!(read.is_ok(), open, "{name}");
    }
    let asked = authorizer.last();
    assert!(asked.request.unwrap().http.is_none(), "it is no request");
}
