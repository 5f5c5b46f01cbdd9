//! One CONNECT stream as two byte streams with flow control and an explicit end, whatever carries it.

mod http2;
mod http3;

use std::error::Error;
use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Transport;
use super::pool::Lease;
use crate::h3;

pub(super) use http2::Http2;
pub(super) use http3::Http3;

/// Why a tunnel ended before both sides had finished.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The peer reset the stream, or the connection beneath broke.
    #[error("the tunnel was reset")]
    Reset {
        /// What HTTP says of it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl TunnelError {
    /// The peer says what makes no sense.
    pub(super) fn malformed(source: h3::Fault) -> Self {
        let source = Box::new(source);
        Self::Reset { source }
    }
}

impl From<h2::Error> for TunnelError {
    fn from(source: h2::Error) -> Self {
        let source = Box::new(source);
        Self::Reset { source }
    }
}

impl From<h3::StreamError> for TunnelError {
    fn from(source: h3::StreamError) -> Self {
        let source = Box::new(source);
        Self::Reset { source }
    }
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
    stream: Carrier,
    /// Bytes have been sent or received.
    moved: bool,
    /// Given back by whoever looked at it. Boxed, since few tunnels are looked into.
    unread: Option<Box<Bytes>>,
    _lease: Option<Lease>,
}

/// The stream that carries it.
pub(super) enum Carrier {
    Http2(Http2),
    /// Boxed, since most tunnels are of the other and smaller kind.
    Http3(Box<Http3>),
}

/// Asks whichever it is.
macro_rules! carried {
    ($tunnel:expr, $stream:ident => $ask:expr) => {
        match &mut $tunnel.stream {
            Carrier::Http2($stream) => $ask,
            Carrier::Http3($stream) => $ask,
        }
    };
}

impl Tunnel {
    pub(super) fn new(stream: Carrier, lease: Option<Lease>) -> Self {
        Self {
            stream,
            moved: false,
            unread: None,
            _lease: lease,
        }
    }

    /// Its datagrams, where QUIC has such; what is left is empty then.
    pub(super) fn take_flow(&mut self) -> Option<h3::Flow> {
        match &mut self.stream {
            Carrier::Http2(_) => None,
            Carrier::Http3(stream) => stream.take_flow(),
        }
    }

    /// What carries it.
    pub fn transport(&self) -> Transport {
        match &self.stream {
            Carrier::Http2(_) => Transport::Tcp,
            Carrier::Http3(_) => Transport::Quic,
        }
    }

    /// The next bytes from the peer, `None` at its end. The peer may send more only after
    /// [`Tunnel::release`], which is what holds back a fast sender behind a slow reader; over QUIC it may as
    /// soon as this has returned, so whoever is slow asks for no more.
    ///
    /// # Errors
    /// [`TunnelError::Reset`], but for the codes that mean an orderly end (§1.5).
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, TunnelError>> {
        if let Some(bytes) = self.unread.take() {
            return Poll::Ready(Ok(Some(*bytes)));
        }
        let next = carried!(self, stream => stream.poll_read(cx));
        self.moved |= matches!(next, Poll::Ready(Ok(Some(_))));
        next
    }

    /// Gives back bytes that were read and not released: they come first when it is read again.
    pub fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.unread = Some(Box::new(bytes));
        }
    }

    /// Lets the peer send as many bytes again, once they have been passed on.
    pub fn release(&mut self, bytes: usize) {
        if let Carrier::Http2(stream) = &mut self.stream {
            stream.release(bytes);
        }
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
        carried!(self, stream => stream.poll_capacity(cx, wanted))
    }

    /// Gives back room that is not needed now.
    pub fn unreserve(&mut self) {
        if let Carrier::Http2(stream) = &mut self.stream {
            stream.unreserve();
        }
    }

    /// Waits until what was sent, and the end where there was one, needs no more calls to leave. Whoever
    /// polls anything else that sends or waits for [`Tunnel::poll_unwanted`] need not ask.
    ///
    /// # Errors
    /// [`TunnelError::Reset`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        match &mut self.stream {
            Carrier::Http2(_) => Poll::Ready(Ok(())),
            Carrier::Http3(stream) => stream.poll_flush(cx),
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
        carried!(self, stream => stream.poll_unwanted(cx))
    }

    /// Sends bytes for which [`Tunnel::poll_capacity`] made room. On a stream that is gone they are
    /// lost, and the next wait for room says why.
    pub fn send(&mut self, bytes: Bytes) {
        self.moved = true;
        carried!(self, stream => stream.send(bytes));
    }

    /// Ends our direction in order; the other stays open.
    pub fn finish(&mut self) {
        carried!(self, stream => stream.finish());
    }

    /// Ends our direction in order and takes no more from the other: what has been sent still
    /// arrives, unlike before a reset.
    pub fn close(mut self) {
        carried!(self, stream => stream.close());
    }

    /// Ends both directions at once, so that the peer sees a reset and not an end (RFC 9113 §8.5).
    pub fn abort(&mut self) {
        carried!(self, stream => stream.abort());
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        match self.moved {
            true => self.abort(),
            false => carried!(self, stream => stream.cancel()),
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = match &self.stream {
            Carrier::Http2(stream) => stream.id(),
            Carrier::Http3(stream) => stream.id(),
        };
        write!(f, "Tunnel({id})")
    }
}
