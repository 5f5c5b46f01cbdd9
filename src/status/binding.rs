//! The admin page of waypoints: which there are, and what is behind each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Sources;
use super::policy::{ConditionLine, place};
use super::routed;
pub use super::routed::{ParentLine, RouteLine, RoutedLine};
use crate::admin::Answer;
use crate::model::binding::{Object, Traffic, survey};
use crate::model::declaration::Mesh;
use crate::model::view::View;
use crate::model::workload::{GatewayAddress, Workload};

/// What `lateen waypoints` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WaypointPage {
    /// The waypoints, by name.
    pub waypoints: Vec<WaypointLine>,
    /// Everything that is behind one, or asks for one.
    pub bindings: Vec<BindingLine>,
    /// The ports of services and the routes that are tried for each.
    #[serde(default)]
    pub routed: Vec<RoutedLine>,
    /// Every route, and how far it is in force.
    #[serde(default)]
    pub routes: Vec<RouteLine>,
}

/// A waypoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WaypointLine {
    /// `namespace/name`.
    pub waypoint: String,
    /// `service`, `workload`, `all` or `none`; `-` where that is not known.
    pub waypoint_for: String,
    /// The nodes it runs on.
    pub nodes: Vec<String>,
    /// Its HBONE port.
    pub port: u16,
    /// How many services are behind it, with those that it is a canary of.
    pub services: usize,
    /// How many workloads are.
    pub workloads: usize,
    /// Where it is written, as `file:line`; empty when unknown.
    pub place: String,
}

/// A service or workload and its waypoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BindingLine {
    /// `service` or `workload`.
    pub kind: String,
    /// `namespace/name`.
    pub object: String,
    /// The waypoint it is behind, as `namespace/name`.
    pub waypoint: Option<String>,
    /// The one that takes a share of it.
    pub canary: Option<CanaryLine>,
    /// Where it is written, as `file:line`; empty when unknown.
    pub place: String,
    /// What became of it, where that is known: on a control plane's host.
    pub condition: Option<ConditionLine>,
}

/// A canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CanaryLine {
    /// `namespace/name`.
    pub waypoint: String,
    /// Its share in percent.
    pub weight: u32,
}

impl Sources {
    pub(super) fn waypoints(&self, _body: &[u8]) -> Answer {
        let declared = self.control.as_ref().map(|c| c.inputs.borrow().clone());
        if let Some(Some(input)) = declared {
            return Answer::json(&declared_page(&input.mesh));
        }
        match self.mesh() {
            Ok(mesh) => Answer::json(&WaypointPage {
                routed: routed::told(&mesh.waypoints),
                routes: routed::known(&mesh.waypoints),
                ..page(&mesh.view)
            }),
            Err(refusal) => refusal,
        }
    }
}

/// The waypoints of a mesh as it is declared.
pub fn declared_page(mesh: &Mesh) -> WaypointPage {
    let surveyed = survey(mesh);
    let (routed, routes) = routed::declared(mesh);
    let binding = |object: Object| BindingLine {
        kind: object.kind.as_str().to_owned(),
        object: object.key.to_string(),
        waypoint: object.waypoint.map(|w| w.to_string()),
        canary: object.canary.map(|(waypoint, weight)| CanaryLine {
            waypoint: waypoint.to_string(),
            weight: weight.into(),
        }),
        place: place(Some(&object.origin)),
        condition: Some(object.condition.into()),
    };
    let bindings: Vec<_> = surveyed.objects.into_iter().map(binding).collect();
    let waypoint = |(gateway, port): &(crate::model::declaration::Gateway, u16)| {
        let waypoint = format!("{}/{}", gateway.namespace, gateway.name);
        WaypointLine {
            services: behind(&bindings, &waypoint, Traffic::Service),
            workloads: behind(&bindings, &waypoint, Traffic::Workload),
            waypoint,
            waypoint_for: gateway.waypoint_for.as_str().to_owned(),
            nodes: gateway
                .machines
                .names()
                .iter()
                .map(ToString::to_string)
                .collect(),
            port: *port,
            place: place(Some(&gateway.origin)),
        }
    };
    WaypointPage {
        waypoints: surveyed.waypoints.iter().map(waypoint).collect(),
        bindings,
        routed,
        routes,
    }
}

fn behind(bindings: &[BindingLine], waypoint: &str, kind: Traffic) -> usize {
    let of_kind = bindings.iter().filter(|b| b.kind == kind.as_str());
    let behind = of_kind.filter(|b| {
        let canary = b.canary.as_ref().map(|c| &*c.waypoint);
        b.waypoint.as_deref() == Some(waypoint) || canary == Some(waypoint)
    });
    behind.count()
}

