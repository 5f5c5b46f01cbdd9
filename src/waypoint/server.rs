//! Takes tunnels for a waypoint on its instance's addresses, while the mesh places one here.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::http::StatusCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Arrival, Client, Settings, Shared, http, limits, tcp};
use crate::agent::MeshState;
use crate::agent::certs::{CertError, Certs};
use crate::capture::near;
use crate::hbone::{self, Authority, Connector, Incoming, headers};
use crate::model::inbound::Target;
use crate::model::service::AppProtocol;
use crate::model::waypoint::{self, Bound};
use crate::model::workload::Workload;
use crate::node::baggage;
use crate::telemetry::Metrics;
use crate::telemetry::access_log::{chain, denied};
use crate::tls::{ServerSide, TlsError, hbone_server};

/// Tunnel connections of one waypoint; above it, new ones wait in the kernel's queue.
const CONNECTIONS: usize = 16_384;
/// Between attempts to listen.
const RETRY: Duration = Duration::from_millis(500);
/// Pause after a failed accept: out of descriptors, most likely, and trying at once only spins.
const PAUSE: Duration = Duration::from_millis(50);
/// Between looks at connections to endpoints that nobody needs any more.
const REAP: Duration = Duration::from_secs(1);

/// How a waypoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes no tunnels, and why.
    Pending(String),
    /// It takes tunnels there.
    Serving(Vec<SocketAddr>),
}

/// The waypoint role, for one waypoint.
pub struct Waypoint<C: Connector> {
    shared: Arc<Shared<C>>,
    state: watch::Sender<State>,
    /// Tunnel connections.
    tasks: JoinSet<()>,
    room: Arc<Semaphore>,
}

/// Why it takes no tunnels.
#[derive(Debug, thiserror::Error)]
enum Unable {
    #[error("the mesh has no waypoint {name} on node {node}")]
    Missing { name: String, node: Arc<str> },
    #[error("waypoint {name} has no address here")]
    NoAddress { name: String },
    #[error("waypoint {name} cannot prove who it is")]
    Unproven { name: String, source: CertError },
    #[error("waypoint {name} has no legal identity")]
    NoIdentity { name: String },
    #[error("cannot listen on {at}")]
    Listen { at: SocketAddr, source: io::Error },
}

