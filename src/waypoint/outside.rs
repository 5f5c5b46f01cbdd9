//! Endpoints outside the mesh that are more than the mesh view has of them: the address that was asked
//! for, and those of names (`spec/waypoint-l7.md` §3.7).
//!
//! What a service entry lists by address is among the workloads of the view, and needs nothing of this.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;

use super::Arrival;
use super::routing::{Seen, Untold};
use crate::hbone::Connector;
use crate::model::outbound::Refusal;
use crate::model::service::Service;
use crate::model::waypoint::{Destination, External, Resolution};
use crate::model::workload::{Health, NetworkMode, Transport, TunnelProtocol, Workload};
use crate::resolve::{Addresses, LookupError, MOST_NAMES};

/// Where the endpoints of a service are.
pub(super) enum Outside {
    /// In the mesh view, all of them.
    No,
    /// At the address that was asked for.
    AsAsked(Arc<Workload>),
    /// Here, resolved.
    Resolved(Vec<Arc<Workload>>),
    /// At the addresses of the host that was asked for.
    Named {
        host: Arc<str>,
        endpoints: Vec<Arc<Workload>>,
    },
}

impl Outside {
    /// Those that the mesh view does not have.
    pub(super) fn endpoints(&self) -> Option<&[Arc<Workload>]> {
        match self {
            Self::No | Self::AsAsked(_) => None,
            Self::Resolved(endpoints) | Self::Named { endpoints, .. } => Some(endpoints),
        }
    }
}

/// Why no endpoint was chosen.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unchosen {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Untold(#[from] Untold),
    /// It is no host of the service.
    #[error("`{host}` is not one of {service}")]
    Uncovered { host: String, service: Arc<str> },
    #[error("nobody says which host of {service} is meant")]
    NoHost { service: Arc<str> },
    #[error("{to} is not among the addresses of {service}")]
    NotAmong { to: SocketAddr, service: Arc<str> },
    #[error("`{name}` cannot be resolved")]
    Unresolved { name: Arc<str>, source: LookupError },
    #[error("`{name}` stands for addresses of the mesh")]
    OfMesh { name: Arc<str> },
}

/// What names stand for, as endpoints: kept while neither the workload nor the answer changes.
#[derive(Default)]
pub(super) struct Instances(Mutex<HashMap<Arc<str>, Made>>);

struct Made {
    of: Arc<Workload>,
    addresses: Addresses,
    instances: Vec<Arc<Workload>>,
}

impl Instances {
    fn of(&self, named: &Arc<Workload>, addresses: &Addresses) -> Vec<Arc<Workload>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = known.get(&named.uid)
            && Arc::ptr_eq(&made.of, named)
            && Arc::ptr_eq(&made.addresses, addresses)
        {
            return made.instances.clone();
        }
        if known.len() >= MOST_NAMES {
            known.clear();
        }
        let instances = instances(named, addresses);
        let made = Made {
            of: Arc::clone(named),
            addresses: Arc::clone(addresses),
            instances: instances.clone(),
        };
        known.insert(Arc::clone(&named.uid), made);
        instances
    }
}

impl<C: Connector + Clone> Arrival<C> {
    /// Where the endpoints of a service are, for who asks for `host`.
    pub(super) async fn outside(
        &self,
        seen: &Seen,
        to: &Destination<'_>,
        host: Option<&str>,
    ) -> Result<Outside, Unchosen> {
        let Destination::Service {
            key, subset, asked, ..
        } = *to
        else {
            return Ok(Outside::No);
        };
        let external = seen.external(key);
        let view = &seen.mesh.view;
        let resolution = external.map_or(Resolution::Dns, |external| external.resolution);
        match (resolution, external, view.service(key)) {
            (Resolution::None, Some(external), Some(service)) => {
                as_asked(seen, external, service, asked)
            }
            (Resolution::DynamicDns, Some(_), Some(service)) => {
                self.named(seen, service, host).await
            }
            _ => {
                let all = view.endpoints(key);
                if !all.iter().any(|w| is_named(w)) {
                    return Ok(Outside::No);
                }
                let within = all
                    .iter()
                    .filter(|w| subset.is_none_or(|s| s.uids.contains(&w.uid)));
                let within: Vec<_> = within.cloned().collect();
                let first = resolution == Resolution::DnsRoundRobin;
                let resolved = self.resolved(seen, &within, first).await?;
                Ok(Outside::Resolved(resolved))
            }
        }
    }

