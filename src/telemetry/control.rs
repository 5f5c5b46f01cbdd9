//! What the control role counts.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Bounds of the time a compilation takes, in seconds: a small mesh takes a millisecond, the
/// largest we are made for about one second.
const COMPILE: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Type {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Counters of discovery, of compiling and of certificates. Clones count together.
#[derive(Clone, Debug)]
pub struct ControlMetrics {
    clients: Gauge,
    pushes: Family<Type, Counter>,
    push_bytes: Family<Type, Counter>,
    nacks: Family<Type, Counter>,
    revision: Gauge<u64, AtomicU64>,
    compile: Histogram,
    certificates: Family<Outcome, Counter>,
}

impl Default for ControlMetrics {
    fn default() -> Self {
        Self {
            clients: Gauge::default(),
            pushes: Family::default(),
            push_bytes: Family::default(),
            nacks: Family::default(),
            revision: Gauge::default(),
            compile: Histogram::new(COMPILE),
            certificates: Family::default(),
        }
    }
}

impl ControlMetrics {
    /// Shows them in `registry`.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "lateen_discovery_clients",
            "Discovery streams open",
            self.clients.clone(),
        );
        registry.register(
            "lateen_discovery_pushes",
            "Responses sent to nodes",
            self.pushes.clone(),
        );
        registry.register(
            "lateen_discovery_push_bytes",
            "Size of the responses sent to nodes",
            self.push_bytes.clone(),
        );
        registry.register(
            "lateen_discovery_nacks",
            "Responses that nodes refused",
            self.nacks.clone(),
        );
        registry.register(
            "lateen_published_revision",
            "Number of the revision this control plane serves",
            self.revision.clone(),
        );
        registry.register_with_unit(
            "lateen_compile",
            "Time from a mesh as read to a revision",
            Unit::Seconds,
            self.compile.clone(),
        );
        registry.register(
            "lateen_certificate_requests",
            "Requests for workloads' certificates",
            self.certificates.clone(),
        );
    }

    /// A discovery stream begins.
    pub fn opened(&self) {
        self.clients.inc();
    }

    /// A discovery stream has ended.
    pub fn closed(&self) {
        self.clients.dec();
    }

    /// A response was handed to a stream.
    pub fn pushed(&self, kind: &'static str, bytes: usize) {
        let label = Type { r#type: kind };
        self.pushes.get_or_create(&label).inc();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.push_bytes.get_or_create(&label).inc_by(bytes);
    }

    /// A node refused a response.
    pub fn nacked(&self, kind: &'static str) {
        self.nacks.get_or_create(&Type { r#type: kind }).inc();
    }

    /// A revision is served from now on.
    pub fn published(&self, number: u64) {
        self.revision.set(number);
    }

    /// A mesh was compiled, whatever came of it.
    pub fn compiled(&self, took: Duration) {
        self.compile.observe(took.as_secs_f64());
    }

    /// A certificate was asked for.
    pub fn certificate(&self, granted: bool) {
        let outcome = if granted { "granted" } else { "refused" };
        self.certificates.get_or_create(&Outcome { outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;
    use std::time::Duration;

    #[test]
    fn shows_what_was_counted() {
        let metrics = Metrics::default();
        let control = metrics.control();
        control.opened();
        control.opened();
        control.closed();
        control.pushed("address", 700);
        control.pushed("address", 300);
        control.nacked("placement");
        control.published(9);
        control.compiled(Duration::from_millis(30));
        control.certificate(true);
        control.certificate(false);
        let text = metrics.render().unwrap();
        for line in [
            "lateen_discovery_clients 1",
            "lateen_discovery_pushes_total{type=\"address\"} 2",
            "lateen_discovery_push_bytes_total{type=\"address\"} 1000",
            "lateen_discovery_nacks_total{type=\"placement\"} 1",
            "lateen_published_revision 9",
            "lateen_compile_seconds_bucket{le=\"0.1\"} 1",
            "lateen_certificate_requests_total{outcome=\"granted\"} 1",
            "lateen_certificate_requests_total{outcome=\"refused\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
