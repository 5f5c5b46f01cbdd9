//! Picks an endpoint as the traffic policy says (`spec/waypoint-l7.md` §3.4, §3.6).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Group, Spread, State, lock};
use crate::model::balance::{
    Candidate, Grade, Grading, Pick, Table, hash, least, level, warmth, weighted,
};
use crate::model::service::ServiceKey;
use crate::model::traffic::{Balance, HashTable, LocalityPolicy, Settings, Warmup};
use crate::model::view::View;
use crate::model::waypoint::Subset;
use crate::model::workload::Workload;

/// Parts of a share, so that one of an endpoint that warms up is one, too.
const PARTS: u32 = 100;

/// Picks one of the candidates that a request or connection may go to.
pub(in crate::waypoint) struct Picker<'a> {
    pub(in crate::waypoint) group: &'a Group,
    pub(in crate::waypoint) settings: &'a Settings,
    /// The mesh's word on localities.
    pub(in crate::waypoint) locality: &'a LocalityPolicy,
    pub(in crate::waypoint) view: &'a Arc<View>,
    /// The endpoints, where more is known of them than the mesh says.
    pub(in crate::waypoint) among: Option<&'a [Arc<Workload>]>,
    /// The waypoint's instance.
    pub(in crate::waypoint) source: &'a Workload,
    pub(in crate::waypoint) subset: Option<&'a Subset>,
    /// The key of what always goes to the same endpoint.
    pub(in crate::waypoint) hash: Option<u64>,
    pub(in crate::waypoint) now: Instant,
}

impl Pick for Picker<'_> {
    fn pick(&mut self, service: &ServiceKey, _port: u16, candidates: &[Candidate<'_>]) -> usize {
        let picked = self.picked(service, candidates);
        // One beyond the candidates refuses.
        picked.unwrap_or(candidates.len())
    }

    fn prefers(&self) -> bool {
        true
    }
}

/// Those that are left, with their places among the candidates.
struct Left<'a> {
    candidates: Vec<Candidate<'a>>,
    places: Vec<usize>,
    /// The level or share they are of.
    class: usize,
}

impl<'a> Left<'a> {
    fn new(candidates: &[Candidate<'a>], left: Vec<bool>, class: usize) -> Self {
        let both = candidates.iter().enumerate().zip(left);
        let both = both.filter(|(_, left)| *left).map(|(both, _)| both);
        let (places, candidates) = both.map(|(place, c)| (place, *c)).unzip();
        Self {
            candidates,
            places,
            class,
        }
    }
}

impl Picker<'_> {
    fn picked(&self, service: &ServiceKey, candidates: &[Candidate<'_>]) -> Option<usize> {
        let declared = self.view.service(service)?;
        let (rule, outliers) = (
            &self.settings.load_balancer,
            self.settings.outlier_detection,
        );
        let grading = Grading::new(
            self.source,
            declared,
            rule.locality.as_ref(),
            self.locality,
            outliers.is_some(),
        );
        let all = self.all(service);
        let mut state = lock(&self.group.state);
        state.used = self.now;
        state.detection = outliers;
        state.look(self.now);
        // Those whose names are resolved change while the mesh does not.
        if self.among.is_some() || !state.knows(self.view, all.len()) {
            state.meet(all.iter().map(|w| &w.uid), self.now);
        }
        let usable = usable(&state, candidates, all.len(), self.settings);
        let left = self.narrowed(&grading, &all, candidates, &usable)?;
        let at = self.among(&mut state, service, &all, &left)?;
        left.places.get(at).copied()
    }

    /// Every endpoint, well or not, in the order of uids.
    fn all(&self, service: &ServiceKey) -> Vec<&Arc<Workload>> {
        let all = self.among.unwrap_or_else(|| self.view.endpoints(service));
        let all = all.iter();
        let here = all.filter(|w| w.capacity > 0 && w.network == self.source.network);
        let subset = self.subset;
        here.filter(|w| subset.is_none_or(|s| s.uids.contains(&w.uid)))
            .collect()
    }

    /// Those of the level or share whose turn it is.
    fn narrowed<'c>(
        &self,
        grading: &Grading<'_>,
        all: &[&Arc<Workload>],
        candidates: &[Candidate<'c>],
        usable: &[bool],
    ) -> Option<Left<'c>> {
        if grading.is_flat() {
            return Some(Left::new(candidates, usable.to_vec(), 0));
        }
        let grades: Vec<_> = candidates
            .iter()
            .map(|c| grading.grade(c.workload))
            .collect();
        let classes = classes(grading, all, &grades, usable);
        let draw = match self.hash {
            Some(key) => fraction(hash(b"level", key)),
            None => rand::random(),
        };
        let (class, wanted) = match grading.shares().next() {
            None => level(&classes, draw).map(|l| (l, Grade::Level(l)))?,
            Some(_) => share(grading, &classes, draw).map(|s| (s, Grade::Share(s)))?,
        };
        let left = grades.iter().zip(usable);
        let left = left.map(|(grade, usable)| *usable && *grade == wanted);
        Some(Left::new(candidates, left.collect(), class))
    }

