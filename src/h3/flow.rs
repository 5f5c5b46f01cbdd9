//! UDP by way of a CONNECT (RFC 9298): QUIC's datagrams where they fit, else capsules on the
//! stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::SendDatagramError;
use tokio::sync::mpsc::Receiver;

use super::capsule::{self, Capsules};
use super::error::{Code, Fault, StreamError};
use super::stream::Stream;
use super::{datagram, varint};

/// The context of plain payloads of UDP, the only one we use (RFC 9298 §4).
const PLAIN: u64 = 0;
/// Capsules and pieces of them passed over before others have their turn.
const TURN: usize = 64;

/// How a payload left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// In a datagram: it may be lost, and overtake or be overtaken.
    Datagram,
    /// In a capsule, since it is too long for a datagram or the peer takes none.
    Capsule,
    /// Not at all: it is too long for a datagram and those are to be dropped, or for UDP; or a
    /// capsule before it has not left yet.
    Dropped,
}

/// What becomes of payloads that are too long for a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversize {
    /// They are sent in capsules.
    #[default]
    Capsule,
    /// They are dropped, as a link drops them: what programs want that look for the path's MTU
    /// (RFC 9298 §6.1).
    Drop,
}

/// Datagrams of UDP both ways.
///
/// Of those that come 64 wait here at most, and further ones are dropped, as anywhere on the way.
/// Dropping it ends the stream as dropping [`Stream`] does.
#[derive(Debug)]
pub struct Flow {
    stream: Stream,
    datagrams: Receiver<Bytes>,
    capsules: Capsules,
    piece: Bytes,
    /// The stream takes its turn after each datagram, so that neither starves the other.
    turn: bool,
}

impl Flow {
    pub(super) fn new(stream: Stream, datagrams: Receiver<Bytes>) -> Self {
        Self {
            stream,
            datagrams,
            capsules: Capsules::new(),
            piece: Bytes::new(),
            turn: false,
        }
    }

    /// The next payload from the peer; `None` once it has ended the stream.
    ///
    /// # Errors
    /// [`StreamError`] if the stream broke, or holds what is no capsule: it has been reset then.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.turn = !self.turn;
        if self.turn
            && let Poll::Ready(Some(payload)) = self.poll_datagram(cx)?
        {
            return Poll::Ready(Ok(Some(payload)));
        }
        match self.poll_capsule(cx)? {
            Poll::Ready(Some(payload)) => Poll::Ready(Ok(Some(payload))),
            Poll::Ready(None) => Poll::Ready(self.rest()),
            Poll::Pending => match self.poll_datagram(cx)? {
                Poll::Ready(Some(payload)) => Poll::Ready(Ok(Some(payload))),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            },
        }
    }

    /// What has come before the end of the stream was read, and waits.
    fn rest(&mut self) -> Result<Option<Bytes>, StreamError> {
        while let Ok(datagram) = self.datagrams.try_recv() {
            if let Some(payload) = self.payload(datagram)? {
                return Ok(Some(payload));
            }
        }
        Ok(None)
    }

    fn poll_datagram(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        while let Some(datagram) = ready!(self.datagrams.poll_recv(cx)) {
            if let Some(payload) = self.payload(datagram)? {
                return Poll::Ready(Ok(Some(payload)));
            }
        }
        Poll::Ready(Ok(None))
    }

    fn poll_capsule(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        for _turn in 0..TURN {
            let next = self.capsules.next(&mut self.piece);
            if let Some(datagram) = next.map_err(|fault| self.malformed(fault))? {
                if let Some(payload) = self.payload(datagram)? {
                    return Poll::Ready(Ok(Some(payload)));
                }
                continue;
            }
            match ready!(self.stream.poll_data(cx))? {
                Some(piece) => self.piece = piece,
                None if self.capsules.is_amid() => {
                    let why = "a stream ends within a capsule";
                    let fault = Fault::new(Code::MESSAGE_ERROR, why);
                    return Poll::Ready(Err(self.malformed(fault)));
                }
                None => return Poll::Ready(Ok(None)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What a datagram holds; `None` if it is of a context that there is not.
    fn payload(&mut self, mut datagram: Bytes) -> Result<Option<Bytes>, StreamError> {
        let Some((context, size)) = varint::read(&datagram) else {
            let why = "a datagram has no context";
            return Err(self.malformed(Fault::new(Code::MESSAGE_ERROR, why)));
        };
        let payload = datagram.split_off(size);
        if context != PLAIN {
            return Ok(None);
        }
        if payload.len() > capsule::MOST {
            let why = "a datagram is longer than UDP can be";
            return Err(self.malformed(Fault::new(Code::MESSAGE_ERROR, why)));
        }
        Ok(Some(payload))
    }

    fn malformed(&mut self, fault: Fault) -> StreamError {
        self.stream.reset(fault.code);
        StreamError::Malformed(fault)
    }

    /// Sends a payload, or drops it rather than wait. Capsules leave with [`Flow::poll_stopped`].
    ///
    /// # Errors
    /// [`StreamError`] if the connection is over, or the flow has been reset.
    pub fn send(
        &mut self,
        cx: &mut Context<'_>,
        payload: &[u8],
        oversize: Oversize,
    ) -> Result<Sent, StreamError> {
        let inner = self.stream.inner()?;
        // A datagram would tell that the stream is there (RFC 9297 §2.1).
        if inner.writer.has_ended() {
            return Err(StreamError::Closed);
        }
        let shared = inner.shared();
        if payload.len() > capsule::MOST {
            return Ok(Sent::Dropped);
        }
        if shared.sends_datagrams() {
            let datagram = datagram::encode(inner.quarter, PLAIN, payload);
            match shared.quic.send_datagram(datagram) {
                Ok(()) => return Ok(Sent::Datagram),
                Err(SendDatagramError::ConnectionLost(error)) => {
                    return Err(StreamError::Ended(shared.ended(&error)));
                }
                Err(SendDatagramError::TooLarge) if oversize == Oversize::Drop => {
                    return Ok(Sent::Dropped);
                }
                Err(
                    SendDatagramError::TooLarge
                    | SendDatagramError::UnsupportedByPeer
                    | SendDatagramError::Disabled,
                ) => {}
            }
        }
        if self.stream.poll_ready(cx)?.is_pending() {
            return Ok(Sent::Dropped);
        }
        self.stream.put(capsule::encode(PLAIN, payload));
        let _held = self.stream.poll_ready(cx)?;
        Ok(Sent::Capsule)
    }

    /// As [`Stream::poll_stopped`].
    pub fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.stream.poll_stopped(cx)
    }

    /// As [`Stream::close`].
    pub fn close(self) {
        self.stream.close();
    }

    /// As [`Stream::reset`].
    pub fn reset(&mut self, code: Code) {
        self.stream.reset(code);
    }

    /// As [`Stream::id`].
    pub fn id(&self) -> u64 {
        self.stream.id()
    }
}
