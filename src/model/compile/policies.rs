//! The policies that node proxies evaluate, and on which workloads each is listed
//! (`spec/labels-and-policy.md` §2.3, §3.5, §4.2).

mod aliases;
mod convert;
mod strictness;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::selectors::Selectors;
use crate::model::declaration::{Attachment, Mesh, Workload};
use crate::model::policy::Policy;

pub use convert::{Converted, Difference, convert};
use strictness::Strictness;
pub use survey::{Condition, Surveyed, survey};

/// The policies of a mesh while its workloads are compiled.
pub(super) struct Attached<'a> {
    policies: Vec<Arc<Policy>>,
    selecting: Selectors<'a, usize>,
    strictness: Strictness<'a>,
    /// Those that peer authentications came to, where a workload lists them.
    derived: BTreeMap<Arc<str>, Arc<Policy>>,
}

impl<'a> Attached<'a> {
    pub(super) fn new(mesh: &'a Mesh) -> Self {
        let root = &mesh.settings.root_namespace;
        let mut attached = Self {
            policies: Vec::with_capacity(mesh.authorization_policies.len()),
            selecting: Selectors::default(),
            strictness: Strictness::new(mesh),
            derived: BTreeMap::new(),
        };
        for written in &mesh.authorization_policies {
            let Some(policy) = convert(written, &mesh.settings).policy else {
                continue;
            };
            if let Attachment::Selector(labels) = &written.attachment {
                let within = (written.namespace != *root).then_some(&*written.namespace);
                let at = attached.policies.len();
                attached.selecting.file(within, labels, at);
            }
            attached.policies.push(Arc::new(policy));
        }
        attached
    }

    /// The keys of the policies that hold for a workload and must be listed on it, in order.
    pub(super) fn listed_on(&mut self, workload: &Workload) -> Vec<Arc<str>> {
        let selecting = self.selecting.of(workload);
        let selecting = selecting.filter_map(|at| self.policies.get(at));
        let strict = self.strictness.over(workload);
        let listed = selecting
            .chain(strict)
            .map(|policy| Arc::clone(&policy.key));
        let mut listed: Vec<_> = listed.collect();
        listed.sort();
        if let Some(strict) = strict {
            let derived = self.derived.entry(Arc::clone(&strict.key));
            derived.or_insert_with(|| Arc::clone(strict));
        }
        listed
    }

    /// All policies that node proxies are told, in the order of their keys.
    pub(super) fn into_policies(self) -> Vec<Arc<Policy>> {
        let mut all = self.policies;
        all.extend(self.derived.into_values());
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }
}

#[cfg(test)]
mod tests;
