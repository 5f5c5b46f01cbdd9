//! The policies that node proxies evaluate, and on which workloads each is listed
//! (`spec/labels-and-policy.md` §2.3, §3.5, §4.2).

mod aliases;
mod auto_allow;
mod beside;
mod convert;
mod exposed;
mod strictness;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::selectors::Selectors;
use crate::model::declaration::{self, Attachment, Mesh};
use crate::model::policy::Policy;
use crate::model::service::ServiceKey;
use crate::model::workload::Workload;

pub(super) use aliases::Bundle;
use auto_allow::AutoAllow;
pub use convert::{Converted, Difference, convert};
pub use exposed::exposed;
use strictness::Strictness;
pub use survey::{Surveyed, survey};

/// The policies of a mesh while its workloads are compiled.
pub(super) struct Attached<'a> {
    policies: Vec<Arc<Policy>>,
    selecting: Selectors<'a, usize>,
    strictness: Strictness<'a>,
    auto_allow: Option<AutoAllow<'a>>,
}

impl<'a> Attached<'a> {
    pub(super) fn new(mesh: &'a Mesh) -> Self {
        let root = &mesh.settings.root_namespace;
        let mut attached = Self {
            policies: Vec::with_capacity(mesh.authorization_policies.len()),
            selecting: Selectors::default(),
            strictness: Strictness::new(mesh),
            auto_allow: AutoAllow::new(mesh),
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

    /// The keys of the policies that hold for a workload and must be listed on it, in order. It
    /// belongs to these services.
    pub(super) fn listed_on(
        &self,
        workload: &'a declaration::Workload,
        services: &[&ServiceKey],
    ) -> Vec<Arc<str>> {
        let selecting = self.selecting.of(workload);
        let selecting = selecting.filter_map(|at| self.policies.get(at));
        let strict = self.strictness.over(workload);
        let listed = selecting
            .chain(strict)
            .map(|policy| Arc::clone(&policy.key));
        let mut listed: Vec<_> = listed.collect();
        if let Some(auto_allow) = &self.auto_allow {
            listed.extend(auto_allow.over(workload, services.iter().copied()));
        }
        listed.sort();
        listed
    }

    /// What nobody wrote as a policy: what peer authentications came to, as far as its key is among
    /// `listed`, and what lets waypoints through.
    fn derived(&self, listed: &BTreeMap<Arc<str>, usize>) -> Vec<Arc<Policy>> {
        let all: BTreeMap<&str, &Arc<Policy>> = self.strictness.policies().collect();
        let some = all.into_iter().filter(|(key, _)| listed.contains_key(*key));
        let some = some.map(|(_, policy)| policy);
        some.chain(self.letting_through()).cloned().collect()
    }

    fn letting_through(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.auto_allow.iter().flat_map(AutoAllow::policies)
    }

    /// All policies that node proxies are told, in the order of their keys. What peer
    /// authentications came to is among them where one of the workloads lists it.
    pub(super) fn policies(&self, workloads: &[Arc<Workload>]) -> Vec<Arc<Policy>> {
        let mut derived: BTreeMap<&str, &Arc<Policy>> = self.strictness.policies().collect();
        let mut all = self.policies.clone();
        all.extend(self.letting_through().cloned());
        for workload in workloads {
            // Of the few there are each is looked for until it is found once.
            if derived.is_empty() {
                break;
            }
            let listed = workload.authorization_policies.iter();
            all.extend(listed.filter_map(|key| derived.remove(&**key)).cloned());
        }
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }
}

#[cfg(test)]
mod tests;
