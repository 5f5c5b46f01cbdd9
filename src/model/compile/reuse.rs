//! What a compilation takes over from the one before.
//!
//! A compiled workload follows from its declaration and from its [`Surroundings`], and from nothing
//! else: whoever makes one is given no more than these. Where both are as they were, so is the
//! workload, and it is the same memory. That makes a change cost what it changes, here and for all
//! who compare one compilation with the next; it never makes a difference to the result.

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity::TrustDomain;
use crate::model::declaration;
use crate::model::service::ServiceKey;
use crate::model::shared::Shared;
use crate::model::workload::{Health, Locality, TunnelProtocol, Workload};

/// All that a compiled workload is made of besides its own declaration.
#[derive(Clone, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) cluster_id: &'a Arc<str>,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) network: &'a Arc<str>,
    pub(super) locality: &'a Locality,
    pub(super) tunnel: TunnelProtocol,
    pub(super) health: Health,
    /// In the order of their keys, each once.
    pub(super) services: &'a [&'a ServiceKey],
    pub(super) authorization_policies: &'a [Arc<str>],
}

impl Surroundings<'_> {
    /// Whether they are those that `had` was made in.
    fn are_of(&self, had: &Workload) -> bool {
        // Each of them is compared, or the compiler complains.
        let Self {
            cluster_id,
            trust_domain,
            network,
            locality,
            tunnel,
            health,
            services,
            authorization_policies,
        } = self;
        had.tunnel == *tunnel
            && had.health == *health
            && had.network == **network
            && had.locality == **locality
            && had.cluster_id == **cluster_id
            && had.trust_domain == **trust_domain
            && had.services.keys().eq(services.iter().copied())
            && had.authorization_policies == *authorization_policies
    }
}

/// The workloads that a compilation made, beside what they were made of, in the order of uids.
#[derive(Clone, Debug, Default)]
pub(super) struct Made(Vec<(Shared<declaration::Workload>, Arc<Workload>)>);

/// Two compilations are equal or not, whatever there was to take over.
impl PartialEq for Made {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl FromIterator<(Shared<declaration::Workload>, Arc<Workload>)> for Made {
    fn from_iter<I>(made: I) -> Self
    where
        I: IntoIterator<Item = (Shared<declaration::Workload>, Arc<Workload>)>,
    {
        Self(made.into_iter().collect())
    }
}

/// What was [`Made`], by declaration.
pub(super) struct Former<'a> {
    made: &'a [(Shared<declaration::Workload>, Arc<Workload>)],
    /// By what tells declarations apart.
    ranks: HashMap<usize, usize>,
}

impl<'a> Former<'a> {
    pub(super) fn new(Made(made): &'a Made) -> Self {
        let ranks = made.iter().enumerate();
        let ranks = ranks.map(|(rank, (declared, _))| (declared.id(), rank));
        Self {
            made,
            ranks: ranks.collect(),
        }
    }

    /// Where among the uids the workload of a declaration was; past all others when it is new.
    pub(super) fn rank(&self, declared: &Shared<declaration::Workload>) -> usize {
        let rank = self.ranks.get(&declared.id());
        rank.copied().unwrap_or(usize::MAX)
    }

    /// The uid of that rank's workload, if it is of that cluster.
    pub(super) fn uid(&self, rank: usize, cluster_id: &Arc<str>) -> Option<Arc<str>> {
        let (_, had) = self.made.get(rank)?;
        (had.cluster_id == *cluster_id).then(|| Arc::clone(&had.uid))
    }

    /// The workload of that rank, if it was made in the same surroundings.
    pub(super) fn same(
        &self,
        rank: usize,
        surroundings: &Surroundings<'_>,
    ) -> Option<&'a Arc<Workload>> {
        let (_, had) = self.made.get(rank)?;
        surroundings.are_of(had).then_some(had)
    }
}

#[cfg(test)]
mod tests;
