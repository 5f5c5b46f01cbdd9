//! Taking turns: smooth weighted round-robin, as nginx does it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Candidate, Pick};
use crate::model::service::ServiceKey;

/// Services remembered before the memory starts over; far above what one host talks to.
const SERVICES: usize = 65_536;

/// Turns that may be skipped at first: enough to spread clients that start together, and few
/// enough that the first connection to a large service waits for nothing.
const SKIPPED: usize = 256;

/// Gives each endpoint turns in proportion to its share, evenly spread.
///
/// Each port of each service has turns of its own, so that connections to one do not move the
/// order of another. Over as many picks as the shares add up to, the shares are exact.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    start: usize,
    services: HashMap<ServiceKey, BTreeMap<u16, Turns>>,
}

impl RoundRobin {
    /// One whose turns begin as if `start` had been taken before. Given a different number on each
    /// host, hosts that open one connection each do not all open it to the same endpoint.
    pub fn starting_after(start: usize) -> Self {
        Self {
            start,
            services: HashMap::new(),
        }
    }

    fn turns(&mut self, service: &ServiceKey) -> &mut BTreeMap<u16, Turns> {
        if self.services.len() >= SERVICES && !self.services.contains_key(service) {
            self.services.clear();
        }
        self.services.entry(service.clone()).or_default()
    }
}

impl Pick for RoundRobin {
    fn pick(&mut self, service: &ServiceKey, port: u16, candidates: &[Candidate<'_>]) -> usize {
        let start = self.start;
        let turns = self.turns(service).entry(port).or_insert_with(|| {
            let mut turns = Turns::default();
            turns.skip(start, candidates);
            turns
        });
        turns.next(candidates)
    }
}

/// What each candidate is owed, in the order of the candidates.
#[derive(Clone, Debug, Default)]
struct Turns(Vec<(Arc<str>, i64)>);

impl Turns {
    fn skip(&mut self, start: usize, candidates: &[Candidate<'_>]) {
        let round: u64 = candidates.iter().map(share).sum::<i64>().unsigned_abs();
        let round = usize::try_from(round).unwrap_or(SKIPPED).min(SKIPPED);
        for _ in 0..start.checked_rem(round).unwrap_or(0) {
            self.next(candidates);
        }
    }

    /// Everyone is owed their share more; whoever is owed the most, the first of equals, gets
    /// the turn and pays for the round.
    fn next(&mut self, candidates: &[Candidate<'_>]) -> usize {
        self.admit(candidates);
        let mut chosen = (0, i64::MIN);
        let mut round = 0;
        for (index, (candidate, (_, owed))) in candidates.iter().zip(&mut self.0).enumerate() {
            round += share(candidate);
            *owed += share(candidate);
            if *owed > chosen.1 {
                chosen = (index, *owed);
            }
        }
        if let Some((_, owed)) = self.0.get_mut(chosen.0) {
            *owed -= round;
        }
        chosen.0
    }

    /// Lets new candidates in with nothing owed and forgets those that have left.
    fn admit(&mut self, candidates: &[Candidate<'_>]) {
        let known = self.0.iter().map(|(uid, _)| uid);
        if known.eq(candidates.iter().map(|c| &c.workload.uid)) {
            return;
        }
        let before: HashMap<Arc<str>, i64> = self.0.drain(..).collect();
        self.0.extend(candidates.iter().map(|c| {
            let owed = before.get(&c.workload.uid).copied().unwrap_or_default();
            (Arc::clone(&c.workload.uid), owed)
        }));
    }
}

fn share(candidate: &Candidate<'_>) -> i64 {
    i64::from(candidate.share)
}
