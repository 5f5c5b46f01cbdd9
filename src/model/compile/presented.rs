//! Whom stock peers meet at addresses that several workloads share (`spec/control-plane.md` §11).
//!
//! Such a peer names nobody, so it meets the first of them by uid. It is told to take that one for an
//! endpoint of the services behind the address: the keys of all who share it are on that machine anyway.
//! Our own peers ask by name and take the endpoint alone ([`crate::model::outbound`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::reuse::{Change, Entry};
use crate::model::service::ServiceKey;
use crate::model::sharing::shares;
use crate::model::workload::Workload;

/// Names to take besides the endpoints' own, by service.
pub(super) type Presented = BTreeMap<ServiceKey, BTreeSet<Arc<str>>>;

/// What follows from `entries`, which are in the order of their uids.
pub(super) fn presented(entries: &[Entry]) -> Presented {
    let sharers = || entries.iter().filter(|e| is_sharer(e)).map(|e| &e.workload);
    let mut first: HashMap<(&str, IpAddr), &Arc<Workload>> = HashMap::new();
    for workload in sharers() {
        for address in &workload.addresses {
            first
                .entry((&workload.network, *address))
                .or_insert(workload);
        }
    }
    let mut presented = Presented::new();
    for workload in sharers() {
        let at = workload.addresses.iter();
        let met = at.filter_map(|address| first.get(&(&*workload.network, *address)));
        let own = workload.identity().ok();
        // One without a legal identity proves none.
        let others =
            met.filter_map(|met| met.identity().ok().filter(|id| Some(id) != own.as_ref()));
        for other in others {
            for key in workload.services.keys() {
                let names = presented.entry(key.clone()).or_default();
                names.insert(Arc::from(other.to_string()));
            }
        }
    }
    presented
}

/// Whether a change leaves that as it was.
pub(super) fn same(change: &Change<'_>) -> bool {
    !change.gone().chain(change.come()).any(is_sharer)
}

fn is_sharer(entry: &Entry) -> bool {
    entry.enrolled && entry.declared.capture.as_ref().is_some_and(shares)
}
