//! How connections are shared, added, given up and closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::hbone::testing::*;
use crate::hbone::*;
use crate::tls::hbone_server;
use crate::tls::testing::TestCa;

over_both! {
async fn more_streams_open_more_connections_which_are_used_again() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(Limits {
        connections: 1,
        ..steady()
    });
    let hop = peer.server.web();
    let open = async || {
        soon("a stream", pool.connect(&hop, &ask(80)))
            .await
            .unwrap()
    };
    let mut tunnels = Vec::new();
    for _ in 0..100 {
        tunnels.push(open().await);
    }
    assert_eq!(pool.connections(), 1, "a hundred streams fit into one");
    tunnels.push(open().await);
    assert_eq!(pool.connections(), 2, "the next does not");
    tunnels.clear();
    for _ in 0..200 {
        tunnels.push(open().await);
    }
    assert_eq!(
        (pool.connections(), peer.server.arrivals()),
        (2, 2),
        "streams that ended are lent again"
    );
}
}

#[tokio::test]
async fn load_opens_connections_and_spreads_over_them() {
    let peer = peer(Limits::default()).await;
    let (pool, plain) = pool(Limits {
        busy: 8,
        ..steady()
    });
    let hop = peer.server.web();
    let mut tunnels = Vec::new();
    for n in 1..=8 {
        tunnels.push(
            soon("a stream", pool.connect(&hop, &ask(80)))
                .await
                .unwrap(),
        );
        assert_eq!(plain.dials(), 1, "{n} streams are no load");
    }
    for want in 2..=4 {
        // The one who finds it busy is not kept waiting for the new connection.
        tunnels.push(
            soon("a stream", pool.connect(&hop, &ask(80)))
                .await
                .unwrap(),
        );
        eventually("another connection", || pool.connections() == want).await;
        for _ in 0..8 {
            tunnels.push(
                soon("a stream", pool.connect(&hop, &ask(80)))
                    .await
                    .unwrap(),
            );
        }
    }
    for _ in 0..50 {
        tunnels.push(
            soon("a stream", pool.connect(&hop, &ask(80)))
                .await
                .unwrap(),
        );
    }
    assert_eq!(
        (pool.connections(), plain.dials()),
        (4, 4),
        "load alone opens no fifth"
    );
}

#[tokio::test]
async fn a_task_with_no_time_left_is_load_too() {
    let peer = peer(Limits::default()).await;
    let (pool, plain) = pool(Limits {
        // Any share is too much.
        busy_share: 0,
        ..steady()
    });
    let hop = peer.server.web();
    let _one = soon("a stream", pool.connect(&hop, &ask(80)))
        .await
        .unwrap();
    let _two = soon("a stream", pool.connect(&hop, &ask(80)))
        .await
        .unwrap();
    eventually("another connection", || pool.connections() == 2).await;
    assert_eq!(plain.dials(), 2);
}

#[tokio::test]
async fn a_stream_beside_bulk_has_a_connection_of_its_own() {
    let peer = peer(Limits::default()).await;
    let (pool, plain) = pool(Limits {
        // Whatever a connection moves is bulk.
        bulk: 0,
        aside: Duration::from_secs(60),
        ..steady()
    });
    let hop = peer.server.web();
    let mut tunnels = Vec::new();
    for n in 1..=6 {
        let tunnel = soon("a stream", pool.connect(&hop, &ask(80))).await;
        tunnels.push(tunnel.unwrap());
        // It was waited for, not only begun.
        assert_eq!(pool.connections(), n.min(4), "stream {n}");
    }
    assert_eq!(plain.dials(), 4);
}

/// Connects once; after that no dial comes to an end.
struct Stuck(Arc<AtomicUsize>);

