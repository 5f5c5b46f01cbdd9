//! Every waypoint of a mesh, and what became of everything that asks for one.

use std::sync::Arc;

use super::{
    Bindable, Binding, CanaryOutcome, Named, Traffic, Waypoints, condition, hbone_ports,
    ingress_uses,
};
use crate::model::condition::Condition;
use crate::model::declaration::{Gateway, Mesh, Origin};

/// Something that asks for a waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// How it is addressed, which is also what it is.
    pub kind: Traffic,
    /// `namespace/name`.
    pub key: Arc<str>,
    /// The waypoint it is behind, as `namespace/name`.
    pub waypoint: Option<Arc<str>>,
    /// The one that takes a share, and how many percent.
    pub canary: Option<(Arc<str>, u8)>,
    /// Where it was written.
    pub origin: Origin,
    /// What a user is told.
    pub condition: Condition,
}

/// The waypoints of a mesh.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surveyed {
    /// In the order of their names, each with its HBONE port.
    pub waypoints: Vec<(Gateway, u16)>,
    /// Services, service entries, then workloads, in the order they were written.
    pub objects: Vec<Object>,
}

/// Surveys a mesh.
pub fn survey(mesh: &Mesh) -> Surveyed {
    let waypoints = Waypoints::new(mesh);
    let services = mesh.services.iter().filter_map(|service| {
        let binding = waypoints.bind(Bindable::from(service));
        let told = condition(
            &binding,
            ingress_uses(service.ingress_use_waypoint, &service.namespace, mesh),
        )?;
        let key = key(&service.namespace, &service.name);
        Some(object(
            Traffic::Service,
            key,
            &service.origin,
            &binding,
            told,
        ))
    });
    let entries = mesh.service_entries.iter().filter_map(|entry| {
        let binding = waypoints.bind(Bindable::from(entry));
        let ingress = ingress_uses(entry.ingress_use_waypoint, &entry.namespace, mesh);
        let told = condition(&binding, ingress)?;
        let key = key(&entry.namespace, &entry.name);
        Some(object(Traffic::Service, key, &entry.origin, &binding, told))
    });
    let workloads = mesh.workloads.iter().filter_map(|workload| {
        let binding = waypoints.bind(Bindable::from(&**workload));
        let told = condition(&binding, None)?;
        let key = key(&workload.namespace, &workload.name);
        Some(object(
            Traffic::Workload,
            key,
            &workload.origin,
            &binding,
            told,
        ))
    });
    let objects = services.chain(entries).chain(workloads).collect();
    let all = mesh.gateways.iter().cloned().zip(hbone_ports(mesh));
    let mut all: Vec<_> = all.collect();
    all.sort_by(|(a, _), (b, _)| Named::from(a).cmp(&Named::from(b)));
    Surveyed {
        waypoints: all,
        objects,
    }
}

fn object(
    kind: Traffic,
    key: Arc<str>,
    origin: &Origin,
    binding: &Binding<'_>,
    condition: Condition,
) -> Object {
    let (waypoint, canary) = match binding {
        Binding::Bound(bound) => (Some(bound.waypoint), bound.canary),
        Binding::None | Binding::Unbound(_) => (None, CanaryOutcome::None),
    };
    Object {
        kind,
        key,
        waypoint: waypoint.map(|g| self::key(&g.namespace, &g.name)),
        canary: match canary {
            CanaryOutcome::Shares(g, weight) => Some((self::key(&g.namespace, &g.name), weight)),
            CanaryOutcome::None | CanaryOutcome::LeftOut { .. } => None,
        },
        origin: origin.clone(),
        condition,
    }
}

fn key(namespace: &str, name: &str) -> Arc<str> {
    Arc::from(format!("{namespace}/{name}"))
}
