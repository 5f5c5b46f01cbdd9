//! Which waypoint stands before a service or a workload (`spec/labels-and-policy.md` §1.5, §1.7).
//!
//! [`Waypoints`] are those of a mesh; [`Waypoints::bind`] answers for one object. What is bound and
//! what is not is said to people by [`condition`], and listed by [`survey`].

mod attachment;
mod condition;
mod port;
mod survey;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::declaration::{
    self, AllowedRoutes, Canary, CanaryWeight, ExportTo, Gateway, Mesh, Namespace, UseWaypoint,
    WaypointFor,
};

pub use attachment::{Amiss, Attachments, CLASSES};
pub use condition::condition;
pub use port::hbone_ports;
pub use survey::{Object, Surveyed, survey};

/// How traffic is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// To a service.
    Service,
    /// To a workload's own address.
    Workload,
}

impl Traffic {
    /// Istio's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
        }
    }
}

impl WaypointFor {
    /// Whether this traffic is among it.
    pub fn takes(self, traffic: Traffic) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Service => traffic == Traffic::Service,
            Self::Workload => traffic == Traffic::Workload,
        }
    }

    /// Istio's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

/// Whose label made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The object's own.
    Own,
    /// Its namespace's.
    Namespace,
}

/// What may be bound, as far as that matters.
#[derive(Clone, Copy, Debug)]
pub struct Bindable<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its own `use-waypoint`.
    pub use_waypoint: Option<&'a UseWaypoint>,
    /// Its own canary; none of what cannot have one.
    pub canary: Option<&'a Canary>,
    /// How it is addressed.
    pub traffic: Traffic,
    /// Only its own namespace sees it.
    pub private: bool,
}

impl<'a> From<&'a declaration::Service> for Bindable<'a> {
    fn from(service: &'a declaration::Service) -> Self {
        Self {
            namespace: &service.namespace,
            use_waypoint: service.use_waypoint.as_ref(),
            canary: Some(&service.canary),
            traffic: Traffic::Service,
            private: false,
        }
    }
}

impl<'a> From<&'a declaration::Workload> for Bindable<'a> {
    fn from(workload: &'a declaration::Workload) -> Self {
        Self {
            namespace: &workload.namespace,
            use_waypoint: workload.use_waypoint.as_ref(),
            canary: None,
            traffic: Traffic::Workload,
            private: false,
        }
    }
}

impl<'a> From<&'a declaration::ServiceEntry> for Bindable<'a> {
    fn from(entry: &'a declaration::ServiceEntry) -> Self {
        Self {
            namespace: &entry.namespace,
            use_waypoint: entry.use_waypoint.as_ref(),
            canary: Some(&entry.canary),
            traffic: Traffic::Service,
            private: entry.export_to == ExportTo::Own,
        }
    }
}

/// What a binding comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binding<'a> {
    /// No waypoint is asked for, or none that takes this traffic: it goes direct.
    None,
    /// Traffic passes a waypoint.
    Bound(Bound<'a>),
    /// A waypoint is asked for and cannot be had.
    Unbound(Unbound<'a>),
}

/// Behind a waypoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound<'a> {
    /// Which.
    pub waypoint: &'a Gateway,
    /// The object's own, which does not take this traffic and so yields to the namespace's.
    pub passed_over: Option<&'a Gateway>,
    /// The second waypoint.
    pub canary: CanaryOutcome<'a>,
}

/// What a canary comes to (§1.7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CanaryOutcome<'a> {
    /// There is none.
    None,
    /// It takes this share, in percent.
    Shares(&'a Gateway, u8),
    /// It is left out, and the first waypoint takes everything.
    LeftOut {
        /// Its name.
        named: Named<'a>,
        /// Whose label it is.
        level: Level,
        /// Why.
        fault: CanaryFault<'a>,
    },
}

/// Why a canary is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryFault<'a> {
    /// It is the first waypoint again.
    SameAsPrimary,
    /// Its share is not from 0 to 100; as it was written.
    InvalidWeight(&'a str),
    /// For that reason nothing could be bound to it.
    Unbound(Reason),
}

impl CanaryFault<'_> {
    /// Istio's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SameAsPrimary => "CanarySameAsPrimary",
            Self::InvalidWeight(_) => "CanaryInvalidWeight",
            Self::Unbound(reason) => reason.as_str(),
        }
    }
}

/// Not behind the waypoint asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbound<'a> {
    /// Why not.
    pub reason: Reason,
    /// The waypoint asked for.
    pub named: Named<'a>,
    /// Whose label asks.
    pub level: Level,
    /// The traffic for which it is.
    pub traffic: Traffic,
}

