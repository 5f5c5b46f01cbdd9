//! Ways by QUIC that have fallen silent: unlike TCP's nothing tells that whoever was there is gone.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Pooled;

/// What a request may take on a way that says nothing: twice its round trip, and the time by which its
/// end may put off what it has to say (RFC 9000 §13.2.1), within these bounds.
const DELAY: Duration = Duration::from_millis(40);
const LEAST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(1);
/// How long a way may be silent, though something is asked on it, until it counts as broken.
const SILENCE: Duration = Duration::from_secs(2);

/// What comes of a request on a connection; `None` once that has been silent for longer than it would
/// be.
///
/// # Cancel safety
/// As `exchange` is.
pub(super) async fn answered<F: Future>(
    connection: &Pooled,
    mut exchange: Pin<&mut F>,
) -> Option<F::Output> {
    let mut probed = false;
    loop {
        let heard = connection.heard();
        let patience = (2 * connection.round_trip() + DELAY).clamp(LEAST, MOST);
        if let Ok(outcome) = tokio::time::timeout(patience, exchange.as_mut()).await {
            return Some(outcome);
        }
        let silent = connection.heard() == heard;
        if silent && probed {
            return None;
        }
        // It may have acknowledged the request, and be waiting for a program.
        probed = silent;
        if silent {
            connection.probe();
        }
    }
}

/// Whether a connection on which something was asked has been silent for too long since.
pub(super) fn is_broken(connection: &Pooled, now: Instant) -> bool {
    let silent = connection.silent_since();
    silent.is_some_and(|since| now - since >= SILENCE)
}
