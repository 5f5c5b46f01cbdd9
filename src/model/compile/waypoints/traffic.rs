//! Which destination rule holds for a service, and who is in its subsets (`spec/waypoint-l7.md`
//! §3.4).

use std::cell::LazyCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::super::Warning;
use super::super::reuse;
use crate::model::declaration::{DestinationRule, Mesh, SubsetLabels};
use crate::model::service::ServiceKey;
use crate::model::waypoint::{NamedTraffic, Subset, TrafficKey};

/// Endpoints by service, each in the order of uids.
type Endpoints<'a> = HashMap<&'a ServiceKey, Vec<&'a reuse::Entry>>;

/// The destination rules of a mesh.
pub(super) struct Traffic<'a> {
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
            let members = endpoints.iter().filter(|entry| {
                let carried = &entry.declared.labels;
                let mut wanted = subset.labels.iter();
                wanted.all(|(key, value)| carried.get(key) == Some(value))
            });
            Subset {
                name: Arc::clone(&subset.name),
                uids: members.map(|entry| Arc::clone(entry.uid())).collect(),
                traffic: subset.traffic.is_some().then(|| name(rule, &subset.name)),
            }
        };
        rule.subsets.iter().map(made).collect()
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
pub(super) fn covers(host: &str, hostname: &str) -> bool {
    match host.strip_prefix('*') {
        None => host == hostname,
        Some("") => true,
        Some(suffix) => hostname.len() > suffix.len() && hostname.ends_with(suffix),
    }
}
