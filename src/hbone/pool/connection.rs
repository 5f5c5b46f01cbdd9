//! A pooled connection: the half that lends streams and the half that moves their bytes.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use rustls::client::UnbufferedClientConnection;
use tokio::time::Instant;
use tracing::debug;

use super::busy::{Meter, Share};
use crate::hbone::Limits;
use crate::hbone::connect::{ConnectError, DialError, Dialled, Http2, exchange_error};
use crate::hbone::liveness::{self, Heard};
use crate::hbone::stream::Turn;
use crate::identity::SpiffeId;
use crate::tls::{CertificateKey, Trust};

/// The half of a connection that lends its streams.
#[derive(Debug)]
pub(super) struct Pooled {
    to: SocketAddr,
    sender: SendRequest<Bytes>,
    peer: SpiffeId,
    retire: SystemTime,
    trust: Trust,
    heard: Arc<Heard>,
    streams: AtomicUsize,
    /// When a stream was last lent.
    used: Mutex<Instant>,
    share: Arc<Share>,
}

/// Parts a new connection into its halves.
pub(super) fn pooled(to: SocketAddr, dialled: Dialled) -> (Pooled, Driver) {
    let share = Arc::new(Share::new(std::time::Instant::now()));
    let driver = Driver {
        connection: dialled.connection,
        turn: dialled.turn,
        heard: Arc::clone(&dialled.heard),
        share: Arc::clone(&share),
        key: dialled.key,
        trust: dialled.trust.clone(),
    };
    let pooled = Pooled {
        to,
        sender: dialled.sender,
        peer: dialled.peer,
        retire: dialled.retire,
        trust: dialled.trust,
        heard: dialled.heard,
        streams: AtomicUsize::new(0),
        used: Mutex::new(Instant::now()),
        share,
    };
    (pooled, driver)
}

impl Pooled {
    /// Whether it may lend streams still: neither broken, nor told by the peer to go away, nor past
    /// a certificate's end.
    pub(super) fn usable(&self, now: SystemTime) -> bool {
        let mut sender = self.sender.clone();
        let mut asleep = Context::from_waker(Waker::noop());
        let gone = matches!(sender.poll_ready(&mut asleep), Poll::Ready(Err(_)));
        !gone && now < self.trust.grace().extends(self.retire)
    }

    /// Whether another stream would be within our limit and the peer's.
    pub(super) fn room(&self, limit: usize) -> bool {
        self.load() < self.limit(limit)
    }

    fn limit(&self, limit: usize) -> usize {
        limit.min(self.sender.current_max_send_streams())
    }

    /// Streams lent.
    pub(super) fn load(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether a stream on it waits behind others: its task has hardly time for more, or moves
    /// somebody's bulk.
    pub(super) fn strained(&self, limits: &Limits) -> bool {
        let now = std::time::Instant::now();
        self.share.percent(now) >= limits.busy_share || self.share.rate(now) >= limits.bulk
    }

    /// Whether it has lent nothing for so long.
    pub(super) fn idle(&self, limit: Duration) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.load() == 0 && used.elapsed() >= limit
    }
}

/// A stream's claim on its connection, given back when the tunnel ends.
#[derive(Debug)]
pub(in crate::hbone) struct Lease {
    connection: Arc<Pooled>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    /// Claims a stream, if there is room for one.
    pub(super) fn of(connection: &Arc<Pooled>, limit: usize) -> Option<Self> {
        let limit = connection.limit(limit);
        let claim = |lent: usize| (lent < limit).then_some(lent + 1);
        let claimed = connection
            .streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim);
        claimed.ok()?;
        let mut used = connection
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *used = Instant::now();
        drop(used);
        Some(Self {
            connection: Arc::clone(connection),
        })
    }

    /// Who the peer proved to be.
    pub(super) fn peer(&self) -> &SpiffeId {
        &self.connection.peer
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn exchange(
        &self,
        request: Request<()>,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), ConnectError> {
        let unsent = |source| ConnectError::Http2 {
            source,
            unprocessed: true,
        };
        let sender = self.connection.sender.clone();
        let mut sender = sender.ready().await.map_err(unsent)?;
        let sent = sender.send_request(request, false);
        let (response, stream) = sent.map_err(unsent)?;
        let response = response.await.map_err(exchange_error)?;
        Ok((response, stream))
    }

    /// What an error is really of: on a connection the peer has never answered, of the dial.
    pub(super) fn explain(&self, error: ConnectError) -> ConnectError {
        let connection = &self.connection;
        match error {
            ConnectError::Http2 { source, .. } if !connection.heard.ever() => {
                let error = turned_away(connection.to, &connection.heard, Some(source));
                ConnectError::Dial(Arc::new(error))
            }
            other => other,
        }
    }
}

/// Why a connection ended before the peer said anything.
fn turned_away(to: SocketAddr, heard: &Heard, source: Option<h2::Error>) -> DialError {
    match (heard.fault(), source) {
        (Some(fault), _) => DialError::Tls {
            to,
            source: io::Error::new(io::ErrorKind::InvalidData, fault.clone()),
        },
        (None, Some(source)) => DialError::Http2 { to, source },
        (None, None) => DialError::Timeout { to },
    }
}

/// The half of a connection that moves its bytes, to be run in a task.
pub(super) struct Driver {
    connection: Http2,
    turn: Turn<UnbufferedClientConnection>,
    heard: Arc<Heard>,
    share: Arc<Share>,
    key: Option<CertificateKey>,
    trust: Trust,
}

impl Driver {
    /// Moves the connection's bytes until it ends, falls silent or is its peer's no more. Gives an error when it did so
    /// before the peer ever answered.
    pub(super) async fn run(mut self, to: SocketAddr, limits: &Limits) -> Option<DialError> {
        let ping = self.connection.ping_pong();
        let heard = Arc::clone(&self.heard);
        let silent = liveness::silent(ping, heard, limits.ping_after, limits.ping_timeout);
        let mut meter = Meter::new(std::time::Instant::now());
        let driven = poll_fn(|cx| {
            let from = std::time::Instant::now();
            let polled = Pin::new(&mut self.connection).poll(cx);
            let moved = self.turn.end(cx);
            meter.worked(from, std::time::Instant::now(), moved, &self.share);
            polled
        });
        let ended = tokio::select! {
            ended = driven => ended.map_err(Some),
            () = silent => Err(None),
            () = self.trust.revoked(self.key.take()) => {
                debug!(dst.addr = %to, "the peer's certificate has been revoked, its tunnels are cut");
                return None;
            }
        };
        let error = ended.err()?;
        let reason = error.as_ref().map(tracing::field::display);
        debug!(dst.addr = %to, error = reason, "tunnel connection broke or fell silent");
        let unheard = !self.heard.ever();
        unheard.then(|| turned_away(to, &self.heard, error))
    }
}
