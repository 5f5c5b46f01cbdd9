//! What a waypoint is to the mesh: a service reached by its HBONE port, an instance of it on each of
//! its nodes, and the reference to it on all that is behind it (`spec/control-plane.md` §2.1).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::{ByService, CompileError, Reported, keyed, transport};
use crate::identity::SpiffeId;
use crate::model::binding::{
    Bindable, Binding, CanaryOutcome, Named, Waypoints, hbone_ports, ingress_uses,
};
use crate::model::declaration::{self, Gateway, Machines, Mesh, Proxy};
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
    pub(super) port: u16,
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

    /// The waypoints before a service or a service entry: the first one, and the canary.
    pub(super) fn before(&self, object: Bindable<'a>) -> impl Iterator<Item = Named<'a>> {
        self.waypoints.before(object).map(Named::from)
    }

    /// The waypoint before a workload.
    pub(super) fn of_workload(
        &self,
        declared: &'a declaration::Workload,
    ) -> Option<GatewayAddress> {
        self.reference(&self.waypoints.bind(Bindable::from(declared)))
    }

    /// Whether what is bound so goes anywhere but direct.
    pub(super) fn leads_somewhere(&self, object: Bindable<'a>) -> bool {
        self.waypoints.leads_somewhere(object)
    }

    /// Writes on a service what is before what it was declared as, which has its own word on `ingress`
    /// gateways or not.
    pub(super) fn bind(&self, object: Bindable<'a>, ingress: Option<bool>, service: &mut Service) {
        let binding = self.waypoints.bind(object);
        service.waypoint = self.reference(&binding);
        let Binding::Bound(bound) = binding else {
            return;
        };
        let ingress = ingress_uses(ingress, object.namespace, self.mesh);
        service.ingress_use_waypoint = ingress.unwrap_or(false);
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
        endpoints: &'s ByService,
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
            udp_ports: Vec::new(),
            subject_alt_names: self.identity(c.declared).into_iter().collect(),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            load_balancing: LoadBalancing {
                health_policy: endpoints.get(&c.key).copied().unwrap_or_default().policy(),
                ..LoadBalancing::default()
            },
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

    /// The instances, as their machines have `reported` them.
    pub(super) fn instances(&self, reported: &Reported, before: &[Arc<Workload>]) -> Instances {
        let mut instances = Instances {
            all: Vec::new(),
            held: BTreeSet::new(),
            same: true,
        };
        for (compiled, machine) in self.placed() {
            let made = self.instance(compiled, machine, reported);
            if reported.of(&made.uid).held && !self.is_mute(machine) {
                instances.held.insert(Arc::clone(&made.uid));
            }
            let at = before.binary_search_by(|w| w.uid.cmp(&made.uid)).ok();
            let known = at.and_then(|at| before.get(at));
            let known = known.filter(|known| ***known == made).cloned();
            instances.same &= known.is_some();
            instances.all.push(known.unwrap_or_else(|| Arc::new(made)));
        }
        instances.all.sort_by(|a, b| a.uid.cmp(&b.uid));
        instances
    }

    /// Which waypoints each machine is an instance of, in the order of their uids.
    pub(super) fn by_node(&self) -> Served {
        let mut served: BTreeMap<Arc<str>, Vec<Instance>> = BTreeMap::new();
        for (Compiled { declared, .. }, machine) in self.placed() {
            let of_node = served.entry(Arc::clone(machine)).or_default();
            of_node.push(Instance {
                uid: uid(declared, &self.mesh.settings.cluster_id, machine),
                name: Arc::clone(&declared.name),
                namespace: Arc::clone(&declared.namespace),
                service_account: Arc::clone(&declared.service_account),
            });
        }
        let sorted = |(node, mut all): (Arc<str>, Vec<Instance>)| {
            all.sort_by(|a, b| a.uid.cmp(&b.uid));
            (node, all)
        };
        served.into_iter().map(sorted).collect()
    }

    fn placed(&self) -> impl Iterator<Item = (&Compiled<'a>, &'a Arc<str>)> {
        let all = self.all.iter();
        all.flat_map(|c| c.declared.machines.names().iter().map(move |m| (c, m)))
    }

    /// Nothing is heard of a machine that runs another proxy.
    fn is_mute(&self, machine: &str) -> bool {
        let node = self.mesh.nodes.get(machine);
        node.is_some_and(|node| node.proxy == Proxy::Ztunnel)
    }

    /// On the network of its machine and at its addresses, which name nobody (HOST_NETWORK): it is
    /// found as the endpoint of its service. It is not captured, so what is addressed to it
    /// directly is not tunnelled.
    fn instance(
        &self,
        compiled: &Compiled<'_>,
        machine: &Arc<str>,
        reported: &Reported,
    ) -> Workload {
        let (gateway, settings) = (compiled.declared, &self.mesh.settings);
        let node = self.mesh.nodes.get(machine);
        let network = node.map(|n| &n.network).filter(|n| !n.is_empty());
        let uid = uid(gateway, &settings.cluster_id, machine);
        let health = match self.is_mute(machine) {
            true => Health::Healthy,
            false => reported.of(&uid).health,
        };
        Workload {
            uid,
            name: Arc::clone(&gateway.name),
            namespace: Arc::clone(&gateway.namespace),
            service_account: Arc::clone(&gateway.service_account),
            trust_domain: settings.trust_domain.clone(),
            addresses: node.map_or_else(Vec::new, |n| n.addresses.clone()),
            hostname: Arc::default(),
            network: Arc::clone(network.unwrap_or(&settings.network)),
            tunnel: TunnelProtocol::None,
            transport: transport(self.mesh, node, &gateway.namespace, None),
            udp: false,
            node: Arc::clone(machine),
            network_mode: NetworkMode::HostNetwork,
            health,
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

/// The instances of all waypoints of a mesh.
pub(super) struct Instances {
    /// In the order of their uids; those that are as before are the same memory.
    pub(super) all: Vec<Arc<Workload>>,
    /// Those that are held back for flapping.
    pub(super) held: BTreeSet<Arc<str>>,
    /// Whether each of them is as before.
    pub(super) same: bool,
}

/// What a machine is to be certified as, and to report of, as an instance of a waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The instance's uid.
    pub uid: Arc<str>,
    /// The waypoint's name.
    pub name: Arc<str>,
    /// The waypoint's namespace.
    pub namespace: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
}

/// The instances of waypoints by node.
pub type Served = BTreeMap<Arc<str>, Vec<Instance>>;

/// The uid of an instance of a declared waypoint.
fn uid(gateway: &Gateway, cluster_id: &str, machine: &str) -> Arc<str> {
    let (namespace, name) = (&gateway.namespace, &gateway.name);
    let whole = format!("{cluster_id}/lateen/Gateway/{namespace}/{name}");
    match gateway.machines {
        Machines::One(_) => Arc::from(whole),
        Machines::Each(_) => Arc::from(format!("{whole}/{machine}")),
    }
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
