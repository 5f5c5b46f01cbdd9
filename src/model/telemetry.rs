//! What is told of the traffic that passes a waypoint: spans, metrics and access logs
//! (`spec/labels-and-policy.md` §5.2, `spec/waypoint-l7.md` §6).
//!
//! A [`Telemetry`] is one resource as it was written, without what is for clients' sides alone: a
//! waypoint is a server's. Several hold for a service, each wider than the next; [`Merged`] is what they
//! come to.

mod facts;
mod merge;
mod setup;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::attached::PolicyKey;
use super::declaration::Origin;
use super::expression::Expression;
use super::log_format::TextFormat;

pub use facts::{Facts, Request, Response, Upstream};
pub use merge::{Defaults, Log, Merged, Metering, MetricChange, Traces};
pub use setup::{Exporter, Setup};

/// The provider that writes to the mesh's `access-log-file`, declared or not.
pub const ENVOY: &str = "envoy";
/// The provider of metrics that are read from the waypoint, declared or not.
pub const PROMETHEUS: &str = "prometheus";

/// A telemetry resource as waypoints carry it out.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Its name.
    pub key: PolicyKey,
    /// Where it was written.
    pub origin: Origin,
    /// What it says.
    pub says: Sections,
}

/// What a telemetry resource says, each part in the order it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sections {
    /// `tracing`.
    pub tracing: Vec<Tracing>,
    /// `metrics`.
    pub metrics: Vec<Metrics>,
    /// `access-logging`.
    pub logging: Vec<Logging>,
}

/// One of `tracing`. What it leaves open is as the wider ones say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracing {
    /// To whom spans are told; only the first is.
    pub providers: Vec<Arc<str>>,
    /// The share of requests that are traced of which nobody has decided.
    pub sampling: Option<Sampling>,
    /// Whether no spans are told, though the decision is passed on.
    pub disable_span_reporting: Option<bool>,
    /// Tags beside the usual ones.
    pub custom_tags: Option<BTreeMap<Arc<str>, CustomTag>>,
    /// Whether spans bear Istio's own tags.
    pub enable_istio_tags: Option<bool>,
    /// Whether the headers of a trace are left as they came.
    pub disable_context_propagation: Option<bool>,
}

/// A share of requests, in hundredths of a percent; 10 000 are all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sampling(pub u16);

impl Sampling {
    /// The mesh's, where nobody says otherwise: one percent.
    pub const USUAL: Self = Self(100);
}

/// The value of a tag.
#[derive(Clone, Debug, PartialEq)]
pub enum CustomTag {
    /// This one.
    Literal(Arc<str>),
    /// That of a variable of the waypoint's environment.
    Environment {
        /// Its name.
        name: Arc<str>,
        /// What stands for an absent one; absent too, there is no tag.
        default: Option<Arc<str>>,
    },
    /// That of a field of the request.
    Header {
        /// Its name.
        name: Arc<str>,
        /// What stands for an absent one; absent too, there is no tag.
        default: Option<Arc<str>>,
    },
    /// What an access log would say.
    Formatter(TextFormat),
}

/// One of `metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// To whom metrics are shown; as the wider ones say where there is none.
    pub providers: Vec<Arc<str>>,
    /// What is changed, in order.
    pub overrides: Vec<Override>,
    /// How often connections are counted anew; as the wider ones say where absent.
    pub reporting_interval: Option<Duration>,
}

/// A change of one metric or of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Override {
    /// Which; all where absent.
    pub metric: Option<Metric>,
    /// Whether it is not counted.
    pub disabled: Option<bool>,
    /// What becomes of its labels.
    pub tags: BTreeMap<Arc<str>, TagChange>,
}

/// What becomes of a label.
#[derive(Clone, Debug, PartialEq)]
pub enum TagChange {
    /// It has this value.
    Upsert(Expression),
    /// It goes.
    Remove,
}

/// Istio's standard metrics (`spec/waypoint-l7.md` §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// `istio_requests_total`.
    RequestCount,
    /// `istio_request_duration_milliseconds`.
    RequestDuration,
    /// `istio_request_bytes`.
    RequestSize,
    /// `istio_response_bytes`.
    ResponseSize,
    /// `istio_request_messages_total`.
    GrpcRequestMessages,
    /// `istio_response_messages_total`.
    GrpcResponseMessages,
    /// `istio_tcp_connections_opened_total`.
    TcpOpened,
    /// `istio_tcp_connections_closed_total`.
    TcpClosed,
    /// `istio_tcp_sent_bytes_total`.
    TcpSent,
    /// `istio_tcp_received_bytes_total`.
    TcpReceived,
}

impl Metric {
    /// Each, with its name in telemetry resources and its own.
    pub const ALL: [(Self, &str, &str); 10] = [
        (Self::RequestCount, "REQUEST_COUNT", "istio_requests_total"),
        (
            Self::RequestDuration,
            "REQUEST_DURATION",
            "istio_request_duration_milliseconds",
        ),
        (Self::RequestSize, "REQUEST_SIZE", "istio_request_bytes"),
        (Self::ResponseSize, "RESPONSE_SIZE", "istio_response_bytes"),
        (
            Self::GrpcRequestMessages,
            "GRPC_REQUEST_MESSAGES",
            "istio_request_messages_total",
        ),
        (
            Self::GrpcResponseMessages,
            "GRPC_RESPONSE_MESSAGES",
            "istio_response_messages_total",
        ),
        (
            Self::TcpOpened,
            "TCP_OPENED_CONNECTIONS",
            "istio_tcp_connections_opened_total",
        ),
        (
            Self::TcpClosed,
            "TCP_CLOSED_CONNECTIONS",
            "istio_tcp_connections_closed_total",
        ),
        (
            Self::TcpSent,
            "TCP_SENT_BYTES",
            "istio_tcp_sent_bytes_total",
        ),
        (
            Self::TcpReceived,
            "TCP_RECEIVED_BYTES",
            "istio_tcp_received_bytes_total",
        ),
    ];

    /// Its name in telemetry resources.
    pub fn as_str(self) -> &'static str {
        let named = Self::ALL.iter().find(|(metric, _, _)| *metric == self);
        named.map_or("", |(_, name, _)| name)
    }

    /// The one of this name in telemetry resources.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known, _)| *known == name);
        found.map(|(metric, _, _)| *metric)
    }

    /// The one that is shown by this name.
    pub fn shown_as(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, _, shown)| *shown == name);
        found.map(|(metric, _, _)| *metric)
    }
}

/// One of `access-logging`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logging {
    /// Whose logs it is about; those of the one before it where there is none.
    pub providers: Vec<Arc<str>>,
    /// Whether they are not written.
    pub disabled: bool,
    /// What is written to them; everything where absent.
    pub filter: Option<Expression>,
}
