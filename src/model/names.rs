//! What a name means to a program of the mesh (`spec/hbone-dataplane.md` §5). Pure.
//!
//! A program writes `cart`, `cart.shop` or `cart.shop.mesh.internal`, and its resolver may have added
//! what it searches in. [`Names::find`] tries what may have been meant in one order, the same on
//! every node; each try is a look into the index of the [`View`], so that ten thousand services cost
//! no more than ten.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use super::service::{IpFamilies, Service, Visibility};
use super::view::View;
use super::workload::{Health, Workload};

/// The domain of a mesh whose control plane does not tell it, as clusters have it.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// What stands between namespace and domain in a cluster.
const SVC: &str = "svc";

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker<'a> {
    /// The namespace of the program; `None` where it is not known, and then only names that mean the
    /// same to everybody are found.
    pub namespace: Option<&'a str>,
    /// Its network.
    pub network: &'a str,
}

impl<'a> From<&'a Workload> for Asker<'a> {
    fn from(workload: &'a Workload) -> Self {
        Self {
            namespace: Some(&workload.namespace),
            network: &workload.network,
        }
    }
}

/// How a mesh names its services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    domain: Arc<str>,
    preferred: Option<Arc<str>>,
}

/// A service that a name means.
#[derive(Clone, Copy, Debug)]
pub struct Named<'v> {
    /// Which.
    pub service: &'v Arc<Service>,
    /// What was asked for is this name and something that resolvers search in. The answer then stands
    /// under this one.
    pub short: Option<&'v str>,
}

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether an address is of it.
    pub fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// One thing that may have been meant.
struct Alias<'n> {
    name: String,
    /// Where something was taken off first: what was left.
    short: Option<&'n str>,
}

impl Names {
    /// Names under a domain. Of services of one name a namespace may come before others that are
    /// neither the asker's own nor canonical (`PREFERED_SERVICE_NAMESPACE`).
    pub fn new(domain: Arc<str>, preferred: Option<Arc<str>>) -> Self {
        Self { domain, preferred }
    }

    /// The domain of the mesh.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether a name is the mesh's own domain or below it, so that nobody else can know it.
    pub fn owns(&self, name: &str) -> bool {
        name == &*self.domain || within(name, &self.domain).is_some()
    }

    /// Whether a name is one that names of services end in, or could be: the domain, a namespace.
    pub fn is_above(&self, name: &str) -> bool {
        let Some(short) = within(name, &self.domain) else {
            return name == &*self.domain;
        };
        let namespace = short
            .strip_suffix(SVC)
            .map_or(short, |s| s.trim_end_matches('.'));
        !namespace.contains('.')
    }

