//! Which endpoint of a service a connection gets (`spec/hbone-dataplane.md` §2.3).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::service::{BalanceMode, HealthPolicy, IpFamilies, Scope, Service};
use super::view::View;
use super::workload::{Health, Workload};

/// An endpoint with the address a connection to it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// One of its addresses, with the port that serves the service's.
    pub address: SocketAddr,
}

/// Why a service has no endpoint for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The service has no such port.
    Port,
    /// Nobody serves it, or nobody who is healthy and in reach.
    Endpoints,
}

/// Takes turns between endpoints in proportion to their capacity, evenly spread: the smooth
/// weighted round-robin of one service. The caller keeps one per service.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    credit: HashMap<Arc<str>, i64>,
}

impl RoundRobin {
    /// Whose turn it is. `None` when no candidate has any capacity.
    pub fn pick<'a>(
        &mut self,
        candidates: impl Iterator<Item = &'a Arc<Workload>> + Clone,
    ) -> Option<&'a Arc<Workload>> {
        let weighty = candidates.filter(|w| w.capacity > 0);
        let total: i64 = weighty.clone().map(|w| i64::from(w.capacity)).sum();
        let mut chosen: Option<(&Arc<Workload>, i64)> = None;
        let mut count = 0;
        for workload in weighty {
            count += 1;
            let credit = match self.credit.get_mut(&workload.uid) {
                Some(credit) => credit,
                None => self.credit.entry(Arc::clone(&workload.uid)).or_default(),
            };
            *credit += i64::from(workload.capacity);
            if chosen.is_none_or(|(_, most)| *credit > most) {
                chosen = Some((workload, *credit));
            }
        }
        let (workload, _credit) = chosen?;
        if let Some(credit) = self.credit.get_mut(&workload.uid) {
            *credit -= total;
        }
        // Endpoints that have left leave their credit behind; starting over costs one uneven turn.
        if self.credit.len() > 2 * count + 16 {
            self.credit.clear();
        }
        Some(workload)
    }
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
    turns: &mut RoundRobin,
) -> Result<Endpoint, Unavailable> {
    let port = destination.port();
    if !service.ports.iter().any(|p| p.service_port == port) {
        return Err(Unavailable::Port);
    }
    let usable: Vec<&Arc<Workload>> = view
        .endpoints(&service.key)
        .iter()
        .filter(|w| healthy(service, w) && target_port(service, w, port).is_some())
        .filter(|w| in_reach(source, w))
        .collect();
    let preferred = prefer(source, service, usable);
    let picked = turns.pick(preferred.iter().copied());
    let workload = picked.ok_or(Unavailable::Endpoints)?;
    let port = target_port(service, workload, port).ok_or(Unavailable::Endpoints)?;
    let ip = address(service, workload, destination.ip()).ok_or(Unavailable::Endpoints)?;
    Ok(Endpoint {
        workload: Arc::clone(workload),
        address: SocketAddr::new(ip, port),
    })
}

fn healthy(service: &Service, workload: &Workload) -> bool {
    workload.health == Health::Healthy
        || service.load_balancing.health_policy == HealthPolicy::AllowAll
}

/// An endpoint on another network is in reach by its gateway only.
fn in_reach(source: &Workload, workload: &Workload) -> bool {
    match workload.network == source.network {
        true => !workload.addresses.is_empty(),
        false => workload.network_gateway.is_some(),
    }
}

/// The port of a workload that serves a port of a service: its own mapping, else the service's.
pub fn target_port(service: &Service, workload: &Workload, port: u16) -> Option<u16> {
    let declared = service.ports.iter().find(|p| p.service_port == port)?;
    let own = workload.services.get(&service.key)?;
    let mapped = own.iter().find(|m| m.service_port == port);
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
    usable: Vec<&'a Arc<Workload>>,
) -> Vec<&'a Arc<Workload>> {
    let scopes = service.load_balancing.preference.as_slice();
    match service.load_balancing.mode {
        BalanceMode::Unspecified | BalanceMode::Passthrough => usable,
        BalanceMode::Strict => {
            let all = |w: &&Arc<Workload>| scopes.iter().all(|s| matches(source, w, *s));
            usable.into_iter().filter(all).collect()
        }
        BalanceMode::Failover => {
            let rank = |w: &Arc<Workload>| rank(source, w, scopes);
            let best = usable.iter().map(|w| rank(w)).max();
            let of_best = |w: &&Arc<Workload>| Some(rank(w)) == best;
            usable.into_iter().filter(of_best).collect()
        }
    }
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
