//! QUIC where it works, TCP where not, and no waiting for either.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::hbone::testing::*;
use crate::hbone::*;

/// One way between the two ends of the ditch.
const WAY: Duration = Duration::from_millis(1);

/// A way for datagrams that can be blocked, before a server whose TCP goes straight.
struct Ditch {
    server: Server,
    blocked: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

async fn ditch(limits: Limits) -> Ditch {
    let (handler, mut requests) = HandOver::new();
    let (server, front) = server_behind(limits, handler).await;
    let blocked = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    tasks.spawn(carry(front, server.udp, Arc::clone(&blocked)));
    tasks.spawn(async move {
        let mut open = Vec::new();
        while let Some(request) = requests.recv().await {
            open.push(request.accept("").unwrap());
        }
    });
    Ditch {
        server,
        blocked,
        _tasks: tasks,
    }
}

/// Carries the datagrams of one client.
async fn carry(front: UdpSocket, to: SocketAddr, blocked: Arc<AtomicBool>) {
    let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    back.connect(to).await.unwrap();
    let (front, back) = (Arc::new(front), Arc::new(back));
    let (mut there, mut here) = ([0u8; 2048], [0u8; 2048]);
    let mut client = None;
    let mut under_way = JoinSet::new();
    loop {
        let due = Instant::now() + WAY;
        tokio::select! {
            Ok((size, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                let (back, packet) = (Arc::clone(&back), there[..size].to_vec());
                if !blocked.load(Ordering::Relaxed) {
                    under_way.spawn(async move {
                        sleep_until(due).await;
                        let _sent = back.send(&packet).await;
                    });
                }
            }
            Ok(size) = back.recv(&mut here) => {
                let (front, packet) = (Arc::clone(&front), here[..size].to_vec());
                if let Some(to) = client && !blocked.load(Ordering::Relaxed) {
                    under_way.spawn(async move {
                        sleep_until(due).await;
                        let _sent = front.send_to(&packet, to).await;
                    });
                }
            }
            Some(_sent) = under_way.join_next() => {}
        }
    }
}

impl Ditch {
    fn hop(&self) -> Hop {
        Hop {
            transport: Transport::Auto,
            ..self.server.web()
        }
    }

    fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }
}

/// What a tunnel went by, and how long it took to open.
async fn open(pool: &Pool<Plain>, hop: &Hop) -> (Transport, Duration) {
    let begun = Instant::now();
    let (tunnel, _answer) = soon("a tunnel", pool.connect(hop, &ask(80))).await.unwrap();
    (tunnel.transport(), begun.elapsed())
}

async fn until(pool: &Pool<Plain>, hop: &Hop, wanted: Transport) {
    let look = async {
        while open(pool, hop).await.0 != wanted {
            sleep(Duration::from_millis(10)).await;
        }
    };
    soon("tunnels by the other way", look).await;
}

fn limits() -> Limits {
    Limits {
        quic_handshake: Duration::from_millis(300),
        probe: Duration::from_millis(500),
        ..steady()
    }
}

/// With a way to `poor` that TCP was found to do badly on, as it would over a lossy link.
fn auto_pool(poor: Option<SocketAddr>) -> Pool<Plain> {
    let quic = endpoint(Links::default(), &limits());
    if let Some(to) = poor {
        quic.paths().is_worth_it(to, Instant::now(), || true);
    }
    Pool::with_quic(Plain::default(), limits(), Some(quic))
}

#[tokio::test]
async fn the_first_tunnel_waits_for_nothing_and_later_ones_go_by_quic() {
    let ditch = ditch(limits()).await;
    let pool = auto_pool(Some(ditch.server.at));
    let hop = ditch.hop();
    assert_eq!(open(&pool, &hop).await.0, Transport::Tcp);
    until(&pool, &hop, Transport::Quic).await;
    assert_eq!(open(&pool, &hop).await.0, Transport::Quic);
}

#[tokio::test]
async fn a_near_peer_is_reached_by_tcp_which_costs_less() {
    let peer = peer(limits()).await;
    let pool = auto_pool(None);
    let hop = Hop {
        transport: Transport::Auto,
        ..peer.server.web()
    };
    drop(pool.connect(&hop, &ask(80)).await.unwrap());
    eventually("the way is known", || pool.connections() == 2).await;
    assert_eq!(open(&pool, &hop).await.0, Transport::Tcp);
}

#[tokio::test]
async fn where_datagrams_are_blocked_tcp_carries_all_until_they_are_not() {
    let ditch = ditch(limits()).await;
    let pool = auto_pool(Some(ditch.server.at));
    let hop = ditch.hop();
    ditch.block(true);
    let begun = Instant::now();
    // Past the handshake's time, and past several attempts.
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(open(&pool, &hop).await.0, Transport::Tcp);
        sleep(Duration::from_millis(20)).await;
    }
    ditch.block(false);
    until(&pool, &hop, Transport::Quic).await;
}

#[tokio::test]
async fn a_way_that_breaks_fails_nothing_and_holds_up_little() {
    let ditch = ditch(limits()).await;
    let pool = auto_pool(Some(ditch.server.at));
    let hop = ditch.hop();
    assert_eq!(open(&pool, &hop).await.0, Transport::Tcp);
    until(&pool, &hop, Transport::Quic).await;
    ditch.block(true);
    let (by, took) = open(&pool, &hop).await;
    assert_eq!(by, Transport::Tcp);
    assert!(took < Duration::from_secs(1), "{took:?}");
    for n in 0..20 {
        // Those that follow do not even try.
        let opened = tokio::time::timeout(Duration::from_millis(40), open(&pool, &hop)).await;
        assert!(opened.is_ok_and(|(by, _)| by == Transport::Tcp), "{n}");
    }
    ditch.block(false);
    until(&pool, &hop, Transport::Quic).await;
}
