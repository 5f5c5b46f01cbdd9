//! A match by itself, for whoever has requests to tell apart and no route.

use super::conditions::Conditions;
use super::{Asked, Match};

/// A match made ready to be asked often.
#[derive(Clone, Debug)]
pub struct Matcher {
    of: Match,
    conditions: Conditions,
}

impl Matcher {
    /// The same as a match.
    pub fn new(of: &Match) -> Self {
        Self {
            conditions: Conditions::of(of),
            of: of.clone(),
        }
    }

    /// Whether it takes a request.
    pub fn takes(&self, asked: &Asked<'_>) -> bool {
        self.of.path.is_match(asked.path, self.of.ignore_case) && self.conditions.hold(asked)
    }
}
