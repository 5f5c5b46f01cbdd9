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

/// A request's body.
pub(super) struct Upload {
    inner: Incoming,
    count: Arc<AtomicU64>,
}

impl Upload {
    /// Counts the bytes of `inner` as they pass.
    pub(super) fn new(inner: Incoming, count: Arc<AtomicU64>) -> Self {
        Self { inner, count }
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
    Endpoint(Incoming, Option<Lease>),
}

/// A response's body. Its end is the exchange's.
pub(super) struct Download {
    source: Source,
    account: Option<Account>,
}

impl Download {
    /// What the waypoint says itself.
    pub(super) fn local(text: Bytes, account: Account) -> Self {
        Self {
            source: Source::Local(Full::new(text)),
            account: Some(account),
        }
    }

    /// What an endpoint says on a connection that is lent.
    pub(super) fn endpoint(body: Incoming, lease: Option<Lease>, account: Account) -> Self {
        Self {
            source: Source::Endpoint(body, lease),
            account: Some(account),
        }
    }

    /// Nothing: what comes after the head is no body.
    pub(super) fn switched() -> Self {
        Self {
            source: Source::Local(Full::default()),
            account: None,
        }
    }

    fn end(&mut self) {
        if let Source::Endpoint(_, lease) = &mut self.source
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
        if let Some(account) = self.account.take() {
            account.complete();
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = match &mut self.source {
            Source::Local(body) => {
                let polled = ready!(Pin::new(body).poll_frame(cx));
                polled.map(|frame| frame.map_err(|never| match never {}))
            }
            Source::Endpoint(body, _) => ready!(Pin::new(body).poll_frame(cx)),
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
            Source::Endpoint(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Local(body) => body.size_hint(),
            Source::Endpoint(body, _) => body.size_hint(),
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
