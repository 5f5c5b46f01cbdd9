//! Requests whose form is refused, and how they are answered, as their clients see it.

use std::time::Duration;

use ::http::{Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::raw::{OK, Program, exchange};
use crate::hbone::TunnelIo;
use crate::hbone::testing::{eventually, soon};
use crate::waypoint::testing::Rig;

/// The statuses in what came back, in order.
fn statuses(answer: &str) -> Vec<&str> {
    let versions = ["HTTP/1.0 ", "HTTP/1.1 "].map(|version| answer.split(version).skip(1));
    let heads = versions.into_iter().flatten();
    heads.map(|head| head.get(..3).unwrap()).collect()
}

#[tokio::test]
async fn a_request_that_reads_in_two_ways_is_answered_here_and_closed() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, OK).await;
    rig.publish().await;
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(17 << 10));
    // Each is followed by a request that is never served.
    for (name, head, want) in [
        (
            "a length and a coding",
            get("content-length: 4\r\ntransfer-encoding: chunked\r\n"),
            "400",
        ),
        (
            "a coding and a length",
            get("transfer-encoding: chunked\r\ncontent-length: 4\r\n"),
            "400",
        ),
        (
            "a coding in HTTP/1.0",
            get("transfer-encoding: chunked\r\n").replace("/1.1", "/1.0"),
            "400",
        ),
        (
            "two lengths",
            get("content-length: 1\r\ncontent-length: 2\r\n"),
            "400",
        ),
        (
            "a fragment",
            "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n".into(),
            "400",
        ),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), "400"),
        ("two hosts", get("host: b\r\n"), "400"),
        ("a folded line", get("x: 1\r\n 2\r\n"), "400"),
        ("a space before the colon", get("x : 1\r\n"), "400"),
        ("a NUL", get("x: \0\r\n"), "400"),
        ("a bare line feed", get("x: 1\ny: 2\r\n"), "400"),
        (
            "another coding",
            get("transfer-encoding: gzip, chunked\r\n"),
            "501",
        ),
        ("a long line", long, "414"),
        ("many fields", get(&"x: 1\r\n".repeat(100)), "431"),
        (
            "a large head",
            get(&format!("x: {}\r\n", "a".repeat(70 << 10))),
            "431",
        ),
        ("not HTTP", "\x16\x03\x01\x02\x00".into(), "400"),
    ] {
        let bytes = head + &get("");
        let answer = exchange(&rig, 80, bytes.as_bytes()).await;
        assert_eq!(statuses(&answer), [want], "{name}: {answer}");
        assert!(answer.contains("server: lateen\r\n"), "{name}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{name}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{name}, no text: {answer}");
    }
    assert!(program.heard.try_recv().is_err(), "none got through");
    eventually("they are counted", || {
        rig.metric("istio_requests_total", "response_flags=\"DPE\"") == 16
    })
    .await;
}

#[tokio::test]
async fn what_came_before_a_refused_request_is_answered_before() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, OK).await;
    rig.publish().await;
    let bytes = b"POST /one HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi\
        GET /two HTTP/1.1\r\nhost: a\r\n\r\n\
        GET /#three HTTP/1.1\r\nhost: a\r\n\r\n\
        GET /four HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = exchange(&rig, 80, bytes).await;
    assert_eq!(statuses(&answer), ["200", "200", "400"], "{answer}");
    assert!(program.next().await.ends_with("\r\n\r\nhi"));
    assert!(program.next().await.starts_with("GET /two "));
    assert!(program.heard.try_recv().is_err());
}

