//! Which control plane to follow, and when to try which (`spec/control-plane.md` §3.7, §9.2). Pure:
//! what happened and when goes in, what to do next comes out.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

/// The waits of a client of control planes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// The first wait after a round in which everyone failed; doubles up to the last.
    pub(super) backoff: (Duration, Duration),
    /// Between looks whether one that was away is back, by half sooner or later
    /// (`spec/control-plane.md` §10 row 49: traffic goes on within 5 s of its return).
    pub(super) back: Duration,
    /// How long a stream must have lived for the waits to begin anew.
    pub(super) healthy: Duration,
    /// Between looks at better control planes, a fifth sooner or later.
    pub(super) look: Duration,
    /// Between looks at one that has begun to answer.
    pub(super) confirm: Duration,
    /// How long a better one must have answered before it is followed.
    pub(super) answers: Duration,
    /// Longest silence of one that has not sent a whole view yet.
    pub(super) silence: Duration,
    /// How long only revisions older than the one in force must have been to be had before one of
    /// them is applied (§6.5).
    pub(super) patience: Duration,
    /// A number from 0 to 1, another one each time.
    pub(super) dice: fn() -> f64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff: (Duration::from_millis(50), Duration::from_secs(15)),
            back: Duration::from_secs(2),
            healthy: Duration::from_secs(30),
            look: Duration::from_secs(60),
            confirm: Duration::from_secs(5),
            answers: Duration::from_secs(30),
            silence: Duration::from_secs(15),
            patience: Duration::from_secs(600),
            dice: || rand::rng().random_range(0.0..1.0),
        }
    }
}

/// The waits between attempts that fail: doubling, with full jitter, so that nodes do not return in
/// step.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    bounds: (Duration, Duration),
    next: Duration,
}

impl Backoff {
    pub(super) fn new(bounds: (Duration, Duration)) -> Self {
        Self {
            bounds,
            next: bounds.0,
        }
    }

    /// The next wait, by a number from 0 to 1.
    pub(super) fn wait(&mut self, dice: f64) -> Duration {
        let wait = self.next.mul_f64(dice);
        self.next = (self.next * 2).min(self.bounds.1);
        wait
    }

    pub(super) fn reset(&mut self) {
        self.next = self.bounds.0;
    }
}

/// What to do while no control plane is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seek {
    /// Try this one.
    Try(usize),
    /// Nothing until then.
    Wait(Instant),
}

/// What to do beside following a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// See which is the first of [`Failover::better`] that answers.
    Look,
    /// Open a stream to this one, and drop the present one when it has sent a whole view.
    Switch(usize),
    /// Nothing until then.
    Wait(Instant),
    /// Nothing: it is the best there is.
    Content,
}

/// The selection among control planes that are numbered in order of preference.
#[derive(Debug)]
pub(super) struct Failover {
    controls: usize,
    timing: Timing,
    backoff: Backoff,
    /// Who failed in this round.
    failed: BTreeSet<usize>,
    state: State,
}

#[derive(Debug)]
enum State {
    Seeking {
        next: usize,
        from: Instant,
    },
    Following {
        control: usize,
        since: Instant,
        /// The better one that answers, and since when.
        answering: Option<(usize, Instant)>,
        /// Better ones that answer and yet cannot be followed, passed over until all have been
        /// seen to.
        useless: BTreeSet<usize>,
        look: Instant,
    },
}

impl Failover {
    pub(super) fn new(controls: usize, timing: Timing, now: Instant) -> Self {
        Self {
            controls,
            timing,
            backoff: Backoff::new(timing.backoff),
            failed: BTreeSet::new(),
            state: State::Seeking { next: 0, from: now },
        }
    }

    /// What to do while none is followed.
    pub(super) fn seek(&self, now: Instant) -> Seek {
        match self.state {
            State::Seeking { next, from } if from <= now => Seek::Try(next),
            State::Seeking { from, .. } => Seek::Wait(from),
            State::Following { control, .. } => Seek::Try(control),
        }
    }

    /// What to do beside following one.
    pub(super) fn beside(&self, now: Instant) -> Beside {
        let State::Following {
            control,
            answering,
            look,
            ..
        } = &self.state
        else {
            return Beside::Content;
        };
        match *answering {
            _ if *control == 0 => Beside::Content,
            Some((better, since)) if now >= since + self.timing.answers => Beside::Switch(better),
            _ if now >= *look => Beside::Look,
            _ => Beside::Wait(*look),
        }
    }

    /// The better ones to look at, in order.
    pub(super) fn better(&self) -> Vec<usize> {
        match &self.state {
            State::Seeking { .. } => Vec::new(),
            State::Following {
                control, useless, ..
            } => (0..*control).filter(|c| !useless.contains(c)).collect(),
        }
    }

    /// This one has sent a whole view and is followed from now on.
    pub(super) fn following(&mut self, control: usize, now: Instant) {
        self.state = State::Following {
            control,
            since: now,
            answering: None,
            useless: BTreeSet::new(),
            look: now + self.until_look(),
        };
    }

