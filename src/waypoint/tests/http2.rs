//! What only HTTP/2 has: WebSockets by extended CONNECT, answers of gRPC, its own limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::ext::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::framing::{after_steps, spin};
use super::program::{self, Plan};
use super::raw::{OK, Program, exchange};
use crate::hbone::TunnelIo;
use crate::hbone::testing::{eventually, soon};
use crate::model::route::{DirectResponse, Filter};
use crate::waypoint::testing::Rig;
use crate::waypoint::testing::told::{rule, settings, told};

/// HTTP/2 through a tunnel to a port of `cart`, whose settings have arrived.
async fn client(rig: &mut Rig, port: u16) -> SendRequest<Bytes> {
    let io = TunnelIo::new(rig.cart(port).await);
    let (sender, connection) = h2::client::handshake(io).await.unwrap();
    rig.run(async move {
        let _ended = connection.await;
    });
    let mut sender = soon("a turn", sender.ready()).await.unwrap();
    // An answer comes after the settings.
    let first = sender.send_request(get("/first"), true).unwrap();
    soon("an answer", first.0).await.unwrap();
    sender
}

fn get(path: &str) -> Request<()> {
    let request = Request::get(format!("http://cart{path}"));
    request.body(()).unwrap()
}

fn websocket() -> Request<()> {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://cart/chat?a=b")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat");
    let mut request = request.body(()).unwrap();
    let protocol = Protocol::from_static("websocket");
    request.extensions_mut().insert(protocol);
    request
}

/// Answers everything but an upgrade with 404, an upgrade with `answer`, then echoes.
async fn chat(listener: TcpListener, answer: &'static str) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut tcp, _from) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match tcp.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_gone) => return,
                }
            }
            let head = String::from_utf8(head).unwrap();
            if !head.starts_with("GET /chat?a=b HTTP/1.1\r\n") {
                let none =
                    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                return tcp.write_all(none).await.unwrap();
            }
            for want in [
                "\r\nhost: cart\r\n",
                "\r\nconnection: upgrade\r\n",
                "\r\nupgrade: websocket\r\n",
                "\r\nsec-websocket-key: ",
                "\r\nsec-websocket-version: 13\r\n",
                "\r\nsec-websocket-protocol: chat\r\n",
            ] {
                assert!(head.contains(want), "{want}: {head}");
            }
            tcp.write_all(answer.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = tcp.split();
            let _gone = tokio::io::copy(&mut reader, &mut writer).await;
            let _gone = writer.shutdown().await;
        });
    }
}

async fn next(body: &mut RecvStream) -> Option<Bytes> {
    let data = soon("data", body.data()).await?.unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    Some(data)
}

