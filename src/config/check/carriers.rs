//! Which workloads carry which labels.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

use crate::config::mesh::WrittenWorkload;

/// The workloads of a mesh, by what they carry.
pub(super) struct Carriers<'a> {
    all: &'a [&'a WrittenWorkload],
    /// Made when it is first asked for: most of what is judged selects nothing.
    by_label: OnceCell<ByLabel<'a>>,
}

/// Workloads by label, in each namespace and in all of them.
#[derive(Default)]
struct ByLabel<'a> {
    in_namespace: HashMap<(&'a str, &'a str, &'a str), Vec<&'a WrittenWorkload>>,
    anywhere: HashMap<(&'a str, &'a str), Vec<&'a WrittenWorkload>>,
}

impl<'a> Carriers<'a> {
    pub(super) fn new(workloads: &'a [&'a WrittenWorkload]) -> Self {
        Self {
            all: workloads,
            by_label: OnceCell::new(),
        }
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
        let known = self.by_label.get_or_init(|| ByLabel::new(self.all));
        let with_label = |(key, value): (&'s String, &'s String)| {
            let (key, value) = (key.as_str(), value.as_str());
            let workloads = match namespace {
                Some(namespace) => known.in_namespace.get(&(namespace, key, value)),
                None => known.anywhere.get(&(key, value)),
            };
            workloads.map_or(&[][..], Vec::as_slice)
        };
        let rarest = selector.iter().map(with_label);
        let rarest = rarest.min_by_key(|workloads| workloads.len());
        let rarest = rarest.unwrap_or_default().iter().copied();
        rarest.filter(|workload| carries(workload, selector))
    }
}

impl<'a> ByLabel<'a> {
    fn new(workloads: &[&'a WrittenWorkload]) -> Self {
        let mut known = Self::default();
        for workload in workloads {
            for (key, value) in &workload.labels {
                let (key, value) = (key.as_str(), value.as_str());
                let here = (&*workload.namespace.value, key, value);
                let here = known.in_namespace.entry(here);
                here.or_default().push(workload);
                let anywhere = known.anywhere.entry((key, value));
                anywhere.or_default().push(workload);
            }
        }
        known
    }
}

fn carries(workload: &WrittenWorkload, selector: &BTreeMap<String, String>) -> bool {
    let mut labels = selector.iter();
    labels.all(|(key, value)| workload.labels.get(key) == Some(value))
}