    /// The service that a name means, in small letters and without a dot at its end.
    pub fn find<'v>(&self, view: &'v View, asker: Asker<'_>, name: &'v str) -> Option<Named<'v>> {
        let mut tried = Vec::new();
        for alias in self.aliases(asker.namespace, name) {
            if tried.contains(&alias.name) {
                continue;
            }
            if let Some((service, wild)) = self.lookup(view, asker, &alias.name) {
                let short = alias.short.filter(|_| !wild);
                return Some(Named { service, short });
            }
            tried.push(alias.name);
        }
        None
    }

    /// What may have been meant, in order; some of it twice.
    fn aliases<'n>(&self, namespace: Option<&str>, name: &'n str) -> Vec<Alias<'n>> {
        let mut all = Vec::with_capacity(12);
        self.expand(namespace, name, None, &mut all);
        for suffix in self.searched(namespace) {
            if let Some(short) = within(name, &suffix) {
                self.expand(namespace, short, Some(short), &mut all);
            }
        }
        all
    }

    /// What resolvers of the mesh's programs search in: in a cluster with `svc`, here without.
    fn searched(&self, namespace: Option<&str>) -> Vec<String> {
        let domain = &self.domain;
        let own = namespace.iter();
        let own = own.flat_map(|ns| [format!("{ns}.{domain}"), format!("{ns}.{SVC}.{domain}")]);
        own.chain([format!("{SVC}.{domain}"), domain.to_string()])
            .collect()
    }

    /// A name as it is, then what it is short for.
    fn expand<'n>(
        &self,
        namespace: Option<&str>,
        name: &str,
        short: Option<&'n str>,
        to: &mut Vec<Alias<'n>>,
    ) {
        let domain = &self.domain;
        let labels: Vec<&str> = name.split('.').collect();
        let in_cluster = labels.last() == Some(&SVC);
        let mut add = |name: String| to.push(Alias { name, short });
        add(name.to_owned());
        match (labels.len(), namespace) {
            (1, Some(ns)) => {
                add(format!("{name}.{ns}.{domain}"));
                add(format!("{name}.{ns}.{SVC}.{domain}"));
            }
            (2, ns) => {
                add(format!("{name}.{domain}"));
                add(format!("{name}.{SVC}.{domain}"));
                if let Some(ns) = ns {
                    add(format!("{name}.{ns}.{domain}"));
                    add(format!("{name}.{ns}.{SVC}.{domain}"));
                }
            }
            (3, _) => {
                add(format!("{name}.{domain}"));
                add(format!("{name}.{SVC}.{domain}"));
            }
            (4, _) if in_cluster => add(format!("{name}.{domain}")),
            _ => {}
        }
    }

    /// The service of this very name, else of the nearest wildcard above it; whether it is that.
    fn lookup<'v>(
        &self,
        view: &'v View,
        asker: Asker<'_>,
        name: &str,
    ) -> Option<(&'v Arc<Service>, bool)> {
        if let Some(service) = self.best(view, asker, name) {
            return Some((service, false));
        }
        let mut rest = name;
        while view.has_wildcards()
            && let Some((_, above)) = rest.split_once('.')
        {
            if let Some(service) = self.best(view, asker, &format!("*.{above}")) {
                return Some((service, true));
            }
            rest = above;
        }
        None
    }

    /// Of the services of a host name, the one that the asker means.
    fn best<'v>(
        &self,
        view: &'v View,
        asker: Asker<'_>,
        hostname: &str,
    ) -> Option<&'v Arc<Service>> {
        let own = |s: &Service| asker.namespace == Some(&*s.key.namespace);
        let visible = |s: &&Arc<Service>| s.visibility == Visibility::Public || own(s);
        let all = view.services_named(hostname).iter();
        let candidates = all.filter(|s| self.has_addresses(s)).filter(visible);
        // Of equals the first.
        candidates.min_by_key(|s| {
            let preferred = self.preferred.as_ref() == Some(&s.key.namespace);
            Reverse((own(s), s.canonical, preferred))
        })
    }

    /// Whether it is known here where a service is: by an address of its own, or of its workloads.
    /// Hosts outside the mesh without an address are what the rest of the world says they are.
    fn has_addresses(&self, service: &Service) -> bool {
        let wild = service.key.hostname.starts_with("*.");
        !service.vips.is_empty() || (!wild && within(&service.key.hostname, &self.domain).is_some())
    }
}

/// What stands before `.suffix`.
fn within<'n>(name: &'n str, suffix: &str) -> Option<&'n str> {
    let short = name.strip_suffix(suffix)?.strip_suffix('.')?;
    (!short.is_empty()).then_some(short)
}

/// The addresses of a service that programs of a network are told: its own, or where it has none, those
/// of its workloads. Empty where it has none of that family.
pub fn addresses(view: &View, service: &Service, network: &str, family: Family) -> Vec<IpAddr> {
    if !allows(service.ip_families, family) {
        return Vec::new();
    }
    if service.vips.is_empty() {
        return of_endpoints(view.endpoints(&service.key), network, family);
    }
    let here = service.vips.iter().filter(|vip| &*vip.network == network);
    let addresses = here.map(|vip| vip.address);
    addresses.filter(|a| family.has(*a)).collect()
}

/// One for each workload: of the healthy ones, while there are any.
fn of_endpoints(endpoints: &[Arc<Workload>], network: &str, family: Family) -> Vec<IpAddr> {
    let of = |healthy: bool| -> Vec<IpAddr> {
        let here = endpoints.iter().filter(|w| &*w.network == network);
        let fit = here.filter(|w| !healthy || w.health == Health::Healthy);
        let first = |w: &Arc<Workload>| w.addresses.iter().copied().find(|a| family.has(*a));
        fit.filter_map(first).collect()
    };
    let healthy = of(true);
    if healthy.is_empty() {
        of(false)
    } else {
        healthy
    }
}

fn allows(families: IpFamilies, family: Family) -> bool {
    match families {
        IpFamilies::Automatic | IpFamilies::Dual => true,
        IpFamilies::Ipv4Only => family == Family::V4,
        IpFamilies::Ipv6Only => family == Family::V6,
    }
}

#[cfg(test)]
mod tests;
