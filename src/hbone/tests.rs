//! Both ends against each other over loopback, with real TLS.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::identity::SpiffeId;
use crate::tls::testing::{Leaf, TestCa};
use crate::tls::{Svid, hbone_server};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// Connects as it is told, counting how often.
#[derive(Clone, Default)]
struct Plain {
    dials: Arc<AtomicUsize>,
}

impl Connector for Plain {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        TcpStream::connect(to).await
    }
}

/// Connects every tunnel to `to`, whatever was asked for; refuses port 9.
struct Deliver {
    to: SocketAddr,
}

impl Handler for Deliver {
    async fn handle(&self, request: Incoming) {
        if request.authority.port() == 9 {
            return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
        }
        let tcp = TcpStream::connect(self.to).await.unwrap();
        let tunnel = request.accept("k8s.namespace.name=shop").unwrap();
        let _outcome = relay(tcp, tunnel, &Traffic::default()).await;
    }
}

/// A peer that delivers to a program of the test's.
struct Peer {
    ca: TestCa,
    at: SocketAddr,
    program: TcpListener,
    errors: mpsc::Receiver<String>,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

async fn peer(limits: Limits) -> Peer {
    let ca = TestCa::new();
    let tls = hbone_server(&ca.svid(CART)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let program = TcpSocket::new_v4().unwrap();
    program.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Room for every connection of a test that accepts none of them.
    let program = program.listen(1024).unwrap();
    let at = listener.local_addr().unwrap();
    let to = program.local_addr().unwrap();
    let (tell, errors) = mpsc::channel(64);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let shutdown = stop.clone();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (tcp, remote) = listener.accept().await.unwrap();
            let (tls, limits, tell) = (Arc::clone(&tls), limits.clone(), tell.clone());
            let shutdown = shutdown.clone();
            connections.spawn(async move {
                let handler = Arc::new(Deliver { to });
                if let Err(e) = serve(tcp, remote, tls, &limits, handler, shutdown).await {
                    let reason = crate::telemetry::access_log::chain(&e);
                    tell.send(reason).await.unwrap();
                }
            });
        }
    });
    Peer {
        ca,
        at,
        program,
        errors,
        stop,
        _tasks: tasks,
    }
}

fn ids(list: &[&str]) -> Arc<BTreeSet<SpiffeId>> {
    Arc::new(list.iter().map(|id| id.parse().unwrap()).collect())
}

fn ask(port: u16) -> ConnectRequest {
    ConnectRequest {
        authority: Authority::Address(SocketAddr::from(([10, 0, 0, 2], port))),
        baggage: "k8s.namespace.name=shop".to_owned(),
        forwarded: "for=\"10.0.0.1:4000\"".to_owned(),
        traceparent: headers::new_traceparent(),
    }
}

impl Peer {
    fn hop(&self, svid: Arc<Svid>) -> Hop {
        Hop {
            to: self.at,
            svid,
            accepted: ids(&[CART]),
        }
    }

    fn web(&self) -> Hop {
        self.hop(self.ca.svid(WEB))
    }

    /// A tunnel whose far end is a program: the client's and the server's socket.
    async fn session(
        &self,
        pool: &Pool<Plain>,
        hop: &Hop,
        tasks: &mut JoinSet<Result<(), RelayError>>,
    ) -> (TcpStream, TcpStream) {
        let (tunnel, _answer) = pool.connect(hop, &ask(80)).await.unwrap();
        let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(local.local_addr().unwrap())
            .await
            .unwrap();
        let (captured, _from) = local.accept().await.unwrap();
        tasks.spawn(async move { relay(captured, tunnel, &Traffic::default()).await });
        let (server, _from) = self.program.accept().await.unwrap();
        (client, server)
    }
}

fn pool() -> (Pool<Plain>, Arc<AtomicUsize>) {
    let plain = Plain::default();
    let dials = Arc::clone(&plain.dials);
    (Pool::new(plain, Limits::default()), dials)
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(10), future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("{what}: not within 10 s"),
    }
}

