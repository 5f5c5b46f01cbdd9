//! Reads frames off a QUIC stream, without copying what they hold.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use quinn::{ReadError, RecvStream};

use super::error::{Code, Ended, Fault, StreamError};
use super::frame::Kind;
use super::varint;

/// Pieces taken from QUIC at once, about a packet each.
const PIECES: usize = 16;
/// Bytes after which no more is read ahead: enough to see a reset behind what a client sends that
/// does not wait for its answer.
const AHEAD: usize = 16 << 10;
/// Pieces passed over before others have their turn.
const TURN: usize = 64;

/// Why nothing more can be read.
#[derive(Clone, Debug)]
pub(super) enum ReadFault {
    /// The peer reset the stream.
    Reset(Code),
    /// We have stopped reading it.
    Closed,
    /// The connection is over.
    Lost(quinn::ConnectionError),
    /// The stream ends within a frame (RFC 9114 §7.1).
    Truncated,
}

impl ReadFault {
    /// What ends the connection, and else what ends the stream.
    pub(super) fn judge(self, lost: impl Fn(&quinn::ConnectionError) -> Ended) -> Judged {
        match self {
            Self::Reset(code) => Judged::Stream(StreamError::Reset { code }),
            Self::Closed => Judged::Stream(StreamError::Closed),
            Self::Lost(error) => Judged::Stream(StreamError::Ended(lost(&error))),
            Self::Truncated => {
                let why = "a stream ends within a frame";
                Judged::Connection(Fault::new(Code::FRAME_ERROR, why))
            }
        }
    }
}

/// What a fault ends.
pub(super) enum Judged {
    Stream(StreamError),
    Connection(Fault),
}

impl From<ReadError> for ReadFault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(code.into()),
            ReadError::ConnectionLost(error) => Self::Lost(error),
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Closed,
        }
    }
}

/// The frames of one stream.
///
/// # Cancel safety
/// All that was read stays here: dropping a future of its methods loses nothing.
pub(super) struct FrameReader {
    quic: RecvStream,
    pieces: VecDeque<Bytes>,
    /// The beginning of an integer.
    partial: [u8; 8],
    held: usize,
    kind: Option<u64>,
    /// Bytes of the frame at hand that are still to come.
    left: u64,
    ended: bool,
    /// Why no more comes. QUIC says so once, and afterwards that the stream has ended in order.
    fault: Option<ReadFault>,
}

impl FrameReader {
    pub(super) fn new(quic: RecvStream) -> Self {
        Self {
            quic,
            pieces: VecDeque::new(),
            partial: [0; 8],
            held: 0,
            kind: None,
            left: 0,
            ended: false,
            fault: None,
        }
    }

    /// Whether the peer has ended the stream in order, and all of it has been read.
    pub(super) fn has_ended(&self) -> bool {
        self.ended && self.pieces.is_empty()
    }

    /// Asks the peer to send no more, and forgets what it has sent.
    pub(super) fn stop(&mut self, code: Code) {
        self.pieces.clear();
        self.ended = true;
        // On a stream that is gone nothing has to be said.
        let _gone = self.quic.stop(code.quic());
    }

