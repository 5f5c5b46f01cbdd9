//! Makes revisions: compiles the mesh when its files or its nodes' reports change, numbers the
//! result and publishes it.
//!
//! A mesh that does not compile changes nothing: the revision in force stays. What a restart needs
//! — numbers, assigned addresses, which workloads are captured, the last good mesh files — is on
//! disk before the revision that rests on it is published (`spec/control-plane.md` §6.6).

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::revision::{Content, Revision, Title};
use super::store::Store;
use crate::files;
use crate::model::compile::{
    Assignments, ByService, CompileError, Compiled, Observed, Reported, Warning, compile, recompile,
};
use crate::model::declaration::Mesh;
use crate::sys;
use crate::telemetry::ControlMetrics;

mod index;
mod last_good;
mod state;

pub use last_good::{LastGood, MeshFile};
use state::{Captured, State};

/// Reports are gathered until none has come for this long (§3.4 rule 8).
const QUIET: Duration = Duration::from_millis(20);
/// But no longer than this.
const MOST: Duration = Duration::from_millis(100);

/// So many bytes of mesh files leave much free memory behind when they have been parsed.
const MUCH: usize = 4 << 20;

/// A mesh directory that has passed every check.
#[derive(Clone, Debug)]
pub struct Input {
    /// What it declares.
    pub mesh: Mesh,
    /// Where it was read from, for people.
    pub source: String,
    /// Its files, to be kept as the last good ones.
    pub files: Vec<MeshFile>,
    /// Bytes of them that were parsed for it; what is in the others was known.
    pub parsed: usize,
    /// How many warnings loading it gave.
    pub warnings: u32,
}

/// How compiling stands, for `lateen status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompileStatus {
    /// Warnings of the revision in force.
    pub warnings: Vec<Warning>,
    /// The endpoints of each service that has any, in that revision.
    pub endpoints: Arc<ByService>,
    /// Why the mesh last loaded is not in force; none when it is.
    pub failure: Option<String>,
}

/// What a [`Publisher`] starts with and lets others see.
#[derive(Debug)]
pub struct Published {
    /// The revision in force; none until there is one.
    pub revisions: watch::Receiver<Option<Arc<Revision>>>,
    /// How compiling stands.
    pub status: watch::Receiver<CompileStatus>,
    /// Which workloads were captured when the last revision was published.
    pub captured: Reported,
}

/// The component that makes revisions. See [`Publisher::run`].
#[derive(Debug)]
pub struct Publisher {
    epoch: [u8; 16],
    state: State,
    last_good: LastGood,
    /// The input whose files are saved.
    kept: Option<Arc<Input>>,
    store: Arc<dyn Store>,
    metrics: ControlMetrics,
    revisions: watch::Sender<Option<Arc<Revision>>>,
    status: watch::Sender<CompileStatus>,
}

/// A compiled and encoded mesh, not yet numbered.
struct Draft {
    compiled: Arc<Compiled>,
    content: Content,
    captured: Captured,
}

impl Publisher {
    /// Opens `dir`, the directory `control/revision` of the state directory, and makes it if need be.
    ///
    /// # Errors
    /// When the directory or what is in it cannot be read. Damage is no error: it is set aside.
    pub fn open(
        dir: &Path,
        epoch: [u8; 16],
        store: Arc<dyn Store>,
        metrics: ControlMetrics,
    ) -> io::Result<(Self, Published)> {
        fs::create_dir_all(dir)?;
        let state = State::load(dir, index::last(&*store))?;
        let captured = state.captured().iter().cloned();
        let observed = Observed {
            captured: true,
            ..Observed::default()
        };
        let captured = captured.map(|uid| (uid, observed)).collect();
        let publisher = Self {
            epoch,
            state,
            last_good: LastGood::new(dir),
            kept: None,
            store,
            metrics,
            revisions: watch::Sender::new(None),
            status: watch::Sender::new(CompileStatus::default()),
        };
        let published = Published {
            revisions: publisher.revisions.subscribe(),
            status: publisher.status.subscribe(),
            captured,
        };
        Ok((publisher, published))
    }

