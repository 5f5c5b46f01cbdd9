//! Certificates of the local workloads: fetched ahead, renewed long before they expire, handed out
//! without waiting (`spec/hbone-dataplane.md` §9, `spec/control-plane.md` §4.5).
//!
//! Each identity has a task of its own that fetches, waits until renewal is due and fetches again.
//! While a certificate is valid a failed renewal only shows in the log; without a valid one every
//! request fails at once with the reason, until a retry succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::issuer::Issuer;
use super::link::Link;
use super::trust::superseded;
use crate::causes::chain;
use crate::clock;
use crate::identity::SpiffeId;
use crate::tls::Svid;

/// How old a certificate grows before it is renewed, where half its life is longer.
const RENEW_AFTER: Duration = Duration::from_secs(12 * 3600);
/// First wait after a failure; doubles up to the last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(150));
/// Fetches under way at once.
const FETCHES: usize = 8;
/// How long a certificate is kept after nobody needs it.
const LINGER: Duration = Duration::from_secs(60);
/// Identities asked for by connections and not yet taken up; when full, the asker is told so.
const ASKED: usize = 256;

/// Why there is no certificate to use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CertError {
    /// It could not be fetched.
    #[error("no certificate for {id}: {reason}")]
    Failed {
        /// The identity.
        id: SpiffeId,
        /// The last attempt's reason.
        reason: Arc<str>,
    },
    /// It ran out and could not be renewed.
    #[error("the certificate for {id} has expired, and renewing it fails: {reason}")]
    Expired {
        /// The identity.
        id: SpiffeId,
        /// The last attempt's reason.
        reason: Arc<str>,
    },
    /// Nobody fetches certificates any more, or too many are asked for.
    #[error("certificates cannot be fetched now")]
    Unavailable,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Fetching,
    Ready(Arc<Svid>),
    /// With what is still at hand, valid or not.
    Failing(Option<Arc<Svid>>, Arc<str>),
}

type Wants = BTreeMap<Arc<str>, BTreeSet<SpiffeId>>;
type Slots = BTreeMap<SpiffeId, watch::Receiver<State>>;

/// Where certificates are had from. Cheap to clone.
#[derive(Clone)]
pub struct Certs {
    slots: Arc<Mutex<Slots>>,
    /// What each part of the process wants.
    wants: Arc<Mutex<Wants>>,
    /// All of that together.
    wanted: watch::Sender<BTreeSet<SpiffeId>>,
    asked: mpsc::Sender<SpiffeId>,
}

/// How one certificate is, for `lateen status`.
#[derive(Clone, Debug)]
pub struct CertStatus {
    /// Whose it is.
    pub id: SpiffeId,
    /// The certificate at hand.
    pub svid: Option<Arc<Svid>>,
    /// Why the last attempt failed, when it did.
    pub error: Option<Arc<str>>,
}

impl Certs {
    /// Says whose certificates the node role wants at hand; those that nobody wants are let go after
    /// a minute.
    pub fn set_wanted(&self, ids: BTreeSet<SpiffeId>) {
        self.set_wanted_by("node", ids);
    }

