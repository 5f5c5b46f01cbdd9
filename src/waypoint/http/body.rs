//! Answers' bodies on their way through: passed on frame by frame, counted, and told of at their end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::account::Account;
use super::deadline::Alarm;
use super::pool::Lease;
use super::quiet::{Active, Quiet, Silence};
use crate::hbone::Closer;

/// Where a response's body comes from.
enum Source {
    /// The waypoint itself.
    Local(Full<Bytes>),
    /// An endpoint, whose connection is given back at the end.
    Endpoint(Incoming, Option<Lease>, Silence),
}

/// Why an answer ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokenDownload {
    #[error("the endpoint broke off")]
    Endpoint(#[source] hyper::Error),
    #[error("the answer took too long")]
    Late,
    #[error("nothing has moved for too long")]
    Silent,
}

/// A response's body. Its end is the exchange's.
pub(super) struct Download {
    source: Source,
    /// When it must have ended.
    alarm: Alarm,
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
            alarm: Alarm::default(),
            account: Some(account),
            closer: None,
            _active: None,
        }
    }

    /// What an endpoint says on a connection that is lent, until the alarm goes off or nothing moves
    /// for too long.
    pub(super) fn endpoint(
        body: Incoming,
        lease: Lease,
        until: (Alarm, &Quiet),
        account: Account,
    ) -> Self {
        let (alarm, quiet) = until;
        quiet.moved();
        Self {
            source: Source::Endpoint(body, Some(lease), quiet.silence()),
            alarm,
            account: Some(account),
            closer: None,
            _active: None,
        }
    }

    /// Nothing: what comes after the head is no body.
    pub(super) fn switched() -> Self {
        Self {
            source: Source::Local(Full::default()),
            alarm: Alarm::default(),
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

    /// The silence that ends it, where nobody takes what there is of it.
    pub(super) fn silence(&self, limit: Duration) -> Silence {
        match &self.source {
            Source::Local(_) => Quiet::new(limit).silence(),
            Source::Endpoint(_, _, silence) => silence.again(),
        }
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

    fn broke(&mut self, error: &BrokenDownload) {
        let Some(account) = self.account.take() else {
            return;
        };
        match error {
            BrokenDownload::Endpoint(e) => account.broke(e),
            BrokenDownload::Silent => account.broke(error),
            BrokenDownload::Late => account.late(&error.to_string()),
        }
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenDownload>>> {
        match &mut self.source {
            Source::Local(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                polled.map(|frame| frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Source::Endpoint(body, _, silence) => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => {
                    silence.moved();
                    Poll::Ready(frame.map(|frame| frame.map_err(BrokenDownload::Endpoint)))
                }
                Poll::Pending => {
                    let silent = Pin::new(silence).poll(cx);
                    silent.map(|()| Some(Err(BrokenDownload::Silent)))
                }
            },
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BrokenDownload;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenDownload>>> {
        let polled = match self.poll_source(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => match Pin::new(&mut self.alarm).poll(cx) {
                Poll::Ready(()) => Some(Err(BrokenDownload::Late)),
                Poll::Pending => return Poll::Pending,
            },
        };
        match &polled {
            Some(Ok(frame)) => {
                if let Some(account) = &mut self.account {
                    account.sent(frame);
                }
            }
            Some(Err(e)) => self.broke(e),
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
            return self.end();
        }
        let silent = matches!(&self.source, Source::Endpoint(_, _, silence) if silence.is_over());
        if let Some(account) = self.account.take_if(|_| silent) {
            account.stalled();
        }
    }
}
