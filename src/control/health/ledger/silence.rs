//! Which silent nodes are to be believed dead (`spec/control-plane.md` §7.3).
//!
//! One node that falls silent has died. When most of them do at once, or when this control plane
//! has only just begun to listen, the fault is more likely here, and nothing follows from it.

use std::time::{Duration, Instant};

use super::LEASE;

/// How long after its last word a node's workloads are given up.
pub(super) const GIVE_UP: Duration = LEASE.saturating_mul(2);
/// Losses this close to each other have one cause.
const AT_ONCE: Duration = Duration::from_secs(60);
/// Fewer than this are no mass.
const MASS: usize = 3;

/// Whether silence means anything now.
#[derive(Debug)]
pub(super) struct Silence {
    started: Instant,
    /// When the clock was last looked at.
    looked: Instant,
    mass_loss: bool,
}

impl Silence {
    /// This control plane began to listen at `started`.
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            looked: started,
            mass_loss: false,
        }
    }

    /// Takes note that the clock is looked at; tells whether that was long overdue. This control
    /// plane did not listen then, and begins to now, as after a restart.
    pub(super) fn stalled(&mut self, now: Instant) -> bool {
        let overdue = now > self.looked + GIVE_UP;
        if overdue {
            *self = Self::new(now);
        }
        self.looked = now;
        overdue
    }

    /// Looks at when each node was last heard. Tells whether a mass loss has begun or ended.
    pub(super) fn look(&mut self, heard: &[Instant], now: Instant) -> bool {
        let silent = |for_at_most: Duration| {
            let within = |at: &&Instant| {
                let silent = now.saturating_duration_since(**at);
                silent > LEASE && silent <= for_at_most
            };
            heard.iter().filter(within).count()
        };
        let mass = |count: usize| count >= MASS && count * 2 > heard.len();
        // It ends when most are back, not when the silence has lasted.
        let lost = match self.mass_loss {
            true => mass(silent(Duration::MAX)),
            false => mass(silent(LEASE + AT_ONCE)),
        };
        let changed = lost != self.mass_loss;
        self.mass_loss = lost;
        changed
    }

    /// Whether most nodes have fallen silent at once.
    pub(super) fn mass_loss(&self) -> bool {
        self.mass_loss
    }

    /// Whether a node that was last heard `at` is to be given up.
    pub(super) fn gives_up(&self, at: Instant, now: Instant) -> bool {
        let settled = now >= self.started + GIVE_UP;
        settled && !self.mass_loss && now >= at + GIVE_UP
    }

    /// When that could be so at the earliest.
    pub(super) fn due(&self, at: Instant) -> Instant {
        (at + GIVE_UP).max(self.started + GIVE_UP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dies_but_most_do_not_at_once() {
        // Seconds since each node was last heard; those given up.
        for (name, up, silent, mass, given_up) in [
            ("all well", 1000, vec![1, 5, 14], false, 0),
            ("one silent", 1000, vec![1, 20, 3], false, 0),
            ("one dead", 1000, vec![1, 30, 3], false, 1),
            ("just started", 29, vec![1, 31, 3], false, 0),
            ("two of two", 1000, vec![31, 32], false, 2),
            ("half of six", 1000, vec![31, 32, 33, 1, 2, 3], false, 3),
            ("most of five", 1000, vec![31, 32, 33, 1, 2], true, 0),
            (
                "most of five, one after the other",
                1000,
                vec![31, 100, 200, 1, 2],
                false,
                3,
            ),
            (
                "most of ten, some of them long",
                1000,
                vec![900, 800, 700, 31, 32, 33, 1, 1, 1, 1],
                false,
                6,
            ),
        ] {
            let now = Instant::now() + Duration::from_secs(10_000);
            let ago = |seconds: &u64| now - Duration::from_secs(*seconds);
            let heard: Vec<Instant> = silent.iter().map(ago).collect();
            let mut silence = Silence::new(ago(&up));
            assert_eq!(silence.look(&heard, now), mass, "{name}");
            let gone = heard.iter().filter(|at| silence.gives_up(**at, now));
            assert_eq!(gone.count(), given_up, "{name}");
        }
    }

    #[test]
    fn a_mass_loss_lasts_until_most_are_back() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(start);
        let (four, one) = ([at(1000); 4], at(1020));
        let all = |fifth| [&four[..], &[fifth]].concat();
        assert!(silence.look(&all(one), at(1020)), "it begins");
        assert!(!silence.look(&all(at(5000)), at(5000)), "and goes on");
        assert!(!silence.gives_up(four[0], at(5000)));
        let back = [at(1000), at(1000), at(5005), at(5005), at(5005)];
        assert!(silence.look(&back, at(5006)), "until most are back");
        assert!(silence.gives_up(back[0], at(5006)));
        assert!(!silence.gives_up(back[4], at(5006)));
    }
}
