//! Which destination rule holds for a service, and who is in its subsets (`spec/waypoint-l7.md`
//! §3.4).

use std::cell::LazyCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::reuse;
use super::super::service_entries::{self, Host};
use crate::model::declaration::{DestinationRule, Mesh, Settings, SubsetLabels};
use crate::model::service::ServiceKey;
use crate::model::waypoint::{NamedTraffic, Subset, TrafficKey};
use crate::model::workload::Workload;

/// Who may be in subsets.
#[derive(Clone, Copy, Default)]
pub(super) struct Members<'a> {
    /// The workloads of the mesh, in the order of uids.
    pub(super) entries: &'a [reuse::Entry],
    /// The hosts of service entries.
    pub(super) hosts: &'a [Host<'a>],
    /// What their endpoints are to the mesh.
    pub(super) outside: &'a [Arc<Workload>],
}

/// Endpoints by service, each in the order of uids.
type Endpoints<'a> = HashMap<&'a ServiceKey, Vec<&'a reuse::Entry>>;

/// The destination rules of a mesh.
pub(super) struct Traffic<'a> {
    settings: &'a Settings,
    /// By namespace and host.
    exact: HashMap<(&'a str, &'a str), &'a DestinationRule>,
    /// Those of a namespace whose host is a wildcard.
    wildcards: HashMap<&'a str, Vec<&'a DestinationRule>>,
    /// Only looked for where there are subsets.
    endpoints: Lazy<'a, Endpoints<'a>>,
    /// Hosts of service entries by their keys, likewise.
    hosts: Lazy<'a, HashMap<&'a ServiceKey, &'a Host<'a>>>,
    /// The networks that these are reached from, likewise.
    networks: Lazy<'a, BTreeSet<&'a Arc<str>>>,
}

type Lazy<'a, T> = LazyCell<T, Box<dyn FnOnce() -> T + 'a>>;

impl<'a> Traffic<'a> {
    pub(super) fn new(mesh: &'a Mesh, members: Members<'a>) -> Self {
        let mut rules: Vec<_> = mesh.destination_rules.iter().collect();
        rules.sort_by_key(|rule| &rule.origin);
        let mut exact = HashMap::new();
        let mut wildcards: HashMap<&str, Vec<&DestinationRule>> = HashMap::new();
        for rule in rules {
            // Of two for the same host the older one holds.
            if let Entry::Vacant(place) = exact.entry((&*rule.namespace, &*rule.host)) {
                place.insert(rule);
                if rule.host.starts_with('*') {
                    wildcards.entry(&rule.namespace).or_default().push(rule);
                }
            }
        }
        Self {
            settings: &mesh.settings,
            exact,
            wildcards,
            endpoints: LazyCell::new(Box::new(move || by_service(members.entries))),
            hosts: LazyCell::new(Box::new(move || {
                let hosts = members.hosts.iter();
                hosts.map(|host| (&host.key, host)).collect()
            })),
            networks: LazyCell::new(Box::new(move || {
                members.outside.iter().map(|w| &w.network).collect()
            })),
        }
    }

    /// The rule that holds for a service at a waypoint of `namespace`: of the first namespace that
    /// has one, the one whose host says most.
    pub(super) fn rule(&self, key: &ServiceKey, namespace: &str) -> Option<&'a DestinationRule> {
        let places = [namespace, &key.namespace, &self.settings.root_namespace];
        places.into_iter().find_map(|place| {
            let exact = self.exact.get(&(place, &*key.hostname)).copied();
            exact.or_else(|| self.wildcard(place, &key.hostname))
        })
    }

    fn wildcard(&self, namespace: &str, hostname: &str) -> Option<&'a DestinationRule> {
        let of_namespace = self.wildcards.get(namespace)?.iter();
        let covering = of_namespace.filter(|rule| covers(&rule.host, hostname));
        // The first of the longest, which is the oldest.
        covering.rev().max_by_key(|rule| rule.host.len()).copied()
    }

    /// Who is in the subsets of a service.
    pub(super) fn subsets(&self, rule: &DestinationRule, key: &ServiceKey) -> Vec<Subset> {
        let made = |subset: &SubsetLabels| {
            let endpoints = self.endpoints.get(key).map_or(&[][..], Vec::as_slice);
            let carries = |carried: &BTreeMap<String, String>| {
                let mut wanted = subset.labels.iter();
                wanted.all(|(key, value)| carried.get(key) == Some(value))
            };
            let members = endpoints.iter().filter(|e| carries(&e.declared.labels));
            let members = members.map(|entry| Arc::clone(entry.uid()));
            let mut uids: Vec<_> = members.chain(self.outside(key, carries)).collect();
            uids.sort();
            Subset {
                name: Arc::clone(&subset.name),
                uids,
                traffic: subset.traffic.is_some().then(|| name(rule, &subset.name)),
            }
        };
        rule.subsets.iter().map(made).collect()
    }

    /// The endpoints outside of a host that carry labels, as each network has them.
    fn outside(
        &self,
        key: &ServiceKey,
        carries: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> Vec<Arc<str>> {
        let Some(host) = self.hosts.get(key) else {
            return Vec::new();
        };
        let endpoints = service_entries::endpoints(host).into_iter();
        let endpoints = endpoints.filter(|endpoint| carries(&endpoint.labels));
        let on_each = endpoints.flat_map(|endpoint| {
            let networks = self.networks.iter();
            networks.map(move |network| {
                let address = &endpoint.external.address;
                service_entries::uid(self.settings, host.declared, address, network)
            })
        });
        on_each.collect()
    }
}

/// The policies that a rule is: first the one for all endpoints, then those of its subsets.
pub(super) fn named(rule: &DestinationRule) -> Vec<NamedTraffic> {
    let whole = Some((name(rule, ""), &rule.traffic));
    let subsets = rule.subsets.iter();
    let subsets = subsets.filter_map(|s| Some((name(rule, &s.name), s.traffic.as_ref()?)));
    let policies = whole.into_iter().chain(subsets);
    let policies = policies.map(|(key, policy)| NamedTraffic {
        key,
        origin: rule.origin.clone(),
        policy: policy.clone(),
    });
    policies.collect()
}

fn name(rule: &DestinationRule, subset: &str) -> TrafficKey {
    TrafficKey {
        namespace: Arc::clone(&rule.namespace),
        name: Arc::clone(&rule.name),
        subset: Arc::from(subset),
    }
}

fn by_service(entries: &[reuse::Entry]) -> Endpoints<'_> {
    let mut endpoints = Endpoints::new();
    for entry in entries {
        for key in entry.workload.services.keys() {
            endpoints.entry(key).or_default().push(entry);
        }
    }
    endpoints
}

/// Whether a host name, `*.suffix` or `*` is or covers a host name.
pub fn covers(host: &str, hostname: &str) -> bool {
    match host.strip_prefix('*') {
        None => host == hostname,
        Some("") => true,
        Some(suffix) => hostname.len() > suffix.len() && hostname.ends_with(suffix),
    }
}
