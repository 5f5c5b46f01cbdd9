//! Has the keys of every source that is named at hand: a task for each, which ends when nobody names it
//! any more.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::fetch::{FetchError, Fetched, Fetcher};
use super::source::{Known, Source};
use super::store::Store;
use crate::causes::chain;
use crate::clock;
use crate::hbone::Connector;
use crate::model::authentication::Fetching;
use crate::model::declaration::{KeySource, Remote, RemoteAt};
use crate::model::waypoint::{Resources, WaypointName};
use crate::waypoint::Shared;

/// Between two times that a source is asked (`spec/waypoint-l7.md` §5.4).
const EVERY: Duration = Duration::from_secs(20 * 60);
/// After a failure: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Between looks at files.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps the keys of one waypoint.
pub(in crate::waypoint) struct Keeper<C: Connector> {
    shared: Arc<Shared<C>>,
    store: Store,
    running: BTreeMap<Remote, AbortHandle>,
    tasks: JoinSet<()>,
}

impl<C: Connector + Clone> Keeper<C> {
    pub(in crate::waypoint) fn new(shared: Arc<Shared<C>>) -> Self {
        let WaypointName { namespace, name } = &shared.settings.name;
        let directory: PathBuf = shared.settings.keys.join(format!("{namespace}.{name}"));
        Self {
            store: Store::new(directory),
            shared,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Follows what the waypoint is told until `shutdown`.
    pub(in crate::waypoint) async fn run(mut self, shutdown: CancellationToken) {
        let mut mesh = self.shared.mesh.clone();
        loop {
            let now = Arc::clone(&mesh.borrow_and_update());
            let told = now.waypoints.get(&self.shared.settings.name);
            // Without a word on itself it serves nobody anew, and whoever it serves still goes by what
            // it knows.
            let known = told.and_then(|told| Some((told, told.gateway.as_ref()?)));
            if let Some((told, gateway)) = known {
                self.follow(told, &gateway.options.fetching).await;
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = mesh.changed() => if changed.is_err() {
                    // Nobody tells of the mesh any more: it stays as it is.
                    shutdown.cancelled().await;
                    break;
                },
                Some(Err(died)) = self.tasks.join_next() => if died.is_panic() {
                    error!(error = %died, "a task that keeps keys died");
                },
            }
        }
        self.tasks.shutdown().await;
    }

    async fn follow(&mut self, told: &Resources, fetching: &Fetching) {
        let sets = &self.shared.keys;
        if **sets.fetching.load() != *fetching {
            sets.fetching.store(Arc::new(fetching.clone()));
        }
        let named = sources(told);
        let gone: Vec<_> = self
            .running
            .keys()
            .filter(|r| !named.contains(*r))
            .cloned()
            .collect();
        for remote in gone {
            if let Some(task) = self.running.remove(&remote) {
                task.abort();
            }
            sets.remove(&remote);
            // The same place with another patience is the same place.
            if !named.iter().any(|other| other.at == remote.at) {
                self.store.forget(&remote.at).await;
            }
        }
        for remote in named {
            if self.running.contains_key(&remote) {
                continue;
            }
            let source = Arc::new(Source::new(self.store.load(&remote.at).await));
            sets.insert(remote.clone(), Arc::clone(&source));
            let task = Task {
                shared: Arc::clone(&self.shared),
                store: self.store.clone(),
                of: remote.clone(),
                source,
            };
            let handle = self.tasks.spawn(task.run());
            self.running.insert(remote, handle);
        }
    }
}

/// The sources that are named.
fn sources(told: &Resources) -> BTreeSet<Remote> {
    let policies = told.authentications.values();
    let rules = policies.flat_map(|policy| &policy.rules);
    let remote = rules.filter_map(|rule| match &rule.keys {
        KeySource::Remote(remote) => Some(remote.clone()),
        KeySource::Inline(_) => None,
    });
    remote.collect()
}

/// Keeps the keys of one source.
struct Task<C: Connector> {
    shared: Arc<Shared<C>>,
    store: Store,
    of: Remote,
    source: Arc<Source>,
}

impl<C: Connector + Clone> Task<C> {
    async fn run(self) {
        let mut failures = 0_u32;
        let mut told = None;
        loop {
            let stamp = self.stamp().await;
            let fetched = self.fetch().await;
            self.shared.metrics.keys_fetched(fetched.is_ok());
            let wait = match &fetched {
                Ok(_) => EVERY,
                Err(_) => AGAIN.1.min(AGAIN.0 * 2_u32.saturating_pow(failures)),
            };
            match fetched {
                Ok(fetched) => {
                    (failures, told) = (0, None);
                    self.take(fetched).await;
                }
                Err(e) => {
                    failures = failures.saturating_add(1);
                    self.failed(&chain(&e), &mut told);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.source.asked() => {}
                () = self.changed(stamp) => {}
            }
            self.source.begin();
        }
    }

    async fn fetch(&self) -> Result<Fetched, FetchError> {
        let fetcher = Fetcher {
            connector: self.shared.upstream.connector(),
            names: &self.shared.names.configured,
            materials: self.shared.upstream.materials(),
            fetching: self.shared.keys.fetching.load_full(),
        };
        fetcher.fetch(&self.of).await
    }

    /// Believes in what was got, and only then keeps it: the disk may be slow or full.
    async fn take(&self, fetched: Fetched) {
        let (at, of) = (clock::now(), &self.of.at);
        let keys = fetched.keys;
        if keys.is_empty() {
            warn!(jwks = %of, "the key set has no key that could sign a token");
        }
        let (before, _) = self.source.known();
        if before.is_none_or(|before| !before.keys.is_alike(&keys)) {
            info!(jwks = %of, keys = keys.len(), "keys fetched");
        }
        self.source.heard(Some(Known { keys, at }));
        if let Err(e) = self.store.keep(of, &fetched.text, at).await {
            warn!(jwks = %of, error = %chain(&e), "keys cannot be kept for the next start");
        }
    }

    /// Says so, once for each reason.
    fn failed(&self, reason: &str, told: &mut Option<String>) {
        if told.as_deref() != Some(reason) {
            let (known, _) = self.source.known();
            warn!(jwks = %self.of.at, error = reason, kept = known.is_some(), "keys not fetched");
            *told = Some(reason.to_owned());
        }
        self.source.heard(None);
    }

    /// What tells one content of its file from another, where it is a file.
    async fn stamp(&self) -> Option<(u64, u64, i64, i64)> {
        let RemoteAt::Uri(uri) = &self.of.at else {
            return None;
        };
        let about = tokio::fs::metadata(uri.strip_prefix("file://")?)
            .await
            .ok()?;
        Some((about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
    }

    /// Returns once its file is another one than that.
    async fn changed(&self, stamp: Option<(u64, u64, i64, i64)>) {
        if !matches!(&self.of.at, RemoteAt::Uri(uri) if uri.starts_with("file://")) {
            return pending().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            if self.stamp().await != stamp {
                return;
            }
        }
    }
}
