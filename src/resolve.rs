//! Addresses of names outside the mesh, as this host's resolver knows them (`spec/waypoint-l7.md` §3.7).
//!
//! [`Names`] answers from memory; [`Refresher`] is the one task that asks, for names that are new and
//! again for those in use before their answers end. A resolver that fails leaves the last answer in
//! force. How a resolver is asked is [`System`]'s business, what is
//! said to it that of [`crate::dns`].

mod system;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::causes::chain;
pub use system::System;
pub(crate) use system::nameservers;

/// Names that are known at once; above it the one that was asked for longest ago is forgotten, one
/// without an address first.
pub const MOST_NAMES: usize = 1024;
/// Ends of answers that are remembered at once; above it those of forgotten names are left out.
const MOST_DUE: usize = 2 * MOST_NAMES;
/// Names that wait to be looked up. When it is full, who asks for another gets no answer.
const WAITING: usize = 256;
/// Names that are looked up at once.
const LOOKUPS: usize = 64;
/// Longest wait for the first answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer counts, whatever its own word.
const LIVES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Between attempts while a resolver fails.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a name is refreshed that nobody asks for.
const UNUSED: Duration = Duration::from_secs(600);

/// What a resolver says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// In the resolver's order; never empty.
    pub addresses: Vec<IpAddr>,
    /// How long this counts.
    pub life: Duration,
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no such name, or it has no address.
    #[error("there is no such name, or it has no address")]
    NoAddress,
    /// It has none that may be connected to.
    #[error("it stands for this host or this link alone")]
    Local,
    /// Nobody answered.
    #[error("no resolver answered")]
    Unanswered,
    /// What came is no answer.
    #[error("the resolver's answer cannot be read")]
    Unreadable,
    /// There is nobody to ask.
    #[error("this host names no resolver")]
    NoResolver,
    /// Too many names wait to be looked up.
    #[error("too many names are being looked up")]
    Busy,
}

/// Looks names up.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of a name.
    fn lookup(&self, name: &str) -> impl Future<Output = Result<Found, LookupError>> + Send;
}

/// The addresses of a name, in the resolver's order.
pub type Addresses = Arc<[IpAddr]>;

type Answer = Result<Addresses, LookupError>;

/// What is known of a name.
struct Entry {
    answer: watch::Sender<Option<Answer>>,
    used: Instant,
    /// When the answer ends.
    due: Option<Instant>,
}

type Known = Mutex<HashMap<Arc<str>, Entry>>;

/// The names that are known. Clones share them.
#[derive(Clone)]
pub struct Names {
    known: Arc<Known>,
    ask: mpsc::Sender<Arc<str>>,
}

/// Asks a resolver, for all who hold its [`Names`].
pub struct Refresher<L> {
    lookup: Arc<L>,
    known: Arc<Known>,
    asked: mpsc::Receiver<Arc<str>>,
    /// When answers end; those of names that were forgotten since are among them for a while.
    due: BTreeSet<(Instant, Arc<str>)>,
}

/// No names yet, and the task that gets to know them.
pub fn names<L: Lookup>(lookup: L) -> (Names, Refresher<L>) {
    let known = Arc::<Known>::default();
    let (ask, asked) = mpsc::channel(WAITING);
    let refresher = Refresher {
        lookup: Arc::new(lookup),
        known: Arc::clone(&known),
        asked,
        due: BTreeSet::new(),
    };
    (Names { known, ask }, refresher)
}

fn lock(known: &Known) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Names {
    /// The addresses of a name: the last ones known, or the first ones there will be.
    ///
    /// # Errors
    /// [`LookupError`], while none has ever been known.
    pub async fn addresses(&self, name: &str) -> Result<Addresses, LookupError> {
        let mut answer = self.entry(name)?;
        let first = answer.wait_for(Option::is_some);
        match timeout(PATIENCE, first).await {
            Ok(Ok(answer)) => answer.clone().unwrap_or(Err(LookupError::Unanswered)),
            Ok(Err(_)) | Err(_) => Err(LookupError::Unanswered),
        }
    }

    /// Whether a name is among them.
    #[cfg(test)]
    pub(crate) fn knows(&self, name: &str) -> bool {
        lock(&self.known).contains_key(name)
    }

    fn entry(&self, name: &str) -> Result<watch::Receiver<Option<Answer>>, LookupError> {
        let mut known = lock(&self.known);
        if let Some(entry) = known.get_mut(name) {
            entry.used = Instant::now();
            return Ok(entry.answer.subscribe());
        }
        let name: Arc<str> = Arc::from(name);
        let asked = self.ask.try_send(Arc::clone(&name));
        asked.map_err(|_full| LookupError::Busy)?;
        if known.len() >= MOST_NAMES {
            forget_oldest(&mut known);
        }
        let (answer, first) = watch::channel(None);
        let used = Instant::now();
        let due = None;
        known.insert(name, Entry { answer, used, due });
        Ok(first)
    }
}

