//! The time a bench is measured in.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Time of the processor for what only computes: other programs may take the processor away from
/// a bench without being counted against it. Time of the wall for what waits.
#[derive(Clone, Copy)]
pub(crate) enum Clock {
    /// What this thread has been given.
    Processor,
    /// What passes for everybody.
    Wall,
}

/// Either clock counts in nanoseconds, which criterion knows how to write.
static WALL: WallTime = WallTime;

impl Clock {
    fn now(self) -> Duration {
        let now = clock_gettime(match self {
            Self::Processor => ClockId::ThreadCPUTime,
            Self::Wall => ClockId::Monotonic,
        });
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
        Duration::new(seconds, nanoseconds)
    }
}

impl Measurement for Clock {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        self.now()
    }

    fn end(&self, begun: Duration) -> Duration {
        self.now().saturating_sub(begun)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WALL.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WALL.formatter()
    }
}
