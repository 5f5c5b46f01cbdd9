//! What a service entry is to the mesh: a service for each of its hosts, and each endpoint that it
//! lists or implies a workload outside every node (`spec/waypoint-l7.md` §3.7).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::gateways::Gateways;
use super::{ByService, port};
use crate::model::binding::Bindable;
use crate::model::declaration::{Endpoint, ExportTo, Mesh, ServiceEntry, Settings};
use crate::model::service::{
    BalanceMode, IpFamilies, LoadBalancing, NetworkAddress, Service, ServiceKey, Visibility,
};
use crate::model::waypoint::{ExternalEndpoint, Resolution};
use crate::model::workload::{
    Health, Locality, NetworkMode, PortMapping, Transport, TunnelProtocol, Workload,
};

/// The service entries of a mesh that are in force, while it is compiled.
pub(super) struct Entries<'a> {
    mesh: &'a Mesh,
    /// One for each host.
    pub(super) all: Vec<Host<'a>>,
}

/// A host of a service entry.
pub(super) struct Host<'a> {
    pub(super) declared: &'a ServiceEntry,
    pub(super) key: ServiceKey,
}

impl Host<'_> {
    /// Those it is asked for by that are no ranges.
    fn addresses(&self) -> Vec<IpAddr> {
        self.declared.single_addresses().collect()
    }

    /// Whether it is given an address. One that is reached where it was asked for has only its own.
    pub(super) fn wants_address(&self) -> bool {
        self.declared.resolution != Resolution::None && self.addresses().is_empty()
    }
}

impl<'a> Entries<'a> {
    /// Those of a mesh: all but wildcards that are behind no waypoint (`NoWaypointForWildcardService`).
    pub(super) fn new(mesh: &'a Mesh, gateways: &Gateways<'a>) -> Self {
        let in_force = |entry: &&ServiceEntry| {
            let binds = || gateways.leads_somewhere(Bindable::from(*entry));
            entry.resolution != Resolution::DynamicDns || binds()
        };
        let all = mesh.service_entries.iter().filter(in_force);
        let all = all.flat_map(|declared| {
            declared.hosts.iter().map(move |host| Host {
                declared,
                key: ServiceKey {
                    namespace: Arc::clone(&declared.namespace),
                    hostname: Arc::clone(host),
                },
            })
        });
        Self {
            mesh,
            all: all.collect(),
        }
    }

    /// No service entries, whatever a mesh has.
    pub(super) fn none(mesh: &'a Mesh) -> Self {
        let all = Vec::new();
        Self { mesh, all }
    }

