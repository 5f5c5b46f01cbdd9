//! How much of what is asked has passed: the counts of rate limits, per instance of the waypoint
//! (`spec/waypoint-l7.md` §9).
//!
//! What a rule has counted stays with it for as long as some revision in use has the same rule in the
//! same limit, whatever else changes. Requests run on several threads, so the counts of a rule are in
//! parts, each behind a lock that is held for one look-up in a table; a look for room is a thousand
//! times longer, and comes once a second at most.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::model::attached::PolicyKey;
use crate::model::limit::{Bucket, Buckets, Limit, Rate, Rule, Standing, Subject};
use crate::model::route::Matcher;

/// The most subjects that a rule counts apart, some 5 MB of them. Those beyond share one bucket.
const MOST_SUBJECTS: usize = 100_000;
/// Parts of a rule's counts.
const PARTS: usize = 16;

/// The counts of all rules that are in use.
pub(super) struct Counters {
    /// Since when time is counted.
    begun: Instant,
    known: Mutex<HashMap<PolicyKey, Vec<Known>>>,
}

/// The counts of a rule, for as long as anybody uses them.
struct Known {
    rule: Rule,
    counter: Weak<Counter>,
}

/// A limit, its rules ready to count.
pub(super) struct Counted {
    pub(super) limit: Arc<Limit>,
    begun: Instant,
    rules: Vec<CountedRule>,
}

struct CountedRule {
    matchers: Vec<Matcher>,
    counter: Arc<Counter>,
}

/// A rule that takes a request.
pub(super) struct Taking<'a> {
    pub(super) limit: &'a Arc<Limit>,
    /// By its place in the list.
    pub(super) at: usize,
    pub(super) rule: &'a Rule,
    counter: &'a Counter,
    /// What time it is.
    now: Duration,
}

/// The counts of one rule.
struct Counter {
    /// Of a key that nobody knows, or clients could choose whose bucket they fill.
    hash: RandomState,
    parts: [Mutex<Buckets>; PARTS],
    /// Of all for whom there is no room.
    crowd: Mutex<Bucket>,
}

/// A token that was taken, if it was.
pub(super) struct Token<'a> {
    counter: &'a Counter,
    rate: Rate,
    /// Whose; none where it was the crowd's.
    subject: Option<u64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            known: Mutex::default(),
        }
    }
}

impl Counters {
    /// A limit with what its rules have counted so far.
    pub(super) fn counted(&self, limit: &Arc<Limit>) -> Counted {
        let mut all = locked(&self.known);
        let mut known = all.remove(&limit.key).unwrap_or_default();
        known.retain(|one| one.counter.strong_count() > 0);
        let mut counters: Vec<Arc<Counter>> = Vec::new();
        for rule in &limit.rules {
            let alike = known.iter().filter(|one| one.rule.is_as(rule));
            let mut alike = alike.filter_map(|one| one.counter.upgrade());
            // Two that are alike count each for itself.
            let free = alike.find(|one| counters.iter().all(|taken| !Arc::ptr_eq(taken, one)));
            drop(alike);
            let counter = free.unwrap_or_else(|| {
                let counter = Arc::new(Counter::new(MOST_SUBJECTS));
                known.push(Known {
                    rule: rule.clone(),
                    counter: Arc::downgrade(&counter),
                });
                counter
            });
            counters.push(counter);
        }
        all.retain(|_, known| known.iter().any(|one| one.counter.strong_count() > 0));
        all.insert(limit.key.clone(), known);
        let rules = limit.rules.iter().zip(counters);
        let rules = rules.map(|(rule, counter)| CountedRule {
            matchers: rule.matches.iter().map(Matcher::new).collect(),
            counter,
        });
        Counted {
            rules: rules.collect(),
            limit: Arc::clone(limit),
            begun: self.begun,
        }
    }
}

impl Counted {
    /// The rules that are for a request, by what `takes` says of their matches.
    pub(super) fn taking(
        &self,
        takes: impl Fn(&Matcher) -> bool,
    ) -> impl Iterator<Item = Taking<'_>> {
        let now = self.begun.elapsed();
        let rules = self.limit.rules.iter().zip(&self.rules).enumerate();
        let taking = rules.filter(move |(_, (_, counted))| counted.matchers.iter().any(&takes));
        taking.map(move |(at, (rule, counted))| Taking {
            limit: &self.limit,
            at,
            rule,
            counter: &counted.counter,
            now,
        })
    }
}

impl<'a> Taking<'a> {
    /// Takes a token of a subject, if there is one.
    pub(super) fn take(&self, subject: &Subject<'_>) -> (Standing, Token<'a>) {
        self.counter.take(subject, self.rule.rate, self.now)
    }
}

impl Counter {
    fn new(most: usize) -> Self {
        Self {
            hash: RandomState::new(),
            parts: std::array::from_fn(|_| Mutex::new(Buckets::new(most / PARTS))),
            crowd: Mutex::default(),
        }
    }

    fn part(&self, subject: u64) -> MutexGuard<'_, Buckets> {
        // The tables in the parts go by the other end of the number.
        let part = usize::try_from(subject >> 32).unwrap_or_default() % PARTS;
        locked(&self.parts[part])
    }

    fn take(&self, subject: &Subject<'_>, rate: Rate, now: Duration) -> (Standing, Token<'_>) {
        let subject = self.hash.hash_one(subject);
        let own = self
            .part(subject)
            .of(subject, rate, now)
            .map(|b| b.take(rate, now));
        let token = Token {
            counter: self,
            rate,
            subject: own.map(|_| subject),
        };
        let standing = own.unwrap_or_else(|| locked(&self.crowd).take(rate, now));
        (standing, token)
    }
}

impl Token<'_> {
    /// Puts it back: what was asked did not pass for another reason.
    pub(super) fn give_back(self) {
        let Self {
            counter,
            rate,
            subject,
        } = self;
        match subject {
            // One that is gone was full.
            Some(subject) => {
                if let Some(bucket) = counter.part(subject).known(subject) {
                    bucket.give_back(rate);
                }
            }
            None => locked(&counter.crowd).give_back(rate),
        }
    }
}

/// Nothing is half done where a thread died.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
