//! From single results of a probe to a verdict (`spec/control-plane.md` §7.1). Pure: it is told
//! results and the time, and says when it wants the next one.

use std::time::{Duration, Instant};

use crate::agent::report::Verdict;

/// Between results once one has contradicted the verdict, so that it is soon known which holds.
const CONFIRM: Duration = Duration::from_millis(250);

/// How results are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Time between probes.
    pub(super) interval: Duration,
    /// Passes in a row that make a workload pass.
    pub(super) rise: u32,
    /// Failures in a row that make it fail.
    pub(super) fall: u32,
    /// How long failures are forgiven before the first pass.
    pub(super) start_timeout: Duration,
}

/// The results of one workload's probe so far.
#[derive(Debug)]
pub(super) struct Tally {
    rules: Rules,
    begun: Instant,
    /// It has passed at least once.
    passed: bool,
    verdict: Verdict,
    /// Results in a row that speak for another verdict, all of the same kind.
    against: u32,
    last: bool,
    transitions: u32,
}

impl Tally {
    /// No results yet, as of `now`.
    pub(super) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            begun: now,
            passed: false,
            verdict: Verdict::Unknown,
            against: 0,
            last: false,
            transitions: 0,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// How often it turned from passing to failing or back.
    pub(super) fn transitions(&self) -> u32 {
        self.transitions
    }

    /// Takes a result in; tells whether the verdict has changed.
    pub(super) fn hear(&mut self, pass: bool, now: Instant) -> bool {
        self.passed |= pass;
        let agrees = match self.verdict {
            Verdict::Passing | Verdict::NoProbe => pass,
            Verdict::Failing => !pass,
            Verdict::Unknown => !pass && self.starting(now),
        };
        if agrees {
            self.against = 0;
            return false;
        }
        // Before the first verdict a pass and a failure speak against each other too.
        self.against = match self.against > 0 && self.last != pass {
            true => 1,
            false => self.against.saturating_add(1),
        };
        self.last = pass;
        let enough = match pass {
            true => self.rules.rise,
            false => self.rules.fall,
        };
        if self.against < enough {
            return false;
        }
        self.against = 0;
        self.transitions += u32::from(self.verdict != Verdict::Unknown);
        self.verdict = match pass {
            true => Verdict::Passing,
            false => Verdict::Failing,
        };
        true
    }

    /// Whether failures are still forgiven.
    fn starting(&self, now: Instant) -> bool {
        !self.passed && now.saturating_duration_since(self.begun) < self.rules.start_timeout
    }

    /// When to probe next, after a probe that was begun and ended at these times.
    pub(super) fn next(&self, begun: Instant, ended: Instant) -> Instant {
        let regular = begun + self.rules.interval;
        let next = match self.against {
            0 => regular,
            _ => regular.min(ended + CONFIRM),
        };
        next.max(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        interval: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        start_timeout: Duration::from_secs(60),
    };

    /// Plays results of probes that take no time: `+` passes, `-` fails, `~` is 60 s without one.
    /// The verdicts, each after its letter, and the seconds that went by.
    fn play(rules: Rules, results: &str) -> (String, f64) {
        let start = Instant::now();
        let (mut now, mut waited) = (start, Duration::ZERO);
        let mut tally = Tally::new(rules, start);
        let mut verdicts = String::new();
        for result in results.chars() {
            if result == '~' {
                waited += Duration::from_secs(60);
                now += Duration::from_secs(60);
                continue;
            }
            tally.hear(result == '+', now);
            verdicts.push(match tally.verdict() {
                Verdict::Unknown => 'u',
                Verdict::Passing => 'P',
                Verdict::Failing => 'F',
                Verdict::NoProbe => 'n',
            });
            now = tally.next(now, now);
        }
        let probed = now - start - waited;
        (verdicts, probed.as_secs_f64())
    }

    #[test]
    fn verdicts() {
        for (name, results, want, seconds) in [
            ("rises at the second pass", "++", "uP", 2.25),
            (
                "falls at the third failure",
                "++---",
                "uPPPF",
                0.25 + 2.0 + 0.5 + 2.0,
            ),
            (
                "a pass between starts over",
                "++--+---",
                "uPPPPPPF",
                0.25 + 2.0 + 0.5 + 2.0 + 0.5 + 2.0,
            ),
            (
                "rises again",
                "++---++",
                "uPPPFFP",
                0.25 + 2.0 + 0.5 + 2.0 + 0.25 + 2.0,
            ),
            (
                "a failure between passes",
                "++---+-++",
                "uPPPFFFFP",
                0.25 + 2.0 + 0.5 + 2.0 + 0.25 + 2.0 + 0.25 + 2.0,
            ),
            ("failures at the start are forgiven", "-----", "uuuuu", 10.0),
            (
                "and do not count later",
                "--++",
                "uuuP",
                2.0 + 2.0 + 0.25 + 2.0,
            ),
            ("but after the time to start", "~---", "uuF", 0.5 + 2.0),
            ("and after the first pass", "+---", "uuuF", 0.75 + 2.0),
            ("a pass too late", "~--++", "uuuP", 0.75 + 2.0),
            ("undecided", "+-+-", "uuuu", 1.0),
        ] {
            let (verdicts, took) = play(RULES, results);
            assert_eq!(verdicts, want, "{name}");
            assert!((took - seconds).abs() < 1e-6, "{name}: {took}");
        }
    }

    #[test]
    fn one_is_enough_where_one_is_asked_for() {
        let rules = Rules {
            rise: 1,
            fall: 1,
            ..RULES
        };
        assert_eq!(play(rules, "+-+-").0, "PFPF");
        assert_eq!(play(rules, "-~-").0, "uF");
    }

    #[test]
    fn turns_are_counted_once_there_is_a_verdict() {
        let now = Instant::now();
        let mut tally = Tally::new(RULES, now);
        let changes: Vec<bool> = "++---++"
            .chars()
            .map(|r| tally.hear(r == '+', now))
            .collect();
        assert_eq!(changes, [false, true, false, false, true, false, true]);
        assert_eq!(tally.transitions(), 2);
    }

    #[test]
    fn the_next_probe_is_never_before_the_last_has_ended() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let fast = Rules {
            interval: Duration::from_millis(100),
            ..RULES
        };
        for (name, rules, contrary, ended, want) in [
            ("regular", RULES, false, 10, 2_000),
            ("one that took longer", RULES, false, 2_500, 2_500),
            ("to confirm", RULES, true, 10, 260),
            ("to confirm after a timeout", RULES, true, 1_000, 1_250),
            ("faster than confirming", fast, true, 10, 100),
        ] {
            let mut tally = Tally::new(rules, begun);
            tally.hear(contrary, begun);
            assert_eq!(tally.next(begun, at(ended)), at(want), "{name}");
        }
    }
}
