//! What becomes of a connection that arrives for a workload (`spec/hbone-dataplane.md` §3.2–§4).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::balance::target_port;
use super::outbound::PROXY_PORTS;
use super::service::{Service, ServiceKey};
use super::view::View;
use super::workload::{GatewayAddress, Workload};
use crate::identity::SpiffeId;

/// What a tunnel is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// An address with a workload's port.
    Address(SocketAddr),
    /// A service's host name with the service's port.
    Name {
        /// The host name.
        host: &'a str,
        /// The service's port.
        port: u16,
    },
}

/// Who comes through a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller<'a> {
    /// Who he has proven to be.
    pub peer: Option<&'a SpiffeId>,
    /// The host name of the service that he says he addressed.
    pub host: Option<&'a str>,
}

/// A connection that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where the program listens.
    pub to: SocketAddr,
    /// The service the client addressed, where it can be told.
    pub service: Option<Arc<Service>>,
}

/// Why a connection is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is meant for somebody else.
    #[error("{to} is not an address of this workload")]
    NotHere {
        /// The address asked for.
        to: SocketAddr,
    },
    /// The name is no service of this workload's.
    #[error("this workload does not serve {host} port {port}")]
    NoService {
        /// The host name asked for.
        host: String,
        /// The port asked for.
        port: u16,
    },
    /// Nobody of those who share the address declares the port.
    #[error(
        "no workload at {to} declares that port: a service leads there, or its health probe asks there"
    )]
    NobodyThere {
        /// The address asked for.
        to: SocketAddr,
    },
    /// The name and the port mean two workloads that share an address.
    #[error("the port is {meant}'s, and {named} was asked for by name")]
    Another {
        /// Who was asked for by name.
        named: SpiffeId,
        /// The uid of whose the port is.
        meant: Arc<str>,
    },
    /// It must come by way of a waypoint, and does not.
    #[error("{of} is behind a waypoint, and this does not come from one")]
    NotThroughWaypoint {
        /// What the waypoint stands before.
        of: String,
    },
    /// The proxy was asked for itself.
    #[error("port {port} is the proxy's own")]
    ProxyPort {
        /// The port asked for.
        port: u16,
    },
}

impl Refusal {
    /// The status that tells an HBONE peer (§1.4).
    pub fn status(&self) -> u16 {
        match self {
            Self::NotHere { .. } => 400,
            Self::NotThroughWaypoint { .. } => 401,
            Self::NoService { .. }
            | Self::ProxyPort { .. }
            | Self::NobodyThere { .. }
            | Self::Another { .. } => 503,
        }
    }
}

/// Decides a tunnel that arrived at `local_ip` of `workload`: it must ask for that address, for
/// one whose waypoint the workload is, or for a service of the workload's by name. In each case it
/// is delivered here, if it came by a waypoint where one must be passed (§1.10) and if the
/// workload's [`Guard`](super::policy::Guard) lets it.
///
/// # Errors
/// [`Refusal`], with the status to answer.
pub fn tunnelled(
    view: &View,
    workload: &Workload,
    local_ip: IpAddr,
    target: Target<'_>,
    caller: Caller<'_>,
) -> Result<Delivery, Refusal> {
    let local_ip = local_ip.to_canonical();
    let (port, service) = match target {
        Target::Address(to) if to.ip().to_canonical() == local_ip => {
            let service = label(view, workload, to.port(), caller.host);
            (to.port(), service)
        }
        Target::Address(to) => {
            let service = stands_for(view, workload, to)?;
            (to.port(), service)
        }
        Target::Name { host, port } => {
            let missing = || Refusal::NoService {
                host: host.to_owned(),
                port,
            };
            let service = view.service_named(host, &workload.namespace);
            let service = service.ok_or_else(missing)?;
            let mapped = target_port(service, workload, port).ok_or_else(missing)?;
            (mapped, Some(Arc::clone(service)))
        }
    };
    if PROXY_PORTS.contains(&port) {
        return Err(Refusal::ProxyPort { port });
    }
    let host = match target {
        Target::Name { host, .. } => Some(host),
        Target::Address(_) => caller.host,
    };
    guarded(view, workload, Caller { host, ..caller })?;
    Ok(Delivery {
        to: SocketAddr::new(local_ip, port),
        service,
    })
}

