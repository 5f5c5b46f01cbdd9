//! One host's data plane: takes over the traffic of the workloads placed here, tunnels it to
//! their peers, and delivers what peers send.
//!
//! [`Node`] keeps one [`local::Local`] running per workload the mesh places in a network of its own on
//! this host, and one [`host::Host`] for all on the host's own. Where a
//! connection goes is decided by [`crate::model`], how bytes move by [`crate::hbone`], where
//! sockets come from by [`crate::capture`]; this room only joins them, and tells of it.

mod carried;
mod connections;
mod datagrams;
pub mod dns;
mod host;
mod inbound;
mod lane;
mod listener;
mod load;
mod local;
mod neighbours;
mod outbound;
mod passthrough;
mod patience;
mod picks;
mod probe;
mod quic;
mod registry;
mod session;
mod vigil;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use connections::{Connection, Connections, Open};
pub(crate) use outbound::baggage;
pub(crate) use quic::transport;
pub use workers::Workers;

use crate::agent::certs::Certs;
use crate::agent::report::LocalStates;
use crate::agent::{MeshState, Placement};
use crate::capture::Sockets;
use crate::hbone::{Limits, Quic};
use crate::identity::SpiffeId;
use crate::model::declaration::Capture;
use crate::model::workload::Health;
use crate::resolve::Names;
use crate::sys;
use crate::telemetry::Metrics;
use host::Host;
use local::Local;
use neighbours::Neighbours;
use patience::Places;
use picks::Picks;
use probe::Probes;
use workers::Worker;

/// Between looks at whether a burst of connections is over.
const LOOK: Duration = Duration::from_secs(5);
/// Connections that make a burst: fewer leave too little behind to be worth the walk.
const BURST: usize = 256;

/// Longest wait for peers to hear that this node is going.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// What every local workload's traffic shares.
pub struct Shared {
    /// The mesh as last heard.
    pub mesh: watch::Receiver<Arc<MeshState>>,
    /// Certificates of local identities.
    pub certs: Certs,
    /// Where data-path sockets come from, and who keeps the rules.
    pub sockets: Sockets,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is open now.
    pub connections: Connections,
    /// How long open connections may finish after a stop.
    pub drain: Duration,
    /// The limits of tunnels.
    limits: Limits,
    /// Whether tunnels may go by QUIC.
    quic: bool,
    /// The data plane's threads.
    threads: Vec<Arc<Worker>>,
    /// Which of them accepts for the next workload.
    next: AtomicUsize,
    picks: Picks,
    /// Of whom nothing runs on this host's own network.
    absent: watch::Sender<BTreeSet<Arc<str>>>,
    /// Hosts outside the mesh.
    names: Names,
    /// Names that programs ask for.
    dns: dns::Common,
    neighbours: Neighbours,
    /// For connections whose waypoint takes none for a moment.
    waiting: Places,
}

impl Shared {
    /// Joins the parts a node works with.
    pub fn new(
        mesh: watch::Receiver<Arc<MeshState>>,
        certs: Certs,
        sockets: Sockets,
        metrics: Arc<Metrics>,
        drain: Duration,
        names: Names,
        workers: &Workers,
    ) -> Self {
        let settings = dns::Settings::default();
        Self {
            dns: dns::Common::new(mesh.clone(), settings, Arc::clone(&metrics)),
            mesh,
            certs,
            sockets,
            metrics,
            connections: Connections::default(),
            drain,
            limits: Limits::default(),
            quic: true,
            threads: workers.all().to_vec(),
            next: AtomicUsize::new(0),
            picks: Picks::default(),
            absent: watch::Sender::default(),
            names,
            neighbours: Neighbours::default(),
            waiting: Places::default(),
        }
    }

    /// The same, with what this host's settings say of names.
    #[must_use]
    pub fn naming(self, settings: dns::Settings) -> Self {
        let (mesh, metrics) = (self.mesh.clone(), Arc::clone(&self.metrics));
        Self {
            dns: dns::Common::new(mesh, settings, metrics),
            ..self
        }
    }

