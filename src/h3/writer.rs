//! Writes frames to a QUIC stream: one at a time, held here until QUIC has taken all of it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::{ConnectionError, SendStream, StoppedError, VarInt, WriteError};

use super::error::{Code, Ended, StreamError};
use super::frame;

/// Below it a payload is copied behind its header rather than sent as a piece of its own.
const SMALL: usize = 512;

/// Why nothing more can be written.
#[derive(Clone, Debug)]
pub(super) enum WriteFault {
    /// The peer takes no more.
    Stopped(Code),
    /// We have ended or reset the stream.
    Closed,
    /// The connection is over.
    Lost(ConnectionError),
}

impl WriteFault {
    pub(super) fn judge(self, lost: impl Fn(&ConnectionError) -> Ended) -> StreamError {
        match self {
            Self::Stopped(code) => StreamError::Stopped { code },
            Self::Closed => StreamError::Closed,
            Self::Lost(error) => StreamError::Ended(lost(&error)),
        }
    }
}

impl From<WriteError> for WriteFault {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped(code.into()),
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Closed,
        }
    }
}

type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Takes frames.
    Open,
    /// Ends once what is held has left.
    Ending,
    /// Ended in order.
    Ended,
    /// Cut: nothing more arrives.
    Reset,
}

/// The frames of one stream.
pub(super) struct FrameWriter {
    quic: SendStream,
    /// A header and a payload.
    held: [Bytes; 2],
    phase: Phase,
    /// Made when it is first asked for, since most streams are never waited on.
    stopped: Option<Stopped>,
    /// The peer has all, and there is nothing to wait for.
    arrived: bool,
    /// Why nothing more can be written: whoever asks next is told, and not only who wrote.
    fault: Option<WriteFault>,
}

impl FrameWriter {
    pub(super) fn new(quic: SendStream) -> Self {
        Self {
            quic,
            held: [const { Bytes::new() }; 2],
            phase: Phase::Open,
            stopped: None,
            arrived: false,
            fault: None,
        }
    }

    /// Takes a frame, which leaves as [`FrameWriter::poll_flush`] is called. None may be held: the
    /// stream is reset rather than a byte of it lost.
    pub(super) fn put(&mut self, kind: u64, payload: Bytes) {
        if self.phase != Phase::Open || self.fault.is_some() {
            return;
        }
        if !self.is_flushed() {
            debug_assert!(false, "a frame was put upon another");
            return self.reset(Code::INTERNAL_ERROR);
        }
        self.held = match payload.len() {
            0..SMALL => [frame::whole(kind, &payload), Bytes::new()],
            length => [frame::header(kind, length), payload],
        };
    }

    fn is_flushed(&self) -> bool {
        self.held.iter().all(Bytes::is_empty)
    }

    /// Waits until QUIC has taken what is held, and the end where one was asked for.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFault>> {
        if let Some(fault) = &self.fault {
            return Poll::Ready(Err(fault.clone()));
        }
        while !self.is_flushed() {
            let [header, _] = &self.held;
            let from = usize::from(header.is_empty());
            let held = self.held.get_mut(from..).unwrap_or_default();
            let written = pin!(self.quic.write_chunks(held)).poll(cx);
            if let Err(error) = ready!(written) {
                self.held = [const { Bytes::new() }; 2];
                return Poll::Ready(Err(self.fault.insert(error.into()).clone()));
            }
        }
        if self.phase == Phase::Ending {
            self.phase = Phase::Ended;
            // On a stream that is gone the other direction tells.
            let _gone = self.quic.finish();
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the stream in order, after what is held.
    pub(super) fn end(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Ending;
        if self.is_flushed() {
            self.phase = Phase::Ended;
            let _gone = self.quic.finish();
        }
    }

    /// Whether it has been ended or reset.
    pub(super) fn has_ended(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Whether it has been reset, and so nothing of it is still to arrive.
    pub(super) fn is_reset(&self) -> bool {
        self.phase == Phase::Reset
    }

    /// Ends the stream at once: the peer knows that it is not whole.
    pub(super) fn reset(&mut self, code: Code) {
        self.held = [const { Bytes::new() }; 2];
        self.phase = Phase::Reset;
        let _gone = self.quic.reset(code.quic());
    }

    /// Waits until the peer takes no more, and writes what is held meanwhile; `None` once it has
    /// all, after the end.
    pub(super) fn poll_stopped(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Code>, WriteFault>> {
        if self.arrived {
            return Poll::Ready(Ok(None));
        }
        match ready!(self.poll_flush(cx)) {
            Err(WriteFault::Stopped(code)) => return Poll::Ready(Ok(Some(code))),
            Err(fault) => return Poll::Ready(Err(fault)),
            Ok(()) => {}
        }
        let stopped = self
            .stopped
            .get_or_insert_with(|| Box::pin(self.quic.stopped()));
        let outcome = ready!(stopped.as_mut().poll(cx));
        self.stopped = None;
        let fault = match outcome {
            Ok(None) => {
                self.arrived = true;
                return Poll::Ready(Ok(None));
            }
            Ok(Some(code)) => WriteFault::Stopped(code.into()),
            Err(StoppedError::ConnectionLost(error)) => WriteFault::Lost(error),
            Err(StoppedError::ZeroRttRejected) => WriteFault::Closed,
        };
        self.fault = Some(fault);
        self.poll_stopped(cx)
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        // QUIC's stream would end in order, and what was cut pass for the whole.
        if matches!(self.phase, Phase::Open | Phase::Ending) {
            self.reset(Code::REQUEST_CANCELLED);
        }
    }
}
