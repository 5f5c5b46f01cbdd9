//! The labels of a connection: set T of `spec/hbone-dataplane.md` §8, in its order, and one of our own.

use std::sync::{Arc, LazyLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

use super::capped::{Pair, Pairs};
use crate::hbone::Transport;
use crate::identity::SpiffeId;
use crate::model::service::Service;
use crate::model::workload::Workload;

/// What is not known.
static UNKNOWN: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("unknown"));

/// Who reports a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(
    non_camel_case_types,
    reason = "spelt as Istio's dashboards match them"
)]
pub enum Reporter {
    /// The client's node.
    source,
    /// The server's node.
    destination,
    /// The waypoint between them.
    waypoint,
}

/// How a connection crossed the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(
    non_camel_case_types,
    reason = "spelt as Istio's dashboards match them"
)]
pub enum Security {
    /// In plain text.
    unknown,
    /// In a tunnel between two proven identities.
    mutual_tls,
}

/// What carried a connection from host to host. Istio has no such label, since it has one way only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "spelt as mesh files spell transports")]
pub enum Carrier {
    /// No tunnel: it went as it was, or stayed on its host.
    #[default]
    none,
    /// HBONE over TCP.
    tcp,
    /// HBONE over QUIC.
    quic,
}

impl Carrier {
    /// As labels and logs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::none => "none",
            Self::tcp => "tcp",
            Self::quic => "quic",
        }
    }
}

impl From<Transport> for Carrier {
    /// Of a tunnel that there is: nothing is carried by `auto`.
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::tcp,
            Transport::Quic => Self::quic,
            Transport::Auto => Self::none,
        }
    }
}

/// The label of a service's own gauges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct ServiceLabels {
    /// `namespace/hostname`.
    pub service: String,
}

/// The label of an access log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LogLabels {
    /// The path of its file.
    pub log: String,
}

/// The labels of one connection. Values that are not known read `unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(missing_docs, reason = "the names are Istio's and documented there")]
pub struct ConnectionLabels {
    pub reporter: Reporter,
    pub source_workload: Arc<str>,
    pub source_canonical_service: Arc<str>,
    pub source_canonical_revision: Arc<str>,
    pub source_workload_namespace: Arc<str>,
    pub source_principal: Arc<str>,
    pub source_app: Arc<str>,
    pub source_version: Arc<str>,
    pub source_cluster: Arc<str>,
    pub destination_service: Arc<str>,
    pub destination_service_namespace: Arc<str>,
    pub destination_service_name: Arc<str>,
    pub destination_workload: Arc<str>,
    pub destination_canonical_service: Arc<str>,
    pub destination_canonical_revision: Arc<str>,
    pub destination_workload_namespace: Arc<str>,
    pub destination_principal: Arc<str>,
    pub destination_app: Arc<str>,
    pub destination_version: Arc<str>,
    pub destination_cluster: Arc<str>,
    pub request_protocol: &'static str,
    pub response_flags: &'static str,
    pub connection_security_policy: Security,
    pub transport: Carrier,
}

impl ConnectionLabels {
    /// Labels of a connection between ends as far as they are known; the flag is `-` until
    /// [`ConnectionLabels::flagged`].
    pub fn new(
        reporter: Reporter,
        source: Option<&Workload>,
        destination: Option<&Workload>,
        service: Option<&Service>,
    ) -> Self {
        let unknown = Arc::clone(&UNKNOWN);
        let known = |value: Option<&Arc<str>>| match value {
            Some(text) if !text.is_empty() => Arc::clone(text),
            _ => Arc::clone(&unknown),
        };
        Self {
            reporter,
            source_workload: known(source.map(|w| &w.workload_name)),
            source_canonical_service: known(source.map(|w| &w.canonical_name)),
            source_canonical_revision: known(source.map(|w| &w.canonical_revision)),
            source_workload_namespace: known(source.map(|w| &w.namespace)),
            source_principal: known(None),
            source_app: known(source.map(|w| &w.canonical_name)),
            source_version: known(source.map(|w| &w.canonical_revision)),
            source_cluster: known(source.map(|w| &w.cluster_id)),
            destination_service: known(service.map(|s| &s.key.hostname)),
            destination_service_namespace: known(service.map(|s| &s.key.namespace)),
            destination_service_name: known(service.map(|s| &s.name)),
            destination_workload: known(destination.map(|w| &w.workload_name)),
            destination_canonical_service: known(destination.map(|w| &w.canonical_name)),
            destination_canonical_revision: known(destination.map(|w| &w.canonical_revision)),
            destination_workload_namespace: known(destination.map(|w| &w.namespace)),
            destination_principal: known(None),
            destination_app: known(destination.map(|w| &w.canonical_name)),
            destination_version: known(destination.map(|w| &w.canonical_revision)),
            destination_cluster: known(destination.map(|w| &w.cluster_id)),
            request_protocol: "tcp",
            response_flags: "-",
            connection_security_policy: Security::unknown,
            transport: Carrier::none,
        }
    }

