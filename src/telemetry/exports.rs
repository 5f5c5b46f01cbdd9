//! Counters of what goes to collectors.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What of and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    signal: &'static str,
    provider: String,
}

/// What is counted of them.
pub(super) struct Exports {
    taken: Family<Labels, Counter>,
    dropped: Family<Labels, Counter>,
}

/// The counters of one collector.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// What it has taken.
    pub taken: Counter,
    /// What it has not: there was no room, it was not to be reached, or it refused.
    pub dropped: Counter,
}

impl Exports {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let family = Family::default();
            registry.register(name, help, family.clone());
            family
        };
        Self {
            taken: counter(
                "lateen_telemetry_exported",
                "Spans, and lines of access logs, that a collector has taken",
            ),
            dropped: counter(
                "lateen_telemetry_dropped",
                "Those that it has not: they came too fast, or it was not to be reached",
            ),
        }
    }

    pub(super) fn of(&self, signal: &'static str, provider: &str) -> Exported {
        let labels = Labels {
            signal,
            provider: provider.to_owned(),
        };
        Exported {
            taken: self.taken.get_or_create_owned(&labels),
            dropped: self.dropped.get_or_create_owned(&labels),
        }
    }
}
