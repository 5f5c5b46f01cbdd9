//! HTTP through a waypoint.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::hbone::testing::{eventually, soon};
use crate::hbone::{Tunnel, TunnelIo};
use crate::waypoint::State;
use crate::waypoint::testing::Rig;
use crate::waypoint::testing::told::in_turns;

pub(super) type Text = BoxBody<Bytes, Infallible>;

pub(super) fn text(text: impl Into<Bytes>) -> Text {
    Full::new(text.into()).boxed()
}

/// An application: counts its connections and requests.
#[derive(Clone, Default)]
pub(super) struct App {
    name: &'static str,
    connections: Arc<AtomicUsize>,
    pub(super) requests: Arc<AtomicUsize>,
}

impl App {
    pub(super) fn named(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    pub(super) async fn serve(self, program: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let (tcp, _from) = program.accept().await.unwrap();
            self.connections.fetch_add(1, Ordering::Relaxed);
            let app = self.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let app = app.clone();
                    async move { Ok::<_, Infallible>(app.answer(request).await) }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                let io = TokioIo::new(tcp);
                let _ended = builder.serve_connection_with_upgrades(io, service).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Text> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match request.uri().path() {
            "/echo" => Response::new(request.into_body().map_err(|e| panic!("{e}")).boxed()),
            "/trailers" => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("5"));
                let frames = [
                    Frame::data(Bytes::from_static(b"data")),
                    Frame::trailers(trailers),
                ];
                let frames = tokio_stream::iter(frames.map(Ok));
                Response::new(BoxBody::new(StreamBody::new(frames)))
            }
            "/headers" => {
                let mut lines: Vec<_> = request
                    .headers()
                    .iter()
                    .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
                    .collect();
                lines.push(format!("uri {}", request.uri()));
                Response::new(text(lines.join("\n")))
            }
            "/never" => std::future::pending().await,
            "/503" => {
                let mut response = Response::new(text("busy"));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
            _ => Response::new(text(self.name)),
        }
    }
}

/// A client of one tunnel.
pub(super) struct Http1 {
    sender: http1::SendRequest<Text>,
    connection: JoinSet<()>,
}

impl Http1 {
    pub(super) async fn to(rig: &Rig) -> Self {
        Self::through(rig.cart(80).await).await
    }

    pub(super) async fn through(tunnel: Tunnel) -> Self {
        let io = TokioIo::new(TunnelIo::new(tunnel));
        let (sender, driver) = http1::handshake(io).await.unwrap();
        let mut connection = JoinSet::new();
        connection.spawn(async move {
            let _ended = driver.with_upgrades().await;
        });
        Self { sender, connection }
    }

    pub(super) async fn send(&mut self, request: Request<Text>) -> Response<Incoming> {
        soon("a turn", self.sender.ready()).await.unwrap();
        soon("an answer", self.sender.send_request(request))
            .await
            .unwrap()
    }

    pub(super) async fn get(&mut self, path: &str) -> (StatusCode, String) {
        let (head, body) = self.send(get(path)).await.into_parts();
        (head.status, read(body).await)
    }
}

pub(super) fn get(path: &str) -> Request<Text> {
    let request = Request::get(path).header("host", "cart");
    request.body(Empty::new().boxed()).unwrap()
}

