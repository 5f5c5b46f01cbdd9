//! Candidates in the order of what they ask for, found by path (`spec/waypoint-l7.md` §2.2).
//!
//! Of exact paths only the request's own can match, and of prefixes only those it begins with, the
//! longest first: so paths are looked up where there are more than a handful of them. Patterns, which
//! come last, are tried one by one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::candidate::Candidate;
use super::path::prefix;
use super::{Asked, PathMatch};

/// So many paths are sooner compared than looked up.
const FEW: usize = 8;

/// Candidates, the most particular first.
#[derive(Clone, Debug)]
pub(super) struct Sorted {
    groups: Vec<Group>,
    index: Option<Index>,
}

/// Candidates of one path, in the order of what else they ask for. Never empty.
#[derive(Clone, Debug)]
struct Group(Vec<Candidate>);

/// Where the groups of a path are.
#[derive(Clone, Debug, Default)]
struct Index {
    exact: HashMap<Arc<str>, usize>,
    prefixes: HashMap<Arc<str>, usize>,
    /// Lengths of prefixes, the longest first.
    lengths: Vec<usize>,
    /// The first group that is neither.
    rest: usize,
}

/// What of a path decides, the first of two coming first: type, length, and the path itself where
/// two of the same length cannot both match.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a>(Type, Reverse<usize>, &'a str);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Type {
    Exact,
    Prefix,
    Other,
}

impl Sorted {
    /// Sorts candidates that are in the order of their routes, rules and matches, which holds among
    /// equals.
    pub(super) fn new(mut candidates: Vec<Candidate>) -> Self {
        candidates.sort_by(|a, b| {
            let weights = || b.conditions().weight().cmp(&a.conditions().weight());
            rank(a).cmp(&rank(b)).then_with(weights)
        });
        let mut groups: Vec<Group> = Vec::new();
        for candidate in candidates {
            match groups.last_mut() {
                Some(group) if group.is_of(&candidate) => group.0.push(candidate),
                _ => groups.push(Group(vec![candidate])),
            }
        }
        let index = (groups.len() > FEW).then(|| Index::new(&groups));
        Self { groups, index }
    }

    /// The first that takes a request.
    pub(super) fn select(&self, asked: &Asked<'_>) -> Option<&Candidate> {
        let Some(index) = &self.index else {
            return self.groups.iter().find_map(|group| group.select(asked));
        };
        let known = index.groups(asked.path);
        let found = known
            .filter_map(|at| self.groups.get(at))
            .find_map(|g| g.first(asked));
        let rest = || self.groups[index.rest..].iter();
        found.or_else(|| rest().find_map(|group| group.select(asked)))
    }
}

impl Group {
    /// Whether a candidate, next in order, has the same path.
    fn is_of(&self, next: &Candidate) -> bool {
        let Rank(kind, ..) = rank(next);
        kind != Type::Other && rank(&self.0[0]) == rank(next)
    }

    fn select(&self, asked: &Asked<'_>) -> Option<&Candidate> {
        let path = self.0[0].takes_path(asked.path);
        path.then(|| self.first(asked)).flatten()
    }

    /// The first whose other conditions hold.
    fn first(&self, asked: &Asked<'_>) -> Option<&Candidate> {
        self.0.iter().find(|candidate| candidate.takes_rest(asked))
    }
}

impl Index {
    fn new(groups: &[Group]) -> Self {
        let mut index = Self::default();
        for (at, group) in groups.iter().enumerate() {
            let Rank(kind, _, path) = rank(&group.0[0]);
            match kind {
                Type::Exact => {
                    index.exact.insert(Arc::from(path), at);
                }
                Type::Prefix => {
                    index.prefixes.insert(Arc::from(path), at);
                    index.lengths.push(path.len());
                }
                Type::Other => break,
            }
            index.rest = at + 1;
        }
        index.lengths.dedup();
        index
    }

    /// The groups of exact paths and prefixes that match a path, in order.
    fn groups(&self, path: &str) -> impl Iterator<Item = usize> {
        let exact = self.exact.get(path).copied();
        let lengths = self.lengths.iter();
        let prefixes = lengths.filter_map(move |length| {
            let ends = *length == 0 || matches!(path.as_bytes().get(*length), None | Some(b'/'));
            let prefix = path.get(..*length).filter(|_| ends)?;
            self.prefixes.get(prefix).copied()
        });
        exact.into_iter().chain(prefixes)
    }
}

fn rank(candidate: &Candidate) -> Rank<'_> {
    let matched = candidate.matched();
    match &matched.path {
        PathMatch::Exact(path) if !matched.ignore_case => {
            Rank(Type::Exact, Reverse(path.len()), path)
        }
        PathMatch::Prefix(path) if !matched.ignore_case => {
            let path = prefix(path);
            Rank(Type::Prefix, Reverse(path.len()), path)
        }
        PathMatch::Regex(pattern) => Rank(Type::Other, Reverse(pattern.source().len()), ""),
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::TextPrefix(path) => {
            Rank(Type::Other, Reverse(path.len()), "")
        }
    }
}

#[cfg(test)]
mod tests;
