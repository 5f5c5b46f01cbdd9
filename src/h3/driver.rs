//! Keeps a connection going: the one task that each has, beside those that use its streams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use quinn::ConnectionError;
use tokio::time::Instant;

use super::control::{self, Claimed};
use super::datagram;
use super::error::{Code, Ended, Fault};
use super::shared::{Shared, lock};

/// Streams of the peer's own that are looked at, at once: more than it needs.
const STREAMS: usize = 16;
/// Datagrams dealt out before others have their turn.
const TURN: usize = 64;
/// How long a server that has said goodbye lets its client close: what is on the way to it may be
/// told that it came too late.
const FAREWELL: Duration = Duration::from_secs(1);

/// Drives one connection: its control streams, its datagrams, and the streams that linger.
///
/// Dropping it closes the connection, and with it every stream, with [`Code::NO_ERROR`].
pub struct Driver {
    shared: Arc<Shared>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Runs until the connection is over. After a GOAWAY either way it closes the connection when
    /// the last stream has ended; how long that may take is for the caller to bound.
    ///
    /// # Errors
    /// [`Ended`], unless it was meant to end.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn run(self) -> Result<(), Ended> {
        let ended = drive(&self.shared).await;
        match ended.is_orderly() {
            true => Ok(()),
            false => Err(ended),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.end();
    }
}

async fn drive(shared: &Arc<Shared>) -> Ended {
    let quic = &shared.quic;
    let claimed = Arc::new(Claimed::default());
    let mut status = shared.status.subscribe();
    let mut inbound = FuturesUnordered::new();
    let mut lingering = FuturesUnordered::new();
    let mut farewell = None;
    let closed = quic.closed();
    let speaking = control::speak(Arc::clone(shared)).fuse();
    tokio::pin!(closed, speaking);
    loop {
        let fault = tokio::select! {
            biased;
            error = &mut closed => return shared.ended(&error),
            () = &mut speaking => None,
            Some(served) = inbound.next() => Result::<(), Fault>::err(served),
            Ok(stream) = quic.accept_uni() => {
                let served = control::serve(Arc::clone(shared), Arc::clone(&claimed), stream);
                inbound.push(served);
                crowded(inbound.len())
            }
            Some(()) = lingering.next() => None,
            () = shared.lingers.notified() => {
                lingering.extend(shared.lingering().into_iter().map(|linger| linger.run()));
                None
            }
            // A server opens no request streams (RFC 9114 §6.1).
            Ok(_) = quic.accept_bi(), if !shared.is_server() => {
                let why = "a server opened a stream both ways";
                Some(Fault::new(Code::STREAM_CREATION_ERROR, why))
            }
            () = shared.idle.notified() => None,
            Ok(()) = status.changed() => None,
            () = until(farewell) => {
                shared.close();
                None
            }
            // The last, since there is no end to them.
            datagram = quic.read_datagram() => {
                let fault = deal(shared, datagram).err();
                // Those that were woken here run on this thread, and no sooner than this task lets
                // them: meanwhile their room fills.
                tokio::task::yield_now().await;
                fault
            }
        };
        if let Some(fault) = fault {
            shared.fail(fault);
        }
        farewell = leave(shared, farewell);
        // QUIC would have us go on for as long as the peer does.
        tokio::task::consume_budget().await;
    }
}

/// Closes the connection once it is not needed any more, or tells until when it is.
fn leave(shared: &Shared, farewell: Option<Instant>) -> Option<Instant> {
    let status = *shared.status.borrow();
    // A client that leaves says so for the server's sake, but goes on as it likes.
    let leaving = match shared.is_server() {
        true => status.leaving.is_some(),
        false => status.is_leaving(),
    };
    if !leaving || shared.live() > 0 {
        return None;
    }
    if shared.is_server() {
        return farewell.or_else(|| Some(Instant::now() + FAREWELL));
    }
    shared.close();
    None
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn crowded(streams: usize) -> Option<Fault> {
    let why = "too many streams of the peer's own";
    (streams > STREAMS).then_some(Fault::new(Code::EXCESSIVE_LOAD, why))
}

/// Deals out a datagram, and those that wait behind it.
fn deal(shared: &Shared, datagram: Result<Bytes, ConnectionError>) -> Result<(), Fault> {
    let more = (1..TURN).map_while(|_turn| shared.quic.read_datagram().now_or_never());
    for datagram in std::iter::once(datagram).chain(more) {
        // The connection's end is told where it is waited for.
        let Ok(datagram) = datagram else {
            break;
        };
        let (quarter, payload) = datagram::decode(datagram)?;
        lock(&shared.demux).deal(quarter, payload);
    }
    Ok(())
}
