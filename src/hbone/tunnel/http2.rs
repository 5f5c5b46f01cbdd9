//! A CONNECT stream of HTTP/2.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::TunnelError;

/// Both directions of one.
pub(in crate::hbone) struct Http2 {
    send: SendStream<Bytes>,
    recv: RecvStream,
    sending: bool,
    receiving: bool,
    /// Room has been asked for and not been used.
    reserved: bool,
    /// The peer has ended its direction in order.
    ended: bool,
    /// What the peer had sent before it reset the stream.
    rest: Option<Rest>,
}

/// Bytes that arrived before a reset, and whether the peer had ended its direction by then.
struct Rest {
    bytes: VecDeque<Bytes>,
    reset: Option<h2::Error>,
}

impl Http2 {
    pub(in crate::hbone) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self {
            send,
            recv,
            sending: true,
            receiving: true,
            reserved: false,
            ended: false,
            rest: None,
        }
    }

    pub(super) fn id(&self) -> u64 {
        u64::from(self.recv.stream_id().as_u32())
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, TunnelError>> {
        if !self.receiving {
            return Poll::Ready(Ok(None));
        }
        let next = match &mut self.rest {
            Some(rest) => rest.next(),
            None => ready!(self.recv.poll_data(cx)),
        };
        Poll::Ready(match next {
            Some(Ok(bytes)) => Ok(Some(bytes)),
            None => {
                self.receiving = false;
                self.ended = true;
                Ok(None)
            }
            Some(Err(source)) => {
                self.receiving = false;
                match source.reason() {
                    Some(reason) if source.is_reset() && is_orderly(reason) => Ok(None),
                    _ => Err(source.into()),
                }
            }
        })
    }

    pub(super) fn release(&mut self, bytes: usize) {
        // Only fails for more than was received, or on a stream that is gone: nothing to credit.
        let _gone = self.recv.flow_control().release_capacity(bytes);
    }

    pub(super) fn poll_capacity(
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
                Some(Err(source)) => return Poll::Ready(Err(source.into())),
                // The stream is gone, and the reset tells why.
                None => {
                    ready!(self.poll_unwanted(cx))?;
                    return Poll::Ready(Ok(0));
                }
            }
        }
    }

    pub(super) fn unreserve(&mut self) {
        if self.reserved {
            self.reserved = false;
            self.send.reserve_capacity(0);
        }
    }

    pub(super) fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        let source = match ready!(self.send.poll_reset(cx)) {
            Ok(reason) if is_orderly(reason) || self.has_ended(cx, reason) => {
                self.sending = false;
                return Poll::Ready(Ok(()));
            }
            Ok(reason) => reason.into(),
            Err(source) => source,
        };
        Poll::Ready(Err(source.into()))
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

    pub(super) fn send(&mut self, bytes: Bytes) {
        let _gone = self.send.send_data(bytes, false);
    }

    pub(super) fn finish(&mut self) {
        if self.sending {
            self.sending = false;
            // On a stream that is gone the other direction tells.
            let _gone = self.send.send_data(Bytes::new(), true);
        }
    }

    pub(super) fn close(&mut self) {
        self.finish();
        self.receiving = false;
    }

    pub(super) fn abort(&mut self) {
        self.reset(Reason::CONNECT_ERROR);
    }

    pub(super) fn cancel(&mut self) {
        self.reset(Reason::CANCEL);
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
