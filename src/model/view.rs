//! The mesh as one process sees it: immutable, indexed for the questions the data path asks.
//!
//! A lookup hashes an address or a key and allocates nothing. Where several things share an
//! address the order is fixed (`spec/hbone-dataplane.md` §2.3), so that every process given the
//! same resources answers alike.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::balance::target_port;
use super::policy::Policies;
use super::service::{Service, ServiceKey, Visibility};
use super::workload::{GatewayDestination, NetworkMode, TunnelProtocol, Workload};
use crate::identity::SpiffeId;

/// The indexed mesh.
#[derive(Debug, Default)]
pub struct View {
    workloads: HashMap<Arc<str>, Arc<Workload>>,
    by_address: HashMap<IpAddr, Vec<Arc<Workload>>>,
    /// Those that share the address of their machine.
    by_shared_address: HashMap<IpAddr, Vec<Arc<Workload>>>,
    by_workload_hostname: HashMap<ServiceKey, Arc<Workload>>,
    services: HashMap<ServiceKey, Indexed>,
    by_vip: HashMap<IpAddr, Vec<Arc<Service>>>,
    by_hostname: HashMap<Arc<str>, Vec<Arc<Service>>>,
    /// Whether one of these host names is a wildcard.
    wildcards: bool,
    /// Who may come for those that are behind a waypoint.
    waypoints: HashSet<SpiffeId>,
    policies: Arc<Policies>,
}

#[derive(Debug)]
struct Indexed {
    service: Arc<Service>,
    endpoints: Vec<Arc<Workload>>,
}

