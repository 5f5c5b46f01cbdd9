//! One workload's traffic on one data plane thread: what its connections there share.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, info, warn};

use super::listener::{Hand, serve};
use super::registry::{Attributes, Judge, Registration, Registry, Unwelcome};
use super::{Shared, datagrams, inbound, outbound, passthrough};
use crate::agent::MeshState;
use crate::agent::certs::CertError;
use crate::capture::{Arrival, Captured, Place, near};
use crate::hbone::{self, Endpoint};
use crate::model::inbound::Guarded;
use crate::model::policy::{Guard, Peer, Policies, Rehearsal, Request};
use crate::model::workload::Workload;
use crate::tls::{ServerSide, Svid, TlsError, hbone_server};

/// How long a connection waits for its own workload to appear in the view
/// (`spec/hbone-dataplane.md` §2.1).
const WORKLOAD_WAIT: Duration = Duration::from_secs(5);
/// How long open connections wait for a policy that their workload lists and nobody has told of
/// (`spec/control-plane.md` §3.7). New ones are refused meanwhile.
const POLICY_WAIT: Duration = Duration::from_millis(500);
/// How long tunnel connections without tunnels may take to end.
const LAST: Duration = Duration::from_secs(1);
/// Between looks at connections of the pool that nobody needs any more.
const REAP: Duration = Duration::from_secs(1);

/// The mesh, and a workload in it.
pub(super) type Known = (Arc<MeshState>, Arc<Workload>);

/// The policies that hold for a workload.
struct Held {
    policies: Arc<Policies>,
    workload: Arc<Workload>,
    guard: Arc<Guard>,
    /// How often it has become another.
    changes: u64,
}

/// What the connections of a workload on one thread share.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) uid: Arc<str>,
    pub(super) place: Place,
    pub(super) pool: hbone::Pool<Connector>,
    pub(super) stop: CancellationToken,
    server: Mutex<Option<(String, Arc<ServerSide>)>>,
    held: Mutex<Option<Held>>,
    registry: Registry,
    /// Connections that others on this host have handed over.
    guests: TaskTracker,
    /// Ends them.
    cut: CancellationToken,
    network: Network,
}

/// Whose network a workload is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// Its own, which its connections are opened in.
    Own,
    /// This host's, whose addresses it shares.
    Host,
    /// One behind this host, which its connections pass.
    Guest,
}

/// A handed over connection's stay: while it is held, the workload that was handed it waits for its
/// end when it stops.
pub(super) struct Stay {
    _counted: TaskTrackerToken,
    cut: CancellationToken,
    /// By which both sides were believed.
    proven: [Arc<Svid>; 2],
}

impl Stay {
    /// Waits until the workload has waited long enough, or either side is believed no more.
    pub(super) async fn over(&self) {
        let [ours, theirs] = &self.proven;
        let client = ours.id().trust_domain();
        tokio::select! {
            () = self.cut.cancelled() => {}
            () = ours.trust().revoked(ours.certificate()) => {}
            () = theirs.trust().revoked(theirs.certificate()) => {}
            () = theirs.trust().disowned(Some(client), theirs.id().trust_domain()) => {}
        }
    }
}

/// What arrives on the ports of a workload and is dealt to one thread.
pub(super) struct Hands {
    pub(super) outbound: Hand<TcpListener>,
    pub(super) plaintext: Hand<TcpListener>,
    pub(super) tunnels: Hand<TcpListener>,
    /// Those that come by QUIC; closed where none do.
    pub(super) quic: Hand<Endpoint>,
    /// Captured datagrams, which one thread has.
    pub(super) datagrams: Option<Captured>,
}

