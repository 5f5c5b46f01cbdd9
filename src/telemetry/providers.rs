//! How providers that are asked about requests and connections have decided.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Questions by provider and what came of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Providers(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    provider: String,
    outcome: Asked,
}

/// What came of asking a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "spelt as metrics are")]
pub enum Asked {
    /// It lets go on.
    allowed,
    /// It does not.
    denied,
    /// It could not be asked, and nothing goes on.
    failed,
    /// It could not be asked, and everything passes then.
    let_pass,
}

impl Providers {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let providers = Self::default();
        registry.register(
            "lateen_provider_checks",
            "Requests and connections that a provider was asked about, and what came of that",
            providers.0.clone(),
        );
        providers
    }

    pub(super) fn note(&self, provider: &str, outcome: Asked) {
        let labels = Labels {
            provider: provider.to_owned(),
            outcome,
        };
        self.0.get_or_create(&labels).inc();
    }
}
