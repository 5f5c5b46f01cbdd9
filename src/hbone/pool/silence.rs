//! Ways by QUIC that have fallen silent: unlike TCP's nothing tells that whoever was there is gone.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::Instant;
use tracing::debug;

use super::connection::Pooled;
use super::{ConnectError, ConnectRequest, ConnectResponse, Connector, Hop, Lease, Pool, Tunnel};

/// What a request may take on a way that says nothing: twice its round trip, and the time by which its
/// end may put off what it has to say (RFC 9000 §13.2.1), within these bounds.
const DELAY: Duration = Duration::from_millis(40);
const LEAST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(1);
/// How long a way may be silent, though something is asked on it, until it counts as broken.
const SILENCE: Duration = Duration::from_secs(2);

impl<C: Connector> Pool<C> {
    /// Asks on a stream that has been lent, and on another connection too once nothing has come for longer
    /// than it would.
    pub(super) async fn ask_by_quic(
        &self,
        lease: Lease,
        hop: &Hop,
        request: &ConnectRequest,
    ) -> Result<(Tunnel, ConnectResponse), ConnectError> {
        let connection = Arc::clone(lease.connection());
        let mut first = pin!(self.ask(lease, request));
        if let Some(outcome) = answered(&connection, first.as_mut()).await {
            return outcome;
        }
        debug!(dst.addr = %hop.to, "no answer, asking on another connection");
        connection.suspect();
        let second = pin!(async {
            let lease = self.lease(hop).await?;
            self.ask(lease, request).await
        });
        // Nothing of the program's has been sent by either; the one that comes late is cancelled.
        match select(first, second).await {
            Either::Left((Ok(opened), _)) => Ok(opened),
            Either::Left((Err(_lost), second)) => second.await,
            Either::Right((outcome, _)) => outcome,
        }
    }
}

/// What comes of a request on a connection; `None` once that has been silent for longer than it would
/// be.
///
/// # Cancel safety
/// As `exchange` is.
pub(super) async fn answered<F: Future>(
    connection: &Pooled,
    mut exchange: Pin<&mut F>,
) -> Option<F::Output> {
    let (mut probed, mut longer) = (false, 1);
    loop {
        let heard = connection.heard();
        let reply = (2 * connection.round_trip() + DELAY).clamp(LEAST, MOST);
        let patience = if probed {
            reply
        } else {
            (reply * longer).min(MOST)
        };
        if let Ok(outcome) = tokio::time::timeout(patience, exchange.as_mut()).await {
            return Some(outcome);
        }
        let silent = connection.heard() == heard;
        if silent && probed {
            return None;
        }
        // It may have acknowledged the request, and be waiting for a program.
        let asked = silent && connection.probe();
        // One that was asked too often is given all the time there is.
        if silent && !asked && patience >= MOST {
            return None;
        }
        if probed || silent && !asked {
            longer = (2 * longer).min(1 << 10);
        }
        probed = asked;
    }
}

/// Whether a connection on which something was asked has been silent for too long since.
pub(super) fn is_broken(connection: &Pooled, now: Instant) -> bool {
    let silent = connection.silent_since();
    silent.is_some_and(|since| now - since >= SILENCE)
}
