//! Datagrams through tunnels.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::hbone::testing::*;
use crate::hbone::*;

fn asked() -> ConnectRequest {
    ConnectRequest {
        carries: Carries::Datagrams,
        ..ask(5353)
    }
}

/// Both ends of a flow, and what keeps them.
struct Ends {
    near: Flow,
    far: Flow,
    _server: Server,
    _pool: Pool<Plain>,
    _requests: mpsc::Receiver<Incoming>,
}

async fn flow() -> Ends {
    let (handler, mut requests) = HandOver::new();
    let server = server(Limits::default(), handler).await;
    let (pool, _plain) = pool(steady());
    let (hop, request) = (server.web(), asked());
    let accept = async {
        let request = requests.recv().await.unwrap();
        assert_eq!(request.carries, Carries::Datagrams);
        assert_eq!(request.authority, asked().authority);
        Flow::new(request.accept("").unwrap())
    };
    let opened = async { tokio::join!(pool.connect(&hop, &request), accept) };
    let (near, far) = soon("a flow", opened).await;
    Ends {
        near: Flow::new(near.unwrap().0),
        far,
        _server: server,
        _pool: pool,
        _requests: requests,
    }
}

/// Sends one payload and waits for it at the other end, which waits meanwhile as a relay would.
async fn through(from: &mut Flow, to: &mut Flow, payload: &[u8]) -> Bytes {
    assert!(
        poll_fn(|cx| Poll::Ready(from.send(cx, payload)))
            .await
            .unwrap()
    );
    let moved = poll_fn(|cx| {
        let _leaves = from.poll_unwanted(cx);
        to.poll_recv(cx)
    });
    soon("a datagram", moved).await.unwrap().unwrap()
}

over_both! {
async fn payloads_of_any_size_arrive_whole_and_by_themselves() {
    let mut ends = flow().await;
    for size in [1, 512, 1_200, 1_500, 20_000, 65_507] {
        let payload = pattern(size);
        let there = through(&mut ends.near, &mut ends.far, &payload).await;
        assert!(there == payload, "{size} there: {}", there.len());
        let back = through(&mut ends.far, &mut ends.near, &payload).await;
        assert!(back == payload, "{size} back: {}", back.len());
    }
    let empty = through(&mut ends.near, &mut ends.far, &[]).await;
    assert!(empty.is_empty());
}

async fn what_is_longer_than_udp_has_is_dropped() {
    let mut ends = flow().await;
    let long = vec![0; 65_528];
    let sent = poll_fn(|cx| Poll::Ready(ends.near.send(cx, &long))).await;
    assert!(!sent.unwrap());
    let next = through(&mut ends.near, &mut ends.far, b"next").await;
    assert_eq!(next, b"next"[..]);
}

async fn an_end_is_told_from_a_cut() {
    let mut ends = flow().await;
    let _first = through(&mut ends.near, &mut ends.far, b"x").await;
    ends.near.close();
    let end = soon("the end", poll_fn(|cx| ends.far.poll_recv(cx))).await;
    assert!(matches!(end, Ok(None)), "{end:?}");

    let mut ends = flow().await;
    let _first = through(&mut ends.near, &mut ends.far, b"x").await;
    drop(ends.near);
    let cut = soon("the cut", poll_fn(|cx| ends.far.poll_recv(cx))).await;
    assert!(cut.is_err(), "{cut:?}");
}

async fn a_refusal_of_datagrams_tells_its_status() {
    let (handler, mut requests) = HandOver::new();
    let server = server(Limits::default(), handler).await;
    let (pool, _plain) = pool(steady());
    let (hop, request) = (server.web(), asked());
    let refuse = async { requests.recv().await.unwrap().refuse(http::StatusCode::NOT_IMPLEMENTED) };
    let asked = async { tokio::join!(pool.connect(&hop, &request), refuse) };
    let (refused, ()) = soon("an answer", Box::pin(asked)).await;
    let error = refused.unwrap_err();
    assert!(
        matches!(error, ConnectError::Refused { status } if status == http::StatusCode::NOT_IMPLEMENTED),
        "{error:?}"
    );
}
}
