//! How much each data plane thread has to do, and who gets the next connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    asleep: Mutex<Option<Instant>>,
}

/// How much of the last full window a thread was at work.
#[derive(Clone, Copy, Debug)]
struct Share {
    at: Instant,
    busy: Duration,
    quarters: usize,
    /// Programs there were at its end.
    programs: usize,
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
        let programs = self.programs.load(Ordering::Relaxed);
        let tunnels = self.tunnels.load(Ordering::Relaxed);
        let share = self.share(now, busy, programs);
        // Of those that have come since nobody knows yet what they will want: enough that the next
        // one goes elsewhere.
        let busy = share.quarters + programs.saturating_sub(share.programs);
        match kind {
            // Whatever waits behind a stream's bytes is felt at once.
            Kind::Program => Weight([busy, programs, tunnels]),
            Kind::Tunnel => Weight([tunnels, busy, programs]),
        }
    }

    /// The thread has nothing to do.
    pub(super) fn sleeps(&self, now: Instant) {
        *lock(&self.asleep) = Some(now);
    }

    /// The thread has something to do again.
    pub(super) fn wakes(&self, now: Instant) {
        self.forget(lock(&self.asleep).take(), now);
    }

    /// What a thread did before it slept for a window says nothing of what it has to do now.
    fn forget(&self, asleep: Option<Instant>, now: Instant) {
        if asleep.is_some_and(|since| now.saturating_duration_since(since) >= WINDOW) {
            *lock(&self.share) = None;
        }
    }

    fn share(&self, now: Instant, busy: Duration, programs: usize) -> Share {
        let asleep = *lock(&self.asleep);
        self.forget(asleep, now);
        let mut share = lock(&self.share);
        let fresh = Share {
            at: now,
            busy,
            quarters: 0,
            programs,
        };
        let before = *share.get_or_insert(fresh);
        let window = now.saturating_duration_since(before.at);
        if window < WINDOW {
            return before;
        }
        let worked = busy.saturating_sub(before.busy);
        let quarters = worked.as_nanos() * 4 / window.as_nanos();
        let quarters = usize::try_from(quarters).unwrap_or(usize::MAX);
        *share.insert(Share { quarters, ..fresh })
    }

    fn of(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Program => &self.programs,
            Kind::Tunnel => &self.tunnels,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn what_was_before_a_sleep_counts_no_more() {
        let start = Instant::now();
        let ms = |n| start + Duration::from_millis(n);
        for (name, slept, woken, asked, want) in [
            ("at work", None, None, 30, 3),
            ("asleep for a moment", Some(25), None, 30, 3),
            ("asleep for long", Some(25), None, 45, 0),
            ("woken after a moment", Some(25), Some(30), 30, 3),
            ("woken after long", Some(25), Some(45), 45, 0),
        ] {
            let load = Load::default();
            load.weight(Kind::Program, start, Duration::ZERO);
            if let Some(slept) = slept {
                load.sleeps(ms(slept));
            }
            if let Some(woken) = woken {
                load.wakes(ms(woken));
            }
            let busy = Duration::from_millis(asked * 3 / 4 + 1);
            let weight = load.weight(Kind::Program, ms(asked), busy);
            assert_eq!(weight, Weight([want, 0, 0]), "{name}");
        }
    }

    #[test]
    fn those_that_come_at_once_are_spread() {
        let start = Instant::now();
        let later = start + WINDOW;
        let loads = [Arc::new(Load::default()), Arc::new(Load::default())];
        let weights = |now, busy: [Duration; 2]| {
            [0, 1].map(|i: usize| loads[i].weight(Kind::Program, now, busy[i]))
        };
        weights(start, [Duration::ZERO; 2]);
        let busy = [WINDOW * 3 / 4, Duration::ZERO];
        let mut held = Vec::new();
        let dealt: Vec<usize> = (0..9)
            .map(|_| {
                let [first, second] = weights(later, busy);
                let to = usize::from(second < first);
                held.push(loads[to].count(Kind::Program));
                to
            })
            .collect();
        assert_eq!(dealt, [1, 1, 1, 0, 1, 0, 1, 0, 1]);
        // Those that have gone leave room.
        held.clear();
        let [first, second] = weights(later, busy);
        assert!(second < first);
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
