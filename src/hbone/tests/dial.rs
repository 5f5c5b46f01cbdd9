//! How dials are shared and how they fail.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use tokio::net::TcpStream;

use crate::hbone::testing::*;
use crate::hbone::*;
use crate::tls::testing::{Leaf, TestCa};

/// A hop to which nobody connects for real.
fn nowhere(ca: &TestCa) -> Hop {
    Hop {
        to: SocketAddr::from(([192, 0, 2, 1], 15008)),
        svid: ca.svid(WEB),
        accepted: ids(&[CART]),
        name: None,
        transport: Transport::Tcp,
    }
}

/// Never answers, or fails, or panics: what a test of the pool alone needs.
#[derive(Clone)]
struct Never {
    dials: Arc<AtomicUsize>,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    Hangs,
    Refuses,
    Panics,
}

impl Never {
    fn new(how: How) -> Self {
        let dials = Arc::default();
        Self { dials, how }
    }

    fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }
}

impl Connector for Never {
    async fn connect(&self, _to: SocketAddr) -> io::Result<TcpStream> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        match self.how {
            How::Hangs => std::future::pending().await,
            How::Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
            How::Panics => panic!("a connector's fault"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_destination_fails_all_who_wait_together() {
    for (name, how, seconds, flag) in [
        ("silent", How::Hangs, 10, "NETWORK_POLICY"),
        ("refusing", How::Refuses, 0, "CONNECT"),
    ] {
        let never = Never::new(how);
        let pool = Pool::new(never.clone(), Limits::default());
        let hop = nowhere(&TestCa::new());
        let request = ask(80);
        let begun = tokio::time::Instant::now();
        let outcomes = join_all((0..50).map(|_| pool.connect(&hop, &request))).await;
        assert_eq!(begun.elapsed().as_secs(), seconds, "{name}");
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!((error.flag(), error.retryable()), (flag, true), "{name}");
        }
        assert_eq!(never.dials(), 1, "{name}: one dial, its failure shared");
        // And for a second after.
        assert!(pool.connect(&hop, &request).await.is_err(), "{name}");
        assert_eq!(never.dials(), 1, "{name}: the failure answers for a while");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pool.connect(&hop, &request).await.is_err(), "{name}");
        assert_eq!(never.dials(), 2, "{name}: but not for ever");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_panics_strands_nobody() {
    let never = Never::new(How::Panics);
    let pool = Pool::new(never.clone(), Limits::default());
    let hop = nowhere(&TestCa::new());
    let request = ask(80);
    for round in 1..=2 {
        let waiters = join_all((0..5).map(|_| pool.connect(&hop, &request)));
        let outcomes = soon("the waiters", waiters).await;
        assert!(outcomes.iter().all(Result::is_err));
        assert_eq!(never.dials(), round);
    }
}

#[tokio::test]
async fn an_expired_certificate_is_not_even_tried() {
    let never = Never::new(How::Hangs);
    let pool = Pool::new(never.clone(), Limits::default());
    let now = SystemTime::now();
    let ca = TestCa::new();
    let svid = ca.svid_of(&Leaf {
        not_before: now - Duration::from_secs(7200),
        not_after: now - Duration::from_secs(3600),
        ..Leaf::uris(&[WEB])
    });
    let hop = Hop {
        svid,
        ..nowhere(&ca)
    };
    let error = soon("a refusal", pool.connect(&hop, &ask(80)))
        .await
        .unwrap_err();
    assert_eq!((error.flag(), error.retryable()), ("IDENTITY_ERROR", false));
    assert_eq!(never.dials(), 0);
}

#[tokio::test]
async fn waiters_survive_the_one_who_began_the_dial() {
    let request = ask(80);
    for polls in 1..6 {
        let peer = peer(Limits::default()).await;
        let (pool, plain) = pool(steady());
        let hop = peer.server.web();
        let mut leader = Box::pin(pool.connect(&hop, &request));
        let waiters = async {
            let outcomes = join_all((0..20).map(|_| pool.connect(&hop, &request))).await;
            outcomes.into_iter().map(Result::unwrap).collect::<Vec<_>>()
        };
        let cancelled = async {
            // The further it is polled the later in the dial it is dropped.
            for _ in 0..polls {
                let _pending = futures::poll!(leader.as_mut());
                tokio::task::yield_now().await;
            }
            drop(leader);
        };
        let ((), tunnels) = soon("the waiters", async { tokio::join!(cancelled, waiters) }).await;
        for (_tunnel, answer) in &tunnels {
            assert_eq!(answer.peer.to_string(), CART);
            assert_eq!(answer.baggage.namespace, "shop");
        }
        // Twenty streams make the connection busy, so a second may be on its way.
        assert!(plain.dials() <= 2, "after {polls} polls: {}", plain.dials());
    }
}

over_both! {
async fn a_client_says_why_it_refuses() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let ledger = "spiffe://cluster.local/ns/shop/sa/ledger";
    for (name, accepted) in [("another", ids(&[ledger])), ("nobody accepted", ids(&[]))] {
        let hop = Hop {
            accepted,
            ..peer.server.web()
        };
        let error = soon(name, pool.connect(&hop, &ask(80))).await.unwrap_err();
        assert_eq!(
            (error.flag(), error.retryable()),
            ("TLS_FAILURE", true),
            "{name}"
        );
        let reason = crate::causes::chain(&error);
        assert!(
            reason.contains(&format!("the peer is {CART}")),
            "{name}: {reason}"
        );
    }
}
}

over_both! {
async fn a_server_that_refuses_us_is_not_asked_again_at_once() {
    let mut peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let hop = peer
        .server
        .hop(peer.server.ca.svid("spiffe://other.local/ns/shop/sa/web"));
    for n in 0..20 {
        let error = soon("a refusal", pool.connect(&hop, &ask(80)))
            .await
            .unwrap_err();
        assert_eq!(error.flag(), "TLS_FAILURE", "{n}: {error:?}");
        assert!(matches!(error, ConnectError::Dial(_)), "{n}: {error:?}");
    }
    assert_eq!(peer.server.arrivals(), 1);
    assert!(peer.server.end("the server's view").await.is_err());
}
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_drains_waits_for_no_dial() {
    let never = Never::new(How::Hangs);
    let pool = Pool::new(never.clone(), Limits::default());
    let hop = nowhere(&TestCa::new());
    let request = ask(80);
    let mut asked = Box::pin(pool.connect(&hop, &request));
    assert!(futures::poll!(asked.as_mut()).is_pending());
    let begun = tokio::time::Instant::now();
    let ((), outcome) = tokio::join!(pool.drain(), asked);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(matches!(outcome, Err(ConnectError::Dial(e)) if matches!(*e, DialError::Stopping)));
}
