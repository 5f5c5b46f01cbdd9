//! One of HTTP/2 over TLS.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::client::UnbufferedClientConnection;
use tracing::debug;

use super::Answer;
use crate::hbone::Limits;
use crate::hbone::connect::{
    Carries, ConnectError, ConnectRequest, DialError, Http2, Http2Line, exchange_error, request,
};
use crate::hbone::liveness::{self, Heard};
use crate::hbone::pool::busy::{Meter, Share};
use crate::hbone::stream::{Glance, Turn};
use crate::hbone::tunnel::{self, Carrier};
use crate::sys::Way;

pub(super) struct Streams {
    to: SocketAddr,
    sender: SendRequest<Bytes>,
    heard: Arc<Heard>,
    tcp: Glance<UnbufferedClientConnection>,
}

pub(super) struct Moves {
    connection: Http2,
    turn: Turn<UnbufferedClientConnection>,
    heard: Arc<Heard>,
    share: Arc<Share>,
}

pub(super) fn part(to: SocketAddr, line: Http2Line, share: Arc<Share>) -> (Streams, Moves) {
    let tcp = line.turn.glance();
    let moves = Moves {
        connection: line.connection,
        turn: line.turn,
        heard: Arc::clone(&line.heard),
        share,
    };
    let streams = Streams {
        to,
        sender: line.sender,
        heard: line.heard,
        tcp,
    };
    (streams, moves)
}

impl Streams {
    pub(super) fn usable(&self) -> bool {
        let mut sender = self.sender.clone();
        let mut asleep = Context::from_waker(Waker::noop());
        !matches!(sender.poll_ready(&mut asleep), Poll::Ready(Err(_)))
    }

    /// Whether the way is long or loses what is sent.
    pub(super) fn is_poor(&self) -> bool {
        self.tcp.way().is_some_and(is_poor)
    }

    /// Streams that the peer takes.
    pub(super) fn most(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    pub(super) async fn exchange(&self, asked: &ConnectRequest) -> Result<Answer, ConnectError> {
        let request = request(self.to, asked)?;
        let unsent = |source| ConnectError::Http2 {
            source,
            unprocessed: true,
        };
        let exchanged = async {
            let sender = self.sender.clone();
            let mut sender = sender.ready().await.map_err(unsent)?;
            if asked.carries == Carries::Datagrams {
                offered(&sender).await?;
            }
            let sent = sender.send_request(request, false);
            let (response, stream) = sent.map_err(unsent)?;
            let response = response.await.map_err(exchange_error)?;
            Ok((response, stream))
        };
        let (response, stream) = exchanged.await.map_err(|error| self.explain(error))?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            stream: Carrier::Http2(tunnel::Http2::new(stream, body)),
        })
    }

    /// What an error is really of: on a connection the peer has never answered, of the dial.
    fn explain(&self, error: ConnectError) -> ConnectError {
        match error {
            ConnectError::Http2 { source, .. } if !self.heard.ever() => {
                let error = turned_away(self.to, &self.heard, Some(source));
                ConnectError::Dial(Arc::new(error))
            }
            other => other,
        }
    }
}

/// Waits until the peer has said that it does extended CONNECT (RFC 8441 §3): its SETTINGS come first of all
/// that it says, and nobody tells of them.
async fn offered(sender: &SendRequest<Bytes>) -> Result<(), ConnectError> {
    let come = async {
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let come = tokio::time::timeout(SETTINGS, come).await;
    come.map_err(|_elapsed| ConnectError::NoDatagrams)
}

/// Between looks whether SETTINGS have come, and how long they may take.
const LOOK: Duration = Duration::from_millis(2);
const SETTINGS: Duration = Duration::from_secs(2);

/// Round trip from which a stream feels what another has lost.
const FAR: Duration = Duration::from_millis(2);
/// Segments of which one may be lost.
const CLEAN: u32 = 2_000;

fn is_poor(way: Way) -> bool {
    let lost = way.again.saturating_add(way.early);
    way.round_trip >= FAR || lost.saturating_mul(CLEAN) > way.sent.max(CLEAN)
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Streams(to {})", self.to)
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

impl Moves {
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
        };
        let error = ended.err()?;
        let reason = error.as_ref().map(tracing::field::display);
        debug!(dst.addr = %to, error = reason, "tunnel connection broke or fell silent");
        let unheard = !self.heard.ever();
        unheard.then(|| turned_away(to, &self.heard, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_poor_that_is_long_or_lossy() {
        for (name, micros, sent, again, early, want) in [
            ("near and clean", 80, 10_000, 0, 0, false),
            ("a few of many", 80, 10_000, 3, 1, false),
            ("one of few", 80, 30, 1, 0, false),
            ("two of few", 80, 30, 1, 1, true),
            ("a thousandth", 80, 10_000, 10, 0, true),
            ("lost on the way here", 80, 10_000, 0, 10, true),
            ("far", 2_000, 10, 0, 0, true),
        ] {
            let way = Way {
                round_trip: Duration::from_micros(micros),
                sent,
                again,
                early,
            };
            assert_eq!(is_poor(way), want, "{name}");
        }
    }
}
