//! Where a connection that leaves a workload goes: the decision procedure of
//! `spec/hbone-dataplane.md` §2.2.
//!
//! What the mesh knows is tunnelled or refused; only an address the mesh does not know is passed
//! through. A waypoint that is named is gone through or the connection is refused.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use super::balance::{self, Endpoint, Pick, Unavailable};
use super::service::{BalanceMode, Service};
use super::view::{Gateway, View};
use super::workload::{GatewayAddress, GatewayDestination, NetworkMode, TunnelProtocol, Workload};
use crate::identity::SpiffeId;

/// Where HBONE is taken.
pub const HBONE_PORT: u16 = 15008;
/// Ports of the proxy itself, which no connection may ask it for.
pub const PROXY_PORTS: [u16; 4] = [15001, 15006, HBONE_PORT, 15053];

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To an address the mesh does not know, or to a service that leaves the choice to the
    /// client ([`BalanceMode::Passthrough`]), as it is.
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
    /// To a workload that is known by its name alone, in plain text: whoever connects resolves it.
    Named {
        /// The workload.
        workload: Arc<Workload>,
        /// Its port.
        port: u16,
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
    /// The name that tells the hop who is meant, where several share its address.
    pub name: Option<Arc<str>>,
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
    /// The address is a service's that its owner does not show to others.
    #[error("{to} belongs to a service that namespace {from} may not see")]
    NotVisible {
        /// The destination.
        to: SocketAddr,
        /// The namespace of the client.
        from: Arc<str>,
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
    /// It is asked for by an address of the mesh at which nobody is.
    #[error("{to} is an address of the mesh, and no endpoint's own")]
    NobodyThere {
        /// The destination.
        to: SocketAddr,
    },
    /// The endpoint has no legal identity to expect.
    #[error("{workload} has no legal identity")]
    NoIdentity {
        /// The endpoint's uid.
        workload: Arc<str>,
    },
}

/// Decides a connection from `source` to `destination`, taking turns by `pick` where there is a
/// choice.
///
/// # Errors
/// [`Refusal`], in words for the log.
pub fn decide(
    view: &View,
    source: &Workload,
    destination: SocketAddr,
    pick: &mut impl Pick,
) -> Result<Route, Refusal> {
    let ip = destination.ip().to_canonical();
    let destination = SocketAddr::new(ip, destination.port());
    if ip.is_loopback() && PROXY_PORTS.contains(&destination.port()) {
        return Err(Refusal::SelfCall { to: destination });
    }
    let connection = Connection {
        view,
        source,
        destination,
    };
    if let Some(workload) = view.workload_at(&source.network, ip) {
        return connection.to_workload(workload, pick);
    }
    match view.service_at(&source.network, ip, &source.namespace) {
        Some(service) => connection.to_service(service, pick),
        // The mesh knows the address, so what is sent there is not for the wire in clear text.
        None if view.is_vip(&source.network, ip) => Err(Refusal::NotVisible {
            to: destination,
            from: Arc::clone(&source.namespace),
        }),
        None => match view.sharer_at(&source.network, destination) {
            // As a program in a network of its own reaches itself: past the proxy.
            Some(sharer) if sharer.uid != source.uid => connection.to_workload(sharer, pick),
            _ => Ok(Route::Passthrough { to: destination }),
        },
    }
}

/// A connection to decide.
#[derive(Clone, Copy)]
struct Connection<'a> {
    view: &'a View,
    source: &'a Workload,
    destination: SocketAddr,
}

impl Connection<'_> {
    fn to_service(self, service: &Arc<Service>, pick: &mut impl Pick) -> Result<Route, Refusal> {
        let port = self.destination.port();
        if let Some(waypoint) = balance::waypoint(self.view, service, port, pick) {
            return self.through(waypoint, Some(service), &service.key, pick);
        }
        let endpoints = self.view.endpoints(&service.key);
        to_endpoint(endpoints, self.source, service, self.destination, pick)
    }

    fn to_workload(self, workload: &Arc<Workload>, pick: &mut impl Pick) -> Result<Route, Refusal> {
        if let Some(waypoint) = &workload.waypoint
            && !self.view.is_instance(&waypoint.destination, self.source)
        {
            return self.through(waypoint, None, &workload.uid, pick);
        }
        let endpoint = Endpoint {
            workload: Arc::clone(workload),
            address: self.destination,
        };
        direct(endpoint, None)
    }

    /// By way of a waypoint, which is asked for the original destination.
    fn through(
        self,
        waypoint: &GatewayAddress,
        service: Option<&Arc<Service>>,
        of: &dyn Display,
        pick: &mut impl Pick,
    ) -> Result<Route, Refusal> {
        let missing = || Refusal::NoWaypoint { of: of.to_string() };
        let reference = &waypoint.destination;
        // The family is the reference's where that is an address, else the client's (§2.4).
        let like = match reference {
            GatewayDestination::Hostname(_) => self.destination.ip(),
            GatewayDestination::Address { address, .. } => *address,
        };
        let asked = SocketAddr::new(like, waypoint.hbone_port);
        let found = self.view.gateway(reference, &self.source.namespace);
        let (hop, workload, named) = match found.ok_or_else(missing)? {
            Gateway::Workload(workload) => {
                let hop = match workload.addresses.contains(&like) {
                    true => asked,
                    false => workload
                        .hbone_address(like, asked.port())
                        .ok_or_else(missing)?,
                };
                (hop, Arc::clone(workload), None)
            }
            Gateway::Service(named) => {
                let chosen = balance::choose(self.view, self.source, named, asked, pick);
                let instance = chosen.map_err(|unavailable| match unavailable {
                    Unavailable::Port | Unavailable::Endpoints => missing(),
                    Unavailable::OtherNetwork(workload) => elsewhere(&workload),
                })?;
                // A waypoint or gateway is never known by its name alone.
                if instance.address.ip().is_unspecified() {
                    return Err(missing());
                }
                (instance.address, instance.workload, Some(&**named))
            }
        };
        if workload.network != self.source.network {
            return Err(elsewhere(&workload));
        }
        Ok(Route::Tunnel(Tunnelled {
            hop,
            target: self.destination,
            accepted: accepted(&workload, named)?,
            name: None,
            workload,
            service: service.map(Arc::clone),
        }))
    }
}

