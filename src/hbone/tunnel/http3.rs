//! A CONNECT stream of HTTP/3 (`spec/hbone-dataplane.md` §11.2).

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;

use super::TunnelError;
use crate::h3::{Code, Flow, Stream, StreamError};

/// Both directions of one.
pub(in crate::hbone) struct Http3 {
    /// There until it is closed.
    stream: Option<Stream>,
    sending: bool,
    receiving: bool,
    /// When to look next whether the peer has reset it behind bytes that nobody reads.
    look: Option<Pin<Box<Sleep>>>,
}

/// Between looks.
const LOOK: Duration = Duration::from_millis(500);

impl Http3 {
    pub(in crate::hbone) fn new(stream: Stream) -> Box<Self> {
        Box::new(Self {
            stream: Some(stream),
            sending: true,
            receiving: true,
            look: None,
        })
    }

    pub(super) fn take_flow(&mut self) -> Option<Flow> {
        self.stream.take()?.into_flow()
    }

    pub(super) fn id(&self) -> u64 {
        self.stream.as_ref().map_or(0, Stream::id)
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, TunnelError>> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.receiving) else {
            return Poll::Ready(Ok(None));
        };
        let next = ready!(stream.poll_data(cx));
        if !matches!(next, Ok(Some(_))) {
            self.receiving = false;
        }
        Poll::Ready(match next {
            Err(StreamError::Reset { code }) if is_orderly(code) => Ok(None),
            next => Ok(next?),
        })
    }

    pub(super) fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, TunnelError>> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.sending) else {
            return Poll::Ready(Ok(0));
        };
        match ready!(stream.poll_ready(cx)) {
            Ok(()) => Poll::Ready(Ok(wanted.min(Stream::FRAME))),
            Err(StreamError::Stopped { .. }) => {
                self.sending = false;
                Poll::Ready(Ok(0))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Waits until QUIC has what was sent.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        match ready!(stream.poll_ready(cx)) {
            Err(StreamError::Stopped { code }) if is_orderly(code) => Poll::Ready(Ok(())),
            flushed => Poll::Ready(Ok(flushed?)),
        }
    }

    /// That the peer takes no more is never a failure by itself: an abort resets the peer's own direction
    /// too, and that tells.
    pub(super) fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        let unwanted = match stream.poll_stopped(cx) {
            Poll::Ready(StreamError::Stopped { .. }) => {
                self.sending = false;
                true
            }
            Poll::Ready(error) => return Poll::Ready(Err(error.into())),
            Poll::Pending => false,
        };
        if !self.sending && self.receiving {
            // Nothing else tells it to a relay that waits for its program.
            self.poll_reset(cx)?;
        }
        match unwanted {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    /// Fails once the peer has reset its direction.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Result<(), TunnelError> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        loop {
            match stream.poll_reset(cx) {
                Poll::Ready(StreamError::Reset { code }) if is_orderly(code) => return Ok(()),
                Poll::Ready(error) => return Err(error.into()),
                Poll::Pending => {}
            }
            let again = || Box::pin(tokio::time::sleep(LOOK));
            let look = self.look.get_or_insert_with(again);
            if look.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.look = None;
        }
    }

    pub(super) fn send(&mut self, bytes: Bytes) {
        if let Some(stream) = &mut self.stream {
            stream.send(bytes);
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some(stream) = &mut self.stream
            && self.sending
        {
            self.sending = false;
            stream.finish();
        }
    }

    pub(super) fn close(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.close();
        }
    }

    /// What was ended in order still arrives: only what comes after would be cut.
    pub(super) fn abort(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        match self.sending {
            true => stream.reset(Code::CONNECT_ERROR),
            false if self.receiving => stream.give_up(Code::CONNECT_ERROR),
            // Both ways are over.
            false => stream.close(),
        }
    }

    pub(super) fn cancel(&mut self) {
        match self.sending {
            true => {
                if let Some(stream) = &mut self.stream {
                    stream.reset(Code::REQUEST_CANCELLED);
                }
            }
            false => self.abort(),
        }
    }
}

/// Codes by which a peer says that it is done, no more.
fn is_orderly(code: Code) -> bool {
    matches!(code, Code::NO_ERROR | Code::REQUEST_CANCELLED)
}
