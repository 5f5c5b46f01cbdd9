//! Where policies of any kind come into force by their `target-refs`, and where they do not
//! (`spec/labels-and-policy.md` §1.9, §2.2).

use std::collections::BTreeMap;

use super::{Bindable, Waypoints};
use crate::model::condition::Condition;
use crate::model::declaration::{Mesh, TargetKind, TargetRef};

/// The class of all waypoints, by Istio's name and by ours.
pub const CLASSES: [&str; 2] = ["istio-waypoint", "waypoint"];

/// What policies can be attached to.
pub struct Attachments<'a> {
    /// Whether a waypoint stands before it, by kind, namespace and name.
    known: BTreeMap<(TargetKind, &'a str, &'a str), bool>,
    root: &'a str,
}

/// Why a policy comes into force nowhere by one of its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amiss {
    /// There is no such thing in its namespace.
    Unknown,
    /// It is behind no waypoint, and nobody else enforces such policies.
    Unbound,
    /// A class is targeted from another namespace than the root.
    OutsideRoot,
    /// No waypoint is of that class.
    OtherClass,
}

impl<'a> Attachments<'a> {
    /// What there is in a mesh.
    pub fn new(mesh: &'a Mesh, waypoints: &Waypoints<'a>) -> Self {
        let mut known = BTreeMap::new();
        for service in &mesh.services {
            let key = (TargetKind::Service, &*service.namespace, &*service.name);
            known.insert(key, waypoints.leads_somewhere(Bindable::from(service)));
        }
        for entry in &mesh.service_entries {
            let key = (TargetKind::ServiceEntry, &*entry.namespace, &*entry.name);
            known.insert(key, waypoints.leads_somewhere(Bindable::from(entry)));
        }
        for gateway in &mesh.gateways {
            let key = (TargetKind::Gateway, &*gateway.namespace, &*gateway.name);
            known.insert(key, true);
        }
        Self {
            known,
            root: &mesh.settings.root_namespace,
        }
    }

    /// What is wrong with a target of a policy in this namespace.
    pub fn amiss(&self, namespace: &str, target: &TargetRef) -> Option<Amiss> {
        if target.kind == TargetKind::GatewayClass {
            return match CLASSES.contains(&&*target.name) {
                false => Some(Amiss::OtherClass),
                true => (namespace != self.root).then_some(Amiss::OutsideRoot),
            };
        }
        match self.known.get(&(target.kind, namespace, &target.name)) {
            None => Some(Amiss::Unknown),
            Some(false) => Some(Amiss::Unbound),
            Some(true) => None,
        }
    }

    /// The names of that kind in a namespace.
    pub fn names<'s>(
        &'s self,
        kind: TargetKind,
        namespace: &'s str,
    ) -> impl Iterator<Item = &'s str> {
        let all = self.known.range((kind, namespace, "")..);
        let of_kind = all.take_while(move |((k, n, _), _)| *k == kind && *n == namespace);
        of_kind.map(|((_, _, name), _)| *name)
    }

    /// The condition `WaypointAccepted` of a policy in this namespace.
    pub fn condition(&self, namespace: &str, refs: &[TargetRef]) -> Condition {
        let amiss = |target: &'_ TargetRef| self.amiss(namespace, target);
        let of = |status, reason, message| Condition {
            kind: "WaypointAccepted",
            status,
            reason,
            message,
        };
        if let [only] = refs {
            return match amiss(only) {
                None => of(true, "Accepted", String::new()),
                Some(amiss) => of(
                    false,
                    amiss.reason(),
                    format!("not in force: {} {amiss}", named(namespace, only)),
                ),
            };
        }
        let bad: Vec<String> = refs
            .iter()
            .filter_map(|target| Some(format!("{} {}", named(namespace, target), amiss(target)?)))
            .collect();
        match bad.len() {
            0 => of(true, "Accepted", String::new()),
            n if n < refs.len() => of(true, "PartiallyInvalid", bad.join("; ")),
            _ => of(
                false,
                "Invalid",
                format!("not in force: {}", bad.join("; ")),
            ),
        }
    }
}

impl Amiss {
    /// Istio's word for it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "TargetNotFound",
            Self::Unbound => "AncestorNotBound",
            Self::OutsideRoot | Self::OtherClass => "Invalid",
        }
    }
}

impl std::fmt::Display for Amiss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "is not declared",
            Self::Unbound => "is behind no waypoint",
            Self::OutsideRoot => "is targeted from outside the root namespace",
            Self::OtherClass => "is no class of waypoints",
        })
    }
}

/// As Istio's conditions name a target.
fn named(namespace: &str, target: &TargetRef) -> String {
    let name = &target.name;
    match target.kind {
        TargetKind::Service => format!("Service.core:{namespace}/{name}"),
        TargetKind::ServiceEntry => {
            format!("ServiceEntry.networking.istio.io:{namespace}/{name}")
        }
        TargetKind::Gateway => format!("Gateway.gateway.networking.k8s.io:{namespace}/{name}"),
        TargetKind::GatewayClass => format!("GatewayClass.gateway.networking.k8s.io:{name}"),
    }
}

#[cfg(test)]
mod tests;
