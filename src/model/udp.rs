//! Where datagrams that leave a workload go, and which are let in (`spec/hbone-dataplane.md` §11.4).
//!
//! A datagram is the mesh's where a service has a UDP port and an endpoint that datagrams are carried to;
//! all others are left alone, unlike connections, of which the mesh takes every one. It passes no waypoint:
//! what stands before it are the policies of its endpoint.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::balance::{self, Endpoint, Pick};
use super::inbound::{self, Delivery};
use super::outbound::{PROXY_PORTS, Refusal, Tunnelled, tunnel_to, unavailable};
use super::service::{BalanceMode, Service};
use super::view::View;
use super::workload::{TunnelProtocol, Workload};

/// Where datagrams go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Past the mesh, as they are: to no UDP port of it, or to one that nobody carries datagrams to.
    Past,
    /// Through a tunnel, straight to an endpoint.
    Tunnel(Tunnelled),
}

/// Decides the datagrams that `source` sends from one port to `destination`, taking turns by `pick` where
/// there is a choice.
///
/// # Errors
/// [`Refusal`], in words for the log: they are the mesh's, and there is no way. They are dropped, and never
/// sent past it.
pub fn decide(
    view: &View,
    source: &Workload,
    destination: SocketAddr,
    pick: &mut impl Pick,
) -> Result<Route, Refusal> {
    let (network, ip) = (&source.network, destination.ip().to_canonical());
    let destination = SocketAddr::new(ip, destination.port());
    if let Some(workload) = view.workload_at(network, ip) {
        return to_workload(view, source, workload, destination);
    }
    match view.service_at(network, ip, &source.namespace) {
        Some(service) => to_service(view, source, service, destination, pick),
        None if view.hides(network, destination) => Err(Refusal::NotVisible {
            to: destination,
            from: Arc::clone(&source.namespace),
        }),
        None => match view.udp_sharer_at(network, destination) {
            Some(sharer) => to_workload(view, source, sharer, destination),
            None => Ok(Route::Past),
        },
    }
}

/// What a workload sends itself does not leave it.
fn to_workload(
    view: &View,
    source: &Workload,
    workload: &Arc<Workload>,
    destination: SocketAddr,
) -> Result<Route, Refusal> {
    let itself = workload.uid == source.uid;
    if itself || !workload.carries_udp() || !view.serves_udp(workload, destination.port()) {
        return Ok(Route::Past);
    }
    let endpoint = Endpoint {
        workload: Arc::clone(workload),
        address: destination,
    };
    tunnel_to(endpoint, None).map(Route::Tunnel)
}

fn to_service(
    view: &View,
    source: &Workload,
    service: &Arc<Service>,
    destination: SocketAddr,
    pick: &mut impl Pick,
) -> Result<Route, Refusal> {
    let declared = service.udp_port(destination.port());
    let Some(port) = declared.filter(|_| view.carries_udp_to(service)) else {
        return Ok(Route::Past);
    };
    let endpoints = view.endpoints(&service.key);
    let serves = |w: &Workload| Some(port.target_port).filter(|p| w.carries_udp() && *p != 0);
    let chosen = balance::choose_serving(endpoints, source, service, destination, serves, pick);
    let endpoint = chosen.map_err(|why| unavailable(why, service, destination.port()))?;
    tunnel_to(endpoint, Some(service)).map(Route::Tunnel)
}

/// Decides datagrams that arrived through a tunnel at `local_ip` of `workload`: they must ask for a UDP port
/// of the workload's at that address. A service that the peer names by its `host` is the one they count
/// for. They have passed no waypoint, whatever stands before the workload, and are delivered if its
/// [`Guard`](super::policy::Guard) lets them.
///
/// # Errors
/// [`inbound::Refusal`], with the status to answer.
pub fn arrive(
    view: &View,
    workload: &Workload,
    local_ip: IpAddr,
    to: SocketAddr,
    host: Option<&str>,
) -> Result<Delivery, inbound::Refusal> {
    let (local_ip, port) = (local_ip.to_canonical(), to.port());
    if to.ip().to_canonical() != local_ip {
        return Err(inbound::Refusal::NotHere { to });
    }
    if PROXY_PORTS.contains(&port) {
        return Err(inbound::Refusal::ProxyPort { port });
    }
    let services: Vec<_> = view.serving_udp(workload, port).collect();
    let first = services
        .first()
        .ok_or(inbound::Refusal::NobodyThere { to })?;
    let named = |s: &&&Arc<Service>| host.is_some_and(|h| s.key.hostname.eq_ignore_ascii_case(h));
    let service = services.iter().find(named).unwrap_or(first);
    Ok(Delivery {
        to: SocketAddr::new(local_ip, port),
        service: Some(Arc::clone(service)),
    })
}

