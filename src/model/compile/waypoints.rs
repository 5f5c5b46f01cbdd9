//! What each waypoint is told: the services behind it, and the routes and traffic policies that hold
//! for them (`spec/waypoint-l7.md` §2.1, §2.6, §3.4).
//!
//! Everything is decided here, once and for all instances: which routes are attached to what and in
//! which order they are tried, who their backends are, and which policy holds for each. A waypoint
//! only carries it out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::gateways::Gateways;
use super::policies::Bundle;
use super::reuse::{Change, Entry};
use super::service_entries::Host;
use crate::model::authorization::Trusted;
use crate::model::binding::{Bindable, Named};
use crate::model::declaration::{
    self, AuthorizationPolicy, Mesh, RateLimit, RequestAuthentication,
};
use crate::model::route::{Filter, Kind, Route, Rule, Target};
use crate::model::service::{NetworkAddress, Service, ServiceKey};
use crate::model::telemetry::Exporter;
use crate::model::waypoint::{
    AttachedSet, GatewayConfig, Options, Resources, ServiceBinding, WaypointName,
};
use crate::model::workload::Workload;

mod attached;
mod authentication;
mod authorization;
mod backends;
mod delegates;
mod extensions;
mod known;
mod limit;
mod sites;
mod survey;
mod targets;
mod telemetry;
mod traffic;

use attached::{Attached, Routes};
pub use backends::Missing;
use extensions::Providers;
pub use known::Backends;
use sites::{Is, Site, Sites};
pub use survey::{ParentState, RouteState, Routed, Surveyed, survey};
use targets::{Attachable as _, Targets};
use telemetry::Levels;
pub use traffic::covers;
use traffic::{Members, Traffic};

/// What waypoints are told, by name.
pub type Waypoints = BTreeMap<WaypointName, Arc<Resources>>;

/// All that is known of a mesh when its waypoints are compiled.
pub(super) struct Known<'a> {
    pub(super) mesh: &'a Mesh,
    /// The keys of its services, in the order they were written.
    pub(super) keys: &'a [ServiceKey],
    pub(super) gateways: &'a Gateways<'a>,
    /// In the order of their keys.
    pub(super) services: &'a [Arc<Service>],
    /// In the order of uids.
    pub(super) entries: &'a [Entry],
    /// The hosts of its service entries.
    pub(super) hosts: &'a [Host<'a>],
    /// What their endpoints are to the mesh.
    pub(super) outside: &'a [Arc<Workload>],
}

/// What each waypoint is told. What is as it was `before` is the same memory.
pub(super) fn of(known: &Known<'_>, before: &Waypoints) -> Waypoints {
    if known.gateways.all.is_empty() {
        return Waypoints::new();
    }
    let sites = Sites::new(known.mesh, known.keys);
    let mut behind = behind(known, &sites);
    let settings = &known.mesh.settings;
    let policies = &known.mesh.authorization_policies;
    let routes = delegates::resolved(&known.mesh.routes);
    let world = World {
        bundle: Bundle::new(settings),
        providers: extensions::by_name(settings),
        policies: Targets::new(policies, &settings.root_namespace),
        authentications: Targets::new(
            &known.mesh.request_authentications,
            &settings.root_namespace,
        ),
        telemetry: Levels::new(&known.mesh.telemetry, &settings.root_namespace),
        limits: Targets::new(&known.mesh.rate_limits, &settings.root_namespace),
        routes: Routes::new(&routes),
        traffic: Traffic::new(
            known.mesh,
            Members {
                entries: known.entries,
                hosts: known.hosts,
                outside: known.outside,
            },
        ),
        services: known.services,
        sites: &sites,
    };
    let each = known.gateways.all.iter().map(|gateway| {
        let declared = gateway.declared;
        let name = WaypointName {
            namespace: Arc::clone(&declared.namespace),
            name: Arc::clone(&declared.name),
        };
        let config = GatewayConfig {
            name: name.clone(),
            origin: declared.origin.clone(),
            waypoint_for: declared.waypoint_for,
            hbone_port: gateway.port,
            options: Options {
                xfcc_include_client_identity: declared.tells_identities,
                default_retry: settings.retry.clone(),
                locality: settings.locality.clone(),
                paths: settings.paths,
                trusted: Trusted {
                    proxies: world.bundle.principals(&settings.trusted.proxies),
                    count: settings.trusted.count,
                },
                fetching: settings.fetching.clone(),
                telemetry: world.setup(settings, &declared.namespace),
                ..Options::default()
            },
            workload_set: AttachedSet::default(),
        };
        let behind = behind.remove(&Named::from(declared)).unwrap_or_default();
        let told = world.told(config, &behind);
        let told = match before.get(&name) {
            Some(before) => kept(told, before),
            None => Arc::new(told),
        };
        (name, told)
    });
    each.collect()
}