/// What a reference to a waypoint or gateway names.
#[derive(Clone, Copy, Debug)]
pub enum Gateway<'a> {
    /// A service, whose endpoints are its instances.
    Service(&'a Arc<Service>),
    /// The one workload it is.
    Workload(&'a Arc<Workload>),
}

impl View {
    /// Indexes workloads and services; of two with one key the later stays.
    pub fn new(
        workloads: impl IntoIterator<Item = Arc<Workload>>,
        services: impl IntoIterator<Item = Arc<Service>>,
    ) -> Self {
        let services: BTreeMap<_, _> = services.into_iter().map(|s| (s.key.clone(), s)).collect();
        let workloads: BTreeMap<_, _> = workloads
            .into_iter()
            .map(|w| (Arc::clone(&w.uid), w))
            .collect();
        let mut view = Self {
            workloads: HashMap::with_capacity(workloads.len()),
            by_address: HashMap::with_capacity(workloads.len()),
            services: HashMap::with_capacity(services.len()),
            by_vip: HashMap::with_capacity(services.len()),
            by_hostname: HashMap::with_capacity(services.len()),
            by_shared_address: HashMap::new(),
            wildcards: false,
            by_workload_hostname: HashMap::new(),
            waypoints: HashSet::new(),
            policies: Arc::default(),
        };
        for service in services.into_values() {
            view.add_service(service);
        }
        for workload in workloads.into_values() {
            view.add_workload(workload);
        }
        for sharing in view.by_address.values_mut() {
            sharing.sort_by_key(|w| (!is_pod(w), w.tunnel != TunnelProtocol::Hbone));
        }
        for indexed in view.services.values_mut() {
            indexed.endpoints.shrink_to_fit();
        }
        view.waypoints = view.identities_of_waypoints();
        view
    }

    /// The identities of every waypoint that something is behind.
    fn identities_of_waypoints(&self) -> HashSet<SpiffeId> {
        let workloads = self.workloads().filter_map(|w| {
            let waypoint = w.waypoint.as_ref()?;
            Some((&waypoint.destination, &w.namespace))
        });
        let services = self.services().flat_map(|s| {
            let waypoints = s.waypoints().map(|w| &w.destination);
            waypoints.map(|destination| (destination, &s.key.namespace))
        });
        let references: HashSet<_> = workloads.chain(services).collect();
        let mut identities = HashSet::new();
        for (reference, namespace) in references {
            let instances = self.instances(reference, namespace);
            // One without a legal identity could never prove it.
            identities.extend(instances.iter().filter_map(|w| w.identity().ok()));
        }
        identities
    }

    /// Whether this is the identity of a waypoint that something is behind. Waypoints go on as
    /// themselves, also to services that they do not stand before (`spec/labels-and-policy.md` §1.10).
    pub fn is_waypoint(&self, identity: &SpiffeId) -> bool {
        self.waypoints.contains(identity)
    }

    /// The same mesh, in which these policies hold.
    #[must_use]
    pub fn under(self, policies: Arc<Policies>) -> Self {
        Self { policies, ..self }
    }

    /// The policies that hold in it.
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    fn add_service(&mut self, service: Arc<Service>) {
        for vip in &service.vips {
            share(&mut self.by_vip, vip.address, &service);
        }
        let hostname = Arc::clone(&service.key.hostname);
        self.wildcards |= hostname.starts_with("*.");
        share(&mut self.by_hostname, hostname, &service);
        let indexed = Indexed {
            service: Arc::clone(&service),
            endpoints: Vec::new(),
        };
        self.services.insert(service.key.clone(), indexed);
    }

    fn add_workload(&mut self, workload: Arc<Workload>) {
        if workload.network_mode == NetworkMode::Standard {
            for address in &workload.addresses {
                share(&mut self.by_address, *address, &workload);
            }
        } else if !workload.node.is_empty() {
            for address in &workload.addresses {
                share(&mut self.by_shared_address, *address, &workload);
            }
        }
        if !workload.hostname.is_empty() {
            let key = ServiceKey {
                namespace: Arc::clone(&workload.namespace),
                hostname: Arc::clone(&workload.hostname),
            };
            let named = self.by_workload_hostname.entry(key);
            named.or_insert_with(|| Arc::clone(&workload));
        }
        for key in workload.services.keys() {
            if let Some(indexed) = self.services.get_mut(key) {
                indexed.endpoints.push(Arc::clone(&workload));
            }
        }
        self.workloads.insert(Arc::clone(&workload.uid), workload);
    }

    /// The workload with this uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload whose own address this is. Of several, a pod of a stock control plane comes
    /// first, then one that takes tunnels, then the first by uid.
    pub fn workload_at(&self, network: &str, address: IpAddr) -> Option<&Arc<Workload>> {
        let sharing = self.by_address.get(&address)?;
        sharing.iter().find(|w| &*w.network == network)
    }

    /// The workload that serves a port of an address it shares with others of its machine: of several
    /// the first by uid that takes tunnels. By the address alone none of them is found.
    pub fn sharer_at(&self, network: &str, at: SocketAddr) -> Option<&Arc<Workload>> {
        self.sharers_at(at.ip()).iter().find(|w| {
            let tunnelled = w.tunnel == TunnelProtocol::Hbone;
            tunnelled && &*w.network == network && self.serves(w, at.port())
        })
    }

    /// Those that share this address of their machine, on any network.
    pub(super) fn sharers_at(&self, address: IpAddr) -> &[Arc<Workload>] {
        let sharing = self.by_shared_address.get(&address);
        sharing.map_or(&[], Vec::as_slice)
    }

    /// Whether one of a workload's services leads to this TCP port of it.
    pub fn serves(&self, workload: &Workload, port: u16) -> bool {
        self.target_ports(workload).any(|served| served == port)
    }

    /// The TCP ports of a workload that its services lead to.
    pub fn target_ports<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = u16> + 'a {
        let services = workload.services.keys().filter_map(|key| self.service(key));
        services.flat_map(move |service| {
            let ports = service.ports.iter();
            ports.filter_map(move |port| target_port(service, workload, port.service_port))
        })
    }

    /// The service with this key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key).map(|indexed| &indexed.service)
    }

    /// The service whose address this is, as seen from a namespace: its own first, then a
    /// canonical one, then the first by key.
    pub fn service_at(
        &self,
        network: &str,
        address: IpAddr,
        from_namespace: &str,
    ) -> Option<&Arc<Service>> {
        best(self.services_at(network, address), from_namespace)
    }

    /// Whether this is a service's address, be the service visible to anybody or not.
    pub fn is_vip(&self, network: &str, address: IpAddr) -> bool {
        self.services_at(network, address).next().is_some()
    }

    /// Whether an address is anybody's of the mesh: a service's, a workload's or a machine's on which
    /// workloads run. Names of the outside must not lead there.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.by_vip.contains_key(&address)
            || self.by_address.contains_key(&address)
            || self.by_shared_address.contains_key(&address)
    }

    /// Those that are nobody's of the mesh: to the others nobody goes by a name of the outside.
    pub fn outside(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut outside = addresses.to_vec();
        outside.retain(|address| !self.has_address(*address));
        outside
    }

    /// Every service whose address this is, visible to anybody or not.
    pub fn services_at(
        &self,
        network: &str,
        address: IpAddr,
    ) -> impl Iterator<Item = &Arc<Service>> {
        let sharing = self.by_vip.get(&address).map_or(&[][..], Vec::as_slice);
        sharing.iter().filter(move |s| {
            let mut vips = s.vips.iter();
            vips.any(|v| v.address == address && &*v.network == network)
        })
    }

    /// The service of this host name, by the same order.
    pub fn service_named(&self, hostname: &str, from_namespace: &str) -> Option<&Arc<Service>> {
        best(self.by_hostname.get(hostname)?.iter(), from_namespace)
    }

    /// Every service of this host name, visible to anybody or not.
    pub fn services_named(&self, hostname: &str) -> &[Arc<Service>] {
        self.by_hostname.get(hostname).map_or(&[], Vec::as_slice)
    }

    /// Whether there is a service whose host name is a wildcard.
    pub fn has_wildcards(&self) -> bool {
        self.wildcards
    }

    /// The workloads behind a service, in the order of their uids.
    pub fn endpoints(&self, key: &ServiceKey) -> &[Arc<Workload>] {
        self.services
            .get(key)
            .map_or(&[], |indexed| indexed.endpoints.as_slice())
    }

    /// What a reference names, as seen from a namespace (§2.4): by address a workload before a
    /// service, by host name a service before a workload. `None` when it dangles.
    pub fn gateway(
        &self,
        reference: &GatewayDestination,
        from_namespace: &str,
    ) -> Option<Gateway<'_>> {
        match reference {
            GatewayDestination::Hostname(key) => {
                let service = self.service(key).map(Gateway::Service);
                let workload = || self.by_workload_hostname.get(key).map(Gateway::Workload);
                service.or_else(workload)
            }
            GatewayDestination::Address { network, address } => {
                let workload = self.workload_at(network, *address).map(Gateway::Workload);
                let service = || self.service_at(network, *address, from_namespace);
                workload.or_else(|| service().map(Gateway::Service))
            }
        }
    }

    /// What a reference names, or its instances, in the order of their uids.
    pub(super) fn instances(
        &self,
        reference: &GatewayDestination,
        from_namespace: &str,
    ) -> &[Arc<Workload>] {
        match self.gateway(reference, from_namespace) {
            Some(Gateway::Service(service)) => self.endpoints(&service.key),
            Some(Gateway::Workload(workload)) => std::slice::from_ref(workload),
            None => &[],
        }
    }

    /// What a reference names, or the first of its instances.
    pub fn instance(
        &self,
        reference: &GatewayDestination,
        from_namespace: &str,
    ) -> Option<&Arc<Workload>> {
        self.instances(reference, from_namespace).first()
    }

    /// Whether `workload` is what a reference names, or one of its instances. Told by uid alone:
    /// an address may be a host's, which all that runs there shares.
    pub fn is_instance(&self, reference: &GatewayDestination, workload: &Workload) -> bool {
        let mut instances = self.instances(reference, &workload.namespace).iter();
        instances.any(|w| w.uid == workload.uid)
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().map(|indexed| &indexed.service)
    }

    /// How many workloads and services there are.
    pub fn size(&self) -> (usize, usize) {
        (self.workloads.len(), self.services.len())
    }
}

fn best<'a>(
    sharing: impl Iterator<Item = &'a Arc<Service>>,
    from_namespace: &str,
) -> Option<&'a Arc<Service>> {
    let own = |s: &Service| &*s.key.namespace == from_namespace;
    sharing
        .filter(|s| s.visibility == Visibility::Public || own(s))
        .min_by_key(|s| (!own(s), !s.canonical))
}

/// Almost every address has one owner, so a list starts with room for one.
fn share<K: Eq + Hash, T>(index: &mut HashMap<K, Vec<Arc<T>>>, key: K, item: &Arc<T>) {
    match index.entry(key) {
        Entry::Occupied(mut sharing) => sharing.get_mut().push(Arc::clone(item)),
        Entry::Vacant(free) => {
            free.insert(vec![Arc::clone(item)]);
        }
    }
}

/// Uids of a stock control plane name the kind (§2.3): `cluster//Pod/namespace/name`.
fn is_pod(workload: &Workload) -> bool {
    workload.uid.contains("//Pod/")
}

#[cfg(test)]
mod tests;
