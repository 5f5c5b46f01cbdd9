//! A pooled connection: the half that lends streams and the half that moves their bytes.

mod http2;
mod http3;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tracing::debug;

use super::busy::Share;
use crate::hbone::Limits;
use crate::hbone::connect::{ConnectError, ConnectRequest, DialError, Dialled, Line};
use crate::hbone::tunnel::Carrier;
use crate::identity::SpiffeId;
use crate::tls::{CertificateKey, Trust};

/// The half of a connection that lends its streams.
#[derive(Debug)]
pub(super) struct Pooled {
    line: Lent,
    peer: SpiffeId,
    retire: SystemTime,
    trust: Trust,
    streams: AtomicUsize,
    /// When a stream was last lent.
    used: Mutex<Instant>,
    share: Arc<Share>,
}

/// What opens its streams.
#[derive(Debug)]
enum Lent {
    Http2(http2::Streams),
    Http3(http3::Streams),
}

/// What a peer answers to a request.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Of what was granted.
    pub(super) stream: Carrier,
}

/// Parts a new connection into its halves.
pub(super) fn pooled(to: SocketAddr, dialled: Dialled) -> (Pooled, Driver) {
    let share = Arc::new(Share::new(std::time::Instant::now()));
    let (line, moves) = match dialled.line {
        Line::Http2(line) => {
            let (streams, moves) = http2::part(to, *line, Arc::clone(&share));
            (Lent::Http2(streams), Moves::Http2(Box::new(moves)))
        }
        Line::Http3(line) => {
            let (streams, moves) = http3::part(line);
            (Lent::Http3(streams), Moves::Http3(moves))
        }
    };
    let driver = Driver {
        moves,
        key: dialled.key,
        trust: dialled.trust.clone(),
    };
    let pooled = Pooled {
        line,
        peer: dialled.peer,
        retire: dialled.retire,
        trust: dialled.trust,
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
        let usable = match &self.line {
            Lent::Http2(streams) => streams.usable(),
            Lent::Http3(streams) => streams.usable(),
        };
        usable && now < self.trust.grace().extends(self.retire)
    }

    /// Whether another stream would be within our limit and the peer's.
    pub(super) fn room(&self, limit: usize) -> bool {
        self.load() < self.limit(limit)
    }

    fn limit(&self, limit: usize) -> usize {
        match &self.line {
            Lent::Http2(streams) => limit.min(streams.most()),
            // Of the peer's limit QUIC tells nothing: a stream above it waits for another to end.
            Lent::Http3(_) => limit,
        }
    }

    /// Streams lent.
    pub(super) fn load(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether a stream on it waits behind others: its task has hardly time for more, or moves
    /// somebody's bulk. Of a QUIC connection's each has a way of its own.
    pub(super) fn strained(&self, limits: &Limits) -> bool {
        let now = std::time::Instant::now();
        self.share.percent(now) >= limits.busy_share || self.share.rate(now) >= limits.bulk
    }

    /// From how many streams another connection is worth its while.
    pub(super) fn busy(&self, limits: &Limits) -> usize {
        match &self.line {
            Lent::Http2(_) => limits.busy,
            Lent::Http3(_) => limits.streams_out,
        }
    }

    /// Whether TCP's way is long or loses what is sent, so that QUIC's would be better.
    pub(super) fn is_poor(&self) -> bool {
        match &self.line {
            Lent::Http2(streams) => streams.is_poor(),
            Lent::Http3(_) => false,
        }
    }

    /// The round trip to its peer; none is known of TCP.
    pub(super) fn round_trip(&self) -> Duration {
        match &self.line {
            Lent::Http2(_) => Duration::ZERO,
            Lent::Http3(streams) => streams.round_trip(),
        }
    }

    /// How many datagrams have come on it.
    pub(super) fn heard(&self) -> u64 {
        match &self.line {
            Lent::Http2(_) => 0,
            Lent::Http3(streams) => streams.heard(),
        }
    }

    /// Has its peer say that it is there, unless it has been asked too often; of TCP the kernel knows.
    pub(super) fn probe(&self) -> bool {
        match &self.line {
            Lent::Http2(_) => true,
            Lent::Http3(streams) => streams.probe(),
        }
    }

    /// Something was asked on it and is not even acknowledged.
    pub(super) fn suspect(&self) {
        if let Lent::Http3(streams) = &self.line {
            streams.suspect();
        }
    }

    /// Since when nothing has come though something was due.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        match &self.line {
            Lent::Http2(_) => None,
            Lent::Http3(streams) => streams.silent_since(),
        }
    }

    /// Opens no more streams.
    pub(super) fn leave(&self) {
        if let Lent::Http3(streams) = &self.line {
            streams.leave();
        }
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

    /// What it is of.
    pub(super) fn connection(&self) -> &Arc<Pooled> {
        &self.connection
    }

    /// Who the peer proved to be.
    pub(super) fn peer(&self) -> &SpiffeId {
        &self.connection.peer
    }

    /// Sends a request and waits for the head of its answer. An error on a connection that the peer has
    /// never answered is the dial's.
    pub(super) async fn exchange(&self, request: &ConnectRequest) -> Result<Answer, ConnectError> {
        match &self.connection.line {
            Lent::Http2(streams) => streams.exchange(request).await,
            Lent::Http3(streams) => Box::pin(streams.exchange(request)).await,
        }
    }
}

/// The half of a connection that moves its bytes, to be run in a task.
pub(super) struct Driver {
    moves: Moves,
    key: Option<CertificateKey>,
    trust: Trust,
}

enum Moves {
    Http2(Box<http2::Moves>),
    Http3(http3::Moves),
}

impl Driver {
    /// Moves the connection's bytes until it ends, falls silent or is its peer's no more. Gives an error when it did so
    /// before the peer ever answered.
    pub(super) async fn run(self, to: SocketAddr, limits: &Limits) -> Option<DialError> {
        let Self { moves, key, trust } = self;
        let moved = async {
            match moves {
                Moves::Http2(moves) => moves.run(to, limits).await,
                Moves::Http3(moves) => moves.run(to).await,
            }
        };
        tokio::select! {
            ended = moved => ended,
            () = trust.revoked(key) => {
                debug!(dst.addr = %to, "the peer's certificate has been revoked, its tunnels are cut");
                None
            }
        }
    }
}