impl Unbound<'_> {
    /// Whether traffic goes direct all the same: the namespace's waypoint is for other traffic, as a
    /// default may be (§1.10). Everything else is refused.
    pub fn is_direct(&self) -> bool {
        self.reason == Reason::UnsupportedTrafficType && self.level == Level::Namespace
    }
}

/// Why something is not bound (§1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No such waypoint is declared.
    WaypointIsNotReady,
    /// It does not admit the object's namespace.
    AttachmentDenied,
    /// It does not take this traffic.
    UnsupportedTrafficType,
    /// The object is of its own namespace alone, and the waypoint of another.
    CrossNamespaceWaypointForbidden,
}

impl Reason {
    /// Istio's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaypointIsNotReady => "WaypointIsNotReady",
            Self::AttachmentDenied => "AttachmentDenied",
            Self::UnsupportedTrafficType => "UnsupportedTrafficType",
            Self::CrossNamespaceWaypointForbidden => "CrossNamespaceWaypointForbidden",
        }
    }
}

/// A waypoint's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name there.
    pub name: &'a str,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl<'a> From<&'a Gateway> for Named<'a> {
    fn from(gateway: &'a Gateway) -> Self {
        Self {
            namespace: &gateway.namespace,
            name: &gateway.name,
        }
    }
}

/// What a `use-waypoint` names; none for `none`.
pub fn named(wanted: &UseWaypoint) -> Option<Named<'_>> {
    match wanted {
        UseWaypoint::None => None,
        UseWaypoint::Named { namespace, name } => Some(Named { namespace, name }),
    }
}

/// The waypoints of a mesh, by name, and the namespaces that ask for them.
#[derive(Debug)]
pub struct Waypoints<'a> {
    by_name: HashMap<Named<'a>, &'a Gateway>,
    namespaces: &'a BTreeMap<Arc<str>, Namespace>,
}

impl<'a> Waypoints<'a> {
    /// Those of a mesh.
    pub fn new(mesh: &'a Mesh) -> Self {
        let gateways = mesh.gateways.iter().rev();
        Self {
            by_name: gateways.map(|g| (Named::from(g), g)).collect(),
            namespaces: &mesh.namespaces,
        }
    }

