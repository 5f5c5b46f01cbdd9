//! What a waypoint does with a tunnel that is asked of it: for whom it opens one
//! (`spec/waypoint-l7.md` §1.2, `spec/labels-and-policy.md` §1.6) and where it sends on what comes
//! through (§1.8).

mod onward;
mod resources;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::balance::Pick;
use super::inbound::Target;
use super::outbound::{self, Route};
use super::service::{AppProtocol, Service, ServiceKey, ServicePort};
use super::view::View;
use super::workload::{GatewayAddress, Workload};

pub use onward::{Destination, Picking, as_asked, toward};
pub use resources::{
    AttachedSet, BoundPort, Extension, External, ExternalEndpoint, GatewayConfig, NamedTraffic,
    Options, Resolution, Resources, ServiceBinding, Subset, TrafficKey,
};

/// What names a waypoint: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaypointName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A text that names no waypoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no waypoint: expected NAMESPACE/NAME, such as shop/waypoint")]
pub struct WaypointNameError(String);

impl FromStr for WaypointName {
    type Err = WaypointNameError;

    fn from_str(text: &str) -> Result<Self, WaypointNameError> {
        let part = |part: &str| {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (1..=63).contains(&part.len()) && part.bytes().all(legal)
        };
        match text.split_once('/') {
            Some((namespace, name)) if part(namespace) && part(name) => Ok(Self {
                namespace: Arc::from(namespace),
                name: Arc::from(name),
            }),
            _ => Err(WaypointNameError(text.chars().take(128).collect())),
        }
    }
}

impl fmt::Display for WaypointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The instance of a waypoint that runs on a node: a workload of the waypoint's namespace placed
/// there, which serves the service of the waypoint's name or has that name itself. Of several the
/// first by uid.
pub fn instance<'a>(view: &'a View, name: &WaypointName, node: &str) -> Option<&'a Arc<Workload>> {
    view.workloads()
        .filter(|w| w.namespace == name.namespace && &*w.node == node)
        .filter(|w| w.name == name.name || served(view, name, w).is_some())
        .min_by_key(|w| &w.uid)
}

/// Where `instance` takes tunnels: on the port that the waypoint's service leads to.
pub fn hbone_port(view: &View, name: &WaypointName, instance: &Workload) -> Option<u16> {
    let port = served(view, name, instance)?.ports.first()?;
    Some(port.target_port)
}

/// The service that a waypoint is, if it is this one's.
fn served<'a>(view: &'a View, name: &WaypointName, instance: &Workload) -> Option<&'a Service> {
    let mut services = instance.services.keys().filter_map(|key| view.service(key));
    let named = services.find(|s| s.key.namespace == name.namespace && s.name == name.name);
    named.map(|service| &**service)
}

/// What a tunnel through a waypoint is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A port of a service that the waypoint is bound to.
    Service {
        /// The service.
        service: Arc<Service>,
        /// What it declares of the port.
        port: ServicePort,
        /// The address and port asked for, or those the name stands for.
        asked: SocketAddr,
    },
    /// A workload that the waypoint is bound to.
    Workload {
        /// The workload.
        workload: Arc<Workload>,
        /// Its address, and any port.
        asked: SocketAddr,
    },
}

impl Bound {
    /// What is spoken there, as far as it is declared.
    pub fn app_protocol(&self) -> AppProtocol {
        match self {
            Self::Service { port, .. } => port.app_protocol,
            Self::Workload { .. } => AppProtocol::Unknown,
        }
    }

    /// The address and port asked for, or those the name stands for.
    pub fn asked(&self) -> SocketAddr {
        match self {
            Self::Service { asked, .. } | Self::Workload { asked, .. } => *asked,
        }
    }

    /// The service addressed.
    pub fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Service { service, .. } => Some(service),
            Self::Workload { .. } => None,
        }
    }
}

/// Why a waypoint opens no tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not know its own part.
    #[error("the waypoint was not told of itself")]
    Untold,
    /// It stands for nobody there.
    #[error("{target} is neither a service nor a workload that is bound to this waypoint")]
    NotBound {
        /// What was asked for.
        target: String,
    },
    /// The service has no such port.
    #[error("service {service} declares no port {port}")]
    NoPort {
        /// The service.
        service: ServiceKey,
        /// The port asked for.
        port: u16,
    },
    /// A tunnel by name needs a service with an address.
    #[error("service {service} has no address")]
    NoAddress {
        /// The service.
        service: ServiceKey,
    },
}

