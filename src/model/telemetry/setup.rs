//! Whom a waypoint tells: the providers of telemetry there are in its mesh (`spec/waypoint-l7.md` §6.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Defaults, Metering, PROMETHEUS};
use crate::model::declaration::{FileAccessLog, OtlpHttp, TraceContext};
use crate::model::log_format::LogFormat;
use crate::model::route::Target;

/// What a waypoint is told of telemetry before any resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Whom it tells unless a resource says otherwise.
    pub defaults: Defaults,
    /// Everybody it can tell, by name.
    pub providers: BTreeMap<Arc<str>, Exporter>,
}

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exporter {
    /// Who reads the waypoint's metrics.
    Prometheus,
    /// A file of access logs.
    File(FileAccessLog),
    /// A collector of access logs, over OTLP.
    OtelLog {
        /// The collector.
        to: Target,
        /// What the log is called.
        log_name: Arc<str>,
        /// How a record's body is written, or its attributes.
        format: LogFormat,
    },
    /// A collector of spans, over OTLP.
    OpenTelemetry {
        /// The collector.
        to: Target,
        /// How it is spoken to over HTTP; over gRPC where absent.
        http: Option<OtlpHttp>,
        /// Most characters of the path in a span.
        max_tag_length: u32,
    },
    /// A collector of spans, in Zipkin's JSON.
    Zipkin {
        /// The collector.
        to: Target,
        /// The path that is posted to.
        path: Arc<str>,
        /// Which headers carry the trace.
        trace_context: TraceContext,
    },
}

impl Exporter {
    /// The service it is, if it is one.
    pub fn service(&self) -> Option<&Target> {
        match self {
            Self::Prometheus | Self::File(_) => None,
            Self::OtelLog { to, .. } | Self::OpenTelemetry { to, .. } | Self::Zipkin { to, .. } => {
                Some(to)
            }
        }
    }
}

impl Setup {
    /// Whether these metrics are shown where ours are.
    pub fn counts(&self, metering: &Metering) -> bool {
        let ours = |name: &Arc<str>| match self.providers.get(name) {
            Some(Exporter::Prometheus) => true,
            Some(_) => false,
            None => **name == *PROMETHEUS,
        };
        metering.providers.iter().any(ours)
    }
}
