//! A waypoint, endpoints behind it and a client before it, for tests: loopback TCP with real TLS.

pub(super) mod told;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::http::Caller;
use super::{Lookups, SILENCE, Settings, State, Teller, Waypoint};
use crate::agent::MeshState;
use crate::agent::certs::Manager;
use crate::agent::issuer::{IssueError, Issuer};
use crate::agent::link::Link;
use crate::agent::report::LocalStates;
use crate::hbone::testing::{soon, tls_connect};
use crate::hbone::{
    self, ConnectError, ConnectRequest, Connector, Handler, Hop, Incoming, Limits, Pool, Traffic,
    Tunnel, headers,
};
use crate::identity::SpiffeId;
use crate::model::route::SessionKey;
use crate::model::service::{AppProtocol, Service, ServicePort};
use crate::model::testing::{port, service, view, waypoint_named, workload};
use crate::model::waypoint::Resources;
use crate::model::workload::{Health, Workload};
use crate::resolve::testing::Server;
use crate::resolve::{self, System};
use crate::telemetry::Metrics;
use crate::tls::testing::TestCa;
use crate::tls::{Svid, hbone_client, hbone_server};

/// Where service `cart` is.
pub(super) const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));

/// Signs whatever it is asked to, or nothing.
struct Signs {
    ca: Arc<TestCa>,
    refuses: Arc<AtomicBool>,
}

impl Issuer for Signs {
    async fn issue(&self, id: &SpiffeId) -> Result<Svid, IssueError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(IssueError::Timeout);
        }
        let uri = id.to_string();
        let uris = [uri.as_str()];
        let (certificate, key) = self.ca.leaf(&crate::tls::testing::Leaf::uris(&uris));
        Ok(Svid::new(vec![certificate], key, self.ca.trust())?)
    }

    async fn kept(&self, _id: &SpiffeId) -> Option<Svid> {
        None
    }

    async fn forget(&self, _id: &SpiffeId) {}
}

/// Connects to where the mesh's addresses really are; refuses the others.
#[derive(Clone, Default)]
pub(super) struct Mapped {
    to: Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>,
    /// How often somebody connected, or tried to.
    pub(super) dials: Arc<AtomicUsize>,
}

impl Mapped {
    /// From now on an address is there.
    pub(super) fn map(&self, address: SocketAddr, to: SocketAddr) {
        self.to.lock().unwrap().insert(address, to);
    }
}

impl Connector for Mapped {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        let mapped = self.to.lock().unwrap().get(&to).copied();
        let to = mapped.ok_or(io::ErrorKind::ConnectionRefused)?;
        TcpStream::connect(to).await
    }
}

/// Connects as it is told.
#[derive(Clone)]
struct Direct;

impl Connector for Direct {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(to).await
    }
}

/// What a tunnel said of its client and itself.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) peer: String,
    pub(super) authority: String,
    pub(super) baggage: String,
    pub(super) forwarded: String,
}

