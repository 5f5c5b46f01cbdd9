//! Which endpoint of a service a connection gets (`spec/hbone-dataplane.md` §2.3).
//!
//! [`choose`] narrows the endpoints down to the best ones; whose turn it is among them is for a
//! [`Pick`] to say. [`RoundRobin`] is the one that nodes use. Waypoints have a choice of them
//! (`spec/waypoint-l7.md` §3.4, §3.6), made of what else is here: [`Grading`] tells the near from the far,
//! [`level`] where requests go when the near fail, [`Table`] who is the same for the same key, [`least`]
//! who has less to do, and [`warmth`] how much of its share a new endpoint gets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::service::{
    BalanceMode, HealthPolicy, IpFamilies, Scope, Service, ServiceKey, ServicePort,
};
use super::view::{Gateway, View};
use super::workload::{GatewayAddress, Health, TunnelProtocol, Workload};

mod grading;
mod spill;
mod table;
mod turns;
mod warmth;
mod weighing;

pub use grading::{Grade, Grading, KNOWN_LABELS};
pub use spill::{level, shares};
pub use table::{Table, hash};
pub use turns::RoundRobin;
pub use warmth::warmth;
pub use weighing::{least, weighted};

/// An endpoint with the address a connection to it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// One of its addresses, with the port that serves the service's; the unspecified one where it is
    /// known by its name alone.
    pub address: SocketAddr,
}

/// An endpoint that may be picked.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The workload.
    pub workload: &'a Arc<Workload>,
    /// Its share of the connections beside those of the others; never 0.
    pub share: u32,
    /// One of its addresses, with the port that serves the service's.
    pub address: SocketAddr,
}

