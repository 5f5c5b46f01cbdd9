//! One CONNECT stream as two byte streams with flow control and an explicit end.

use std::collections::VecDeque;
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
}

/// A tunnel: bytes both ways, each way with an end of its own.
///
/// Neither way buffers without bound: bytes are taken from the program only when
/// [`Tunnel::poll_capacity`] has room for them, and the peer's are credited back only when
/// [`Tunnel::release`] says they have been passed on.
///
/// Dropping it before both ways have ended resets the stream, never ends it: as an abort once
/// bytes have moved, so that a cut is never taken for the whole, else as a cancellation, which a
/// peer reads as an end with nothing in it.
pub struct Tunnel {
    send: SendStream<Bytes>,
    recv: RecvStream,
    sending: bool,
    receiving: bool,
    /// Bytes have been sent or received.
    moved: bool,
    /// Room has been asked for and not been used.
    reserved: bool,
    /// Given back by whoever looked at it. Boxed, since few tunnels are looked into.
    unread: Option<Box<Bytes>>,
    /// The peer has ended its direction in order.
    ended: bool,
    /// What the peer had sent before it reset the stream.
    rest: Option<Rest>,
    _lease: Option<Lease>,
}

/// Bytes that arrived before a reset, and whether the peer had ended its direction by then.
struct Rest {
    bytes: VecDeque<Bytes>,
    reset: Option<h2::Error>,
}

impl Tunnel {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream, lease: Option<Lease>) -> Self {
        Self {
            send,
            recv,
            sending: true,
            receiving: true,
            moved: false,
            reserved: false,
            unread: None,
            ended: false,
            rest: None,
            _lease: lease,
        }
    }

    /// The next bytes from the peer, `None` at its end. The peer may send more only after
    /// [`Tunnel::release`], which is what holds back a fast sender behind a slow reader.
    ///
    /// # Errors
    /// [`TunnelError::Reset`], but for the codes that mean an orderly end (§1.5).
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, TunnelError>> {
        if let Some(bytes) = self.unread.take() {
            return Poll::Ready(Ok(Some(*bytes)));
        }
        if !self.receiving {
            return Poll::Ready(Ok(None));
        }
        let next = match &mut self.rest {
            Some(rest) => rest.next(),
            None => ready!(self.recv.poll_data(cx)),
        };
        Poll::Ready(match next {
            Some(Ok(bytes)) => {
                self.moved = true;
                Ok(Some(bytes))
            }
            None => {
                self.receiving = false;
                self.ended = true;
                Ok(None)
            }
            Some(Err(source)) => {
                self.receiving = false;
                match source.reason() {
                    Some(reason) if source.is_reset() && is_orderly(reason) => Ok(None),
                    _ => Err(TunnelError::Reset { source }),
                }
            }
        })
    }

    /// Gives back bytes that were read and not released: they come first when it is read again.
    pub fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.unread = Some(Box::new(bytes));
        }
    }

    /// Lets the peer send as many bytes again, once they have been passed on.
    pub fn release(&mut self, bytes: usize) {
        // Only fails for more than was received, or on a stream that is gone: nothing to credit.
        let _gone = self.recv.flow_control().release_capacity(bytes);
    }

    /// Waits until at least one byte may be sent, and tells how many of the `wanted` may; 0 when
    /// the peer takes no more and has said so in order.
    ///
    /// Room that is not used at once is to be given back with [`Tunnel::unreserve`]: it is taken
    /// from the window that all tunnels of the connection share.
    ///
    /// # Errors
    /// [`TunnelError::Reset`].
    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, TunnelError>> {
        self.reserved = true;
        self.send.reserve_capacity(wanted);
        loop {
            let free = self.send.capacity();
            if free > 0 {
                return Poll::Ready(Ok(free.min(wanted)));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_changed)) => {}
                Some(Err(source)) => return Poll::Ready(Err(TunnelError::Reset { source })),
                // The stream is gone, and the reset tells why.
                None => {
                    ready!(self.poll_unwanted(cx))?;
                    return Poll::Ready(Ok(0));
                }
            }
        }
    }

    /// Gives back room that is not needed now.
    pub fn unreserve(&mut self) {
        if self.reserved {
            self.reserved = false;
            self.send.reserve_capacity(0);
        }
    }

    /// Waits until the peer takes no more from us, whether we have any or not. What it had sent
    /// before can still be read.
    ///
    /// # Errors
    /// [`TunnelError::Reset`], but for the codes that mean an orderly end (§1.5), and for any code
    /// once the peer has ended its own direction: it has closed, as a program closes that has said
    /// all it had to say (RFC 9113 §8.1).
    pub fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        let source = match ready!(self.send.poll_reset(cx)) {
            Ok(reason) if is_orderly(reason) || self.has_ended(cx, reason) => {
                self.sending = false;
                return Poll::Ready(Ok(()));
            }
            Ok(reason) => reason.into(),
            Err(source) => source,
        };
        Poll::Ready(Err(TunnelError::Reset { source }))
    }

    /// Whether the peer had ended its direction before it reset the stream. Only what follows the
    /// last of its bytes tells, so they are taken over from HTTP/2, which has them either way.
    fn has_ended(&mut self, cx: &mut Context<'_>, reason: Reason) -> bool {
        if self.receiving && self.rest.is_none() {
            let mut bytes = VecDeque::new();
            let reset = loop {
                match self.recv.poll_data(cx) {
                    Poll::Ready(Some(Ok(more))) => bytes.push_back(more),
                    Poll::Ready(Some(Err(source))) => break Some(source),
                    Poll::Ready(None) => break None,
                    // Never, of a stream that was reset.
                    Poll::Pending => break Some(reason.into()),
                }
            };
            self.rest = Some(Rest { bytes, reset });
        }
        let whole = self.rest.as_ref().is_some_and(|r| r.reset.is_none());
        self.ended || whole
    }

    /// Sends bytes for which [`Tunnel::poll_capacity`] made room. On a stream that is gone they are
    /// lost, and the next wait for room says why.
    pub fn send(&mut self, bytes: Bytes) {
        self.moved = true;
        let _gone = self.send.send_data(bytes, false);
    }

    /// Ends our direction in order; the other stays open.
    pub fn finish(&mut self) {
        if self.sending {
            self.sending = false;
            // On a stream that is gone the other direction tells.
            let _gone = self.send.send_data(Bytes::new(), true);
        }
    }

    /// Ends our direction in order and takes no more from the other: what has been sent still
    /// arrives, unlike before a reset.
    pub fn close(mut self) {
        self.finish();
        self.receiving = false;
    }

    /// Ends both directions at once, so that the peer sees a reset and not an end (RFC 9113 §8.5).
    pub fn abort(&mut self) {
        self.reset(Reason::CONNECT_ERROR);
    }

    fn reset(&mut self, reason: Reason) {
        if self.sending || self.receiving {
            self.send.send_reset(reason);
            self.sending = false;
            self.receiving = false;
        }
    }
}

impl Rest {
    fn next(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let next = self.bytes.pop_front().map(Ok);
        next.or_else(|| self.reset.take().map(Err))
    }
}

/// Codes by which a peer says that it is done, no more (§1.5).
fn is_orderly(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED
    )
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.reset(if self.moved {
            Reason::CONNECT_ERROR
        } else {
            Reason::CANCEL
        });
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({:?})", self.recv.stream_id())
    }
}
