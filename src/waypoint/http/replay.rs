//! A request's body that may have to be sent again: what has passed is kept while it is small
//! (`spec/waypoint-l7.md` §2.7).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Frame;

use super::upload::{BrokenUpload, Origin, Piece, Upload};

/// Bytes kept of one body. A longer one is not sent again.
const LIMIT: usize = 1 << 20;

/// Has a body sent, as often as it takes; as long as this is there, what passes is kept.
pub(super) struct Tape {
    kept: Arc<Mutex<Kept>>,
}

/// The body as one attempt sends it.
pub(super) struct Replay {
    kept: Arc<Mutex<Kept>>,
    turn: u32,
}

struct Kept {
    origin: Origin,
    /// What has passed.
    pieces: VecDeque<Piece>,
    size: usize,
    /// How many of them the attempt whose turn it is has sent.
    at: usize,
    /// The one attempt that may read on: those before it are over, whether they know it or not.
    turn: u32,
    /// Whether what passes is still kept. What has been sent of it is let go otherwise.
    keeping: bool,
    ended: bool,
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tape {
    pub(super) fn new(origin: Origin) -> Self {
        let kept = Kept {
            origin,
            pieces: VecDeque::new(),
            size: 0,
            at: 0,
            turn: 0,
            keeping: true,
            ended: false,
        };
        Self {
            kept: Arc::new(Mutex::new(kept)),
        }
    }

    /// The body from its beginning, for the next attempt; none if part of it is gone.
    pub(super) fn play(&self) -> Option<Upload> {
        let mut kept = lock(&self.kept);
        if !kept.keeping {
            return None;
        }
        kept.at = 0;
        kept.turn += 1;
        Some(Upload::Again(Replay {
            kept: Arc::clone(&self.kept),
            turn: kept.turn,
        }))
    }
}

impl Drop for Tape {
    /// It will not be sent again: nothing more is kept.
    fn drop(&mut self) {
        lock(&self.kept).forget();
    }
}

impl Replay {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        let mut kept = lock(&self.kept);
        match kept.turn == self.turn {
            true => kept.poll(cx),
            false => Poll::Ready(Some(Err(BrokenUpload::Superseded))),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let kept = lock(&self.kept);
        let over = kept.ended || kept.origin.is_end_stream();
        over && kept.at >= kept.pieces.len()
    }
}

impl Kept {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        if let Some(piece) = self.again() {
            return Poll::Ready(Some(Ok(piece.frame())));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(self.origin.poll(cx));
        match &polled {
            Some(Ok(frame)) => self.keep(frame),
            Some(Err(_)) => self.forget(),
            None => self.ended = true,
        }
        Poll::Ready(polled)
    }

    /// What has passed before, and is to be sent again.
    fn again(&mut self) -> Option<Piece> {
        if !self.keeping {
            return self.pieces.pop_front();
        }
        let piece = self.pieces.get(self.at)?.clone();
        self.at += 1;
        Some(piece)
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let piece = Piece::of(frame).filter(|_| self.keeping);
        let Some(piece) = piece else {
            return;
        };
        self.size += piece.size();
        if self.size > LIMIT {
            return self.forget();
        }
        self.pieces.push_back(piece);
        self.at += 1;
    }

    fn forget(&mut self) {
        if self.keeping {
            self.pieces.drain(..self.at.min(self.pieces.len()));
            self.at = 0;
            self.keeping = false;
        }
    }
}
