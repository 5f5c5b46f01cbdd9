//! What a waypoint is to the mesh: a service reached by its HBONE port, one instance of it on its
//! node, and the reference to it on all that is behind it (`spec/control-plane.md` §2.1).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::{CompileError, keyed};
use crate::identity::SpiffeId;
use crate::model::binding::{
    Bindable, Binding, CanaryOutcome, Named, Waypoints, hbone_ports, ingress_uses,
};
use crate::model::declaration::{self, Gateway, Mesh};
use crate::model::service::{
    AppProtocol, IpFamilies, LoadBalancing, NetworkAddress, Service, ServiceKey, ServicePort,
    Visibility, WeightedWaypoint,
};
use crate::model::workload::{
    GatewayAddress, GatewayDestination, Health, NetworkMode, TunnelProtocol, Workload,
};

/// The waypoints of a mesh while it is compiled.
pub(super) struct Gateways<'a> {
    mesh: &'a Mesh,
    waypoints: Waypoints<'a>,
    /// In the order they were written.
    pub(super) all: Vec<Compiled<'a>>,
    references: HashMap<Named<'a>, GatewayAddress>,
}

/// A waypoint beside what it is reached by.
pub(super) struct Compiled<'a> {
    pub(super) declared: &'a Gateway,
    pub(super) key: ServiceKey,
    port: u16,
}

