//! The control plane's mirror on every other process: joins, keeps certificates and the mesh view
//! current, and tells how the local workloads are (`spec/control-plane.md` §3.7, §4, §6).

pub mod certs;
pub mod channel;
mod discovery;
mod failover;
mod grace;
pub mod guest;
pub mod identity;
pub mod issuer;
pub mod join;
mod keep;
pub mod link;
mod mirror;
mod order;
pub mod report;
#[cfg(test)]
mod scripted;
pub mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use crate::model::compile::Placement;
use crate::model::waypoint::WaypointName;
pub use link::Link;
pub use mirror::MeshState;

use certs::Certs;
use channel::{Controls, Who};
use discovery::Discovery;
use failover::Timing;
use grace::Watcher;
use guest::Guest;
use identity::{Keeper, NodeIdentity};
use issuer::ControlIssuer;
use keep::certs::Shelf;
use keep::clock::ClockFile;
use keep::view::ViewFile;
use report::facts::Facts;
use report::{LocalStates, streams};
use trust::Believed;

/// What this node is to its control planes.
pub enum Member {
    /// One that has joined.
    Joined(Keeper),
    /// One that follows another's control plane.
    Guest(Guest),
}

/// Everything an agent needs to begin.
pub struct Agent {
    controls: Controls,
    timing: Timing,
    /// Present on a node that has joined.
    keeper: Option<Keeper>,
    discovery: Discovery,
    certs: certs::Manager<ControlIssuer>,
    states: watch::Receiver<LocalStates>,
    kept: ViewFile,
    facts: Facts,
    grace: Option<Watcher>,
}

/// The latest time that is past for certain, by what was kept in the directory `state`. Blocks on the disk.
pub fn proven(state: &Path) -> Option<SystemTime> {
    ClockFile::of(state).kept()
}

/// What the rest of the process sees of the agent.
#[derive(Clone)]
pub struct Handle {
    /// The mesh as last heard.
    pub mesh: watch::Receiver<Arc<MeshState>>,
    /// Certificates of local identities.
    pub certs: Certs,
    /// How the connection to the control plane is.
    pub link: watch::Receiver<Link>,
    /// This node's name.
    pub node: Arc<str>,
    /// Its certificate, where it has joined.
    pub identity: Option<watch::Receiver<Arc<NodeIdentity>>>,
    /// How far the clock of the control plane that was heard last is from ours, where that is more than
    /// five minutes.
    pub clock_apart: watch::Receiver<Option<Duration>>,
}

impl Agent {
    /// An agent of a node that is `member` of a mesh, which keeps what it hears in the directory
    /// `state`, and roots and revocation lists for stock proxies in `exports`. `certificate_ttl` is
    /// the life asked for workloads' certificates; `waypoints` are those that this process is, and
    /// `states` is what it reports.
    pub fn new(
        state: &Path,
        exports: PathBuf,
        member: Member,
        controls: Vec<String>,
        certificate_ttl: Duration,
        waypoints: Vec<WaypointName>,
        states: watch::Receiver<LocalStates>,
    ) -> (Self, Handle) {
        let timing = Timing::default();
        let (keeper, who, node, epoch) = match member {
            Member::Joined(keeper) => {
                let identity = keeper.subscribe();
                let (node, epoch) = {
                    let identity = identity.borrow();
                    (Arc::clone(&identity.node), identity.mesh.epoch.clone())
                };
                (Some(keeper), Who::Node(identity), node, epoch)
            }
            Member::Guest(guest) => {
                let (node, epoch) = (Arc::clone(&guest.node), Guest::epoch(&controls));
                (None, Who::Guest(Arc::new(guest)), node, epoch)
            }
        };
        let controls = Controls::new(controls, who).of_waypoints(waypoints);
        let (mesh, mesh_seen) = watch::channel(Arc::new(MeshState::default()));
        let (link, link_seen) = watch::channel(Link::new(controls.urls()));
        let clock = ClockFile::of(state);
        let identity = keeper.as_ref().map(Keeper::subscribe);
        if let Some(identity) = &identity {
            crate::clock::at_least(identity.borrow().svid.not_before());
        }
        clock.load();
        let heard = clock.heard_by();
        let trust = keeper.as_ref().map(Keeper::trust);
        let shelf = Shelf::of(state, &epoch, trust.clone());
        let grace = trust.clone().map(|trust| {
            let (mesh, link) = (mesh_seen.clone(), link_seen.clone());
            Watcher::new(trust, mesh, link, heard)
        });
        let believed = trust.map(|trust| Believed::new(trust, &epoch, state, Some(exports)));
        let kept = ViewFile::of(state, &epoch);
        let told = keeper.as_ref().map(|_joined| epoch).unwrap_or_default();
        let issuer = ControlIssuer::new(controls.clone(), certificate_ttl, shelf);
        let (certs, handle) = certs::Manager::new(issuer, link_seen.clone());
        let clock_apart = clock.apart();
        let facts = Facts::new(clock, handle.clone(), link_seen.clone(), mesh_seen.clone());
        let agent = Self {
            facts,
            grace,
            kept,
            discovery: Discovery::new(controls.clone(), timing, told, believed, mesh, link),
            timing,
            controls,
            keeper,
            certs,
            states,
        };
        let handle = Handle {
            mesh: mesh_seen,
            certs: handle,
            link: link_seen,
            node,
            identity,
            clock_apart,
        };
        (agent, handle)
    }

    /// Keeps everything current until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        // A node that has not joined has no certificate to renew and nobody to report to.
        if let Some(keeper) = self.keeper {
            if let Some(believed) = self.discovery.believed() {
                tasks.spawn_blocking(move || believed.export_kept());
            }
            tasks.spawn(keeper.run(self.controls.clone(), shutdown.child_token()));
            let reports = streams::run(
                self.controls,
                self.states,
                self.timing,
                self.facts,
                shutdown.child_token(),
            );
            tasks.spawn(reports);
        }
        if let Some(grace) = self.grace {
            tasks.spawn(grace.run(shutdown.child_token()));
        }
        tasks.spawn(self.discovery.run(self.kept, shutdown.child_token()));
        tasks.spawn(self.certs.run(shutdown.child_token()));
        while let Some(done) = tasks.join_next().await {
            if let Err(e) = done {
                error!(error = %e, "a part of the agent died; the node keeps what it has");
            }
        }
    }
}
