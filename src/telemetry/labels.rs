//! The labels of a connection: set T of `spec/hbone-dataplane.md` §8, in its order.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

use crate::identity::SpiffeId;
use crate::model::service::Service;
use crate::model::workload::Workload;

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

/// The label of a service's own gauges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct ServiceLabels {
    /// `namespace/hostname`.
    pub service: String,
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
        let unknown: Arc<str> = Arc::from("unknown");
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

    /// The same with the flag it ended with.
    #[must_use]
    pub fn flagged(mut self, flag: &'static str) -> Self {
        self.response_flags = flag;
        self
    }
}
