//! The admin page of waypoints: which routes are tried for what, and which are not.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::{ConditionLine, place};
use crate::model::compile::waypoints::{RouteState, survey};
use crate::model::declaration::Mesh;
use crate::model::service::ServiceKey;
use crate::model::waypoint::{BoundPort, Resources, WaypointName};

/// A port of a service behind a waypoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoutedLine {
    /// The waypoint, as `namespace/name`.
    pub waypoint: String,
    /// The service, as `namespace/hostname`.
    pub service: String,
    /// The service port.
    pub port: u16,
    /// The routes for it, as `kind namespace/name`, in the order they are tried; none for one that
    /// leads to the service itself.
    pub routes: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteLine {
    /// `kind namespace/name`.
    pub route: String,
    /// Where it is written, as `file:line`.
    pub place: String,
    /// What it is attached to, and whether it is tried there; empty where only a control plane knows.
    pub parents: Vec<ParentLine>,
    /// Whether all its backends are there, where that is known.
    pub resolved: Option<ConditionLine>,
}

impl RouteLine {
    /// What keeps it from being in force as it is written.
    pub fn faults(&self) -> impl Iterator<Item = &ConditionLine> {
        let accepted = self.parents.iter().map(|parent| &parent.accepted);
        accepted.chain(&self.resolved).filter(|c| !c.status)
    }
}

/// What a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ParentLine {
    /// As `Service shop/cart:80`; of a virtual service `host` and a name.
    pub parent: String,
    /// Whether it is tried there.
    pub accepted: ConditionLine,
}

/// As a mesh is declared.
pub(super) fn declared(mesh: &Mesh) -> (Vec<RoutedLine>, Vec<RouteLine>) {
    let surveyed = survey(mesh);
    let services = surveyed.services.iter();
    let routed = services.flat_map(|s| ports(&s.waypoint, &s.service, &s.ports));
    let route = |state: RouteState| RouteLine {
        route: state.key.to_string(),
        place: place(Some(&state.origin)),
        parents: {
            let parents = state.parents.into_iter();
            let line = parents.map(|parent| ParentLine {
                parent: parent.parent,
                accepted: parent.accepted.into(),
            });
            line.collect()
        },
        resolved: Some(state.resolved.into()),
    };
    (
        routed.collect(),
        surveyed.routes.into_iter().map(route).collect(),
    )
}

/// As the waypoints of a process are told.
pub(super) fn told(waypoints: &BTreeMap<WaypointName, Arc<Resources>>) -> Vec<RoutedLine> {
    let each = waypoints.iter().flat_map(|(name, told)| {
        let bound = told.services.values().filter(|service| service.bound);
        bound.flat_map(move |service| ports(name, &service.key, &service.ports))
    });
    each.collect()
}

/// The routes that the waypoints of a process know.
pub(super) fn known(waypoints: &BTreeMap<WaypointName, Arc<Resources>>) -> Vec<RouteLine> {
    let routes = waypoints.values().flat_map(|told| told.routes.values());
    let by_name: BTreeMap<_, _> = routes.map(|route| (&route.key, route)).collect();
    let line = |route: &Arc<crate::model::route::Route>| RouteLine {
        route: route.key.to_string(),
        place: place(Some(&route.origin)),
        parents: Vec::new(),
        resolved: None,
    };
    by_name.into_values().map(line).collect()
}

fn ports(waypoint: &WaypointName, service: &ServiceKey, ports: &[BoundPort]) -> Vec<RoutedLine> {
    let line = |port: &BoundPort| RoutedLine {
        waypoint: waypoint.to_string(),
        service: service.to_string(),
        port: port.port,
        routes: {
            let routes = port.routes.iter().chain(&port.general);
            routes.map(ToString::to_string).collect()
        },
    };
    ports.iter().map(line).collect()
}
