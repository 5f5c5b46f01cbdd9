//! Pools connections by peer and identity, and lends their streams.
//!
//! One dial at a time per key, whose outcome every waiter shares; a failure answers for a second.
//! Streams go to the least loaded connection; when even that one is busy another is opened beside
//! it, so that one slow stream does not hold up its neighbours (`spec/hbone-dataplane.md` §1.6).

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::client::SendRequest;
use http::StatusCode;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::connect::{
    self, ConnectError, ConnectRequest, ConnectResponse, Connector, DialError, Dialled, Hop,
};
use super::{Limits, Tunnel, headers, liveness};
use crate::identity::SpiffeId;

/// How often a pool looks for what is over.
const REAP: Duration = Duration::from_secs(1);

type Outcome = Option<Result<(), Arc<DialError>>>;

/// Tunnels of one workload to its peers.
pub struct Pool<C> {
    inner: Arc<Inner<C>>,
}

struct Inner<C> {
    connector: C,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// Dials and connection drivers: they end by themselves, or with the pool.
    tasks: JoinSet<()>,
    stopping: bool,
    reaped: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    source: SpiffeId,
    to: SocketAddr,
    accepted: Arc<BTreeSet<SpiffeId>>,
}

#[derive(Default)]
struct Entry {
    connections: Vec<Arc<Pooled>>,
    dialling: Option<watch::Receiver<Outcome>>,
    failed: Option<(Instant, Arc<DialError>)>,
}

/// A live connection.
struct Pooled {
    sender: SendRequest<Bytes>,
    peer: SpiffeId,
    retire: SystemTime,
    streams: AtomicUsize,
    dead: Arc<AtomicBool>,
    used: Mutex<Instant>,
}

/// A stream's claim on its connection, given back when the tunnel ends.
pub(super) struct Lease {
    connection: Arc<Pooled>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pooled {
    fn usable(&self, now: SystemTime) -> bool {
        !self.dead.load(Ordering::Relaxed) && now < self.retire
    }

    fn room(&self, limit: usize) -> bool {
        let limit = limit.min(self.sender.current_max_send_streams());
        self.streams.load(Ordering::Relaxed) < limit
    }

    fn load(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }
}

/// What the pool says to one who wants a stream.
enum Next {
    Lend(Lease),
    Wait(watch::Receiver<Outcome>),
    Fail(ConnectError),
}

impl<C: Connector> Pool<C> {
    /// A pool that connects by `connector`.
    pub fn new(connector: C, limits: Limits) -> Self {
        Self {
            inner: Arc::new(Inner {
                connector,
                limits,
                state: Mutex::default(),
            }),
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
        let connect = connect::request(request)?;
        let lease = self.lease(hop).await?;
        let sender = lease.connection.sender.clone();
        let exchange = async {
            let mut sender = sender.ready().await?;
            let (response, stream) = sender.send_request(connect, false)?;
            Ok((response.await?, stream))
        };
        let answered = tokio::time::timeout(self.inner.limits.response, exchange).await;
        let (response, stream) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err(connect::http2_error(&e)),
            Err(_elapsed) => return Err(ConnectError::Timeout),
        };
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(ConnectError::Refused { status });
        }
        let answer = ConnectResponse {
            peer: lease.connection.peer.clone(),
            baggage: headers::Baggage::read(response.headers()),
        };
        let tunnel = Tunnel::new(stream, response.into_body(), Some(lease));
        Ok((tunnel, answer))
    }

    /// Refuses new tunnels and waits until the open ones have ended; the caller sets the deadline.
    pub async fn drain(&self) {
        let mut tasks = {
            let mut state = self.lock();
            state.stopping = true;
            state.entries.clear();
            std::mem::take(&mut state.tasks)
        };
        while tasks.join_next().await.is_some() {}
    }

    /// Lets go of connections unused for too long; to be called now and then, also while nothing
    /// connects.
    pub fn reap(&self) {
        self.lock().reap(&self.inner.limits);
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        let state = self.lock();
        state.entries.values().map(|e| e.connections.len()).sum()
    }

    async fn lease(&self, hop: &Hop) -> Result<Lease, ConnectError> {
        let key = Key {
            source: hop.svid.id().clone(),
            to: hop.to,
            accepted: Arc::clone(&hop.accepted),
        };
        loop {
            let mut outcome = match self.next(&key, hop) {
                Next::Lend(lease) => return Ok(lease),
                Next::Fail(error) => return Err(error),
                Next::Wait(outcome) => outcome,
            };
            // A dial that vanished with the pool reads as stopping.
            let dialled = outcome.wait_for(Option::is_some).await;
            if let Ok(Some(Err(error))) = dialled.as_deref() {
                return Err(ConnectError::Dial(Arc::clone(error)));
            }
        }
    }

