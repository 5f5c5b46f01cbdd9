//! Which workloads carry which labels.

use std::collections::{BTreeMap, HashMap};

use crate::config::mesh::WrittenWorkload;

/// Workloads by label, in each namespace and in all of them.
pub(super) struct Carriers<'a> {
    all: Vec<&'a WrittenWorkload>,
    in_namespace: HashMap<(&'a str, &'a str, &'a str), Vec<&'a WrittenWorkload>>,
    anywhere: HashMap<(&'a str, &'a str), Vec<&'a WrittenWorkload>>,
}

impl<'a> Carriers<'a> {
    pub(super) fn new(workloads: &[&'a WrittenWorkload]) -> Self {
        let mut carriers = Self {
            all: workloads.to_vec(),
            in_namespace: HashMap::new(),
            anywhere: HashMap::new(),
        };
        for workload in workloads {
            for (key, value) in &workload.labels {
                let (key, value) = (key.as_str(), value.as_str());
                let here = (&*workload.namespace.value, key, value);
                carriers
                    .in_namespace
                    .entry(here)
                    .or_default()
                    .push(workload);
                let anywhere = carriers.anywhere.entry((key, value));
                anywhere.or_default().push(workload);
            }
        }
        carriers
    }

    /// Workloads of a namespace, or of all.
    pub(super) fn all(&self, namespace: Option<&str>) -> impl Iterator<Item = &'a WrittenWorkload> {
        let within = move |w: &&WrittenWorkload| namespace.is_none_or(|n| *w.namespace.value == *n);
        self.all.iter().copied().filter(within)
    }

    /// Workloads of a namespace, or of all, that carry every label of a selector; none, if that
    /// is empty. Of its labels the rarest is looked up, and only its workloads are compared.
    pub(super) fn of<'s>(
        &'s self,
        namespace: Option<&'s str>,
        selector: &'s BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a WrittenWorkload> + 's {
        let with_label = |(key, value): (&'s String, &'s String)| {
            let (key, value) = (key.as_str(), value.as_str());
            let workloads = match namespace {
                Some(namespace) => self.in_namespace.get(&(namespace, key, value)),
                None => self.anywhere.get(&(key, value)),
            };
            workloads.map_or(&[][..], Vec::as_slice)
        };
        let rarest = selector.iter().map(with_label);
        let rarest = rarest.min_by_key(|workloads| workloads.len());
        let rarest = rarest.unwrap_or_default().iter().copied();
        rarest.filter(|workload| carries(workload, selector))
    }
}

fn carries(workload: &WrittenWorkload, selector: &BTreeMap<String, String>) -> bool {
    let mut labels = selector.iter();
    labels.all(|(key, value)| workload.labels.get(key) == Some(value))
}
