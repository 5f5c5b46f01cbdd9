//! One of HTTP/3 over QUIC.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::debug;

use super::Answer;
use crate::h3;
use crate::hbone::connect::{Carries, ConnectError, ConnectRequest, DialError, fields};
use crate::hbone::masque;
use crate::hbone::quic::Http3Line;
use crate::hbone::tunnel::{self, Carrier};

/// Streams after which a connection is not lent any more: QUIC keeps a little of each for as long as the
/// connection lasts.
const MOST: u64 = 100_000;

/// Probes of one connection: of frames that hold nothing peers take so many and no more, we 64.
const PROBES: u32 = 32;
/// Between two of them.
const APART: Duration = Duration::from_millis(40);

pub(super) struct Streams {
    client: h3::Client,
    quic: quinn::Connection,
    opened: AtomicU64,
    /// What had been heard, and when, at the time that an answer was missed.
    missed: Mutex<Option<(u64, Instant)>>,
    probes: Mutex<Probes>,
}

/// How often the peer may still be asked whether it is there, and when it last was.
struct Probes {
    left: u32,
    last: Option<Instant>,
}

pub(super) struct Moves {
    driving: BoxFuture<'static, Result<(), h3::Ended>>,
}

pub(super) fn part(line: Http3Line) -> (Streams, Moves) {
    let Http3Line {
        client,
        quic,
        driving,
    } = line;
    let streams = Streams {
        client,
        quic,
        opened: AtomicU64::new(0),
        missed: Mutex::new(None),
        probes: Mutex::new(Probes {
            left: PROBES,
            last: None,
        }),
    };
    (streams, Moves { driving })
}

impl Streams {
    pub(super) fn usable(&self) -> bool {
        self.client.is_usable() && self.opened.load(Ordering::Relaxed) < MOST
    }

    pub(super) fn round_trip(&self) -> Duration {
        self.quic.rtt()
    }

    pub(super) fn heard(&self) -> u64 {
        self.quic.stats().udp_rx.datagrams
    }

    pub(super) fn probe(&self) -> bool {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        // What others have asked just now is answered to us as well.
        if probes.last.is_some_and(|at| at.elapsed() < APART) {
            return true;
        }
        let left = probes.left.checked_sub(1);
        if let Some(left) = left {
            (probes.left, probes.last) = (left, Some(Instant::now()));
            self.client.probe();
        }
        left.is_some()
    }

    pub(super) fn suspect(&self) {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        missed.get_or_insert((self.heard(), Instant::now()));
    }

    pub(super) fn silent_since(&self) -> Option<Instant> {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let (heard, since) = (*missed)?;
        if self.heard() == heard {
            return Some(since);
        }
        *missed = None;
        None
    }

    pub(super) fn leave(&self) {
        self.client.leave();
    }

    pub(super) async fn exchange(&self, asked: &ConnectRequest) -> Result<Answer, ConnectError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let mut request = match asked.carries {
            Carries::Bytes => h3::Request::connect(asked.authority.to_string()),
            Carries::Datagrams => {
                let path = masque::path(&asked.authority);
                h3::Request::connect_udp(self.quic.remote_address().to_string(), path)
            }
        };
        request.headers.extend(fields(asked));
        let (response, stream) = match self.client.connect(&request).await {
            Ok(answered) => answered,
            Err(h3::RequestError::Refused(response)) => {
                let status = response.status;
                return Err(ConnectError::Refused { status });
            }
            Err(h3::RequestError::NotOffered) => return Err(ConnectError::NoDatagrams),
            Err(source) => return Err(ConnectError::Http3 { source }),
        };
        Ok(Answer {
            status: response.status,
            headers: response.headers,
            stream: Carrier::Http3(tunnel::Http3::new(stream)),
        })
    }
}

impl Drop for Streams {
    /// Nobody can ask for another: the connection closes with its last stream.
    fn drop(&mut self) {
        self.client.leave();
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streams")
    }
}

impl Moves {
    /// The peer has answered before: its SETTINGS have come.
    pub(super) async fn run(self, to: SocketAddr) -> Option<DialError> {
        if let Err(error) = self.driving.await {
            debug!(dst.addr = %to, %error, "tunnel connection broke or fell silent");
        }
        None
    }
}
