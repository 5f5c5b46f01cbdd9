//! Pools connections by peer and identity, and lends their streams.
//!
//! One dial at a time per key, whose outcome every waiter shares; a failure answers for a second, a refusal for a
//! tenth of that.
//! Streams go to the least loaded connection; when even that one is busy another is opened beside
//! it, so that one slow stream does not hold up its neighbours and one core is not the ceiling
//! (`spec/hbone-dataplane.md` §1.6). [`dial`] makes a connection, [`connection`] is its life after.

mod auto;
mod busy;
mod connection;
mod dial;
mod silence;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connect::{
    ConnectError, ConnectRequest, ConnectResponse, Connector, DialError, Hop, Transport,
};
use super::{Endpoint, Limits, Tunnel, headers};
use crate::clock;
use crate::identity::SpiffeId;
use crate::tls::Svid;
use connection::Pooled;
use dial::Dial;

pub(super) use connection::Lease;

/// How often a pool looks for what is over.
const REAP: Duration = Duration::from_secs(1);
/// Connections tried for one tunnel when each passes the request over unread: two stale ones, say,
/// that a peer that restarted has left us, and a new one.
const ATTEMPTS: usize = 3;

/// What a dial came to, once it has.
type Outcome = Option<Result<Arc<Pooled>, Arc<DialError>>>;

/// Tunnels of one workload to its peers.
///
/// Dropping it cuts every tunnel; [`Pool::drain`] lets them finish.
pub struct Pool<C> {
    shared: Arc<Shared>,
    connector: Arc<C>,
}

struct Shared {
    limits: Limits,
    /// Where QUIC goes by, where there is any.
    quic: Option<Endpoint>,
    state: Mutex<State>,
    /// Ends the dials, not the connections.
    stopping: CancellationToken,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// Dials and connection drivers: they end by themselves, or with the pool.
    tasks: JoinSet<()>,
    reaped: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    source: SpiffeId,
    to: SocketAddr,
    /// Of those that share an address each has connections of its own.
    name: Option<Arc<str>>,
    accepted: Arc<BTreeSet<SpiffeId>>,
    quic: bool,
}

impl Key {
    fn of(hop: &Hop) -> Self {
        Self {
            source: hop.svid.id().clone(),
            to: hop.to,
            name: hop.name.clone(),
            accepted: Arc::clone(&hop.accepted),
            quic: hop.transport == Transport::Quic,
        }
    }
}

#[derive(Default)]
struct Entry {
    connections: Vec<Arc<Pooled>>,
    dialling: Option<watch::Receiver<Outcome>>,
    failed: Option<Failed>,
    /// Built once per certificate (§1.1).
    tls: Option<(Arc<Svid>, Arc<ClientConfig>)>,
}

/// A dial that came to nothing.
struct Failed {
    at: Instant,
    error: Arc<DialError>,
}

impl Failed {
    fn new(error: Arc<DialError>) -> Self {
        let at = Instant::now();
        Self { at, error }
    }

    /// Whether it no longer answers for further ones.
    fn is_over(&self, limits: &Limits) -> bool {
        let memory = match self.error.is_refusal() {
            true => limits.refused,
            false => limits.negative,
        };
        self.at.elapsed() >= memory
    }
}

/// What the pool says to one who wants a stream.
enum Next {
    Lend(Lease),
    /// A connection that is being made, or else this stream.
    Prefer(watch::Receiver<Outcome>, Lease),
    Wait(watch::Receiver<Outcome>),
    Fail(ConnectError),
}

impl<C: Connector> Pool<C> {
    /// A pool that connects by `connector`.
    pub fn new(connector: C, limits: Limits) -> Self {
        Self::with_quic(connector, limits, None)
    }

