//! One match of one rule: what a request is held against (`spec/waypoint-l7.md` §2.2).

use std::sync::Arc;

use super::conditions::Conditions;
use super::table::rule_name;
use super::{Asked, Chosen, Match, Route};

/// A match of a rule, its header names parsed.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    route: Arc<Route>,
    /// Its rule, which is there.
    rule: usize,
    /// The rule's match, which is there.
    matched: usize,
    name: Arc<str>,
    conditions: Conditions,
}

impl Candidate {
    /// All of a route, in the order they are written.
    pub(super) fn all(route: &Arc<Route>) -> Vec<Self> {
        let rules = route.rules.iter().enumerate();
        let of_rule = |(rule, written): (usize, &super::Rule<_>)| {
            let name = rule_name(route, rule);
            let matches = written.matches.iter().enumerate();
            let candidate = |(matched, of): (usize, &Match)| Self {
                route: Arc::clone(route),
                rule,
                matched,
                name: Arc::clone(&name),
                conditions: Conditions::of(of),
            };
            matches.map(candidate).collect::<Vec<_>>()
        };
        rules.flat_map(of_rule).collect()
    }

    /// What it was made from.
    pub(super) fn matched(&self) -> &Match {
        &self.route.rules[self.rule].matches[self.matched]
    }

    /// What a request has to meet beside the path.
    pub(super) fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Whether a request's path is meant.
    pub(super) fn takes_path(&self, path: &str) -> bool {
        let matched = self.matched();
        matched.path.is_match(path, matched.ignore_case)
    }

    /// Whether a request is meant, its path left aside.
    pub(super) fn takes_rest(&self, asked: &Asked<'_>) -> bool {
        self.conditions.hold(asked)
    }

    pub(super) fn chosen(&self) -> Chosen<'_> {
        Chosen {
            route: &self.route,
            rule: &self.route.rules[self.rule],
            matched: self.matched(),
            name: &self.name,
        }
    }
}