impl Connector for Stuck {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => TcpStream::connect(to).await,
            _ => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn a_stream_waits_beside_bulk_only_so_long() {
    let peer = peer(Limits::default()).await;
    let dials = Arc::new(AtomicUsize::new(0));
    let limits = Limits {
        bulk: 0,
        aside: Duration::from_millis(10),
        ..steady()
    };
    let pool = Pool::new(Stuck(Arc::clone(&dials)), limits);
    let hop = peer.server.web();
    let _one = soon("a stream", pool.connect(&hop, &ask(80)))
        .await
        .unwrap();
    let _two = soon("one behind it", pool.connect(&hop, &ask(80)))
        .await
        .unwrap();
    assert_eq!((pool.connections(), dials.load(Ordering::Relaxed)), (1, 2));
}

/// Connects once and never again.
struct Once(Arc<AtomicUsize>);

impl Connector for Once {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => TcpStream::connect(to).await,
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

#[tokio::test]
async fn a_dial_for_load_that_fails_is_not_tried_with_every_stream() {
    let peer = peer(Limits::default()).await;
    let dials = Arc::new(AtomicUsize::new(0));
    let pool = Pool::new(
        Once(Arc::clone(&dials)),
        Limits {
            negative: Duration::from_secs(60),
            refused: Duration::from_secs(60),
            ..steady()
        },
    );
    let hop = peer.server.web();
    let mut tunnels = Vec::new();
    for _ in 0..100 {
        tunnels.push(
            soon("a stream", pool.connect(&hop, &ask(80)))
                .await
                .unwrap(),
        );
    }
    assert_eq!(dials.load(Ordering::Relaxed), 2);
}

/// Fails once, and then connects.
struct Late(io::ErrorKind, Arc<AtomicUsize>);

impl Connector for Late {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match self.1.fetch_add(1, Ordering::Relaxed) {
            0 => Err(self.0.into()),
            _ => TcpStream::connect(to).await,
        }
    }
}

#[tokio::test]
async fn where_nobody_listened_is_asked_again_soon() {
    let peer = peer(Limits::default()).await;
    for (name, failure, again) in [
        ("refused", io::ErrorKind::ConnectionRefused, true),
        ("unreachable", io::ErrorKind::HostUnreachable, false),
        ("silent", io::ErrorKind::TimedOut, false),
    ] {
        let dials = Arc::new(AtomicUsize::new(0));
        let limits = Limits {
            negative: Duration::from_secs(60),
            refused: Duration::ZERO,
            ..steady()
        };
        let pool = Pool::new(Late(failure, Arc::clone(&dials)), limits);
        let hop = peer.server.web();
        let first = soon(name, pool.connect(&hop, &ask(80))).await;
        assert!(first.is_err(), "{name}");
        let second = soon(name, pool.connect(&hop, &ask(80))).await;
        assert_eq!(second.is_ok(), again, "{name}");
        let dialled = dials.load(Ordering::Relaxed);
        assert_eq!(dialled, 1 + usize::from(again), "{name}");
    }
}

over_both! {
async fn who_may_share_a_connection() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let web = peer.server.web();
    let renewed = peer.server.web();
    let wider = Hop {
        accepted: ids(&[CART, WEB]),
        ..web.clone()
    };
    let named = Hop {
        name: Some("cart.shop.sa.cluster.local".into()),
        ..web.clone()
    };
    let other = peer
        .server
        .hop(peer.server.ca.svid("spiffe://cluster.local/ns/shop/sa/api"));
    let mut tunnels = Vec::new();
    for (name, hop, dials) in [
        ("the first", &web, 1),
        ("the same", &web, 1),
        ("the same identity, renewed", &renewed, 1),
        ("a peer that may be another", &wider, 2),
        ("another source", &other, 3),
        ("one who is asked for by name", &named, 4),
    ] {
        tunnels.push(soon(name, pool.connect(hop, &ask(80))).await.unwrap());
        assert_eq!(peer.server.arrivals(), dials, "{name}");
    }
}
}

over_both! {
async fn a_peer_that_restarts_is_dialled_anew() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let hop = peer.server.web();
    for round in 1..=3 {
        let opened = soon("a tunnel", pool.connect(&hop, &ask(80))).await;
        drop(opened.unwrap_or_else(|e| panic!("round {round}: {e:?}")));
        assert_eq!(peer.server.arrivals(), round);
        peer.server.crash();
        eventually("the connection is known to be dead", || {
            pool.reap();
            pool.connections() == 0
        })
        .await;
    }
}
}

#[tokio::test]
async fn a_stream_passed_over_unread_is_asked_for_again() {
    // The peer takes one stream at a time, which its SETTINGS tell too late for those that share
    // a new connection.
    let peer = peer(Limits {
        streams_in: 1,
        ..Limits::default()
    })
    .await;
    let (pool, _plain) = pool(steady());
    let hop = peer.server.web();
    let request = ask(80);
    let asked = join_all((0..3).map(|_| pool.connect(&hop, &request)));
    let tunnels = soon("the tunnels", asked).await;
    for tunnel in &tunnels {
        assert!(tunnel.is_ok(), "{tunnel:?}");
    }
    assert_eq!(pool.connections(), 3);
}