#[tokio::test]
async fn a_websocket_over_http2_goes_on_over_http1() {
    const SWITCHES: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-accept: a\r\nsec-websocket-protocol: chat\r\n\r\nhello";
    // Whatever is spoken to the endpoints otherwise: to those of 80 HTTP/1.1, as of 91 sniffed.
    for port in [80, 91] {
        let mut rig = Rig::new().await;
        let listener = rig.endpoint("cart-1", "10.1.0.11").await;
        rig.run(chat(listener, SWITCHES));
        rig.publish().await;
        let io = TunnelIo::new(rig.cart(port).await);
        let (sender, connection) = h2::client::handshake(io).await.unwrap();
        rig.run(async move {
            let _ended = connection.await;
        });
        let mut sender = soon("a turn", sender.ready()).await.unwrap();
        if port == 80 {
            let (first, _body) = sender.send_request(get("/first"), true).unwrap();
            assert_eq!(soon("an answer", first).await.unwrap().status(), 404);
        }
        let offered = || sender.is_extended_connect_protocol_enabled();
        eventually("it is offered", offered).await;
        let (answer, mut stream) = sender.send_request(websocket(), false).unwrap();
        let answer = soon("an answer", answer).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{port}");
        assert_eq!(
            answer.headers().get("sec-websocket-protocol").unwrap(),
            "chat"
        );
        for gone in ["connection", "upgrade", "sec-websocket-accept"] {
            assert!(!answer.headers().contains_key(gone), "{gone}");
        }
        let mut body = answer.into_body();
        assert_eq!(next(&mut body).await.unwrap(), "hello");
        stream
            .send_data(Bytes::from_static(b"echo!"), false)
            .unwrap();
        assert_eq!(next(&mut body).await.unwrap(), "echo!");
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(next(&mut body).await.unwrap_or_default(), "", "the end");
        assert_eq!(
            rig.metric("istio_requests_total", "response_code=\"101\""),
            1
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_is_no_websocket_does_not_pass_for_one() {
    for (answer, want) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", 403),
    ] {
        let mut rig = Rig::new().await;
        let listener = rig.endpoint("cart-1", "10.1.0.11").await;
        rig.run(chat(listener, answer));
        rig.publish().await;
        let mut sender = client(&mut rig, 80).await;
        let (answer, _stream) = sender.send_request(websocket(), false).unwrap();
        let answer = soon("an answer", answer).await.unwrap();
        assert_eq!(answer.status().as_u16(), want);
    }
}

/// An endpoint of `cart` that HTTP/2 is spoken to, on port 80.
async fn upgraded(rig: &mut Rig) -> program::Program {
    let listener = rig.plain_endpoint("cart-1", "10.1.0.11").await;
    let program = program::Program::named("one");
    rig.run(program.clone().serve(listener));
    let policy = settings(|s| s.connection_pool.h2_upgrade = true);
    rig.resources = Some(told().treated("cart", policy));
    rig.publish().await;
    program
}

#[tokio::test]
async fn no_request_waits_for_a_stream_of_a_connection_that_is_full() {
    let mut rig = Rig::new().await;
    let program = upgraded(&mut rig).await;
    let mut sender = client(&mut rig, 80).await;
    let dials = |rig: &Rig| rig.connector.dials.load(Ordering::Relaxed);
    let (before, mut answers) = (dials(&rig), Vec::new());
    for n in 0..101 {
        program.plan(Plan::Never);
        sender = soon("a turn", sender.ready()).await.unwrap();
        answers.push(sender.send_request(get("/"), true).unwrap());
        eventually("it is asked", || program.asked().len() == n + 2).await;
        let more = usize::from(n >= 100);
        assert_eq!(dials(&rig), before + more, "after {n}");
    }
}

#[tokio::test]
async fn an_answer_may_have_a_head_as_large_as_a_request() {
    let mut rig = Rig::new().await;
    let program = upgraded(&mut rig).await;
    let mut sender = client(&mut rig, 80).await;
    let large = "a".repeat(20 << 10);
    let answer = Response::builder().header("x-large", &large);
    let answer = answer.body(super::http::text("")).unwrap();
    program.plan(Plan::Answer(answer));
    let (answer, _stream) = sender.send_request(get("/"), true).unwrap();
    let answer = soon("an answer", answer).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers().get("x-large").unwrap(), &large);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_without_a_word_is_given_up() {
    let mut rig = Rig::new().await;
    let listener = rig.plain_endpoint("cart-1", "10.1.0.11").await;
    let (tell, asked) = tokio::sync::oneshot::channel();
    rig.run(async move {
        let (tcp, _from) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        let _request = connection.accept().await;
        tell.send(()).unwrap();
        std::future::pending().await
    });
    let policy = settings(|s| s.connection_pool.h2_upgrade = true);
    rig.resources = Some(told().treated("cart", policy));
    rig.publish().await;
    let mut io = TunnelIo::new(rig.cart(80).await);
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    soon("it is asked", asked).await.unwrap();
    let steps = [Duration::from_secs(11), Duration::from_secs(21)];
    let answer = after_steps(&steps, &mut io).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn requests_that_come_at_once_share_the_first_connection() {
    let mut rig = Rig::new().await;
    let _program = upgraded(&mut rig).await;
    for (name, status, dials) in [("it is there", 200, 1), ("it is not", 503, 60)] {
        let io = TunnelIo::new(rig.cart(80).await);
        let (mut sender, connection) = h2::client::handshake(io).await.unwrap();
        rig.run(async move {
            let _ended = connection.await;
        });
        let before = rig.connector.dials.load(Ordering::Relaxed);
        let mut answers = Vec::new();
        for _ in 0..20 {
            sender = soon("a turn", sender.ready()).await.unwrap();
            answers.push(sender.send_request(get("/"), true).unwrap().0);
        }
        for answer in answers {
            let answer = soon(name, answer).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{name}");
        }
        let dialled = rig.connector.dials.load(Ordering::Relaxed) - before;
        assert!(dialled <= dials, "{name}: {dialled}");
        rig.change("cart-1", |w| {
            w.addresses = vec!["10.1.0.12".parse().unwrap()]
        });
        rig.publish().await;
    }
}

#[tokio::test]
async fn a_client_that_takes_back_too_much_is_told_to_go() {
    let mut rig = Rig::new().await;
    let listener = rig.plain_endpoint("cart-1", "10.1.0.11").await;
    let program = program::Program::named("one");
    rig.run(program.clone().serve(listener));
    rig.publish().await;
    let io = TunnelIo::new(rig.cart(80).await);
    let (mut sender, connection) = h2::client::handshake(io).await.unwrap();
    let (tell, ended) = tokio::sync::oneshot::channel();
    rig.run(async move {
        let _told = tell.send(connection.await);
    });
    for _ in 0..1000 {
        program.plan(Plan::Never);
    }
    // All of it is one moment, as long as something runs.
    tokio::time::pause();
    let taking_back = async {
        let mut asked = 0;
        // Fewer at once than what nobody has looked at may be.
        for _ in 0..30 {
            let mut answers = Vec::new();
            for _ in 0..10 {
                let Ok(ready) = sender.ready().await else {
                    return asked;
                };
                sender = ready;
                let Ok(sent) = sender.send_request(get("/"), true) else {
                    return asked;
                };
                answers.push(sent);
                asked += 1;
                while program.asked().len() < asked {
                    if sender.clone().ready().await.is_err() {
                        return asked;
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
        asked
    };
    let asked = tokio::select! {
        asked = taking_back => asked,
        () = spin() => panic!("nothing happened"),
    };
    tokio::time::resume();
    assert!((200..220).contains(&asked), "{asked}");
    let ended = soon("its end", ended).await.unwrap();
    assert!(ended.is_ok(), "in order: {ended:?}");
}

#[tokio::test]
async fn a_local_answer_has_no_body_where_none_may_be() {
    let direct = |status| DirectResponse {
        status,
        body: Arc::from("nothing"),
    };
    let rules = vec![
        rule().at("/204").with(Filter::Direct(direct(204))),
        rule().at("/304").with(Filter::Direct(direct(304))),
        rule().at("/200").with(Filter::Direct(direct(200))),
    ];
    let mut rig = Rig::new().await;
    rig.resources = Some(told().ruled(rules));
    rig.publish().await;
    let io = TunnelIo::new(rig.cart(80).await);
    let (mut sender, connection) = h2::client::handshake(io).await.unwrap();
    rig.run(async move {
        let _ended = connection.await;
    });
    for (name, method, path, status, length) in [
        ("a head", Method::HEAD, "/200", 200, Some("7")),
        ("of what is missing", Method::HEAD, "/", 404, None),
        ("no content", Method::GET, "/204", 204, None),
        ("nothing new", Method::GET, "/304", 304, None),
        ("the head of nothing", Method::HEAD, "/204", 204, None),
    ] {
        let mut request = get(path);
        *request.method_mut() = method.clone();
        let (answer, _stream) = sender.send_request(request, true).unwrap();
        let answer = soon(name, answer).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{name}");
        let told = answer.headers().get("content-length");
        let told = told.map(|l| l.to_str().unwrap());
        // Of an empty one the length may be told or not.
        assert_eq!(told.filter(|l| *l != "0"), length, "{name}");
        assert!(answer.body().is_end_stream(), "{name}");
        let one = format!("{method} {path} HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n");
        let text = exchange(&rig, 80, one.as_bytes()).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.ends_with("\r\n\r\n"), "{name}: {text}");
        let length = length.map(|length| format!("content-length: {length}\r\n"));
        assert!(length.is_none_or(|l| text.contains(&l)), "{name}: {text}");
    }
    let left = "response_flags=\"DC\"";
    assert_eq!(rig.metric("istio_requests_total", left), 0);
    eventually("all are counted", || {
        rig.metric("istio_requests_total", "") == 10
    })
    .await;
}

#[tokio::test]
async fn another_connect_is_not_found() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, OK).await;
    rig.publish().await;
    let mut sender = client(&mut rig, 80).await;
    program.next().await;
    let plain = Request::connect("cart:80").body(()).unwrap();
    let mut udp = websocket();
    udp.extensions_mut()
        .insert(Protocol::from_static("connect-udp"));
    for request in [plain, udp] {
        let (answer, _stream) = sender.send_request(request, false).unwrap();
        let answer = soon("an answer", answer).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
    assert!(program.heard.try_recv().is_err());
}

#[tokio::test]
async fn a_local_answer_of_grpc_is_a_head_alone() {
    let mut rig = Rig::new().await;
    rig.publish().await;
    let io = TunnelIo::new(rig.cart(81).await);
    let (sender, connection) = h2::client::handshake(io).await.unwrap();
    rig.run(async move {
        let _ended = connection.await;
    });
    let mut sender: SendRequest<Bytes> = soon("a turn", sender.ready()).await.unwrap();
    let mut request = get("/S/M");
    *request.method_mut() = Method::POST;
    let grpc = "application/grpc+proto".parse().unwrap();
    request.headers_mut().insert("content-type", grpc);
    let (answer, _stream) = sender.send_request(request, false).unwrap();
    let answer: Response<RecvStream> = soon("an answer", answer).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers().get("grpc-status").unwrap(), "14");
    assert_eq!(
        answer.headers().get("grpc-message").unwrap(),
        "no healthy upstream"
    );
    assert_eq!(
        answer.headers().get("content-type").unwrap(),
        "application/grpc"
    );
    assert!(answer.body().is_end_stream(), "nothing follows");
}

#[tokio::test]
async fn limits_hold_for_http2_too() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, OK).await;
    rig.publish().await;
    let with = |count: usize, value: &str| {
        let mut request = get("/");
        for n in 0..count {
            let name: ::http::HeaderName = format!("x-{n}").parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request
    };
    for (name, request, want) in [
        ("as many fields as may be", with(100, "1"), 200),
        ("too many", with(101, "1"), 431),
        ("a space before a value", with(1, " 1"), 400),
        ("a tab after it", with(1, "1\t"), 400),
        ("a space in it", with(1, "1 1"), 200),
        ("too large", with(9, &"a".repeat(7 << 10)), 431),
        (
            "a long target",
            get(&format!("/{}", "a".repeat(17 << 10))),
            414,
        ),
    ] {
        let mut sender = client(&mut rig, 80).await;
        program.next().await;
        let (answer, _stream) = sender.send_request(request, true).unwrap();
        let answer = soon(name, answer).await.unwrap();
        assert_eq!(answer.status().as_u16(), want, "{name}");
        if want == 200 {
            program.next().await;
        }
    }
    assert!(program.heard.try_recv().is_err());
}
