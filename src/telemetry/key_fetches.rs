//! How often waypoints ask for the keys of those whose tokens they believe.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Times that a source was asked, by what came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyFetches(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "spelt as metrics are")]
enum Outcome {
    success,
    failure,
}

impl KeyFetches {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let fetches = Self::default();
        registry.register(
            "lateen_jwks_fetches",
            "Times that the keys of a token issuer were asked for",
            fetches.0.clone(),
        );
        fetches
    }

    pub(super) fn note(&self, given: bool) {
        let result = match given {
            true => Outcome::success,
            false => Outcome::failure,
        };
        self.0.get_or_create(&Labels { result }).inc();
    }
}