    /// The same, with tunnels by QUIC as this host's settings have it, or by TCP alone.
    #[must_use]
    pub fn carrying(self, quic: Option<Quic>) -> Self {
        let limits = Limits {
            quic: quic.unwrap_or_default(),
            ..self.limits
        };
        Self {
            limits,
            quic: quic.is_some(),
            ..self
        }
    }

    fn mesh(&self) -> Arc<MeshState> {
        Arc::clone(&self.mesh.borrow())
    }

    /// The data plane's threads, another one first each time.
    fn threads(&self) -> Vec<Arc<Worker>> {
        let mut threads = self.threads.clone();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let by = first.checked_rem(threads.len()).unwrap_or_default();
        threads.rotate_left(by);
        threads
    }
}

/// The node role.
pub struct Node {
    shared: Arc<Shared>,
    states: watch::Sender<LocalStates>,
    running: BTreeMap<Arc<str>, Running>,
    /// Serves all who are on this host's own network.
    host: Option<(CancellationToken, Id)>,
    tasks: JoinSet<()>,
    workers: Workers,
}

/// A workload's task, until it has ended: one that is still letting go of its namespace must be
/// through before another takes it up.
struct Running {
    placement: Arc<Placement>,
    stop: CancellationToken,
    task: Id,
}

impl Node {
    /// A node that moves bytes on `workers` and reports how its workloads are through `states`.
    pub fn new(shared: Arc<Shared>, workers: Workers, states: watch::Sender<LocalStates>) -> Self {
        Self {
            workers,
            shared,
            states,
            running: BTreeMap::new(),
            host: None,
            tasks: JoinSet::new(),
        }
    }

    /// Keeps exactly the workloads placed here running, and probes them, until `shutdown`; then
    /// drains them.
    pub async fn run(self, shutdown: CancellationToken) {
        let (mesh, states) = (self.shared.mesh.clone(), self.states.clone());
        let absent = self.shared.absent.subscribe();
        let probes = Probes::new(mesh, states, self.shared.sockets.clone(), absent);
        let probed = probes.run(shutdown.clone());
        let host = dns::Host::new(&self.shared.dns, &self.shared.sockets);
        let told = shutdown.clone();
        let named = async {
            if let Some(host) = host {
                host.run(told).await;
            }
        };
        tokio::join!(self.serve(shutdown), probed, named);
    }

