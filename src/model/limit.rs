//! Rate limits at waypoints: which requests a rule counts, whom it counts them against, and how many of
//! them it lets through (`spec/waypoint-l7.md` §9).
//!
//! A [`Rule`] has a [`Bucket`] for each [`Subject`] its [`Key`] tells apart; [`Buckets`] holds so many of
//! them and no more. Time is handed in, as what has passed since a moment of the caller's own.

mod bucket;
mod buckets;
mod key;

use super::attached::PolicyKey;
use super::declaration::Origin;
use super::route::Match;

pub use bucket::{Bucket, MOST, Rate, Standing};
pub use buckets::Buckets;
pub use key::{Key, Subject};

/// A rate limit as waypoints apply it.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Its name.
    pub key: PolicyKey,
    /// Where it was written.
    pub origin: Origin,
    /// Each of them counts by itself; a request has to pass all that are for it.
    pub rules: Vec<Rule>,
}

/// How many of some requests are let through.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The line it begins on, from 1.
    pub line: u32,
    /// Any one of them takes a request.
    pub matches: Vec<Match>,
    /// Whom a request is counted against.
    pub by: Key,
    /// How many.
    pub rate: Rate,
}

impl Rule {
    /// Whether both count the same requests alike, wherever they are written.
    pub fn is_as(&self, other: &Self) -> bool {
        let Self {
            line: _,
            matches,
            by,
            rate,
        } = self;
        *matches == other.matches && *by == other.by && *rate == other.rate
    }
}

impl Limit {
    /// Where a rule is written, as `file:line`.
    pub fn place(&self, rule: usize) -> String {
        let line = self.rules.get(rule).map_or(0, |rule| rule.line);
        let line = if line == 0 { self.origin.line } else { line };
        format!("{}:{line}", self.origin.file)
    }
}
