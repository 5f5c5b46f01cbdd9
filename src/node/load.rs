//! How much each data plane thread has to do, and who gets the next connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time over which a thread's busy share is taken: long enough to see past a burst, short enough to
/// matter to the next connection of the program.
const WINDOW: Duration = Duration::from_millis(20);

/// What a connection is, to those who weigh threads by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program's, or a plain one for a program: often short, and soon followed by others.
    Program,
    /// A peer's tunnel connection, which stays and will carry more than can be known now.
    Tunnel,
}

/// One thread's load, counted by whoever deals it connections.
#[derive(Debug, Default)]
pub(super) struct Load {
    programs: AtomicUsize,
    tunnels: AtomicUsize,
    share: Mutex<Option<Share>>,
}

/// How much of the last full window a thread was at work.
#[derive(Clone, Copy, Debug)]
struct Share {
    at: Instant,
    busy: Duration,
    quarters: u32,
}

/// A connection's part of a load, until dropped.
#[derive(Debug)]
pub(super) struct Counted {
    load: Arc<Load>,
    kind: Kind,
}

impl Load {
    /// Counts a connection.
    pub(super) fn count(self: &Arc<Self>, kind: Kind) -> Counted {
        self.of(kind).fetch_add(1, Ordering::Relaxed);
        Counted {
            load: Arc::clone(self),
            kind,
        }
    }

    /// What to compare threads by. `busy` is how long the thread has been at work since it began.
    pub(super) fn weight(&self, kind: Kind, now: Instant, busy: Duration) -> Weight {
        let quarters = self.quarters(now, busy);
        let programs = self.programs.load(Ordering::Relaxed);
        let tunnels = self.tunnels.load(Ordering::Relaxed);
        match kind {
            // Whatever waits behind a stream's bytes is felt at once.
            Kind::Program => Weight([quarters as usize, programs, tunnels]),
            Kind::Tunnel => Weight([tunnels, quarters as usize, programs]),
        }
    }

    fn quarters(&self, now: Instant, busy: Duration) -> u32 {
        let mut share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *share.get_or_insert(Share {
            at: now,
            busy,
            quarters: 0,
        });
        let window = now.saturating_duration_since(before.at);
        if window < WINDOW {
            return before.quarters;
        }
        let worked = busy.saturating_sub(before.busy);
        let quarters = worked.as_nanos() * 4 / window.as_nanos();
        let quarters = u32::try_from(quarters).unwrap_or(u32::MAX);
        *share = Some(Share {
            at: now,
            busy,
            quarters,
        });
        quarters
    }

    fn of(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Program => &self.programs,
            Kind::Tunnel => &self.tunnels,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.of(self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight([usize; 3]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_go_where_there_is_time_and_tunnels_where_there_are_few() {
        let start = Instant::now();
        let later = start + WINDOW;
        for (name, busy, programs, tunnels, program_to, tunnel_to) in [
            ("alike", [0, 0], [0, 0], [0, 0], 0, 0),
            ("fewer programs", [0, 0], [2, 1], [0, 0], 1, 1),
            ("fewer tunnels", [0, 0], [0, 0], [1, 0], 1, 1),
            ("a stream on the first", [80, 10], [1, 5], [0, 0], 1, 1),
            (
                "much on the first, a tunnel on the second",
                [80, 10],
                [9, 0],
                [0, 1],
                1,
                0,
            ),
            ("both have much to do", [90, 99], [5, 4], [2, 2], 1, 1),
        ] {
            let weights = |kind| {
                [0, 1].map(|i: usize| {
                    let load = Arc::new(Load::default());
                    let many = |kind, n| (0..n).map(|_| load.count(kind)).collect::<Vec<_>>();
                    let held = (
                        many(Kind::Program, programs[i]),
                        many(Kind::Tunnel, tunnels[i]),
                    );
                    load.weight(kind, start, Duration::ZERO);
                    let weight = load.weight(kind, later, WINDOW * busy[i] / 100);
                    drop(held);
                    weight
                })
            };
            let least = |[first, second]: [Weight; 2]| usize::from(second < first);
            assert_eq!(least(weights(Kind::Program)), program_to, "{name}, program");
            assert_eq!(least(weights(Kind::Tunnel)), tunnel_to, "{name}, tunnel");
        }
    }

    #[test]
    fn what_is_closed_counts_no_more() {
        let load = Arc::new(Load::default());
        let now = Instant::now();
        let empty = load.weight(Kind::Program, now, Duration::ZERO);
        let counted = load.count(Kind::Program);
        assert!(load.weight(Kind::Program, now, Duration::ZERO) > empty);
        drop(counted);
        assert_eq!(load.weight(Kind::Program, now, Duration::ZERO), empty);
    }
}
