//! What a CONNECT opens: bytes both ways in DATA frames, each way with an end of its own
//! (RFC 9114 §4.4).

mod io;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};

use super::budget::Allowance;
use super::error::{Code, StreamError};
use super::flow::Flow;
use super::frame::{self, Kind};
use super::linger::Linger;
use super::message;
use super::reader::{FrameReader, ReadFault};
use super::shared::{Live, Shared, lock};
use super::writer::{FrameWriter, WriteFault};

/// A stream of bytes both ways.
///
/// Nothing is buffered without bound: one frame of ours at most waits here for QUIC, and what the
/// peer sends waits in QUIC until it is read.
///
/// Dropping it before both ways have ended resets both, and never ends them: as an abort once bytes
/// have come or gone ([`Code::CONNECT_ERROR`]), so that a cut is never taken for the whole, else as
/// a cancellation ([`Code::REQUEST_CANCELLED`]).
pub struct Stream {
    /// There until the stream is closed.
    inner: Option<Inner>,
    /// What was read of the last piece and not yet passed on, for [`tokio::io::AsyncRead`].
    unread: Bytes,
}

pub(super) struct Inner {
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
    pub(super) allowance: Allowance,
    pub(super) live: Live,
    pub(super) quarter: u64,
    /// The frame at hand holds nothing for us.
    skipping: bool,
    received: Received,
    /// Bytes have come or gone.
    moved: bool,
}

/// The peer's direction.
enum Received {
    Open,
    /// Ended in order.
    All,
    /// Not whole, whoever asks again.
    Broke(StreamError),
}

impl Inner {
    pub(super) fn new(send: SendStream, recv: RecvStream, live: Live) -> Self {
        Self {
            quarter: u64::from(send.id()) / 4,
            reader: FrameReader::new(recv),
            writer: FrameWriter::new(send),
            allowance: Allowance::new(),
            live,
            skipping: false,
            received: Received::Open,
            moved: false,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.live.shared()
    }

    pub(super) fn write_error(&self, fault: WriteFault) -> StreamError {
        fault.judge(|error| self.shared().ended(error))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let flushed = self.writer.poll_flush(cx);
        flushed.map_err(|fault| self.write_error(fault))
    }

    /// Why what the peer sends is not whole, if that is known without waiting for it.
    pub(super) fn cut(&mut self) -> Option<StreamError> {
        // Whoever reads next is the one to be woken.
        match self
            .reader
            .poll_reset(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(fault) => Some(message::judge(self.shared(), fault)),
            Poll::Pending => None,
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        match &self.received {
            Received::Open => {}
            Received::All => return Poll::Ready(Ok(None)),
            Received::Broke(error) => return Poll::Ready(Err(error.clone())),
        }
        let next = ready!(self.poll_next(cx));
        match &next {
            Ok(Some(bytes)) => {
                self.moved = true;
                self.allowance.earn(bytes.len());
            }
            Ok(None) => self.received = Received::All,
            Err(error) => self.received = Received::Broke(error.clone()),
        }
        Poll::Ready(next)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let judge = |inner: &Self, fault: ReadFault| message::judge(inner.shared(), fault);
        loop {
            if self.skipping {
                ready!(self.reader.poll_skip(cx)).map_err(|fault| judge(self, fault))?;
                self.skipping = false;
            }
            if self.reader.left() > 0 {
                let piece = ready!(self.reader.poll_payload(cx));
                return Poll::Ready(piece.map(Some).map_err(|fault| judge(self, fault)));
            }
            let header = ready!(self.reader.poll_header(cx)).map_err(|fault| judge(self, fault))?;
            let fault = match header {
                None => return Poll::Ready(Ok(None)),
                Some((Kind::Data, 0)) => self.allowance.spend(0).err(),
                Some((Kind::Data, _)) => None,
                Some((Kind::Unknown, length)) => {
                    self.skipping = true;
                    self.allowance.spend(length).err()
                }
                // Not even trailers (§4.4).
                Some((kind, _)) => Some(message::unexpected(kind, self.shared())),
            };
            if let Some(fault) = fault {
                return Poll::Ready(Err(self.shared().fail(fault)));
            }
        }
    }

    pub(super) fn reset(&mut self, code: Code) {
        self.writer.reset(code);
        self.reader.stop(code);
        self.received = Received::Broke(StreamError::Closed);
    }

    /// Whether both ways have ended.
    fn is_over(&self) -> bool {
        self.writer.has_ended() && self.has_received()
    }

    fn has_received(&self) -> bool {
        match self.received {
            Received::Open => self.reader.has_ended(),
            Received::All | Received::Broke(_) => true,
        }
    }

    /// Ends our direction in order, takes no more from the other, and lets the driver see to it
    /// that what was sent arrives.
    pub(super) fn close(mut self, code: Code) {
        self.writer.end();
        if !self.has_received() {
            self.reader.stop(code);
        }
        let Self {
            writer,
            live,
            quarter,
            ..
        } = self;
        let shared = Arc::clone(live.shared());
        lock(&shared.demux).close(quarter);
        // Of what was reset nothing is to arrive.
        if !writer.is_reset() {
            shared.linger(Linger::new(writer, live));
        }
    }
}

impl Stream {
    /// Bytes to send in one frame at most: what of it QUIC does not take at once is held here.
    pub const FRAME: usize = 256 << 10;

    pub(super) fn new(inner: Inner) -> Self {
        Self {
            inner: Some(inner),
            unread: Bytes::new(),
        }
    }

    pub(super) fn inner(&mut self) -> Result<&mut Inner, StreamError> {
        self.inner.as_mut().ok_or(StreamError::Closed)
    }

    /// The next bytes from the peer as they lie in what was received, `None` at its end. Once they
    /// have been taken the peer may send as many again, so whoever passes them on more slowly than
    /// they come takes no more meanwhile.
    ///
    /// # Errors
    /// [`StreamError`] if the peer's direction is not whole, and again whenever it is asked.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.inner()?.poll_data(cx)
    }

    /// Waits until [`Stream::send`] may be called: QUIC has taken all that was sent before.
    ///
    /// # Errors
    /// [`StreamError`] if the peer takes no more.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.inner()?.poll_flush(cx)
    }