    /// What names among these stand for. One that cannot be resolved is left out while there are others;
    /// so are addresses of the mesh, which a name of the outside does not lead to.
    async fn resolved(
        &self,
        seen: &Seen,
        endpoints: &[Arc<Workload>],
        first: bool,
    ) -> Result<Vec<Arc<Workload>>, Unchosen> {
        let shared = &self.shared;
        let each = endpoints.iter().map(|workload| async move {
            if !is_named(workload) {
                return Ok(vec![Arc::clone(workload)]);
            }
            let addresses = shared.names.configured.addresses(&workload.hostname).await;
            let addresses = addresses.map_err(|source| Unchosen::Unresolved {
                name: Arc::clone(&workload.hostname),
                source,
            })?;
            let outside = seen.mesh.view.outside(&addresses);
            if outside.is_empty() {
                let name = Arc::clone(&workload.hostname);
                return Err(Unchosen::OfMesh { name });
            }
            let mut instances = match outside.len() == addresses.len() {
                true => shared.outside.of(workload, &addresses),
                false => instances(workload, &outside),
            };
            if first {
                instances.truncate(1);
            }
            Ok(instances)
        });
        let (mut all, mut failed) = (Vec::new(), None);
        for found in join_all(each).await {
            match found {
                Ok(found) => all.extend(found),
                Err(e) => failed = Some(e),
            }
        }
        match (all.is_empty(), failed) {
            (true, Some(e)) => Err(e),
            _ => Ok(all),
        }
    }

    /// The addresses of the host asked for, which must be one of the service's.
    async fn named(
        &self,
        seen: &Seen,
        service: &Service,
        host: Option<&str>,
    ) -> Result<Outside, Unchosen> {
        let pattern = &service.key.hostname;
        let host = host.ok_or_else(|| Unchosen::NoHost {
            service: Arc::clone(pattern),
        })?;
        let host = host.to_ascii_lowercase();
        if !covers(pattern, &host) {
            return Err(Unchosen::Uncovered {
                host,
                service: Arc::clone(pattern),
            });
        }
        let name: Arc<str> = Arc::from(host);
        let addresses = self.shared.names.asked_for.addresses(&name).await;
        let addresses = addresses.map_err(|source| Unchosen::Unresolved {
            name: Arc::clone(&name),
            source,
        })?;
        let own =
            |ip: &IpAddr| seen.mesh.view.has_address(*ip) || seen.instance.addresses.contains(ip);
        if addresses.iter().any(own) {
            return Err(Unchosen::OfMesh { name });
        }
        let uid = format!("{}/{name}", service.key);
        let workload = elsewhere(seen, service, uid, &name);
        Ok(Outside::Named {
            endpoints: instances(&Arc::new(workload), &addresses),
            host: name,
        })
    }
}

/// Whoever is at the address asked for, if that is the service's.
fn as_asked(
    seen: &Seen,
    external: &External,
    service: &Service,
    asked: SocketAddr,
) -> Result<Outside, Unchosen> {
    let ip = asked.ip();
    let own = service.vips.iter().any(|vip| vip.address == ip);
    if !own && !external.ranges.iter().any(|range| range.contains(&ip)) {
        return Err(Unchosen::NotAmong {
            to: asked,
            service: Arc::clone(&service.key.hostname),
        });
    }
    // One for all addresses: nobody chooses among them.
    let mut workload = elsewhere(seen, service, service.key.to_string(), "");
    workload.addresses = vec![ip];
    Ok(Outside::AsAsked(Arc::new(workload)))
}

/// Whether a workload is known by its name alone.
fn is_named(workload: &Workload) -> bool {
    workload.addresses.is_empty() && !workload.hostname.is_empty()
}

