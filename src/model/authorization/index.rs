//! Which rules of many can mean what was asked, without a look at each of them.
//!
//! Most rules ask for a path or for a principal that begins with something. A rule is found under what
//! it asks for; one that asks for neither is looked at each time. What is found is then judged as
//! ever, so that the index decides nothing but what is left out.

use std::collections::HashMap;
use std::sync::Arc;

use super::rule::Judge;
use super::{Asked, Authorization, template};
use crate::model::declaration::{PathPattern, Rule};
use crate::model::policy::{Pattern, Peer};

/// Where a rule stands: its policy among others, its own place in it.
pub(super) type Place = (usize, usize);

/// The rules of policies of one action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    paths: Prefixes,
    principals: Prefixes,
    others: Vec<Place>,
}

/// Rules by what a text has to begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Prefixes {
    rules: HashMap<Box<[u8]>, Vec<Place>>,
    /// How long those beginnings are, each length once.
    lengths: Vec<usize>,
}

impl Index {
    pub(super) fn new(policies: &[Arc<Authorization>]) -> Self {
        let rules = || {
            let numbered = policies.iter().enumerate();
            numbered.flat_map(|(policy, p)| {
                let rules = p.rules.iter().enumerate();
                rules.map(move |(rule, r)| ((policy, rule), r))
            })
        };
        let (mut by_path, mut by_principal) = (HashMap::new(), HashMap::new());
        for (_, rule) in rules() {
            count(&mut by_path, paths_of(rule));
            count(&mut by_principal, principals_of(rule));
        }
        let mut index = Self::default();
        for (place, rule) in rules() {
            let crowd = |counts: &HashMap<&[u8], usize>, keys: &[&[u8]]| {
                keys.iter().filter_map(|key| counts.get(key)).sum::<usize>()
            };
            let (paths, principals) = (paths_of(rule), principals_of(rule));
            match (paths, principals) {
                (Some(paths), Some(principals))
                    if crowd(&by_principal, &principals) < crowd(&by_path, &paths) =>
                {
                    index.principals.add(&principals, place);
                }
                (Some(paths), _) => index.paths.add(&paths, place),
                (None, Some(principals)) => index.principals.add(&principals, place),
                (None, None) => index.others.push(place),
            }
        }
        index
    }

    /// The first written rule that matches. A connection that is no HTTP is taken to have any path
    /// ([`Judge::matches`]); whoever has proven to be nobody has no principal.
    pub(super) fn first(
        &self,
        policies: &[Arc<Authorization>],
        asked: &Asked<'_>,
    ) -> Option<Place> {
        let mut found: Option<Place> = None;
        let mut consider = |place: Place| {
            let sooner = found.is_none_or(|found| place < found);
            if sooner && is_matched(policies, place, asked) {
                found = Some(place);
            }
        };
        match asked.http {
            Some(http) => self.paths.of(http.path).for_each(&mut consider),
            None => self.paths.all().for_each(&mut consider),
        }
        if let Some(principal) = asked.peer.map(Peer::principal) {
            self.principals.of(principal).for_each(&mut consider);
        }
        self.others.iter().copied().for_each(&mut consider);
        found
    }
}

impl Prefixes {
    fn add(&mut self, keys: &[&[u8]], place: Place) {
        for key in keys {
            let rules = self.rules.entry(Box::from(*key)).or_default();
            if rules.last() != Some(&place) {
                rules.push(place);
            }
            if !self.lengths.contains(&key.len()) {
                self.lengths.push(key.len());
            }
        }
    }

    /// Those that a text begins as.
    fn of<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Place> + 'a {
        let begins = self
            .lengths
            .iter()
            .filter_map(|len| text.as_bytes().get(..*len));
        begins
            .filter_map(|begin| self.rules.get(begin))
            .flatten()
            .copied()
    }

    fn all(&self) -> impl Iterator<Item = Place> + '_ {
        self.rules.values().flatten().copied()
    }
}

fn count<'a>(counts: &mut HashMap<&'a [u8], usize>, keys: Option<Vec<&'a [u8]>>) {
    for key in keys.into_iter().flatten() {
        *counts.entry(key).or_default() += 1;
    }
}

/// What the path of a request begins with where the rule matches it; none where it can be any.
fn paths_of(rule: &Rule) -> Option<Vec<&[u8]>> {
    let operations = rule.to.iter().map(|operation| &operation.paths.any);
    keys(operations, path)
}

/// What the principal of the peer begins with where the rule matches him; none where he can be any.
fn principals_of(rule: &Rule) -> Option<Vec<&[u8]>> {
    keys(
        rule.from.iter().map(|source| &source.principals.any),
        beginning,
    )
}

/// One key for each alternative; none where there is one without.
fn keys<'a, T: 'a>(
    alternatives: impl Iterator<Item = &'a Vec<T>>,
    key: impl Fn(&'a T) -> Option<&'a [u8]>,
) -> Option<Vec<&'a [u8]>> {
    let mut keys = Vec::new();
    for values in alternatives {
        if values.is_empty() {
            return None;
        }
        for value in values {
            keys.push(key(value)?);
        }
    }
    Some(keys).filter(|keys| !keys.is_empty())
}

fn path(path: &PathPattern) -> Option<&[u8]> {
    match path {
        PathPattern::Text(pattern) => beginning(pattern),
        PathPattern::Template(template) => Some(template::beginning(template).as_bytes()),
    }
}

fn beginning(pattern: &Pattern) -> Option<&[u8]> {
    match pattern {
        Pattern::Exact(text) | Pattern::Prefix(text) => Some(text.as_bytes()),
        Pattern::Suffix(_) | Pattern::Present => None,
    }
}

fn is_matched(policies: &[Arc<Authorization>], (policy, rule): Place, asked: &Asked<'_>) -> bool {
    policies.get(policy).is_some_and(|policy| {
        let rule = policy.rules.get(rule);
        rule.is_some_and(|rule| Judge::of(policy, asked).matches(rule))
    })
}
