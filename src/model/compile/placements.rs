//! What each node runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reuse::{Change, Entry};
use super::{Placement, Placements};
use crate::model::declaration::Mesh;

/// What each node runs, in the order of uids.
pub(super) fn of(mesh: &Mesh, entries: &[Entry]) -> Placements {
    let mut placements: BTreeMap<Arc<str>, Vec<Placement>> =
        mesh.nodes.keys().map(|n| (n.clone(), Vec::new())).collect();
    for entry in entries {
        if let Some(node) = &entry.declared.node {
            let placed = placements.entry(node.clone()).or_default();
            placed.push(placement(entry));
        }
    }
    let shared = |(node, placed)| (node, Arc::new(placed));
    placements.into_iter().map(shared).collect()
}

/// The same, from what each node ran before a change of workloads alone.
pub(super) fn replaced(before: &Placements, change: &Change<'_>) -> Placements {
    let mut placements = before.clone();
    let at =
        |placed: &[Placement], entry: &Entry| placed.binary_search_by(|p| p.uid.cmp(entry.uid()));
    for entry in change.gone() {
        let placed = entry
            .declared
            .node
            .as_ref()
            .and_then(|n| placements.get_mut(n));
        if let Some(placed) = placed
            && let Ok(at) = at(placed, entry)
        {
            Arc::make_mut(placed).remove(at);
        }
    }
    for entry in change.come() {
        if let Some(node) = &entry.declared.node {
            let placed = placements.entry(node.clone()).or_default();
            if let Err(at) = at(placed, entry) {
                Arc::make_mut(placed).insert(at, placement(entry));
            }
        }
    }
    placements
}

fn placement(entry: &Entry) -> Placement {
    let declared = &entry.declared;
    Placement {
        uid: entry.uid().clone(),
        name: declared.name.clone(),
        namespace: declared.namespace.clone(),
        service_account: declared.service_account.clone(),
        enrolled: entry.enrolled,
        capture: declared.capture.clone(),
        health: declared.health.clone(),
        dns_capture: declared.dns_capture,
    }
}
