//! What changed from each revision to the next.
//!
//! A client that is behind learns the union of what changed since; a client that is behind further
//! than the history goes is sent away to reconnect with the versions it holds
//! (`spec/control-plane.md` §3.4 rule 5).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::revision::Kind;

/// Names of resources that were added, changed or removed.
pub type Names = BTreeSet<Arc<str>>;

/// How long a change is remembered; ten times what a client may take to acknowledge one.
const LONGEST: Duration = Duration::from_secs(600);

/// How many changed names are remembered at most: about 100 MB of names at the worst.
const MOST_NAMES: usize = 1_000_000;

/// What differs between two revisions. The revision resource itself always does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Workloads and services.
    pub addresses: Names,
    /// Policies.
    pub authorizations: Names,
    /// Whom to believe.
    pub trust: Names,
    /// Placements, by the node that sees them.
    pub placements: BTreeMap<Arc<str>, Names>,
    /// What waypoints are told, by the node that sees it.
    pub waypoints: BTreeMap<Arc<str>, Names>,
}

impl Changes {
    /// The changed names of a type, as `node` sees it.
    pub fn names(&self, kind: Kind, node: &str) -> Option<&Names> {
        match kind {
            Kind::Address => Some(&self.addresses),
            Kind::Authorization => Some(&self.authorizations),
            Kind::Trust => Some(&self.trust),
            Kind::Placement => self.placements.get(node),
            Kind::Waypoint => self.waypoints.get(node),
            Kind::Revision => None,
        }
    }

    fn count(&self) -> usize {
        let seen_by_one = self.placements.values().chain(self.waypoints.values());
        let placed: usize = seen_by_one.map(BTreeSet::len).sum();
        self.addresses.len() + self.authorizations.len() + self.trust.len() + placed
    }
}

#[derive(Debug)]
struct Step {
    from: u64,
    at: SystemTime,
    changes: Changes,
}

/// The steps that led to a revision, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    steps: VecDeque<Arc<Step>>,
    names: usize,
}

impl History {
    /// This history and one more step, away from revision `from` at time `at`.
    pub fn followed_by(&self, from: u64, at: SystemTime, changes: Changes) -> Self {
        let mut next = self.clone();
        next.names += changes.count();
        next.steps.push_back(Arc::new(Step { from, at, changes }));
        let old = |step: &Step| at.duration_since(step.at).is_ok_and(|age| age > LONGEST);
        while next.steps.len() > 1 {
            match next.steps.pop_front() {
                Some(first) if old(&first) || next.names > MOST_NAMES => {
                    next.names -= first.changes.count();
                }
                Some(first) => {
                    next.steps.push_front(first);
                    break;
                }
                None => break,
            }
        }
        next
    }

    /// The changes since revision `number`, oldest first; none when that is not remembered.
    pub fn since(&self, number: u64) -> Option<impl Iterator<Item = &Changes>> {
        let first = self.steps.iter().position(|step| step.from == number)?;
        Some(self.steps.range(first..).map(|step| &step.changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn changes(names: &[&str]) -> Changes {
        Changes {
            addresses: names.iter().map(|n| Arc::from(*n)).collect(),
            ..Changes::default()
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn names_since(history: &History, number: u64) -> Option<Vec<String>> {
        let steps = history.since(number)?;
        let names = steps.flat_map(|changes| changes.addresses.iter());
        Some(names.map(ToString::to_string).collect())
    }

    #[test]
    fn remembers_the_union_since() {
        let history = History::default()
            .followed_by(1, at(0), changes(&["a"]))
            .followed_by(2, at(1), changes(&["b"]))
            .followed_by(7, at(2), changes(&["c"]));
        for (name, since, want) in [
            ("all", 1, Some(vec!["a", "b", "c"])),
            ("the last", 7, Some(vec!["c"])),
            ("a number that never was", 5, None),
            ("before the beginning", 0, None),
        ] {
            let want: Option<Vec<String>> =
                want.map(|w| w.into_iter().map(str::to_owned).collect());
            assert_eq!(names_since(&history, since), want, "{name}");
        }
    }

    #[test]
    fn forgets_what_is_old_but_not_the_last_step() {
        let history = History::default()
            .followed_by(1, at(0), changes(&["a"]))
            .followed_by(2, at(500), changes(&["b"]))
            .followed_by(3, at(700), changes(&["c"]));
        assert_eq!(names_since(&history, 1), None);
        assert!(names_since(&history, 2).is_some());
        let later = history.followed_by(4, at(5_000), changes(&["d"]));
        assert_eq!(names_since(&later, 4), Some(vec!["d".to_owned()]));
        assert_eq!(later.names, 1);
    }
}
