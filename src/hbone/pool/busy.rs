//! How much of its time a connection's task has been at work lately.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time over which the share is taken: long enough to see past a burst, short enough to matter to
/// the next connection of the program.
const WINDOW: Duration = Duration::from_millis(250);

/// The last full window's share, for others to read.
#[derive(Debug)]
pub(super) struct Share {
    begun: Instant,
    percent: AtomicU32,
    /// End of the window it is of, in ns since `begun`.
    at: AtomicU64,
}

impl Share {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            percent: AtomicU32::new(0),
            at: AtomicU64::new(0),
        }
    }

    /// Percent of the last window; 0 when that is long past, since a task with nothing to do does
    /// not measure either.
    pub(super) fn percent(&self, now: Instant) -> u32 {
        let at = self.begun + Duration::from_nanos(self.at.load(Ordering::Relaxed));
        if now.saturating_duration_since(at) > 2 * WINDOW {
            return 0;
        }
        self.percent.load(Ordering::Relaxed)
    }
}

/// Takes the measure, inside the task.
#[derive(Debug)]
pub(super) struct Meter {
    since: Instant,
    worked: Duration,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            worked: Duration::ZERO,
        }
    }

    /// Counts one stretch of work.
    pub(super) fn worked(&mut self, from: Instant, to: Instant, share: &Share) {
        self.worked += to.saturating_duration_since(from);
        let window = to.saturating_duration_since(self.since);
        if window < WINDOW {
            return;
        }
        let percent = 100 * self.worked.as_nanos() / window.as_nanos();
        let at = to.saturating_duration_since(share.begun).as_nanos();
        let percent = u32::try_from(percent).unwrap_or(u32::MAX);
        share.percent.store(percent, Ordering::Relaxed);
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
            ("nothing yet", vec![], 10, 0),
            ("before a full window", vec![(0, 100)], 100, 0),
            ("busy throughout", vec![(0, 250)], 250, 100),
            ("four fifths", vec![(0, 100), (150, 250)], 250, 80),
            ("a lull since", vec![(0, 250), (490, 500)], 500, 4),
            ("silent for long", vec![(0, 250)], 1000, 0),
        ] {
            let share = Share::new(start);
            let mut meter = Meter::new(start);
            for (from, to) in stretches {
                meter.worked(ms(from), ms(to), &share);
            }
            assert_eq!(share.percent(ms(asked)), want, "{name}");
        }
    }
}
