//! Where a connection that leaves a workload goes: the decision procedure of
//! `spec/hbone-dataplane.md` §2.2.
//!
//! What the mesh knows is tunnelled or refused; only an address the mesh does not know is passed
//! through. A waypoint that is named is gone through or the connection is refused.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::balance::{self, Endpoint, RoundRobin, Unavailable};
use super::service::{BalanceMode, Service};
use super::view::View;
use super::workload::{GatewayAddress, GatewayDestination, TunnelProtocol, Workload};
use crate::identity::SpiffeId;

/// Where HBONE is taken.
pub const HBONE_PORT: u16 = 15008;
/// Ports of the proxy itself, which no connection may ask it for.
pub const PROXY_PORTS: [u16; 3] = [15001, 15006, HBONE_PORT];

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To an address the mesh does not know, as it is.
    Passthrough {
        /// The original destination.
        to: SocketAddr,
    },
    /// To a workload that takes no tunnels, in plain text.
    Plain {
        /// The workload and its address.
        endpoint: Endpoint,
        /// The service addressed.
        service: Option<Arc<Service>>,
    },
    /// Through a tunnel.
    Tunnel(Tunnelled),
}

/// A connection that goes through a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnelled {
    /// Where the tunnel is opened.
    pub hop: SocketAddr,
    /// What it is asked for.
    pub target: SocketAddr,
    /// Who may answer at the hop.
    pub accepted: Arc<BTreeSet<SpiffeId>>,
    /// The workload at the hop: the endpoint, or the waypoint's instance.
    pub workload: Arc<Workload>,
    /// The service addressed.
    pub service: Option<Arc<Service>>,
}

/// Why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The proxy was asked for itself.
    #[error("{to} is this proxy itself")]
    SelfCall {
        /// The destination.
        to: SocketAddr,
    },
    /// The service has no such port.
    #[error("service {service} has no port {port}")]
    NoPort {
        /// `namespace/hostname`.
        service: String,
        /// The port asked for.
        port: u16,
    },
    /// Nobody serves it.
    #[error("service {service} has no healthy endpoint for port {port}")]
    NoEndpoint {
        /// `namespace/hostname`.
        service: String,
        /// The port asked for.
        port: u16,
    },
    /// The waypoint that must be passed cannot be reached.
    #[error("waypoint of {of} is not known or has no healthy instance")]
    NoWaypoint {
        /// What it is the waypoint of.
        of: String,
    },
    /// The endpoint is on another network.
    #[error("{workload} is on network `{network}`, and this version has no way there")]
    OtherNetwork {
        /// The endpoint's uid.
        workload: Arc<str>,
        /// Its network.
        network: Arc<str>,
    },
    /// The endpoint has no legal identity to expect.
    #[error("{workload} has no legal identity")]
    NoIdentity {
        /// The endpoint's uid.
        workload: Arc<str>,
    },
}

/// Decides a connection from `source` to `destination`. `turns` is the round-robin state of the
/// service addressed.
///
/// # Errors
/// [`Refusal`], in words for the log.
pub fn decide(
    view: &View,
    source: &Workload,
    destination: SocketAddr,
    turns: &mut RoundRobin,
) -> Result<Route, Refusal> {
    let ip = destination.ip();
    if ip.is_loopback() && PROXY_PORTS.contains(&destination.port()) {
        return Err(Refusal::SelfCall { to: destination });
    }
    if let Some(workload) = view.workload_at(&source.network, ip) {
        return to_workload(view, source, workload, destination, turns);
    }
    match view.service_at(&source.network, ip, &source.namespace) {
        Some(service) => to_service(view, source, service, destination, turns),
        None => Ok(Route::Passthrough { to: destination }),
    }
}

fn to_service(
    view: &View,
    source: &Workload,
    service: &Arc<Service>,
    destination: SocketAddr,
    turns: &mut RoundRobin,
) -> Result<Route, Refusal> {
    if let Some(gateway) = &service.waypoint {
        let of = || service.key.to_string();
        let service = Some(Arc::clone(service));
        return through(view, source, gateway, destination, service, turns, of);
    }
    if service.load_balancing.mode == BalanceMode::Passthrough {
        return Ok(Route::Passthrough { to: destination });
    }
    let port = destination.port();
    let chosen = balance::choose(view, source, service, destination, turns);
    let endpoint = chosen.map_err(|unavailable| match unavailable {
        Unavailable::Port => Refusal::NoPort {
            service: service.key.to_string(),
            port,
        },
        Unavailable::Endpoints => Refusal::NoEndpoint {
            service: service.key.to_string(),
            port,
        },
    })?;
    direct(source, endpoint, Some(Arc::clone(service)))
}