/// Whether a change of workloads alone is one that waypoints are told of: of those that may be in a
/// subset.
pub(super) fn concerns(before: &Waypoints, change: &Change<'_>) -> bool {
    let services = before.values().flat_map(|told| told.services.values());
    let split = services.filter(|binding| !binding.subsets.is_empty());
    let split: HashSet<&ServiceKey> = split.map(|binding| &binding.key).collect();
    let told = |entry: &&Entry| {
        let mut services = entry.workload.services.keys();
        services.any(|key| split.contains(key))
    };
    let gone: HashMap<_, _> = change.gone().filter(told).map(|e| (e.uid(), e)).collect();
    let come: Vec<_> = change.come().filter(told).collect();
    let same = |entry: &&Entry| {
        gone.get(entry.uid()).is_some_and(|was| {
            was.declared.id() == entry.declared.id()
                && was.workload.services == entry.workload.services
        })
    };
    gone.len() != come.len() || !come.iter().all(same)
}

/// Whether services are found where they were.
pub(super) fn same_addresses(before: &[Arc<Service>], after: &[Arc<Service>]) -> bool {
    let same = |(a, b): (&Arc<Service>, &Arc<Service>)| {
        Arc::ptr_eq(a, b) || (a.key == b.key && a.vips == b.vips)
    };
    before.len() == after.len() && before.iter().zip(after).all(same)
}

/// What is behind each waypoint.
fn behind<'a>(known: &Known<'a>, sites: &'a Sites<'a>) -> HashMap<Named<'a>, Vec<&'a Site<'a>>> {
    let mut behind: HashMap<Named<'a>, Vec<&Site<'a>>> = HashMap::new();
    for site in sites.iter() {
        let object = match site.is {
            Is::Service(service) => Bindable::from(service),
            Is::Entry(entry) => Bindable::from(entry),
        };
        for waypoint in known.gateways.before(object) {
            behind.entry(waypoint).or_default().push(site);
        }
    }
    behind
}

/// What every waypoint is told of.
struct World<'a> {
    bundle: Bundle,
    providers: Providers<'a>,
    policies: Targets<'a, AuthorizationPolicy>,
    authentications: Targets<'a, RequestAuthentication>,
    telemetry: Levels<'a>,
    limits: Targets<'a, RateLimit>,
    routes: Routes<'a>,
    traffic: Traffic<'a>,
    services: &'a [Arc<Service>],
    sites: &'a Sites<'a>,
}

impl<'a> World<'a> {
    fn told(&self, mut gateway: GatewayConfig, behind: &[&'a Site<'a>]) -> Resources {
        let namespace = Arc::clone(&gateway.name.namespace);
        let mut told = Resources::default();
        gateway.workload_set = self.set(&gateway.name, None, &mut told);
        let mut used = BTreeMap::new();
        for site in behind {
            let attached = self.routes.on(site, &namespace);
            attached.note(site, &mut used);
            let mut binding = self.binding(site, &namespace, Some(attached), &mut told);
            binding.set = self.set(&gateway.name, Some(site), &mut told);
            told.services.insert(site.key.clone(), Arc::new(binding));
        }
        self.extend(&namespace, &mut told);
        let asked = told.extensions.values().map(|asked| &asked.to);
        let exporters = gateway.options.telemetry.providers.values();
        let exporters = exporters.filter_map(Exporter::service);
        let asked = asked.chain(exporters).filter_map(keyed);
        let mut backends: BTreeSet<ServiceKey> = asked.cloned().collect();
        for (key, declared) in used {
            let route = self.route(declared, &namespace);
            backends.extend(route.rules.iter().flat_map(targets).cloned());
            told.routes.insert(key, Arc::new(route));
        }
        for key in backends {
            if let (false, Some(site)) = (told.services.contains_key(&key), self.sites.keyed(&key))
            {
                let binding = self.binding(site, &namespace, None, &mut told);
                told.services.insert(key, Arc::new(binding));
            }
        }
        told.gateway = Some(Arc::new(gateway));
        told
    }

    /// What is attached to a service behind a waypoint, or to what is addressed to workloads; all of it
    /// is among what is `told`.
    fn set(
        &self,
        waypoint: &WaypointName,
        site: Option<&Site<'a>>,
        told: &mut Resources,
    ) -> AttachedSet {
        let mut set = AttachedSet::default();
        for policy in self.policies.on(waypoint, site) {
            let key = policy.key();
            let known = told.policies.entry(key.clone());
            known.or_insert_with(|| Arc::new(authorization::of(policy, &self.bundle)));
            set.policies.push(key);
        }
        for policy in self.authentications.on(waypoint, site) {
            let key = policy.key();
            let known = told.authentications.entry(key.clone());
            known.or_insert_with(|| Arc::new(authentication::of(policy)));
            set.authentications.push(key);
        }
        for telemetry in self.telemetry.on(waypoint, site) {
            let key = telemetry.key();
            let known = told.telemetry.entry(key.clone());
            known.or_insert_with(|| Arc::new(telemetry::of(telemetry)));
            set.telemetry.push(key);
        }
        for written in self.limits.on(waypoint, site) {
            let key = written.key();
            let known = told.limits.entry(key.clone());
            known.or_insert_with(|| Arc::new(limit::of(written)));
            set.limits.push(key);
        }
        set
    }