    async fn serve(mut self, shutdown: CancellationToken) {
        let mut mesh = self.shared.mesh.clone();
        let mut look = tokio::time::interval(LOOK);
        loop {
            let state = Arc::clone(&mesh.borrow_and_update());
            self.follow(&state);
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = mesh.changed() => if changed.is_err() { break },
                Some(done) = self.tasks.join_next_with_id() => self.ended(done),
                _now = look.tick() => self.tidy().await,
            }
        }
        self.drain().await;
    }

    /// Gives memory back once a burst of connections is over.
    async fn tidy(&self) {
        let connections = &self.shared.connections;
        if connections.peak() < BURST || connections.len() > connections.peak() / 2 {
            return;
        }
        connections.forget_peak();
        // It walks the whole heap, which is no work for a thread that moves bytes.
        let trimmed = tokio::task::spawn_blocking(sys::release_free_memory);
        if let Err(e) = trimmed.await {
            warn!(error = %e, "memory not given back");
        }
    }

    /// Starts and stops workloads so that they match `state`.
    fn follow(&mut self, state: &MeshState) {
        let wanted: BTreeMap<Arc<str>, &Arc<Placement>> = state
            .placements
            .iter()
            .filter(|p| p.enrolled && matches!(p.capture, Some(Capture::Netns(_))))
            .map(|p| (Arc::clone(&p.uid), p))
            .collect();
        for (uid, running) in &self.running {
            let same = |p: &&Arc<Placement>| p.captured_like(&running.placement);
            if !wanted.get(uid).is_some_and(same) {
                running.stop.cancel();
            }
        }
        let placed: BTreeSet<&str> = state.placements.iter().map(|p| &*p.uid).collect();
        self.states
            .send_if_modified(|states| states.keep(|uid| placed.contains(uid)));
        self.shared.certs.set_wanted(identities(state));
        for (uid, placement) in wanted {
            if !self.running.contains_key(&uid) {
                self.start(uid, placement);
            }
        }
        if self.host.is_none() {
            let stop = CancellationToken::new();
            let host = Host::new(Arc::clone(&self.shared), self.states.clone());
            let task = self.tasks.spawn(host.run(stop.clone())).id();
            self.host = Some((stop, task));
        }
    }

    fn start(&mut self, uid: Arc<str>, placement: &Arc<Placement>) {
        let stop = CancellationToken::new();
        let local = Local::new(
            Arc::clone(&self.shared),
            Arc::clone(placement),
            self.states.clone(),
        );
        let task = self.tasks.spawn(local.run(stop.clone())).id();
        let placement = Arc::clone(placement);
        self.running.insert(
            uid,
            Running {
                placement,
                stop,
                task,
            },
        );
    }

    /// Forgets an ended task. It only ends because it was stopped; anything else is a defect that
    /// must not take its neighbours with it.
    fn ended(&mut self, done: Result<(Id, ()), tokio::task::JoinError>) {
        let (id, failed) = match done {
            Ok((id, ())) => (id, None),
            Err(failed) => (failed.id(), Some(failed)),
        };
        self.running.retain(|uid, running| {
            if running.task == id
                && let Some(error) = &failed
            {
                warn!(workload = %uid, error = %error, "workload's task died, starting it again");
            }
            running.task != id
        });
        if self.host.take_if(|(_stop, task)| *task == id).is_some()
            && let Some(error) = &failed
        {
            warn!(error = %error, "the task of this host's network died, starting it again");
        }
    }

    /// Tells that this node is going, and serves on until peers have heard of it, so that nobody is
    /// still sent here when the ports close. They hear with the same revision as this node does.
    async fn announce(&self) {
        self.states
            .send_if_modified(|states| !std::mem::replace(&mut states.draining, true));
        let mut mesh = self.shared.mesh.clone();
        let left = |state: &Arc<MeshState>| {
            let running = self.running.keys();
            let mut served = running.chain(host::hosted(state).map(|p| &p.uid));
            served.all(|uid| {
                let workload = state.view.workload(uid);
                workload.is_none_or(|w| w.health == Health::Unhealthy)
            })
        };
        // Without a control plane in reach nobody can be told.
        let _told_or_not = tokio::time::timeout(ANNOUNCE, mesh.wait_for(left)).await;
    }

    async fn drain(mut self) {
        self.announce().await;
        info!(
            workloads = self.running.len() + host::hosted(&self.shared.mesh()).count(),
            connections = self.shared.connections.len(),
            "draining"
        );
        for running in self.running.values() {
            running.stop.cancel();
        }
        if let Some((stop, _task)) = &self.host {
            stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
        // Waits for the threads, which have nothing left to do.
        let stopped = tokio::task::spawn_blocking(move || drop(self.workers));
        if let Err(e) = stopped.await {
            warn!(error = %e, "data plane threads not stopped");
        }
    }
}

/// The identities this node's workloads need, enrolled or not yet: certificates come ahead.
fn identities(state: &MeshState) -> BTreeSet<SpiffeId> {
    let of = |placement: &Arc<Placement>| {
        let workload = state.view.workload(&placement.uid)?;
        workload.identity().ok()
    };
    let enrolled = state.placements.iter().filter(|p| p.enrolled);
    enrolled.filter_map(of).collect()
}