fn to_workload(
    view: &View,
    source: &Workload,
    workload: &Arc<Workload>,
    destination: SocketAddr,
    turns: &mut RoundRobin,
) -> Result<Route, Refusal> {
    if let Some(gateway) = &workload.waypoint
        && !is_instance(view, gateway, source)
    {
        let of = || workload.uid.to_string();
        return through(view, source, gateway, destination, None, turns, of);
    }
    let endpoint = Endpoint {
        workload: Arc::clone(workload),
        address: destination,
    };
    direct(source, endpoint, None)
}

/// Straight to an endpoint: over HBONE when it takes it, else plainly.
fn direct(
    source: &Workload,
    endpoint: Endpoint,
    service: Option<Arc<Service>>,
) -> Result<Route, Refusal> {
    let Endpoint { workload, address } = &endpoint;
    if workload.network != source.network {
        return Err(Refusal::OtherNetwork {
            workload: Arc::clone(&workload.uid),
            network: Arc::clone(&workload.network),
        });
    }
    if workload.tunnel == TunnelProtocol::None {
        return Ok(Route::Plain { endpoint, service });
    }
    Ok(Route::Tunnel(Tunnelled {
        hop: SocketAddr::new(address.ip(), HBONE_PORT),
        target: *address,
        accepted: accepted(workload, service.as_deref())?,
        workload: Arc::clone(workload),
        service,
    }))
}

/// By way of a waypoint, which is asked for the original destination.
fn through(
    view: &View,
    source: &Workload,
    gateway: &GatewayAddress,
    destination: SocketAddr,
    service: Option<Arc<Service>>,
    turns: &mut RoundRobin,
    of: impl Fn() -> String,
) -> Result<Route, Refusal> {
    let missing = || Refusal::NoWaypoint { of: of() };
    let (endpoint, waypoint) = match &gateway.destination {
        GatewayDestination::Hostname(key) => {
            let waypoint = view.service(key).ok_or_else(missing)?;
            let asked = SocketAddr::new(destination.ip(), gateway.hbone_port);
            let chosen = balance::choose(view, source, waypoint, asked, turns);
            (chosen.map_err(|_none| missing())?, Some(waypoint))
        }
        GatewayDestination::Address { network, address } => {
            let asked = SocketAddr::new(*address, gateway.hbone_port);
            if let Some(workload) = view.workload_at(network, *address) {
                let workload = Arc::clone(workload);
                (
                    Endpoint {
                        workload,
                        address: asked,
                    },
                    None,
                )
            } else {
                let found = view.service_at(network, *address, &source.namespace);
                let waypoint = found.ok_or_else(missing)?;
                let chosen = balance::choose(view, source, waypoint, asked, turns);
                (chosen.map_err(|_none| missing())?, Some(waypoint))
            }
        }
    };
    if endpoint.workload.network != source.network {
        return Err(Refusal::OtherNetwork {
            workload: Arc::clone(&endpoint.workload.uid),
            network: Arc::clone(&endpoint.workload.network),
        });
    }
    Ok(Route::Tunnel(Tunnelled {
        hop: endpoint.address,
        target: destination,
        accepted: accepted(&endpoint.workload, waypoint.map(|w| &**w))?,
        workload: endpoint.workload,
        service,
    }))
}

/// Whether `source` is itself an instance of the waypoint, which must not be sent to itself.
fn is_instance(view: &View, gateway: &GatewayAddress, source: &Workload) -> bool {
    match &gateway.destination {
        GatewayDestination::Hostname(key) => {
            view.endpoints(key).iter().any(|w| w.uid == source.uid)
        }
        GatewayDestination::Address { network, address } => {
            let owns = source.network == *network && source.addresses.contains(address);
            let service = view.service_at(network, *address, &source.namespace);
            let behind = service.map_or(&[][..], |s| view.endpoints(&s.key));
            owns || behind.iter().any(|w| w.uid == source.uid)
        }
    }
}

/// Who may answer: the endpoint's own identity, and those the service names besides.
fn accepted(
    workload: &Workload,
    service: Option<&Service>,
) -> Result<Arc<BTreeSet<SpiffeId>>, Refusal> {
    let own = workload
        .identity()
        .map_err(|_illegal| Refusal::NoIdentity {
            workload: Arc::clone(&workload.uid),
        })?;
    let named = service.map_or(&[][..], |s| &s.subject_alt_names);
    // A name that is no identity could never be proven, so it accepts nobody.
    let mut accepted: BTreeSet<SpiffeId> = named.iter().filter_map(|n| n.parse().ok()).collect();
    accepted.insert(own);
    Ok(Arc::new(accepted))
}

#[cfg(test)]
mod tests;