/// Relays every tunnel to one program.
struct Deliver {
    to: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Handler for Deliver {
    async fn handle(self: Arc<Self>, request: Incoming) {
        let field = |name| {
            let value = request.headers.get(name).unwrap();
            value.to_str().unwrap().to_owned()
        };
        let told = Told {
            peer: request.peer.clone().unwrap().to_string(),
            authority: request.authority.to_string(),
            baggage: field(headers::BAGGAGE),
            forwarded: field(headers::FORWARDED),
        };
        self.told.lock().unwrap().push(told);
        let Ok(tcp) = TcpStream::connect(self.to).await else {
            return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
        };
        let tunnel = request.accept("").unwrap();
        let _outcome = hbone::relay(tcp, tunnel, &Traffic::default()).await;
    }
}

/// A mesh around one waypoint.
pub(super) struct Rig {
    ca: Arc<TestCa>,
    pub(super) connector: Mapped,
    pub(super) metrics: Arc<Metrics>,
    pub(super) mesh: watch::Sender<Arc<MeshState>>,
    pub(super) state: watch::Receiver<State>,
    /// What the control plane hears of it.
    pub(super) reports: watch::Receiver<LocalStates>,
    pub(super) stop: CancellationToken,
    /// Raised, nobody is given a certificate.
    pub(super) refuses: Arc<AtomicBool>,
    /// What endpoints' tunnels said.
    pub(super) told: Arc<Mutex<Vec<Told>>>,
    client: Pool<Direct>,
    workloads: Vec<Workload>,
    services: Vec<Service>,
    /// Whom it asks for names outside the mesh.
    pub(super) names: Server,
    /// What it knows of them.
    pub(super) lookups: Lookups,
    /// What the waypoint is told besides.
    pub(super) resources: Option<Resources>,
    /// The waypoint's instance as whoever calls.
    pub(super) caller: Caller<Mapped>,
    pub(super) waypoint: JoinSet<()>,
    tasks: JoinSet<()>,
    /// Where it keeps keys of token issuers.
    keys: tempfile::TempDir,
}

pub(super) fn speaking(service_port: u16, app_protocol: AppProtocol) -> ServicePort {
    ServicePort {
        app_protocol,
        ..port(service_port, 8080)
    }
}

impl Rig {
    /// A running waypoint `shop/wp` for service `cart`, which nobody serves yet.
    pub(super) async fn new() -> Self {
        Self::draining(Duration::from_secs(10)).await
    }

    pub(super) async fn draining(drain: Duration) -> Self {
        Self::limited(drain, SILENCE).await
    }

    /// One that cuts requests in which nothing moves for so long.
    pub(super) async fn cutting(silence: Duration) -> Self {
        Self::limited(Duration::from_secs(10), silence).await
    }