impl Workload {
    /// Whether datagrams to it go through tunnels.
    pub fn carries_udp(&self) -> bool {
        self.udp && self.tunnel == TunnelProtocol::Hbone
    }
}

impl View {
    /// All to which datagrams of some workload are the mesh's: UDP ports of services at the services'
    /// addresses, and at those of their endpoints. To anything else [`decide`] lets them past.
    pub fn udp_targets(&self) -> BTreeSet<SocketAddr> {
        let mut targets = BTreeSet::new();
        for service in self.services().filter(|s| self.carries_udp_to(s)) {
            let able = self.endpoints(&service.key).iter();
            let able = able.filter(|w| w.carries_udp()).flat_map(|w| &w.addresses);
            let own: BTreeSet<_> = able.copied().collect();
            for port in &service.udp_ports {
                let at = |port: u16| move |ip: IpAddr| SocketAddr::new(ip, port);
                let vips = service.vips.iter().map(|vip| vip.address);
                targets.extend(vips.map(at(port.service_port)));
                let own = own.iter().copied().filter(|_| port.target_port != 0);
                targets.extend(own.map(at(port.target_port)));
            }
        }
        targets
    }

    /// The ports at which a workload is sent datagrams through tunnels; none where its node carries none.
    pub fn udp_inbound(&self, uid: &str) -> BTreeSet<u16> {
        let workload = self.workload(uid).filter(|w| w.udp);
        let workload = workload.into_iter();
        workload.flat_map(|w| self.udp_target_ports(w)).collect()
    }

    /// The workload that is sent datagrams at a port of an address it shares with others of its machine:
    /// of several the first by uid. By the address alone none of them is found.
    pub fn udp_sharer_at(&self, network: &str, at: SocketAddr) -> Option<&Arc<Workload>> {
        let mut sharing = self.sharers_at(at.ip()).iter();
        sharing.find(|w| {
            let here = w.carries_udp() && &*w.network == network;
            here && self.serves_udp(w, at.port())
        })
    }

    /// Whether a service that nobody here may see has a UDP port there.
    fn hides(&self, network: &str, at: SocketAddr) -> bool {
        let mut services = self.services_at(network, at.ip());
        services.any(|s| s.udp_port(at.port()).is_some() && self.carries_udp_to(s))
    }

    /// Whether datagrams to its UDP ports are the mesh's. To one that has no endpoint yet they are: what
    /// will be carried is not to leave in clear text before.
    fn carries_udp_to(&self, service: &Service) -> bool {
        let endpoints = self.endpoints(&service.key);
        let by_client = service.load_balancing.mode == BalanceMode::Passthrough;
        let able = endpoints.is_empty() || endpoints.iter().any(|w| w.carries_udp());
        able && !by_client && !service.udp_ports.is_empty()
    }

    fn serves_udp(&self, workload: &Workload, port: u16) -> bool {
        self.serving_udp(workload, port).next().is_some()
    }

    /// The services that lead to a UDP port of a workload.
    fn serving_udp<'a>(
        &'a self,
        workload: &'a Workload,
        port: u16,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let services = workload.services.keys().filter_map(|key| self.service(key));
        services.filter(move |s| s.udp_ports.iter().any(|p| p.target_port == port))
    }

    fn udp_target_ports<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = u16> + 'a {
        let services = workload.services.keys().filter_map(|key| self.service(key));
        let ports = services.flat_map(|service| &service.udp_ports);
        ports.map(|port| port.target_port).filter(|p| *p != 0)
    }
}

#[cfg(test)]
mod tests;