/// Forgets the name that was asked for longest ago: of those that have no address, while there are any.
fn forget_oldest(known: &mut HashMap<Arc<str>, Entry>) {
    let oldest = known.iter().min_by_key(|(_, entry)| {
        let failed = matches!(&*entry.answer.borrow(), Some(Err(_)));
        (!failed, entry.used)
    });
    if let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) {
        known.remove(&name);
    }
}

impl<L: Lookup> Refresher<L> {
    /// Looks up what is asked for until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            let next = self.due.first().map(|(at, _)| *at);
            let alarm = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                asked = self.asked.recv(), if tasks.len() < LOOKUPS => match asked {
                    Some(name) => { tasks.spawn(asking(Arc::clone(&self.lookup), name)); }
                    None => return,
                },
                Some(done) = tasks.join_next() => if let Ok((name, found)) = done {
                    self.heard(name, found);
                },
                () = alarm => for name in self.ended() {
                    tasks.spawn(asking(Arc::clone(&self.lookup), name));
                },
            }
        }
    }

    /// Names to ask for again. Those that nobody uses, and those that never had an address, are
    /// forgotten: the latter are asked for when somebody wants them again.
    fn ended(&mut self) -> Vec<Arc<str>> {
        let now = Instant::now();
        let mut ended = Vec::new();
        let mut known = lock(&self.known);
        while let Some((at, name)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, name));
                break;
            }
            // What was forgotten, and perhaps asked for anew, is not due by what was known of it then.
            let Some(entry) = known.get(&name).filter(|entry| entry.due == Some(at)) else {
                continue;
            };
            let has_address = matches!(&*entry.answer.borrow(), Some(Ok(_)));
            if has_address && now.duration_since(entry.used) < UNUSED {
                ended.push(name);
            } else {
                known.remove(&name);
            }
        }
        ended
    }

    fn heard(&mut self, name: Arc<str>, found: Result<Found, LookupError>) {
        let found = found.and_then(usable);
        let life = match &found {
            Ok(found) => found.life.clamp(LIVES.0, LIVES.1),
            Err(_) => AGAIN,
        };
        let due = Instant::now() + life;
        {
            let mut known = lock(&self.known);
            // Forgotten meanwhile.
            let Some(entry) = known.get_mut(&name) else {
                return;
            };
            entry.due = Some(due);
            entry.answer.send_if_modified(|answer| match found {
                Ok(found) => {
                    let addresses: Addresses = found.addresses.into();
                    let changed = !matches!(answer, Some(Ok(had)) if *had == addresses);
                    if changed {
                        debug!(%name, ?addresses, "name resolved");
                        *answer = Some(Ok(addresses));
                    }
                    changed
                }
                Err(e) => {
                    let kept = matches!(answer, Some(Ok(_)));
                    warn!(%name, error = %chain(&e), kept, "name not resolved");
                    if !kept {
                        *answer = Some(Err(e));
                    }
                    !kept
                }
            });
        }
        if self.due.len() >= MOST_DUE {
            self.prune();
        }
        self.due.insert((due, name));
    }

    /// Leaves out when the answers of names ended that were forgotten.
    fn prune(&mut self) {
        let known = lock(&self.known);
        let due = known.iter();
        let due = due.filter_map(|(name, entry)| Some((entry.due?, Arc::clone(name))));
        self.due = due.collect();
    }
}

async fn asking<L: Lookup>(
    lookup: Arc<L>,
    name: Arc<str>,
) -> (Arc<str>, Result<Found, LookupError>) {
    let found = lookup.lookup(&name).await;
    (name, found)
}

/// Without the addresses that mean another host to everybody.
fn usable(found: Found) -> Result<Found, LookupError> {
    let addresses = found.addresses.into_iter().map(|a| a.to_canonical());
    let addresses: Vec<_> = addresses.filter(|a| !is_local(*a)).collect();
    match addresses.is_empty() {
        true => Err(LookupError::Local),
        false => Ok(Found { addresses, ..found }),
    }
}

/// Whether an address is of this host, this link or nobody: whoever answers for a name must not lead a
/// proxy to what only it can reach.
fn is_local(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
