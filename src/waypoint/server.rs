//! Takes tunnels for a waypoint on its instance's addresses, while the mesh places one here.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::http::StatusCode;
use arc_swap::ArcSwapOption;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::admission::admit;
use super::jwks::Keeper;
use super::lane::{Dealt, Lane};
use super::place::{self, Listener, Place};
use super::report::{State, Teller};
use super::{Arrival, Lookups, Settings, Shared, http, limits, protocol};
use crate::agent::MeshState;
use crate::agent::certs::{CertError, Certs};
use crate::capture::near;
use crate::causes::chain;
use crate::hbone::{self, Carries, Connector, Endpoint, Incoming};
use crate::node::baggage;
use crate::telemetry::Metrics;
use crate::telemetry::access_log::denied;
use crate::tls::{ServerSide, TlsError, hbone_server};

/// Tunnel connections of one waypoint; above it, new ones wait in the kernel's queue.
const CONNECTIONS: usize = 16_384;
/// Between attempts to listen.
const RETRY: Duration = Duration::from_millis(500);
/// Pause after a failed accept: out of descriptors, most likely, and trying at once only spins.
const PAUSE: Duration = Duration::from_millis(50);
/// After the last request has ended, until what it has left for collectors is told.
const FLUSH: Duration = Duration::from_secs(2);
/// Between looks at connections to endpoints that nobody needs any more.
const REAP: Duration = Duration::from_secs(1);

/// The waypoint role, for one waypoint.
pub struct Waypoint<C: Connector> {
    shared: Arc<Shared<C>>,
    lanes: Vec<Arc<Lane<C>>>,
    teller: Teller,
    /// Tunnel connections.
    tasks: JoinSet<()>,
    room: Arc<Semaphore>,
}