/// Says whose turn it is among equally good endpoints.
pub trait Pick {
    /// The index of the one that gets the connection to `port` of `service`. `candidates` is
    /// never empty and in the order of uids; an index beyond it refuses the connection.
    fn pick(&mut self, service: &ServiceKey, port: u16, candidates: &[Candidate<'_>]) -> usize;

    /// Whether it is given those further away too, and prefers the near by itself.
    fn prefers(&self) -> bool {
        false
    }

    /// Whether a workload may be picked at all; anybody may unless this says otherwise.
    fn admits(&self, _workload: &Workload) -> bool {
        true
    }

    /// Whether an address has been tried for this connection, in vain.
    fn has_tried(&self, _address: SocketAddr) -> bool {
        false
    }

    /// The same as [`Pick::pick`] where each candidate stands for more than its address, so that whether
    /// that was tried says nothing.
    fn pick_group(
        &mut self,
        service: &ServiceKey,
        port: u16,
        candidates: &[Candidate<'_>],
    ) -> usize {
        self.pick(service, port, candidates)
    }
}

/// Picks among those that have not been tried.
#[derive(Debug)]
pub struct Untried<'a, P> {
    tried: &'a [SocketAddr],
    pick: &'a mut P,
}

impl<'a, P: Pick> Untried<'a, P> {
    /// Picks by `pick` where there is a choice.
    pub fn new(tried: &'a [SocketAddr], pick: &'a mut P) -> Self {
        Self { tried, pick }
    }
}

impl<P: Pick> Pick for Untried<'_, P> {
    fn pick(&mut self, service: &ServiceKey, port: u16, candidates: &[Candidate<'_>]) -> usize {
        if self.tried.is_empty() {
            return self.pick.pick(service, port, candidates);
        }
        let left = candidates.iter().enumerate();
        let left = left.filter(|(_, c)| !self.tried.contains(&c.address));
        let (places, left): (Vec<_>, Vec<_>) = left.map(|(at, c)| (at, *c)).unzip();
        // One beyond the candidates refuses.
        if left.is_empty() {
            return candidates.len();
        }
        let picked = self.pick.pick(service, port, &left);
        places.get(picked).copied().unwrap_or(candidates.len())
    }

    fn prefers(&self) -> bool {
        self.pick.prefers()
    }

    fn admits(&self, workload: &Workload) -> bool {
        self.pick.admits(workload)
    }

    fn has_tried(&self, address: SocketAddr) -> bool {
        self.tried.contains(&address)
    }

    fn pick_group(
        &mut self,
        service: &ServiceKey,
        port: u16,
        candidates: &[Candidate<'_>],
    ) -> usize {
        self.pick.pick_group(service, port, candidates)
    }
}

/// Why a service has no endpoint for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The service has no such port.
    Port,
    /// Nobody serves it, or nobody who is healthy and in reach.
    Endpoints,
    /// The only ones that serve it are on another network, such as this one.
    OtherNetwork(Arc<Workload>),
}

/// Chooses an endpoint of `service` for a connection from `source` to one of its addresses.
///
/// # Errors
/// [`Unavailable`], telling a port that is not there from endpoints that are not.
pub fn choose(
    view: &View,
    source: &Workload,
    service: &Service,
    destination: SocketAddr,
    pick: &mut impl Pick,
) -> Result<Endpoint, Unavailable> {
    let endpoints = view.endpoints(&service.key);
    choose_among(endpoints, source, service, destination, pick)
}

/// The same among endpoints of which something else is known than the mesh says.
///
/// # Errors
/// Those of [`choose`].
pub fn choose_among(
    endpoints: &[Arc<Workload>],
    source: &Workload,
    service: &Service,
    destination: SocketAddr,
    pick: &mut impl Pick,
) -> Result<Endpoint, Unavailable> {
    let declared = declared(service, destination.port()).ok_or(Unavailable::Port)?;
    let serves = |w: &Workload| mapped(service, w, declared);
    choose_serving(endpoints, source, service, destination, serves, pick)
}

/// The same for a port of the service that is known to be there: `serves` says which of an endpoint's
/// serves it, if any does.
///
/// # Errors
/// Those of [`choose`], but for the port.
pub(super) fn choose_serving(
    endpoints: &[Arc<Workload>],
    source: &Workload,
    service: &Service,
    destination: SocketAddr,
    serves: impl Fn(&Workload) -> Option<u16>,
    pick: &mut impl Pick,
) -> Result<Endpoint, Unavailable> {
    let serving = || {
        endpoints
            .iter()
            .filter(|w| w.capacity > 0 && healthy(service, w) && pick.admits(w))
            .filter_map(|w| Some((w, serves(w)?)))
    };
    // Endpoints elsewhere are left out before the preference is asked: there is no way to them
    // yet, so preferring one would refuse what another could serve.
    let near = serving().filter(|(w, _)| w.network == source.network);
    let able = near.filter_map(|(workload, port)| {
        let ip = address(service, workload, destination.ip());
        let ip = ip.or_else(|| unresolved(workload, destination.ip()))?;
        let address = SocketAddr::new(ip, port);
        Some(Candidate {
            workload,
            share: workload.capacity,
            address,
        })
    });
    let preferred = match pick.prefers() && service.load_balancing.mode == BalanceMode::Failover {
        true => able.collect(),
        false => prefer(source, service, able.collect()),
    };
    if preferred.is_empty() {
        let mut far = serving().filter(|(w, _)| w.network != source.network);
        let reachable = far.find(|(w, _)| w.network_gateway.is_some());
        let elsewhere = |(w, _): (&Arc<Workload>, _)| Unavailable::OtherNetwork(Arc::clone(w));
        return Err(reachable.map_or(Unavailable::Endpoints, elsewhere));
    }
    let picked = pick.pick(&service.key, destination.port(), &preferred);
    let picked = preferred.get(picked).ok_or(Unavailable::Endpoints)?;
    Ok(Endpoint {
        workload: Arc::clone(picked.workload),
        address: picked.address,
    })
}

/// Chooses by which of several waypoints a connection to a port of `service` goes: each takes its
/// weight of them. One that nobody is an instance of leaves its share to the others, and one of
/// weight 0 gets none; where none of them takes a share it is the first (§1.7 of
/// `spec/labels-and-policy.md`). One whose instances have all been tried in vain leaves the connection to
/// the others.
pub fn waypoint<'a>(
    view: &View,
    service: &'a Service,
    port: u16,
    pick: &mut impl Pick,
) -> Option<&'a GatewayAddress> {
    let weighted = service.weighted_waypoints.iter().filter(|w| w.weight > 0);
    let there = weighted.filter_map(|w| {
        let instance = view.instance(&w.waypoint.destination, &service.key.namespace)?;
        let ip = instance.addresses.first()?;
        let candidate = Candidate {
            workload: instance,
            share: w.weight,
            address: SocketAddr::new(*ip, w.waypoint.hbone_port),
        };
        Some((&w.waypoint, candidate))
    });
    let mut there: Vec<_> = there.collect();
    there.sort_by(|(_, a), (_, b)| a.workload.uid.cmp(&b.workload.uid));
    let mut chosen = None;
    while !there.is_empty() {
        let candidates: Vec<_> = there.iter().map(|(_, candidate)| *candidate).collect();
        let at = match candidates.len() {
            1 => 0,
            _ => pick.pick_group(&service.key, port, &candidates),
        };
        let Some((waypoint, _)) = there.get(at) else {
            break;
        };
        chosen = Some(*waypoint);
        if !exhausted(view, service, waypoint, pick) {
            break;
        }
        there.remove(at);
    }
    chosen.or(service.waypoint.as_ref())
}

/// Whether all instances of a waypoint have been tried in vain, but for those that nobody should try.
fn exhausted(view: &View, of: &Service, waypoint: &GatewayAddress, pick: &impl Pick) -> bool {
    let (reference, from) = (&waypoint.destination, &of.key.namespace);
    let named = match view.gateway(reference, from) {
        Some(Gateway::Service(named)) => Some(named),
        Some(Gateway::Workload(_)) | None => None,
    };
    let tried = |w: &&Arc<Workload>| {
        let port = named.and_then(|named| target_port(named, w, waypoint.hbone_port));
        let port = port.unwrap_or(waypoint.hbone_port);
        let mut at = w.addresses.iter().map(|ip| SocketAddr::new(*ip, port));
        at.any(|at| pick.has_tried(at))
    };
    let instances = view.instances(reference, from).iter();
    let (tried, left): (Vec<_>, Vec<_>) = instances.partition(tried);
    let able = |w: &Arc<Workload>| named.is_none_or(|named| healthy(named, w));
    !tried.is_empty() && !left.into_iter().any(able)
}

