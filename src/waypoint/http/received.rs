//! A request's body as it comes, behind as much of it as was read before.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use super::upload::Piece;

/// A body of which the beginning may have been read.
pub(in crate::waypoint) struct Received {
    read: VecDeque<Piece>,
    rest: Incoming,
}

/// The beginning of a body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::waypoint) struct Beginning {
    /// At most as many octets as were asked for.
    pub(in crate::waypoint) bytes: Bytes,
    /// Whether that is all of it.
    pub(in crate::waypoint) whole: bool,
}

/// Why the beginning of a body is not to be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::waypoint) enum Unread {
    #[error("the client broke off")]
    Broken(#[source] hyper::Error),
    #[error("the client sends nothing for too long")]
    Silent,
}

impl Received {
    pub(super) fn new(rest: Incoming) -> Self {
        Self {
            read: VecDeque::new(),
            rest,
        }
    }

    /// The first octets of it, `most` of them if there are more. All of it still goes on.
    ///
    /// # Errors
    /// [`Unread`], where nothing comes for as long as `silence`, too.
    ///
    /// # Cancel safety
    /// Dropped, what has been read goes on all the same.
    pub(in crate::waypoint) async fn begin(
        &mut self,
        most: usize,
        silence: Duration,
    ) -> Result<Beginning, Unread> {
        let mut ended = self.rest.is_end_stream();
        // One octet more says that there are more.
        while !ended && self.size() <= most {
            let frame = timeout(silence, self.rest.frame()).await;
            let frame = frame.map_err(|_elapsed| Unread::Silent)?;
            match frame.transpose().map_err(Unread::Broken)? {
                Some(frame) => self.read.extend(Piece::of(&frame)),
                None => ended = true,
            }
            ended |= self.rest.is_end_stream();
        }
        let mut bytes = BytesMut::new();
        for data in self.data() {
            bytes.extend_from_slice(data);
        }
        let whole = ended && bytes.len() <= most;
        bytes.truncate(most);
        Ok(Beginning {
            bytes: bytes.freeze(),
            whole,
        })
    }

    fn data(&self) -> impl Iterator<Item = &Bytes> {
        self.read.iter().filter_map(|piece| match piece {
            Piece::Data(data) => Some(data),
            Piece::Trailers(_) => None,
        })
    }

    fn size(&self) -> usize {
        self.data().map(Bytes::len).sum()
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.read.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(piece.frame()))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.size() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        // A hint that would overflow is none.
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            hint.set_upper(upper);
        }
        hint
    }
}
