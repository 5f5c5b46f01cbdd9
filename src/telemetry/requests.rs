//! Counters of HTTP requests (`spec/waypoint-l7.md` §6.2).

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::capped::{Capped, Changes, Labels, Pair, Pairs};
use super::labels::ConnectionLabels;
use crate::model::telemetry::Metric;

/// Istio's buckets, in milliseconds and in bytes.
const BUCKETS: [f64; 19] = [
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

impl Pairs for RequestLabels {
    fn pairs(&self) -> Vec<Pair> {
        let mut pairs = self.connection.pairs();
        let code = Arc::from(self.response_code.to_string());
        pairs.push((Arc::from("response_code"), code));
        let status = Arc::from(&*self.grpc_response_status);
        pairs.push((Arc::from("grpc_response_status"), status));
        pairs
    }
}

/// What there was to a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// From its head to the end of its answer.
    pub took: Duration,
    /// Bytes of it, head and body.
    pub received: u64,
    /// Bytes of its answer, head and body.
    pub sent: u64,
    /// Messages of gRPC that were asked and answered.
    pub messages: (u64, u64),
}

type Counters = Capped<RequestLabels, Counter>;
type Histograms = Capped<RequestLabels, Histogram>;

/// What is counted of requests.
pub(super) struct Requests {
    total: Counters,
    duration: Histograms,
    request_bytes: Histograms,
    response_bytes: Histograms,
    request_messages: Counters,
    response_messages: Counters,
}

/// The metrics of requests with the same labels, found once and not for each of them.
#[derive(Debug)]
pub struct RequestSeries {
    total: Option<Counter>,
    duration: Option<Histogram>,
    request_bytes: Option<Histogram>,
    response_bytes: Option<Histogram>,
    request_messages: Option<Counter>,
    response_messages: Option<Counter>,
}

impl Requests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let counters = Counters::new(Counter::default);
            registry.register(name, help, counters.family());
            counters
        };
        let total = counter("istio_requests", "Requests answered");
        let request_messages = counter(
            "istio_request_messages",
            "Messages of gRPC that clients sent",
        );
        let response_messages = counter(
            "istio_response_messages",
            "Messages of gRPC that clients were sent",
        );
        let mut histogram = |name: &str, help: &str| {
            let histograms = Histograms::new(|| Histogram::new(BUCKETS));
            registry.register(name, help, histograms.family());
            histograms
        };
        Self {
            total,
            duration: histogram(
                "istio_request_duration_milliseconds",
                "From a request's head to the end of its answer",
            ),
            request_bytes: histogram("istio_request_bytes", "Size of requests, heads and bodies"),
            response_bytes: histogram("istio_response_bytes", "Size of answers, heads and bodies"),
            request_messages,
            response_messages,
        }
    }

    /// The metrics of these labels, with what is changed about them.
    pub(super) fn series(&self, labels: &RequestLabels, changes: &Changes) -> RequestSeries {
        let of = |metric| Labels::of(labels, changes.get(&metric));
        let grpc = labels.connection.request_protocol == "grpc";
        let messages = |metric| of(metric).filter(|_| grpc);
        RequestSeries {
            total: of(Metric::RequestCount).map(|l| self.total.of(&l)),
            duration: of(Metric::RequestDuration).map(|l| self.duration.of(&l)),
            request_bytes: of(Metric::RequestSize).map(|l| self.request_bytes.of(&l)),
            response_bytes: of(Metric::ResponseSize).map(|l| self.response_bytes.of(&l)),
            request_messages: messages(Metric::GrpcRequestMessages)
                .map(|l| self.request_messages.of(&l)),
            response_messages: messages(Metric::GrpcResponseMessages)
                .map(|l| self.response_messages.of(&l)),
        }
    }
}

impl RequestSeries {
    /// A request has been answered, or given up.
    pub fn note(&self, request: &Counted) {
        let count = |counter: &Option<Counter>, by| {
            if let Some(counter) = counter {
                counter.inc_by(by);
            }
        };
        let observe = |histogram: &Option<Histogram>, value| {
            if let Some(histogram) = histogram {
                histogram.observe(value);
            }
        };
        count(&self.total, 1);
        observe(&self.duration, request.took.as_secs_f64() * 1e3);
        observe(&self.request_bytes, bytes(request.received));
        observe(&self.response_bytes, bytes(request.sent));
        count(&self.request_messages, request.messages.0);
        count(&self.response_messages, request.messages.1);
    }
}

#[allow(clippy::cast_precision_loss, reason = "buckets are coarser by far")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Change, Metrics, Reporter};

    fn labels(protocol: &'static str) -> RequestLabels {
        let mut connection = ConnectionLabels::new(Reporter::waypoint, None, None, None);
        connection.request_protocol = protocol;
        RequestLabels {
            connection,
            response_code: 200,
            grpc_response_status: String::new(),
        }
    }

    #[test]
    fn a_request_is_counted_by_every_metric() {
        let metrics = Metrics::default();
        let counted = Counted {
            took: Duration::from_millis(7),
            received: 400,
            sent: 5_000,
            messages: (2, 3),
        };
        for protocol in ["http", "grpc"] {
            let series = metrics.requests(&labels(protocol), &Changes::new());
            series.note(&counted);
        }
        let text = metrics.render().unwrap();
        for (name, more, want) in [
            ("istio_requests_total", "grpc", 1),
            ("istio_request_duration_milliseconds_sum", "http", 7),
            ("istio_request_bytes_sum", "http", 400),
            ("istio_response_bytes_sum", "grpc", 5_000),
            ("istio_request_messages_total", "grpc", 2),
            ("istio_response_messages_total", "grpc", 3),
        ] {
            let protocol = format!("request_protocol=\"{more}\"");
            let mut lines = text.lines();
            let line = lines.find(|l| l.starts_with(name) && l.contains(&protocol));
            let line = line.unwrap_or_else(|| panic!("{name} in {text}"));
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!((value - f64::from(want)).abs() < 1e-9, "{line}");
        }
        let of_http = |l: &&str| l.contains("_messages_total{") && l.contains("\"http\"");
        assert_eq!(text.lines().find(of_http), None);
    }

    #[test]
    fn what_is_switched_off_is_not_counted() {
        let metrics = Metrics::default();
        let off = Change {
            disabled: true,
            tags: Vec::new(),
        };
        let changes = Changes::from([(Metric::RequestSize, off)]);
        let series = metrics.requests(&labels("http"), &changes);
        series.note(&Counted::default());
        let text = metrics.render().unwrap();
        assert!(!text.contains("istio_request_bytes_count{"), "{text}");
        assert!(text.contains("istio_response_bytes_count{"), "{text}");
    }
}
