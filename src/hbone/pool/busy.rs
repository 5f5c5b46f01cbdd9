//! How much of its time a connection's task has been at work lately, and how much it has moved.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time over which the share is taken: long enough to see past a burst, short enough to matter to
/// the next connection of the program.
const WINDOW: Duration = Duration::from_millis(100);

/// The last full window's share, for others to read.
#[derive(Debug)]
pub(super) struct Share {
    begun: Instant,
    percent: AtomicU32,
    /// Bytes per second.
    rate: AtomicU64,
    /// End of the window it is of, in ns since `begun`.
    at: AtomicU64,
}

impl Share {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            percent: AtomicU32::new(0),
            rate: AtomicU64::new(0),
            at: AtomicU64::new(0),
        }
    }

    /// Percent of the last window; 0 when that is long past, since a task with nothing to do does
    /// not measure either.
    pub(super) fn percent(&self, now: Instant) -> u32 {
        if self.is_past(now) {
            return 0;
        }
        self.percent.load(Ordering::Relaxed)
    }

    /// Bytes per second of the last window; 0 when that is long past.
    pub(super) fn rate(&self, now: Instant) -> u64 {
        if self.is_past(now) {
            return 0;
        }
        self.rate.load(Ordering::Relaxed)
    }

    fn is_past(&self, now: Instant) -> bool {
        let at = self.begun + Duration::from_nanos(self.at.load(Ordering::Relaxed));
        now.saturating_duration_since(at) > 2 * WINDOW
    }
}

/// Takes the measure, inside the task.
#[derive(Debug)]
pub(super) struct Meter {
    since: Instant,
    worked: Duration,
    moved: u64,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            worked: Duration::ZERO,
            moved: 0,
        }
    }

    /// Counts one stretch of work, and the bytes it moved.
    pub(super) fn worked(&mut self, from: Instant, to: Instant, moved: usize, share: &Share) {
        self.worked += to.saturating_duration_since(from);
        self.moved += moved as u64;
        let window = to.saturating_duration_since(self.since);
        if window < WINDOW {
            return;
        }
        let percent = 100 * self.worked.as_nanos() / window.as_nanos();
        let at = to.saturating_duration_since(share.begun).as_nanos();
        let percent = u32::try_from(percent).unwrap_or(u32::MAX);
        share.percent.store(percent, Ordering::Relaxed);
        let rate = u128::from(self.moved) * 1_000_000_000 / window.as_nanos();
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        share.rate.store(rate, Ordering::Relaxed);
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        share.at.store(at, Ordering::Relaxed);
        *self = Self::new(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_last_window() {
        let start = Instant::now();
        let ms = |n| start + Duration::from_millis(n);
        for (name, stretches, asked, want) in [
            ("nothing yet", vec![], 10, (0, 0)),
            ("before a full window", vec![(0, 40)], 40, (0, 0)),
            ("busy throughout", vec![(0, 100)], 100, (100, 10_000)),
            ("four fifths", vec![(0, 40), (60, 100)], 100, (80, 20_000)),
            ("a lull since", vec![(0, 100), (196, 200)], 200, (4, 10_000)),
            ("silent for long", vec![(0, 100)], 400, (0, 0)),
        ] {
            let share = Share::new(start);
            let mut meter = Meter::new(start);
            for (from, to) in stretches {
                meter.worked(ms(from), ms(to), 1000, &share);
            }
            let asked = ms(asked);
            assert_eq!((share.percent(asked), share.rate(asked)), want, "{name}");
        }
    }
}