impl Refusal {
    /// The status that tells an HBONE peer (`spec/waypoint-l7.md` §1.2).
    pub fn status(&self) -> u16 {
        match self {
            Self::Untold => 503,
            Self::NotBound { .. } | Self::NoPort { .. } | Self::NoAddress { .. } => 404,
        }
    }
}

/// Decides what a tunnel asked of `instance` is for: a declared port of a bound service, by one of
/// its addresses, a range that the waypoint is `told` of or its name, or any port of a bound workload.
/// One that is told of services and not of itself takes none (`spec/control-plane.md` §8.3).
///
/// # Errors
/// [`Refusal`], with the status to answer.
pub fn admit(
    view: &View,
    told: Option<&Resources>,
    instance: &Workload,
    target: Target<'_>,
) -> Result<Bound, Refusal> {
    if told.is_some_and(|told| told.gateway.is_none()) {
        return Err(Refusal::Untold);
    }
    let here = |waypoint: &GatewayAddress| view.is_instance(&waypoint.destination, instance);
    let bound = |service: &Service| service.waypoints().any(here);
    match target {
        Target::Name { host, port } => {
            let mut named = view.services_named(host).iter();
            let service = named.find(|s| bound(s));
            let service = service.ok_or_else(|| not_bound(format_args!("{host}:{port}")))?;
            let key = || service.key.clone();
            let vip = service.vips.first();
            let vip = vip.ok_or_else(|| Refusal::NoAddress { service: key() })?;
            declared(service, SocketAddr::new(vip.address, port))
        }
        Target::Address(asked) => {
            let ip = asked.ip().to_canonical();
            let asked = SocketAddr::new(ip, asked.port());
            let mut sharing = view.services_at(&instance.network, ip);
            if let Some(service) = sharing.find(|s| bound(s)) {
                return declared(service, asked);
            }
            if let Some(service) = told.and_then(|told| by_range(view, told, ip)) {
                return declared(service, asked);
            }
            match view.workload_at(&instance.network, ip) {
                // Bound to itself it would be asked to go round in a circle.
                Some(workload)
                    if workload.uid != instance.uid
                        && workload.waypoint.as_ref().is_some_and(here) =>
                {
                    let workload = Arc::clone(workload);
                    Ok(Bound::Workload { workload, asked })
                }
                _ => Err(not_bound(format_args!("{asked}"))),
            }
        }
    }
}

/// The bound service whose longest range an address lies in.
fn by_range<'a>(view: &'a View, told: &Resources, ip: IpAddr) -> Option<&'a Arc<Service>> {
    let bound = told.services.values().filter(|binding| binding.bound);
    let lengths = bound.filter_map(|binding| {
        let ranges = binding.external.as_ref()?.ranges.iter();
        let around = ranges.filter(|range| range.contains(&ip));
        Some((around.map(IpNet::prefix_len).max()?, &binding.key))
    });
    let (_length, key) = lengths.max_by_key(|(length, _)| *length)?;
    view.service(key)
}

fn not_bound(target: fmt::Arguments<'_>) -> Refusal {
    Refusal::NotBound {
        target: target.to_string(),
    }
}

fn declared(service: &Arc<Service>, asked: SocketAddr) -> Result<Bound, Refusal> {
    let mut ports = service.ports.iter();
    let port = ports.find(|p| p.service_port == asked.port());
    let port = port.ok_or_else(|| Refusal::NoPort {
        service: service.key.clone(),
        port: asked.port(),
    })?;
    Ok(Bound::Service {
        service: Arc::clone(service),
        port: *port,
        asked,
    })
}

/// Where what comes through a tunnel goes on from `instance` where no route says otherwise: to an
/// endpoint of what was asked for.
///
/// # Errors
/// [`outbound::Refusal`], in words for the log.
pub fn onward(
    view: &View,
    instance: &Workload,
    bound: &Bound,
    tried: &[SocketAddr],
    pick: &mut impl Pick,
) -> Result<Route, outbound::Refusal> {
    let picking = Picking {
        tried,
        ..Picking::default()
    };
    toward(view, instance, &Destination::from(bound), &picking, pick)
}

#[cfg(test)]
mod tests;