    /// Publishes a revision for what `inputs` and `reported` hold and for `trust`, an encoded bundle,
    /// and for each change of theirs, until `shutdown` or until `inputs` has no sender any more.
    pub async fn run(
        mut self,
        mut inputs: watch::Receiver<Option<Arc<Input>>>,
        mut reported: watch::Receiver<Arc<Reported>>,
        mut trust: watch::Receiver<Bytes>,
        shutdown: CancellationToken,
    ) {
        loop {
            let input = inputs.borrow_and_update().clone();
            let heard = reported.borrow_and_update().clone();
            let bundle = trust.borrow_and_update().clone();
            if let Some(input) = input {
                self.publish(input, heard, bundle).await;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = inputs.changed() => if changed.is_err() {
                    return;
                },
                () = settled(&mut reported) => {}
                () = changed(&mut trust) => {
                    // At once, whatever state the mesh files are in: somebody may be believed no more.
                    let bundle = trust.borrow().clone();
                    self.believe(&bundle).await;
                }
            }
        }
    }

    async fn publish(&mut self, input: Arc<Input>, reported: Arc<Reported>, trust: Bytes) {
        let previous = self.revisions.borrow().clone();
        let assignments = self.state.assignments().clone();
        let making = {
            let (input, previous) = (input.clone(), previous.clone());
            spawn_blocking(move || {
                let mut draft = draft(&input, &reported, &assignments, previous.as_deref())?;
                draft.content = draft.content.with_trust(&trust);
                Ok::<_, CompileError>(draft)
            })
        };
        let begun = Instant::now();
        let made = making.await;
        debug!(took = ?begun.elapsed(), "mesh compiled");
        self.metrics.compiled(begun.elapsed());
        match made {
            Ok(Ok(draft)) => self.adopt(draft, input, previous).await,
            Ok(Err(unfit)) => self.failed(&input, unfit.to_string()),
            // The mesh made the compiler panic: others may not. The revision in force stays.
            Err(panicked) => self.failed(&input, panicked.to_string()),
        }
    }

    /// Publishes what is in force with another trust bundle.
    async fn believe(&mut self, bundle: &[u8]) {
        let Some(previous) = self.revisions.borrow().clone() else {
            return;
        };
        let content = previous.content().clone().with_trust(bundle);
        if previous.content().same_as(&content) {
            return;
        }
        let title = Title {
            number: self.state.next(),
            compiled_at: SystemTime::now(),
            ..previous.title()
        };
        self.save().await;
        self.announce(Arc::new(Revision::new(title, content, Some(&previous))));
    }

    fn failed(&self, input: &Input, reason: String) {
        error!(
            mesh.source = input.source,
            reason, "the mesh does not compile; the revision in force stays"
        );
        self.status
            .send_modify(|status| status.failure = Some(reason));
    }

    async fn adopt(&mut self, draft: Draft, input: Arc<Input>, previous: Option<Arc<Revision>>) {
        let Draft {
            compiled,
            content,
            captured,
        } = draft;
        let warnings = compiled.warnings.clone();
        let endpoints = Arc::new(compiled.endpoints.clone());
        let serial = input.mesh.settings.serial;
        let expired_grace = input.mesh.settings.expired_grace;
        let domain = &*input.mesh.settings.domain;
        let same = |p: &Arc<Revision>| {
            let told = p.summary();
            let told = (told.serial, told.expired_grace, &*told.domain);
            let titled = told == (serial, expired_grace, domain);
            titled && p.content().same_as(&content)
        };
        let begun = Instant::now();
        self.state.adopt(compiled.assignments.clone(), captured);
        let title = (!previous.as_ref().is_some_and(same)).then(|| {
            let total = warnings.len().saturating_add(input.warnings as usize);
            Title {
                epoch: self.epoch,
                serial,
                number: self.state.next(),
                source: input.source.clone(),
                compiled_at: SystemTime::now(),
                warnings: u32::try_from(total).unwrap_or(u32::MAX),
                expired_grace,
                domain: domain.to_owned(),
            }
        });
        if title.is_some() {
            self.save().await;
        }
        let (read_anew, parsed) = (!self.is_kept(&input), input.parsed);
        self.keep(input).await;
        if let Some(title) = title {
            debug!(took = ?begun.elapsed(), "mesh files kept");
            let revision = Arc::new(Revision::new(title, content, previous.as_deref()));
            debug!(took = ?begun.elapsed(), "revision made");
            self.announce(revision);
        }
        for warning in &warnings {
            if !self.status.borrow().warnings.contains(warning) {
                warn!(%warning, "mesh warning");
            }
        }
        self.status.send_replace(CompileStatus {
            warnings,
            endpoints,
            failure: None,
        });
        if read_anew && parsed >= MUCH {
            // Parsing a mesh takes several times the memory of what comes of it.
            let released = spawn_blocking(sys::release_free_memory);
            let _released = released.await;
        }
    }

