//! How long nothing has happened: on a connection, which then is closed, and in a request, which
//! then is given up (`spec/waypoint-l7.md` §1.5).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Requests under way on one connection.
#[derive(Debug)]
pub(super) struct Busy(watch::Sender<usize>);

/// One of them.
#[derive(Debug)]
pub(super) struct Active(watch::Sender<usize>);

impl Default for Busy {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Busy {
    /// Another request is under way, until its token is dropped.
    pub(super) fn begin(&self) -> Active {
        self.0.send_modify(|count| *count += 1);
        Active(self.0.clone())
    }

    /// Returns once nothing has been under way for `time`.
    pub(super) async fn idle(&self, time: Duration) {
        let mut count = self.0.subscribe();
        loop {
            let idle = *count.borrow_and_update() == 0;
            let patience = match idle {
                true => time,
                false => Duration::MAX,
            };
            // It does not fail: the sender is here.
            if timeout(patience, count.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// When something of a request or its answer was last moved.
#[derive(Clone, Debug)]
pub(super) struct Quiet(Arc<Moved>);

#[derive(Debug)]
struct Moved {
    begun: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
    /// The request has come as a whole.
    asked: AtomicBool,
    limit: Duration,
}

/// Waits until nothing has moved for too long.
#[derive(Debug)]
pub(super) struct Silence {
    quiet: Quiet,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Quiet {
    /// Begins now, and ends after `limit` without anything moved.
    pub(super) fn new(limit: Duration) -> Self {
        Self(Arc::new(Moved {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            limit,
        }))
    }

    /// Something has moved.
    pub(super) fn moved(&self) {
        let since = self.0.begun.elapsed().as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.0.last.store(since, Ordering::Relaxed);
    }

    /// The request has come as a whole.
    pub(super) fn asked(&self) {
        self.0.asked.store(true, Ordering::Relaxed);
    }

    /// Whether the request has come as a whole.
    pub(super) fn has_asked(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// What waits for its end.
    pub(super) fn silence(&self) -> Silence {
        Silence {
            quiet: self.clone(),
            sleep: None,
        }
    }

    fn until(&self) -> Instant {
        let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
        self.0.begun + last + self.0.limit
    }
}

impl Silence {
    /// The same silence, for somebody else to wait for.
    pub(super) fn again(&self) -> Self {
        self.quiet.silence()
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        self.quiet.until() <= Instant::now()
    }

    /// Something has moved.
    pub(super) fn moved(&self) {
        self.quiet.moved();
    }
}

impl Future for Silence {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let until = self.quiet.until();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(left)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Something may have moved meanwhile.
            sleep.as_mut().reset(until);
            if until <= Instant::now() {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_from_the_end_of_its_last_request() {
        let busy = Busy::default();
        let (one, two) = (busy.begin(), busy.begin());
        drop(one);
        assert!(
            timeout(2 * LIMIT, busy.idle(LIMIT)).await.is_err(),
            "one is left"
        );
        let idle = busy.idle(LIMIT);
        tokio::pin!(idle);
        assert!(timeout(LIMIT, &mut idle).await.is_err());
        drop(two);
        assert!(
            timeout(LIMIT - Duration::from_secs(1), &mut idle)
                .await
                .is_err()
        );
        // However short it was.
        drop(busy.begin());
        assert!(
            timeout(LIMIT - Duration::from_secs(1), &mut idle)
                .await
                .is_err()
        );
        assert!(timeout(Duration::from_secs(2), idle).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_silent_from_its_last_byte() {
        let quiet = Quiet::new(LIMIT);
        let silence = quiet.silence();
        tokio::pin!(silence);
        for _ in 0..3 {
            assert!(
                timeout(LIMIT - Duration::from_secs(1), &mut silence)
                    .await
                    .is_err()
            );
            quiet.moved();
        }
        assert!(
            timeout(LIMIT + Duration::from_secs(1), &mut silence)
                .await
                .is_ok()
        );
    }
}
