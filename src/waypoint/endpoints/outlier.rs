//! Outlier detection: endpoints that fail in a row are left alone for a while
//! (`spec/waypoint-l7.md` §3.4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::traffic::OutlierDetection;

/// Longest time one is out, unless the first is longer.
const CAP: Duration = Duration::from_secs(300);

/// How a request or connection went, as far as it tells of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::waypoint) enum Outcome {
    /// There is a connection.
    Connected,
    /// There is none: refused, timed out, unproven.
    Unreachable,
    /// It answered with this status.
    Answered(u16),
    /// It was asked and gave no answer.
    Lost,
}

/// What an endpoint has done of late.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// 5xx in a row.
    errors: u32,
    /// 502, 503 and 504 in a row.
    gateway: u32,
    /// Failures on our side in a row, where these count apart.
    local: u32,
    /// Out since then.
    out: Option<Instant>,
    /// How often it has been out, less one for each interval that it has been in since.
    times: u32,
}

impl Tally {
    /// Counts an outcome; whether it was one too many.
    fn note(&mut self, outcome: Outcome, rule: &OutlierDetection) -> bool {
        let one_too_many = |count: &mut u32, most: u32| {
            *count = count.saturating_add(1);
            let over = most > 0 && *count >= most;
            if over {
                *count = 0;
            }
            over
        };
        let status = match outcome {
            Outcome::Connected => {
                self.local = 0;
                return false;
            }
            Outcome::Unreachable | Outcome::Lost if rule.split_local_errors => {
                return one_too_many(&mut self.local, rule.consecutive_local);
            }
            // Counted as what the client is told.
            Outcome::Unreachable | Outcome::Lost => 503,
            Outcome::Answered(status) => status,
        };
        let errors = match status {
            500..=599 => one_too_many(&mut self.errors, rule.consecutive_5xx),
            _ => {
                self.errors = 0;
                false
            }
        };
        let gateway = match status {
            502..=504 => one_too_many(&mut self.gateway, rule.consecutive_gateway),
            _ => {
                self.gateway = 0;
                false
            }
        };
        errors || gateway
    }

    /// How long it is out, once it is.
    fn sentence(&self, rule: &OutlierDetection) -> Duration {
        let longer = rule.base_ejection.saturating_mul(self.times.max(1));
        longer.min(CAP.max(rule.base_ejection))
    }
}

/// The endpoints of one service port, and who of them is out.
#[derive(Debug, Default)]
pub(super) struct Outliers {
    tallies: HashMap<Arc<str>, Tally>,
    /// The next look at who comes back.
    next: Option<Instant>,
}

impl Outliers {
    /// Whether an endpoint is out.
    pub(super) fn is_out(&self, endpoint: &str) -> bool {
        self.tallies.get(endpoint).is_some_and(|t| t.out.is_some())
    }

    /// How many are out.
    pub(super) fn out(&self) -> usize {
        self.tallies.values().filter(|t| t.out.is_some()).count()
    }

    /// Counts how something went at one of `all` endpoints; whether that one is out now and was not before.
    pub(super) fn note(
        &mut self,
        endpoint: &Arc<str>,
        outcome: Outcome,
        all: usize,
        rule: &OutlierDetection,
        now: Instant,
    ) -> bool {
        let out = self.out();
        // Most endpoints never fail, and nothing is remembered of them.
        let good = matches!(outcome, Outcome::Connected | Outcome::Answered(..500));
        if good && !self.tallies.contains_key(endpoint) {
            return false;
        }
        let tally = self.tallies.entry(Arc::clone(endpoint)).or_default();
        let fails = tally.note(outcome, rule);
        if !fails || tally.out.is_some() || !has_room(out, all, rule) {
            return false;
        }
        tally.out = Some(now);
        tally.times = tally.times.saturating_add(1);
        self.next.get_or_insert(now + rule.interval);
        true
    }

    /// Lets those back in whose time is over, as often as the rule looks.
    pub(super) fn look(&mut self, rule: &OutlierDetection, now: Instant) {
        let Some(next) = self.next.filter(|next| *next <= now) else {
            return;
        };
        let step = rule.interval.max(Duration::from_millis(1));
        let behind = now.duration_since(next).as_millis() / step.as_millis().max(1);
        let looks = u32::try_from(behind).unwrap_or(u32::MAX).saturating_add(1);
        self.next = Some(next + step.saturating_mul(looks));
        for tally in self.tallies.values_mut() {
            match tally.out {
                None => tally.times = tally.times.saturating_sub(looks),
                Some(since) if now.duration_since(since) >= tally.sentence(rule) => {
                    *tally = Tally {
                        times: tally.times,
                        ..Tally::default()
                    };
                }
                Some(_) => {}
            }
        }
        if self.out() == 0 && self.tallies.values().all(|t| t.times == 0) {
            self.next = None;
        }
    }

    /// Forgets endpoints that are none any more.
    pub(super) fn retain(&mut self, mut there: impl FnMut(&str) -> bool) {
        self.tallies.retain(|endpoint, _| there(endpoint));
    }

    /// Lets everybody in: nothing is detected any more.
    pub(super) fn clear(&mut self) {
        self.tallies.clear();
        self.next = None;
    }
}