    /// The same with proven identities at both ends.
    #[must_use]
    pub fn secured(mut self, source: &SpiffeId, destination: &SpiffeId) -> Self {
        self.source_principal = Arc::from(source.to_string());
        self.destination_principal = Arc::from(destination.to_string());
        self.connection_security_policy = Security::mutual_tls;
        self
    }

    /// The same in a tunnel from a proven identity.
    #[must_use]
    pub fn tunnelled(mut self, source: &SpiffeId) -> Self {
        self.source_principal = Arc::from(source.to_string());
        self.connection_security_policy = Security::mutual_tls;
        self
    }

    /// The same in a tunnel by this way.
    #[must_use]
    pub fn carried(mut self, by: Carrier) -> Self {
        self.transport = by;
        self
    }

    /// The same with the flag it ended with.
    #[must_use]
    pub fn flagged(mut self, flag: &'static str) -> Self {
        self.response_flags = flag;
        self
    }
}

impl Pairs for ConnectionLabels {
    fn pairs(&self) -> Vec<Pair> {
        let reporter = match self.reporter {
            Reporter::source => "source",
            Reporter::destination => "destination",
            Reporter::waypoint => "waypoint",
        };
        let security = match self.connection_security_policy {
            Security::unknown => "unknown",
            Security::mutual_tls => "mutual_tls",
        };
        let texts = [
            ("source_workload", &self.source_workload),
            ("source_canonical_service", &self.source_canonical_service),
            ("source_canonical_revision", &self.source_canonical_revision),
            ("source_workload_namespace", &self.source_workload_namespace),
            ("source_principal", &self.source_principal),
            ("source_app", &self.source_app),
            ("source_version", &self.source_version),
            ("source_cluster", &self.source_cluster),
            ("destination_service", &self.destination_service),
            (
                "destination_service_namespace",
                &self.destination_service_namespace,
            ),
            ("destination_service_name", &self.destination_service_name),
            ("destination_workload", &self.destination_workload),
            (
                "destination_canonical_service",
                &self.destination_canonical_service,
            ),
            (
                "destination_canonical_revision",
                &self.destination_canonical_revision,
            ),
            (
                "destination_workload_namespace",
                &self.destination_workload_namespace,
            ),
            ("destination_principal", &self.destination_principal),
            ("destination_app", &self.destination_app),
            ("destination_version", &self.destination_version),
            ("destination_cluster", &self.destination_cluster),
        ];
        let rest = [
            ("request_protocol", self.request_protocol),
            ("response_flags", self.response_flags),
            ("connection_security_policy", security),
            ("transport", self.transport.as_str()),
        ];
        let first = (Arc::from("reporter"), Arc::from(reporter));
        let texts = texts.map(|(label, value)| (Arc::from(label), Arc::clone(value)));
        let rest = rest.map(|(label, value)| (Arc::from(label), Arc::from(value)));
        [first].into_iter().chain(texts).chain(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Labels;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::registry::Registry;

    /// Labels that are changed are told by another hand than those that are not.
    #[test]
    fn labels_are_the_same_by_whatever_way_they_are_told() {
        let labels = ConnectionLabels::new(Reporter::waypoint, None, None, None)
            .carried(Carrier::quic)
            .flagged("UF");
        let shown = |labels: Labels<ConnectionLabels>| {
            let family = Family::<Labels<ConnectionLabels>, Counter>::default();
            family.get_or_create(&labels).inc();
            let mut registry = Registry::default();
            registry.register("n", "N", family);
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let pairs = Labels::Changed(labels.pairs());
        assert_eq!(shown(pairs), shown(Labels::Standard(labels)));
    }
}