    /// Waits until there is something to read; false at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ReadFault>> {
        if !self.pieces.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        ready!(self.poll_more(cx))?;
        Poll::Ready(Ok(!self.pieces.is_empty()))
    }

    /// Takes what QUIC has.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadFault>> {
        if let Some(fault) = &self.fault {
            return Poll::Ready(Err(fault.clone()));
        }
        let mut pieces = [const { Bytes::new() }; PIECES];
        let read = pin!(self.quic.read_chunks(&mut pieces)).poll(cx);
        let read = ready!(read).map_err(|error| self.fault.insert(error.into()).clone())?;
        let filled = pieces.into_iter().take(read.unwrap_or(0));
        self.pieces.extend(filled.filter(|piece| !piece.is_empty()));
        self.ended = read.is_none();
        Poll::Ready(Ok(()))
    }

    /// The next integer of the stream; `None` if it ends instead.
    pub(super) fn poll_integer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<u64>, ReadFault>> {
        loop {
            let read = self.partial.get(..self.held).and_then(varint::read);
            if let Some((value, _)) = read {
                self.held = 0;
                return Poll::Ready(Ok(Some(value)));
            }
            if !ready!(self.poll_fill(cx))? {
                return Poll::Ready(match self.held {
                    0 => Ok(None),
                    _ => Err(ReadFault::Truncated),
                });
            }
            let next = self.pieces.front_mut().map(Bytes::get_u8);
            if let (Some(place), Some(next)) = (self.partial.get_mut(self.held), next) {
                *place = next;
                self.held += 1;
            }
            self.forget_empty();
        }
    }

    /// The header of the next frame: what it is, and the length of its payload; `None` if the
    /// stream ends instead. Call it once the frame before has been read.
    pub(super) fn poll_header(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(Kind, u64)>, ReadFault>> {
        let kind = match self.kind {
            Some(kind) => kind,
            None => match ready!(self.poll_integer(cx))? {
                Some(kind) => *self.kind.insert(kind),
                None => return Poll::Ready(Ok(None)),
            },
        };
        let length = ready!(self.poll_integer(cx))?.ok_or(ReadFault::Truncated)?;
        self.kind = None;
        self.left = length;
        Poll::Ready(Ok(Some((Kind::of(kind), length))))
    }

    /// Bytes of the frame at hand that are still to come.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The next piece of the frame at hand; empty at its end.
    pub(super) fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, ReadFault>> {
        if self.left == 0 {
            return Poll::Ready(Ok(Bytes::new()));
        }
        if !ready!(self.poll_fill(cx))? {
            return Poll::Ready(Err(ReadFault::Truncated));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let piece = self.pieces.front_mut();
        let piece = piece.map(|piece| piece.split_to(most.min(piece.len())));
        let piece = piece.unwrap_or_default();
        self.forget_empty();
        self.left -= piece.len() as u64;
        Poll::Ready(Ok(piece))
    }

    /// Passes over the rest of the frame at hand.
    pub(super) fn poll_skip(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadFault>> {
        for _piece in 0..TURN {
            if self.left == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_payload(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits until the peer resets the stream, and reads a little ahead meanwhile; for ever if it
    /// has ended it. Where it has sent more than that nobody is woken, and it is to be asked again.
    ///
    /// To wait for the reset alone would leave a waker with the connection for as long as that
    /// lives, if the end of the stream is there already and read afterwards.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<ReadFault> {
        while !self.ended && self.reads_ahead() {
            let before = self.pieces.len();
            if let Err(fault) = ready!(self.poll_more(cx)) {
                return Poll::Ready(fault);
            }
            // They may wait for long, and are not to keep all that came together with them.
            for piece in self.pieces.iter_mut().skip(before) {
                *piece = Bytes::copy_from_slice(piece);
            }
        }
        self.look(cx)
    }

    /// The same, of a stream that is not read on.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<ReadFault> {
        if self.ended {
            return Poll::Pending;
        }
        if let Some(fault) = &self.fault {
            return Poll::Ready(fault.clone());
        }
        let fault = match ready!(pin!(self.quic.read_chunk(0, true)).poll(cx)) {
            Ok(Some(_nothing)) => return Poll::Pending,
            Ok(None) => {
                self.ended = true;
                return Poll::Pending;
            }
            Err(error) => ReadFault::from(error),
        };
        Poll::Ready(self.fault.insert(fault).clone())
    }

    fn reads_ahead(&self) -> bool {
        let bytes: usize = self.pieces.iter().map(Bytes::len).sum();
        self.pieces.len() < PIECES && bytes < AHEAD
    }

    fn forget_empty(&mut self) {
        if self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
    }

    /// As [`FrameReader::poll_integer`].
    pub(super) async fn integer(&mut self) -> Result<Option<u64>, ReadFault> {
        poll_fn(|cx| self.poll_integer(cx)).await
    }

    /// As [`FrameReader::poll_header`].
    pub(super) async fn header(&mut self) -> Result<Option<(Kind, u64)>, ReadFault> {
        poll_fn(|cx| self.poll_header(cx)).await
    }

    /// As [`FrameReader::poll_skip`].
    pub(super) async fn skip(&mut self) -> Result<(), ReadFault> {
        poll_fn(|cx| self.poll_skip(cx)).await
    }

    /// Takes the rest of the frame at hand up into `whole`, whose length the caller has bounded.
    pub(super) fn poll_whole(
        &mut self,
        cx: &mut Context<'_>,
        whole: &mut BytesMut,
    ) -> Poll<Result<(), ReadFault>> {
        while self.left > 0 {
            whole.extend_from_slice(&ready!(self.poll_payload(cx))?);
        }
        Poll::Ready(Ok(()))
    }

    /// As [`FrameReader::poll_whole`]; what was read is lost with the future.
    pub(super) async fn whole(&mut self) -> Result<BytesMut, ReadFault> {
        let mut whole = BytesMut::new();
        poll_fn(|cx| self.poll_whole(cx, &mut whole)).await?;
        Ok(whole)
    }

    /// The next bytes of a stream that has no frames; `None` at its end.
    pub(super) async fn raw(&mut self) -> Result<Option<Bytes>, ReadFault> {
        let more = poll_fn(|cx| self.poll_fill(cx)).await?;
        Ok(self.pieces.pop_front().filter(|_| more))
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        // QUIC's stream would say so with a code that is none of HTTP/3.
        if !self.ended {
            self.stop(Code::REQUEST_CANCELLED);
        }
    }
}