#[tokio::test]
async fn forms_that_are_legal_get_through() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, OK).await;
    rig.publish().await;
    let close = "connection: close\r\n\r\n";
    for (name, head, want, host) in [
        (
            "absolute form: its authority is the host",
            format!("GET http://other/x?y HTTP/1.1\r\nhost: cart\r\n{close}"),
            "GET /x?y HTTP/1.1\r\n",
            "host: other\r\n",
        ),
        (
            "HTTP/1.0",
            "GET /old HTTP/1.0\r\nhost: cart\r\n\r\n".to_owned(),
            "GET /old HTTP/1.1\r\n",
            "host: cart\r\n",
        ),
        (
            "asterisk form",
            format!("OPTIONS * HTTP/1.1\r\nhost: cart\r\n{close}"),
            "OPTIONS * HTTP/1.1\r\n",
            "host: cart\r\n",
        ),
        (
            "a WebSocket over HTTP/1.0",
            "GET /1.0 HTTP/1.0\r\nhost: cart\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
                .to_owned(),
            "GET /1.0 HTTP/1.1\r\n",
            "host: cart\r\n",
        ),
        (
            "a WebSocket without its connection",
            format!("GET / HTTP/1.1\r\nhost: cart\r\nupgrade: websocket\r\n{close}"),
            "GET / HTTP/1.1\r\n",
            "host: cart\r\n",
        ),
        (
            "another upgrade is not offered",
            "GET / HTTP/1.1\r\nhost: cart\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n"
                .to_owned(),
            "GET / HTTP/1.1\r\n",
            "host: cart\r\n",
        ),
    ] {
        let answer = exchange(&rig, 80, head.as_bytes()).await;
        assert_eq!(statuses(&answer), ["200"], "{name}: {answer}");
        assert!(answer.ends_with("ok"), "{name}: {answer}");
        let seen = program.next().await;
        assert!(
            seen.starts_with(want) && seen.contains(host),
            "{name}: {seen}"
        );
        assert!(!seen.contains("upgrade"), "{name}: {seen}");
    }
}

#[tokio::test]
async fn whoever_waits_to_be_told_to_go_on_is_told() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, OK).await;
    rig.publish().await;
    let mut io = TunnelIo::new(rig.cart(80).await);
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    io.write_all(head).await.unwrap();
    let mut go_on = [0; 25];
    soon("it is told", io.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    io.write_all(b"hi").await.unwrap();
    let mut status = [0; 15];
    soon("an answer", io.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    assert!(program.next().await.ends_with("hi"));
}

#[tokio::test]
async fn an_outer_request_that_is_no_connect_is_not_found() {
    let mut rig = Rig::new().await;
    rig.publish().await;
    let (mut sender, connection) = h2::client::handshake(rig.raw().await).await.unwrap();
    rig.run(async move {
        let _ended = connection.await;
    });
    let request = Request::get("https://10.96.0.10:80/").body(()).unwrap();
    let (answer, _body) = sender.send_request(request, true).unwrap();
    let answer = soon("an answer", answer).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

/// Lets everything run that can, without a clock, until the test has waited for too long.
pub(super) async fn spin() {
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        tokio::task::yield_now().await;
    }
}

/// Reads to the end after `time` has passed at once.
async fn after(time: Duration, io: &mut TunnelIo) -> String {
    after_steps(&[time], io).await
}

/// The same, with time for what is due in between.
pub(super) async fn after_steps(times: &[Duration], io: &mut TunnelIo) -> String {
    // The clock moves only when nothing runs, and something always does.
    tokio::time::pause();
    let mut answer = String::new();
    let read = async {
        for time in times {
            tokio::time::advance(*time).await;
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        }
        io.read_to_string(&mut answer).await
    };
    let read = tokio::select! {
        read = read => read,
        () = spin() => panic!("nothing happened"),
    };
    read.unwrap();
    answer
}

#[tokio::test]
async fn a_request_in_which_nothing_moves_is_given_up() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, "").await;
    rig.publish().await;
    let close = "host: a\r\nconnection: close\r\n";
    for (name, request, want) in [
        ("no answer", format!("GET / HTTP/1.1\r\n{close}\r\n"), "504"),
        (
            "no more of the request",
            format!("POST / HTTP/1.1\r\n{close}transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"),
            "408",
        ),
    ] {
        let mut io = TunnelIo::new(rig.cart(80).await);
        io.write_all(request.as_bytes()).await.unwrap();
        assert!(program.next().await.contains("host: a"), "{name}");
        let answer = after(Duration::from_secs(301), &mut io).await;
        assert_eq!(statuses(&answer), [want], "{name}: {answer}");
        assert!(answer.ends_with("stream timeout"), "{name}: {answer}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_is_closed() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, OK).await;
    rig.publish().await;
    let mut io = TunnelIo::new(rig.cart(80).await);
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    program.next().await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        answer.push(soon("an answer", io.read_u8()).await.unwrap());
    }
    assert_eq!(after(Duration::from_secs(3601), &mut io).await, "");
}
