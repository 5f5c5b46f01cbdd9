//! SIGHUP: what is read again while the process runs. The level of the log follows lateen.toml, and
//! the mesh directory is read whether its watch has seen a change or not; what else has changed in
//! lateen.toml is named, and waits for a restart. Tokens, roots and the files of an authority need no
//! signal: they are read whenever they are used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::Signal;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::causes::chain;
use crate::cli::Failure;
use crate::config::daemon::Config;
use crate::control::server::Handle;
use crate::control::source::SourceStatus;
use crate::service::Upkeep;
use crate::telemetry::log;

/// Longest reading of a mesh directory that a reload waits for; it goes on after that.
const READING: Duration = Duration::from_secs(10);

/// What can be read again.
pub(super) struct Reload {
    path: Option<PathBuf>,
    /// The settings that this process started with, but for the log's level.
    config: Config,
    level: &'static str,
    mesh: Option<MeshDirectory>,
}

struct MeshDirectory {
    reread: Arc<Notify>,
    status: watch::Receiver<SourceStatus>,
}

impl Reload {
    /// Of a process with the settings `config`, read from `path`.
    pub(super) fn new(path: Option<PathBuf>, config: Config) -> Self {
        Self {
            path,
            level: config.log_level().as_str(),
            config,
            mesh: None,
        }
    }

    /// And of a control role.
    pub(super) fn with_mesh_directory(mut self, control: &Handle) -> Self {
        self.mesh = Some(MeshDirectory {
            reread: Arc::clone(&control.reread),
            status: control.source.clone(),
        });
        self
    }

    /// Waits for a hangup, then reads again what can be.
    ///
    /// # Cancel safety
    /// Dropping the future gives up a reading that is under way; of what changes, some may have.
    pub(super) async fn when_told(&mut self, hangup: &mut Signal, upkeep: &Upkeep) {
        if hangup.recv().await.is_none() {
            return std::future::pending().await;
        }
        let _until_dropped = upkeep.reloading();
        self.again().await;
    }

    async fn again(&mut self) {
        info!("reading the settings again");
        let path = self.path.clone();
        match spawn_blocking(move || super::config(path.as_deref())).await {
            Ok(read) => self.settings(read),
            Err(e) => error!(error = %e, "the settings were not read"),
        }
        if let Some(mesh) = &mut self.mesh {
            mesh.again().await;
        }
    }

    fn settings(&mut self, read: Result<Config, Failure>) {
        let config = match read {
            Ok(config) => config,
            Err(failure) => {
                error!(
                    reason = failure.message(),
                    "lateen.toml does not pass; the settings in force stay"
                );
                return;
            }
        };
        let changed = config.changes(&self.config);
        if !changed.is_empty() {
            warn!(
                keys = changed.join(", "),
                "changed in lateen.toml and in force only after a restart"
            );
        }
        let level = config.log_level().as_str();
        if level == self.level {
            return;
        }
        match log::refilter(level) {
            Ok(()) => {
                info!(level, before = self.level, "the log has another level");
                self.level = level;
            }
            Err(e) => warn!(error = chain(&e), "the log keeps its level"),
        }
    }
}

impl MeshDirectory {
    async fn again(&mut self) {
        let asked = SystemTime::now();
        self.reread.notify_one();
        let read = |status: &SourceStatus| status.read.is_some_and(|at| at >= asked);
        match tokio::time::timeout(READING, self.status.wait_for(read)).await {
            // Or gone, while the process stops.
            Ok(_read) => {}
            Err(_elapsed) => warn!("the mesh directory is still being read"),
        }
    }
}
