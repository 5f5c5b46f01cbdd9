//! What routes are attached to and lead to: services, and the host names of service entries.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::declaration::{
    ExportTo, Mesh, Origin, ParentKind, Port, Service, ServiceEntry, Settings,
};
use crate::model::route::{BackendKind, BackendRef};
use crate::model::service::{NetworkAddress, ServiceKey};
use crate::model::waypoint::{BoundPort, External};

/// A host name of the mesh.
#[derive(Clone, Debug)]
pub(super) struct Site<'a> {
    pub(super) key: ServiceKey,
    pub(super) origin: &'a Origin,
    pub(super) ports: &'a [Port],
    pub(super) is: Is<'a>,
    network: &'a Arc<str>,
}

/// Whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Is<'a> {
    Service(&'a Service),
    Entry(&'a ServiceEntry),
}

impl Site<'_> {
    /// What its parent references call it.
    pub(super) fn parent(&self) -> (ParentKind, &str, &str) {
        match self.is {
            Is::Service(s) => (ParentKind::Service, &s.namespace, &s.name),
            Is::Entry(e) => (ParentKind::ServiceEntry, &e.namespace, &e.name),
        }
    }

    /// Those that are declared and are one.
    pub(super) fn addresses(&self) -> Vec<NetworkAddress> {
        let on = |address| NetworkAddress {
            network: Arc::clone(self.network),
            address,
        };
        match self.is {
            Is::Service(s) => s.addresses.iter().copied().map(on).collect(),
            Is::Entry(e) => e.single_addresses().map(on).collect(),
        }
    }

    /// Its endpoints outside the mesh.
    pub(super) fn external(&self) -> Option<External> {
        match self.is {
            Is::Service(_) => None,
            Is::Entry(e) => Some(External {
                hosts: vec![Arc::clone(&self.key.hostname)],
                ranges: e.ranges().collect(),
                resolution: e.resolution,
                endpoints: e.endpoints.iter().map(|e| e.external.clone()).collect(),
                subject_alt_names: e.subject_alt_names.clone(),
            }),
        }
    }

    fn is_seen_from(&self, namespace: &str) -> bool {
        match self.is {
            Is::Service(_) => true,
            Is::Entry(e) => e.export_to == ExportTo::Everyone || *e.namespace == *namespace,
        }
    }
}

/// A port without a route.
pub(super) fn bare(port: &Port) -> BoundPort {
    BoundPort {
        port: port.port,
        name: port.name.clone().unwrap_or_default(),
        protocol: port.app_protocol,
        routes: Vec::new(),
        general: Vec::new(),
    }
}

/// The host names of a mesh.
pub(super) struct Sites<'a> {
    settings: &'a Settings,
    all: Vec<Site<'a>>,
    /// Services by namespace and name.
    services: HashMap<(&'a str, &'a str), usize>,
    by_host: HashMap<Arc<str>, Vec<usize>>,
}

impl<'a> Sites<'a> {
    /// Those of a mesh whose services have these keys, in the same order.
    pub(super) fn new(mesh: &'a Mesh, keys: &[ServiceKey]) -> Self {
        let network = &mesh.settings.network;
        let services = mesh.services.iter().zip(keys);
        let services = services.map(|(service, key)| Site {
            key: key.clone(),
            origin: &service.origin,
            ports: &service.ports,
            is: Is::Service(service),
            network,
        });
        let entries = mesh.service_entries.iter();
        let entries = entries.flat_map(|entry| {
            entry.hosts.iter().map(move |host| Site {
                key: ServiceKey {
                    namespace: Arc::clone(&entry.namespace),
                    hostname: Arc::clone(host),
                },
                origin: &entry.origin,
                ports: &entry.ports,
                is: Is::Entry(entry),
                network,
            })
        });
        let all: Vec<Site<'a>> = services.chain(entries).collect();
        let named = mesh.services.iter().enumerate();
        let named = named.map(|(at, s)| ((&*s.namespace, &*s.name), at));
        let mut by_host: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        for (at, site) in all.iter().enumerate() {
            let sharing = by_host.entry(Arc::clone(&site.key.hostname)).or_default();
            sharing.push(at);
        }
        Self {
            settings: &mesh.settings,
            services: named.collect(),
            by_host,
            all,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Site<'a>> {
        self.all.iter()
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&Site<'a>> {
        self.all.get(*self.services.get(&(namespace, name))?)
    }

    /// Whose key it is.
    pub(super) fn keyed(&self, key: &ServiceKey) -> Option<&Site<'a>> {
        let mut sharing = self.sharing(&key.hostname);
        sharing.find(|site| site.key.namespace == key.namespace)
    }

    /// Whom a backend means.
    pub(super) fn backend(&self, wanted: &BackendRef) -> Option<&Site<'a>> {
        match wanted.kind {
            BackendKind::Service => self.service(&wanted.namespace, &wanted.name),
            BackendKind::Hostname => self.host(wanted),
            BackendKind::Unknown(_) => None,
        }
    }

    /// Whom a host name means: as it is written, or a service by its name, or by its name and
    /// namespace. Of several the one of the namespace it is looked for in comes first.
    pub(super) fn host(&self, wanted: &BackendRef) -> Option<&Site<'a>> {
        let (name, domain) = (wanted.name.to_ascii_lowercase(), &self.settings.domain);
        let spellings = [
            name.clone(),
            format!("{name}.{}.{domain}", wanted.namespace),
            format!("{name}.{domain}"),
        ];
        spellings.iter().find_map(|host| {
            let seen = self.sharing(host);
            let seen = seen.filter(|site| site.is_seen_from(&wanted.namespace));
            seen.min_by_key(|site| (site.key.namespace != wanted.namespace, site.key.clone()))
        })
    }

    fn sharing(&self, host: &str) -> impl Iterator<Item = &Site<'a>> {
        let at = self.by_host.get(host).map_or(&[][..], Vec::as_slice);
        at.iter().filter_map(|at| self.all.get(*at))
    }
}
