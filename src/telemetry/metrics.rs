//! Counters and gauges, in Istio's names so that its dashboards fit, and their text form.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::capped::{Capped, Changes, Labels};
use super::control::ControlMetrics;
use super::dns::Dns;
use super::exports::{Exported, Exports};
use super::key_fetches::KeyFetches;
use super::labels::{ConnectionLabels, LogLabels, ServiceLabels};
use super::limits::Limits;
use super::marks::Marks;
use super::providers::{Asked, Providers};
use super::requests::{RequestLabels, RequestSeries, Requests};
use crate::model::attached::PolicyKey;
use crate::model::authorization::Mark;
use crate::model::compile::{ByService, Endpoints};
use crate::model::service::ServiceKey;
use crate::model::telemetry::Metric;

type Connections = Capped<ConnectionLabels, Counter>;

/// Every metric of a process. Cheap to share; recording never blocks on a reader.
pub struct Metrics {
    registry: Registry,
    connections: Families,
    requests: Requests,
    marks: Marks,
    providers: Providers,
    limits: Limits,
    mirrors_dropped: Counter,
    key_fetches: KeyFetches,
    dns: Dns,
    records_dropped: Family<LogLabels, Counter>,
    exports: Exports,
    /// One for each set of labels seen.
    series: Mutex<HashMap<ConnectionLabels, Arc<Series>>>,
    revision: Gauge<u64, AtomicU64>,
    stale_since: Gauge<u64, AtomicU64>,
    load_errors: Gauge,
    control: ControlMetrics,
    endpoints: Family<ServiceLabels, Gauge>,
    healthy: Family<ServiceLabels, Gauge>,
    ejections: Family<ServiceLabels, Counter>,
    ejected: Family<ServiceLabels, Gauge>,
    /// The services that have endpoints.
    services: Mutex<BTreeSet<ServiceLabels>>,
}

#[derive(Clone)]
struct Families {
    opened: Connections,
    closed: Connections,
    failed: Connections,
    sent: Connections,
    received: Connections,
}

/// The counters of connections with the same labels, found once for each connection and not for
/// each count.
pub struct Series {
    labels: ConnectionLabels,
    changes: Changes,
    families: Families,
    opened: Option<Counter>,
    closed: Option<Counter>,
    sent: Option<Counter>,
    received: Option<Counter>,
}

impl Series {
    fn new(labels: ConnectionLabels, changes: Changes, families: &Families) -> Self {
        let of = |metric, family: &Connections| {
            let labels = Labels::of(&labels, changes.get(&metric));
            labels.map(|labels| family.of(&labels))
        };
        Self {
            opened: of(Metric::TcpOpened, &families.opened),
            closed: of(Metric::TcpClosed, &families.closed),
            sent: of(Metric::TcpSent, &families.sent),
            received: of(Metric::TcpReceived, &families.received),
            families: families.clone(),
            labels,
            changes,
        }
    }

    /// So many bytes went to and came from the client of a connection that is still open.
    pub fn moved(&self, sent: u64, received: u64) {
        if let Some(counter) = &self.sent {
            counter.inc_by(sent);
        }
        if let Some(counter) = &self.received {
            counter.inc_by(received);
        }
    }

    /// A connection ended, with this flag; `sent` and `received` are the bytes to and from the client
    /// that were not told of before.
    pub fn closed(&self, flag: &'static str, sent: u64, received: u64) {
        match &self.closed {
            Some(closed) if flag == self.labels.response_flags => drop(closed.inc()),
            Some(_) => self.flagged(flag, Metric::TcpClosed, &self.families.closed),
            None => {}
        }
        self.moved(sent, received);
    }

    /// A connection could not be made; the flag tells why.
    pub fn failed(&self, flag: &'static str) {
        // It is none of Istio's, and goes with those that were closed.
        self.flagged(flag, Metric::TcpClosed, &self.families.failed);
    }

