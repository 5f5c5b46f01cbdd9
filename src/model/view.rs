//! The mesh as one process sees it: immutable, indexed for the questions the data path asks.
//!
//! A lookup hashes an address or a key and allocates nothing. Where several things share an
//! address the order is fixed (`spec/hbone-dataplane.md` §2.3), so that every process given the
//! same resources answers alike.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::service::{Service, ServiceKey, Visibility};
use super::workload::{NetworkMode, TunnelProtocol, Workload};

/// The indexed mesh.
#[derive(Debug, Default)]
pub struct View {
    workloads: HashMap<Arc<str>, Arc<Workload>>,
    by_address: HashMap<IpAddr, Vec<Arc<Workload>>>,
    services: HashMap<ServiceKey, Entry>,
    by_vip: HashMap<IpAddr, Vec<Arc<Service>>>,
    by_hostname: HashMap<Arc<str>, Vec<Arc<Service>>>,
}

#[derive(Debug)]
struct Entry {
    service: Arc<Service>,
    endpoints: Vec<Arc<Workload>>,
}

impl View {
    /// Indexes workloads and services; of two with one key the later stays.
    pub fn new(
        workloads: impl IntoIterator<Item = Arc<Workload>>,
        services: impl IntoIterator<Item = Arc<Service>>,
    ) -> Self {
        let mut view = Self::default();
        let services: BTreeMap<_, _> = services.into_iter().map(|s| (s.key.clone(), s)).collect();
        for service in services.into_values() {
            view.add_service(service);
        }
        let workloads: BTreeMap<_, _> = workloads
            .into_iter()
            .map(|w| (Arc::clone(&w.uid), w))
            .collect();
        for workload in workloads.into_values() {
            view.add_workload(workload);
        }
        for sharing in view.by_address.values_mut() {
            sharing.sort_by_key(|w| w.tunnel != TunnelProtocol::Hbone);
        }
        view
    }

    fn add_service(&mut self, service: Arc<Service>) {
        for vip in &service.vips {
            let at = self.by_vip.entry(vip.address).or_default();
            at.push(Arc::clone(&service));
        }
        let named = self.by_hostname.entry(Arc::clone(&service.key.hostname));
        named.or_default().push(Arc::clone(&service));
        let entry = Entry {
            service: Arc::clone(&service),
            endpoints: Vec::new(),
        };
        self.services.insert(service.key.clone(), entry);
    }

    fn add_workload(&mut self, workload: Arc<Workload>) {
        if workload.network_mode == NetworkMode::Standard {
            for address in &workload.addresses {
                let at = self.by_address.entry(*address).or_default();
                at.push(Arc::clone(&workload));
            }
        }
        for key in workload.services.keys() {
            if let Some(entry) = self.services.get_mut(key) {
                entry.endpoints.push(Arc::clone(&workload));
            }
        }
        self.workloads.insert(Arc::clone(&workload.uid), workload);
    }

    /// The workload with this uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload whose own address this is; one that takes tunnels before one that does not.
    pub fn workload_at(&self, network: &str, address: IpAddr) -> Option<&Arc<Workload>> {
        let sharing = self.by_address.get(&address)?;
        sharing.iter().find(|w| &*w.network == network)
    }

    /// The service with this key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key).map(|entry| &entry.service)
    }

    /// The service whose address this is, as seen from a namespace: its own first, then a
    /// canonical one, then the first by key.
    pub fn service_at(
        &self,
        network: &str,
        address: IpAddr,
        from_namespace: &str,
    ) -> Option<&Arc<Service>> {
        let here = |s: &&Arc<Service>| {
            let mut vips = s.vips.iter();
            vips.any(|v| v.address == address && &*v.network == network)
        };
        let sharing = self.by_vip.get(&address)?;
        best(sharing.iter().filter(here), from_namespace)
    }

    /// The service of this host name, by the same order.
    pub fn service_named(&self, hostname: &str, from_namespace: &str) -> Option<&Arc<Service>> {
        best(self.by_hostname.get(hostname)?.iter(), from_namespace)
    }

    /// The workloads behind a service, in the order of their uids.
    pub fn endpoints(&self, key: &ServiceKey) -> &[Arc<Workload>] {
        self.services
            .get(key)
            .map_or(&[], |entry| entry.endpoints.as_slice())
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
