//! Keeps an endpoint that goes up and down out of service until it has calmed down
//! (`spec/control-plane.md` §7.3): each change of an endpoint is a change for the whole mesh.

use std::time::{Duration, Instant};

/// What each fall counts.
const FALL: f64 = 1000.0;
/// Time in which what has been counted halves.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// Counts that hold an endpoint back.
const HOLD: f64 = 3000.0;
/// Counts below which it is let go.
const RELEASE: f64 = 1000.0;
/// Longest time one is held back.
const LONGEST: Duration = Duration::from_secs(300);

/// One endpoint's falls.
#[derive(Clone, Debug)]
pub(super) struct Damping {
    up: bool,
    counted: f64,
    at: Instant,
    held: Option<Instant>,
}

impl Damping {
    /// Nothing counted yet.
    pub(super) fn new(up: bool, now: Instant) -> Self {
        Self {
            up,
            counted: 0.0,
            at: now,
            held: None,
        }
    }

    /// Takes in whether the endpoint is up now; tells whether it is held back.
    pub(super) fn hear(&mut self, up: bool, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.counted *= 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.at = now;
        if self.up && !up {
            self.counted += FALL;
        }
        self.up = up;
        match self.held {
            None if self.counted >= HOLD => self.held = Some(now),
            Some(since) if now >= since + LONGEST => {
                // Else the next look would hold it again, for what it was held for already.
                self.counted = 0.0;
                self.held = None;
            }
            Some(_) if self.counted < RELEASE => self.held = None,
            _ => {}
        }
        self.held.is_some()
    }

    /// When it is to be looked at again, if it is held back.
    pub(super) fn due(&self) -> Option<Instant> {
        let last = self.held? + LONGEST;
        let halvings = (self.counted / RELEASE).log2().max(0.0);
        let calm = HALF_LIFE.mul_f64(halvings) + Duration::from_millis(1);
        Some(last.min(self.at + calm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Falls and rises `every` so many seconds in turn; after how many falls it is held, and at
    /// what second of calm afterwards it is let go.
    fn flap(every: u64, falls: usize) -> (Option<usize>, u64) {
        let start = Instant::now();
        let mut damping = Damping::new(true, start);
        let (mut now, mut held) = (start, None);
        for fall in 1..=falls {
            for up in [false, true] {
                now += Duration::from_secs(every);
                if damping.hear(up, now) && held.is_none() {
                    held = Some(fall);
                }
            }
        }
        let calm = now;
        while let Some(due) = damping.due() {
            assert!(due > now, "not at once again");
            now = due;
            damping.hear(true, now);
        }
        (held, (now - calm).as_secs())
    }

    #[test]
    fn holds_and_lets_go() {
        for (name, every, falls, want) in [
            (
                "toggles every 3 s: the third is still free",
                3,
                3,
                (None, 0),
            ),
            ("the fourth is not", 3, 4, (Some(4), 108)),
            ("every half second", 1, 4, (Some(4), 116)),
            ("once in two minutes", 60, 50, (None, 0)),
            ("without end: 5 min at most", 3, 60, (Some(4), 0)),
        ] {
            let (held, calm) = flap(every, falls);
            assert_eq!(held, want.0, "{name}");
            assert!(calm.abs_diff(want.1) <= 2 || falls == 60, "{name}: {calm}");
            assert!(calm <= 300, "{name}: {calm}");
        }
    }

    #[test]
    fn never_longer_than_five_minutes() {
        let start = Instant::now();
        let mut damping = Damping::new(true, start);
        let second = Duration::from_secs(1);
        let mut held = 0;
        let mut longest = 0;
        for step in 0..2000 {
            let up = step % 2 == 0;
            held = match damping.hear(up, start + second * step) {
                true => held + 1,
                false => 0,
            };
            longest = longest.max(held);
        }
        assert_eq!(longest, LONGEST.as_secs());
    }
}
