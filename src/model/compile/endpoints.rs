//! Which endpoints of a service are given traffic (`spec/control-plane.md` §7.3).
//!
//! Two things are decided for a service as a whole, where everything is known: an endpoint that is
//! held back for flapping is used after all when the service has no other, and a service without
//! any healthy endpoint is served by all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::reuse::{Change, Entry};
use crate::model::service::{HealthPolicy, ServiceKey};
use crate::model::workload::{Health, Workload};

/// How many endpoints a service has. Those that take no share of its traffic do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Those that should be given traffic.
    pub healthy: u32,
    /// All of them.
    pub total: u32,
}

impl Endpoints {
    /// Whether all fail, so that all are used: the fault may be in judging them, and a slim chance
    /// is better than none.
    pub fn all_failing(self) -> bool {
        self.healthy == 0 && self.total > 0
    }

    pub(super) fn policy(self) -> HealthPolicy {
        match self.all_failing() {
            true => HealthPolicy::AllowAll,
            false => HealthPolicy::OnlyHealthy,
        }
    }
}

/// The endpoints of each service that has any.
pub type ByService = BTreeMap<ServiceKey, Endpoints>;

/// Takes those that are held back out of service, but never the last healthy ones of a service,
/// and counts what is left.
pub(super) fn settle(workloads: &mut [Arc<Workload>], held: &BTreeSet<Arc<str>>) -> ByService {
    hold_back(workloads, held);
    let mut counts: HashMap<&ServiceKey, Endpoints> = HashMap::new();
    for workload in workloads.iter().filter(|w| w.capacity > 0) {
        for key in workload.services.keys() {
            let count = counts.entry(key).or_default();
            count.total += 1;
            count.healthy += u32::from(workload.health == Health::Healthy);
        }
    }
    let owned = |(key, count): (&ServiceKey, Endpoints)| (key.clone(), count);
    counts.into_iter().map(owned).collect()
}

/// The counts after a change of workloads, none of which is or was held back.
pub(super) fn recount(before: &ByService, change: &Change<'_>) -> ByService {
    let mut counts = before.clone();
    let shares = |entry: &&Entry| entry.workload.capacity > 0;
    for entry in change.come().filter(shares) {
        for key in entry.workload.services.keys() {
            let count = counts.entry(key.clone()).or_default();
            count.total += 1;
            count.healthy += u32::from(entry.workload.health == Health::Healthy);
        }
    }
    for entry in change.gone().filter(shares) {
        for key in entry.workload.services.keys() {
            if let Some(count) = counts.get_mut(key) {
                count.total -= 1;
                count.healthy -= u32::from(entry.workload.health == Health::Healthy);
                if count.total == 0 {
                    counts.remove(key);
                }
            }
        }
    }
    counts
}

fn hold_back(workloads: &mut [Arc<Workload>], held: &BTreeSet<Arc<str>>) {
    let held = |w: &Arc<Workload>| w.health == Health::Healthy && held.contains(&w.uid);
    if !workloads.iter().any(held) {
        return;
    }
    let firm = |w: &&Arc<Workload>| w.health == Health::Healthy && w.capacity > 0 && !held(w);
    let firm = workloads.iter().filter(firm);
    let served: BTreeSet<ServiceKey> = firm.flat_map(|w| w.services.keys()).cloned().collect();
    for workload in workloads.iter_mut().filter(|w| held(w)) {
        if workload.services.keys().all(|key| served.contains(key)) {
            Arc::make_mut(workload).health = Health::Unhealthy;
        }
    }
}

#[cfg(test)]
mod tests;