    fn announce(&self, revision: Arc<Revision>) {
        let summary = revision.summary();
        let resources: u32 = summary.totals.values().sum();
        info!(
            revision.number = summary.number,
            revision.resources = resources,
            revision.warnings = summary.warnings,
            mesh.source = summary.source,
            "revision in force"
        );
        index::note(&*self.store, summary);
        self.metrics.published(summary.number);
        self.revisions.send_replace(Some(revision));
    }

    /// A full disk must not stop the mesh: what could not be remembered is tried again next time.
    async fn save(&mut self) {
        let Some((path, bytes)) = self.state.unsaved() else {
            return;
        };
        let shown = path.display().to_string();
        let saving = spawn_blocking(move || files::write(&path, &bytes).map_err(io::Error::other));
        if let Err(e) = flat(saving.await) {
            self.state.not_saved();
            error!(error = %e, path = shown, "cannot save the revision state: a restart may assign other service addresses");
        }
    }

    fn is_kept(&self, input: &Arc<Input>) -> bool {
        let kept = self.kept.as_ref();
        kept.is_some_and(|kept| Arc::ptr_eq(kept, input))
    }

    async fn keep(&mut self, input: Arc<Input>) {
        if self.is_kept(&input) {
            return;
        }
        let (last_good, saved) = (self.last_good.clone(), input.clone());
        let before = self.kept.take();
        let saving = spawn_blocking(move || {
            let before = before.as_ref().map_or(&[][..], |kept| &kept.files);
            last_good.save(&saved.files, before)
        });
        match flat(saving.await) {
            Ok(()) => self.kept = Some(input),
            Err(e) => {
                error!(error = %e, "cannot save the mesh files in force: a restart beside a broken mesh directory loads older ones");
            }
        }
    }
}

fn draft(
    input: &Input,
    reported: &Reported,
    assignments: &Assignments,
    previous: Option<&Revision>,
) -> Result<Draft, CompileError> {
    let previous = previous.map(Revision::content);
    let compiled = match previous {
        Some(p) => recompile(&input.mesh, reported, assignments, p.compiled())?,
        None => compile(&input.mesh, reported, assignments)?,
    };
    let compiled = Arc::new(compiled);
    let content = Content::encode(&compiled, previous);
    let uids = compiled.workloads.iter().map(|w| &w.uid);
    let captured = uids.filter(|uid| reported.of(uid).captured);
    Ok(Draft {
        captured: captured.cloned().collect(),
        compiled,
        content,
    })
}

/// A panic while saving is one more way for it to fail.
fn flat(done: Result<io::Result<()>, tokio::task::JoinError>) -> io::Result<()> {
    done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

/// Waits for a change that must not wait for others.
///
/// # Cancel safety
/// Dropping the future forgets nothing.
async fn changed<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Waits for a change, and then until changes pause.
///
/// # Cancel safety
/// Dropping the future forgets that there was a change, not the change itself.
async fn settled<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        // Nobody will report again; what is known stays.
        return std::future::pending().await;
    }
    let last = Instant::now() + MOST;
    loop {
        let pause = (Instant::now() + QUIET).min(last);
        match timeout_at(pause, changes.changed()).await {
            Ok(Ok(())) if Instant::now() < last => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests;
