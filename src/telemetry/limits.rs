//! Requests that were refused since too much had been asked.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::model::attached::PolicyKey;

/// Requests by the rate limit that refused them.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    /// `namespace/name`.
    rate_limit: String,
}

impl Limits {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let limits = Self::default();
        registry.register(
            "lateen_requests_limited",
            "Requests that a rate limit refused",
            limits.0.clone(),
        );
        limits
    }

    pub(super) fn note(&self, limit: &PolicyKey) {
        let rate_limit = limit.to_string();
        self.0.get_or_create(&Labels { rate_limit }).inc();
    }
}
