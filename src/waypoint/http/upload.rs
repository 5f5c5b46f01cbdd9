//! A request's body on its way to an endpoint: passed on frame by frame, counted, and copied where
//! somebody else gets it too.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

use super::copy::{Copied, Copier};
use super::deadline::Whole;
use super::quiet::Quiet;
use super::received::Received;
use super::replay::Replay;

/// What an endpoint is sent.
pub(super) enum Upload {
    /// No body.
    Nothing,
    /// The client's, as it comes and only once.
    Once(Origin),
    /// The client's, which may have to be sent again.
    Again(Replay),
    /// A copy of the client's.
    Copy(Copied),
    /// The waypoint's own; empty once it was taken.
    Whole(Bytes),
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokenUpload {
    #[error("the client broke off")]
    Client(#[source] hyper::Error),
    #[error("another attempt has taken its place")]
    Superseded,
    #[error("the copy was given up")]
    Copy,
}

/// One frame, to be had more than once.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// The body as the client sends it.
pub(super) struct Origin {
    inner: Received,
    count: Arc<AtomicU64>,
    copies: Vec<Copier>,
    /// Held until all of it is here.
    whole: Option<Whole>,
    /// Is told of all that moves.
    quiet: Option<Quiet>,
}

impl Origin {
    /// Counts the bytes of `inner` as they pass, and gives each of `copies` one.
    pub(super) fn new(
        inner: Received,
        count: Arc<AtomicU64>,
        copies: Vec<Copier>,
        whole: Option<Whole>,
    ) -> Self {
        let mut origin = Self {
            inner,
            count,
            copies,
            whole,
            quiet: None,
        };
        if origin.inner.is_end_stream() {
            origin.end();
        }
        origin
    }

    /// The same, and `quiet` is told of all that moves.
    pub(super) fn heard_by(mut self, quiet: Quiet) -> Self {
        if self.is_end_stream() {
            quiet.asked();
        }
        self.quiet = Some(quiet);
        self
    }

    fn end(&mut self) {
        if let Some(quiet) = &self.quiet {
            quiet.asked();
        }
        for copy in self.copies.drain(..) {
            copy.finish();
        }
        self.whole = None;
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(quiet) = &self.quiet {
            quiet.moved();
        }
        match &polled {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.count.fetch_add(bytes, Ordering::Relaxed);
                self.copies.retain(|copy| copy.send(frame));
                if self.inner.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(_)) => {
                self.copies.clear();
                self.whole = None;
            }
            None => self.end(),
        }
        Poll::Ready(polled.map(|frame| frame.map_err(BrokenUpload::Client)))
    }
}

impl Piece {
    pub(super) fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let data = frame.data_ref().map(|data| Self::Data(data.clone()));
        data.or_else(|| frame.trailers_ref().map(|t| Self::Trailers(t.clone())))
    }

    pub(super) fn frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }

    /// Bytes it takes, roughly where it is trailers.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => trailers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum(),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BrokenUpload;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        match &mut *self {
            Self::Nothing => Poll::Ready(None),
            Self::Once(origin) => origin.poll(cx),
            Self::Again(replay) => replay.poll(cx),
            Self::Copy(copied) => copied.poll(cx),
            Self::Whole(bytes) => {
                let whole = std::mem::take(bytes);
                Poll::Ready((!whole.is_empty()).then(|| Ok(Frame::data(whole))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Once(origin) => origin.is_end_stream(),
            Self::Again(replay) => replay.is_end_stream(),
            Self::Copy(_) => false,
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Once(origin) => origin.inner.size_hint(),
            Self::Again(_) | Self::Copy(_) => SizeHint::default(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
