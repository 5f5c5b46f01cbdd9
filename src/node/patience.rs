//! How often, and for how long, a connection is tried again whose waypoint takes none: instances move
//! from one machine to another, and for a moment there may be nobody where there is about to be somebody.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Longest time, from the first refusal on; no program waits less for a connection.
const LONGEST: Duration = Duration::from_millis(1500);
/// Waits before the first and the second time, and so on; then the last of them.
const WAITS: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];
/// How often, however often the mesh changes meanwhile.
const MOST: usize = 12;
/// Connections of a node that wait so at one time. Further ones are reset at once: a waypoint that is
/// gone for good holds up no more than these.
const WAITING: usize = 1024;

/// Places for connections that wait.
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WAITING)))
    }
}

/// The patience of one connection.
#[derive(Default)]
pub(super) struct Patience {
    /// When it is at its end, and the place that is taken until then; none before it was asked for.
    begun: Option<(Instant, OwnedSemaphorePermit)>,
    tries: usize,
}

impl Patience {
    /// Waits before the next try, for as long as it takes or until `news` comes. False when it is at its
    /// end.
    ///
    /// # Cancel safety
    /// Dropping the future has counted a try.
    pub(super) async fn wait(&mut self, places: &Places, news: impl Future) -> bool {
        let until = match &self.begun {
            Some((until, _place)) => *until,
            None => {
                let Ok(place) = Arc::clone(&places.0).try_acquire_owned() else {
                    return false;
                };
                let until = Instant::now() + LONGEST;
                self.begun = Some((until, place));
                until
            }
        };
        let wait = WAITS.get(self.tries).or(WAITS.last());
        let wait = wait.copied().unwrap_or_default();
        self.tries += 1;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || self.tries > MOST {
            return false;
        }
        let _news_or_not = timeout(wait.min(left), news).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_has_an_end() {
        let places = Places::default();
        let (mut patience, began) = (Patience::default(), Instant::now());
        let mut waits = Vec::new();
        while patience.wait(&places, pending::<()>()).await {
            waits.push(began.elapsed().as_millis());
        }
        // A timer may be a millisecond late.
        let rounded: Vec<_> = waits.iter().map(|at| at / 10 * 10).collect();
        assert_eq!(rounded, [50, 150, 350, 750, 1150, 1500]);
    }

    #[tokio::test(start_paused = true)]
    async fn news_are_looked_at_at_once_and_not_for_ever() {
        let places = Places::default();
        let (mut patience, began) = (Patience::default(), Instant::now());
        let mut tries = 0;
        while patience.wait(&places, ready(())).await {
            tries += 1;
        }
        assert_eq!((tries, began.elapsed()), (MOST, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_bounded() {
        let places = Places(Arc::new(Semaphore::new(1)));
        let mut first = Patience::default();
        assert!(first.wait(&places, ready(())).await);
        let mut second = Patience::default();
        assert!(!second.wait(&places, ready(())).await, "nobody else may");
        assert!(
            first.wait(&places, ready(())).await,
            "who has begun goes on"
        );
        drop(first);
        assert!(second.wait(&places, ready(())).await);
    }
}
