//! `opentelemetry` and `zipkin`: where spans go (§6.1, §6.4).

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{header, path, service};
use crate::config::read::{Value, scalar};
use crate::model::declaration::{OpenTelemetry, OtlpHttp, ProviderKind, TraceContext, Zipkin};

/// Most characters of the path, unless the file says otherwise; Envoy's number.
const TAG_LENGTH: u32 = 256;

/// Bounds of `http.timeout`, and Istio's number.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const USUAL_TIMEOUT: Duration = Duration::from_secs(3);

/// Where Zipkin takes spans.
const SPANS: &str = "/api/v2/spans";

const TRACE_CONTEXTS: [(&str, TraceContext); 2] = [
    ("USE_B3", TraceContext::B3),
    ("USE_B3_WITH_W3C_PROPAGATION", TraceContext::B3AndW3c),
];

pub(super) fn opentelemetry(value: &Value<'_>) -> Option<ProviderKind> {
    let table = value.nested()?;
    let service = service(&table);
    let http = table.optional("http", otlp);
    let longest = table.optional("max-tag-length", |value| value.count(1..=65_536));
    table.finish();
    Some(ProviderKind::OpenTelemetry(OpenTelemetry {
        service: service?,
        http,
        max_tag_length: longest.unwrap_or(TAG_LENGTH),
    }))
}

fn otlp(value: &Value<'_>) -> Option<OtlpHttp> {
    let table = value.nested()?;
    let path = table.required("path", "path = \"/v1/traces\"", path);
    let timeout = table.optional("timeout", |value| scalar::duration(value, TIMEOUT));
    let headers = table.optional("headers", |value| value.list(field));
    table.finish();
    Some(OtlpHttp {
        path: path?,
        timeout: timeout.unwrap_or(USUAL_TIMEOUT),
        headers: headers.unwrap_or_default(),
    })
}

/// `{ name, value }`.
fn field(value: &Value<'_>) -> Option<(HeaderName, HeaderValue)> {
    let table = value.nested()?;
    let name = table.required("name", "name = \"x-tenant\"", Value::text);
    let field = table.required("value", "value = \"shop\"", |text| header(name?, text));
    table.finish();
    field
}

pub(super) fn zipkin(value: &Value<'_>) -> Option<ProviderKind> {
    let table = value.nested()?;
    let service = service(&table);
    let path = table.optional("path", path);
    let trace_context = table.optional("trace-context-option", |value| {
        scalar::choice(value, &TRACE_CONTEXTS)
    });
    table.finish();
    Some(ProviderKind::Zipkin(Zipkin {
        service: service?,
        path: path.unwrap_or_else(|| Arc::from(SPANS)),
        trace_context: trace_context.unwrap_or_default(),
    }))
}
