//! Connections to endpoints that wait for the next request (`spec/waypoint-l7.md` §1.8).
//!
//! HTTP/1 lends a whole connection, HTTP/2 its streams. Clients do not share connections: what a
//! tunnel tells of its client holds for all that goes through it. How many there may be, and how many
//! requests wait for one, the traffic policy says (§3.4).

mod dialling;
mod handshake;
mod kept;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::uri::Authority;
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::mirror::UNDER_WAY;
use super::tasks::Tasks;
use super::upload::Upload;
use crate::hbone::{Connector, TunnelIo};
use crate::waypoint::Arrival;
use crate::waypoint::endpoints::{Outcome, Overflow, Place, UnderWay};
use crate::waypoint::secure::Alpn;
use crate::waypoint::upstream::{Chosen, OpenError, Way};
use dialling::{Dialler, Dialling, Other};
use handshake::handshake;
use kept::{Connection, Kept, Key, Sender};

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
pub(in crate::waypoint) enum NoConnection {
    #[error(transparent)]
    Way(#[from] OpenError),
    #[error("the endpoint does not speak HTTP")]
    Handshake(#[source] hyper::Error),
    #[error(transparent)]
    Overflow(#[from] Overflow),
}

impl NoConnection {
    /// Whether another endpoint may do better.
    pub(super) fn retryable(&self) -> bool {
        match self {
            Self::Way(e) => e.retryable(),
            Self::Handshake(_) => true,
            Self::Overflow(_) => false,
        }
    }
}

/// Connections to endpoints, and what goes on beside requests. The tasks of both end with it.
pub(in crate::waypoint) struct Pool {
    kept: Arc<Mutex<Kept>>,
    dialling: Dialling,
    tasks: Tasks,
    /// Places of mirrors.
    mirrors: Arc<Semaphore>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            kept: Arc::default(),
            dialling: Dialling::default(),
            tasks: Tasks::default(),
            mirrors: Arc::new(Semaphore::new(UNDER_WAY)),
        }
    }
}

/// A connection that is lent for one request. Dropped, it is closed unless others use it.
pub(super) struct Lease {
    kept: Weak<Mutex<Kept>>,
    key: Arc<Key>,
    connection: Connection,
    /// Whether it carried requests before, so that its end may cross with this one.
    pub(super) used: bool,
    under_way: Option<Arc<UnderWay>>,
    /// Its place among the requests under way.
    _place: Option<Place>,
}

/// A connection, whether it was there before, and the turn in which it was opened.
type Found<'a> = (Connection, bool, Option<Dialler<'a>>);

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A connection to an endpoint for a request to `host`: one that waits, unless a `fresh` one is wanted. Where
    /// there are as many as may be, one is waited for.
    pub(super) async fn lend<C: Connector + Clone>(
        &self,
        arrival: &Arrival<C>,
        chosen: &Chosen,
        version: Version,
        host: Option<&str>,
        fresh: bool,
    ) -> Result<Lease, NoConnection> {
        let under_way = chosen.under_way.as_ref();
        let place = under_way.map(|u| u.request()).transpose()?;
        let key = Arc::new(key(arrival, chosen, version, host));
        let found = self.connection(arrival, chosen, &key, fresh).await?;
        let (connection, used, turn) = found;
        connection.serves();
        if let (Some(shared), false) = (connection.shared(), used) {
            let pool = &chosen.settings().connection_pool;
            lock(&self.kept).keep(Arc::clone(&key), shared, pool);
            if let Some(under_way) = under_way {
                under_way.tell_room();
            }
        }
        // Whoever waits for it finds it now.
        drop(turn);
        Ok(Lease {
            kept: Arc::downgrade(&self.kept),
            key,
            connection,
            used,
            under_way: under_way.cloned(),
            _place: place,
        })
    }

    async fn connection<C: Connector + Clone>(
        &self,
        arrival: &Arrival<C>,
        chosen: &Chosen,
        key: &Arc<Key>,
        fresh: bool,
    ) -> Result<Found<'_>, NoConnection> {
        let pool = &chosen.settings().connection_pool;
        let lane = arrival.lane.number;
        let take = |lane| match fresh {
            true => None,
            false => lock(&self.kept).take(key, pool, lane),
        };
        // Nobody waits for a connection that may not be there for them.
        let mut alone = fresh || !kept::is_for_many(key.version, pool);
        let mut waits = None;
        loop {
            let Some(under_way) = &chosen.under_way else {
                if let Some(kept) = take(Some(lane)) {
                    return Ok((kept, true, None));
                }
                match self.turn(alone, key, lane) {
                    Ok(turn) => return self.dial_in(turn, arrival, chosen, key, None).await,
                    Err(other) => alone = other.failed().await,
                }
                continue;
            };
            let room = under_way.room().notified();
            tokio::pin!(room);
            // From here on, room that is made is not missed.
            room.as_mut().enable();
            // A limit may have come after the connections.
            while under_way.is_over() && lock(&self.kept).evict(under_way.group()) {}
            if let Some(kept) = take(Some(lane)) {
                return Ok((kept, true, None));
            }
            let turn = match self.turn(alone, key, lane) {
                Ok(turn) => turn,
                Err(other) => {
                    if waits.is_none() {
                        waits = Some(under_way.pending()?);
                    }
                    alone = other.failed().await;
                    continue;
                }
            };
            if let Ok(place) = under_way.connection() {
                return self.dial_in(turn, arrival, chosen, key, Some(place)).await;
            }
            drop(turn);
            if let Some(kept) = take(None) {
                return Ok((kept, true, None));
            }
            // One that waits for somebody else's request, or has had its time, makes room.
            if lock(&self.kept).evict(under_way.group()) {
                continue;
            }
            if waits.is_none() {
                waits = Some(under_way.pending()?);
            }
            room.await;
        }
    }

    /// The turn to dial, which whoever is alone needs not.
    fn turn(&self, alone: bool, key: &Arc<Key>, lane: usize) -> Result<Option<Dialler<'_>>, Other> {
        match alone {
            true => Ok(None),
            false => self.dialling.turn(key, lane).map(Some),
        }
    }

    async fn dial_in<'a, C: Connector + Clone>(
        &'a self,
        turn: Option<Dialler<'a>>,
        arrival: &Arrival<C>,
        chosen: &Chosen,
        key: &Key,
        place: Option<Place>,
    ) -> Result<Found<'a>, NoConnection> {
        let dialled = self.dial(arrival, chosen, key, place).await;
        if let (Err(_), Some(turn)) = (&dialled, &turn) {
            turn.failed();
        }
        Ok((dialled?, false, turn))
    }

    async fn dial<C: Connector + Clone>(
        &self,
        arrival: &Arrival<C>,
        chosen: &Chosen,
        key: &Key,
        place: Option<Place>,
    ) -> Result<Connection, NoConnection> {
        let (version, spawn) = (key.version, self.tasks.spawner());
        let sender = match arrival.open(chosen, key.secured.as_deref()).await? {
            Way::Tunnel(tunnel) => handshake(TunnelIo::new(tunnel), version, true, &spawn).await,
            Way::Plain(tcp) => handshake(tcp, version, false, &spawn).await,
            Way::Stream(stream) => {
                let tunnel = chosen.tunnelled().is_some();
                handshake(stream, version, tunnel, &spawn).await
            }
        };
        if sender.is_err() {
            chosen.note(Outcome::Unreachable);
        }
        Ok(Connection::new(sender?, arrival.lane.number, place))
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
        lock(&self.kept).clear();
        self.tasks.shutdown().await;
    }
}