    async fn limited(drain: Duration, silence: Duration) -> Self {
        let ca = Arc::new(TestCa::new());
        let refuses = Arc::<AtomicBool>::default();
        let signs = Signs {
            ca: Arc::clone(&ca),
            refuses: Arc::clone(&refuses),
        };
        let (manager, certs) = Manager::new(signs, watch::Sender::new(Link::default()).subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(manager.run(CancellationToken::new()));
        let (mesh, seen) = watch::channel(Arc::default());
        let keys = tempfile::tempdir().unwrap();
        let settings = Settings {
            name: "shop/wp".parse().unwrap(),
            node: Arc::from("edge-1"),
            threads: vec![tokio::runtime::Handle::current(); 2],
            drain,
            sessions: SessionKey::new([7; 32]),
            keys: keys.path().to_owned(),
            silence,
            quic: Some(hbone::Quic::default()),
        };
        let server = Server::new().await;
        let mut names = || {
            let (names, refresher) = resolve::names(System::of(&[server.at], PathBuf::new()));
            tasks.spawn(refresher.run(CancellationToken::new()));
            names
        };
        let names = Lookups {
            configured: names(),
            asked_for: names(),
        };
        let (connector, metrics) = (Mapped::default(), Arc::new(Metrics::default()));
        let (tell, state) = watch::channel(State::Pending(String::new()));
        let (states, reports) = watch::channel(LocalStates::default());
        let teller = Teller::new(settings.name.clone(), tell, states);
        let role = Waypoint::new(
            settings,
            seen,
            certs,
            Arc::clone(&metrics),
            connector.clone(),
            names.clone(),
            teller,
        );
        let caller = role.caller("wp-1");
        let stop = CancellationToken::new();
        let mut waypoint = JoinSet::new();
        waypoint.spawn(role.run(stop.clone()));
        let ports = [
            speaking(80, AppProtocol::Http11),
            speaking(81, AppProtocol::Grpc),
            speaking(90, AppProtocol::Tcp),
            speaking(91, AppProtocol::Unknown),
            speaking(443, AppProtocol::Tls),
            speaking(9000, AppProtocol::Http11),
        ];
        let cart = service("cart", &["10.96.0.10"]).ports(&ports);
        Self {
            ca,
            connector,
            metrics,
            mesh,
            state,
            reports,
            stop,
            refuses,
            told: Arc::default(),
            client: Pool::new(Direct, Limits::default()),
            workloads: vec![workload("wp-1", &["127.0.0.1"]).of("wp")],
            names: server,
            keys,
            lookups: names,
            resources: None,
            caller,
            services: vec![
                service("wp", &["10.96.0.1"]).ports(&[port(15008, 0)]),
                cart.through(waypoint_named("wp")),
                service("free", &["10.96.0.11"]),
            ],
            waypoint,
            tasks,
        }
    }

    /// Where it keeps keys of token issuers.
    pub(super) fn keys(&self) -> &std::path::Path {
        self.keys.path()
    }

    /// Tells the waypoint of the mesh as it is now, and waits until it serves.
    pub(super) async fn publish(&mut self) {
        self.tell();
        let serving = self.state.wait_for(|s| matches!(s, State::Serving(_)));
        soon("the waypoint serves", serving).await.unwrap();
    }

    /// Tells the waypoint of the mesh as it is now.
    pub(super) fn tell(&self) {
        let view = view(self.workloads.clone(), self.services.clone());
        let name = "shop/wp".parse().unwrap();
        let told = self.resources.clone();
        self.mesh.send_replace(Arc::new(MeshState {
            view: Arc::new(view),
            waypoints: told.map(|r| (name, Arc::new(r))).into_iter().collect(),
            ..MeshState::default()
        }));
    }

    /// Adds a service with the ports of `cart`, behind the same waypoint.
    pub(super) fn add_service(&mut self, name: &str, vip: &str) {
        let like = self.services.iter().find(|s| &*s.name == "cart").unwrap();
        let added = service(name, &[vip]).ports(&like.ports);
        self.services.push(added.through(waypoint_named("wp")));
    }

    /// Adds a service as it is.
    pub(super) fn add(&mut self, service: Service) {
        self.services.push(service);
    }

    /// Adds a workload as it is.
    pub(super) fn add_workload(&mut self, workload: Workload) {
        self.workloads.push(workload);
    }

    /// The mesh has its peers go by another instance.
    pub(super) fn lose_instance(&mut self) {
        for workload in self.workloads.iter_mut().filter(|w| &*w.uid == "wp-1") {
            workload.health = Health::Unhealthy;
        }
        self.tell();
    }

    /// Adds an endpoint of `cart` that takes tunnels, with its program.
    pub(super) async fn endpoint(&mut self, name: &str, address: &str) -> TcpListener {
        self.endpoint_of("cart", name, address).await
    }

    /// Adds an endpoint of a service that takes tunnels, with its program.
    pub(super) async fn endpoint_of(
        &mut self,
        service: &str,
        name: &str,
        address: &str,
    ) -> TcpListener {
        let program = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = SocketAddr::new(address.parse().unwrap(), 15008);
        self.connector.map(at, listener.local_addr().unwrap());
        let uri = format!("spiffe://cluster.local/ns/shop/sa/{name}");
        let tls = hbone_server(&self.ca.svid(&uri)).unwrap();
        let handler = Arc::new(Deliver {
            to: program.local_addr().unwrap(),
            told: Arc::clone(&self.told),
        });
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, remote) = listener.accept().await.unwrap();
                let (tls, handler) = (Arc::clone(&tls), Arc::clone(&handler));
                connections.spawn(async move {
                    let limits = Limits::default();
                    let stop = CancellationToken::new();
                    hbone::serve(tcp, remote, tls, &limits, handler, stop).await
                });
            }
        });
        self.workloads.push(workload(name, &[address]).of(service));
        program
    }

    /// Adds an endpoint of `cart` that takes no tunnels: its program.
    pub(super) async fn plain_endpoint(&mut self, name: &str, address: &str) -> TcpListener {
        let program = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = SocketAddr::new(address.parse().unwrap(), 8080);
        self.connector.map(at, program.local_addr().unwrap());
        self.workloads
            .push(workload(name, &[address]).of("cart").plain());
        program
    }

    /// Adds an endpoint of `cart` that nobody reaches.
    pub(super) fn dead_endpoint(&mut self, name: &str, address: &str) {
        self.workloads.push(workload(name, &[address]).of("cart"));
    }

    /// Nobody reaches an address any more.
    pub(super) fn unplug(&self, address: &str) {
        let address = SocketAddr::new(address.parse().unwrap(), 8080);
        self.connector.to.lock().unwrap().remove(&address);
    }

    /// Changes a workload, which is to be published.
    pub(super) fn change(&mut self, name: &str, change: impl FnOnce(&mut Workload)) {
        change(
            self.workloads
                .iter_mut()
                .find(|w| &*w.name == name)
                .unwrap(),
        );
    }

    /// Binds a workload to the waypoint by its own address.
    pub(super) fn bind_workload(&mut self, workload: Workload) {
        self.workloads.retain(|w| w.uid != workload.uid);
        let waypoint = Some(waypoint_named("wp"));
        self.workloads.push(Workload {
            waypoint,
            ..workload
        });
    }

    /// Where the waypoint takes tunnels.
    pub(super) fn at(&self) -> SocketAddr {
        match &*self.state.borrow() {
            State::Serving(at) => at[0],
            State::Pending(reason) => panic!("{reason}"),
        }
    }

    /// A TLS connection to the waypoint as workload `web`, for what no client of HBONE does.
    pub(super) async fn raw(&self) -> TlsStream<TcpStream> {
        let svid = self.ca.svid("spiffe://cluster.local/ns/shop/sa/web");
        let accepted = BTreeSet::from(["spiffe://cluster.local/ns/shop/sa/wp-1".parse().unwrap()]);
        let tls = hbone_client(&svid, Arc::new(accepted)).unwrap();
        tls_connect(self.at(), tls).await.unwrap()
    }

    /// Asks the waypoint for a tunnel, as workload `web`.
    pub(super) async fn connect(&self, authority: &str) -> Result<Tunnel, ConnectError> {
        let accepted = BTreeSet::from(["spiffe://cluster.local/ns/shop/sa/wp-1".parse().unwrap()]);
        let hop = Hop {
            to: self.at(),
            svid: self.ca.svid("spiffe://cluster.local/ns/shop/sa/web"),
            accepted: Arc::new(accepted),
            name: None,
            transport: hbone::Transport::Tcp,
        };
        let request = ConnectRequest {
            authority: authority.parse().unwrap(),
            baggage: "k8s.namespace.name=shop,service.name=web".to_owned(),
            forwarded: "for=\"10.1.0.1:4000\"".to_owned(),
            traceparent: headers::new_traceparent(),
            carries: hbone::Carries::Bytes,
        };
        let asked = self.client.connect(&hop, &request);
        let (tunnel, _answer) = soon("an answer to CONNECT", asked).await?;
        Ok(tunnel)
    }

    /// A tunnel to a port of `cart`.
    pub(super) async fn cart(&self, port: u16) -> Tunnel {
        self.to(SocketAddr::new(VIP, port)).await
    }

    /// A tunnel to an address.
    pub(super) async fn to(&self, address: SocketAddr) -> Tunnel {
        self.connect(&address.to_string()).await.unwrap()
    }

    /// Runs `task` beside the test.
    pub(super) fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(super) fn metric(&self, name: &str, label: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let lines = text
            .lines()
            .filter(|l| l.starts_with(name) && l.contains(label));
        let value = |l: &str| l.rsplit(' ').next().and_then(|v| v.parse::<u64>().ok());
        lines.filter_map(value).sum()
    }
}

/// Says its name, then echoes what it is sent, until the client has finished.
pub(super) async fn echo(program: TcpListener, name: &'static str) {
    let mut connections = JoinSet::new();
    loop {
        let (mut tcp, _from) = program.accept().await.unwrap();
        connections.spawn(async move {
            tcp.write_all(name.as_bytes()).await.unwrap();
            let mut heard = vec![0; 1 << 16];
            while let Ok(read @ 1..) = tcp.read(&mut heard).await {
                if tcp.write_all(&heard[..read]).await.is_err() {
                    return;
                }
            }
        });
    }
}