/// Straight to one of the endpoints of a service, whatever waypoint the service has: to the one asked for
/// where the service leaves the choice to its clients.
pub(super) fn to_endpoint(
    endpoints: &[Arc<Workload>],
    source: &Workload,
    service: &Arc<Service>,
    destination: SocketAddr,
    pick: &mut impl Pick,
) -> Result<Route, Refusal> {
    if service.load_balancing.mode == BalanceMode::Passthrough {
        let to = destination;
        return Ok(Route::Passthrough { to });
    }
    let chosen = balance::choose_among(endpoints, source, service, destination, pick);
    let endpoint = chosen.map_err(|why| unavailable(why, service, destination.port()))?;
    direct(endpoint, Some(service))
}

/// Why nobody was chosen for a port of a service.
pub(super) fn unavailable(why: Unavailable, service: &Service, port: u16) -> Refusal {
    let service = || service.key.to_string();
    match why {
        Unavailable::Port => Refusal::NoPort {
            service: service(),
            port,
        },
        Unavailable::Endpoints => Refusal::NoEndpoint {
            service: service(),
            port,
        },
        Unavailable::OtherNetwork(workload) => elsewhere(&workload),
    }
}

/// Straight to an endpoint: over HBONE when it takes it, else plainly.
pub(super) fn direct(endpoint: Endpoint, service: Option<&Arc<Service>>) -> Result<Route, Refusal> {
    if endpoint.address.ip().is_unspecified() {
        return Ok(Route::Named {
            port: endpoint.address.port(),
            workload: endpoint.workload,
            service: service.map(Arc::clone),
        });
    }
    if endpoint.workload.tunnel == TunnelProtocol::None {
        let service = service.map(Arc::clone);
        return Ok(Route::Plain { endpoint, service });
    }
    tunnel_to(endpoint, service).map(Route::Tunnel)
}

/// Straight to an endpoint that takes tunnels.
pub(super) fn tunnel_to(
    endpoint: Endpoint,
    service: Option<&Arc<Service>>,
) -> Result<Tunnelled, Refusal> {
    let Endpoint { workload, address } = endpoint;
    let (accepted, name) = match workload.network_mode {
        NetworkMode::Standard => (accepted(&workload, service.map(|s| &**s))?, None),
        // Asked by name it answers as itself, whatever is told to those who cannot ask.
        NetworkMode::HostNetwork => {
            let own = identity(&workload)?;
            let name = own.server_name().map(Arc::from);
            (Arc::new(BTreeSet::from([own])), name)
        }
    };
    Ok(Tunnelled {
        hop: SocketAddr::new(address.ip(), HBONE_PORT),
        target: address,
        accepted,
        name,
        workload,
        service: service.map(Arc::clone),
    })
}

fn elsewhere(workload: &Workload) -> Refusal {
    Refusal::OtherNetwork {
        workload: Arc::clone(&workload.uid),
        network: Arc::clone(&workload.network),
    }
}

/// Who may answer: the endpoint's own identity, and those the service names besides.
fn accepted(
    workload: &Workload,
    service: Option<&Service>,
) -> Result<Arc<BTreeSet<SpiffeId>>, Refusal> {
    let own = identity(workload)?;
    let named = service.map_or(&[][..], |s| &s.subject_alt_names);
    // A name that is no identity could never be proven, so it accepts nobody.
    let mut accepted: BTreeSet<SpiffeId> = named.iter().filter_map(|n| n.parse().ok()).collect();
    accepted.insert(own);
    Ok(Arc::new(accepted))
}

fn identity(workload: &Workload) -> Result<SpiffeId, Refusal> {
    let identity = workload.identity();
    identity.map_err(|_illegal| Refusal::NoIdentity {
        workload: Arc::clone(&workload.uid),
    })
}

#[cfg(test)]
mod tests;
