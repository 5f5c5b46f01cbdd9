//! Spans as Zipkin has them: JSON, version 2 (<https://zipkin.io/zipkin-api/>).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::span::{Kind, Span};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    name: &'a str,
    kind: &'static str,
    /// Since 1970, in microseconds.
    timestamp: u64,
    /// In microseconds; never zero, which would be unknown.
    duration: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    debug: bool,
    local_endpoint: Endpoint<'a>,
    tags: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    service_name: &'a str,
}

/// A list of spans of `service`, as it is posted.
pub fn json(service: &str, spans: &[Span]) -> Vec<u8> {
    let records: Vec<Record<'_>> = spans.iter().map(|span| record(service, span)).collect();
    // Nothing in it is other than text and numbers.
    serde_json::to_vec(&records).unwrap_or_else(|_never| b"[]".to_vec())
}

fn record<'a>(service: &'a str, span: &'a Span) -> Record<'a> {
    let context = &span.context;
    let took = span.end.duration_since(span.start).unwrap_or_default();
    let tags = span.tags.iter();
    let mut tags: BTreeMap<&str, &str> = tags.map(|(key, v)| (&**key, v.as_str())).collect();
    if let Some(error) = &span.error {
        tags.insert("error", error);
    }
    Record {
        trace_id: context.trace.to_string(),
        id: context.span.to_string(),
        parent_id: context.parent.map(|parent| parent.to_string()),
        name: &span.name,
        kind: match span.kind {
            Kind::Server => "SERVER",
            Kind::Client => "CLIENT",
        },
        timestamp: micros(
            span.start
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        ),
        duration: micros(took).max(1),
        debug: context.decision == super::Decision::Debug,
        local_endpoint: Endpoint {
            service_name: service,
        },
        tags,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::{Decision, SpanContext, SpanId, TraceId};
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn spans_are_told_as_zipkin_has_them() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_000);
        let context = SpanContext {
            trace: TraceId::new(1).unwrap(),
            span: SpanId::new(2).unwrap(),
            parent: None,
            decision: Decision::Keep,
        };
        let server = Span {
            context,
            kind: Kind::Server,
            name: Arc::from("cart.shop.mesh.internal:80/*"),
            start,
            end: start + Duration::from_micros(1500),
            tags: vec![("http.method".into(), "GET".into())],
            error: None,
        };
        let client = Span {
            context: SpanContext {
                span: SpanId::new(3).unwrap(),
                parent: Some(context.span),
                decision: Decision::Debug,
                ..context
            },
            kind: Kind::Client,
            // A clock that was set back.
            end: start - Duration::from_secs(1),
            error: Some("503".into()),
            ..server.clone()
        };
        let told: serde_json::Value =
            serde_json::from_slice(&json("waypoint.shop", &[server, client])).unwrap();
        let want = json!([
            {
                "traceId": "00000000000000000000000000000001",
                "id": "0000000000000002",
                "name": "cart.shop.mesh.internal:80/*",
                "kind": "SERVER",
                "timestamp": 1_700_000_000_000_000_u64,
                "duration": 1500,
                "localEndpoint": { "serviceName": "waypoint.shop" },
                "tags": { "http.method": "GET" },
            },
            {
                "traceId": "00000000000000000000000000000001",
                "id": "0000000000000003",
                "parentId": "0000000000000002",
                "name": "cart.shop.mesh.internal:80/*",
                "kind": "CLIENT",
                "timestamp": 1_700_000_000_000_000_u64,
                "duration": 1,
                "debug": true,
                "localEndpoint": { "serviceName": "waypoint.shop" },
                "tags": { "http.method": "GET", "error": "503" },
            },
        ]);
        assert_eq!(told, want);
        assert_eq!(json("waypoint.shop", &[]), b"[]");
    }
}
