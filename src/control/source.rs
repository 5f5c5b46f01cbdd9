//! Where the mesh comes from: reads the directory, again after each change, and hands on what
//! passes every check. What does not pass changes nothing (DESIGN §5).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::compile::{Input, LastGood};
use crate::causes::chain;
use crate::config::{Loaded, Loader, Report, Watcher};
use crate::identity::TrustDomain;
use crate::telemetry::Metrics;

/// How reading the mesh directory stands, for `lateen status`.
#[derive(Clone, Debug, Default)]
pub struct SourceStatus {
    /// When it was last read: what was written before is in that reading.
    pub read: Option<SystemTime>,
    /// What was found wrong with it then.
    pub report: Arc<Report>,
    /// Whether the revision in force is an older one, since the directory does not pass.
    pub stale: bool,
}

/// Reads and watches a mesh directory.
pub struct Source {
    directory: PathBuf,
    loader: Arc<Mutex<Loader>>,
    inputs: watch::Sender<Option<Arc<Input>>>,
    status: watch::Sender<SourceStatus>,
    again: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Source {
    /// A source of inputs from `directory`.
    pub fn new(directory: &Path, metrics: Arc<Metrics>) -> Self {
        Self {
            directory: directory.to_owned(),
            loader: Arc::new(Mutex::new(Loader::new(directory))),
            inputs: watch::Sender::new(None),
            status: watch::Sender::new(SourceStatus::default()),
            again: Arc::default(),
            metrics,
        }
    }

    /// The mesh that last passed.
    pub fn inputs(&self) -> watch::Receiver<Option<Arc<Input>>> {
        self.inputs.subscribe()
    }

    /// Asks that the directory is read again, changed or not.
    pub fn again(&self) -> Arc<Notify> {
        Arc::clone(&self.again)
    }

    /// How reading stands.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    /// Reads the directory for the first time; where it does not pass, the files of the last good
    /// revision instead, where there are any.
    pub async fn begin(&self, last_good: &LastGood) {
        if self.read(None).await {
            return;
        }
        let Some((path, _files)) = last_good.load() else {
            return;
        };
        let loaded = load(Arc::new(Mutex::new(Loader::new(&path)))).await;
        if let Some((mesh, loaded)) = loaded.and_then(|l| l.mesh.clone().map(|m| (m, l))) {
            warn!("the mesh directory does not pass, going on with the last good revision");
            self.inputs.send_replace(Some(Arc::new(Input {
                mesh,
                source: "the last good revision".to_owned(),
                files: loaded.files,
                parsed: loaded.parsed,
                warnings: 0,
            })));
        }
    }

    /// Reads the directory after each change until `shutdown`. The mesh's trust domain cannot
    /// change meanwhile: identities already given out are of the old one.
    pub async fn run(self, trust_domain: TrustDomain, shutdown: CancellationToken) {
        let mut watcher = match Watcher::new(&self.directory) {
            Ok(watcher) => watcher,
            Err(e) => {
                error!(
                    error = chain(&e),
                    "the mesh directory cannot be watched; restart to read changes"
                );
                return shutdown.cancelled().await;
            }
        };
        // A change between the first reading and the watch would otherwise go unseen.
        self.read(Some(&trust_domain)).await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = watcher.changed() => {}
                () = self.again.notified() => {}
            }
            self.read(Some(&trust_domain)).await;
        }
    }

    /// Whether the directory passed.
    async fn read(&self, trust_domain: Option<&TrustDomain>) -> bool {
        let begun = SystemTime::now();
        let Some(loaded) = load(Arc::clone(&self.loader)).await else {
            return false;
        };
        let Loaded {
            mesh,
            report,
            files,
            parsed,
        } = loaded;
        let report = Arc::new(report);
        self.metrics.load_errors(report.errors());
        let moved = |mesh: &crate::model::declaration::Mesh| {
            trust_domain.is_some_and(|td| *td != mesh.settings.trust_domain)
        };
        let mesh = mesh.filter(|mesh| {
            let moved = moved(mesh);
            if moved {
                error!(
                    "the mesh's trust domain has changed; restart the control plane to take it on"
                );
            }
            !moved
        });
        self.status.send_replace(SourceStatus {
            read: Some(begun),
            report: Arc::clone(&report),
            stale: mesh.is_none(),
        });
        let Some(mesh) = mesh else {
            error!(
                errors = report.errors(),
                directory = %self.directory.display(),
                "the mesh directory does not pass; the revision in force stays. lateen check says why"
            );
            return false;
        };
        info!(
            workloads = mesh.workloads.len(),
            services = mesh.services.len(),
            bytes.parsed = parsed,
            took = ?begun.elapsed().unwrap_or_default(),
            "mesh directory read"
        );
        let input = Input {
            mesh,
            source: self.directory.display().to_string(),
            files,
            parsed,
            warnings: u32::try_from(report.warnings()).unwrap_or(u32::MAX),
        };
        self.inputs.send_replace(Some(Arc::new(input)));
        true
    }
}

async fn load(loader: Arc<Mutex<Loader>>) -> Option<Loaded> {
    // After a panic the loader knows less, and nothing that is wrong.
    let load = move || loader.lock().unwrap_or_else(PoisonError::into_inner).load();
    let loading = tokio::task::spawn_blocking(load);
    match loading.await {
        Ok(loaded) => Some(loaded),
        Err(e) => {
            error!(error = %e, "reading the mesh directory failed; the revision in force stays");
            None
        }
    }
}
