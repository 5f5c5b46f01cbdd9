//! `lateen.waypoint.v1.Resource`: what a waypoint is told (`spec/control-plane.md` §8.2).

use std::sync::Arc;

use prost::Message;

use super::{ConvertError, Fault, Reason, required};
use crate::model::attached::PolicyKey;
use crate::model::authentication::Authentication;
use crate::model::authorization::Authorization;
use crate::model::declaration::Origin;
use crate::model::limit::Limit;
use crate::model::route::{Kind, Route, RouteKey};
use crate::model::service::ServiceKey;
use crate::model::telemetry::Telemetry;
use crate::model::waypoint::{
    Extension, GatewayConfig, NamedTraffic, Resources, ServiceBinding, TrafficKey, WaypointName,
};
use crate::wire::proto::waypoint as proto;
use proto::resource::Content;

mod authentication;
mod binding;
mod extension;
mod filter;
mod gateway;
mod limit;
mod matching;
mod parts;
mod policy;
mod route;
mod set;
mod telemetry;
mod traffic;

/// How resources that are attached are called in names.
const POLICY: &str = "policy";
const AUTHENTICATION: &str = "authn";
const TELEMETRY: &str = "telemetry";
const LIMIT: &str = "limit";

/// What features resources may require; none yet.
const FEATURES: [&str; 0] = [];
/// The layout of routes and traffic policies.
const FORMAT: u32 = 1;

/// One resource of the type [`crate::wire::WAYPOINT`].
#[derive(Clone, Debug, PartialEq)]
pub enum WaypointResource {
    /// The waypoint itself.
    Gateway(Arc<GatewayConfig>),
    /// A service behind it, or one that its routes lead to.
    Service(Arc<ServiceBinding>),
    /// A route.
    Route(Arc<Route>),
    /// A traffic policy.
    Traffic(Arc<NamedTraffic>),
    /// An authorization policy.
    Policy(Arc<Authorization>),
    /// A provider that policies have asked.
    Extension(Arc<Extension>),
    /// A request authentication.
    Authentication(Arc<Authentication>),
    /// Telemetry.
    Telemetry(Arc<Telemetry>),
    /// A rate limit.
    Limit(Arc<Limit>),
}

/// The waypoint that a resource of this name is told: its first two segments.
pub fn waypoint_of(name: &str) -> &str {
    let mut slashes = name.match_indices('/');
    let end = slashes.nth(1).map_or(name.len(), |(at, _)| at);
    name.get(..end).unwrap_or(name)
}

impl WaypointResource {
    /// All that a waypoint is told, in no particular order.
    pub fn all(told: &Resources) -> impl Iterator<Item = Self> {
        let gateway = told.gateway.iter().cloned().map(Self::Gateway);
        let services = told.services.values().cloned().map(Self::Service);
        let routes = told.routes.values().cloned().map(Self::Route);
        let traffic = told.traffic.values().cloned().map(Self::Traffic);
        let policies = told.policies.values().cloned().map(Self::Policy);
        let authentications = told.authentications.values().cloned();
        let of_services = gateway.chain(services).chain(routes).chain(traffic);
        let extensions = told.extensions.values().cloned().map(Self::Extension);
        let authentications = authentications.map(Self::Authentication);
        let telemetry = told.telemetry.values().cloned().map(Self::Telemetry);
        let limits = told.limits.values().cloned().map(Self::Limit);
        let of_services = of_services.chain(policies);
        let attached = of_services.chain(authentications).chain(limits);
        attached.chain(extensions).chain(telemetry)
    }

