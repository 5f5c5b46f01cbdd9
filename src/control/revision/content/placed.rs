//! What runs on one node.

use super::super::{
    Arc, BTreeMap, BTreeSet, Kind, Resource, Resources, Version, convert, resource,
};
use super::{Expected, named};
use crate::model::compile::Placement;

/// Namespace and service account.
type Account = (Arc<str>, Arc<str>);

/// A node's placements, as it is sent them, and what else follows from them.
#[derive(Debug, Default)]
pub(in crate::control::revision) struct Placed {
    pub(in crate::control::revision) resources: Resources,
    /// Which service accounts it runs.
    pub(in crate::control::revision) identities: BTreeSet<Account>,
    /// What is to be heard of each workload, by uid.
    pub(in crate::control::revision) expected: BTreeMap<Arc<str>, Expected>,
}

impl Placed {
    /// Encodes a node's placements. Resources that `previous` has in the same version are taken over.
    pub(super) fn encode(placements: &[Placement], previous: Option<&Self>) -> Self {
        let accounts = placements.iter();
        let accounts = accounts.map(|p| (p.namespace.clone(), p.service_account.clone()));
        let of = |placement: &Placement| Expected {
            capture: placement.enrolled,
            probe: placement.health.is_some(),
        };
        let previous = previous.map(|p| &p.resources);
        let resources = placements.iter().map(|p| encode(p, previous));
        Self {
            resources: resources.map(named).collect(),
            identities: accounts.collect(),
            expected: placements.iter().map(|p| (p.uid.clone(), of(p))).collect(),
        }
    }
}

fn encode(placement: &Placement, previous: Option<&Resources>) -> Arc<Resource> {
    let body = convert::encode_placement(placement);
    let version = Version::of(&body, &[]);
    let had = previous.and_then(|p| p.get(&placement.uid));
    let had = had.filter(|had| had.version == version).cloned();
    had.unwrap_or_else(|| {
        let kind = Kind::Placement;
        Arc::new(resource(kind, &placement.uid, version, Vec::new(), body))
    })
}