    /// A service for each host.
    pub(super) fn services<'s>(
        &'s self,
        gateways: &'s Gateways<'a>,
        vips: impl Fn(&ServiceKey, &[IpAddr]) -> Vec<NetworkAddress> + 's,
        endpoints: &'s ByService,
    ) -> impl Iterator<Item = Service> + 's {
        self.all.iter().map(move |host| {
            let declared = host.declared;
            let mut service = Service {
                key: host.key.clone(),
                name: Arc::clone(&declared.name),
                vips: vips(&host.key, &host.addresses()),
                ports: declared.ports.iter().map(port).collect(),
                udp_ports: Vec::new(),
                subject_alt_names: declared.subject_alt_names.clone(),
                waypoint: None,
                weighted_waypoints: Vec::new(),
                load_balancing: LoadBalancing {
                    mode: match declared.resolution {
                        Resolution::None => BalanceMode::Passthrough,
                        Resolution::Static
                        | Resolution::Dns
                        | Resolution::DnsRoundRobin
                        | Resolution::DynamicDns => BalanceMode::Unspecified,
                    },
                    health_policy: endpoints
                        .get(&host.key)
                        .copied()
                        .unwrap_or_default()
                        .policy(),
                    ..LoadBalancing::default()
                },
                ip_families: IpFamilies::Automatic,
                canonical: false,
                ingress_use_waypoint: false,
                visibility: match declared.export_to {
                    ExportTo::Everyone => Visibility::Public,
                    ExportTo::Own => Visibility::Namespace,
                },
            };
            let object = Bindable::from(declared);
            gateways.bind(object, declared.ingress_use_waypoint, &mut service);
            service
        })
    }

    /// The endpoints, on each network: what is outside the mesh is reached from all of them. In the
    /// order of their uids; those that are as `before` are the same memory.
    pub(super) fn workloads(
        &self,
        networks: &BTreeSet<&Arc<str>>,
        before: &[Arc<Workload>],
    ) -> Vec<Arc<Workload>> {
        let mut all = BTreeMap::new();
        for host in &self.all {
            for endpoint in endpoints(host) {
                for network in networks {
                    let made = self.workload(host, &endpoint, network);
                    let known = all.entry(Arc::clone(&made.uid)).or_insert(made);
                    let mapped = mapped(host.declared, &endpoint.external);
                    known.services.insert(host.key.clone(), mapped);
                }
            }
        }
        let kept = |made: Workload| {
            let at = before.binary_search_by(|w| w.uid.cmp(&made.uid)).ok();
            let known = at.and_then(|at| before.get(at));
            let known = known.filter(|known| ***known == made).cloned();
            known.unwrap_or_else(|| Arc::new(made))
        };
        all.into_values().map(kept).collect()
    }

    /// Reached in plain text. Its address may be somebody's of the mesh too, so it is found as an
    /// endpoint alone.
    fn workload(&self, host: &Host<'_>, endpoint: &Endpoint, network: &Arc<str>) -> Workload {
        let (declared, settings) = (host.declared, &self.mesh.settings);
        let at = &endpoint.external;
        let address = at.address.parse().ok();
        let label = |key: &str, or: &str| {
            let carried = endpoint.labels.get(key).map(String::as_str);
            Arc::from(carried.unwrap_or(or))
        };
        Workload {
            uid: uid(settings, declared, &at.address, network),
            name: Arc::clone(&declared.name),
            namespace: Arc::clone(&declared.namespace),
            service_account: Arc::from("default"),
            trust_domain: settings.trust_domain.clone(),
            hostname: match address {
                Some(_) => Arc::default(),
                None => Arc::clone(&at.address),
            },
            addresses: address.into_iter().collect(),
            network: Arc::clone(network),
            tunnel: TunnelProtocol::None,
            transport: Transport::Tcp,
            udp: false,
            node: Arc::default(),
            network_mode: NetworkMode::HostNetwork,
            health: Health::Healthy,
            capacity: at.weight,
            locality: at.locality.clone(),
            services: BTreeMap::new(),
            waypoint: None,
            network_gateway: None,
            authorization_policies: Vec::new(),
            canonical_name: label("service.istio.io/canonical-name", &declared.name),
            canonical_revision: label("service.istio.io/canonical-revision", "latest"),
            workload_name: Arc::clone(&declared.name),
            cluster_id: Arc::clone(&settings.cluster_id),
        }
    }
}

/// The uid of an endpoint, as Istio has it (`spec/control-plane.md` §3.2); on other networks than the mesh's
/// own with the network after it.
pub(super) fn uid(
    settings: &Settings,
    entry: &ServiceEntry,
    address: &str,
    network: &Arc<str>,
) -> Arc<str> {
    let (cluster_id, namespace, name) = (&settings.cluster_id, &entry.namespace, &entry.name);
    let uid = format!("{cluster_id}/networking.istio.io/ServiceEntry/{namespace}/{name}/{address}");
    match *network == settings.network {
        true => Arc::from(uid),
        false => Arc::from(format!("{uid}/{network}")),
    }
}

/// Those listed; where names are looked up and none is listed, the host itself.
pub(super) fn endpoints(host: &Host<'_>) -> Vec<Endpoint> {
    let declared = host.declared;
    match declared.resolution {
        Resolution::None | Resolution::DynamicDns => Vec::new(),
        Resolution::Dns | Resolution::DnsRoundRobin if declared.endpoints.is_empty() => {
            vec![Endpoint {
                external: ExternalEndpoint {
                    address: Arc::clone(&host.key.hostname),
                    ports: BTreeMap::new(),
                    weight: 1,
                    locality: Locality::default(),
                },
                labels: BTreeMap::new(),
            }]
        }
        Resolution::Static | Resolution::Dns | Resolution::DnsRoundRobin => {
            declared.endpoints.clone()
        }
    }
}

fn mapped(declared: &ServiceEntry, endpoint: &ExternalEndpoint) -> Vec<PortMapping> {
    let ports = declared.ports.iter();
    let own = ports.filter_map(|port| {
        Some(PortMapping {
            service_port: port.port,
            target_port: *endpoint.ports.get(&port.port)?,
        })
    });
    own.collect()
}

#[cfg(test)]
mod tests;
