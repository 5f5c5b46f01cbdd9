//! What policies that decide nothing would have decided: those that audit, and those that are only tried.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::model::authorization::Mark;

/// Requests and connections by the policy that marked them.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    /// `namespace/name`.
    policy: String,
    effect: Effect,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "spelt as metrics are")]
enum Effect {
    audit,
    would_deny,
    would_allow,
    would_not_allow,
}

impl Marks {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let marks = Self::default();
        registry.register(
            "lateen_policy_marks",
            "Requests and connections that a policy audits, or would decide if it were not only tried",
            marks.0.clone(),
        );
        marks
    }

    pub(super) fn note(&self, mark: &Mark) {
        let (policy, effect) = match mark {
            Mark::Audit(cause) => (&cause.policy, Effect::audit),
            Mark::WouldDeny(cause) => (&cause.policy, Effect::would_deny),
            Mark::WouldAllow(cause) => (&cause.policy, Effect::would_allow),
            Mark::WouldNotAllow(policy) => (policy, Effect::would_not_allow),
        };
        let policy = policy.key.to_string();
        self.0.get_or_create(&Labels { policy, effect }).inc();
    }
}