    fn flagged(&self, flag: &'static str, metric: Metric, family: &Connections) {
        let labels = self.labels.clone().flagged(flag);
        if let Some(labels) = Labels::of(&labels, self.changes.get(&metric)) {
            family.of(&labels).inc();
        }
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Series({:?})", self.labels)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let mut counter = |name: &str, help: &str| {
            let family = Connections::new(Counter::default);
            registry.register(name, help, family.family());
            family
        };
        let opened = counter("istio_tcp_connections_opened", "Connections begun");
        let closed = counter("istio_tcp_connections_closed", "Connections ended");
        let failed = counter(
            "istio_tcp_connections_failed",
            "Connections that never worked",
        );
        let sent = counter("istio_tcp_sent_bytes", "Bytes to the client");
        let received = counter("istio_tcp_received_bytes", "Bytes from the client");
        let requests = Requests::register(&mut registry);
        let exports = Exports::register(&mut registry);
        let marks = Marks::register(&mut registry);
        let providers = Providers::register(&mut registry);
        let limits = Limits::register(&mut registry);
        let mirrors_dropped = Counter::default();
        registry.register(
            "lateen_mirrors_dropped",
            "Copies of requests that a route asks for and that were given up, since nobody took them as fast",
            mirrors_dropped.clone(),
        );
        let key_fetches = KeyFetches::register(&mut registry);
        let dns = Dns::register(&mut registry);
        let records_dropped = Family::<LogLabels, Counter>::default();
        registry.register(
            "lateen_access_log_dropped",
            "Records of access logs that were lost, since their file could not be written as fast",
            records_dropped.clone(),
        );
        let revision = Gauge::default();
        registry.register(
            "lateen_revision",
            "Number of the mesh revision in force",
            revision.clone(),
        );
        let stale_since = Gauge::default();
        registry.register(
            "lateen_stale_since_seconds",
            "Since when no control plane has vouched for the mesh view in force, in seconds since 1970; 0 while one does",
            stale_since.clone(),
        );
        let load_errors = Gauge::default();
        registry.register(
            "lateen_mesh_errors",
            "Errors that keep the mesh directory from taking effect",
            load_errors.clone(),
        );
        let control = ControlMetrics::default();
        control.register(&mut registry);
        let mut of_services = |name: &str, help: &str| {
            let family = Family::<ServiceLabels, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        };
        let endpoints = of_services(
            "lateen_service_endpoints",
            "Endpoints of a service, as the control plane knows them",
        );
        let healthy = of_services(
            "lateen_service_endpoints_healthy",
            "Those of them that are healthy; all are used when none is",
        );
        let ejected = of_services(
            "lateen_outlier_ejected",
            "Endpoints of a service that a waypoint leaves alone now, since they failed too often",
        );
        let ejections = Family::<ServiceLabels, Counter>::default();
        registry.register(
            "lateen_outlier_ejections",
            "How often an endpoint of a service failed too often, and was left alone for a while",
            ejections.clone(),
        );
        registry.register(
            "istio_build",
            "Which build this is",
            Info::new(vec![
                ("component", "lateen"),
                ("tag", env!("CARGO_PKG_VERSION")),
            ]),
        );
        Self {
            registry,
            connections: Families {
                opened,
                closed,
                failed,
                sent,
                received,
            },
            requests,
            marks,
            providers,
            limits,
            mirrors_dropped,
            key_fetches,
            dns,
            records_dropped,
            exports,
            series: Mutex::default(),
            revision,
            stale_since,
            load_errors,
            control,
            endpoints,
            healthy,
            ejections,
            ejected,
            services: Mutex::default(),
        }
    }
}

impl Metrics {
    /// A connection begins: outbound before dialling, or into the mesh once it is known what carries it;
    /// inbound before policy. What becomes of it is told to the series.
    pub fn opened(&self, labels: ConnectionLabels) -> Arc<Series> {
        let mut known = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let series = match known.get(&labels) {
            Some(series) => Arc::clone(series),
            None => {
                let series = Series::new(labels.clone(), Changes::new(), &self.connections);
                let series = Arc::new(series);
                known.insert(labels, Arc::clone(&series));
                series
            }
        };
        drop(known);
        if let Some(opened) = &series.opened {
            opened.inc();
        }
        series
    }

    /// The same, counted otherwise than usual.
    pub fn opened_as(&self, labels: ConnectionLabels, changes: Changes) -> Arc<Series> {
        if changes.is_empty() {
            return self.opened(labels);
        }
        let series = Series::new(labels, changes, &self.connections);
        if let Some(opened) = &series.opened {
            opened.inc();
        }
        Arc::new(series)
    }

