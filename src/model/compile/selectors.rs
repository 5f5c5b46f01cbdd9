//! Which selectors a workload meets.
//!
//! Each is filed under one pair of its labels, and a workload looks up its own: the work is
//! proportional to labels and candidates, not to workloads × selectors.

use std::collections::{BTreeMap, HashMap};

use crate::model::declaration::Workload;

/// Namespace (none for every one), label key, label value.
type Label<'a> = (Option<&'a str>, &'a str, &'a str);

/// Selectors and what each stands for.
pub(super) struct Selectors<'a, T> {
    filed: HashMap<Label<'a>, Vec<Filed<'a, T>>>,
}

struct Filed<'a, T> {
    wanted: &'a BTreeMap<String, String>,
    value: T,
}

impl<T> Default for Selectors<'_, T> {
    fn default() -> Self {
        Self {
            filed: HashMap::new(),
        }
    }
}

impl<'a, T: Copy> Selectors<'a, T> {
    /// Files a selector of workloads of a namespace, or of every one. An empty one selects nothing.
    pub(super) fn file(
        &mut self,
        namespace: Option<&'a str>,
        wanted: &'a BTreeMap<String, String>,
        value: T,
    ) {
        if let Some((key, label)) = wanted.first_key_value() {
            let filed = self.filed.entry((namespace, key, label)).or_default();
            filed.push(Filed { wanted, value });
        }
    }

    /// What selects `workload`, in no particular order.
    pub(super) fn of<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = T> + 'w {
        let labels = if self.filed.is_empty() {
            None
        } else {
            Some(&workload.labels)
        };
        let worn = labels.into_iter().flatten();
        let filed = worn.flat_map(|(key, value)| {
            let within = [Some(&*workload.namespace), None];
            within.map(|namespace| self.filed.get(&(namespace, key.as_str(), value.as_str())))
        });
        let selects = |filed: &&Filed<'_, T>| {
            let mut wanted = filed.wanted.iter();
            wanted.all(|(key, value)| workload.labels.get(key) == Some(value))
        };
        filed.flatten().flatten().filter(selects).map(|f| f.value)
    }
}
