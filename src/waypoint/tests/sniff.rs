//! Ports that speak what they like: found out without taking a byte of it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::raw::{OK, Program, exchange};
use crate::hbone::TunnelIo;
use crate::hbone::testing::{eventually, soon};
use crate::waypoint::testing::told::told;
use crate::waypoint::testing::{Rig, echo};

/// Ports that are declared as TCP, as nothing, and as TLS.
const TCP: u16 = 90;
const SNIFFED: u16 = 91;
const TLS: u16 = 443;

/// Answers each question of the length of the first with the same.
async fn dialogue(program: TcpListener, question: &'static [u8], answer: &'static [u8]) {
    let mut connections = JoinSet::new();
    loop {
        let (mut tcp, _from) = program.accept().await.unwrap();
        connections.spawn(async move {
            let mut heard = vec![0; question.len()];
            while tcp.read_exact(&mut heard).await.is_ok() {
                assert_eq!(heard, question);
                tcp.write_all(answer).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_at_once() {
    for port in [TCP, SNIFFED, TLS] {
        let mut rig = Rig::new().await;
        let program = rig.endpoint("cart-1", "10.1.0.11").await;
        rig.run(echo(program, "220 hi"));
        rig.publish().await;
        let mut io = TunnelIo::new(rig.cart(port).await);
        let mut heard = [0; 6];
        if port == TLS {
            // There the client speaks first, and this one does not speak TLS.
            io.write_all(b"EHLO\r\n").await.unwrap();
        }
        soon("a banner", io.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"220 hi", "{port}");
        if port != TLS {
            io.write_all(b"EHLO\r\n").await.unwrap();
        }
        soon("an echo", io.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"EHLO\r\n", "{port}");
        assert_eq!(rig.metric("istio_requests_total", ""), 0, "{port}: no HTTP");
    }
}

#[tokio::test]
async fn a_client_that_speaks_first_is_passed_on_whole() {
    const START: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    for (name, question, answer) in [
        ("PostgreSQL's request for TLS", START, &b"N"[..]),
        ("Redis", PING, b"+PONG\r\n"),
        ("Redis by hand", b"PING\r\n", b"+PONG\r\n"),
        ("nearly HTTP", b"GET / HTTP/9.9\r\n", b"?"),
    ] {
        for port in [TCP, SNIFFED] {
            let mut rig = Rig::new().await;
            let program = rig.endpoint("cart-1", "10.1.0.11").await;
            rig.run(dialogue(program, question, answer));
            rig.publish().await;
            let mut io = TunnelIo::new(rig.cart(port).await);
            for _ in 0..3 {
                io.write_all(question).await.unwrap();
                let mut heard = vec![0; answer.len()];
                soon(name, io.read_exact(&mut heard)).await.unwrap();
                assert_eq!(heard, answer, "{name} on {port}");
            }
            io.shutdown().await.unwrap();
            let end = soon("the end", io.read(&mut [0])).await.unwrap();
            assert_eq!(end, 0, "{name} on {port}: each end has its own");
        }
    }
}

#[tokio::test]
async fn http_on_a_sniffed_port_is_served_as_such() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, OK).await;
    rig.publish().await;
    let request = b"GET /a HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
    let answer = exchange(&rig, SNIFFED, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let seen = program.next().await;
    assert!(seen.contains("x-request-id: "), "it crossed L7: {seen}");
    // However slowly it comes.
    let mut io = TunnelIo::new(rig.cart(SNIFFED).await);
    for byte in request {
        io.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    soon("the end", io.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(program.next().await.contains("x-request-id: "));
}

#[tokio::test]
async fn http2_on_a_sniffed_port_stays_http2() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.publish().await;
    let io = TunnelIo::new(rig.cart(SNIFFED).await);
    let (mut sender, connection) = h2::client::handshake(io).await.unwrap();
    rig.run(async move {
        let _ended = connection.await;
    });
    let request = ::http::Request::get("http://cart/").body(()).unwrap();
    let (answer, _body) = sender.send_request(request, true).unwrap();
    rig.run(async move {
        let (tcp, _from) = program.accept().await.unwrap();
        let mut server = h2::server::handshake(tcp).await.unwrap();
        while let Some(Ok((_request, mut respond))) = server.accept().await {
            respond
                .send_response(::http::Response::new(()), true)
                .unwrap();
        }
    });
    let answer = soon("an answer", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    eventually("it is counted", || {
        rig.metric("istio_requests_total", "response_code=\"200\"") == 1
    })
    .await;
}

#[tokio::test]
async fn tls_passes_as_it_is() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.publish().await;
    // A hello of many records, and what is not one.
    let hello = [1, 0, 0, 9].iter().chain(b"incorrect");
    let hello: Vec<u8> = hello.flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    let mut io = TunnelIo::new(rig.cart(TLS).await);
    io.write_all(&hello).await.unwrap();
    let (mut tcp, _from) = soon("the program", program.accept()).await.unwrap();
    let mut heard = vec![0; hello.len()];
    soon("all of it", tcp.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, hello);
    tcp.write_all(b"alert").await.unwrap();
    let mut heard = [0; 5];
    soon("an answer", io.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"alert");
}

#[tokio::test]
async fn a_client_that_leaves_before_it_speaks_reaches_nobody() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(echo(program, "220 hi"));
    rig.publish().await;
    drop(rig.cart(80).await);
    let mut io = TunnelIo::new(rig.cart(80).await);
    io.shutdown().await.unwrap();
    let end = soon("the end", io.read(&mut [0])).await.unwrap();
    assert_eq!(end, 0);
    assert_eq!(rig.metric("istio_requests_total", ""), 0);
    assert_eq!(rig.metric("istio_tcp_connections_opened", ""), 0);
}

#[tokio::test]
async fn a_client_is_waited_for_as_long_as_the_mesh_says() {
    for (name, patience, routed) in [
        ("not at all", Duration::ZERO, false),
        ("for an hour", Duration::from_secs(3600), true),
    ] {
        let mut rig = Rig::new().await;
        let mut program = Program::new(&mut rig, OK).await;
        rig.resources = Some(told().sniffing(patience));
        rig.publish().await;
        let mut io = TunnelIo::new(rig.cart(SNIFFED).await);
        match routed {
            false => {
                let opened = || rig.metric("istio_tcp_connections_opened", "") >= 1;
                eventually("the way of bytes", opened).await;
            }
            // Longer than by default: there is nothing to see meanwhile.
            true => tokio::time::sleep(Duration::from_millis(150)).await,
        }
        let request = b"GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        io.write_all(request).await.unwrap();
        let seen = program.next().await;
        assert_eq!(seen.contains("x-request-id: "), routed, "{name}: {seen}");
    }
}
