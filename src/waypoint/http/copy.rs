//! A copy of a request's body, for a mirror. It never holds up the original: one that is not taken as
//! fast is given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::upload::{BrokenUpload, Piece};
use crate::telemetry::Metrics;

/// Bytes, and frames, that a copy may be behind.
const BEHIND: (usize, usize) = (256 << 10, 256);

/// Where the original's frames are copied to.
pub(super) struct Copier {
    to: mpsc::Sender<Option<Piece>>,
    behind: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// The copy.
pub(super) struct Copied {
    from: mpsc::Receiver<Option<Piece>>,
    behind: Arc<AtomicUsize>,
}

/// A copy and where it comes from; `metrics` counts it if it is given up.
pub(super) fn copy(metrics: &Arc<Metrics>) -> (Copier, Copied) {
    // One place more, for its end.
    let (to, from) = mpsc::channel(BEHIND.1 + 1);
    let behind = Arc::<AtomicUsize>::default();
    let copier = Copier {
        to,
        behind: Arc::clone(&behind),
        metrics: Arc::clone(metrics),
    };
    (copier, Copied { from, behind })
}

impl Copier {
    /// Copies a frame. `false` says that nobody takes the copy, or not fast enough.
    pub(super) fn send(&self, frame: &Frame<Bytes>) -> bool {
        let Some(piece) = Piece::of(frame) else {
            return true;
        };
        let size = piece.size();
        let behind = self.behind.fetch_add(size, Ordering::Relaxed) + size;
        // A single frame may be larger than that.
        let room = (behind <= BEHIND.0 || behind == size) && self.to.capacity() > 1;
        if room && self.to.try_send(Some(piece)).is_ok() {
            return true;
        }
        if !self.to.is_closed() {
            self.metrics.mirror_dropped();
        }
        false
    }

    /// The original has come to its end.
    pub(super) fn finish(self) {
        // Nobody is there to hear it otherwise.
        let _gone = self.to.try_send(None);
    }
}

impl Copied {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        Poll::Ready(match ready!(self.from.poll_recv(cx)) {
            Some(Some(piece)) => {
                self.behind.fetch_sub(piece.size(), Ordering::Relaxed);
                Some(Ok(piece.frame()))
            }
            Some(None) => None,
            None => Some(Err(BrokenUpload::Copy)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn next(copied: &mut Copied) -> Option<Result<usize, BrokenUpload>> {
        let frame = poll_fn(|cx| copied.poll(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap().len()))
    }

    fn frame(size: usize) -> Frame<Bytes> {
        Frame::data(Bytes::from(vec![0; size]))
    }

    #[tokio::test]
    async fn a_copy_that_is_taken_is_whole() {
        let metrics = Arc::<Metrics>::default();
        let (copier, mut copied) = copy(&metrics);
        for _ in 0..100 {
            assert!(copier.send(&frame(100_000)));
            assert!(matches!(next(&mut copied).await, Some(Ok(100_000))));
        }
        copier.finish();
        assert!(next(&mut copied).await.is_none());
    }

    #[tokio::test]
    async fn a_copy_that_falls_behind_is_given_up() {
        for (name, size, fit) in [
            ("in bytes", 100_000, 2),
            ("in frames", 1, BEHIND.1),
            ("but not for one large frame", 1 << 20, 1),
        ] {
            let metrics = Arc::<Metrics>::default();
            let (copier, mut copied) = copy(&metrics);
            let sent = (0..1000).take_while(|_| copier.send(&frame(size))).count();
            assert_eq!(sent, fit, "{name}");
            drop(copier);
            for _ in 0..fit {
                assert!(matches!(next(&mut copied).await, Some(Ok(_))), "{name}");
            }
            let end = next(&mut copied).await;
            assert!(matches!(end, Some(Err(BrokenUpload::Copy))), "{name}");
            let text = metrics.render().unwrap();
            assert!(text.contains("lateen_mirrors_dropped_total 1"), "{text}");
        }
    }
}