/// Lets in what asks for somebody whose waypoint `workload` is; names the service if it is one.
fn stands_for(
    view: &View,
    workload: &Workload,
    to: SocketAddr,
) -> Result<Option<Arc<Service>>, Refusal> {
    let (network, ip) = (&workload.network, to.ip().to_canonical());
    let here = |waypoint: &GatewayAddress| view.is_instance(&waypoint.destination, workload);
    if let Some(other) = view.workload_at(network, ip) {
        let bound = other.waypoint.as_ref().is_some_and(here);
        return bound.then_some(None).ok_or(Refusal::NotHere { to });
    }
    let service = view.service_at(network, ip, &workload.namespace);
    let service = service.filter(|s| s.waypoints().any(here));
    let service = service.ok_or(Refusal::NotHere { to })?;
    Ok(Some(Arc::clone(service)))
}

/// Decides a plain connection to `destination` of `workload`, which has passed no waypoint; the
/// workload's [`Guard`](super::policy::Guard) has to let it in, too.
///
/// # Errors
/// [`Refusal`], in words for the log.
pub fn plaintext(
    view: &View,
    workload: &Workload,
    destination: SocketAddr,
) -> Result<Delivery, Refusal> {
    let port = destination.port();
    if PROXY_PORTS.contains(&port) {
        return Err(Refusal::ProxyPort { port });
    }
    guarded(view, workload, Caller::default())?;
    Ok(Delivery {
        to: destination,
        service: label(view, workload, port, None),
    })
}

/// Whether a connection may arrive without having passed a waypoint
/// (`spec/labels-and-policy.md` §1.10). A plain one has no peer and names no host: where the
/// workload's own waypoint must be passed it is turned away.
///
/// What was addressed to a service of the workload's is guarded by that service's waypoints;
/// everything else by the workload's own. Any waypoint may come, and nobody else. Whether it was a
/// service the peer says itself: his node proxy has been authenticated.
///
/// # Errors
/// [`Refusal::NotThroughWaypoint`].
pub fn guarded(view: &View, workload: &Workload, caller: Caller<'_>) -> Result<(), Refusal> {
    let named = caller.host;
    let service = named.and_then(|host| own_service(view, workload, host));
    let of = match service {
        Some(service) if service.waypoints().next().is_some() => service.key.to_string(),
        None if workload.waypoint.is_some() => workload.uid.to_string(),
        Some(_) | None => return Ok(()),
    };
    match caller.peer.is_some_and(|peer| view.is_waypoint(peer)) {
        true => Ok(()),
        false => Err(Refusal::NotThroughWaypoint { of }),
    }
}

/// Where a waypoint must be passed on the way to a workload: all that [`guarded`] goes by, but for who
/// comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    own: bool,
    /// In the order of their keys.
    services: Vec<(ServiceKey, bool)>,
}

impl Guarded {
    /// What holds for a workload.
    pub fn of(view: &View, workload: &Workload) -> Self {
        let mine = workload.services.keys().filter_map(|key| view.service(key));
        let behind = mine.map(|s| (s.key.clone(), s.waypoints().next().is_some()));
        Self {
            own: workload.waypoint.is_some(),
            services: behind.collect(),
        }
    }
}

/// The service a connection to this port counts for: the one the peer names if the workload really
/// serves it, else the first whose target port fits (§8).
fn label(
    view: &View,
    workload: &Workload,
    port: u16,
    forwarded_host: Option<&str>,
) -> Option<Arc<Service>> {
    let mut mine = workload.services.keys().filter_map(|key| view.service(key));
    let named = forwarded_host.and_then(|host| own_service(view, workload, host));
    let serves = |s: &&Arc<Service>| {
        let mut ports = s.ports.iter().map(|p| p.service_port);
        ports.any(|p| target_port(s, workload, p) == Some(port))
    };
    named.or_else(|| mine.find(serves)).map(Arc::clone)
}

/// The service of that host name, if the workload belongs to it.
fn own_service<'a>(view: &'a View, workload: &Workload, host: &str) -> Option<&'a Arc<Service>> {
    let mut mine = workload.services.keys().filter_map(|key| view.service(key));
    mine.find(|s| s.key.hostname.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests;