#[tokio::test]
async fn bytes_arrive_whole_and_each_direction_ends_by_itself() {
    let peer = peer(Limits::default()).await;
    let (pool, _dials) = pool();
    let mut tasks = JoinSet::new();
    let (mut client, mut server) = peer.session(&pool, &peer.web(), &mut tasks).await;
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let copy = data.clone();
    let writer = async {
        client.write_all(&copy).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let reader = async {
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        // The client has ended its direction; ours is still open.
        server.write_all(b"after your end").await.unwrap();
        server.shutdown().await.unwrap();
        got
    };
    let (answer, got) = soon("echo", async { tokio::join!(writer, reader) }).await;
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    assert_eq!(answer, b"after your end");
    soon("relay ends", tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_reset_stays_a_reset_in_both_directions() {
    for (name, by_client) in [("client resets", true), ("server resets", false)] {
        let peer = peer(Limits::default()).await;
        let (pool, _dials) = pool();
        let mut tasks = JoinSet::new();
        let (client, server) = peer.session(&pool, &peer.web(), &mut tasks).await;
        let (gone, mut left) = if by_client {
            (client, server)
        } else {
            (server, client)
        };
        reset(gone);
        let mut rest = Vec::new();
        let outcome = soon(name, left.read_to_end(&mut rest)).await;
        let kind = outcome.map_err(|e| e.kind());
        assert_eq!(kind, Err(io::ErrorKind::ConnectionReset), "{name}");
    }
}

#[tokio::test]
async fn a_reader_that_stalls_holds_back_its_sender_and_nobody_else() {
    let peer = peer(Limits::default()).await;
    let (pool, _dials) = pool();
    let mut tasks = JoinSet::new();
    let hop = peer.web();
    let (stalled, _reader_that_never_reads) = peer.session(&pool, &hop, &mut tasks).await;
    let chunk = vec![7u8; 64 << 10];
    let mut accepted = 0usize;
    // Writes until nothing more is taken for a while: what lies between the ends is then full.
    loop {
        let write = async {
            stalled.writable().await.unwrap();
            stalled.try_write(&chunk)
        };
        match tokio::time::timeout(Duration::from_millis(300), write).await {
            Ok(Ok(written)) => accepted += written,
            Ok(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(Err(e)) => panic!("{e}"),
            Err(_full) => break,
        }
    }
    assert!(accepted < 64 << 20, "{accepted} bytes lie between the ends");
    let (mut client, mut server) = peer.session(&pool, &hop, &mut tasks).await;
    let mut got = [0; 5];
    client.write_all(b"hello").await.unwrap();
    soon("a neighbour's bytes", server.read_exact(&mut got))
        .await
        .unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn a_server_says_why_it_refuses() {
    let mut peer = peer(Limits::default()).await;
    let (pool, _dials) = pool();
    let now = std::time::SystemTime::now();
    let hour = Duration::from_secs(3600);
    let expired = Leaf {
        not_before: now - 2 * hour,
        not_after: now - hour,
        ..Leaf::uris(&[WEB])
    };
    let foreign = peer.ca.svid("spiffe://other.local/ns/shop/sa/web");
    let stranger = TestCa::new();
    let forged = {
        let (chain, key) = stranger.leaf(&Leaf::uris(&[WEB]));
        Arc::new(Svid::new(vec![chain], key, peer.ca.roots()).unwrap())
    };
    for (name, svid, want) in [
        ("another trust domain", foreign, "of another trust domain"),
        ("another root", forged, "certificate is refused"),
    ] {
        let outcome = soon(name, pool.connect(&peer.hop(svid), &ask(80))).await;
        assert!(outcome.is_err(), "{name}");
        let reason = soon(name, peer.errors.recv()).await.unwrap();
        assert!(reason.contains(want), "{name}: {reason}");
    }
    // Our own side retires an expired certificate before it is ever shown, so the raw handshake
    // is what proves the server's judgement.
    let tls = crate::tls::hbone_client(&peer.ca.svid_of(&expired), ids(&[CART])).unwrap();
    let tcp = TcpStream::connect(peer.at).await.unwrap();
    let name = rustls_pki_types::ServerName::IpAddress(peer.at.ip().into());
    let mut stream = tokio_rustls::TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .unwrap();
    let mut byte = [0];
    let _alert = stream.read(&mut byte).await;
    let reason = soon("expired", peer.errors.recv()).await.unwrap();
    assert!(reason.contains("expired"), "{reason}");
}

#[tokio::test]
async fn a_client_says_why_it_refuses() {
    let peer = peer(Limits::default()).await;
    let (pool, _dials) = pool();
    let mut hop = peer.web();
    hop.accepted = ids(&["spiffe://cluster.local/ns/shop/sa/ledger"]);
    let error = pool.connect(&hop, &ask(80)).await.unwrap_err();
    assert_eq!(error.flag(), "TLS_FAILURE");
    let reason = crate::telemetry::access_log::chain(&error);
    assert!(
        reason.contains("the peer is spiffe://cluster.local/ns/shop/sa/cart"),
        "{reason}"
    );
    let error = pool.connect(&peer.web(), &ask(9)).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Refused { status } if status == StatusCode::SERVICE_UNAVAILABLE)
    );
}

#[tokio::test]
async fn one_dial_answers_all_who_wait() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let ca = TestCa::new();
    let hop = Hop {
        to: closed,
        svid: ca.svid(WEB),
        accepted: ids(&[CART]),
    };
    let (pool, dials) = pool();
    let request = ask(80);
    let attempts = (0..50).map(|_| pool.connect(&hop, &request));
    let outcomes = soon("fifty failures", futures::future::join_all(attempts)).await;
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(
        dials.load(Ordering::Relaxed),
        1,
        "one dial, its failure shared"
    );
}

#[tokio::test]
async fn a_waiter_survives_the_one_who_began_the_dial() {
    let peer = peer(Limits::default()).await;
    let (pool, dials) = pool();
    let hop = peer.web();
    let request = ask(80);
    {
        let leader = pool.connect(&hop, &request);
        tokio::pin!(leader);
        // Polled once, so that the dial has begun, then dropped.
        let _pending = futures::poll!(leader.as_mut());
    }
    let (_tunnel, answer) = soon("the waiter", pool.connect(&hop, &request))
        .await
        .unwrap();
    assert_eq!(answer.peer.to_string(), CART);
    assert_eq!(answer.baggage.namespace, "shop");
    assert_eq!(dials.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn more_streams_open_more_connections_which_are_used_again() {
    let peer = peer(Limits::default()).await;
    let (pool, _dials) = pool();
    let hop = peer.web();
    let mut tunnels = Vec::new();
    for n in 0..450 {
        let open = soon(
            &format!("stream {n} of {} connections", pool.connections()),
            pool.connect(&hop, &ask(80)),
        )
        .await;
        tunnels.push(open.unwrap_or_else(|e| panic!("stream {n}: {e}")));
    }
    let connections = pool.connections();
    assert!(
        (5..=8).contains(&connections),
        "{connections} connections for 450 streams"
    );
    tunnels.clear();
    for _ in 0..100 {
        tunnels.push(
            soon("a stream again", pool.connect(&hop, &ask(80)))
                .await
                .unwrap(),
        );
    }
    assert_eq!(
        pool.connections(),
        connections,
        "streams that ended are lent again"
    );
}

#[tokio::test]
async fn a_stopping_peer_lets_open_tunnels_finish() {
    let peer = peer(Limits::default()).await;
    let (pool, dials) = pool();
    let mut tasks = JoinSet::new();
    let hop = peer.web();
    let (mut client, mut server) = peer.session(&pool, &hop, &mut tasks).await;
    peer.stop.cancel();
    server.write_all(b"still here").await.unwrap();
    server.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon("after the stop", client.read_to_end(&mut got))
        .await
        .unwrap();
    assert_eq!(got, b"still here");
    assert_eq!(dials.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn anything_but_a_connect_to_a_target_is_a_bad_request() {
    let peer = peer(Limits::default()).await;
    let hop = peer.web();
    let dialled = connect::dial(&Plain::default(), &hop, &Limits::default())
        .await
        .unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        let _ended = dialled.connection.await;
    });
    let mut sender = dialled.sender.ready().await.unwrap();
    for (name, method, uri) in [
        ("GET", "GET", "https://10.0.0.2:80/"),
        ("no port", "CONNECT", "10.0.0.2"),
        ("port 0", "CONNECT", "10.0.0.2:0"),
    ] {
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .body(())
            .unwrap();
        let (answer, _body) = sender.send_request(request, true).unwrap();
        let status = soon(name, answer).await.unwrap().status();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name}");
        sender = sender.ready().await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_tunnel_is_a_reset_and_not_an_end() {
    let peer = peer(Limits::default()).await;
    let (pool, _dials) = pool();
    let (tunnel, _answer) = pool.connect(&peer.web(), &ask(80)).await.unwrap();
    let (mut server, _from) = peer.program.accept().await.unwrap();
    drop(tunnel);
    let mut rest = Vec::new();
    let outcome = soon("the program's end", server.read_to_end(&mut rest)).await;
    assert_eq!(
        outcome.map_err(|e| e.kind()),
        Err(io::ErrorKind::ConnectionReset)
    );
}
