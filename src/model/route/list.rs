//! Rules of several routes in the order they are tried (`spec/waypoint-l7.md` §2.2, §3.1).

use std::sync::Arc;

use super::candidate::Candidate;
use super::sorted::Sorted;
use super::{Asked, Kind, Route};

/// The rules of some routes: those of Gateway API by what they ask for, then those of
/// `virtual-service` as they are written.
#[derive(Clone, Debug)]
pub(super) struct List {
    sorted: Sorted,
    written: Vec<Candidate>,
    empty: bool,
}

impl List {
    /// The rules of routes that are in ORDER.
    pub(super) fn new(routes: &[Arc<Route>]) -> Self {
        let is_written = |route: &&Arc<Route>| route.key.kind == Kind::VirtualService;
        let (written, sorted): (Vec<_>, Vec<_>) = routes.iter().partition(is_written);
        let all = |routes: Vec<&Arc<Route>>| routes.into_iter().flat_map(Candidate::all).collect();
        Self {
            sorted: Sorted::new(all(sorted)),
            written: all(written),
            empty: routes.iter().all(|route| route.rules.is_empty()),
        }
    }

    /// Whether there is no rule at all.
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// The first that takes a request.
    pub(super) fn select(&self, asked: &Asked<'_>) -> Option<&Candidate> {
        let written = || {
            let mut written = self.written.iter();
            written.find(|c| c.takes_path(asked.path) && c.takes_rest(asked))
        };
        self.sorted.select(asked).or_else(written)
    }
}