    /// Decides, without waiting, what comes next for one who wants a stream.
    fn next(&self, key: &Key, hop: &Hop) -> Next {
        let limits = &self.inner.limits;
        let mut state = self.lock();
        if state.stopping {
            return Next::Fail(ConnectError::Dial(Arc::new(DialError::Stopping)));
        }
        state.reap(limits);
        let State { entries, tasks, .. } = &mut *state;
        let entry = entries.entry(key.clone()).or_default();
        let wall = SystemTime::now();
        entry.connections.retain(|c| c.usable(wall));
        let roomy = entry
            .connections
            .iter()
            .filter(|c| c.room(limits.streams_out));
        let best = roomy.min_by_key(|c| c.load()).map(Arc::clone);
        let dialling = entry.dialling.is_some();
        if let Some(connection) = best {
            let busy = connection.load() >= limits.busy;
            connection.streams.fetch_add(1, Ordering::Relaxed);
            *connection
                .used
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Instant::now();
            if busy && !dialling && entry.connections.len() < limits.connections {
                self.dial(key, entry, tasks, hop);
            }
            return Next::Lend(Lease { connection });
        }
        if let Some(outcome) = &entry.dialling {
            return Next::Wait(outcome.clone());
        }
        match &entry.failed {
            Some((at, error)) if at.elapsed() < limits.negative => {
                return Next::Fail(ConnectError::Dial(Arc::clone(error)));
            }
            _ => entry.failed = None,
        }
        if entry.connections.len() >= limits.connections_max {
            return Next::Fail(ConnectError::Full);
        }
        Next::Wait(self.dial(key, entry, tasks, hop))
    }

    fn dial(
        &self,
        key: &Key,
        entry: &mut Entry,
        tasks: &mut JoinSet<()>,
        hop: &Hop,
    ) -> watch::Receiver<Outcome> {
        let (tell, outcome) = watch::channel(None);
        entry.dialling = Some(outcome.clone());
        let inner = Arc::clone(&self.inner);
        let (key, hop) = (key.clone(), hop.clone());
        tasks.spawn(async move {
            let dialled = connect::dial(&inner.connector, &hop, &inner.limits).await;
            let driver = inner.settle(&key, dialled, &tell);
            drop(tell);
            drop(key);
            let limits = inner.limits.clone();
            // The pool's own end must not wait for its drivers.
            drop(inner);
            if let Some(driver) = driver {
                driver.run(&limits).await;
            }
        });
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.lock()
    }
}

/// What is left to drive of a connection once its sender is in the pool.
struct Driver {
    connection: connect::Http2,
    heard: Arc<AtomicBool>,
    dead: Arc<AtomicBool>,
}

impl<C> Inner<C> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a dial's outcome into the pool and tells those who wait.
    fn settle(
        &self,
        key: &Key,
        dialled: Result<Dialled, DialError>,
        tell: &watch::Sender<Outcome>,
    ) -> Option<Driver> {
        let mut state = self.lock();
        let stopping = state.stopping;
        let entry = state.entries.get_mut(key);
        let (outcome, driver) = match dialled {
            Ok(dialled) => {
                let dead = Arc::new(AtomicBool::new(false));
                let pooled = Pooled {
                    sender: dialled.sender,
                    peer: dialled.peer,
                    retire: dialled.retire,
                    streams: AtomicUsize::new(0),
                    dead: Arc::clone(&dead),
                    used: Mutex::new(Instant::now()),
                };
                if let Some(entry) = entry {
                    entry.dialling = None;
                    entry.failed = None;
                    entry.connections.push(Arc::new(pooled));
                }
                let driver = Driver {
                    connection: dialled.connection,
                    heard: dialled.heard,
                    dead,
                };
                (Ok(()), Some(driver))
            }
            Err(error) => {
                let error = Arc::new(error);
                if let Some(entry) = entry {
                    entry.dialling = None;
                    entry.failed = Some((Instant::now(), Arc::clone(&error)));
                }
                (Err(error), None)
            }
        };
        let outcome = if stopping {
            Err(Arc::new(DialError::Stopping))
        } else {
            outcome
        };
        tell.send_replace(Some(outcome));
        driver
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
        let now = SystemTime::now();
        self.entries.retain(|_key, entry| {
            entry.connections.retain(|c| {
                let used = *c.used.lock().unwrap_or_else(PoisonError::into_inner);
                c.usable(now) && (c.load() > 0 || used.elapsed() < limits.idle)
            });
            let failed = entry.failed.as_ref();
            let remembers = failed.is_some_and(|(at, _)| at.elapsed() < limits.negative);
            !entry.connections.is_empty() || entry.dialling.is_some() || remembers
        });
    }
}

impl Driver {
    /// Moves a connection's bytes until it ends or falls silent.
    async fn run(mut self, limits: &Limits) {
        let ping = self.connection.ping_pong();
        let silent = liveness::silent(ping, self.heard, limits.ping_after, limits.ping_timeout);
        tokio::select! {
            ended = &mut self.connection => if let Err(e) = ended {
                debug!(error = %e, "tunnel connection ended");
            },
            () = silent => debug!("tunnel connection is silent, closed"),
        }
        self.dead.store(true, Ordering::Relaxed);
    }
}
