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
