//! Spans as OTLP has them (<https://opentelemetry.io/docs/specs/otlp/>).

use std::time::SystemTime;

use crate::telemetry::trace::{Kind, Span, Value};
use crate::wire::proto::otlp::collector::ExportTraceServiceRequest;
use crate::wire::proto::otlp::common::{AnyValue, InstrumentationScope, KeyValue, any_value};
use crate::wire::proto::otlp::resource::Resource;
use crate::wire::proto::otlp::trace::{self, ResourceSpans, ScopeSpans, Status, span, status};

/// What is handed to a collector: spans of whoever is described by `teller`.
pub fn export(teller: &[(&'static str, String)], spans: &[Span]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource(teller)),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans: spans.iter().map(of).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// Who tells it.
pub(super) fn resource(teller: &[(&'static str, String)]) -> Resource {
    let described = teller.iter();
    let described = described.map(|(key, value)| attribute(key, value));
    Resource {
        attributes: described.collect(),
        dropped_attributes_count: 0,
    }
}

/// What tells it.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "lateen".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// A text under a key.
pub(super) fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(text(value)),
    }
}

/// A text.
pub(super) fn text(value: &str) -> AnyValue {
    AnyValue {
        value: Some(any_value::Value::StringValue(value.to_owned())),
    }
}

fn of(span: &Span) -> trace::Span {
    let context = &span.context;
    let tags = span.tags.iter();
    let tags = tags.map(|(key, value)| attribute(key, Value::as_str(value)));
    trace::Span {
        trace_id: context.trace.bytes().to_vec(),
        span_id: context.span.bytes().to_vec(),
        trace_state: String::new(),
        parent_span_id: context
            .parent
            .map(|p| p.bytes().to_vec())
            .unwrap_or_default(),
        name: span.name.to_string(),
        kind: match span.kind {
            Kind::Server => span::SpanKind::Server,
            Kind::Client => span::SpanKind::Client,
        }
        .into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end.max(span.start)),
        attributes: tags.collect(),
        dropped_attributes_count: 0,
        status: span.error.as_ref().map(|error| Status {
            message: error.to_string(),
            code: status::StatusCode::Error.into(),
        }),
        // Of the W3C flags the one there is.
        flags: u32::from(context.decision.keeps()),
    }
}

/// Nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use prost::Message as _;

    use super::*;
    use crate::telemetry::trace::{Decision, SpanContext, SpanId, TraceId};

    #[test]
    fn a_span_is_told_whole() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001);
        let span = Span {
            context: SpanContext {
                trace: TraceId::new(0x0102).unwrap(),
                span: SpanId::new(3).unwrap(),
                parent: SpanId::new(4),
                decision: Decision::Keep,
            },
            kind: Kind::Client,
            name: Arc::from("cart"),
            start,
            // A clock that was set back: no span ends before it begins.
            end: start - Duration::from_secs(1),
            tags: vec![("http.method".into(), "GET".into())],
            error: Some("503".into()),
        };
        let root = Span {
            context: SpanContext {
                parent: None,
                ..span.context
            },
            kind: Kind::Server,
            end: start + Duration::from_nanos(5),
            error: None,
            ..span.clone()
        };
        let resource = [("service.name", "waypoint.shop".to_owned())];
        let message = export(&resource, &[span, root]);
        let bytes = message.encode_to_vec();
        assert_eq!(ExportTraceServiceRequest::decode(&*bytes).unwrap(), message);
        let spans = &message.resource_spans[0];
        let described = &spans.resource.as_ref().unwrap().attributes;
        assert_eq!(*described, [attribute("service.name", "waypoint.shop")]);
        let [client, server] = &*spans.scope_spans[0].spans else {
            panic!("two spans");
        };
        assert_eq!(
            client.trace_id,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
        );
        assert_eq!(client.span_id, [0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(client.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(client.kind(), span::SpanKind::Client);
        assert_eq!(client.start_time_unix_nano, 1_700_000_000_000_000_001);
        assert_eq!(client.end_time_unix_nano, client.start_time_unix_nano);
        assert_eq!(client.attributes, [attribute("http.method", "GET")]);
        assert_eq!(
            client.status.as_ref().unwrap().code(),
            status::StatusCode::Error
        );
        assert_eq!((client.flags, server.flags), (1, 1));
        assert!(server.parent_span_id.is_empty() && server.status.is_none());
        assert_eq!(server.kind(), span::SpanKind::Server);
        assert_eq!(server.end_time_unix_nano - server.start_time_unix_nano, 5);
    }
}