    /// All names, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = Named<'a>> {
        self.by_name.keys().copied()
    }

    /// Binds an object (§1.5). Waypoints themselves are never asked for: they have none.
    pub fn bind(&self, object: Bindable<'a>) -> Binding<'a> {
        let of_namespace = self.asked_by_namespace(object.namespace);
        let own = object.use_waypoint;
        let sources = [(Level::Own, own), (Level::Namespace, of_namespace)];
        let mut yielded: Option<&Gateway> = None;
        for (level, wanted) in sources {
            let Some(wanted) = wanted else {
                continue;
            };
            let Some(named) = named(wanted) else {
                break;
            };
            let unbound = |reason| {
                Binding::Unbound(Unbound {
                    reason,
                    named,
                    level,
                    traffic: object.traffic,
                })
            };
            let waypoint = match self.admitting(named, object.namespace) {
                Ok(waypoint) => waypoint,
                Err(reason) => return unbound(reason),
            };
            if waypoint.waypoint_for.takes(object.traffic) {
                if object.private && *waypoint.namespace != *object.namespace {
                    return unbound(Reason::CrossNamespaceWaypointForbidden);
                }
                return Binding::Bound(Bound {
                    waypoint,
                    passed_over: yielded,
                    canary: self.canary(object, waypoint),
                });
            }
            match (level, object.traffic) {
                (Level::Own, _) => yielded = Some(waypoint),
                (Level::Namespace, Traffic::Service) if yielded.is_none() => {
                    return unbound(Reason::UnsupportedTrafficType);
                }
                (Level::Namespace, _) => {}
            }
        }
        match yielded {
            // What the object itself asks for is not made up for by a namespace that has nothing.
            Some(own) => Binding::Unbound(Unbound {
                reason: Reason::UnsupportedTrafficType,
                named: Named::from(own),
                level: Level::Own,
                traffic: object.traffic,
            }),
            None => Binding::None,
        }
    }

    /// Whether what is bound so goes anywhere but direct: through a waypoint, or nowhere, where the one that is
    /// asked for cannot be had.
    pub fn leads_somewhere(&self, object: Bindable<'a>) -> bool {
        match self.bind(object) {
            Binding::None => false,
            Binding::Bound(_) => true,
            Binding::Unbound(unbound) => !unbound.is_direct(),
        }
    }

    /// The waypoints before an object: the first one, and the canary.
    pub fn before(&self, object: Bindable<'a>) -> impl Iterator<Item = &'a Gateway> + use<'a> {
        let (first, canary) = match self.bind(object) {
            Binding::Bound(bound) => (Some(bound.waypoint), bound.canary),
            Binding::None | Binding::Unbound(_) => (None, CanaryOutcome::None),
        };
        let canary = match canary {
            CanaryOutcome::Shares(canary, _weight) => Some(canary),
            CanaryOutcome::None | CanaryOutcome::LeftOut { .. } => None,
        };
        first.into_iter().chain(canary)
    }

    fn asked_by_namespace(&self, name: &str) -> Option<&'a UseWaypoint> {
        self.namespaces.get(name)?.use_waypoint.as_ref()
    }

    /// The waypoint of that name, if it is there for resources of a namespace.
    ///
    /// # Errors
    /// [`Reason::WaypointIsNotReady`] and [`Reason::AttachmentDenied`].
    pub fn admitting(&self, named: Named<'_>, namespace: &str) -> Result<&'a Gateway, Reason> {
        let by_name: &HashMap<Named<'_>, &'a Gateway> = &self.by_name;
        let waypoint = by_name.get(&named).ok_or(Reason::WaypointIsNotReady)?;
        match self.admits(waypoint, namespace) {
            true => Ok(waypoint),
            false => Err(Reason::AttachmentDenied),
        }
    }

    /// Whether resources of a namespace may be bound to it (§1.4).
    fn admits(&self, waypoint: &Gateway, namespace: &str) -> bool {
        match &waypoint.allowed_routes {
            AllowedRoutes::Same => *waypoint.namespace == *namespace,
            AllowedRoutes::All => true,
            AllowedRoutes::Nobody => false,
            AllowedRoutes::Labels(labels) => {
                let carried = self.namespaces.get(namespace).map(|n| &n.labels);
                labels.iter().all(|(key, value)| match key.as_str() {
                    NAME_LABEL => value == namespace,
                    _ => carried.and_then(|labels| labels.get(key)) == Some(value),
                })
            }
        }
    }

    /// The second waypoint of what is bound to `primary` (§1.7).
    fn canary(&self, object: Bindable<'a>, primary: &Gateway) -> CanaryOutcome<'a> {
        let Some(own) = object.canary else {
            return CanaryOutcome::None;
        };
        let inherits = object.use_waypoint.and_then(named).is_none();
        let of_namespace = self.namespaces.get(object.namespace);
        let of_namespace = of_namespace.filter(|_| inherits).map(|n| &n.canary);
        let inherited = || Some((Level::Namespace, of_namespace?.waypoint.as_ref()?));
        let written = own.waypoint.as_ref().map(|wanted| (Level::Own, wanted));
        let Some((level, wanted)) = written.or_else(inherited) else {
            return CanaryOutcome::None;
        };
        let Some(named) = named(wanted) else {
            return CanaryOutcome::None;
        };
        let left_out = |fault| CanaryOutcome::LeftOut {
            named,
            level,
            fault,
        };
        if named == Named::from(primary) {
            return left_out(CanaryFault::SameAsPrimary);
        }
        let weight = own.weight.as_ref();
        let weight = match weight.or_else(|| of_namespace?.weight.as_ref()) {
            None => 0,
            Some(CanaryWeight::Percent(weight)) => *weight,
            Some(CanaryWeight::Invalid(text)) => {
                return left_out(CanaryFault::InvalidWeight(text));
            }
        };
        match self.admitting(named, object.namespace) {
            Err(reason) => left_out(CanaryFault::Unbound(reason)),
            Ok(canary) if !canary.waypoint_for.takes(object.traffic) => {
                left_out(CanaryFault::Unbound(Reason::UnsupportedTrafficType))
            }
            Ok(canary) if object.private && *canary.namespace != *object.namespace => left_out(
                CanaryFault::Unbound(Reason::CrossNamespaceWaypointForbidden),
            ),
            Ok(canary) => CanaryOutcome::Shares(canary, weight),
        }
    }
}

/// The label with its name that Kubernetes puts on every namespace, so that selectors may name one.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Whether ingress gateways pass the waypoint of a service (§1.8): its own word, else its namespace's.
pub fn ingress_uses(own: Option<bool>, namespace: &str, mesh: &Mesh) -> Option<bool> {
    let of_namespace = || mesh.namespaces.get(namespace)?.ingress_use_waypoint;
    own.or_else(of_namespace)
}

#[cfg(test)]
mod tests;