fn healthy(service: &Service, workload: &Workload) -> bool {
    workload.health == Health::Healthy
        || service.load_balancing.health_policy == HealthPolicy::AllowAll
}

fn declared(service: &Service, port: u16) -> Option<ServicePort> {
    let mut ports = service.ports.iter();
    ports.find(|p| p.service_port == port).copied()
}

/// What stands for the address of a workload that is known by its name alone: that of nobody. Tunnels are
/// not opened by name.
fn unresolved(workload: &Workload, asked: IpAddr) -> Option<IpAddr> {
    let plain = workload.tunnel == TunnelProtocol::None;
    let named = workload.addresses.is_empty() && !workload.hostname.is_empty();
    (plain && named).then_some(match asked {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    })
}

/// An endpoint of `service` by the address that a connection to it takes, if it is still one that may be
/// used: those that get nothing new may, for clients that stay with them.
pub fn endpoint(
    endpoints: &[Arc<Workload>],
    source: &Workload,
    service: &Service,
    port: u16,
    address: SocketAddr,
) -> Option<Endpoint> {
    let declared = declared(service, port)?;
    let workload = endpoints.iter().find(|w| {
        w.network == source.network
            && w.addresses.contains(&address.ip())
            && healthy(service, w)
            && mapped(service, w, declared) == Some(address.port())
    })?;
    Some(Endpoint {
        workload: Arc::clone(workload),
        address,
    })
}

/// The port of a workload that serves a port of a service: its own mapping, else the service's.
pub fn target_port(service: &Service, workload: &Workload, port: u16) -> Option<u16> {
    mapped(service, workload, declared(service, port)?)
}

fn mapped(service: &Service, workload: &Workload, declared: ServicePort) -> Option<u16> {
    let own = workload.services.get(&service.key)?;
    let mapped = own.iter().find(|m| m.service_port == declared.service_port);
    let mapped = mapped.map(|m| m.target_port).filter(|p| *p != 0);
    mapped.or_else(|| Some(declared.target_port).filter(|p| *p != 0))
}

/// The workload's address to use: the one asked for if it is the workload's, else one that the
/// service's families allow, of the family asked for where there is a choice.
fn address(service: &Service, workload: &Workload, asked: IpAddr) -> Option<IpAddr> {
    if workload.addresses.contains(&asked) {
        return Some(asked);
    }
    let allowed = |a: &&IpAddr| match service.ip_families {
        IpFamilies::Automatic | IpFamilies::Dual => true,
        IpFamilies::Ipv4Only => a.is_ipv4(),
        IpFamilies::Ipv6Only => a.is_ipv6(),
    };
    let mut usable = workload.addresses.iter().filter(allowed);
    let first = usable.clone().next();
    let same = usable.find(|a| a.is_ipv4() == asked.is_ipv4());
    same.or(first).copied()
}

/// Keeps the endpoints the service prefers for this client.
fn prefer<'a>(
    source: &Workload,
    service: &Service,
    mut able: Vec<Candidate<'a>>,
) -> Vec<Candidate<'a>> {
    let scopes = service.load_balancing.preference.as_slice();
    match service.load_balancing.mode {
        BalanceMode::Unspecified | BalanceMode::Passthrough => {}
        BalanceMode::Strict => {
            able.retain(|c| scopes.iter().all(|s| matches(source, c.workload, *s)));
        }
        BalanceMode::Failover => {
            let rank = |c: &Candidate<'_>| rank(source, c.workload, scopes);
            let best = able.iter().map(rank).max();
            able.retain(|c| Some(rank(c)) == best);
        }
    }
    able
}

/// How many leading scopes match. With the network first, any endpoint on it beats any other, and
/// those off it are still ranked by the rest.
fn rank(source: &Workload, workload: &Workload, scopes: &[Scope]) -> usize {
    let leading = |scopes: &[Scope]| {
        let matching = scopes.iter().take_while(|s| matches(source, workload, **s));
        matching.count()
    };
    match scopes {
        [Scope::Network, rest @ ..] if matches(source, workload, Scope::Network) => {
            scopes.len() + leading(rest)
        }
        [Scope::Network, rest @ ..] => leading(rest),
        _ => leading(scopes),
    }
}

fn matches(source: &Workload, workload: &Workload, scope: Scope) -> bool {
    match scope {
        Scope::Region => source.locality.region == workload.locality.region,
        Scope::Zone => source.locality.zone == workload.locality.zone,
        Scope::Subzone => source.locality.subzone == workload.locality.subzone,
        Scope::Node => source.node == workload.node,
        Scope::Cluster => source.cluster_id == workload.cluster_id,
        Scope::Network => source.network == workload.network,
    }
}

#[cfg(test)]
mod tests;
