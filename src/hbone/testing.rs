//! A peer, a pool and what goes between them, for tests: loopback TCP and UDP with real TLS.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::identity::SpiffeId;
use crate::tls::testing::{Leaf, TestCa};
use crate::tls::{Svid, Trust, hbone_client, hbone_server};

pub(super) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
pub(super) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
/// The port no program answers on.
pub(super) const DEAF: u16 = 9;

tokio::task_local! {
    /// What the tunnels of a test go by.
    static OVER: Transport;
}

/// What the tunnels of this test go by.
pub(super) fn transport() -> Transport {
    OVER.try_with(|over| *over).unwrap_or_default()
}

/// Runs a test with tunnels by `transport`.
pub(super) async fn over(transport: Transport, test: impl Future<Output = ()>) {
    OVER.scope(transport, test).await;
}

/// Makes two tests of each: by TCP and by QUIC.
macro_rules! over_both {
    ($($(#[$doc:meta])* async fn $name:ident() $body:block)*) => {
        $($(#[$doc])* mod $name {
            use super::*;

            async fn test() $body

            #[tokio::test]
            async fn by_tcp() {
                over(Transport::Tcp, test()).await;
            }

            #[tokio::test]
            async fn by_quic() {
                over(Transport::Quic, test()).await;
            }
        })*
    };
}
pub(super) use over_both;

/// Connects as it is told, counting how often.
#[derive(Clone, Default)]
pub(super) struct Plain {
    dials: Arc<AtomicUsize>,
}

impl Plain {
    pub(super) fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }
}

impl Connector for Plain {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        TcpStream::connect(to).await
    }
}

/// Hands each request to the test, which answers when it likes.
pub(super) struct HandOver {
    requests: mpsc::Sender<Incoming>,
}

impl HandOver {
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<Incoming>) {
        let (requests, taken) = mpsc::channel(1024);
        (Arc::new(Self { requests }), taken)
    }
}

impl Handler for HandOver {
    async fn handle(self: Arc<Self>, request: Incoming) {
        self.requests.send(request).await.unwrap();
    }
}

/// Relays every tunnel to one program, whatever was asked for; refuses [`DEAF`].
pub(super) struct Deliver {
    to: SocketAddr,
    ended: mpsc::Sender<String>,
}

impl Handler for Deliver {
    async fn handle(self: Arc<Self>, request: Incoming) {
        if request.authority.port() == DEAF {
            return request.refuse(http::StatusCode::SERVICE_UNAVAILABLE);
        }
        let tcp = TcpStream::connect(self.to).await.unwrap();
        let tunnel = request.accept("k8s.namespace.name=shop").unwrap();
        let outcome = relay(tcp, tunnel, &Traffic::default()).await;
        let ended = outcome.map_or_else(|e| e.to_string(), |()| "whole".to_owned());
        // Most tests do not ask, and must not hold up those that come after.
        let _unasked = self.ended.try_send(ended);
    }
}

