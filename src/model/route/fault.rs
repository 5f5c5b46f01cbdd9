//! What is done wrong on purpose (`spec/waypoint-l7.md` §3.3).

use std::time::Duration;

use super::{Abort, Fault};

impl Fault {
    /// The wait before a request goes on, by a draw evenly from 0 to below 1.
    pub fn delays(&self, draw: f64) -> Option<Duration> {
        let (delay, share) = self.delay?;
        share.takes(draw).then_some(delay)
    }

    /// The answer that a request gets instead, by a draw of its own.
    pub fn aborts(&self, draw: f64) -> Option<Abort> {
        let (abort, share) = self.abort?;
        share.takes(draw).then_some(abort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::route::Fraction;

    #[test]
    fn faults_have_their_share() {
        let share = |numerator, denominator| Fraction {
            numerator,
            denominator,
        };
        for (name, share, draw, want) in [
            ("38 100 %", Fraction::ALL, 1.0_f64.next_down(), true),
            ("38 none", share(0, 1_000_000), 0.0, false),
            ("the smallest", share(1, 1_000_000), 0.000_000_9, true),
            ("beyond it", share(1, 1_000_000), 0.000_001_1, false),
        ] {
            let fault = Fault {
                delay: Some((Duration::from_millis(200), share)),
                abort: Some((Abort::Http(418), share)),
            };
            let delay = fault.delays(draw) == Some(Duration::from_millis(200));
            let abort = fault.aborts(draw) == Some(Abort::Http(418));
            assert_eq!((delay, abort), (want, want), "{name}");
        }
        assert_eq!(Fault::default().delays(0.0), None);
        assert_eq!(Fault::default().aborts(0.0), None);
    }
}
