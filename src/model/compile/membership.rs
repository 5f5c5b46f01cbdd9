//! Which workloads a service selects.
//!
//! Every service is filed under the one pair of its selector that the fewest workloads of its
//! namespace carry; a workload looks up its own labels. The work is proportional to labels and
//! matches, not to workloads × services.

use std::collections::HashMap;

use crate::model::declaration::{Mesh, Service, Workload};
use crate::model::service::ServiceKey;

/// Namespace, label key, label value.
type Label<'a> = (&'a str, &'a str, &'a str);

/// An index of all selectors of a mesh.
pub(super) struct Membership<'a> {
    filed: HashMap<Label<'a>, Vec<(&'a Service, &'a ServiceKey)>>,
}

impl<'a> Membership<'a> {
    /// `keys` has one entry per service of the mesh, in the same order. For `few` workloads it is
    /// not worth while to find out which labels are rare.
    pub(super) fn new(mesh: &'a Mesh, keys: &'a [ServiceKey], few: bool) -> Self {
        let mut carried: HashMap<Label<'_>, usize> = HashMap::new();
        carried.extend(mesh.services.iter().flat_map(wanted).map(|pair| (pair, 0)));
        let counted = mesh.workloads.iter().filter(|_| !few);
        for pair in counted.flat_map(|w| worn(w)) {
            if let Some(count) = carried.get_mut(&pair) {
                *count += 1;
            }
        }
        let mut filed: HashMap<Label<'_>, Vec<_>> = HashMap::new();
        for (service, key) in mesh.services.iter().zip(keys) {
            // An empty selector has no pair to be filed under: it selects nothing.
            if let Some(rarest) = wanted(service).min_by_key(|pair| carried.get(pair)) {
                filed.entry(rarest).or_default().push((service, key));
            }
        }
        Self { filed }
    }

    /// The services `workload` belongs to, in no particular order, each once.
    pub(super) fn of<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = &'w ServiceKey> {
        worn(workload)
            .filter_map(|pair| self.filed.get(&pair))
            .flatten()
            .filter(|(service, _)| selects(service, workload))
            .map(|(_, key)| *key)
    }
}

fn wanted(service: &Service) -> impl Iterator<Item = Label<'_>> {
    let pairs = service.selector.iter();
    pairs.map(|(key, value)| (&*service.namespace, key.as_str(), value.as_str()))
}

fn worn(workload: &Workload) -> impl Iterator<Item = Label<'_>> {
    let pairs = workload.labels.iter();
    pairs.map(|(key, value)| (&*workload.namespace, key.as_str(), value.as_str()))
}

fn selects(service: &Service, workload: &Workload) -> bool {
    let mut wanted = service.selector.iter();
    wanted.all(|(key, value)| workload.labels.get(key) == Some(value))
}