    /// What holds for a service, behind the waypoint with what is `attached` or no more than a
    /// backend; its traffic policies are among what is `told`.
    fn binding(
        &self,
        site: &Site<'a>,
        namespace: &str,
        attached: Option<Attached<'a>>,
        told: &mut Resources,
    ) -> ServiceBinding {
        let rule = self.traffic.rule(&site.key, namespace);
        let mut traffic = None;
        let mut subsets = Vec::new();
        if let Some(rule) = rule {
            let policies = traffic::named(rule);
            traffic = policies.first().map(|policy| policy.key.clone());
            subsets = self.traffic.subsets(rule, &site.key);
            let policies = policies.into_iter().map(Arc::new);
            told.traffic.extend(policies.map(|p| (p.key.clone(), p)));
        }
        ServiceBinding {
            key: site.key.clone(),
            origin: site.origin.clone(),
            bound: attached.is_some(),
            addresses: self.addresses(site),
            ports: match attached {
                Some(attached) => attached.ports(site),
                None => site.ports.iter().map(sites::bare).collect(),
            },
            set: AttachedSet::default(),
            traffic,
            subsets,
            external: site.external(),
        }
    }

    /// Those that the mesh view has, else those that are declared.
    fn addresses(&self, site: &Site<'_>) -> Vec<NetworkAddress> {
        let known = self.services.binary_search_by(|s| s.key.cmp(&site.key));
        match known.ok().and_then(|at| self.services.get(at)) {
            Some(service) => service.vips.clone(),
            None => site.addresses(),
        }
    }

    fn route(&self, declared: &declaration::Route, namespace: &str) -> Route {
        let hosts: BTreeSet<&Arc<str>> = match declared.key.kind {
            Kind::Tls => declared.hosts.iter().collect(),
            Kind::Grpc | Kind::Http | Kind::Tcp | Kind::VirtualService => BTreeSet::new(),
        };
        let rules = declared.rules.iter();
        let rules = rules.map(|rule| rule.map(&mut |to| self.target(to, namespace)));
        Route {
            key: declared.key.clone(),
            origin: declared.origin.clone(),
            server_names: hosts.into_iter().cloned().collect(),
            rules: rules.collect(),
        }
    }
}

/// Whom a rule leads to, with those who only get copies.
fn targets_of<B>(rule: &Rule<B>) -> impl Iterator<Item = &B> {
    let of_backends = rule.backends.iter().flat_map(|b| &b.filters);
    let filters = rule.filters.iter().chain(of_backends);
    let copies = filters.filter_map(|filter| match filter {
        Filter::Mirror(mirror) => Some(&mirror.to),
        _ => None,
    });
    rule.backends.iter().map(|b| &b.to).chain(copies)
}

/// The services among them.
fn targets(rule: &Rule<Target>) -> impl Iterator<Item = &ServiceKey> {
    targets_of(rule).filter_map(keyed)
}

fn keyed(target: &Target) -> Option<&ServiceKey> {
    match target {
        Target::Service { key, .. } => Some(key),
        Target::Invalid(_) => None,
    }
}

/// What is told now, in the memory of what was told before as far as that is the same.
fn kept(told: Resources, before: &Arc<Resources>) -> Arc<Resources> {
    fn same<K: Ord, V: PartialEq>(now: &mut BTreeMap<K, Arc<V>>, before: &BTreeMap<K, Arc<V>>) {
        for (key, value) in now {
            if let Some(had) = before.get(key).filter(|had| **had == *value) {
                *value = Arc::clone(had);
            }
        }
    }
    let mut told = told;
    if told == **before {
        return Arc::clone(before);
    }
    if told.gateway == before.gateway {
        told.gateway.clone_from(&before.gateway);
    }
    same(&mut told.services, &before.services);
    same(&mut told.routes, &before.routes);
    same(&mut told.traffic, &before.traffic);
    same(&mut told.policies, &before.policies);
    same(&mut told.extensions, &before.extensions);
    same(&mut told.authentications, &before.authentications);
    same(&mut told.telemetry, &before.telemetry);
    same(&mut told.limits, &before.limits);
    Arc::new(told)
}

#[cfg(test)]
mod tests;