/// A listener of tunnels with a certificate of its own.
pub(super) struct Server {
    pub(super) ca: Arc<TestCa>,
    pub(super) at: SocketAddr,
    /// Where its datagrams come in.
    pub(super) udp: SocketAddr,
    /// What its clients are judged by.
    pub(super) trust: Trust,
    arrivals: Arc<AtomicUsize>,
    /// How each connection ended, in order.
    pub(super) ends: mpsc::Receiver<Result<(), AcceptError>>,
    pub(super) stop: CancellationToken,
    /// Raised, it cuts all connections, as a crash would.
    crash: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

/// Any port of this host.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

pub(super) async fn server<H: Handler>(limits: Limits, handler: Arc<H>) -> Server {
    server_as(&Leaf::uris(&[CART]), limits, handler).await
}

/// One whose datagrams somebody else is to bring, who has the socket at its address.
pub(super) async fn server_behind<H: Handler>(
    limits: Limits,
    handler: Arc<H>,
) -> (Server, tokio::net::UdpSocket) {
    let (listener, front) = sockets().await;
    let behind = (listener, udp_socket(ANY).unwrap());
    let ca = Arc::new(TestCa::new());
    let server = listening(ca, &Leaf::uris(&[CART]), limits, handler, behind);
    (server, tokio::net::UdpSocket::from_std(front).unwrap())
}

/// Another process of the same workload's.
pub(super) async fn heir<H: Handler>(of: &Server, limits: Limits, handler: Arc<H>) -> Server {
    let ca = Arc::clone(&of.ca);
    listening(ca, &Leaf::uris(&[CART]), limits, handler, sockets().await)
}

pub(super) async fn server_as<H: Handler>(
    leaf: &Leaf<'_>,
    limits: Limits,
    handler: Arc<H>,
) -> Server {
    let ca = Arc::new(TestCa::new());
    listening(ca, leaf, limits, handler, sockets().await)
}

fn listening<H: Handler>(
    ca: Arc<TestCa>,
    leaf: &Leaf<'_>,
    limits: Limits,
    handler: Arc<H>,
    (listener, socket): (TcpListener, std::net::UdpSocket),
) -> Server {
    let tls = hbone_server(&ca.svid_of(leaf)).unwrap();
    let trust = tls.trust.clone();
    let at = listener.local_addr().unwrap();
    let endpoint = Endpoint::new(socket, Links::here(), "test", &limits).unwrap();
    let udp = endpoint.local_addr().unwrap();
    let arrivals = Arc::new(AtomicUsize::new(0));
    let arrived = Arc::clone(&arrivals);
    let (tell, ends) = mpsc::channel(1024);
    let (crash, crashed) = watch::channel(());
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let shutdown = stop.clone();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        let mut crashed = crashed;
        loop {
            let arrival = tokio::select! {
                accepted = listener.accept() => Ok(accepted.unwrap()),
                arrival = endpoint.accept() => Err(arrival.unwrap()),
                Ok(()) = crashed.changed() => { connections.abort_all(); continue; }
            };
            arrived.fetch_add(1, Ordering::Relaxed);
            let (tls, limits, tell) = (Arc::clone(&tls), limits.clone(), tell.clone());
            let (shutdown, handler) = (shutdown.clone(), Arc::clone(&handler));
            connections.spawn(async move {
                let end = match arrival {
                    Ok((tcp, remote)) => serve(tcp, remote, tls, &limits, handler, shutdown).await,
                    Err(quic) => serve_quic(quic, tls, &limits, handler, shutdown).await,
                };
                let _full = tell.try_send(end);
            });
        }
    });
    Server {
        ca,
        at,
        udp,
        trust,
        arrivals,
        ends,
        stop,
        crash,
        _tasks: tasks,
    }
}

/// Sockets for TCP and for UDP at the same port.
async fn sockets() -> (TcpListener, std::net::UdpSocket) {
    // A port that is free for TCP may be another test's for UDP.
    for _attempt in 0..100 {
        let listener = TcpListener::bind(ANY).await.unwrap();
        match udp_socket(listener.local_addr().unwrap()) {
            Ok(socket) => return (listener, socket),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::AddrInUse, "{e}"),
        }
    }
    panic!("no port is free for both TCP and UDP");
}

