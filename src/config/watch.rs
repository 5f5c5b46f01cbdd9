//! Says when the mesh directory should be read again.
//!
//! Editors write beside a file and rename over it, `git checkout` replaces hundreds, a deployment
//! re-points a symlink: what arrives is a burst of events about paths that may no longer be what
//! they were when they were watched. So events only wake a thread, which waits until the burst is
//! over, finds out anew what to watch (`plan`), and tells its owner when something changed.
//!
//! Every half minute it looks without being woken. Events are not enough: network file systems
//! have none for what other hosts write, nor has a mount over a directory; the kernel drops them
//! when its queue overflows and watches none when its limit (`fs.inotify.max_user_watches`) is
//! reached.

mod plan;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;
use tracing::warn;

use plan::{Bearing, Plan};

/// A burst is over when nothing happened for this long.
const QUIET: Duration = Duration::from_millis(50);
/// A burst that does not end is cut off after this long.
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// Between looks without an event.
const POLL: Duration = Duration::from_secs(30);
/// Times the plan may change under our hands before the next event is left to continue it.
const MOST_ROUNDS: usize = 5;

/// Why a directory cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The path is relative, and there is no directory it could be relative to.
    #[error("cannot tell where {} is", path.display())]
    NoCurrentDirectory {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The watching thread could not be started.
    #[error("cannot start the thread that watches the mesh directory")]
    NoThread {
        /// Why.
        source: io::Error,
    },
}

/// Watches a mesh directory. Dropping it ends its thread.
#[derive(Debug)]
pub struct Watcher {
    /// How many changes there have been.
    changes: watch::Receiver<u64>,
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts watching. The directory need not exist yet. What is changed from now on is told.
    ///
    /// # Errors
    /// [`WatchError`]. That the kernel's watches are used up is none: it is logged, and polling remains.
    pub fn new(dir: &Path) -> Result<Self, WatchError> {
        Self::polling_every(dir, POLL)
    }

    fn polling_every(dir: &Path, poll: Duration) -> Result<Self, WatchError> {
        let root = std::path::absolute(dir).map_err(|source| WatchError::NoCurrentDirectory {
            path: dir.to_owned(),
            source,
        })?;
        let signal = Arc::new(Signal::default());
        let (sender, changes) = watch::channel(0);
        let mut look = Lookout::new(root, poll, Arc::clone(&signal), sender);
        look.arm();
        let name = "mesh-watch".to_owned();
        let thread = thread::Builder::new().name(name).spawn(move || look.run());
        Ok(Self {
            changes,
            signal,
            thread: Some(thread.map_err(|source| WatchError::NoThread { source })?),
        })
    }

    /// Waits until the directory has changed since the last call, or since [`Watcher::new`], and
    /// has settled: 50 ms without a further change, or 500 ms after the first one.
    ///
    /// Changes that come while nobody waits are told as one. A change may be told that turns out
    /// to be none; none is ever left untold.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: a change that was not returned is returned by the next call.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The thread has died of a bug. Whoever waits still reads the directory now and then.
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.signal.lock().stop = true;
        self.signal.woken.notify_one();
        if let Some(thread) = self.thread.take() {
            // At worst it is in the middle of one walk. That it panicked is in the log already.
            let _ended = thread.join();
        }
    }
}

/// What event handlers tell the thread. Nothing queues: a burst is its two ends.
#[derive(Debug, Default)]
struct Signal {
    state: Mutex<Burst>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct Burst {
    first: Option<Instant>,
    last: Option<Instant>,
    certain: bool,
    stop: bool,
}

/// Why the thread was woken.
enum Wake {
    /// A burst is over.
    Settled {
        /// Whether a mesh file has changed for certain.
        certain: bool,
    },
    /// Nothing happened for a long time.
    Poll,
    /// The watcher is being dropped.
    Stop,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Burst> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, certain: bool) {
        let now = Instant::now();
        let mut burst = self.lock();
        burst.first.get_or_insert(now);
        burst.last = Some(now);
        burst.certain |= certain;
        drop(burst);
        self.woken.notify_one();
    }

