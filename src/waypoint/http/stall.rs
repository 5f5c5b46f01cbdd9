//! Ends a stream of HTTP/2 whose client takes nothing of its answer for too long (`spec/waypoint-l7.md`
//! §1.5). hyper asks for no more of the answer then, so that the answer itself cannot notice; of
//! HTTP/1 [`super::front`] sees it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use super::quiet::Silence;

tokio::task_local! {
    /// The stream that is driven.
    static STREAM: Watch;
}

/// When a stream is to end; never until something is watched.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Option<Silence>>>);

impl Watch {
    fn set(&self, silence: Silence) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(silence);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut silence = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match silence.as_mut() {
            Some(silence) => Pin::new(silence).poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Has the stream on which this is called end with this silence.
pub(super) fn watch(silence: Silence) {
    // Called on no stream, it is of HTTP/1.
    let _watched = STREAM.try_with(|stream| stream.set(silence));
}

/// Drives a stream to its end, or until what it watches is over.
pub(super) async fn drive(stream: impl Future) {
    let watch = Watch::default();
    let watched = watch.clone();
    let stream = STREAM.scope(watch, stream);
    tokio::select! {
        // First, so that what it begins to watch is polled in the same turn.
        biased;
        _end = stream => {}
        () = poll_fn(|cx| watched.poll(cx)) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::super::quiet::Quiet;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_what_it_watches() {
        let second = Duration::from_secs(1);
        for (name, moves, want) in [("still", 0, 5), ("moves for a while", 8, 12)] {
            let (began, quiet) = (Instant::now(), Quiet::new(5 * second));
            drive(async {
                watch(quiet.silence());
                for _ in 0..moves {
                    sleep(second).await;
                    quiet.moved();
                }
                pending::<()>().await;
            })
            .await;
            let took = began.elapsed().as_secs();
            assert!((want..=want + 1).contains(&took), "{name}: {took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_watches_nothing_ends_by_itself() {
        let hour = Duration::from_secs(3600);
        let began = Instant::now();
        drive(sleep(hour)).await;
        assert!(began.elapsed() >= hour);
    }
}
