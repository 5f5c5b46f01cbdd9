//! Connections to endpoints that wait for the next request (`spec/waypoint-l7.md` §1.8).
//!
//! HTTP/1 lends a whole connection, HTTP/2 its streams. Clients do not share connections: what a
//! tunnel tells of its client holds for all that goes through it.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use super::mirror::UNDER_WAY;
use super::tasks::Tasks;
use super::upload::Upload;
use crate::hbone::{Connector, TunnelIo};
use crate::identity::SpiffeId;
use crate::waypoint::Arrival;
use crate::waypoint::upstream::{Chosen, OpenError, Way};

/// How long a connection waits for another request: shorter than most programs keep theirs, since
/// what is sent as they close it is lost.
const IDLE: Duration = Duration::from_secs(60);
/// Connections to one endpoint that wait for one client; more are closed.
const WAITING: usize = 64;
/// Fields of an answer's head.
const FIELDS: usize = 256;
/// Receive windows of an HTTP/2 stream and connection. The tunnel beneath has its own.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);

/// What is spoken to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::waypoint) enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoConnection {
    #[error(transparent)]
    Way(#[from] OpenError),
    #[error("the endpoint does not speak HTTP")]
    Handshake(#[source] hyper::Error),
}

impl NoConnection {
    /// Whether another endpoint may do better.
    pub(super) fn retryable(&self) -> bool {
        match self {
            Self::Way(e) => e.retryable(),
            Self::Handshake(_) => true,
        }
    }
}

/// What a connection is good for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    to: SocketAddr,
    /// Who may be there; none in plain text.
    accepted: Option<Arc<BTreeSet<SpiffeId>>>,
    client: (IpAddr, SpiffeId),
    version: Version,
}

#[derive(Default)]
struct Kept {
    waiting: HashMap<Key, Vec<Waiting>>,
}

/// A connection nobody uses, or one that others may use besides.
struct Waiting {
    sender: Sender,
    since: Instant,
}

/// Connections to endpoints, and what goes on beside requests. The tasks of both end with it.
pub(in crate::waypoint) struct Pool {
    kept: Arc<Mutex<Kept>>,
    tasks: Tasks,
    /// Places of mirrors.
    mirrors: Arc<Semaphore>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            kept: Arc::default(),
            tasks: Tasks::default(),
            mirrors: Arc::new(Semaphore::new(UNDER_WAY)),
        }
    }
}

enum Sender {
    Http1(http1::SendRequest<Upload>),
    Http2(http2::SendRequest<Upload>),
}

/// A connection that is lent for one request. Dropped, it is closed unless others use it.
pub(super) struct Lease {
    kept: Weak<Mutex<Kept>>,
    key: Key,
    sender: Sender,
    /// Whether it carried requests before, so that its end may cross with this one.
    pub(super) used: bool,
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A connection to an endpoint: one that waits, unless a `fresh` one is wanted.
    pub(super) async fn lend<C: Connector + Clone>(
        &self,
        arrival: &Arrival<C>,
        chosen: &Chosen,
        version: Version,
        fresh: bool,
    ) -> Result<Lease, NoConnection> {
        let client = &arrival.client;
        let key = Key {
            to: chosen.address(),
            accepted: chosen.tunnelled().map(|t| Arc::clone(&t.accepted)),
            client: (client.source.ip(), client.identity.clone()),
            version,
        };
        let waiting = (!fresh).then(|| lock(&self.kept).take(&key)).flatten();
        let (sender, used) = match waiting {
            Some(sender) => (sender, true),
            None => (self.dial(arrival, chosen, version).await?, false),
        };
        if let (Sender::Http2(shared), false) = (&sender, used) {
            lock(&self.kept).keep(key.clone(), Sender::Http2(shared.clone()));
        }
        Ok(Lease {
            kept: Arc::downgrade(&self.kept),
            key,
            sender,
            used,
        })
    }

    async fn dial<C: Connector + Clone>(
        &self,
        arrival: &Arrival<C>,
        chosen: &Chosen,
        version: Version,
    ) -> Result<Sender, NoConnection> {
        match arrival.open(chosen).await? {
            Way::Tunnel(tunnel) => self.handshake(TunnelIo::new(tunnel), version).await,
            Way::Plain(tcp) => self.handshake(tcp, version).await,
        }
    }

    async fn handshake<T>(&self, io: T, version: Version) -> Result<Sender, NoConnection>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (io, spawn) = (TokioIo::new(io), self.tasks.spawner());
        match version {
            Version::Http1 => {
                let shaken = http1::Builder::new()
                    .max_headers(FIELDS)
                    .handshake(io)
                    .await;
                let (sender, connection) = shaken.map_err(NoConnection::Handshake)?;
                spawn.spawn(async move { ended(connection.with_upgrades().await) });
                Ok(Sender::Http1(sender))
            }
            Version::Http2 => {
                let shaken = http2::Builder::new(spawn.clone())
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(WINDOWS.0)
                    .initial_connection_window_size(WINDOWS.1)
                    .handshake(io)
                    .await;
                let (sender, connection) = shaken.map_err(NoConnection::Handshake)?;
                spawn.spawn(async move { ended(connection.await) });
                Ok(Sender::Http2(sender))
            }
        }
    }

    /// Does something beside requests, at most as long as the pool is there.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawner().spawn(task);
    }

    /// A place for a mirror, if there is one.
    pub(super) fn mirror(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.mirrors).try_acquire_owned().ok()
    }

    /// Lets go of connections that have waited for too long.
    pub(in crate::waypoint) fn reap(&self) {
        lock(&self.kept).reap();
    }

    /// Ends all of them.
    pub(in crate::waypoint) async fn shutdown(&self) {
        lock(&self.kept).waiting.clear();
        self.tasks.shutdown().await;
    }
}

fn ended(outcome: Result<(), hyper::Error>) {
    if let Err(e) = outcome {
        // Whoever waited for an answer on it says so.
        debug!(error = %e, "connection to an endpoint ended early");
    }
}

impl Kept {
    /// A connection that can take a request now. One of HTTP/2 stays for others, too.
    fn take(&mut self, key: &Key) -> Option<Sender> {
        let waiting = self.waiting.get_mut(key)?;
        waiting.retain(|w| !w.sender.is_closed());
        let ready = waiting.iter().rposition(|w| w.sender.is_ready())?;
        let one = waiting.get_mut(ready)?;
        if let Sender::Http2(shared) = &one.sender {
            one.since = Instant::now();
            return Some(Sender::Http2(shared.clone()));
        }
        Some(waiting.swap_remove(ready).sender)
    }

    fn keep(&mut self, key: Key, sender: Sender) {
        let waiting = self.waiting.entry(key).or_default();
        if waiting.len() < WAITING {
            let since = Instant::now();
            waiting.push(Waiting { sender, since });
        }
    }

    fn reap(&mut self) {
        self.waiting.retain(|_key, waiting| {
            waiting.retain(|w| !w.sender.is_closed() && w.since.elapsed() < IDLE);
            !waiting.is_empty()
        });
    }
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }
}

impl Lease {
    /// Sends a request and waits for the head of its answer. An error has the request back where
    /// nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }

    /// The answer has ended: the next request may go here.
    pub(super) fn give_back(self) {
        if let (Sender::Http1(_), Some(kept)) = (&self.sender, self.kept.upgrade()) {
            lock(&kept).keep(self.key, self.sender);
        }
    }
}