/// Where an instance and those that serve the same run.
fn nodes(view: &View, instance: Option<&Arc<Workload>>) -> Vec<String> {
    let service = |w: &Arc<Workload>| w.services.keys().next().cloned();
    let all = match instance.and_then(service) {
        Some(service) => view.endpoints(&service),
        None => instance.map_or(&[][..], std::slice::from_ref),
    };
    let nodes: BTreeSet<String> = all.iter().map(|w| w.node.to_string()).collect();
    nodes.into_iter().collect()
}

/// The waypoints that something in a view is behind.
fn page(view: &View) -> WaypointPage {
    let mut known: BTreeMap<String, (u16, Vec<String>)> = BTreeMap::new();
    let mut name = |reference: &GatewayAddress, namespace: &Arc<str>| {
        let instance = view.instance(&reference.destination, namespace);
        let name = match instance {
            Some(instance) => format!("{}/{}", instance.namespace, instance.name),
            None => "unknown".to_owned(),
        };
        known.insert(name.clone(), (reference.hbone_port, nodes(view, instance)));
        name
    };
    let mut bindings = Vec::new();
    for service in view.services() {
        let Some(waypoint) = &service.waypoint else {
            continue;
        };
        let namespace = &service.key.namespace;
        let canary = service.weighted_waypoints.get(1);
        bindings.push(BindingLine {
            kind: Traffic::Service.as_str().to_owned(),
            object: format!("{namespace}/{}", service.name),
            waypoint: Some(name(waypoint, namespace)),
            canary: canary.map(|canary| CanaryLine {
                waypoint: name(&canary.waypoint, namespace),
                weight: canary.weight,
            }),
            place: String::new(),
            condition: None,
        });
    }
    for workload in view.workloads() {
        let Some(waypoint) = &workload.waypoint else {
            continue;
        };
        bindings.push(BindingLine {
            kind: Traffic::Workload.as_str().to_owned(),
            object: format!("{}/{}", workload.namespace, workload.name),
            waypoint: Some(name(waypoint, &workload.namespace)),
            canary: None,
            place: String::new(),
            condition: None,
        });
    }
    bindings.sort_by(|a, b| (&a.kind, &a.object).cmp(&(&b.kind, &b.object)));
    let waypoint = |(waypoint, (port, nodes)): (String, (u16, Vec<String>))| WaypointLine {
        services: behind(&bindings, &waypoint, Traffic::Service),
        workloads: behind(&bindings, &waypoint, Traffic::Workload),
        waypoint,
        waypoint_for: "-".to_owned(),
        nodes,
        port,
        place: String::new(),
    };
    let waypoints = known.into_iter().map(waypoint).collect();
    WaypointPage {
        waypoints,
        bindings,
        ..WaypointPage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::compile::sample::{gateway, mesh, using};
    use crate::model::declaration::{CanaryWeight, WaypointFor};

    #[test]
    fn a_mesh_and_its_view_show_the_same() {
        let mut mesh = mesh();
        mesh.gateways = vec![
            gateway("wp", WaypointFor::Service),
            gateway("all", WaypointFor::All),
        ];
        mesh.services[0].use_waypoint = using("wp");
        mesh.services[0].canary.waypoint = using("all");
        mesh.services[0].canary.weight = Some(CanaryWeight::Percent(20));
        let shop = mesh.namespaces.get_mut("shop").unwrap();
        shop.use_waypoint = using("all");
        let declared = declared_page(&mesh);
        let lines = |page: &WaypointPage| {
            let line = |w: &WaypointLine| (w.waypoint.clone(), w.services, w.workloads);
            page.waypoints.iter().map(line).collect::<Vec<_>>()
        };
        let name = |name: &str| format!("shop/{name}");
        assert_eq!(lines(&declared), [(name("all"), 2, 2), (name("wp"), 1, 0)]);
        let seen = page(&crate::explain::intended(&mesh).unwrap().view);
        assert_eq!(lines(&seen), lines(&declared));
        let bare = |page: &WaypointPage| {
            let bare = |b: &BindingLine| (b.object.clone(), b.waypoint.clone(), b.canary.clone());
            page.bindings.iter().map(bare).collect::<Vec<_>>()
        };
        assert_eq!(bare(&seen), bare(&declared));
        let conditions = declared
            .bindings
            .iter()
            .filter_map(|b| b.condition.as_ref());
        assert!(
            conditions
                .clone()
                .all(|c| c.status && c.kind == "istio.io/WaypointBound")
        );
        assert_eq!(conditions.count(), 4);
    }
}
