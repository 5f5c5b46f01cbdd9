//! Counters of HTTP requests (`spec/waypoint-l7.md` §6.2).

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::ConnectionLabels;

/// Istio's buckets, in milliseconds.
const MILLIS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5,
    1.8e6, 3.6e6,
];

/// The labels of one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Those of the connection it came by.
    #[prometheus(flatten)]
    pub connection: ConnectionLabels,
    /// The status answered; 0 when there was none.
    pub response_code: u16,
    /// The status of gRPC; empty where it is none.
    pub grpc_response_status: String,
}

/// What is counted of requests.
pub(super) struct Requests {
    total: Family<RequestLabels, Counter>,
    duration: Family<RequestLabels, Histogram, fn() -> Histogram>,
}

impl Requests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let total = Family::default();
        registry.register("istio_requests", "Requests answered", total.clone());
        let histogram: fn() -> Histogram = || Histogram::new(MILLIS);
        let duration = Family::new_with_constructor(histogram);
        registry.register(
            "istio_request_duration_milliseconds",
            "From a request's head to the end of its answer",
            duration.clone(),
        );
        Self { total, duration }
    }

    pub(super) fn note(&self, labels: &RequestLabels, took: Duration) {
        self.total.get_or_create(labels).inc();
        let millis = took.as_secs_f64() * 1e3;
        self.duration.get_or_create(labels).observe(millis);
    }
}