impl<C: Connector + Clone> Waypoint<C> {
    /// A waypoint that connects by `connector`, knows hosts outside the mesh by `names`, and says how it
    /// is through `teller`.
    pub fn new(
        settings: Settings,
        mesh: watch::Receiver<Arc<MeshState>>,
        certs: Certs,
        metrics: Arc<Metrics>,
        connector: C,
        names: Lookups,
        teller: Teller,
    ) -> Self {
        let threads = settings.threads.iter().cloned().enumerate();
        let lane = |(number, handle)| {
            let connector = connector.clone();
            Arc::new(Lane::new(number, handle, connector, &settings))
        };
        let lanes = threads.map(lane).collect();
        let shared = Arc::new(Shared {
            upstream: super::Upstream::new(connector, certs.clone()),
            endpoints: super::Endpoints::new(Arc::clone(&metrics)),
            http: http::Pool::default(),
            outside: super::outside::Instances::default(),
            names,
            keys: super::KeySets::default(),
            routing: super::Routing::default(),
            exports: super::Exports::new(Arc::clone(&metrics)),
            files: super::Files::new(Arc::clone(&metrics)),
            settings,
            mesh,
            placed: ArcSwapOption::empty(),
            certs,
            metrics,
        });
        Self {
            shared,
            lanes,
            teller,
            tasks: JoinSet::new(),
            room: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// The waypoint as whoever calls services, by one of its instances.
    #[cfg(test)]
    pub(super) fn caller(&self, instance: &str) -> http::Caller<C> {
        http::Caller {
            shared: Arc::clone(&self.shared),
            lane: Arc::clone(&self.lanes[0]),
            instance: Arc::from(instance),
        }
    }

    /// Takes tunnels wherever the mesh places this waypoint here, until `shutdown`; then lets what is
    /// open finish, and cuts what does not in time.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut mesh = self.shared.mesh.clone();
        let mut keeping = JoinSet::new();
        // To the end of the last request, which may name a key that nobody knows yet.
        let kept = CancellationToken::new();
        keeping.spawn(Keeper::new(Arc::clone(&self.shared)).run(kept.clone()));
        while !shutdown.is_cancelled() {
            let now = Arc::clone(&mesh.borrow_and_update());
            let place = Place::of(&self.shared.settings, &now);
            let uid = place.as_ref().ok().map(|p| Arc::clone(&p.instance.uid));
            self.prepare(place.as_ref().ok(), now);
            let listening = tokio::select! {
                () = shutdown.cancelled() => break,
                listening = place::listen(&self.shared, place) => listening,
            };
            match listening {
                Ok((place, listeners)) => {
                    self.serve(&place, listeners, &shutdown).await;
                    continue;
                }
                Err(unable) => {
                    let state = State::Pending(chain(&unable));
                    self.teller.tell(uid.as_ref(), state);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                Ok(()) = mesh.changed() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        self.drain().await;
        kept.cancel();
        while let Some(done) = keeping.join_next().await {
            report(done);
        }
    }

    /// Has what a place takes at hand. Without one, what the last took stays for those it serves still.
    fn prepare(&mut self, place: Option<&Place>, now: Arc<MeshState>) {
        while let Some(done) = self.tasks.try_join_next() {
            report(done);
        }
        if place.is_none() && !self.tasks.is_empty() {
            return;
        }
        self.shared.placed.store(place.map(|_here| now));
        place::want(&self.shared, place);
    }

    /// Serves until `shutdown`, or until the mesh places it otherwise.
    async fn serve(
        &mut self,
        place: &Place,
        listeners: Vec<Listener>,
        shutdown: &CancellationToken,
    ) {
        let Self {
            shared,
            lanes,
            teller,
            tasks,
            room,
        } = self;
        let at = listeners.iter().filter_map(|l| l.tcp.local_addr().ok());
        let uid = &place.instance.uid;
        teller.tell(Some(uid), State::Serving(at.collect()));
        // Not with `shutdown`: those who do not know of it yet are served.
        let stop = CancellationToken::new();
        let door = |lane: &Arc<Lane<C>>| {
            Arc::new(Door {
                shared: Arc::clone(shared),
                lane: Arc::clone(lane),
                instance: Arc::clone(uid),
                server: Mutex::new(None),
                stop: stop.clone(),
            })
        };
        let doors: Vec<_> = lanes.iter().map(door).collect();
        let mut accepting = JoinSet::new();
        let (give, mut taken) = tokio::sync::mpsc::channel(1);
        let mut endpoints = Vec::new();
        for Listener { tcp, quic } in listeners {
            let (give, room) = (give.clone(), Arc::clone(room));
            if let Some(quic) = quic {
                let (give, room) = (give.clone(), Arc::clone(&room));
                endpoints.push(quic.clone());
                accepting.spawn(async move { accept_quic(quic, room, give).await });
            }
            accepting.spawn(async move { accept(tcp, room, give).await });
        }
        let mut reap = tokio::time::interval(REAP);
        let announced = async {
            shutdown.cancelled().await;
            teller.announce(shared.mesh.clone()).await;
        };
        let left = place.left(shared);
        tokio::pin!(announced, left);
        loop {
            tokio::select! {
                () = &mut announced => break,
                () = &mut left => break,
                Some(done) = tasks.join_next() => report(done),
                _now = reap.tick() => {
                    lanes.iter().for_each(|lane| lane.tunnels.reap());
                    shared.http.reap();
                    shared.endpoints.look(Instant::now());
                }
                Some(taken) = taken.recv() => {
                    if let Some(door) = doors.iter().min_by_key(|door| door.lane.dealt()) {
                        let (handle, dealt) = (door.lane.handle(), door.lane.deal());
                        tasks.spawn_on(Arc::clone(door).serve(taken, dealt), handle);
                    }
                }
            }
        }
        accepting.shutdown().await;
        endpoints.iter().for_each(Endpoint::accept_no_more);
        stop.cancel();
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
        self.shared.exports.flush(FLUSH).await;
        self.shared.http.shutdown().await;
        for lane in &self.lanes {
            lane.drain().await;
        }
    }
}

/// A connection with its place among those a waypoint may have.
type Taken = (By, SocketAddr, OwnedSemaphorePermit);

/// What it came by.
enum By {
    Tcp(std::net::TcpStream),
    Quic(Box<hbone::Arrival>),
}

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
                // Another thread's loop is to watch it.
                let Ok(stream) = stream.into_std() else {
                    continue;
                };
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                if give.send((By::Tcp(stream), peer, place)).await.is_err() {
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

/// The same, of what comes by QUIC.
async fn accept_quic(quic: Endpoint, room: Arc<Semaphore>, give: tokio::sync::mpsc::Sender<Taken>) {
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let Some(arrival) = quic.accept().await else {
            return;
        };
        let peer = arrival.remote();
        if give
            .send((By::Quic(Box::new(arrival)), peer, place))
            .await
            .is_err()
        {
            return;
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
    /// The thread that serves them.
    lane: Arc<Lane<C>>,
    /// The instance's uid.
    instance: Arc<str>,
    /// TLS settings, and the certificate they are of.
    server: Mutex<Option<(String, Arc<ServerSide>)>>,
    /// Takes no more.
    stop: CancellationToken,
}

impl<C: Connector + Clone> Door<C> {
    /// Serves one tunnel connection to its end.
    async fn serve(self: Arc<Self>, (by, source, _place): Taken, _dealt: Dealt<C>) {
        match by {
            By::Tcp(stream) => self.serve_tcp(stream, source).await,
            By::Quic(arrival) => self.serve_quic(*arrival, source).await,
        }
    }

    async fn serve_quic(self: Arc<Self>, arrival: hbone::Arrival, source: SocketAddr) {
        let tls = match self.tls().await {
            Ok(tls) => tls,
            Err(e) => {
                arrival.refuse();
                return denied("waypoint", source, None, &chain(&e));
            }
        };
        let (limits, stop) = (limits(&self.shared.settings), self.stop.clone());
        if let Err(e) = hbone::serve_quic(arrival, tls, &limits, self, stop).await {
            denied("waypoint", source, None, &chain(&e));
        }
    }

    async fn serve_tcp(self: Arc<Self>, stream: std::net::TcpStream, source: SocketAddr) {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(e) => return denied("waypoint", source, None, &chain(&e)),
        };
        let arrived = stream.local_addr().ok();
        near::tunnel(&stream);
        let tls = match self.tls().await {
            Ok(tls) => tls,
            Err(e) => return denied("waypoint", source, arrived, &chain(&e)),
        };
        let (limits, stop) = (limits(&self.shared.settings), self.stop.clone());
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

    fn caller(&self) -> http::Caller<C> {
        http::Caller {
            shared: Arc::clone(&self.shared),
            lane: Arc::clone(&self.lane),
            instance: Arc::clone(&self.instance),
        }
    }

    async fn open(self: Arc<Self>, request: Incoming) {
        if request.carries == Carries::Datagrams {
            denied(
                "waypoint",
                request.remote,
                None,
                "datagrams pass no waypoint",
            );
            return request.refuse(StatusCode::NOT_IMPLEMENTED);
        }
        let started = Instant::now();
        let admitted = admit(&self.shared, &self.instance, &request);
        let (instance, client, bound) = match admitted {
            Ok(admitted) => admitted,
            Err(why) => {
                self.caller().refused(&request, &why, started);
                return request.refuse(why.status());
            }
        };
        // Answered at once: what becomes of it further on never changes that (§1.1).
        let tunnel = match request.accept(&baggage(&instance).render()) {
            Ok(tunnel) => tunnel,
            Err(e) => return denied("waypoint", client.source, None, &chain(&e)),
        };
        let arrival = Arc::new(Arrival {
            shared: Arc::clone(&self.shared),
            lane: Arc::clone(&self.lane),
            instance: Arc::clone(&self.instance),
            client,
            bound,
            started,
        });
        protocol::serve(arrival, tunnel, &self.stop).await;
    }
}

impl<C: Connector + Clone> hbone::Handler for Door<C> {
    // As if there were a web server that has no such page (§1.1).
    const NO_CONNECT: StatusCode = StatusCode::NOT_FOUND;

    fn handle(self: Arc<Self>, request: Incoming) -> impl Future<Output = ()> + Send {
        self.open(request)
    }
}