/// No certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerConfigError {
    #[error("the workload is not in the mesh view")]
    UnknownWorkload,
    #[error("no certificate")]
    Certificate(#[from] CertError),
    #[error("unusable certificate")]
    Tls(#[from] TlsError),
}

impl Lane {
    pub(super) fn new(
        shared: Arc<Shared>,
        uid: Arc<str>,
        place: Place,
        stop: CancellationToken,
        quic: Option<Endpoint>,
    ) -> Self {
        let connector = Connector {
            shared: Arc::clone(&shared),
            place: place.clone(),
        };
        Self {
            pool: hbone::Pool::with_quic(connector, shared.limits.clone(), quic),
            shared,
            uid,
            place,
            stop,
            server: Mutex::new(None),
            held: Mutex::new(None),
            registry: Registry::default(),
            guests: TaskTracker::new(),
            cut: CancellationToken::new(),
            network: Network::Own,
        }
    }

    /// The same, of a workload on another network than its own.
    pub(super) fn on(self, network: Network) -> Self {
        Self { network, ..self }
    }

    /// Whether the workload's connections may come from this address: of those on this host's network
    /// from any of the host's, as the route has it.
    pub(super) async fn calls_from(&self, workload: &Workload, source: IpAddr) -> bool {
        workload.addresses.contains(&source)
            || self.network == Network::Host && self.has(source).await
    }

    /// Whether connections for an address of the workload's are taken here.
    pub(super) async fn has(&self, ip: IpAddr) -> bool {
        match self.network {
            Network::Own | Network::Host => self.shared.sockets.owns(&self.place, ip).await,
            Network::Guest => true,
        }
    }

    /// Takes a connection of a neighbour's in, both sides of which have proven who they are; none
    /// while stopping.
    pub(super) fn receive(&self, proven: [Arc<Svid>; 2]) -> Option<Stay> {
        (!self.stop.is_cancelled()).then(|| Stay {
            _counted: self.guests.token(),
            cut: self.cut.clone(),
            proven,
        })
    }

    /// Lets connections that others have handed over finish once stopped, then cuts the rest; tells how many.
    async fn see_off(&self) -> usize {
        self.stop.cancelled().await;
        self.guests.close();
        let gone = timeout(self.shared.drain, self.guests.wait());
        let left = if gone.await.is_ok() {
            0
        } else {
            self.guests.len()
        };
        self.cut.cancel();
        left
    }

    /// Serves what is dealt until stopped, then lets what is open finish. Returns how many
    /// connections were cut.
    pub(super) async fn run(self, hands: Hands) -> usize {
        let lane = Arc::new(self);
        let _known = lane.shared.neighbours.enter(&lane);
        let (stop, drain) = (&lane.stop, lane.shared.drain);
        let served = async {
            let datagrams = async {
                if let Some(captured) = hands.datagrams {
                    let own = |_: &Arrival<'_>| Some(Arc::clone(&lane));
                    let served = datagrams::serve(captured, stop.clone(), own, own).await;
                    if let Err(error) = served {
                        warn!(workload = %lane.uid, %error, "captured datagrams cannot be read, they are dropped");
                    }
                }
            };
            let (a, b, c, d, e, ()) = tokio::join!(
                serve(hands.outbound, stop, drain, |(s, p)| {
                    outbound::handle(Arc::clone(&lane), s, p)
                }),
                serve(hands.plaintext, stop, drain, |(s, p)| {
                    passthrough::handle(Arc::clone(&lane), s, p)
                }),
                serve(hands.tunnels, stop, drain, |(s, p)| {
                    inbound::handle(Arc::clone(&lane), s, p)
                }),
                serve(hands.quic, stop, drain, |arrival| {
                    inbound::handle_quic(Arc::clone(&lane), arrival)
                }),
                lane.see_off(),
                datagrams,
            );
            a + b + c + d + e
        };
        lane.kept_while(served).await
    }

    /// The same where somebody else accepts, and has each connection [`visited`](Self::visited).
    pub(super) async fn host(self: Arc<Self>) -> usize {
        let _known = self.shared.neighbours.enter(&self);
        self.kept_while(self.see_off()).await
    }

    /// Serves a connection that somebody else has accepted, until it ends or the workload has been
    /// stopped and has waited long enough.
    pub(super) async fn visited(&self, served: impl Future<Output = ()>) {
        let _counted = self.guests.token();
        tokio::select! {
            biased;
            () = self.cut.cancelled() => {}
            () = served => {}
        }
    }

    /// Looks after what all connections share while they are `served`, then ends it.
    async fn kept_while(&self, served: impl Future<Output = usize>) -> usize {
        let cut = tokio::select! {
            cut = served => cut,
            never = self.reap() => match never {},
            never = self.police() => match never {},
        };
        // Its tunnels have ended or been cut; what is left only waits for peers.
        if timeout(LAST, self.pool.drain()).await.is_err() {
            debug!(workload = %self.uid, "tunnel connections closed without their peers' consent");
        }
        cut
    }

    async fn reap(&self) -> std::convert::Infallible {
        let mut tick = tokio::time::interval(REAP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.pool.reap();
        }
    }

    /// Judges what is open anew whenever other policies hold for the workload than before, or a waypoint
    /// must be passed elsewhere; for one that has left the mesh, by what would hold for it as it last was.
    async fn police(&self) -> std::convert::Infallible {
        let mut mesh = self.shared.mesh.clone();
        let (mut reviewed, mut last) = ((0, Guarded::default()), None);
        loop {
            let state = Arc::clone(&mesh.borrow_and_update());
            last = state.view.workload(&self.uid).cloned().or(last);
            if let Some(workload) = &last {
                let (guard, changes) = self.guard(&state, workload);
                let holds = (changes, Guarded::of(&state.view, workload));
                if holds != reviewed {
                    // A control plane that tells of policies after workloads has a moment for it.
                    if guard.waits()
                        && let Ok(Ok(())) = timeout(POLICY_WAIT, mesh.changed()).await
                    {
                        continue;
                    }
                    reviewed = holds;
                    let judge = Judge {
                        guard: &guard,
                        view: &state.view,
                        workload,
                    };
                    let ended = self.registry.review(&judge).await;
                    if ended > 0 {
                        let workload = &self.uid;
                        info!(%workload, ended, "policy or waypoint changed, connections closed");
                    }
                }
            }
            if mesh.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// What holds for the workload in this mesh, and how often that has become something else.
    fn guard(&self, mesh: &MeshState, workload: &Arc<Workload>) -> (Arc<Guard>, u64) {
        let policies = mesh.view.policies();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = &*held
            && Arc::ptr_eq(&held.policies, policies)
            && held.workload.namespace == workload.namespace
            && held.workload.authorization_policies == workload.authorization_policies
        {
            return (Arc::clone(&held.guard), held.changes);
        }
        let guard = Arc::new(policies.guard(workload));
        let before = held.as_ref();
        let changes = match before {
            Some(before) if before.guard.means(&guard) => before.changes,
            before => before.map_or(0, |before| before.changes) + 1,
        };
        *held = Some(Held {
            policies: Arc::clone(policies),
            workload: Arc::clone(workload),
            guard: Arc::clone(&guard),
            changes,
        });
        (guard, changes)
    }

    /// Judges a connection that arrives; one that is let in is judged again with every change. `seen`
    /// is how the mesh and the workload were when it came, for one that has left the mesh since.
    pub(super) fn judge(
        &self,
        attributes: Attributes,
        seen: Known,
    ) -> Result<Registration, Unwelcome> {
        // Registered first: a change from here on is seen there, one before it here.
        let registration = self.registry.enter(attributes.clone());
        let (mesh, workload) = self.known().unwrap_or(seen);
        let (guard, _changes) = self.guard(&mesh, &workload);
        if guard.rehearses() {
            let request = attributes.request();
            self.tell(&request, &guard.rehearse(&request));
        }
        let judge = Judge {
            guard: &guard,
            view: &mesh.view,
            workload: &workload,
        };
        judge.judge(&attributes)?;
        Ok(registration)
    }

    /// Tells what policies that are only tried would have done, in a line a connection.
    fn tell(&self, request: &Request, rehearsals: &[Rehearsal]) {
        let Some((first, more)) = rehearsals.split_first() else {
            return;
        };
        info!(
            workload = %self.uid,
            src.addr = request.source.map(tracing::field::display),
            src.principal = request.peer.as_ref().map(Peer::principal),
            dst.addr = %request.destination,
            policy.dry_run = %first,
            policy.more = more.len(),
            "policy dry run"
        );
    }

    /// The mesh, and this workload in it; waits a little for a view that does not have it yet.
    pub(super) async fn workload(&self) -> Option<Known> {
        match self.known() {
            Some(known) => Some(known),
            None => self.awaited().await,
        }
    }

    /// The same, as it is now.
    pub(super) fn known(&self) -> Option<Known> {
        let state = Arc::clone(&self.shared.mesh.borrow());
        let workload = Arc::clone(state.view.workload(&self.uid)?);
        Some((state, workload))
    }

    async fn awaited(&self) -> Option<Known> {
        let mut mesh = self.shared.mesh.clone();
        let known = mesh.wait_for(|m| m.view.workload(&self.uid).is_some());
        let known = timeout(WORKLOAD_WAIT, known).await;
        known.ok()?.ok()?;
        self.known()
    }

    /// The certificate this workload is known by.
    pub(super) async fn svid(&self, workload: &Workload) -> Result<Arc<Svid>, ServerConfigError> {
        let identity = workload.identity();
        let identity = identity.map_err(|_no_identity| ServerConfigError::UnknownWorkload)?;
        Ok(self.shared.certs.get(&identity).await?)
    }

    /// TLS settings for inbound HBONE, built once per certificate.
    pub(super) async fn server_config(&self) -> Result<Arc<ServerSide>, ServerConfigError> {
        let (_mesh, workload) = self
            .workload()
            .await
            .ok_or(ServerConfigError::UnknownWorkload)?;
        let svid = self.svid(&workload).await?;
        let mut cached = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((serial, config)) = &*cached
            && serial == svid.serial()
        {
            return Ok(Arc::clone(config));
        }
        let config = hbone_server(&svid)?;
        *cached = Some((svid.serial().to_owned(), Arc::clone(&config)));
        Ok(config)
    }

    /// Connects to a program in the workload, as the client's address where that is another's.
    pub(super) async fn deliver(&self, to: SocketAddr, client: IpAddr) -> io::Result<TcpStream> {
        let from = self.borrowed(to.ip(), client).await;
        let stream = self.shared.sockets.connect(&self.place, to, from).await?;
        near::local(&stream);
        Ok(stream)
    }

    /// The address of a client to appear as to a program at `to`, where it is another's.
    pub(super) async fn borrowed(&self, to: IpAddr, client: IpAddr) -> Option<IpAddr> {
        let itself = client == to || client.is_loopback();
        // An address of this host's own needs no borrowing, and answers to it no bending.
        let shared = self.network != Network::Own;
        let itself = itself || shared && self.shared.sockets.owns(&self.place, client).await;
        (!itself).then_some(client)
    }

    /// Whether an address is one that the workload shares with this host.
    pub(super) async fn shares(&self, ip: IpAddr) -> bool {
        self.network == Network::Host && self.has(ip).await
    }
}

/// Makes TCP connections to next hops inside the workload's namespace.
pub(super) struct Connector {
    shared: Arc<Shared>,
    place: Place,
}

impl hbone::Connector for Connector {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.shared.sockets.connect(&self.place, to, None).await?;
        near::tunnel(&stream);
        Ok(stream)
    }
}