    fn wait(&self, poll: Duration) -> Wake {
        let polled = Instant::now() + poll;
        let mut burst = self.lock();
        loop {
            if burst.stop {
                return Wake::Stop;
            }
            let settles = burst
                .first
                .zip(burst.last)
                .map(|(first, last)| (last + QUIET).min(first + LONGEST_BURST));
            let now = Instant::now();
            let until = settles.unwrap_or(polled);
            if now >= until {
                let over = std::mem::take(&mut *burst);
                return match settles {
                    Some(_) => Wake::Settled {
                        certain: over.certain,
                    },
                    None => Wake::Poll,
                };
            }
            let waited = self.woken.wait_timeout(burst, until - now);
            burst = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread's side.
struct Lookout {
    root: PathBuf,
    poll: Duration,
    signal: Arc<Signal>,
    changes: watch::Sender<u64>,
    plan: Arc<Plan>,
    /// None where events are not to be had.
    armed: Option<RecommendedWatcher>,
    complained: bool,
}

impl Lookout {
    fn new(
        root: PathBuf,
        poll: Duration,
        signal: Arc<Signal>,
        changes: watch::Sender<u64>,
    ) -> Self {
        Self {
            root,
            poll,
            signal,
            changes,
            plan: Arc::default(),
            armed: None,
            complained: false,
        }
    }

    fn run(mut self) {
        loop {
            let certain = match self.signal.wait(self.poll) {
                Wake::Stop => return,
                Wake::Poll => false,
                Wake::Settled { certain } => certain,
            };
            let before = Arc::clone(&self.plan);
            self.arm();
            if certain || self.plan.tree != before.tree {
                self.changes.send_modify(|count| *count += 1);
            }
        }
    }

    /// Sets all watches anew, on what the paths mean now. The old ones stay until the new ones
    /// are set. Done again when the plan was out of date before it was carried out, so that there
    /// is no moment in which a change goes unseen.
    fn arm(&mut self) {
        let mut plan = Plan::new(&self.root);
        for _round in 0..MOST_ROUNDS {
            self.plan = Arc::new(plan);
            match watch_all(&self.plan, &self.signal) {
                Ok(watcher) => {
                    self.armed = Some(watcher);
                    self.complained = false;
                }
                Err(e) => {
                    self.complain(&e);
                    return;
                }
            }
            plan = Plan::new(&self.root);
            if plan == *self.plan {
                return;
            }
        }
        // Busy: there are events to come that continue this.
        self.signal.event(false);
        self.plan = Arc::new(plan);
    }

    fn complain(&mut self, error: &notify::Error) {
        if !self.complained {
            warn!(
                error = error as &dyn std::error::Error,
                directory = %self.root.display(),
                poll = ?self.poll,
                "cannot watch the mesh directory, changes are seen by polling only"
            );
            self.complained = true;
        }
    }
}

/// # Errors
/// When the kernel gives no watches, or none for a directory that mesh files are in.
fn watch_all(plan: &Arc<Plan>, signal: &Arc<Signal>) -> notify::Result<RecommendedWatcher> {
    let (of_handler, signal) = (Arc::clone(plan), Arc::clone(signal));
    let handler = move |event| handle(&of_handler, &signal, event);
    let mut watcher = notify::recommended_watcher(handler)?;
    for directory in &plan.directories {
        match watcher.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            Err(e) if plan.holds_files(directory) && !is_gone(&e) => return Err(e),
            // A parent we may pass through and not list, or one that is just being replaced.
            Err(_unlisted) => {}
        }
    }
    Ok(watcher)
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(e) => e.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Runs on the thread of the notify library, which also reports opening and reading.
fn handle(plan: &Plan, signal: &Signal, event: notify::Result<notify::Event>) {
    let Ok(event) = event else {
        return signal.event(false);
    };
    let reading = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    };
    if reading {
        return;
    }
    if event.need_rescan() || event.paths.is_empty() {
        // The queue has overflowed: anything may have happened, and been lost.
        return signal.event(true);
    }
    for path in &event.paths {
        match plan.bearing(path) {
            Bearing::Certain => signal.event(true),
            Bearing::Possible => signal.event(false),
            Bearing::None => {}
        }
    }
}

#[cfg(test)]
mod tests;
