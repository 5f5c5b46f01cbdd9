//! What is counted of names (`spec/hbone-dataplane.md` §8).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::model::workload::Workload;

/// Seconds that a question to a server may take.
const TIMES: [f64; 6] = [0.0005, 0.001, 0.01, 0.1, 1.0, 5.0];

/// What is not known.
static UNKNOWN: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("unknown"));

/// The labels of a question.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(missing_docs, reason = "the names are Istio's and documented there")]
pub struct DnsLabels {
    pub request_query_type: &'static str,
    pub request_protocol: &'static str,
    pub source_canonical_service: Arc<str>,
    pub source_canonical_revision: Arc<str>,
}

impl DnsLabels {
    /// Labels of what a workload asks, or somebody else.
    pub fn new(kind: &'static str, protocol: &'static str, source: Option<&Workload>) -> Self {
        let known = |of: fn(&Workload) -> &Arc<str>| source.map_or(&*UNKNOWN, of);
        Self {
            request_query_type: kind,
            request_protocol: protocol,
            source_canonical_service: Arc::clone(known(|w| &w.canonical_name)),
            source_canonical_revision: Arc::clone(known(|w| &w.canonical_revision)),
        }
    }
}

/// The counters.
#[derive(Clone)]
pub struct Dns {
    requests: Family<DnsLabels, Counter>,
    upstream: Family<DnsLabels, Counter>,
    failures: Family<DnsLabels, Counter>,
    durations: Family<DnsLabels, Histogram, fn() -> Histogram>,
    stale: Counter,
    refused: Counter,
}

impl Dns {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let family = Family::<DnsLabels, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let requests = counter("istio_dns_requests", "Questions for names");
        let upstream = counter(
            "istio_dns_upstream_requests",
            "Questions for names outside the mesh that a server was asked",
        );
        let failures = counter(
            "istio_dns_upstream_failures",
            "Those of them that no server answered",
        );
        let durations = Family::new_with_constructor((|| Histogram::new(TIMES)) as fn() -> _);
        registry.register_with_unit(
            "istio_dns_upstream_request_duration",
            "How long servers took to answer",
            Unit::Seconds,
            durations.clone(),
        );
        let stale = Counter::default();
        registry.register(
            "lateen_dns_stale_answers",
            "Answers past their end that were given since no server answered",
            stale.clone(),
        );
        let refused = Counter::default();
        registry.register(
            "lateen_dns_overload",
            "Questions that were not followed up since too many were being followed up",
            refused.clone(),
        );
        Self {
            requests,
            upstream,
            failures,
            durations,
            stale,
            refused,
        }
    }

    /// Somebody asks.
    pub fn asked(&self, labels: &DnsLabels) {
        self.requests.get_or_create(labels).inc();
    }

    /// A server was asked, and took so long to answer; `None` where none did.
    pub fn forwarded(&self, labels: &DnsLabels, took: Option<Duration>) {
        self.upstream.get_or_create(labels).inc();
        match took {
            Some(took) => self
                .durations
                .get_or_create(labels)
                .observe(took.as_secs_f64()),
            None => drop(self.failures.get_or_create(labels).inc()),
        }
    }

    /// An answer is given that is past its end.
    pub fn stale(&self) {
        self.stale.inc();
    }

    /// A question is not followed up.
    pub fn overloaded(&self) {
        self.refused.inc();
    }
}