    /// Sends `bytes` as one frame, at most [`Stream::FRAME`] of them, without copying them if they
    /// are many. Call it once after [`Stream::poll_ready`] has returned. What QUIC does not take at
    /// once leaves with later calls of that or of [`Stream::poll_stopped`], or after
    /// [`Stream::close`].
    ///
    /// On a stream that is gone the bytes are lost, and the next wait says why.
    pub fn send(&mut self, bytes: Bytes) {
        self.put(bytes);
        if let Some(inner) = &mut self.inner {
            // Whoever waits next is the one to be woken.
            let mut nobody = Context::from_waker(Waker::noop());
            let _later = inner.writer.poll_flush(&mut nobody);
        }
    }

    /// As [`Stream::send`], but all of it leaves later.
    pub(super) fn put(&mut self, bytes: Bytes) {
        if let Some(inner) = &mut self.inner
            && !bytes.is_empty()
        {
            inner.moved = true;
            inner.writer.put(frame::DATA, bytes);
        }
    }

    /// Ends our direction in order, after all that was sent; the other stays open. What QUIC has
    /// not taken leaves as after [`Stream::send`].
    pub fn finish(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.writer.end();
        }
    }

    /// Waits until the peer takes no more from us, whether we have any or not, and moves on what
    /// was sent meanwhile. After our own end it stays pending, unless the peer gives up before it
    /// has all.
    pub fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(StreamError::Closed);
        };
        match ready!(inner.writer.poll_stopped(cx)) {
            Ok(Some(code)) => Poll::Ready(StreamError::Stopped { code }),
            Ok(None) => Poll::Pending,
            Err(fault) => Poll::Ready(inner.write_error(fault)),
        }
    }

    /// Ends our direction in order and takes no more from the other: what has been sent still
    /// arrives, within [`super::Config::linger`].
    pub fn close(self) {
        self.give_up(Code::NO_ERROR);
    }

    /// The same, telling the peer by a code why no more is taken.
    pub fn give_up(mut self, code: Code) {
        if let Some(inner) = self.inner.take() {
            inner.close(code);
        }
    }

    /// Ends both directions at once: the peer knows that what it got is not whole.
    pub fn reset(&mut self, code: Code) {
        if let Some(inner) = &mut self.inner
            && !inner.is_over()
        {
            inner.reset(code);
        }
    }

    /// Whether the peer has reset its direction, without reading it; pending if not. It wakes when that
    /// happens, unless bytes wait to be read: whoever leaves them asks again now and then.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(StreamError::Closed);
        };
        let fault = ready!(inner.reader.poll_reset(cx));
        Poll::Ready(message::judge(inner.shared(), fault))
    }

    /// Waits until the peer has reset the stream or takes no more from it, without reading it.
    pub(super) fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        if let Poll::Ready(reset) = self.poll_reset(cx) {
            return Poll::Ready(reset);
        }
        self.poll_stopped(cx)
    }

    /// The number of the QUIC stream.
    pub fn id(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.quarter * 4)
    }

    /// Datagrams by way of this stream, which a CONNECT for UDP has opened (RFC 9298 §4).
    pub fn into_flow(mut self) -> Option<Flow> {
        let inner = self.inner.take()?;
        let datagrams = lock(&inner.shared().demux).subscribe(inner.quarter);
        Some(Flow::new(Self::new(inner), datagrams))
    }

    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        self.inner.as_ref().map(Inner::shared)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else {
            return;
        };
        if inner.is_over() {
            return inner.close(Code::NO_ERROR);
        }
        inner.reset(match inner.moved {
            true => Code::CONNECT_ERROR,
            false => Code::REQUEST_CANCELLED,
        });
        lock(&inner.shared().demux).close(inner.quarter);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.id())
    }
}