    /// Says whose certificates one part of the process wants at hand, beside what others want.
    pub fn set_wanted_by(&self, part: &str, ids: BTreeSet<SpiffeId>) {
        let mut wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        wants.insert(Arc::from(part), ids);
        let all: BTreeSet<SpiffeId> = wants.values().flatten().cloned().collect();
        // Told under the lock, or an older sum might be told last.
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != all;
            *wanted = all;
            changed
        });
    }

    /// The certificate of an identity; waits only while its first one is being fetched.
    ///
    /// # Errors
    /// [`CertError`], at once, while none can be had.
    pub async fn get(&self, id: &SpiffeId) -> Result<Arc<Svid>, CertError> {
        let slot = self.lock().get(id).cloned();
        let mut slot = match slot {
            Some(slot) => slot,
            None => self.ask(id).await?,
        };
        let settled = slot.wait_for(|s| !matches!(s, State::Fetching)).await;
        let state = settled.map_err(|_gone| CertError::Unavailable)?.clone();
        usable(id, state)
    }

    /// The certificate of an identity if it is at hand; it does not wait, nor ask for one.
    pub fn held(&self, id: &SpiffeId) -> Option<Arc<Svid>> {
        let slot = self.lock().get(id).cloned()?;
        let state = slot.borrow().clone();
        usable(id, state).ok()
    }

    async fn ask(&self, id: &SpiffeId) -> Result<watch::Receiver<State>, CertError> {
        let asked = self.asked.try_send(id.clone());
        asked.map_err(|_full| CertError::Unavailable)?;
        // The manager makes the slot; until it has, there is nothing to watch but time.
        for _ in 0..100 {
            if let Some(slot) = self.lock().get(id).cloned() {
                return Ok(slot);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(CertError::Unavailable)
    }

    /// How every certificate is, by identity.
    pub fn snapshot(&self) -> Vec<CertStatus> {
        let slots = self.lock();
        let status = |(id, slot): (&SpiffeId, &watch::Receiver<State>)| {
            let (svid, error) = match slot.borrow().clone() {
                State::Fetching => (None, None),
                State::Ready(svid) => (Some(svid), None),
                State::Failing(svid, reason) => (svid, Some(reason)),
            };
            CertStatus {
                id: id.clone(),
                svid,
                error,
            }
        };
        slots.iter().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn usable(id: &SpiffeId, state: State) -> Result<Arc<Svid>, CertError> {
    let valid = |svid: &Arc<Svid>| clock::now() < svid.good_until();
    let id = id.clone();
    match state {
        State::Fetching => Err(CertError::Unavailable),
        State::Ready(svid) if valid(&svid) => Ok(svid),
        State::Failing(Some(svid), _) if valid(&svid) => Ok(svid),
        State::Ready(_) => Err(CertError::Expired {
            id,
            reason: Arc::from("renewal is under way"),
        }),
        State::Failing(Some(_), reason) => Err(CertError::Expired { id, reason }),
        State::Failing(None, reason) => Err(CertError::Failed { id, reason }),
    }
}

/// The component behind [`Certs`].
pub struct Manager<I> {
    shared: Arc<Shared<I>>,
    certs: Certs,
    asked: mpsc::Receiver<SpiffeId>,
}

struct Shared<I> {
    issuer: I,
    fetches: Semaphore,
    /// How the connection to the control plane is.
    link: watch::Receiver<Link>,
}

impl<I: Issuer> Manager<I> {
    /// A manager that has its certificates from `issuer`, and asks anew at once when `link` says that
    /// a control plane is there again.
    pub fn new(issuer: I, link: watch::Receiver<Link>) -> (Self, Certs) {
        let (asked, asks) = mpsc::channel(ASKED);
        let certs = Certs {
            slots: Arc::default(),
            wants: Arc::default(),
            wanted: watch::Sender::new(BTreeSet::new()),
            asked,
        };
        let shared = Arc::new(Shared {
            issuer,
            fetches: Semaphore::new(FETCHES),
            link,
        });
        let manager = Self {
            shared,
            certs: certs.clone(),
            asked: asks,
        };
        (manager, certs)
    }

    /// Fetches and renews until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut wanted = self.certs.wanted.subscribe();
        let mut tasks = JoinSet::new();
        loop {
            let ids = wanted.borrow_and_update().clone();
            for id in ids {
                self.start(id, &mut tasks);
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = wanted.changed() => if changed.is_err() { break },
                Some(id) = self.asked.recv() => self.start(id, &mut tasks),
                Some(done) = tasks.join_next() => match done {
                    Ok(id) => { self.certs.lock().remove(&id); }
                    Err(e) => warn!(error = %e, "a certificate's task died"),
                },
            }
        }
        tasks.shutdown().await;
    }

    fn start(&self, id: SpiffeId, tasks: &mut JoinSet<SpiffeId>) {
        let mut slots = self.certs.lock();
        // A slot whose task has died is begun again.
        if slots.get(&id).is_some_and(|s| s.has_changed().is_ok()) {
            return;
        }
        let (state, slot) = watch::channel(State::Fetching);
        slots.insert(id.clone(), slot);
        let one = Renewal {
            shared: Arc::clone(&self.shared),
            id,
            state,
            wanted: self.certs.wanted.subscribe(),
        };
        tasks.spawn(one.run());
    }
}

/// Keeps one certificate current.
struct Renewal<I> {
    shared: Arc<Shared<I>>,
    id: SpiffeId,
    state: watch::Sender<State>,
    wanted: watch::Receiver<BTreeSet<SpiffeId>>,
}

impl<I: Issuer> Renewal<I> {
    /// Until nobody has wanted the certificate for a minute; then its identity.
    async fn run(mut self) -> SpiffeId {
        let mut backoff = RETRY.0;
        let mut warned = 100;
        let kept = self.shared.issuer.kept(&self.id).await.map(Arc::new);
        let (kept, expired) = match kept {
            Some(svid) if svid.not_after() <= clock::now() => (None, Some(svid)),
            kept => (kept, None),
        };
        // Of use only while it is given grace, so another is asked for at once.
        let mut current = expired;
        if let Some(svid) = kept {
            info!(identity = %self.id, serial = svid.serial(), "certificate from disk");
            self.state.send_replace(State::Ready(Arc::clone(&svid)));
            let wait = until_renewal(&svid);
            current = Some(Arc::clone(&svid));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = superseded(&svid) => {}
                () = unwanted(&mut self.wanted, &self.id) => return self.let_go().await,
            }
        }
        loop {
            let mut fresh = None;
            let wait = match self.fetch().await {
                Ok(svid) => {
                    let svid = Arc::new(svid);
                    fresh = Some(Arc::clone(&svid));
                    info!(identity = %self.id, serial = svid.serial(), "certificate fetched");
                    self.state.send_replace(State::Ready(Arc::clone(&svid)));
                    let wait = until_renewal(&svid);
                    current = Some(svid);
                    backoff = RETRY.0;
                    warned = 100;
                    wait
                }
                Err(reason) => {
                    self.tell(current.as_deref(), &reason, &mut warned);
                    self.state
                        .send_replace(State::Failing(current.clone(), reason));
                    let wait = backoff.mul_f64(rand::rng().random_range(0.8..1.2));
                    backoff = (backoff * 2).min(RETRY.1);
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = superseding(fresh.as_deref()) => {}
                () = returned(&self.shared.link), if fresh.is_none() => backoff = RETRY.0,
                () = unwanted(&mut self.wanted, &self.id) => return self.let_go().await,
            }
        }
    }

    async fn let_go(self) -> SpiffeId {
        self.shared.issuer.forget(&self.id).await;
        self.id
    }

    async fn fetch(&self) -> Result<Svid, Arc<str>> {
        let permit = self.shared.fetches.acquire().await;
        let issued = self.shared.issuer.issue(&self.id).await;
        drop(permit);
        issued.map_err(|e| Arc::from(chain(&e)))
    }

    /// Once per step of life left, more urgently each time (`spec/control-plane.md` §6.7).
    fn tell(&self, current: Option<&Svid>, reason: &str, warned: &mut u32) {
        let left = current.map_or(0, percent_left);
        let graced = current.is_some_and(|svid| clock::now() < svid.good_until());
        let step = match left {
            0 if graced => 1,
            0 => 0,
            1..=10 => 10,
            11..=25 => 25,
            26..=50 => 50,
            _ => 75,
        };
        let id = &self.id;
        if step >= *warned && current.is_some() {
            return debug!(identity = %id, error = reason, "certificate still not renewed");
        }
        *warned = step;
        let life_left = format!("{left}%");
        match step {
            0 | 10 => {
                tracing::error!(identity = %id, life_left, error = reason, "certificate not fetched");
            }
            1 => warn!(identity = %id, error = reason,
                "certificate has expired; nodes of ours take it until its grace ends"),
            25 => warn!(identity = %id, life_left, error = reason, "certificate not renewed"),
            _ => info!(identity = %id, life_left, error = reason, "certificate not renewed"),
        }
    }
}

fn percent_left(svid: &Svid) -> u32 {
    let left = svid.not_after().duration_since(clock::now());
    let life = svid.not_after().duration_since(svid.not_before());
    let (left, life) = (left.unwrap_or_default(), life.unwrap_or_default());
    let percent = left.as_secs().saturating_mul(100) / life.as_secs().max(1);
    u32::try_from(percent).unwrap_or(100)
}

/// Renewal is due at twelve hours or half the life, a tenth sooner or later.
fn until_renewal(svid: &Svid) -> Duration {
    let life = svid.not_after().duration_since(svid.not_before());
    let after = RENEW_AFTER.min(life.unwrap_or_default() / 2);
    let jitter = rand::rng().random_range(0.9..1.1);
    let due = svid.not_before() + after.mul_f64(jitter);
    // A certificate that is due already, by a clock that is wrong, must not be refetched in a loop.
    let wait = due.duration_since(clock::now()).unwrap_or_default();
    wait.max(RETRY.0)
}

/// Returns when a certificate that was just had is to be replaced before its time.
async fn superseding(svid: Option<&Svid>) {
    match svid {
        Some(svid) => superseded(svid).await,
        None => std::future::pending().await,
    }
}

/// Returns when a control plane is there that was not.
async fn returned(link: &watch::Receiver<Link>) {
    let mut link = link.clone();
    let gone = link.wait_for(|l| l.connected.is_none()).await.is_ok();
    if !gone || link.wait_for(|l| l.connected.is_some()).await.is_err() {
        std::future::pending().await
    }
}

/// Returns when an identity has not been wanted for a while.
async fn unwanted(wanted: &mut watch::Receiver<BTreeSet<SpiffeId>>, id: &SpiffeId) {
    loop {
        if wanted.wait_for(|w| !w.contains(id)).await.is_err() {
            return;
        }
        let again = wanted.wait_for(|w| w.contains(id));
        if tokio::time::timeout(LINGER, again).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