    /// The metrics of requests with these labels.
    pub fn requests(&self, labels: &RequestLabels, changes: &Changes) -> RequestSeries {
        self.requests.series(labels, changes)
    }

    /// Counts records of access logs that were lost, by whom they were meant for.
    pub fn records_dropped(&self, log: &str) -> Counter {
        let log = log.to_owned();
        self.records_dropped.get_or_create_owned(&LogLabels { log })
    }

    /// A policy has something to say of a request or a connection that decides nothing.
    pub fn marked(&self, mark: &Mark) {
        self.marks.note(mark);
    }

    /// A provider was asked about a request or a connection.
    pub fn provider_asked(&self, provider: &str, outcome: Asked) {
        self.providers.note(provider, outcome);
    }

    /// A source of keys was asked, and gave some or not.
    pub fn keys_fetched(&self, given: bool) {
        self.key_fetches.note(given);
    }

    /// What is counted of names.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// A rate limit refuses a request.
    pub fn limited(&self, limit: &PolicyKey) {
        self.limits.note(limit);
    }

    /// A copy of a request was given up.
    pub fn mirror_dropped(&self) {
        self.mirrors_dropped.inc();
    }

    /// The counters of what goes to a collector: what it is, and the provider by its name.
    pub fn exported(&self, signal: &'static str, provider: &str) -> Exported {
        self.exports.of(signal, provider)
    }

    /// The revision in force.
    pub fn revision(&self, number: u64) {
        self.revision.set(number);
    }

    /// Since when the mesh view in force is nobody's word, in seconds since 1970; 0 while it is.
    pub fn stale_since(&self, seconds: u64) {
        self.stale_since.set(seconds);
    }

    /// How many errors keep the mesh directory from taking effect; 0 when it is in force.
    pub fn load_errors(&self, count: usize) {
        self.load_errors
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// What the control role counts.
    pub fn control(&self) -> &ControlMetrics {
        &self.control
    }

    /// How many endpoints each service has.
    pub fn endpoints(&self, counts: &ByService) {
        let labels = |service: &ServiceKey| ServiceLabels {
            service: service.to_string(),
        };
        let counts = counts.iter().map(|(key, count)| (labels(key), *count));
        let counts: BTreeMap<ServiceLabels, Endpoints> = counts.collect();
        let mut known = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|labels| {
            let still = counts.contains_key(labels);
            if !still {
                self.endpoints.remove(labels);
                self.healthy.remove(labels);
            }
            still
        });
        for (labels, count) in counts {
            self.endpoints
                .get_or_create(&labels)
                .set(count.total.into());
            self.healthy
                .get_or_create(&labels)
                .set(count.healthy.into());
            known.insert(labels);
        }
    }

    /// An endpoint of a service failed too often.
    pub fn ejection(&self, service: &ServiceKey) {
        let service = service.to_string();
        self.ejections
            .get_or_create(&ServiceLabels { service })
            .inc();
    }

    /// How many endpoints of each service are left alone.
    pub fn ejected(&self, counts: &HashMap<ServiceKey, usize>) {
        for (service, count) in counts {
            let service = service.to_string();
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.ejected
                .get_or_create(&ServiceLabels { service })
                .set(count);
        }
    }

    /// All of it in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a metric cannot be written, which only a full memory could cause.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_shown_while_it_has_endpoints() {
        let metrics = Metrics::default();
        let count = |healthy, total| Endpoints { healthy, total };
        let cart = ServiceKey {
            namespace: Arc::from("shop"),
            hostname: Arc::from("cart.shop.mesh.internal"),
        };
        for (name, counts, want) in [
            ("all", vec![(cart.clone(), count(3, 3))], Some("3\n")),
            ("one less", vec![(cart.clone(), count(2, 3))], Some("2\n")),
            ("gone", vec![], None),
        ] {
            metrics.endpoints(&counts.into_iter().collect());
            let text = metrics.render().unwrap();
            let line =
                "lateen_service_endpoints_healthy{service=\"shop/cart.shop.mesh.internal\"} ";
            let shown = text.split_once(line).map(|(_, rest)| &rest[..2]);
            assert_eq!(shown, want, "{name}: {text}");
        }
    }
}
