//! Peers that nothing comes from, over QUIC alone.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::hbone::testing::*;
use crate::hbone::*;

/// A server behind an address at which another can take its place.
struct Replaced {
    server: Server,
    requests: mpsc::Receiver<Incoming>,
    /// Where datagrams go to, and come from.
    to: watch::Sender<SocketAddr>,
    _tasks: JoinSet<()>,
}

async fn replaced(limits: Limits) -> Replaced {
    let (handler, requests) = HandOver::new();
    let (server, front) = server_behind(limits, handler).await;
    let (to, whereto) = watch::channel(server.udp);
    let mut tasks = JoinSet::new();
    tasks.spawn(carry(front, whereto));
    Replaced {
        server,
        requests,
        to,
        _tasks: tasks,
    }
}

/// Carries the datagrams of one client to whoever is there, and from nobody else.
async fn carry(front: UdpSocket, to: watch::Receiver<SocketAddr>) {
    let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut there, mut here) = ([0u8; 2048], [0u8; 2048]);
    let mut client = None;
    loop {
        let now = *to.borrow();
        tokio::select! {
            Ok((size, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                back.send_to(&there[..size], now).await.unwrap();
            }
            Ok((size, from)) = back.recv_from(&mut here) => {
                if from == now {
                    front.send_to(&here[..size], client.unwrap()).await.unwrap();
                }
            }
        }
    }
}

impl Replaced {
    fn hop(&self) -> Hop {
        Hop {
            transport: Transport::Quic,
            ..self.server.web()
        }
    }
}

fn keyed(reset: ResetKey) -> Limits {
    Limits {
        quic: Quic {
            reset,
            ..Quic::default()
        },
        ..steady()
    }
}

fn by_quic() -> Pool<Plain> {
    let quic = endpoint(Links::default(), &steady());
    Pool::with_quic(Plain::default(), steady(), Some(quic))
}

/// Opens a tunnel that is let in at once.
async fn opened(pool: &Pool<Plain>, hop: &Hop, at: &mut mpsc::Receiver<Incoming>) -> [Tunnel; 2] {
    let request = ask(80);
    let taken = async { at.recv().await.unwrap().accept("").unwrap() };
    let (near, far) = soon("a tunnel", async {
        tokio::join!(pool.connect(hop, &request), taken)
    })
    .await;
    [near.unwrap().0, far]
}

#[tokio::test]
async fn who_begins_anew_is_asked_again() {
    for (name, key, most) in [
        ("with the secret of before", [7; 32], 400),
        ("with another", [8; 32], 2000),
    ] {
        let mut way = replaced(keyed(ResetKey::new([7; 32]))).await;
        let (pool, hop) = (by_quic(), way.hop());
        let _before = opened(&pool, &hop, &mut way.requests).await;
        let (handler, mut requests) = HandOver::new();
        let limits = keyed(ResetKey::new(key));
        let heir = heir(&way.server, limits, handler).await;
        way.to.send_replace(heir.udp);
        let since = Instant::now();
        let _after = opened(&pool, &hop, &mut requests).await;
        let took = since.elapsed();
        assert!(took < Duration::from_millis(most), "{name}: {took:?}");
    }
}

#[tokio::test]
async fn many_that_wait_do_not_wear_out_the_peer() {
    let mut way = replaced(steady()).await;
    let (pool, hop) = (by_quic(), way.hop());
    let _first = opened(&pool, &hop, &mut way.requests).await;
    let request = ask(80);
    let asked = futures::future::join_all((0..50).map(|_| pool.connect(&hop, &request)));
    let answers = async {
        let mut waiting = Vec::new();
        while waiting.len() < 50 {
            waiting.push(way.requests.recv().await.unwrap());
        }
        // Long enough for each to doubt that somebody is there, many times.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let accepted = waiting
            .into_iter()
            .map(|request| request.accept("").unwrap());
        accepted.collect::<Vec<_>>()
    };
    let (near, _far) = soon("tunnels", async { tokio::join!(asked, answers) }).await;
    assert!(near.iter().all(Result::is_ok));
    assert_eq!(pool.connections(), 1);
}

#[tokio::test]
async fn that_nobody_is_there_is_told_by_tcp() {
    let way = replaced(steady()).await;
    let (pool, mut hop) = (by_quic(), way.hop());
    // What comes there is read by nobody, and by TCP nobody listens.
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    hop.to = gone.local_addr().unwrap();
    let since = Instant::now();
    let refused = soon("a refusal", pool.connect(&hop, &ask(80))).await;
    let took = since.elapsed();
    let refused = refused.unwrap_err();
    assert!(refused.retryable() && !refused.is_silence(), "{refused:?}");
    assert!(took < Duration::from_millis(2000), "{took:?}");
}

#[tokio::test]
async fn who_takes_time_to_answer_is_asked_once() {
    let mut way = replaced(steady()).await;
    let (pool, hop) = (by_quic(), way.hop());
    let _first = opened(&pool, &hop, &mut way.requests).await;
    let request = ask(80);
    let answer = async {
        let request = way.requests.recv().await.unwrap();
        let another = tokio::time::timeout(Duration::from_millis(700), way.requests.recv());
        assert!(another.await.is_err(), "asked once more");
        request.accept("").unwrap()
    };
    let (near, _far) = soon("a tunnel", async {
        tokio::join!(pool.connect(&hop, &request), answer)
    })
    .await;
    near.unwrap();
    assert_eq!(pool.connections(), 1);
}

#[tokio::test]
async fn a_port_is_let_go_while_connections_linger() {
    let mut way = replaced(steady()).await;
    let quic = endpoint(Links::default(), &steady());
    let at = quic.local_addr().unwrap();
    let pool = Pool::with_quic(Plain::default(), steady(), Some(quic.clone()));
    let _open = opened(&pool, &way.hop(), &mut way.requests).await;
    quic.close();
    quic.release().unwrap();
    let taken = async {
        while UdpSocket::bind(at).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the port", taken).await;
}
