//! Follows up what the mesh does not know: each question once, however often it is asked, and from
//! memory while the answer counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::cache::{Cache, Kept, Key};
use super::upstream::{NoAnswer, Upstream};
use crate::causes::chain;
use crate::dns::{self, Code, Lives, Query, Received, Transport};
use crate::telemetry::{DnsLabels, Metrics};

/// How long who asks waits for servers where there is an answer past its end (RFC 8767 §5).
const IMPATIENCE: Duration = Duration::from_millis(1800);
/// The life told of such an answer (RFC 8767 §4).
const STALE_LIFE: Duration = Duration::from_secs(30);

/// How a question is counted.
#[derive(Clone)]
pub(super) struct Counted {
    pub(super) labels: DnsLabels,
    pub(super) metrics: Arc<Metrics>,
}

/// What servers said: nothing, where none answered.
type Said = Option<Arc<Received>>;
/// Questions that servers are being asked.
type Flying = HashMap<Key, watch::Receiver<Option<Said>>>;

/// Who asks everybody else, and what they have said.
pub(super) struct Forwarder {
    upstream: Upstream,
    cache: Mutex<Cache>,
    flying: Mutex<Flying>,
    asking: TaskTracker,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Forwarder {
    pub(super) fn new(upstream: Upstream) -> Arc<Self> {
        Arc::new(Self {
            upstream,
            cache: Mutex::default(),
            flying: Mutex::default(),
            asking: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// The answer that is remembered and still counts.
    pub(super) fn remembered(&self, query: &Query, transport: Transport) -> Option<Vec<u8>> {
        match lock(&self.cache).get(&Key::from(query), Instant::now())? {
            Kept::Fresh(received, age) => Some(received.reply(query, Lives::Less(age), transport)),
            Kept::Stale(..) => None,
        }
    }

    /// The answer to a question.
    pub(super) async fn answer(
        self: &Arc<Self>,
        query: &Query,
        transport: Transport,
        counted: Counted,
    ) -> Vec<u8> {
        let key = Key::from(query);
        let kept = lock(&self.cache).get(&key, Instant::now());
        let stale = match kept {
            Some(Kept::Fresh(received, age)) => {
                return received.reply(query, Lives::Less(age), transport);
            }
            Some(Kept::Stale(received, false)) => {
                counted.metrics.dns().stale();
                return received.reply(query, Lives::All(STALE_LIFE), transport);
            }
            Some(Kept::Stale(received, true)) => Some(received),
            None => None,
        };
        let metrics = Arc::clone(&counted.metrics);
        let asked = self.ask(key, query, counted);
        let said = match &stale {
            Some(_) => timeout(IMPATIENCE, asked).await.unwrap_or_default(),
            None => asked.await,
        };
        let is_of_the_name = |said: &Arc<Received>| said.code.is_of_the_name();
        match (said, stale) {
            (Some(said), None) => said.reply(query, Lives::Less(Duration::ZERO), transport),
            (Some(said), Some(_)) if is_of_the_name(&said) => {
                said.reply(query, Lives::Less(Duration::ZERO), transport)
            }
            (_, Some(stale)) => {
                metrics.dns().stale();
                stale.reply(query, Lives::All(STALE_LIFE), transport)
            }
            (None, None) => dns::empty(query, Code::FAILURE, false),
        }
    }

    /// What servers say: of those who ask the same at once only the first asks them, and goes on
    /// when nobody waits for it any more.
    async fn ask(self: &Arc<Self>, key: Key, query: &Query, counted: Counted) -> Said {
        let mut heard = {
            let mut flying = lock(&self.flying);
            match flying.get(&key) {
                Some(heard) => heard.clone(),
                None => {
                    let (tell, heard) = watch::channel(None);
                    flying.insert(key.clone(), heard.clone());
                    let asking = Arc::clone(self).asking(key, query.clone(), counted, tell);
                    self.asking.spawn(asking);
                    heard
                }
            }
        };
        // It goes unsaid only where this network is no more.
        let said = heard.wait_for(Option::is_some).await;
        said.map(|said| said.clone().flatten()).unwrap_or_default()
    }

    async fn asking(
        self: Arc<Self>,
        key: Key,
        query: Query,
        counted: Counted,
        tell: watch::Sender<Option<Said>>,
    ) {
        let begun = Instant::now();
        let said = tokio::select! {
            () = self.stop.cancelled() => Err(NoAnswer::Stopping),
            said = self.upstream.ask(&query) => said,
        };
        let took = said.is_ok().then(|| begun.elapsed());
        counted.metrics.dns().forwarded(&counted.labels, took);
        let said = match said {
            Ok(received) => Some(received),
            Err(e) => {
                debug!(target: "dns", domain = %query.question.name, error = %chain(&e), "no server answered");
                None
            }
        };
        let known = said.as_ref().filter(|said| said.code.is_of_the_name());
        {
            let mut cache = lock(&self.cache);
            match known {
                Some(said) => cache.put(key.clone(), said, Instant::now()),
                None => cache.failed(&key, Instant::now()),
            }
        }
        // Whoever comes from now on finds it there.
        lock(&self.flying).remove(&key);
        tell.send_replace(Some(said));
    }

    /// Asks nobody any more: who still waits is told that nobody answers.
    pub(super) fn abandon(&self) {
        self.stop.cancel();
    }

    /// Asks nobody any more, and waits until that is so.
    pub(super) async fn stop(&self) {
        self.abandon();
        self.asking.close();
        self.asking.wait().await;
    }
}