/// Whether `*.suffix` stands for a host name too. What ends otherwise than a name is one of nobody.
fn covers(pattern: &str, host: &str) -> bool {
    let suffix = pattern.strip_prefix('*');
    suffix.is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
        && host.parse::<IpAddr>().is_err()
}

/// An endpoint for each address of a name. Of a name with addresses of both families each has one of
/// either, so that whoever connects may take the one that answers.
fn instances(named: &Arc<Workload>, addresses: &[IpAddr]) -> Vec<Arc<Workload>> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|a| a.is_ipv4());
    let (first, other) = match v4.is_empty() {
        true => (v6, v4),
        false => (v4, v6),
    };
    let count = first.len().max(other.len());
    let both = first.iter().cycle().zip(0..count).map(|(ip, at)| {
        let other = other.get(at.checked_rem(other.len()).unwrap_or_default());
        let addresses: Vec<IpAddr> = [Some(ip), other].into_iter().flatten().copied().collect();
        addresses
    });
    let instance = |addresses: Vec<IpAddr>| {
        let uid: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        Arc::new(Workload {
            uid: Arc::from(format!("{}/{}", named.uid, uid.join(","))),
            addresses,
            ..Workload::clone(named)
        })
    };
    both.map(instance).collect()
}

/// What stands for somebody outside that the mesh view does not have.
fn elsewhere(seen: &Seen, service: &Service, uid: String, hostname: &str) -> Workload {
    let instance = &seen.instance;
    let ports = BTreeMap::from([(service.key.clone(), Vec::new())]);
    Workload {
        uid: Arc::from(uid),
        name: Arc::clone(&service.name),
        namespace: Arc::clone(&service.key.namespace),
        service_account: Arc::from("default"),
        trust_domain: instance.trust_domain.clone(),
        addresses: Vec::new(),
        hostname: Arc::from(hostname),
        network: Arc::clone(&instance.network),
        tunnel: TunnelProtocol::None,
        transport: Transport::Tcp,
        udp: false,
        node: Arc::default(),
        network_mode: NetworkMode::HostNetwork,
        health: Health::Healthy,
        capacity: 1,
        locality: instance.locality.clone(),
        services: ports,
        waypoint: None,
        network_gateway: None,
        authorization_policies: Vec::new(),
        canonical_name: Arc::clone(&service.name),
        canonical_revision: Arc::from("latest"),
        workload_name: Arc::clone(&service.name),
        cluster_id: Arc::clone(&instance.cluster_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::workload;

    #[test]
    fn a_wildcard_stands_for_names_under_it() {
        for (host, want) in [
            ("a.ext.example", true),
            ("a.b.ext.example", true),
            ("ext.example", false),
            (".ext.example", false),
            ("aext.example", false),
            ("evil.example", false),
            ("a.ext.example.evil", false),
            ("", false),
        ] {
            assert_eq!(covers("*.ext.example", host), want, "{host}");
        }
        assert!(!covers("ext.example", "ext.example"));
    }

    #[test]
    fn an_endpoint_of_a_name_has_an_address_of_either_family() {
        for (name, addresses, want) in [
            ("one", &["192.0.2.1"][..], &["192.0.2.1"][..]),
            (
                "as many of both",
                &["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"],
                &["192.0.2.1,2001:db8::1", "192.0.2.2,2001:db8::2"],
            ),
            (
                "more of one",
                &["2001:db8::1", "2001:db8::2", "192.0.2.1"],
                &["192.0.2.1,2001:db8::1", "192.0.2.1,2001:db8::2"],
            ),
            ("one family", &["2001:db8::1"], &["2001:db8::1"]),
        ] {
            let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            let made = instances(&Arc::new(workload("ext", &[])), &addresses);
            let uids: Vec<_> = made.iter().map(|w| &*w.uid).collect();
            let want: Vec<_> = want.iter().map(|uid| format!("ext/{uid}")).collect();
            assert_eq!(uids, want, "{name}");
        }
    }
}
