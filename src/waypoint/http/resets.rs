//! Requests that a client takes back before they are answered: each costs it a frame, and the mesh an
//! attempt. A client that does so too often is told to go (`spec/waypoint-l7.md` §1.5).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// So many in a second are too many.
const MOST: u32 = 200;
const SECOND: Duration = Duration::from_secs(1);

/// Requests of one connection that were taken back.
#[derive(Clone, Debug, Default)]
pub(super) struct Resets(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// When the second began, and how many there were since.
    second: Mutex<Option<(Instant, u32)>>,
    flooded: CancellationToken,
}

/// A request that is not answered yet. Dropped, it counts as taken back.
#[derive(Debug)]
pub(super) struct Unanswered(Option<Resets>);

impl Resets {
    /// Another request has come.
    pub(super) fn begin(&self) -> Unanswered {
        Unanswered(Some(self.clone()))
    }

    /// Returns once there were too many.
    pub(super) async fn flooded(&self) {
        self.0.flooded.cancelled().await;
    }

    fn count(&self, now: Instant) {
        let mut second = self.0.second.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = second.filter(|(begun, _)| now.duration_since(*begun) < SECOND);
        let (begun, count) = under_way.map_or((now, 1), |(begun, count)| (begun, count + 1));
        *second = Some((begun, count));
        if count >= MOST {
            self.0.flooded.cancel();
        }
    }
}

impl Unanswered {
    /// It is answered now.
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(resets) = self.0.take() {
            resets.count(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_in_a_second_are_too_many() {
        let start = Instant::now();
        for (name, apart, want) in [
            ("at once", Duration::ZERO, true),
            ("in less than a second", Duration::from_millis(4), true),
            ("in more", Duration::from_millis(6), false),
        ] {
            let resets = Resets::default();
            for n in 0..MOST {
                assert!(!resets.0.flooded.is_cancelled(), "{name}: {n}");
                resets.count(start + apart * n);
            }
            assert_eq!(resets.0.flooded.is_cancelled(), want, "{name}");
        }
    }
}