fn udp_socket(at: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// QUIC on the loopback, whose links are these.
pub(super) fn endpoint(links: Links, limits: &Limits) -> Endpoint {
    Endpoint::new(udp_socket(ANY).unwrap(), links, "test", limits).unwrap()
}

impl Server {
    /// How many connections have come.
    pub(super) fn arrivals(&self) -> usize {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// As `svid`, to this server, which is to be [`CART`].
    pub(super) fn hop(&self, svid: Arc<Svid>) -> Hop {
        Hop {
            to: self.at,
            svid,
            accepted: ids(&[CART]),
            name: None,
            transport: transport(),
        }
    }

    /// As [`WEB`], to this server.
    pub(super) fn web(&self) -> Hop {
        self.hop(self.ca.svid(WEB))
    }

    pub(super) fn crash(&self) {
        self.crash.send(()).unwrap();
    }

    /// A raw TLS connection of [`WEB`], for what no well-behaved client does.
    pub(super) async fn raw(&self) -> TlsStream<TcpStream> {
        let tls = hbone_client(&self.ca.svid(WEB), ids(&[CART])).unwrap();
        tls_connect(self.at, tls).await.unwrap()
    }

    pub(super) async fn end(&mut self, what: &str) -> Result<(), AcceptError> {
        soon(what, self.ends.recv()).await.unwrap()
    }
}

pub(crate) async fn tls_connect(
    to: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(to).await?;
    let name = rustls_pki_types::ServerName::IpAddress(to.ip().into());
    TlsConnector::from(tls).connect(name, tcp).await
}

/// A server in front of a program of the test's.
pub(super) struct Peer {
    pub(super) server: Server,
    pub(super) program: TcpListener,
    /// How the server's relays ended.
    pub(super) relays: mpsc::Receiver<String>,
}

pub(super) async fn peer(limits: Limits) -> Peer {
    let program = TcpSocket::new_v4().unwrap();
    program.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Room for every connection of a test that accepts none of them.
    let program = program.listen(1024).unwrap();
    let to = program.local_addr().unwrap();
    let (ended, relays) = mpsc::channel(64);
    let server = server(limits, Arc::new(Deliver { to, ended })).await;
    Peer {
        server,
        program,
        relays,
    }
}

/// Two programs that talk through a tunnel.
pub(super) struct Session {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
    pub(super) traffic: Arc<Traffic>,
    /// The client's relay; dropping the session cuts it.
    pub(super) relay: JoinSet<Result<(), RelayError>>,
}

impl Peer {
    pub(super) async fn session<C: Connector>(&self, pool: &Pool<C>, hop: &Hop) -> Session {
        let (tunnel, _answer) = pool.connect(hop, &ask(80)).await.unwrap();
        let (client, captured) = tcp_pair().await;
        let traffic = Arc::new(Traffic::default());
        let counted = Arc::clone(&traffic);
        let mut task = JoinSet::new();
        task.spawn(async move { relay(captured, tunnel, &counted).await });
        let (server, _from) = self.program.accept().await.unwrap();
        Session {
            client,
            server,
            traffic,
            relay: task,
        }
    }
}

impl Session {
    pub(super) async fn end(&mut self, what: &str) -> Result<(), RelayError> {
        let ended = soon(what, self.relay.join_next()).await;
        ended.unwrap().unwrap()
    }
}

pub(super) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Writes until nothing more is taken for a while; how much was.
pub(super) async fn fill(stream: &TcpStream, chunk: &[u8]) -> usize {
    let mut taken = 0;
    loop {
        let write = async {
            stream.writable().await.unwrap();
            stream.try_write(chunk)
        };
        match tokio::time::timeout(Duration::from_millis(300), write).await {
            Ok(Ok(written)) => taken += written,
            Ok(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(Err(e)) => panic!("{e}"),
            Err(_full) => return taken,
        }
    }
}

pub(super) fn ids(list: &[&str]) -> Arc<BTreeSet<SpiffeId>> {
    Arc::new(list.iter().map(|id| id.parse().unwrap()).collect())
}

pub(super) fn ask(port: u16) -> ConnectRequest {
    ConnectRequest {
        authority: Authority::Address(SocketAddr::from(([10, 0, 0, 2], port))),
        baggage: "k8s.namespace.name=shop".to_owned(),
        forwarded: "for=\"10.0.0.1:4000\"".to_owned(),
        traceparent: headers::new_traceparent(),
        carries: Carries::Bytes,
    }
}

pub(super) fn pool(limits: Limits) -> (Pool<Plain>, Plain) {
    let plain = Plain::default();
    let quic = (transport() != Transport::Tcp).then(|| endpoint(Links::default(), &limits));
    (Pool::with_quic(plain.clone(), limits, quic), plain)
}

/// Limits under which only streams are load, not what they carry, nor how busy this machine is with
/// other tests.
pub(super) fn steady() -> Limits {
    Limits {
        busy_share: u32::MAX,
        bulk: u64::MAX,
        ..Limits::default()
    }
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(10), future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("{what}: not within 10 s"),
    }
}

/// Waits until `holds`, looking again and again.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let look = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, look).await;
}

pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}