    /// Its resource name.
    pub fn name(&self, waypoint: &WaypointName) -> String {
        match self {
            Self::Gateway(_) => waypoint.to_string(),
            Self::Service(service) => {
                let ServiceKey {
                    namespace,
                    hostname,
                } = &service.key;
                format!("{waypoint}/service/{namespace}/{hostname}")
            }
            Self::Route(route) => route_name(waypoint, &route.key),
            Self::Traffic(traffic) => traffic_name(waypoint, &traffic.key),
            Self::Policy(policy) => attached_name(waypoint, POLICY, &policy.key),
            Self::Authentication(policy) => attached_name(waypoint, AUTHENTICATION, &policy.key),
            Self::Limit(limit) => attached_name(waypoint, LIMIT, &limit.key),
            Self::Extension(provider) => format!("{waypoint}/extension/{}", provider.name),
            Self::Telemetry(told) => attached_name(waypoint, TELEMETRY, &told.key),
        }
    }

    /// Whether both are the same memory.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Gateway(a), Self::Gateway(b)) => Arc::ptr_eq(a, b),
            (Self::Service(a), Self::Service(b)) => Arc::ptr_eq(a, b),
            (Self::Route(a), Self::Route(b)) => Arc::ptr_eq(a, b),
            (Self::Traffic(a), Self::Traffic(b)) => Arc::ptr_eq(a, b),
            (Self::Policy(a), Self::Policy(b)) => Arc::ptr_eq(a, b),
            (Self::Extension(a), Self::Extension(b)) => Arc::ptr_eq(a, b),
            (Self::Authentication(a), Self::Authentication(b)) => Arc::ptr_eq(a, b),
            (Self::Telemetry(a), Self::Telemetry(b)) => Arc::ptr_eq(a, b),
            (Self::Limit(a), Self::Limit(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// The `lateen.waypoint.v1.Resource` that says it.
    pub fn encode(&self, waypoint: &WaypointName) -> Vec<u8> {
        let (origin, content) = match self {
            Self::Gateway(gateway) => (
                origin(
                    &gateway.origin,
                    "gateway",
                    &waypoint.namespace,
                    &waypoint.name,
                ),
                Content::Gateway(gateway::encode(gateway)),
            ),
            Self::Service(service) => (
                origin(
                    &service.origin,
                    "service",
                    &service.key.namespace,
                    &service.key.hostname,
                ),
                Content::Service(binding::encode(waypoint, service)),
            ),
            Self::Route(route) => {
                let RouteKey {
                    kind,
                    namespace,
                    name,
                } = &route.key;
                (
                    origin(&route.origin, kind.as_str(), namespace, name),
                    Content::Route(route::encode(route)),
                )
            }
            Self::Traffic(traffic) => {
                let TrafficKey {
                    namespace, name, ..
                } = &traffic.key;
                (
                    origin(&traffic.origin, "destination-rule", namespace, name),
                    Content::Traffic(traffic::encode(traffic)),
                )
            }
            Self::Policy(policy) => {
                let PolicyKey { namespace, name } = &policy.key;
                (
                    origin(&policy.origin, "authorization-policy", namespace, name),
                    Content::Policy(policy::encode(policy)),
                )
            }
            Self::Extension(provider) => (
                origin(&provider.origin, "extension-provider", "", &provider.name),
                Content::Extension(extension::encode(provider)),
            ),
            Self::Authentication(policy) => {
                let PolicyKey { namespace, name } = &policy.key;
                (
                    origin(&policy.origin, "request-authentication", namespace, name),
                    Content::Authn(authentication::encode(policy)),
                )
            }
            Self::Telemetry(told) => {
                let PolicyKey { namespace, name } = &told.key;
                (
                    origin(&told.origin, "telemetry", namespace, name),
                    Content::Telemetry(telemetry::encode(told)),
                )
            }
            Self::Limit(limit) => {
                let PolicyKey { namespace, name } = &limit.key;
                (
                    origin(&limit.origin, "rate-limit", namespace, name),
                    Content::Limit(limit::encode(limit)),
                )
            }
        };
        let resource = proto::Resource {
            name: self.name(waypoint),
            waypoint: waypoint.to_string(),
            origin: Some(origin),
            requires: Vec::new(),
            content: Some(content),
        };
        resource.encode_to_vec()
    }

    /// Reads a `lateen.waypoint.v1.Resource` sent under `name`, and whose it is.
    ///
    /// # Errors
    /// [`ConvertError`] for anything that is not wholly understood, also when it requires a feature
    /// that this version lacks, and when the content belongs under another name.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<(WaypointName, Self), ConvertError> {
        decode(name, bytes).map_err(|fault| fault.of(name))
    }
}

fn decode(name: &str, bytes: &[u8]) -> Result<(WaypointName, WaypointResource), Fault> {
    let given = proto::Resource::decode(bytes);
    let given = given.map_err(|e| Fault::new("resource", Reason::Undecodable(e)))?;
    let mut lacking = given.requires.iter();
    let lacking = lacking.find(|feature| !FEATURES.contains(&feature.as_str()));
    if let Some(feature) = lacking {
        return Err(Fault::new("requires", Reason::Unsupported(feature.clone())));
    }
    let no_name = |_| Fault::new("waypoint", Reason::Waypoint(given.waypoint.clone()));
    let waypoint: WaypointName = given.waypoint.parse().map_err(no_name)?;
    let from = given.origin.unwrap_or_default();
    let origin = Origin {
        file: Arc::from(&*from.file),
        line: from.line,
    };
    let within = |kind: &str| {
        let kind = kind.to_owned();
        move |fault: Fault| fault.within(&kind)
    };
    let read = match given.content {
        Some(Content::Gateway(gateway)) => {
            let read = gateway::decode(&waypoint, origin, gateway);
            WaypointResource::Gateway(Arc::new(read.map_err(within("gateway"))?))
        }
        Some(Content::Service(service)) => {
            let read = binding::decode(&waypoint, origin, service);
            WaypointResource::Service(Arc::new(read.map_err(within("service"))?))
        }
        Some(Content::Route(route)) => {
            let key = RouteKey {
                kind: kind(&from.kind)?,
                namespace: required("origin.namespace", from.namespace)?,
                name: required("origin.name", from.name)?,
            };
            let read = route::decode(key, origin, route);
            WaypointResource::Route(Arc::new(read.map_err(within("route"))?))
        }
        Some(Content::Traffic(traffic)) => {
            let key = TrafficKey {
                namespace: required("origin.namespace", from.namespace)?,
                name: required("origin.name", from.name)?,
                subset: Arc::from(&*traffic.subset),
            };
            let read = traffic::decode(key, origin, traffic);
            WaypointResource::Traffic(Arc::new(read.map_err(within("traffic"))?))
        }
        Some(Content::Policy(policy)) => {
            let key = PolicyKey {
                namespace: required("origin.namespace", from.namespace)?,
                name: required("origin.name", from.name)?,
            };
            let read = policy::decode(key, origin, policy);
            WaypointResource::Policy(Arc::new(read.map_err(within("policy"))?))
        }
        Some(Content::Extension(extension)) => {
            let name = required("origin.name", from.name)?;
            let read = extension::decode(name, origin, extension);
            WaypointResource::Extension(Arc::new(read.map_err(within("extension"))?))
        }
        Some(Content::Telemetry(told)) => {
            let key = PolicyKey {
                namespace: required("origin.namespace", from.namespace)?,
                name: required("origin.name", from.name)?,
            };
            let read = telemetry::decode(key, origin, told);
            WaypointResource::Telemetry(Arc::new(read.map_err(within("telemetry"))?))
        }
        Some(Content::Authn(policy)) => {
            let key = PolicyKey {
                namespace: required("origin.namespace", from.namespace)?,
                name: required("origin.name", from.name)?,
            };
            let read = authentication::decode(key, origin, policy);
            WaypointResource::Authentication(Arc::new(read.map_err(within("authn"))?))
        }
        Some(Content::Limit(limit)) => {
            let key = PolicyKey {
                namespace: required("origin.namespace", from.namespace)?,
                name: required("origin.name", from.name)?,
            };
            let read = limit::decode(key, origin, limit);
            WaypointResource::Limit(Arc::new(read.map_err(within("limit"))?))
        }
        None => return Err(Fault::new("content", Reason::Missing)),
    };
    match read.name(&waypoint) {
        own if own == name && own == given.name => Ok((waypoint, read)),
        own => Err(Fault::new("name", Reason::OtherName(own))),
    }
}

fn origin(written: &Origin, kind: &str, namespace: &str, name: &str) -> proto::Origin {
    proto::Origin {
        file: written.file.to_string(),
        line: written.line,
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

const KINDS: [Kind; 5] = [
    Kind::Grpc,
    Kind::Http,
    Kind::Tls,
    Kind::Tcp,
    Kind::VirtualService,
];

fn kind(text: &str) -> Result<Kind, Fault> {
    let kind = KINDS.into_iter().find(|kind| kind.as_str() == text);
    kind.ok_or_else(|| Fault::new("origin.kind", Reason::Unsupported(text.to_owned())))
}

fn route_name(waypoint: &WaypointName, key: &RouteKey) -> String {
    let kind = key.kind.as_str();
    format!("{waypoint}/{kind}/{}/{}", key.namespace, key.name)
}

fn traffic_name(waypoint: &WaypointName, key: &TrafficKey) -> String {
    let TrafficKey {
        namespace,
        name,
        subset,
    } = key;
    match subset.is_empty() {
        true => format!("{waypoint}/traffic/{namespace}/{name}"),
        false => format!("{waypoint}/traffic/{namespace}/{name}/{subset}"),
    }
}

fn attached_name(waypoint: &WaypointName, kind: &str, key: &PolicyKey) -> String {
    format!("{waypoint}/{kind}/{}/{}", key.namespace, key.name)
}

/// What is attached of that kind at this waypoint, by its name.
fn attached_named(
    field: &str,
    waypoint: &WaypointName,
    kind: &str,
    text: &str,
) -> Result<PolicyKey, Fault> {
    let read = || match *segments(waypoint, text)? {
        [given, namespace, name] if given == kind => Some(PolicyKey {
            namespace: Arc::from(namespace),
            name: Arc::from(name),
        }),
        _ => None,
    };
    read().ok_or_else(|| Fault::new(field, Reason::Reference(text.to_owned())))
}

/// The route of this waypoint that a name is of.
fn route_named(field: &str, waypoint: &WaypointName, text: &str) -> Result<RouteKey, Fault> {
    let read = || match *segments(waypoint, text)? {
        [kind, namespace, name] => Some(RouteKey {
            kind: self::kind(kind).ok()?,
            namespace: Arc::from(namespace),
            name: Arc::from(name),
        }),
        _ => None,
    };
    read().ok_or_else(|| Fault::new(field, Reason::Reference(text.to_owned())))
}

/// The traffic policy of this waypoint that a name is of; none for an empty one.
fn traffic_named(
    field: &str,
    waypoint: &WaypointName,
    text: &str,
) -> Result<Option<TrafficKey>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let read = || {
        let (namespace, name, subset) = match *segments(waypoint, text)? {
            ["traffic", namespace, name] => (namespace, name, ""),
            ["traffic", namespace, name, subset] => (namespace, name, subset),
            _ => return None,
        };
        Some(TrafficKey {
            namespace: Arc::from(namespace),
            name: Arc::from(name),
            subset: Arc::from(subset),
        })
    };
    let read = read().ok_or_else(|| Fault::new(field, Reason::Reference(text.to_owned())));
    read.map(Some)
}

/// What follows the waypoint's name in a resource name; none of it is empty.
fn segments<'a>(waypoint: &WaypointName, text: &'a str) -> Option<Vec<&'a str>> {
    let rest = text
        .strip_prefix(&waypoint.to_string())?
        .strip_prefix('/')?;
    let segments: Vec<&str> = rest.split('/').collect();
    segments.iter().all(|s| !s.is_empty()).then_some(segments)
}

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod tests;