/// Whether one more may be out. One of at least two always may.
fn has_room(out: usize, all: usize, rule: &OutlierDetection) -> bool {
    let percent = usize::try_from(rule.max_ejection_percent).unwrap_or(100);
    (out == 0 && all >= 2) || (out + 1) * 100 <= percent * all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(n: usize) -> Arc<str> {
        Arc::from(format!("cart-{n}"))
    }

    #[test]
    fn so_many_in_a_row_are_one_too_many() {
        use Outcome::{Answered, Connected, Lost, Unreachable};
        let usual = OutlierDetection::default();
        let gateway = OutlierDetection {
            consecutive_5xx: 0,
            consecutive_gateway: 2,
            ..usual
        };
        let split = OutlierDetection {
            split_local_errors: true,
            consecutive_local: 3,
            ..usual
        };
        let off = OutlierDetection {
            consecutive_5xx: 0,
            ..usual
        };
        let times = |outcome, n| std::iter::repeat_n(outcome, n);
        for (name, rule, outcomes, want) in [
            ("four", usual, times(Answered(500), 4).collect(), false),
            (
                "five",
                usual,
                times(Answered(500), 5).collect::<Vec<_>>(),
                true,
            ),
            (
                "with a good one between",
                usual,
                times(Answered(500), 4)
                    .chain([Answered(404)])
                    .chain(times(Answered(500), 4))
                    .collect(),
                false,
            ),
            (
                "no way there counts",
                usual,
                times(Unreachable, 5).collect(),
                true,
            ),
            ("no answer counts", usual, times(Lost, 5).collect(), true),
            (
                "a connection is no answer",
                usual,
                times(Lost, 4).chain([Connected, Lost]).collect(),
                true,
            ),
            (
                "gateway errors alone",
                gateway,
                vec![Answered(500), Answered(500), Answered(502)],
                false,
            ),
            (
                "gateway errors in a row",
                gateway,
                vec![Answered(502), Answered(504)],
                true,
            ),
            (
                "apart: not mixed",
                split,
                vec![
                    Answered(500),
                    Answered(500),
                    Answered(500),
                    Answered(500),
                    Unreachable,
                    Unreachable,
                ],
                false,
            ),
            (
                "apart: in a row",
                split,
                times(Unreachable, 3).collect(),
                true,
            ),
            (
                "apart: connected between",
                split,
                vec![Unreachable, Unreachable, Connected, Unreachable],
                false,
            ),
            ("off", off, times(Answered(500), 50).collect(), false),
        ] {
            let mut tally = Tally::default();
            let last = outcomes.into_iter().map(|o| tally.note(o, &rule));
            assert_eq!(last.last(), Some(want), "{name}");
        }
    }

    #[test]
    fn only_so_many_are_out_at_once() {
        for (name, all, percent, want) in [
            ("alone", 1, 10, 0),
            ("alone, and all may be", 1, 100, 1),
            ("one of two", 2, 10, 1),
            ("one of two, whatever is said", 2, 0, 1),
            ("of three", 3, 67, 2),
            ("of twenty", 20, 10, 2),
            ("all", 5, 100, 5),
        ] {
            let rule = OutlierDetection {
                max_ejection_percent: percent,
                ..OutlierDetection::default()
            };
            let (mut outliers, now) = (Outliers::default(), Instant::now());
            for endpoint in 0..all {
                for _ in 0..5 {
                    let status = Outcome::Answered(500);
                    outliers.note(&self::name(endpoint), status, all, &rule, now);
                }
            }
            assert_eq!(outliers.out(), want, "{name}");
        }
    }

    /// Seconds that an endpoint is out which fails again as soon as it may, each time.
    fn sentences(rule: &OutlierDetection, times: usize) -> Vec<u64> {
        let (mut outliers, mut now) = (Outliers::default(), Instant::now());
        let one = name(1);
        let mut sentences = Vec::new();
        for _ in 0..times {
            while !outliers.note(&one, Outcome::Answered(500), 2, rule, now) {}
            let since = now;
            while outliers.is_out(&one) {
                now += SECOND;
                outliers.look(rule, now);
            }
            sentences.push(now.duration_since(since).as_secs());
        }
        sentences
    }

    #[test]
    fn each_time_it_is_out_for_longer() {
        let usual = OutlierDetection::default();
        assert_eq!(sentences(&usual, 4), [30, 60, 90, 120]);
        let long = OutlierDetection {
            base_ejection: 120 * SECOND,
            ..usual
        };
        assert_eq!(sentences(&long, 4), [120, 240, 300, 300], "up to 300 s");
        let longer = OutlierDetection {
            base_ejection: 400 * SECOND,
            ..usual
        };
        assert_eq!(sentences(&longer, 2), [400, 400]);
        let rarely = OutlierDetection {
            interval: 45 * SECOND,
            ..usual
        };
        assert_eq!(sentences(&rarely, 1), [45], "not before somebody looks");
    }

    #[test]
    fn good_behaviour_shortens_the_next_time() {
        let rule = OutlierDetection::default();
        let (mut outliers, one) = (Outliers::default(), name(1));
        let mut now = Instant::now();
        let fail = |outliers: &mut Outliers, now| {
            while !outliers.note(&one, Outcome::Answered(500), 2, &rule, now) {}
        };
        for _ in 0..3 {
            fail(&mut outliers, now);
            now += 120 * SECOND;
            outliers.look(&rule, now);
        }
        let times = |outliers: &Outliers| outliers.tallies["cart-1"].times;
        assert_eq!(times(&outliers), 3);
        now += 30 * SECOND;
        outliers.look(&rule, now);
        assert_eq!(times(&outliers), 0, "looked at after three intervals");
    }
}
