//! Clients that ask and then take nothing of the answer.

use std::time::Duration;

use ::http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::hbone::TunnelIo;
use crate::hbone::testing::{eventually, soon};
use crate::waypoint::testing::Rig;

/// How long nothing may move here.
const SILENCE: Duration = Duration::from_millis(500);
/// More than all windows on the way hold together.
const LARGE: usize = 64 << 20;

/// Answers `/large` with more than anybody holds, everything else with nothing.
async fn program(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _from) = listener.accept().await.unwrap();
        connections.spawn(async move {
            // It ends when the waypoint wants no more.
            let _cut = answer(tcp).await;
        });
    }
}

async fn answer(mut tcp: TcpStream) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await?);
        }
        let length = match head.starts_with(b"GET /large ") {
            true => LARGE,
            false => 0,
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        tcp.write_all(head.as_bytes()).await?;
        tcp.write_all(&vec![b'x'; length]).await?;
    }
}

async fn rig() -> Rig {
    let mut rig = Rig::cutting(SILENCE).await;
    let listener = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(program(listener));
    rig.publish().await;
    rig
}

async fn counted_as_gone(rig: &Rig) {
    eventually("it is counted", || {
        rig.metric("istio_requests_total", "response_flags=\"DC\"") == 1
    })
    .await;
}

#[tokio::test]
async fn of_http1_the_connection_is_cut() {
    let rig = rig().await;
    let mut io = TunnelIo::new(rig.cart(80).await);
    io.write_all(b"GET /large HTTP/1.1\r\nhost: cart\r\n\r\n")
        .await
        .unwrap();
    let mut start = [0; 12];
    soon("the answer begins", io.read_exact(&mut start))
        .await
        .unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    counted_as_gone(&rig).await;
    let mut rest = Vec::new();
    let cut = soon("a reset", io.read_to_end(&mut rest)).await;
    assert!(cut.is_err(), "after {} bytes", rest.len());
}

#[tokio::test]
async fn of_http2_the_stream_is_reset_and_its_neighbours_go_on() {
    let mut rig = rig().await;
    let io = TunnelIo::new(rig.cart(80).await);
    let (mut sender, connection) = h2::client::handshake(io).await.unwrap();
    rig.run(async move {
        let _ended = connection.await;
    });
    let get = |path| Request::get(format!("http://cart{path}")).body(()).unwrap();
    let (large, _body) = sender.send_request(get("/large"), true).unwrap();
    let large = soon("the answer begins", large).await.unwrap();
    counted_as_gone(&rig).await;
    let mut body = large.into_body();
    // What had come by then may still be read.
    let cut = soon("a reset", async {
        loop {
            match body.data().await {
                Some(Ok(bytes)) => assert!(!bytes.is_empty()),
                Some(Err(e)) => return e,
                None => panic!("it is whole"),
            }
        }
    });
    let cut = cut.await;
    assert_eq!(cut.reason(), Some(h2::Reason::CANCEL), "{cut}");
    let (small, _body) = sender.send_request(get("/small"), true).unwrap();
    let small = soon("another answer", small).await.unwrap();
    assert_eq!(small.status(), 200);
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_no_such_client() {
    let rig = rig().await;
    let mut io = TunnelIo::new(rig.cart(80).await);
    io.write_all(b"GET /large HTTP/1.1\r\nhost: cart\r\n\r\n")
        .await
        .unwrap();
    let mut piece = vec![0; 8 << 20];
    // Twice as long as nothing may move.
    for _ in 0..6 {
        soon("more", io.read_exact(&mut piece)).await.unwrap();
        tokio::time::sleep(SILENCE / 3).await;
    }
    let mut rest = vec![0; LARGE - 6 * piece.len()];
    soon("the rest", io.read_exact(&mut rest)).await.unwrap();
}
