//! Which destination rule holds for a service, and who is in its subsets (`spec/waypoint-l7.md`
//! §3.4).

use std::cell::LazyCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::Warning;
use super::super::reuse;
use super::super::service_entries::entry_uid;
use crate::model::declaration::{DestinationRule, Endpoint, Mesh, ServiceEntry, SubsetLabels};
use crate::model::service::ServiceKey;
use crate::model::waypoint::{NamedTraffic, Subset, TrafficKey};

/// Endpoints by service, each in the order of uids.
type Endpoints<'a> = HashMap<&'a ServiceKey, Vec<&'a reuse::Entry>>;

/// The destination rules of a mesh.
pub(super) struct Traffic<'a> {
    mesh: &'a Mesh,
    root: &'a str,
    /// By namespace and host.
    exact: HashMap<(&'a str, &'a str), &'a DestinationRule>,
    /// Of those for one host the older, then the newer.
    twins: Vec<(&'a DestinationRule, &'a DestinationRule)>,
    /// Those of a namespace whose host is a wildcard.
    wildcards: HashMap<&'a str, Vec<&'a DestinationRule>>,
    /// Only looked for where there are subsets.
    endpoints: LazyCell<Endpoints<'a>, Box<dyn FnOnce() -> Endpoints<'a> + 'a>>,
}

impl<'a> Traffic<'a> {
    pub(super) fn new(mesh: &'a Mesh, entries: &'a [reuse::Entry]) -> Self {
        let mut rules: Vec<_> = mesh.destination_rules.iter().collect();
        rules.sort_by_key(|rule| &rule.origin);
        let (mut exact, mut twins) = (HashMap::new(), Vec::new());
        let mut wildcards: HashMap<&str, Vec<&DestinationRule>> = HashMap::new();
        for rule in rules {
            match exact.entry((&*rule.namespace, &*rule.host)) {
                // Of two for the same host the older one holds.
                Entry::Occupied(older) => twins.push((*older.get(), rule)),
                Entry::Vacant(place) => {
                    place.insert(rule);
                    if rule.host.starts_with('*') {
                        wildcards.entry(&rule.namespace).or_default().push(rule);
                    }
                }
            }
        }
        Self {
            mesh,
            root: &mesh.settings.root_namespace,
            exact,
            twins,
            wildcards,
            endpoints: LazyCell::new(Box::new(move || by_service(entries))),
        }
    }

    /// The rule that holds for a service at a waypoint of `namespace`: of the first namespace that
    /// has one, the one whose host says most.
    pub(super) fn rule(&self, key: &ServiceKey, namespace: &str) -> Option<&'a DestinationRule> {
        let places = [namespace, &key.namespace, self.root];
        places.into_iter().find_map(|place| {
            let exact = self.exact.get(&(place, &*key.hostname)).copied();
            exact.or_else(|| self.wildcard(place, &key.hostname))
        })
    }

    /// Rules that hold for nobody.
    pub(super) fn twins(&self) -> impl Iterator<Item = Warning> {
        let shown = |rule: &DestinationRule| format!("{}/{}", rule.namespace, rule.name);
        self.twins
            .iter()
            .map(move |(older, newer)| Warning::SameHost {
                older: shown(older),
                newer: shown(newer),
                host: Arc::clone(&older.host),
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
            let listed = self.listed(key).filter(|(_, e)| carries(&e.labels));
            let listed = listed.map(|(entry, endpoint)| {
                let cluster = &self.mesh.settings.cluster_id;
                entry_uid(cluster, entry, &endpoint.external.address)
            });
            let mut uids: Vec<_> = members.chain(listed).collect();
            uids.sort();
            Subset {
                name: Arc::clone(&subset.name),
                uids,
                traffic: subset.traffic.is_some().then(|| name(rule, &subset.name)),
            }
        };
        rule.subsets.iter().map(made).collect()
    }

    /// Endpoints that a service entry lists for a host.
    fn listed(&self, key: &ServiceKey) -> impl Iterator<Item = (&'a ServiceEntry, &'a Endpoint)> {
        let (namespace, host) = (Arc::clone(&key.namespace), Arc::clone(&key.hostname));
        let of_host = move |entry: &&ServiceEntry| {
            entry.namespace == namespace && entry.hosts.contains(&host)
        };
        let entries = self.mesh.service_entries.iter().filter(of_host);
        entries.flat_map(|entry| entry.endpoints.iter().map(move |e| (entry, e)))
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
