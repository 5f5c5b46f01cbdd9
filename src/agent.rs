//! The control plane's mirror on every other process: joins, keeps certificates and the mesh view
//! current, and tells how the local workloads are (`spec/control-plane.md` §3.7, §4, §6).

pub mod certs;
pub mod channel;
pub mod discovery;
pub mod identity;
pub mod issuer;
pub mod join;
mod keep;
mod mirror;
pub mod report;
pub mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use crate::model::compile::Placement;
pub use discovery::Link;
pub use mirror::MeshState;

use certs::Certs;
use channel::Controls;
use identity::{Keeper, NodeIdentity};
use issuer::ControlIssuer;
use keep::certs::Shelf;
use keep::view::ViewFile;
use report::LocalStates;
use trust::Believed;

/// Everything an agent needs to begin.
pub struct Agent {
    controls: Controls,
    keeper: Keeper,
    identity: watch::Receiver<Arc<NodeIdentity>>,
    mesh: watch::Sender<Arc<MeshState>>,
    link: watch::Sender<Link>,
    certs: certs::Manager<ControlIssuer>,
    states: watch::Receiver<LocalStates>,
    kept: ViewFile,
    believed: Believed,
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
    /// Who this node is.
    pub identity: watch::Receiver<Arc<NodeIdentity>>,
}

impl Agent {
    /// An agent for a node that has joined, which keeps what it hears in the directory `state`, and
    /// roots and revocation lists for stock proxies in `exports`.
    /// `certificate_ttl` is the life asked for workloads' certificates; `states` is what it
    /// reports.
    pub fn new(
        state: &Path,
        exports: PathBuf,
        keeper: Keeper,
        controls: Vec<String>,
        certificate_ttl: Duration,
        states: watch::Receiver<LocalStates>,
    ) -> (Self, Handle) {
        let identity = keeper.subscribe();
        let controls = Controls::new(controls, identity.clone());
        let (mesh, mesh_seen) = watch::channel(Arc::new(MeshState::default()));
        let (link, link_seen) = watch::channel(Link::default());
        let epoch = identity.borrow().mesh.epoch.clone();
        let trust = identity.borrow().svid.trust().clone();
        let shelf = Shelf::of(state, &epoch, trust.clone());
        let issuer = ControlIssuer::new(controls.clone(), certificate_ttl, shelf);
        let (certs, handle) = certs::Manager::new(issuer);
        let agent = Self {
            controls,
            keeper,
            identity: identity.clone(),
            mesh,
            link,
            certs,
            states,
            kept: ViewFile::of(state, &epoch),
            believed: Believed::new(trust, &epoch, state, Some(exports)),
        };
        let handle = Handle {
            mesh: mesh_seen,
            certs: handle,
            link: link_seen,
            identity,
        };
        (agent, handle)
    }

    /// Keeps everything current until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        let node = self.identity.borrow().node.clone();
        tasks.spawn(
            self.keeper
                .run(self.controls.clone(), shutdown.child_token()),
        );
        tasks.spawn(discovery::run(
            self.controls.clone(),
            Arc::clone(&node),
            self.mesh,
            self.link,
            self.kept,
            self.believed,
            shutdown.child_token(),
        ));
        tasks.spawn(report::run(
            self.controls,
            self.states,
            shutdown.child_token(),
        ));
        tasks.spawn(self.certs.run(shutdown.child_token()));
        while let Some(done) = tasks.join_next().await {
            if let Err(e) = done {
                error!(error = %e, "a part of the agent died; the node keeps what it has");
            }
        }
    }
}