    /// This one could not be reached, or its stream ended. A clean end is one too.
    pub(super) fn failed(&mut self, control: usize, now: Instant) {
        if let State::Following { since, .. } = self.state
            && now >= since + self.timing.healthy
        {
            self.failed.clear();
            self.backoff.reset();
        }
        self.failed.insert(control);
        let round = (1..self.controls).map(|by| (control + by) % self.controls);
        let next = round.into_iter().find(|next| !self.failed.contains(next));
        self.state = match next {
            Some(next) => State::Seeking { next, from: now },
            None => {
                self.failed.clear();
                let wait = self.backoff.wait((self.timing.dice)());
                State::Seeking {
                    next: 0,
                    from: now + wait,
                }
            }
        };
    }

    /// One that was away is back: there is no more to wait for.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let State::Seeking { from, .. } = &mut self.state {
            *from = now;
        }
    }

    /// Which of the better ones answered first, if any.
    pub(super) fn looked(&mut self, answered: Option<usize>, now: Instant) {
        let (until_look, confirm) = (self.until_look(), self.timing.confirm);
        let State::Following {
            answering,
            useless,
            look,
            ..
        } = &mut self.state
        else {
            return;
        };
        *answering = match (answered, *answering) {
            (Some(now_best), Some((best, since))) if now_best == best => Some((best, since)),
            (Some(best), _) => Some((best, now)),
            (None, _) => {
                useless.clear();
                None
            }
        };
        *look = now
            + if answering.is_some() {
                confirm
            } else {
                until_look
            };
    }

    /// The better one that answered cannot be followed. Those after it have their turn first before
    /// it is tried again: one that is of no use must not hide one that is.
    pub(super) fn stay(&mut self, better: usize, now: Instant) {
        let again = now + self.until_look();
        if let State::Following {
            control,
            answering,
            useless,
            look,
            ..
        } = &mut self.state
        {
            useless.insert(better);
            if useless.len() >= *control {
                useless.clear();
            }
            *answering = None;
            *look = again;
        }
    }

    fn until_look(&self) -> Duration {
        self.timing.look.mul_f64(0.8 + 0.4 * (self.timing.dice)())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    fn timing() -> Timing {
        Timing {
            dice: || 0.5,
            ..Timing::default()
        }
    }

    /// What a step of a case says, at a time in seconds.
    enum Step {
        Failed(usize),
        Following(usize),
        Looked(Option<usize>),
        Stay(usize),
    }

    #[test]
    fn who_is_tried_when() {
        use Step::{Failed, Following};
        for (name, controls, steps, want, wait) in [
            ("the first at first", 2, vec![], 0, 0.0),
            ("then the next, at once", 2, vec![(1.0, Failed(0))], 1, 0.0),
            (
                "after a round the first, after a wait",
                2,
                vec![(1.0, Failed(0)), (2.0, Failed(1))],
                0,
                0.025,
            ),
            (
                "which doubles",
                1,
                vec![(1.0, Failed(0)), (2.0, Failed(0)), (3.0, Failed(0))],
                0,
                0.1,
            ),
            (
                "up to fifteen seconds",
                1,
                (0..30).map(|n| (f64::from(n), Failed(0))).collect(),
                0,
                7.5,
            ),
            (
                "a stream that is lost makes the next one's turn",
                3,
                vec![(1.0, Following(1)), (9.0, Failed(1))],
                2,
                0.0,
            ),
            (
                "then one that has not failed yet",
                3,
                vec![(1.0, Following(1)), (9.0, Failed(1)), (9.0, Failed(2))],
                0,
                0.0,
            ),
            (
                "a short life is no health",
                1,
                vec![(0.0, Failed(0)), (1.0, Following(0)), (30.0, Failed(0))],
                0,
                0.05,
            ),
            (
                "thirty seconds are",
                1,
                vec![(0.0, Failed(0)), (1.0, Following(0)), (31.0, Failed(0))],
                0,
                0.025,
            ),
            ("none at all", 0, vec![(0.0, Failed(0))], 0, 0.025),
        ] {
            let start = Instant::now();
            let mut failover = Failover::new(controls, timing(), start);
            let now = play(&mut failover, start, steps);
            let due = now + seconds(wait);
            if wait > 0.0 {
                assert_eq!(failover.seek(now), Seek::Wait(due), "{name}");
            }
            assert_eq!(failover.seek(due), Seek::Try(want), "{name}");
        }
    }

    #[test]
    fn what_is_done_beside_following() {
        use Step::{Failed, Following, Looked, Stay};
        let answers = |from: u32, of: usize| {
            let looks = (0..6).map(move |n| (f64::from(from + 5 * n), Looked(Some(of))));
            looks.collect::<Vec<_>>()
        };
        let from = |first: Step, more: Vec<(f64, Step)>| {
            let mut steps = vec![(0.0, first)];
            steps.extend(more);
            steps
        };
        for (name, steps, at, want) in [
            ("not yet following", vec![], 0.0, Beside::Content),
            (
                "the best",
                from(Following(0), vec![]),
                900.0,
                Beside::Content,
            ),
            ("due", from(Following(2), vec![]), 60.0, Beside::Look),
            (
                "nobody answered",
                from(Following(2), vec![(60.0, Looked(None))]),
                120.0,
                Beside::Look,
            ),
            (
                "one answered: soon again",
                from(Following(2), vec![(60.0, Looked(Some(1)))]),
                65.0,
                Beside::Look,
            ),
            (
                "for thirty seconds",
                from(Following(2), answers(60, 1)),
                90.0,
                Beside::Switch(1),
            ),
            (
                "not quite",
                from(Following(2), answers(60, 1)),
                89.0,
                Beside::Wait(at_second(90.0)),
            ),
            (
                "a gap begins anew",
                from(Following(2), {
                    let mut looks = answers(60, 1);
                    looks[3].1 = Looked(None);
                    looks
                }),
                90.0,
                Beside::Look,
            ),
            (
                "a better one yet begins anew",
                from(Following(2), {
                    let mut looks = answers(60, 1);
                    looks[5].1 = Looked(Some(0));
                    looks
                }),
                90.0,
                Beside::Look,
            ),
            (
                "a switch that failed waits for the next look",
                from(Following(2), {
                    let mut looks = answers(60, 1);
                    looks.push((91.0, Stay(1)));
                    looks
                }),
                150.0,
                Beside::Wait(at_second(151.0)),
            ),
            (
                "a lost stream",
                from(Following(2), vec![(61.0, Failed(2))]),
                70.0,
                Beside::Content,
            ),
        ] {
            let start = at_second(0.0);
            let mut failover = Failover::new(3, timing(), start);
            play(&mut failover, start, steps);
            assert_eq!(failover.beside(start + seconds(at)), want, "{name}");
        }
    }

    #[test]
    fn one_that_is_of_no_use_does_not_hide_the_next() {
        use Step::{Following, Looked, Stay};
        let following = || (0.0, Following(2));
        for (name, steps, want) in [
            ("all at first", vec![following()], vec![0, 1]),
            (
                "then those after it",
                vec![following(), (60.0, Looked(Some(0))), (90.0, Stay(0))],
                vec![1],
            ),
            (
                "all again when none of them answers",
                vec![following(), (90.0, Stay(0)), (150.0, Looked(None))],
                vec![0, 1],
            ),
            (
                "or none can be followed",
                vec![following(), (90.0, Stay(0)), (180.0, Stay(1))],
                vec![0, 1],
            ),
            (
                "while one of them answers the others wait",
                vec![following(), (90.0, Stay(0)), (150.0, Looked(Some(1)))],
                vec![1],
            ),
            (
                "whoever is followed next begins anew",
                vec![following(), (90.0, Stay(0)), (180.0, Following(1))],
                vec![0],
            ),
        ] {
            let start = Instant::now();
            let mut failover = Failover::new(3, timing(), start);
            play(&mut failover, start, steps);
            assert_eq!(failover.better(), want, "{name}");
        }
    }

    #[test]
    fn looks_are_a_fifth_apart() {
        for (dice, want) in [(0.0, 48.0), (1.0, 72.0)] {
            let timing = Timing {
                dice: if dice == 0.0 { || 0.0 } else { || 1.0 },
                ..Timing::default()
            };
            let start = Instant::now();
            let mut failover = Failover::new(2, timing, start);
            failover.following(1, start);
            let due = Beside::Wait(start + seconds(want));
            assert_eq!(failover.beside(start), due, "dice {dice}");
        }
    }

    #[test]
    fn a_server_that_always_ends_is_tried_fewer_than_ten_times_in_five_seconds() {
        let start = Instant::now();
        let mut failover = Failover::new(1, timing(), start);
        let (mut now, mut attempts) = (start, 0);
        while now < start + seconds(5.0) {
            match failover.seek(now) {
                Seek::Wait(until) => now = until,
                Seek::Try(control) => {
                    attempts += 1;
                    failover.following(control, now);
                    failover.failed(control, now);
                }
            }
        }
        assert_eq!(attempts, 8);
    }

    /// A fixed beginning, so that cases can name instants.
    fn at_second(n: f64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + seconds(n)
    }

    fn play(failover: &mut Failover, start: Instant, steps: Vec<(f64, Step)>) -> Instant {
        let mut now = start;
        for (at, step) in steps {
            now = start + seconds(at);
            match step {
                Step::Failed(control) => failover.failed(control, now),
                Step::Following(control) => failover.following(control, now),
                Step::Looked(answered) => failover.looked(answered, now),
                Step::Stay(better) => failover.stay(better, now),
            }
        }
        now
    }
}
