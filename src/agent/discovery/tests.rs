//! The client against control planes on loopback: real ones, and ones that do as they are told.

mod failover;
mod istiod;
mod silence;
mod waypoints;

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Discovery;
use crate::agent::channel::Controls;
use crate::agent::failover::Timing;
use crate::agent::keep::view::ViewFile;
use crate::agent::scripted::PATIENCE;
use crate::agent::{Link, MeshState};

/// Waits as a tests' patience has it, all in the proportions of the real ones.
fn brisk() -> Timing {
    let milliseconds = Duration::from_millis;
    Timing {
        backoff: (milliseconds(5), milliseconds(50)),
        back: Duration::from_secs(3600),
        healthy: milliseconds(300),
        look: milliseconds(60),
        confirm: milliseconds(10),
        answers: milliseconds(40),
        silence: Duration::from_secs(5),
        patience: milliseconds(400),
        dice: || 0.5,
    }
}

/// A running client, and what the rest of a process sees of it.
struct Client {
    mesh: watch::Receiver<Arc<MeshState>>,
    link: watch::Receiver<Link>,
    state: TempDir,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Client {
    fn start(controls: Controls, timing: Timing, epoch: Vec<u8>) -> Self {
        Self::resume(controls, timing, epoch, tempfile::tempdir().unwrap())
    }

    /// One that goes on from what another kept.
    fn resume(controls: Controls, timing: Timing, epoch: Vec<u8>, state: TempDir) -> Self {
        let (mesh, mesh_seen) = watch::channel(Arc::default());
        let (link, link_seen) = watch::channel(Link::new(controls.urls()));
        let file = ViewFile::of(state.path(), &epoch);
        let discovery = Discovery::new(controls, timing, epoch, None, mesh, link);
        let mut tasks = JoinSet::new();
        let shutdown = CancellationToken::new();
        tasks.spawn(discovery.run(file, shutdown.clone()));
        Self {
            mesh: mesh_seen,
            link: link_seen,
            state,
            shutdown,
            tasks,
        }
    }

    /// Ends it; what it kept.
    async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.state
    }

    /// Waits until the link is so.
    async fn links(&mut self, what: &str, so: impl FnMut(&Link) -> bool) -> Link {
        let waited = tokio::time::timeout(PATIENCE, self.link.wait_for(so)).await;
        let found = waited.ok().map(|link| link.unwrap().clone());
        found.unwrap_or_else(|| panic!("{what}: last seen {:?}", self.link.borrow()))
    }

    async fn connects(&mut self, url: &str) -> Link {
        self.links(url, |link| link.connected.as_deref() == Some(url))
            .await
    }

    /// Waits until the mesh is so.
    async fn sees(&mut self, what: &str, mut so: impl FnMut(&MeshState) -> bool) -> Arc<MeshState> {
        let waited = tokio::time::timeout(PATIENCE, self.mesh.wait_for(|mesh| so(mesh))).await;
        let found = waited.ok().map(|mesh| Arc::clone(&mesh.unwrap()));
        found.unwrap_or_else(|| panic!("{what}: last seen {:?}", self.mesh.borrow()))
    }

    fn serial(&self) -> Option<u64> {
        self.mesh.borrow().revision.as_ref().map(|r| r.serial)
    }
}
