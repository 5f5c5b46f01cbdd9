//! What the waypoints on each node are told.

use super::super::{Arc, BTreeMap, Compiled, Kind, Names, Resource, Resources, Version, resource};
use super::{changed, named};
use crate::model::waypoint::{self, WaypointName};
use crate::wire::convert::WaypointResource;

/// Encoded resources of waypoints.
#[derive(Clone, Debug, Default)]
pub(in crate::control::revision) struct Told {
    by_waypoint: BTreeMap<WaypointName, Arc<Resources>>,
    /// Those of all waypoints that have an instance on a node.
    pub(in crate::control::revision) by_node: BTreeMap<Arc<str>, Arc<Resources>>,
}

impl Told {
    /// Encodes what the waypoints of a compilation are told. What is the same memory as in the one
    /// `before` is not encoded again.
    pub(super) fn encode(compiled: &Compiled, previous: &Self, before: &Compiled) -> Self {
        let encoded = compiled.waypoints.iter().map(|(name, told)| {
            let had = previous
                .by_waypoint
                .get(name)
                .zip(before.waypoints.get(name));
            let encoded = match had {
                Some((had, before)) if Arc::ptr_eq(before, told) => Arc::clone(had),
                had => Arc::new(encode(name, told, had)),
            };
            (name.clone(), encoded)
        });
        let by_waypoint: BTreeMap<_, _> = encoded.collect();
        let by_node = compiled.served.iter().map(|(node, instances)| {
            let of = |name| by_waypoint.get(&name);
            let served = instances.iter().map(|instance| WaypointName {
                namespace: Arc::clone(&instance.namespace),
                name: Arc::clone(&instance.name),
            });
            let all: Vec<&Arc<Resources>> = served.filter_map(of).collect();
            let together = match *all {
                // All instances of a waypoint share what it is told.
                [only] => Arc::clone(only),
                _ => {
                    let all = all.into_iter().flat_map(|told| told.values().cloned());
                    Arc::new(all.map(named).collect())
                }
            };
            (Arc::clone(node), together)
        });
        Self {
            by_node: by_node.collect(),
            by_waypoint,
        }
    }

    /// What differs in `next`, by the node that sees it.
    pub(super) fn changes_to(&self, next: &Self) -> BTreeMap<Arc<str>, Names> {
        let none = Arc::default();
        let mut changes = BTreeMap::new();
        for node in self.by_node.keys().chain(next.by_node.keys()) {
            let before = self.by_node.get(node).unwrap_or(&none);
            let after = next.by_node.get(node).unwrap_or(&none);
            if changes.contains_key(node) || Arc::ptr_eq(before, after) {
                continue;
            }
            let changed = changed(before, after);
            if !changed.is_empty() {
                changes.insert(Arc::clone(node), changed);
            }
        }
        changes
    }
}

fn encode(
    waypoint: &WaypointName,
    told: &waypoint::Resources,
    had: Option<(&Arc<Resources>, &Arc<waypoint::Resources>)>,
) -> Resources {
    let before = had
        .iter()
        .flat_map(|(_, before)| WaypointResource::all(before));
    let before: BTreeMap<_, _> = before.map(|r| (r.name(waypoint), r)).collect();
    let one = |resource: WaypointResource| {
        let name = resource.name(waypoint);
        let encoded = had.and_then(|(encoded, _)| encoded.get(name.as_str()));
        let same = before.get(&name).is_some_and(|before| before.is(&resource));
        match encoded {
            Some(encoded) if same => Arc::clone(encoded),
            encoded => encode_one(waypoint, &name, &resource, encoded),
        }
    };
    WaypointResource::all(told).map(one).map(named).collect()
}

fn encode_one(
    waypoint: &WaypointName,
    name: &str,
    told: &WaypointResource,
    had: Option<&Arc<Resource>>,
) -> Arc<Resource> {
    let body = told.encode(waypoint);
    let version = Version::of(&body, &[]);
    match had.filter(|had| had.version == version) {
        Some(had) => Arc::clone(had),
        None => Arc::new(resource(Kind::Waypoint, name, version, Vec::new(), body)),
    }
}
