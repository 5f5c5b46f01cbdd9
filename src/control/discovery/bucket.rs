//! How fast new streams are let in.
//!
//! A stock proxy has no jitter: after a restart every node of the mesh is back in the same
//! millisecond. Those in excess wait up to a second, then are told to come back.

use std::time::{Duration, Instant};

/// Longest wait of a new stream.
const PATIENCE: Duration = Duration::from_secs(1);

/// A token bucket that holds one second's worth, and lends one more.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    tokens: f64,
    filled_at: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            tokens: per_second,
            filled_at: None,
        }
    }

    /// Takes a token: how long to wait before using it, or none when that would be too long.
    pub(super) fn take(&mut self, now: Instant) -> Option<Duration> {
        let since = self
            .filled_at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let filled = self.tokens + since.as_secs_f64() * self.per_second;
        self.tokens = filled.min(self.per_second);
        self.filled_at = Some(now);
        let after = self.tokens - 1.0;
        let wait = Duration::from_secs_f64((-after / self.per_second).max(0.0));
        (wait <= PATIENCE).then(|| {
            self.tokens = after;
            wait
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_a_burst_in_then_delays_then_refuses() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10);
        let waits: Vec<_> = (0..21).map(|_| bucket.take(start)).collect();
        assert!(waits[..10].iter().all(|w| *w == Some(Duration::ZERO)));
        assert_eq!(waits[10], Some(Duration::from_millis(100)));
        assert_eq!(waits[19], Some(Duration::from_secs(1)));
        assert_eq!(waits[20], None);
        let later = start + Duration::from_secs(2);
        assert_eq!(bucket.take(later), Some(Duration::ZERO));
        assert!(
            bucket.take(start).is_some(),
            "a clock that steps back is no time at all"
        );
    }
}
