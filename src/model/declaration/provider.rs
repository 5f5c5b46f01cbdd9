//! What waypoints ask for leave, or tell what they did: `extension-providers` of the `[mesh]` table
//! (`spec/waypoint-l7.md` §4.4, §6.1). Policies and telemetry name them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::Origin;
use crate::model::log_format::{Layout, LogFormat};
use crate::model::policy::Pattern;

/// One of `extension-providers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in the mesh.
    pub name: Arc<str>,
    /// What it is.
    pub kind: ProviderKind,
}

/// The kinds of providers, each with what there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// `envoy-ext-authz-http` and `envoy-ext-authz-grpc`: decides about requests.
    ExtAuthz {
        /// Whom to ask.
        service: ProviderService,
        /// How.
        check: ExtAuthz,
    },
    /// `prometheus`: counts, read from the metrics port. There is nothing to say of it.
    Prometheus,
    /// `envoy-file-access-log`: a line for each request.
    FileAccessLog(FileAccessLog),
    /// `envoy-otel-als`: a log record for each request, over OTLP.
    OtelAccessLog(OtelAccessLog),
    /// `opentelemetry`: spans, over OTLP.
    OpenTelemetry(OpenTelemetry),
    /// `zipkin`: spans, in Zipkin's JSON.
    Zipkin(Zipkin),
}

impl ProviderKind {
    /// Its key in `extension-providers`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ExtAuthz { check, .. } => match check.over {
                CheckOver::Http(_) => "envoy-ext-authz-http",
                CheckOver::Grpc => "envoy-ext-authz-grpc",
            },
            Self::Prometheus => "prometheus",
            Self::FileAccessLog(_) => "envoy-file-access-log",
            Self::OtelAccessLog(_) => "envoy-otel-als",
            Self::OpenTelemetry(_) => "opentelemetry",
            Self::Zipkin(_) => "zipkin",
        }
    }

    /// Whom it is reached as, unless nobody is asked.
    pub fn service(&self) -> Option<&ProviderService> {
        match self {
            Self::ExtAuthz { service, .. } => Some(service),
            Self::OtelAccessLog(log) => Some(&log.service),
            Self::OpenTelemetry(tracing) => Some(&tracing.service),
            Self::Zipkin(tracing) => Some(&tracing.service),
            Self::Prometheus | Self::FileAccessLog(_) => None,
        }
    }
}

/// The destination of the mesh that a provider is: `service` and `port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProviderService {
    /// What stands before the slash of `service`; any namespace unless it is there.
    pub namespace: Option<Arc<str>>,
    /// A host name in full, or, with a namespace, the name of a service in it.
    pub host: Arc<str>,
    /// The port, as clients know it.
    pub port: u16,
}

/// How a provider that decides is asked (`spec/waypoint-l7.md` §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtAuthz {
    /// Longest wait for an answer, connecting included; 5 s unless set.
    pub timeout: Duration,
    /// Whether what it cannot be asked about passes; not unless set.
    pub fail_open: bool,
    /// The answer to what it cannot be asked about, 400 to 599; 403 unless set.
    pub status_on_error: StatusCode,
    /// Whether the request is routed by the headers it has afterwards; by its own unless set.
    pub clear_route_cache: bool,
    /// How much of the body it sees; nothing unless set.
    pub body: Option<CheckedBody>,
    /// What is spoken with it.
    pub over: CheckOver,
}

/// What is spoken with a provider that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOver {
    /// HTTP: requests alone.
    Http(HttpCheck),
    /// gRPC: connections too.
    Grpc,
}

/// `include-request-body-in-check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedBody {
    /// Most octets of a body that are sent.
    pub max_bytes: u32,
    /// Whether of a longer one the beginning is sent; it is answered with 413 unless set.
    pub allow_partial: bool,
    /// Whether gRPC providers are told octets; text unless set.
    pub as_bytes: bool,
}

/// What there is to say of a provider that is asked over HTTP alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCheck {
    /// What is put before the path of the request; empty or beginning with a slash.
    pub path_prefix: Arc<str>,
    /// Which of the client's header fields it is sent beside those that it always is.
    pub request_headers: Vec<Pattern>,
    /// Fields of the check alone, which take the place of the client's.
    pub additional_headers: Vec<(HeaderName, HeaderValue)>,
    /// Which fields of an answer that allows go on with the request, in place of the client's.
    pub upstream_on_allow: Vec<Pattern>,
    /// Which of them go to the client, with the answer to its request.
    pub downstream_on_allow: Vec<Pattern>,
    /// Which fields of an answer that denies go to the client beside those that always do; all of
    /// them unless set.
    pub downstream_on_deny: Option<Vec<Pattern>>,
}

/// `envoy-file-access-log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAccessLog {
    /// A file on the waypoint's machine; `/dev/stdout` unless set.
    pub path: Arc<str>,
    /// How a line is written; Istio's text unless set.
    pub layout: Layout,
}

/// `envoy-otel-als`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtelAccessLog {
    /// The collector, reached over gRPC.
    pub service: ProviderService,
    /// What the log is called; `otel_envoy_accesslog` unless set.
    pub log_name: Arc<str>,
    /// How a record's body is written, or its attributes; Istio's text unless set.
    pub format: LogFormat,
}

/// `opentelemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTelemetry {
    /// The collector.
    pub service: ProviderService,
    /// How it is spoken to over HTTP; over gRPC unless set.
    pub http: Option<OtlpHttp>,
    /// Most characters of the path in a span; 256 unless set.
    pub max_tag_length: u32,
}

/// `http` of `opentelemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpHttp {
    /// The path that is posted to.
    pub path: Arc<str>,
    /// Longest wait for its answer; 3 s unless set.
    pub timeout: Duration,
    /// Fields that each post has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// `zipkin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zipkin {
    /// The collector.
    pub service: ProviderService,
    /// The path that is posted to; `/api/v2/spans` unless set.
    pub path: Arc<str>,
    /// Which headers carry the trace.
    pub trace_context: TraceContext,
}

/// `trace-context-option`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceContext {
    /// `USE_B3`: B3 alone.
    #[default]
    B3,
    /// `USE_B3_WITH_W3C_PROPAGATION`: B3, else W3C, is read; both are written.
    B3AndW3c,
}
