//! What time it is, on machines whose clock may be far behind after a boot: edge boxes without a
//! battery begin in 1970 and would refuse the whole mesh. It is never earlier than what this machine
//! has proof of (`spec/control-plane.md` §6.7). That can only make certificates older, never younger.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970 that have passed for certain.
static FLOOR: AtomicU64 = AtomicU64::new(0);

/// The system's time, or the latest there is proof of.
pub fn now() -> SystemTime {
    later(SystemTime::now(), FLOOR.load(Ordering::Relaxed))
}

/// There is proof that it is at least this time.
pub fn at_least(time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    FLOOR.fetch_max(since.as_secs(), Ordering::Relaxed);
}

/// How far the system's clock is behind what there is proof of; `None` when it is not.
pub fn behind() -> Option<Duration> {
    now()
        .duration_since(SystemTime::now())
        .ok()
        .filter(|by| *by > Duration::from_secs(1))
}

/// A moment in seconds since 1970; 0 before that.
pub fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// A moment in milliseconds since 1970, as messages carry it; 0 before that.
pub fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn later(system: SystemTime, floor: u64) -> SystemTime {
    system.max(UNIX_EPOCH + Duration::from_secs(floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_never_before_what_is_proven() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (name, system, floor, want) in [
            ("a good clock", 2_000, 1_000, 2_000),
            ("a clock that began anew", 5, 1_000, 1_000),
            ("nothing is proven", 5, 0, 5),
        ] {
            assert_eq!(later(at(system), floor), at(want), "{name}");
        }
    }

    #[test]
    fn proof_of_the_past_changes_nothing() {
        at_least(UNIX_EPOCH + Duration::from_secs(1));
        assert!(behind().is_none());
    }
}