/// What a connection for a request must be good for.
fn key<C: Connector>(
    arrival: &Arrival<C>,
    chosen: &Chosen,
    version: Version,
    host: Option<&str>,
) -> Key {
    let client = &arrival.client;
    let alpn = match version {
        Version::Http1 => Alpn::Http1,
        Version::Http2 => Alpn::Http2,
    };
    Key {
        to: chosen.address(),
        accepted: chosen.tunnelled().map(|t| Arc::clone(&t.accepted)),
        client: (client.source.ip(), client.identity.clone()),
        version,
        group: chosen.under_way.as_ref().map(|u| u.group().clone()),
        secured: chosen.secured(host, alpn).map(Arc::new),
    }
}

/// The host that a request is for.
pub(super) fn asked_host(request: &Request<Upload>) -> Option<Authority> {
    let field = request.headers().get(header::HOST);
    match field.and_then(|value| value.to_str().ok()) {
        Some(text) => text.parse().ok(),
        None => request.uri().authority().cloned(),
    }
}

impl Lease {
    /// Sends a request and waits for the head of its answer. An error has the request back where
    /// nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        let mut answered = self.connection.send(request).await;
        match &mut answered {
            Ok(response) => self.note(Outcome::Answered(told(response))),
            // Of a connection that ended as it was lent nothing is to be learnt.
            Err(_) if self.used => {}
            Err(_) => self.note(Outcome::Lost),
        }
        answered
    }

    fn note(&self, outcome: Outcome) {
        if let Some(under_way) = &self.under_way {
            under_way.note(outcome);
        }
    }

    /// The answer has ended: the next request may go here.
    pub(super) fn give_back(self) {
        let Some(kept) = self.kept.upgrade() else {
            return;
        };
        let settings = self.under_way.as_ref().map(|u| u.settings());
        let pool = settings
            .map(|s| s.connection_pool.clone())
            .unwrap_or_default();
        if matches!(self.connection.sender, Sender::Http1(_)) {
            lock(&kept).keep(self.key, self.connection, &pool);
        } else {
            drop(self.connection);
        }
        if let Some(under_way) = &self.under_way {
            under_way.tell_room();
        }
    }
}

/// What an answer says of the endpoint: gRPC's own word where that is in the head.
fn told(response: &Response<Incoming>) -> u16 {
    let status = response.status().as_u16();
    let grpc = response.headers().get("grpc-status");
    match grpc.and_then(|value| value.to_str().ok()) {
        None | Some("0") => status,
        Some("2" | "13" | "15") => 500,
        Some("12") => 501,
        Some("14") => 503,
        Some("4") => 504,
        Some(_) => 200,
    }
}
