//! The buckets of a rule, by whom they are of: so many and no more, whatever clients make up.
//!
//! A bucket that is full again is as good as none, and is given up where room is needed; one that is
//! not is never, or a client could have itself forgotten by asking under many names. Where there is no room
//! even so, whoever is new has none of his own, and the caller's common one is his.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use super::{Bucket, Rate};

/// Shortest time between two looks for buckets to give up: a look is at all of them.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

/// Buckets by a number that stands for a subject, such as a hash that clients cannot foresee. Subjects
/// of the same number share a bucket.
#[derive(Debug)]
pub struct Buckets {
    most: usize,
    of: HashMap<u64, Bucket, BuildHasherDefault<Itself>>,
    /// No bucket is given up before.
    next_sweep: Duration,
}

impl Buckets {
    /// None yet, and never more than `most`.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            of: HashMap::default(),
            next_sweep: Duration::ZERO,
        }
    }

    /// The bucket of a subject; none where there is no room for another.
    pub fn of(&mut self, subject: u64, rate: Rate, now: Duration) -> Option<&mut Bucket> {
        if self.of.len() >= self.most && !self.of.contains_key(&subject) {
            self.sweep(rate, now);
            if self.of.len() >= self.most {
                return None;
            }
        }
        Some(self.of.entry(subject).or_default())
    }

    /// The bucket that a subject has by now.
    pub fn known(&mut self, subject: u64) -> Option<&mut Bucket> {
        self.of.get_mut(&subject)
    }

    fn sweep(&mut self, rate: Rate, now: Duration) {
        if now < self.next_sweep {
            return;
        }
        let mut first = Duration::MAX;
        self.of.retain(|_, bucket| {
            let until = bucket.remembers_until(rate);
            let keeps = until > now;
            if keeps {
                first = first.min(until);
            }
            keeps
        });
        self.next_sweep = first.min(now + rate.per()).max(now + BETWEEN_SWEEPS);
    }
}

/// A number that is a hash already.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate() -> Rate {
        Rate::new(2, Duration::from_secs(10), 2).unwrap()
    }

    /// Asks for a subject; none where it has no bucket of its own.
    fn asks(buckets: &mut Buckets, subject: u64, at: u64) -> Option<bool> {
        let now = Duration::from_secs(at);
        let bucket = buckets.of(subject, rate(), now)?;
        Some(bucket.take(rate(), now).wait.is_none())
    }

    #[test]
    fn each_subject_has_its_own() {
        let mut buckets = Buckets::new(10);
        for (subject, want) in [(1, true), (1, true), (1, false), (2, true), (1, false)] {
            assert_eq!(asks(&mut buckets, subject, 0), Some(want), "{subject}");
        }
    }

    #[test]
    fn nobody_is_forgotten_for_the_many_that_are_new() {
        let mut buckets = Buckets::new(3);
        for subject in [1, 1, 2, 3] {
            assert_eq!(asks(&mut buckets, subject, 0), Some(true), "{subject}");
        }
        for subject in 100..10_000 {
            assert_eq!(asks(&mut buckets, subject, 0), None, "{subject}");
        }
        assert_eq!(asks(&mut buckets, 1, 0), Some(false));
        assert_eq!(buckets.of.len(), 3);
    }

    #[test]
    fn those_that_are_full_again_make_room() {
        let mut buckets = Buckets::new(2);
        for (name, subject, at, want) in [
            ("one", 1, 0, Some(true)),
            ("its second", 1, 0, Some(true)),
            ("another", 2, 0, Some(true)),
            ("no room", 3, 4, None),
            ("the other one is full again", 3, 5, Some(true)),
            ("the first is still remembered", 1, 5, Some(true)),
            ("no room again", 4, 5, None),
        ] {
            assert_eq!(asks(&mut buckets, subject, at), want, "{name}");
        }
        assert_eq!(buckets.of.len(), 2);
    }

    #[test]
    fn a_look_at_all_of_them_is_rare() {
        let mut buckets = Buckets::new(1);
        asks(&mut buckets, 1, 0);
        asks(&mut buckets, 2, 0);
        let next = buckets.next_sweep;
        assert!(next >= BETWEEN_SWEEPS, "{next:?}");
        for subject in 3..100 {
            asks(&mut buckets, subject, 0);
            assert_eq!(buckets.next_sweep, next, "no look for {subject}");
        }
    }
}
