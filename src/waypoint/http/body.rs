//! Bodies on their way through: passed on frame by frame, counted, and told of at their end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::account::Account;
use super::pool::Lease;
use super::quiet::{Active, Quiet, Silence};
use crate::hbone::Closer;

/// A request's body.
pub(super) struct Upload {
    inner: Incoming,
    count: Arc<AtomicU64>,
    quiet: Quiet,
}

impl Upload {
    /// Counts the bytes of `inner` as they pass, and tells `quiet` of them.
    pub(super) fn new(inner: Incoming, count: Arc<AtomicU64>, quiet: Quiet) -> Self {
        if inner.is_end_stream() {
            quiet.asked();
        }
        Self {
            inner,
            count,
            quiet,
        }
    }
}

fn bytes(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &polled {
            self.count.fetch_add(bytes(frame), Ordering::Relaxed);
        }
        self.quiet.moved();
        if self.inner.is_end_stream() || polled.is_none() {
            self.quiet.asked();
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Where a response's body comes from.
enum Source {
    /// The waypoint itself.
    Local(Full<Bytes>),
    /// An endpoint, whose connection is given back at the end.
    Endpoint(Incoming, Option<Lease>, Silence),
}

/// Why a response's body broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Endpoint(#[from] hyper::Error),
    #[error("nothing has moved for too long")]
    Silent,
}

/// A response's body. Its end is the exchange's.
pub(super) struct Download {
    source: Source,
    account: Option<Account>,
    /// Says that all of it was written.
    closer: Option<Closer>,
    _active: Option<Active>,
}

impl Download {
    /// What the waypoint says itself.
    pub(super) fn local(text: Bytes, account: Account) -> Self {
        Self {
            source: Source::Local(Full::new(text)),
            account: Some(account),
            closer: None,
            _active: None,
        }
    }

    /// What an endpoint says on a connection that is lent.
    pub(super) fn endpoint(
        body: Incoming,
        lease: Option<Lease>,
        account: Account,
        quiet: &Quiet,
    ) -> Self {
        quiet.moved();
        Self {
            source: Source::Endpoint(body, lease, quiet.silence()),
            account: Some(account),
            closer: None,
            _active: None,
        }
    }

    /// Nothing: what comes after the head is no body.
    pub(super) fn switched() -> Self {
        Self {
            source: Source::Local(Full::default()),
            account: None,
            closer: None,
            _active: None,
        }
    }

    /// The same, its connection taken up until it ends.
    pub(super) fn under(mut self, active: Active) -> Self {
        self._active = Some(active);
        self
    }

    /// The same, and once it is whole its connection may end in order.
    pub(super) fn closing(mut self, closer: Closer) -> Self {
        self.closer = Some(closer);
        self
    }

    fn end(&mut self) {
        if let Source::Endpoint(_, lease, _) = &mut self.source
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
        if let Some(account) = self.account.take() {
            account.complete();
        }
        if let Some(closer) = self.closer.take() {
            closer.in_order();
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.source {
            Source::Local(body) => {
                let polled = ready!(Pin::new(body).poll_frame(cx));
                polled.map(|frame| frame.map_err(|never| match never {}))
            }
            Source::Endpoint(body, _, silence) => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(polled) => {
                    silence.moved();
                    polled.map(|frame| frame.map_err(BodyError::Endpoint))
                }
                Poll::Pending => {
                    ready!(Pin::new(silence).poll(cx));
                    Some(Err(BodyError::Silent))
                }
            },
        };
        match &polled {
            Some(Ok(frame)) => {
                if let Some(account) = &mut self.account {
                    account.sent(frame);
                }
            }
            Some(Err(e)) => {
                if let Some(account) = self.account.take() {
                    account.broke(e);
                }
            }
            None => self.end(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Local(body) => body.is_end_stream(),
            Source::Endpoint(body, ..) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Local(body) => body.size_hint(),
            Source::Endpoint(body, ..) => body.size_hint(),
        }
    }
}

impl Drop for Download {
    /// A body known to be over is not asked for more; any other was given up by the client.
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.end();
        }
    }
}
