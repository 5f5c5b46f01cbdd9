//! One CONNECT stream as two byte streams with flow control and an explicit end.

use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::pool::Lease;

/// Why a tunnel ended before both sides had finished.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The peer reset the stream, or the connection beneath broke.
    #[error("the tunnel was reset")]
    Reset {
        /// What HTTP/2 says of it.
        #[source]
        source: h2::Error,
    },
    /// The peer takes no more data.
    #[error("the peer stopped reading")]
    Closed,
}

/// A tunnel. Dropping it before [`Tunnel::finish`] resets it: a truncated stream must never look
/// complete.
pub struct Tunnel {
    send: SendStream<Bytes>,
    recv: RecvStream,
    sending: bool,
    receiving: bool,
    _lease: Option<Lease>,
}

impl Tunnel {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream, lease: Option<Lease>) -> Self {
        Self {
            send,
            recv,
            sending: true,
            receiving: true,
            _lease: lease,
        }
    }

    /// The next bytes from the peer, `None` at its end. The peer may send more only after
    /// [`Tunnel::release`], which is what holds back a fast sender behind a slow reader.
    ///
    /// # Errors
    /// [`TunnelError::Reset`], but for the codes that mean an orderly end (§1.5).
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, TunnelError>> {
        if !self.receiving {
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(match ready!(self.recv.poll_data(cx)) {
            Some(Ok(bytes)) => Ok(Some(bytes)),
            None => {
                self.receiving = false;
                Ok(None)
            }
            Some(Err(source)) => {
                self.receiving = false;
                match source.reason() {
                    Some(Reason::NO_ERROR | Reason::CANCEL) if source.is_reset() => Ok(None),
                    _ => Err(TunnelError::Reset { source }),
                }
            }
        })
    }

    /// Lets the peer send as many bytes again, once they have been passed on.
    pub fn release(&mut self, bytes: usize) {
        // Only fails for more than was received, or on a stream that is gone: nothing to credit.
        let _gone = self.recv.flow_control().release_capacity(bytes);
    }

    /// Waits until at least one byte may be sent, and tells how many of the `wanted` may.
    ///
    /// # Errors
    /// When the peer reset the stream or will not read on.
    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, TunnelError>> {
        self.send.reserve_capacity(wanted);
        loop {
            let free = self.send.capacity();
            if free > 0 {
                return Poll::Ready(Ok(free.min(wanted)));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_changed)) => {}
                Some(Err(source)) => return Poll::Ready(Err(TunnelError::Reset { source })),
                None => return Poll::Ready(Err(TunnelError::Closed)),
            }
        }
    }

    /// Sends bytes for which [`Tunnel::poll_capacity`] made room.
    ///
    /// # Errors
    /// [`TunnelError::Reset`] when the stream is gone.
    pub fn send(&mut self, bytes: Bytes) -> Result<(), TunnelError> {
        let sent = self.send.send_data(bytes, false);
        sent.map_err(|source| TunnelError::Reset { source })
    }

    /// Ends our direction in order; the other stays open.
    ///
    /// # Errors
    /// [`TunnelError::Reset`] when the stream is gone.
    pub fn finish(&mut self) -> Result<(), TunnelError> {
        self.sending = false;
        let sent = self.send.send_data(Bytes::new(), true);
        sent.map_err(|source| TunnelError::Reset { source })
    }

    /// Ends both directions at once, so that the peer sees a reset and not an end.
    pub fn abort(&mut self) {
        if self.sending || self.receiving {
            self.send.send_reset(Reason::CONNECT_ERROR);
            self.sending = false;
            self.receiving = false;
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.abort();
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({:?})", self.recv.stream_id())
    }
}