impl<'a> Gateways<'a> {
    pub(super) fn new(mesh: &'a Mesh) -> Result<Self, CompileError> {
        let each = mesh.gateways.iter().zip(hbone_ports(mesh));
        let compiled = |(declared, port): (&'a Gateway, u16)| {
            let key = keyed(&declared.name, &declared.namespace, &mesh.settings.domain)?;
            Ok(Compiled {
                declared,
                key,
                port,
            })
        };
        let all: Vec<_> = each.map(compiled).collect::<Result<_, _>>()?;
        let reference = |c: &Compiled<'a>| {
            let reference = GatewayAddress {
                destination: GatewayDestination::Hostname(c.key.clone()),
                hbone_port: c.port,
            };
            (Named::from(c.declared), reference)
        };
        Ok(Self {
            mesh,
            waypoints: Waypoints::new(mesh),
            references: all.iter().map(reference).collect(),
            all,
        })
    }

    /// The HBONE ports, which follow from workloads too.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.all.iter().map(|c| c.port).collect()
    }

    /// The waypoint before a workload.
    pub(super) fn of_workload(
        &self,
        declared: &'a declaration::Workload,
    ) -> Option<GatewayAddress> {
        self.reference(&self.waypoints.bind(Bindable::from(declared)))
    }

    /// Writes what is before a service on it.
    pub(super) fn bind(&self, declared: &'a declaration::Service, service: &mut Service) {
        let binding = self.waypoints.bind(Bindable::from(declared));
        service.waypoint = self.reference(&binding);
        let Binding::Bound(bound) = binding else {
            return;
        };
        service.ingress_use_waypoint = ingress_uses(declared, self.mesh).unwrap_or(false);
        if let CanaryOutcome::Shares(canary, weight) = bound.canary {
            let canary = self.references.get(&Named::from(canary));
            let both = [(service.waypoint.as_ref(), 100 - weight), (canary, weight)];
            let weighted = both.into_iter().filter_map(|(waypoint, weight)| {
                Some(WeightedWaypoint {
                    waypoint: waypoint?.clone(),
                    weight: weight.into(),
                })
            });
            service.weighted_waypoints = weighted.collect();
        }
    }

    /// Where a binding leads. What is an error never gets here by way of the mesh files; if it does,
    /// it leads to a name that nobody has, so that traffic is refused and not sent direct (§1.10).
    fn reference(&self, binding: &Binding<'_>) -> Option<GatewayAddress> {
        let references: &HashMap<Named<'_>, GatewayAddress> = &self.references;
        match binding {
            Binding::None => None,
            Binding::Bound(bound) => references.get(&Named::from(bound.waypoint)).cloned(),
            Binding::Unbound(unbound) if unbound.is_direct() => None,
            Binding::Unbound(unbound) => Some(nowhere(unbound.named)),
        }
    }

    /// The services that waypoints are, at their declared addresses or at those `assigned`.
    pub(super) fn services<'s>(
        &'s self,
        vips: impl Fn(&ServiceKey, &[IpAddr]) -> Vec<NetworkAddress> + 's,
    ) -> impl Iterator<Item = Service> + 's {
        self.all.iter().map(move |c| Service {
            key: c.key.clone(),
            name: Arc::clone(&c.declared.name),
            vips: vips(&c.key, &c.declared.addresses),
            ports: vec![ServicePort {
                service_port: c.port,
                target_port: c.port,
                app_protocol: AppProtocol::Unknown,
            }],
            subject_alt_names: self.identity(c.declared).into_iter().collect(),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            load_balancing: LoadBalancing::default(),
            ip_families: IpFamilies::Automatic,
            canonical: false,
            ingress_use_waypoint: false,
            visibility: Visibility::Public,
        })
    }

    /// Who answers at a waypoint. A checked mesh has no illegal name.
    fn identity(&self, gateway: &Gateway) -> Option<Arc<str>> {
        let domain = &self.mesh.settings.trust_domain;
        let id = SpiffeId::workload(domain, &gateway.namespace, &gateway.service_account);
        Some(Arc::from(id.ok()?.to_string()))
    }

    /// The instances, in the order of their uids; those of `before` that are the same are the same
    /// memory.
    pub(super) fn instances(&self, before: &[Arc<Workload>]) -> Vec<Arc<Workload>> {
        let known = |made: Workload| {
            let at = before.binary_search_by(|w| w.uid.cmp(&made.uid)).ok();
            match at.and_then(|at| before.get(at)) {
                Some(known) if **known == made => Arc::clone(known),
                _ => Arc::new(made),
            }
        };
        let mut all: Vec<_> = self.all.iter().map(|c| known(self.instance(c))).collect();
        all.sort_by(|a, b| a.uid.cmp(&b.uid));
        all
    }

    /// On the network of its machine and at its addresses, which name nobody (HOST_NETWORK): it is
    /// found as the endpoint of its service. It is not captured, so what is addressed to it
    /// directly is not tunnelled.
    fn instance(&self, compiled: &Compiled<'_>) -> Workload {
        let (gateway, settings) = (compiled.declared, &self.mesh.settings);
        let node = self.mesh.nodes.get(&gateway.node);
        let network = node.map(|n| &n.network).filter(|n| !n.is_empty());
        Workload {
            uid: gateway_uid(&settings.cluster_id, &gateway.namespace, &gateway.name),
            name: Arc::clone(&gateway.name),
            namespace: Arc::clone(&gateway.namespace),
            service_account: Arc::clone(&gateway.service_account),
            trust_domain: settings.trust_domain.clone(),
            addresses: node.map_or_else(Vec::new, |n| n.addresses.clone()),
            hostname: Arc::default(),
            network: Arc::clone(network.unwrap_or(&settings.network)),
            tunnel: TunnelProtocol::None,
            node: Arc::clone(&gateway.node),
            network_mode: NetworkMode::HostNetwork,
            health: Health::Healthy,
            capacity: 1,
            locality: node.map(|n| n.locality.clone()).unwrap_or_default(),
            services: BTreeMap::from([(compiled.key.clone(), Vec::new())]),
            waypoint: None,
            network_gateway: None,
            authorization_policies: Vec::new(),
            canonical_name: Arc::clone(&gateway.name),
            canonical_revision: Arc::from("latest"),
            workload_name: Arc::clone(&gateway.name),
            cluster_id: Arc::clone(&settings.cluster_id),
        }
    }
}

/// The uid of the instance of a declared waypoint.
pub fn gateway_uid(cluster_id: &str, namespace: &str, name: &str) -> Arc<str> {
    Arc::from(format!("{cluster_id}/lateen/Gateway/{namespace}/{name}"))
}

/// Where what cannot be bound leads: a host name of a domain that is never anybody's (RFC 6761 §6.4).
fn nowhere(named: Named<'_>) -> GatewayAddress {
    let hostname = format!("{}.{}.waypoint.invalid", named.name, named.namespace);
    GatewayAddress {
        destination: GatewayDestination::Hostname(ServiceKey {
            namespace: Arc::from(named.namespace),
            hostname: Arc::from(hostname),
        }),
        hbone_port: crate::model::outbound::HBONE_PORT,
    }
}

#[cfg(test)]
mod tests;