pub(super) async fn read(body: Incoming) -> String {
    let body = soon("a body", body.collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn each_request_of_a_connection_goes_to_the_next_endpoint() {
    let mut rig = Rig::new().await;
    let (one, two) = (App::named("one"), App::named("two"));
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(one.clone().serve(program));
    let program = rig.plain_endpoint("cart-2", "10.1.0.12").await;
    rig.run(two.clone().serve(program));
    rig.resources = Some(in_turns());
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let mut last = String::new();
    for _ in 0..6 {
        let (status, name) = client.get("/").await;
        assert_eq!(status, StatusCode::OK);
        assert_ne!(name, last, "in turns");
        last = name;
    }
    for app in [&one, &two] {
        assert_eq!(app.requests.load(Ordering::Relaxed), 3, "{}", app.name);
        let connections = app.connections.load(Ordering::Relaxed);
        assert!(
            connections < 3,
            "{}: connections are used again, {connections}",
            app.name
        );
    }
    eventually("they are counted", || {
        rig.metric("istio_requests_total", "response_code=\"200\"") == 6
    })
    .await;
    for workload in ["cart-1", "cart-2"] {
        let label = format!("destination_workload=\"{workload}\"");
        assert_eq!(rig.metric("istio_requests_total", &label), 3, "{workload}");
    }
    assert_eq!(
        rig.metric("istio_requests_total", "reporter=\"waypoint\""),
        6
    );
}

#[tokio::test]
async fn an_application_sees_what_the_client_said() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(App::named("one").serve(program));
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let mut request = get("/headers?q=1");
    for (name, value) in [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-client-cert", "x"),
        ("Keep-Alive", "1"),
    ] {
        request.headers_mut().insert(
            name.to_lowercase().parse::<::http::HeaderName>().unwrap(),
            HeaderValue::from_static(value),
        );
    }
    let response = client.send(request).await;
    assert!(
        response
            .headers()
            .contains_key("x-envoy-upstream-service-time")
    );
    let seen = read(response.into_body()).await;
    for want in [
        "host: cart",
        "x-forwarded-for: 1.2.3.4",
        "x-forwarded-proto: http",
        "x-request-id: ",
        "uri /headers?q=1",
    ] {
        assert!(seen.contains(want), "{want}: {seen}");
    }
    for unwanted in [
        "x-forwarded-client-cert",
        "keep-alive",
        "x-envoy",
        "transfer-encoding",
    ] {
        assert!(!seen.contains(unwanted), "{unwanted}: {seen}");
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(App::named("one").serve(program));
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let (give, frames) = mpsc::channel(1);
    let frames = ReceiverStream::new(frames).map(|data: Bytes| Ok(Frame::data(data)));
    let request = Request::post("/echo").header("host", "cart");
    let request = request.body(BoxBody::new(StreamBody::new(frames))).unwrap();
    let mut answer = client.send(request).await.into_body();
    for round in 0..3u8 {
        let said = Bytes::from(vec![round; 40_000]);
        give.send(said.clone()).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < said.len() {
            let frame = soon("an echo", answer.frame()).await.unwrap().unwrap();
            heard.extend_from_slice(&frame.into_data().unwrap());
        }
        assert!(heard == said, "round {round}: before the request has ended");
    }
    drop(give);
    assert!(soon("the end", answer.frame()).await.is_none());
}

#[tokio::test]
async fn trailers_pass_through_http2() {
    let mut rig = Rig::new().await;
    let app = App::named("one");
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(app.clone().serve(program));
    rig.publish().await;
    let io = TokioIo::new(TunnelIo::new(rig.cart(81).await));
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    rig.run(async move {
        let _ended = driver.await;
    });
    for _ in 0..3 {
        let request = Request::post("http://cart/trailers")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = request.body(text("ask")).unwrap();
        let response = soon("an answer", sender.send_request(request))
            .await
            .unwrap();
        let body = soon("a body", response.into_body().collect())
            .await
            .unwrap();
        assert_eq!(body.trailers().unwrap().get("grpc-status").unwrap(), "5");
        assert_eq!(&body.to_bytes()[..], b"data");
    }
    assert_eq!(
        app.connections.load(Ordering::Relaxed),
        1,
        "streams of one connection"
    );
    eventually("they are counted", || {
        rig.metric("istio_requests_total", "grpc_response_status=\"5\"") == 3
    })
    .await;
    assert_eq!(
        rig.metric("istio_requests_total", "request_protocol=\"grpc\""),
        3
    );
}

/// Answers with 101, then echoes.
pub(super) async fn websocket(program: TcpListener) {
    let (mut tcp, _from) = program.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
        "{head}"
    );
    assert!(head.contains("sec-websocket-key: k"), "{head}");
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\n\r\nhello";
    tcp.write_all(answer).await.unwrap();
    let (mut reader, mut writer) = tcp.split();
    tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    writer.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_websocket_becomes_a_byte_stream() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(websocket(program));
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let request = Request::get("/chat")
        .header("host", "cart")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "k");
    let response = client
        .send(request.body(Empty::new().boxed()).unwrap())
        .await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers().get("sec-websocket-accept").unwrap(), "a");
    let stream = soon("the switch", hyper::upgrade::on(response))
        .await
        .unwrap();
    let mut stream = TokioIo::new(stream);
    let mut heard = [0; 5];
    soon("its own words", stream.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(&heard, b"hello");
    stream.write_all(b"echo!").await.unwrap();
    soon("an echo", stream.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(&heard, b"echo!");
    stream.shutdown().await.unwrap();
    let end = soon("the end", stream.read(&mut heard)).await.unwrap();
    assert_eq!(end, 0);
    eventually("it is counted", || {
        rig.metric("istio_requests_total", "response_code=\"101\"") == 1
    })
    .await;
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_request() {
    let mut rig = Rig::new().await;
    rig.dead_endpoint("cart-0", "10.1.0.10");
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(App::named("one").serve(program));
    rig.resources = Some(in_turns());
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    for _ in 0..4 {
        assert_eq!(client.get("/").await, (StatusCode::OK, "one".to_owned()));
    }
    assert!(
        rig.connector.dials.load(Ordering::Relaxed) >= 2,
        "both were tried"
    );
}

#[tokio::test]
async fn what_was_sent_is_not_sent_again() {
    let mut rig = Rig::new().await;
    let seen = Arc::new(AtomicUsize::new(0));
    for (name, address) in [("cart-1", "10.1.0.11"), ("cart-2", "10.1.0.12")] {
        let (program, seen) = (rig.endpoint(name, address).await, Arc::clone(&seen));
        rig.run(async move {
            loop {
                let (mut tcp, _from) = program.accept().await.unwrap();
                // Hears the request, and goes away.
                let mut heard = [0; 1024];
                if tcp.read(&mut heard).await.is_ok_and(|n| n > 0) {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let response = client.send(get("/")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers().get("server").unwrap(), "lateen");
    let text = read(response.into_body()).await;
    assert!(
        text.ends_with("reset reason: connection termination"),
        "{text}"
    );
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    // The application's own 503 is an answer like any other.
    eventually("it is counted", || {
        rig.metric("istio_requests_total", "response_flags=\"UC\"") == 1
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_the_application_is_not_tried_again() {
    let mut rig = Rig::new().await;
    let app = App::named("one");
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(app.clone().serve(program));
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    assert_eq!(
        client.get("/503").await,
        (StatusCode::SERVICE_UNAVAILABLE, "busy".to_owned())
    );
    assert_eq!(app.requests.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn without_an_endpoint_the_waypoint_says_so() {
    let mut rig = Rig::new().await;
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let no_healthy = (
        StatusCode::SERVICE_UNAVAILABLE,
        "no healthy upstream".to_owned(),
    );
    assert_eq!(client.get("/").await, no_healthy);
    let mut request = get("/");
    request.headers_mut().insert(
        "content-type",
        HeaderValue::from_static("application/grpc+proto"),
    );
    let response = client.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers().get("grpc-status").unwrap(), "14");
    assert_eq!(
        response.headers().get("grpc-message").unwrap(),
        "no healthy upstream"
    );
    rig.dead_endpoint("cart-0", "10.1.0.10");
    rig.publish().await;
    let (status, text) = client.get("/").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        text.ends_with("reset reason: remote connection failure"),
        "{text}"
    );
    assert_eq!(
        rig.metric("istio_requests_total", "response_flags=\"UH\""),
        2
    );
}

#[tokio::test]
async fn a_malformed_request_is_answered_here() {
    let mut rig = Rig::new().await;
    let app = App::named("one");
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(app.clone().serve(program));
    rig.publish().await;
    let field = "x-long: ".to_owned() + &"a".repeat(70 << 10);
    let many: String = (0..120).map(|n| format!("x-{n}: 1\r\n")).collect();
    for (name, head, want) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (
            "two hosts",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "a space before the colon",
            "GET / HTTP/1.1\r\nhost : a\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"
                .to_owned(),
            "400",
        ),
        (
            "a folded line",
            "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "a CONNECT",
            "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n".to_owned(),
            "404",
        ),
        (
            "a large head",
            format!("GET / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n"),
            "431",
        ),
        (
            "many fields",
            format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"),
            "431",
        ),
        (
            "good",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            "200",
        ),
    ] {
        let mut io = TunnelIo::new(rig.cart(80).await);
        // It may be answered, and closed, before all of it is sent.
        let _cut = io.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        soon(name, io.read_exact(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.split(' ').nth(1), Some(want), "{name}");
    }
    assert_eq!(app.requests.load(Ordering::Relaxed), 1, "only the good one");
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_of() {
    let mut rig = Rig::new().await;
    let app = App::named("one");
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(app.clone().serve(program));
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let asked = client.sender.send_request(get("/never"));
    eventually("it is asked", || app.requests.load(Ordering::Relaxed) == 1).await;
    drop(asked);
    client.connection.shutdown().await;
    eventually("it is counted", || {
        rig.metric("istio_requests_total", "response_code=\"0\"") == 1
    })
    .await;
    assert_eq!(
        rig.metric("istio_requests_total", "response_flags=\"DC\""),
        1
    );
}

#[tokio::test]
async fn a_request_under_way_is_answered_when_the_waypoint_stops() {
    let mut rig = Rig::draining(Duration::from_secs(60)).await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(App::named("one").serve(program));
    rig.publish().await;
    // One that asks nothing holds nothing up.
    let mut idle = Http1::to(&rig).await;
    assert_eq!(idle.get("/").await.0, StatusCode::OK);
    let mut client = Http1::to(&rig).await;
    let (give, frames) = mpsc::channel(1);
    let frames = ReceiverStream::new(frames).map(|data: Bytes| Ok(Frame::data(data)));
    let request = Request::post("/echo").header("host", "cart");
    let request = request.body(BoxBody::new(StreamBody::new(frames))).unwrap();
    let answer = client.send(request).await.into_body();
    rig.stop.cancel();
    soon("the idle one ends", idle.connection.join_next()).await;
    give.send(Bytes::from_static(b"late")).await.unwrap();
    drop(give);
    assert_eq!(read(answer).await, "late");
    soon("it has ended", rig.waypoint.join_next())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_an_instance_had_taken_it_serves_when_it_leaves_the_mesh() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(App::named("one").serve(program));
    rig.publish().await;
    let mut client = Http1::to(&rig).await;
    let first = client.send(get("/")).await;
    assert_eq!(first.headers().get("connection"), None);
    read(first.into_body()).await;
    let gone = |s: &State| matches!(s, State::Pending(_));
    rig.mesh.send_replace(Default::default());
    drop(soon("it is gone", rig.state.wait_for(gone)).await.unwrap());
    let last = client.send(get("/")).await;
    assert_eq!(last.status(), StatusCode::OK);
    assert_eq!(last.headers().get("connection").unwrap(), "close");
    assert_eq!(read(last.into_body()).await, "one");
    soon("it ends", client.connection.join_next()).await;
}

#[tokio::test]
async fn who_had_connected_is_answered_once_when_the_waypoint_stops() {
    let mut rig = Rig::draining(Duration::from_secs(60)).await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(App::named("one").serve(program));
    rig.publish().await;
    let mut idle = Http1::to(&rig).await;
    assert_eq!(idle.get("/").await.0, StatusCode::OK);
    let mut late = Http1::to(&rig).await;
    rig.stop.cancel();
    rig.lose_instance();
    assert_eq!(late.get("/").await.0, StatusCode::OK);
    soon("then it ends", late.connection.join_next()).await;
    soon("the idle one ends, too", idle.connection.join_next()).await;
    soon("it has ended", rig.waypoint.join_next())
        .await
        .unwrap()
        .unwrap();
}