impl<C: Connector + Clone> Waypoint<C> {
    /// A waypoint that connects by `connector`, and tells how it is through `state`.
    pub fn new(
        settings: Settings,
        mesh: watch::Receiver<Arc<MeshState>>,
        certs: Certs,
        metrics: Arc<Metrics>,
        connector: C,
        state: watch::Sender<State>,
    ) -> Self {
        let shared = Arc::new(Shared {
            upstream: super::Upstream::new(connector, certs.clone()),
            http: http::Pool::default(),
            routing: super::Routing::default(),
            sessions: super::SessionKey::new(rand::random()),
            settings,
            mesh,
            certs,
            metrics,
        });
        Self {
            shared,
            state,
            tasks: JoinSet::new(),
            room: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Takes tunnels wherever the mesh places this waypoint here, until `shutdown`; then lets what is
    /// open finish, and cuts what does not in time.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut mesh = self.shared.mesh.clone();
        while !shutdown.is_cancelled() {
            mesh.borrow_and_update();
            let listening = tokio::select! {
                () = shutdown.cancelled() => break,
                listening = self.listen() => listening,
            };
            let unable = match listening {
                Ok((instance, listeners)) => {
                    self.serve(&instance, listeners, &shutdown).await;
                    continue;
                }
                Err(unable) => unable,
            };
            self.tell(State::Pending(chain(&unable)));
            tokio::select! {
                () = shutdown.cancelled() => {}
                Ok(()) = mesh.changed() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        self.drain().await;
    }

    /// The instance of this node, listening once it has a certificate to serve with.
    async fn listen(&self) -> Result<(Arc<Workload>, Vec<TcpListener>), Unable> {
        let settings = &self.shared.settings;
        let name = || settings.name.to_string();
        let mesh = Arc::clone(&self.shared.mesh.borrow());
        let instance = waypoint::instance(&mesh.view, &settings.name, &settings.node);
        self.want(instance.map(|w| &**w));
        let instance = instance.ok_or_else(|| Unable::Missing {
            name: name(),
            node: Arc::clone(&settings.node),
        })?;
        let identity = instance.identity();
        let identity = identity.map_err(|_illegal| Unable::NoIdentity { name: name() })?;
        let certificate = self.shared.certs.get(&identity).await;
        certificate.map_err(|source| Unable::Unproven {
            name: name(),
            source,
        })?;
        let mut listeners = Vec::new();
        for address in &instance.addresses {
            let at = SocketAddr::new(*address, settings.port);
            let listener = TcpListener::bind(at).await;
            listeners.push(listener.map_err(|source| Unable::Listen { at, source })?);
        }
        match listeners.is_empty() {
            true => Err(Unable::NoAddress { name: name() }),
            false => Ok((Arc::clone(instance), listeners)),
        }
    }

    /// Asks for the certificate of the instance, and of nobody else.
    fn want(&self, instance: Option<&Workload>) {
        let identity = instance.and_then(|w| w.identity().ok());
        let part = format!("waypoint {}", self.shared.settings.name);
        let ids: BTreeSet<_> = identity.into_iter().collect();
        self.shared.certs.set_wanted_by(&part, ids);
    }

    /// Serves until `shutdown`, or until the mesh has the instance elsewhere or not at all.
    async fn serve(
        &mut self,
        instance: &Arc<Workload>,
        listeners: Vec<TcpListener>,
        shutdown: &CancellationToken,
    ) {
        let at = listeners.iter().filter_map(|l| l.local_addr().ok());
        self.tell(State::Serving(at.collect()));
        let stop = shutdown.child_token();
        let door = Arc::new(Door {
            shared: Arc::clone(&self.shared),
            instance: Arc::clone(&instance.uid),
            server: Mutex::new(None),
            stop: stop.clone(),
        });
        let mut accepting = JoinSet::new();
        let (give, mut taken) = tokio::sync::mpsc::channel(1);
        for listener in listeners {
            let (give, room) = (give.clone(), Arc::clone(&self.room));
            accepting.spawn(async move { accept(listener, room, give).await });
        }
        let mut reap = tokio::time::interval(REAP);
        let moved = moved(&self.shared, instance);
        tokio::pin!(moved);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = &mut moved => break,
                Some(done) = self.tasks.join_next() => report(done),
                _now = reap.tick() => {
                    self.shared.upstream.reap();
                    self.shared.http.reap();
                }
                Some(taken) = taken.recv() => {
                    self.tasks.spawn(Arc::clone(&door).serve(taken));
                }
            }
        }
        accepting.shutdown().await;
        stop.cancel();
    }

    fn tell(&self, state: State) {
        let new = self.state.send_if_modified(|now| {
            let new = *now != state;
            *now = state.clone();
            new
        });
        let waypoint = &self.shared.settings.name;
        match state {
            State::Serving(at) if new => info!(%waypoint, ?at, "waypoint serves"),
            State::Pending(reason) if new => {
                warn!(%waypoint, error = reason, "waypoint does not serve, trying again");
            }
            State::Serving(_) | State::Pending(_) => {}
        }
    }

    async fn drain(mut self) {
        let (waypoint, drain) = (&self.shared.settings.name, self.shared.settings.drain);
        info!(%waypoint, connections = self.tasks.len(), "draining");
        let finished = async {
            while let Some(done) = self.tasks.join_next().await {
                report(done);
            }
        };
        // Either all have finished, or the deadline has passed and the count below says so.
        let _in_time = tokio::time::timeout(drain, finished).await;
        let cut = self.tasks.len();
        if cut > 0 {
            warn!(%waypoint, cut, "drain deadline passed, connections cut");
        }
        self.tasks.shutdown().await;
        self.shared.http.shutdown().await;
        self.shared.upstream.drain().await;
    }
}

/// Returns once the mesh no longer has this instance at the same addresses.
async fn moved<C: Connector>(shared: &Shared<C>, instance: &Workload) {
    let mut mesh = shared.mesh.clone();
    let settings = &shared.settings;
    let elsewhere = |state: &Arc<MeshState>| {
        let now = waypoint::instance(&state.view, &settings.name, &settings.node);
        now.is_none_or(|now| {
            let same_identity = now.service_account == instance.service_account
                && now.trust_domain == instance.trust_domain;
            now.uid != instance.uid || now.addresses != instance.addresses || !same_identity
        })
    };
    if mesh.wait_for(elsewhere).await.is_err() {
        // Nobody tells of the mesh any more: it stays as it is.
        std::future::pending().await
    }
}

/// A connection with its place among those a waypoint may have.
type Taken = (TcpStream, SocketAddr, OwnedSemaphorePermit);

/// Accepts until it is dropped.
async fn accept(
    listener: TcpListener,
    room: Arc<Semaphore>,
    give: tokio::sync::mpsc::Sender<Taken>,
) {
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                if give.send((stream, peer, place)).await.is_err() {
                    return;
                }
            }
            Err(e) => {
                warn!(error = %e, "cannot accept, pausing");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn report(done: Result<(), JoinError>) {
    if let Err(failed) = done
        && failed.is_panic()
    {
        warn!(error = %failed, "a connection's task died");
    }
}

/// No certificate to serve with.
#[derive(Debug, thiserror::Error)]
enum NotProven {
    #[error("the waypoint's instance is not in the mesh view")]
    Gone,
    #[error("no certificate")]
    Certificate(#[from] CertError),
    #[error("unusable certificate")]
    Tls(#[from] TlsError),
}

/// Where tunnels for one instance come in.
struct Door<C: Connector> {
    shared: Arc<Shared<C>>,
    /// The instance's uid.
    instance: Arc<str>,
    /// TLS settings, and the certificate they are of.
    server: Mutex<Option<(String, Arc<ServerSide>)>>,
    /// Takes no more.
    stop: CancellationToken,
}

impl<C: Connector + Clone> Door<C> {
    /// Serves one tunnel connection to its end.
    async fn serve(self: Arc<Self>, (stream, source, _place): Taken) {
        let arrived = stream.local_addr().ok();
        near::tunnel(&stream);
        let tls = match self.tls().await {
            Ok(tls) => tls,
            Err(e) => return denied("waypoint", source, arrived, &chain(&e)),
        };
        let (limits, stop) = (limits(), self.stop.clone());
        let served = hbone::serve(stream, source, tls, &limits, self, stop).await;
        if let Err(e) = served {
            denied("waypoint", source, arrived, &chain(&e));
        }
    }

    /// TLS settings as this waypoint, built once per certificate.
    async fn tls(&self) -> Result<Arc<ServerSide>, NotProven> {
        let (_mesh, instance) = self.shared.known(&self.instance).ok_or(NotProven::Gone)?;
        let identity = instance.identity().map_err(|_illegal| NotProven::Gone)?;
        let svid = self.shared.certs.get(&identity).await?;
        let mut cached = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((serial, tls)) = &*cached
            && serial == svid.serial()
        {
            return Ok(Arc::clone(tls));
        }
        let tls = hbone_server(&svid)?;
        *cached = Some((svid.serial().to_owned(), Arc::clone(&tls)));
        Ok(tls)
    }

    /// Decides what a tunnel is for.
    fn admit(&self, request: &Incoming) -> Result<(Arc<Workload>, Client, Bound), StatusCode> {
        let refused = |reason: &str, status| {
            denied("waypoint", request.remote, None, reason);
            status
        };
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let known = self.shared.known(&self.instance);
        let (mesh, instance) =
            known.ok_or_else(|| refused("the waypoint has left the mesh", unavailable))?;
        let identity = request.peer.clone();
        let identity = identity
            .ok_or_else(|| refused("the peer proved no identity", StatusCode::UNAUTHORIZED))?;
        let target = match &request.authority {
            Authority::Address(address) => Target::Address(*address),
            Authority::Name { host, port } => Target::Name { host, port: *port },
        };
        let admitted = waypoint::admit(&mesh.view, &instance, target);
        let bound = admitted.map_err(|refusal| {
            let status = StatusCode::from_u16(refusal.status());
            refused(&chain(&refusal), status.unwrap_or(StatusCode::NOT_FOUND))
        })?;
        let (source, map) = (request.remote, &request.headers);
        let workload = mesh.view.workload_at(&instance.network, source.ip());
        let client = Client {
            identity,
            source,
            workload: workload.cloned(),
            baggage: headers::Baggage::read(map).render(),
            traceparent: headers::traceparent(map),
        };
        Ok((instance, client, bound))
    }

    async fn open(self: Arc<Self>, request: Incoming) {
        let started = Instant::now();
        let (instance, client, bound) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(status) => return request.refuse(status),
        };
        // Answered at once: what becomes of it further on never changes that (§1.1).
        let tunnel = match request.accept(&baggage(&instance).render()) {
            Ok(tunnel) => tunnel,
            Err(e) => return denied("waypoint", client.source, None, &chain(&e)),
        };
        let protocol = bound.app_protocol();
        let arrival = Arc::new(Arrival {
            shared: Arc::clone(&self.shared),
            instance: Arc::clone(&self.instance),
            client,
            bound,
            started,
        });
        match protocol {
            AppProtocol::Http11 => {
                http::serve(arrival, tunnel, http::Version::Http1, &self.stop).await
            }
            AppProtocol::Http2 | AppProtocol::Grpc => {
                http::serve(arrival, tunnel, http::Version::Http2, &self.stop).await;
            }
            AppProtocol::Unknown | AppProtocol::Tcp | AppProtocol::Tls => {
                tcp::serve(&arrival, tunnel, None).await;
            }
        }
    }
}

impl<C: Connector + Clone> hbone::Handler for Door<C> {
    fn handle(self: Arc<Self>, request: Incoming) -> impl Future<Output = ()> + Send {
        self.open(request)
    }
}
