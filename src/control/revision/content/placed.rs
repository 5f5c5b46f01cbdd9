//! What runs on one node.

use super::super::{
    Arc, BTreeMap, BTreeSet, Kind, Resource, Resources, Version, convert, resource,
};
use super::{Expected, named};
use crate::model::compile::{Instance, Placement};

/// Namespace and service account.
type Account = (Arc<str>, Arc<str>);

/// A node's placements, as it is sent them, and what else follows from them.
#[derive(Debug, Default)]
pub(in crate::control::revision) struct Placed {
    pub(in crate::control::revision) resources: Resources,
    /// Which service accounts it runs, those of waypoints with them.
    pub(in crate::control::revision) identities: BTreeSet<Account>,
    /// What is to be heard of each workload and each instance of a waypoint, by uid. Of the latter no
    /// resource says how it is captured: it is not.
    pub(in crate::control::revision) expected: BTreeMap<Arc<str>, Expected>,
}

impl Placed {
    /// Encodes a node's placements, beside the waypoints it serves. Resources that `previous` has in
    /// the same version are taken over.
    pub(super) fn encode(
        placements: &[Placement],
        served: &[Instance],
        previous: Option<&Self>,
    ) -> Self {
        let accounts = placements.iter();
        let accounts = accounts.map(|p| (p.namespace.clone(), p.service_account.clone()));
        let of_waypoints = served.iter();
        let of_waypoints = of_waypoints.map(|i| (i.namespace.clone(), i.service_account.clone()));
        let of = |placement: &Placement| Expected {
            capture: placement.enrolled,
            probe: placement.health.is_some(),
        };
        let serves = Expected {
            capture: false,
            probe: true,
        };
        let workloads = placements.iter().map(|p| (p.uid.clone(), of(p)));
        let waypoints = served.iter().map(|i| (i.uid.clone(), serves));
        let previous = previous.map(|p| &p.resources);
        let resources = placements.iter().map(|p| encode(p, previous));
        Self {
            resources: resources.map(named).collect(),
            identities: accounts.chain(of_waypoints).collect(),
            expected: workloads.chain(waypoints).collect(),
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