    /// The same, with what QUIC goes by.
    pub fn with_quic(connector: C, limits: Limits, quic: Option<Endpoint>) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                quic,
                state: Mutex::default(),
                stopping: CancellationToken::new(),
            }),
            connector: Arc::new(connector),
        }
    }

    /// Opens a tunnel through a pooled connection to `hop`, or a new one.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::retryable`] tells whether another endpoint may be tried.
    ///
    /// # Cancel safety
    /// Dropping the future gives the stream back; a dial it began goes on for the others who wait.
    pub async fn connect(
        &self,
        hop: &Hop,
        request: &ConnectRequest,
    ) -> Result<(Tunnel, ConnectResponse), ConnectError> {
        match hop.transport {
            Transport::Tcp | Transport::Quic => self.connect_by(hop, request).await,
            // Apart, for it is as large as several of the others.
            Transport::Auto => Box::pin(self.connect_auto(hop, request)).await,
        }
    }

    /// Opens a tunnel by the one way that the hop says.
    async fn connect_by(
        &self,
        hop: &Hop,
        request: &ConnectRequest,
    ) -> Result<(Tunnel, ConnectResponse), ConnectError> {
        let mut attempt = 1;
        loop {
            let lease = self.lease(hop).await?;
            let asked = match hop.transport {
                Transport::Quic => Box::pin(self.ask_by_quic(lease, hop, request)).await,
                _ => self.ask(lease, request).await,
            };
            match asked {
                // The peer was closing the connection as we chose it: nobody's failure.
                Err(error) if error.is_unprocessed() && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// Asks for a tunnel on a stream that has been lent.
    async fn ask(
        &self,
        lease: Lease,
        request: &ConnectRequest,
    ) -> Result<(Tunnel, ConnectResponse), ConnectError> {
        let limit = self.shared.limits.response;
        let answered = tokio::time::timeout(limit, lease.exchange(request)).await;
        let answer = answered.map_err(|_elapsed| ConnectError::Timeout)??;
        if answer.status != StatusCode::OK {
            let status = answer.status;
            return Err(ConnectError::Refused { status });
        }
        let response = ConnectResponse {
            peer: lease.peer().clone(),
            baggage: headers::Baggage::read(&answer.headers),
        };
        Ok((Tunnel::new(answer.stream, Some(lease)), response))
    }

    /// Refuses new tunnels and waits until the open ones have ended; the caller sets the deadline.
    ///
    /// # Cancel safety
    /// Dropping the future cuts the tunnels that are still open.
    pub async fn drain(&self) {
        self.shared.stopping.cancel();
        let mut tasks = {
            let mut state = self.shared.lock();
            state.entries.clear();
            std::mem::take(&mut state.tasks)
        };
        while tasks.join_next().await.is_some() {}
    }

    /// Lets go of connections unused for too long or past their certificate; to be called now and
    /// then, also while nothing connects.
    pub fn reap(&self) {
        self.shared.lock().reap(&self.shared.limits);
    }

    /// How many connections lend streams.
    pub fn connections(&self) -> usize {
        let state = self.shared.lock();
        let entries = state.entries.values();
        entries.map(|e| e.connections.len()).sum()
    }

    async fn lease(&self, hop: &Hop) -> Result<Lease, ConnectError> {
        let key = Key::of(hop);
        loop {
            let mut outcome = match self.next(&key, hop) {
                Next::Lend(lease) => return Ok(lease),
                Next::Prefer(outcome, lease) => return Ok(self.aside(outcome, lease).await),
                Next::Fail(error) => return Err(error),
                Next::Wait(outcome) => outcome,
            };
            let dialled = outcome.wait_for(Option::is_some).await;
            let dialled = dialled.ok().and_then(|outcome| outcome.clone());
            match dialled {
                // The connection itself is handed over: even if it should die young, each dial
                // serves those who waited for it, and nobody dials in a circle.
                Some(Ok(connection)) => {
                    if let Some(lease) = Lease::of(&connection, self.shared.limits.streams_out) {
                        return Ok(lease);
                    }
                }
                Some(Err(error)) => return Err(ConnectError::Dial(error)),
                // The dial was dropped with the pool.
                None => return Err(stopping()),
            }
        }
    }

    /// A stream beside bulk, where a connection for it comes about in time; `lease` otherwise.
    async fn aside(&self, mut outcome: watch::Receiver<Outcome>, lease: Lease) -> Lease {
        let limits = &self.shared.limits;
        let dialled = outcome.wait_for(Option::is_some);
        let dialled = tokio::time::timeout(limits.aside, dialled).await;
        let dialled = dialled.ok().and_then(|outcome| outcome.ok()?.clone());
        match dialled {
            Some(Ok(connection)) => Lease::of(&connection, limits.streams_out).unwrap_or(lease),
            _ => lease,
        }
    }

    /// Decides, without waiting, what comes next for one who wants a stream.
    fn next(&self, key: &Key, hop: &Hop) -> Next {
        let limits = &self.shared.limits;
        let mut state = self.shared.lock();
        if self.shared.stopping.is_cancelled() {
            return Next::Fail(stopping());
        }
        state.reap(limits);
        let State { entries, tasks, .. } = &mut *state;
        let entry = entries.entry(key.clone()).or_default();
        let wall = clock::now();
        let now = Instant::now();
        entry.connections.retain(|c| {
            let broken = silence::is_broken(c, now);
            if broken {
                c.leave();
            }
            !broken && c.usable(wall)
        });
        // A dial that panicked leaves its channel closed.
        entry.dialling.take_if(|o| o.has_changed().is_err());
        entry.failed.take_if(|failed| failed.is_over(limits));
        if let Some(connection) = entry.least_loaded(limits) {
            let strained = connection.strained(limits);
            let loaded = strained || connection.load() >= connection.busy(limits);
            if let Some(lease) = Lease::of(&connection, limits.streams_out) {
                let may_dial = entry.dialling.is_none() && entry.failed.is_none();
                if loaded && may_dial && entry.connections.len() < limits.connections {
                    self.dial(key, entry, tasks, hop);
                }
                return match &entry.dialling {
                    Some(outcome) if strained => Next::Prefer(outcome.clone(), lease),
                    _ => Next::Lend(lease),
                };
            }
        }
        if let Some(outcome) = &entry.dialling {
            return Next::Wait(outcome.clone());
        }
        if let Some(failed) = &entry.failed {
            return Next::Fail(ConnectError::Dial(Arc::clone(&failed.error)));
        }
        if entry.connections.len() >= limits.connections_max {
            return Next::Fail(ConnectError::Full);
        }
        Next::Wait(self.dial(key, entry, tasks, hop))
    }

    /// Begins a dial in a task of the pool's, so that whoever asked for it may go away.
    fn dial(
        &self,
        key: &Key,
        entry: &mut Entry,
        tasks: &mut JoinSet<()>,
        hop: &Hop,
    ) -> watch::Receiver<Outcome> {
        let (tell, outcome) = watch::channel(None);
        entry.dialling = Some(outcome.clone());
        let dial = Dial {
            pool: Arc::downgrade(&self.shared),
            quic: self.shared.quic.clone(),
            connector: Arc::clone(&self.connector),
            limits: self.shared.limits.clone(),
            stopping: self.shared.stopping.clone(),
            key: key.clone(),
            hop: hop.clone(),
            tls: entry.settings(hop),
            tell,
        };
        tasks.spawn(dial.run());
        outcome
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopping() -> ConnectError {
    ConnectError::Dial(Arc::new(DialError::Stopping))
}

impl Entry {
    /// The connection to take the next stream: the one whose task has time, then the one with the
    /// fewest. Few enough to look at all of them, which no choice of two at random betters.
    fn least_loaded(&self, limits: &Limits) -> Option<Arc<Pooled>> {
        let roomy = self
            .connections
            .iter()
            .filter(|c| c.room(limits.streams_out) && c.silent_since().is_none());
        let best = roomy.min_by_key(|c| (c.strained(limits), c.load()));
        best.map(Arc::clone)
    }

    fn settings(&self, hop: &Hop) -> Option<Arc<ClientConfig>> {
        let (svid, tls) = self.tls.as_ref()?;
        Arc::ptr_eq(svid, &hop.svid).then(|| Arc::clone(tls))
    }

    /// Whether it holds anything worth keeping.
    fn is_empty(&self, limits: &Limits) -> bool {
        let failed = self.failed.as_ref();
        let remembers = failed.is_some_and(|failed| !failed.is_over(limits));
        self.connections.is_empty() && self.dialling.is_none() && !remembers
    }
}

impl State {
    /// Lets go of what is over: ended tasks, dead, expired and long unused connections, and the
    /// keys that hold nothing any more. A connection closes once its last stream has ended.
    fn reap(&mut self, limits: &Limits) {
        if self.reaped.is_some_and(|at| at.elapsed() < REAP) {
            return;
        }
        self.reaped = Some(Instant::now());
        while self.tasks.try_join_next().is_some() {}
        let now = clock::now();
        self.entries.retain(|_key, entry| {
            entry
                .connections
                .retain(|c| c.usable(now) && !c.idle(limits.idle));
            !entry.is_empty(limits)
        });
    }
}
