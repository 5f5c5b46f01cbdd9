//! Which workloads a service, or a service entry, selects.
//!
//! Every one is filed under the one pair of its selector that the fewest workloads of its
//! namespace carry; a workload looks up its own labels. The work is proportional to labels and
//! matches, not to workloads × services.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::service_entries::Entries;
use crate::model::declaration::{Mesh, Workload};
use crate::model::service::ServiceKey;

/// Namespace, label key, label value.
type Label<'a> = (&'a str, &'a str, &'a str);

/// An index of all selectors of a mesh.
pub(super) struct Membership<'a> {
    filed: HashMap<Label<'a>, Vec<Filed<'a>>>,
    /// The services with UDP ports.
    udp: HashSet<&'a ServiceKey>,
}

/// A selector, and whose it is.
#[derive(Clone, Copy)]
struct Filed<'a> {
    selector: &'a BTreeMap<String, String>,
    key: &'a ServiceKey,
}

impl<'a> Membership<'a> {
    /// `keys` has one entry per service of the mesh, in the same order. For `few` workloads it is
    /// not worth while to find out which labels are rare.
    pub(super) fn new(
        mesh: &'a Mesh,
        keys: &'a [ServiceKey],
        outside: &'a Entries<'a>,
        few: bool,
    ) -> Self {
        let services = mesh.services.iter().zip(keys);
        let services = services.map(|(service, key)| Filed {
            selector: &service.selector,
            key,
        });
        let hosts = outside.all.iter().map(|host| Filed {
            selector: &host.declared.selector,
            key: &host.key,
        });
        let all: Vec<_> = services.chain(hosts).collect();
        let mut carried: HashMap<Label<'_>, usize> = HashMap::new();
        carried.extend(all.iter().flat_map(wanted).map(|pair| (pair, 0)));
        let counted = mesh.workloads.iter().filter(|_| !few);
        for pair in counted.flat_map(|w| worn(w)) {
            if let Some(count) = carried.get_mut(&pair) {
                *count += 1;
            }
        }
        let mut filed: HashMap<Label<'_>, Vec<_>> = HashMap::new();
        for one in all {
            // An empty selector has no pair to be filed under: it selects nothing.
            if let Some(rarest) = wanted(&one).min_by_key(|pair| carried.get(pair)) {
                filed.entry(rarest).or_default().push(one);
            }
        }
        let services = mesh.services.iter().zip(keys);
        let udp = services.filter(|(service, _)| !service.udp_ports.is_empty());
        Self {
            filed,
            udp: udp.map(|(_, key)| key).collect(),
        }
    }

    /// Whether a service has UDP ports.
    pub(super) fn has_udp(&self, key: &ServiceKey) -> bool {
        self.udp.contains(key)
    }

    /// The services `workload` belongs to, in no particular order, each once.
    pub(super) fn of<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = &'w ServiceKey> {
        worn(workload)
            .filter_map(|pair| self.filed.get(&pair))
            .flatten()
            .filter(|filed| selects(filed, workload))
            .map(|filed| filed.key)
    }
}

fn wanted<'a>(filed: &Filed<'a>) -> impl Iterator<Item = Label<'a>> + use<'a> {
    let (namespace, pairs) = (&filed.key.namespace, filed.selector.iter());
    pairs.map(|(key, value)| (&**namespace, key.as_str(), value.as_str()))
}

fn worn(workload: &Workload) -> impl Iterator<Item = Label<'_>> {
    let pairs = workload.labels.iter();
    pairs.map(|(key, value)| (&*workload.namespace, key.as_str(), value.as_str()))
}

fn selects(filed: &Filed<'_>, workload: &Workload) -> bool {
    let mut wanted = filed.selector.iter();
    wanted.all(|(key, value)| workload.labels.get(key) == Some(value))
}