    fn among(
        &self,
        state: &mut State,
        service: &ServiceKey,
        all: &[&Arc<Workload>],
        left: &Left<'_>,
    ) -> Option<usize> {
        let warmup = self.settings.load_balancer.warmup.as_ref();
        let share = |c: &Candidate<'_>| warmed(state, c, warmup, self.now);
        let shares: Vec<u32> = left.candidates.iter().map(share).collect();
        match &self.settings.load_balancer.policy {
            Balance::LeastRequest => {
                let under_way = |c: &Candidate<'_>| {
                    let host = state.hosts.get(&c.workload.uid);
                    host.map_or(0, |host| host.under_way)
                };
                let busy = shares.iter().zip(&left.candidates);
                let busy: Vec<_> = busy.map(|(share, c)| (*share, under_way(c))).collect();
                least(&busy, rand::random())
            }
            Balance::RoundRobin => {
                let candidates = left.candidates.iter().zip(shares);
                let candidates: Vec<_> = candidates
                    .map(|(c, share)| Candidate { share, ..*c })
                    .collect();
                // Each level takes turns of its own, or one would upset another's.
                let class = u16::try_from(left.class).unwrap_or(u16::MAX);
                (!candidates.is_empty()).then(|| state.turns.pick(service, class, &candidates))
            }
            Balance::Hash { table, .. } if self.hash.is_some() => {
                let key = self.hash?;
                hashed(state, *table, all, &left.candidates, key)
            }
            // One that was asked for is no matter of choice, and has been found before.
            Balance::Random | Balance::Passthrough | Balance::Hash { .. } => {
                weighted(shares, rand::random())
            }
        }
    }
}

/// Who may be used: whoever is not out, or all where so many are that it says nothing of them.
fn usable(state: &State, candidates: &[Candidate<'_>], all: usize, rule: &Settings) -> Vec<bool> {
    let is_in = |c: &Candidate<'_>| !state.outliers.is_out(&c.workload.uid);
    let usable: Vec<bool> = candidates.iter().map(is_in).collect();
    let least = rule.outlier_detection.map_or(0, |r| r.min_health_percent);
    let least = usize::try_from(least).unwrap_or(100);
    if usable.iter().filter(|usable| **usable).count() * 100 < least * all {
        return vec![true; candidates.len()];
    }
    usable
}

/// Of each level or share, how many can be used of how many.
fn classes(
    grading: &Grading<'_>,
    all: &[&Arc<Workload>],
    grades: &[Grade],
    usable: &[bool],
) -> Vec<(usize, usize)> {
    let mut classes: Vec<(usize, usize)> = vec![(0, 0); grading.shares().count()];
    let mut class = |grade| match grade {
        Grade::Level(n) | Grade::Share(n) => {
            if classes.len() <= n {
                classes.resize(n + 1, (0, 0));
            }
            n
        }
        Grade::Nothing => usize::MAX,
    };
    let numbers: Vec<_> = all.iter().map(|w| class(grading.grade(w))).collect();
    let picked = grades.iter().zip(usable).filter(|(_, usable)| **usable);
    let used: Vec<_> = picked.map(|(grade, _)| class(*grade)).collect();
    for n in numbers {
        if let Some(class) = classes.get_mut(n) {
            class.1 += 1;
        }
    }
    for n in used {
        if let Some(class) = classes.get_mut(n) {
            class.0 += 1;
        }
    }
    classes
}

/// The fixed share that a draw falls on. One of which many fail gets less, as Envoy has it.
fn share(grading: &Grading<'_>, classes: &[(usize, usize)], draw: f64) -> Option<usize> {
    let able = |(usable, all): &(usize, usize)| match all {
        0 => 0,
        all => u32::try_from((usable * 140 / all).min(100)).unwrap_or(100),
    };
    let shares = grading.shares().zip(classes);
    let shares: Vec<_> = shares
        .map(|(percent, class)| percent * able(class))
        .collect();
    weighted(shares, draw)
}

fn warmed(state: &State, candidate: &Candidate<'_>, warmup: Option<&Warmup>, now: Instant) -> u32 {
    let host = state.hosts.get(&candidate.workload.uid);
    let Some((warmup, since)) = warmup.zip(host.and_then(|host| host.since)) else {
        return candidate.share.saturating_mul(PARTS);
    };
    let warmth = warmth(warmup, now.saturating_duration_since(since));
    let parts = f64::from(candidate.share) * f64::from(PARTS) * warmth;
    // A share is never so large that its parts are not a whole number to us.
    (parts.min(f64::from(u32::MAX)) as u32).max(1)
}

/// The endpoint of a key among those that are left, in a table of all of them: so that one who is left
/// out for a while moves no key but its own.
fn hashed(
    state: &mut State,
    kind: HashTable,
    all: &[&Arc<Workload>],
    left: &[Candidate<'_>],
    key: u64,
) -> Option<usize> {
    let places = left.iter().enumerate();
    let places: HashMap<&str, usize> = places.map(|(at, c)| (&*c.workload.uid, at)).collect();
    if places.is_empty() {
        return None;
    }
    let spread = match state.table.take() {
        Some(spread) if spread.kind == kind && spread.is_of(all) => spread,
        Some(_) | None => Spread::new(kind, all),
    };
    let place = |endpoint: usize| places.get(&*all.get(endpoint)?.uid).copied();
    let found = spread.table.find(key, |endpoint| place(endpoint).is_some());
    state.table = Some(spread);
    found.and_then(place)
}

impl Spread {
    fn new(kind: HashTable, all: &[&Arc<Workload>]) -> Self {
        let of: Vec<_> = all
            .iter()
            .map(|w| (Arc::clone(&w.uid), w.capacity))
            .collect();
        let named: Vec<_> = of.iter().map(|(uid, share)| (&**uid, *share)).collect();
        Self {
            table: Table::new(kind, &named),
            kind,
            of,
        }
    }

    fn is_of(&self, all: &[&Arc<Workload>]) -> bool {
        let now = all.iter().map(|w| (&w.uid, w.capacity));
        now.eq(self.of.iter().map(|(uid, share)| (uid, *share)))
    }
}

/// A number from 0 to 1.
fn fraction(hash: u64) -> f64 {
    // The mantissa's 53 bits.
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
