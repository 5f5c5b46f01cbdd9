//! What the waypoints on this node are told.
//!
//! A resource that cannot be read is refused by its name, and what was known by that name before is
//! forgotten: what refers to it is refused until it can be read (`spec/control-plane.md` §8.3). The
//! form known last would route by what the operator has taken back. Its bytes are kept, so that after a
//! start from disk it is as absent as before, but no version is said to be held, so that it is sent
//! again on the next stream, to be refused again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Held, Table, encoded};
use crate::model::waypoint::{Resources, WaypointName};
use crate::wire::WAYPOINT;
use crate::wire::convert::{WaypointResource, waypoint_of};
use crate::wire::proto::discovery::Resource;

/// What is held of waypoints' resources.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    held: Table<One>,
    /// The same by waypoint.
    told: BTreeMap<WaypointName, Arc<Resources>>,
}

/// A resource, and the bytes that said it: this version may not know all that is in them.
#[derive(Clone, Debug)]
struct One {
    body: Arc<[u8]>,
    /// Whose it is; none where not even its name says so.
    waypoint: Option<WaypointName>,
    /// Absent where it cannot be read.
    resource: Option<WaypointResource>,
}

impl Told {
    /// What each waypoint is told.
    pub(super) fn told(&self) -> BTreeMap<WaypointName, Arc<Resources>> {
        self.told.clone()
    }

    /// Whether there is something that cannot be read.
    pub(super) fn lacks(&self) -> bool {
        let mut held = self.held.values();
        held.any(|held| held.value.resource.is_none())
    }

    /// The versions held.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        let readable = |(_, one): &(&String, &Held<One>)| one.value.resource.is_some();
        let held = self.held.iter().filter(readable);
        held.map(|(name, one)| (name.clone(), one.version.clone()))
            .collect()
    }

    /// All of it, as it was received.
    pub(super) fn encoded(&self) -> Vec<Resource> {
        encoded(WAYPOINT, &self.held, |one| one.body.to_vec())
    }

    /// Takes one up, or tells why it cannot be read.
    pub(super) fn put(&mut self, name: String, version: String, body: &[u8]) -> Result<(), String> {
        self.remove(&name);
        let read = WaypointResource::decode(&name, body);
        let (waypoint, resource) = match &read {
            Ok((waypoint, resource)) => (Some(waypoint.clone()), Some(resource.clone())),
            Err(_unreadable) => (waypoint_of(&name).parse().ok(), None),
        };
        if let Some(waypoint) = &waypoint {
            // One of which nothing can be read is told something all the same.
            let told = self.told.entry(waypoint.clone()).or_default();
            if let Some(resource) = resource.clone() {
                insert(Arc::make_mut(told), resource);
            }
        }
        let value = One {
            body: Arc::from(body),
            waypoint,
            resource,
        };
        self.held.insert(name, Held { version, value });
        read.map(drop).map_err(|e| e.to_string())
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, name: &str) {
        let gone = self.held.remove(name).map(|held| held.value);
        let Some((waypoint, resource)) = gone.map(|one| (one.waypoint, one.resource)) else {
            return;
        };
        let told = waypoint.as_ref().and_then(|name| self.told.get_mut(name));
        let Some((waypoint, told)) = waypoint.as_ref().zip(told) else {
            return;
        };
        if let Some(resource) = resource {
            remove(Arc::make_mut(told), &resource);
        }
        let left = |one: &Held<One>| one.value.waypoint.as_ref() == Some(waypoint);
        if **told == Resources::default() && !self.held.values().any(left) {
            self.told.remove(waypoint);
        }
    }
}

fn insert(told: &mut Resources, resource: WaypointResource) {
    match resource {
        WaypointResource::Gateway(gateway) => told.gateway = Some(gateway),
        WaypointResource::Service(service) => {
            told.services.insert(service.key.clone(), service);
        }
        WaypointResource::Route(route) => {
            told.routes.insert(route.key.clone(), route);
        }
        WaypointResource::Traffic(traffic) => {
            told.traffic.insert(traffic.key.clone(), traffic);
        }
        WaypointResource::Policy(policy) => {
            told.policies.insert(policy.key.clone(), policy);
        }
        WaypointResource::Extension(provider) => {
            told.extensions.insert(Arc::clone(&provider.name), provider);
        }
        WaypointResource::Authentication(policy) => {
            told.authentications.insert(policy.key.clone(), policy);
        }
        WaypointResource::Telemetry(telemetry) => {
            told.telemetry.insert(telemetry.key.clone(), telemetry);
        }
        WaypointResource::Limit(limit) => {
            told.limits.insert(limit.key.clone(), limit);
        }
    }
}

fn remove(told: &mut Resources, resource: &WaypointResource) {
    match resource {
        WaypointResource::Gateway(_) => told.gateway = None,
        WaypointResource::Service(service) => {
            told.services.remove(&service.key);
        }
        WaypointResource::Route(route) => {
            told.routes.remove(&route.key);
        }
        WaypointResource::Traffic(traffic) => {
            told.traffic.remove(&traffic.key);
        }
        WaypointResource::Policy(policy) => {
            told.policies.remove(&policy.key);
        }
        WaypointResource::Extension(provider) => {
            told.extensions.remove(&provider.name);
        }
        WaypointResource::Authentication(policy) => {
            told.authentications.remove(&policy.key);
        }
        WaypointResource::Telemetry(telemetry) => {
            told.telemetry.remove(&telemetry.key);
        }
        WaypointResource::Limit(limit) => {
            told.limits.remove(&limit.key);
        }
    }
}