#[tokio::test]
async fn a_peer_that_answers_nothing_is_given_up() {
    let short = Duration::from_millis(50);
    for (name, limits, flag) in [
        (
            "by its missing pong",
            Limits {
                ping_after: short,
                ping_timeout: short,
                ..Limits::default()
            },
            "H2_HANDSHAKE_FAILURE",
        ),
        (
            "by its missing answer",
            Limits {
                response: short,
                ..Limits::default()
            },
            "CONNECT",
        ),
    ] {
        let ca = TestCa::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hop = Hop {
            to: listener.local_addr().unwrap(),
            svid: ca.svid(WEB),
            accepted: ids(&[CART]),
            name: None,
            transport: Transport::Tcp,
        };
        let tls = hbone_server(&ca.svid(CART)).unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (tcp, _from) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::clone(&tls.config))
                .accept(tcp)
                .await
                .unwrap();
            // Reads whatever comes and says nothing.
            let _end = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        });
        let (pool, _plain) = pool(limits);
        let error = soon(name, pool.connect(&hop, &ask(80))).await.unwrap_err();
        assert_eq!(error.flag(), flag, "{name}: {error:?}");
        drop(pool);
        soon("the connection is closed", server.join_next()).await;
    }
}

over_both! {
async fn a_tunnel_nobody_waits_for_any_more_is_cancelled() {
    let (handler, mut requests) = HandOver::new();
    let server = server(Limits::default(), handler).await;
    let (pool, _plain) = pool(Limits {
        response: Duration::from_millis(100),
        ..steady()
    });
    let error = soon("an answer", pool.connect(&server.web(), &ask(80)))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Timeout), "{error:?}");
    assert!(!error.retryable(), "it may have been served");
    let request = soon("the request", requests.recv()).await.unwrap();
    if let Ok(mut tunnel) = request.accept("") {
        let unwanted = std::future::poll_fn(|cx| tunnel.poll_unwanted(cx));
        soon("the cancellation", unwanted).await.unwrap();
    }
}
}

over_both! {
async fn unused_connections_close() {
    let mut peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(Limits {
        idle: Duration::from_millis(100),
        ..steady()
    });
    let hop = peer.server.web();
    let mut session = peer.session(&pool, &hop).await;
    // One that lends a stream is not unused, however quiet.
    let early = tokio::time::timeout(Duration::from_millis(300), async {
        loop {
            pool.reap();
            tokio::task::yield_now().await;
            if pool.connections() == 0 {
                return;
            }
        }
    });
    assert!(early.await.is_err());
    session.client.shutdown().await.unwrap();
    session.server.shutdown().await.unwrap();
    session.end("the tunnel").await.unwrap();
    eventually("it is let go", || {
        pool.reap();
        pool.connections() == 0
    })
    .await;
    peer.server.end("and closed").await.unwrap();
    drop(
        soon("a new one", pool.connect(&hop, &ask(80)))
            .await
            .unwrap(),
    );
    assert_eq!(peer.server.arrivals(), 2);
}
}

over_both! {
async fn a_pool_that_drains_lets_tunnels_finish() {
    let mut peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let hop = peer.server.web();
    let mut session = peer.session(&pool, &hop).await;
    let mut drain = Box::pin(pool.drain());
    assert!(futures::poll!(drain.as_mut()).is_pending());
    let error = pool.connect(&hop, &ask(80)).await.unwrap_err();
    assert_eq!((error.flag(), error.retryable()), ("CONNECT", false));
    session.client.write_all(b"x").await.unwrap();
    assert_eq!(session.server.read_u8().await.unwrap(), b'x');
    assert!(futures::poll!(drain.as_mut()).is_pending());
    session.client.shutdown().await.unwrap();
    session.server.shutdown().await.unwrap();
    session.end("the tunnel").await.unwrap();
    soon("the drain", drain).await;
    peer.server.end("the connection").await.unwrap();
}
}

over_both! {
async fn a_drain_that_is_cut_cuts_its_tunnels() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let mut session = peer.session(&pool, &peer.server.web()).await;
    let cut = tokio::time::timeout(Duration::from_millis(20), pool.drain()).await;
    assert!(cut.is_err());
    for program in [&mut session.client, &mut session.server] {
        let end = soon("a reset", program.read_u8()).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    }
}
}
