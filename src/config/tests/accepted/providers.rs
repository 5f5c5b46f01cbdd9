//! `extension-providers` become what they mean.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::super::loaded;
use crate::config::Code;
use crate::model::declaration::Mesh;
use crate::model::declaration::{
    CheckOver, CheckedBody, ExtAuthz, FileAccessLog, HttpCheck, OpenTelemetry, OtelAccessLog,
    OtlpHttp, ProviderKind, ProviderService, TraceContext, Zipkin,
};
use crate::model::log_format::{Layout, LogFormat, TextFormat};
use crate::model::policy::Pattern;

/// The mesh of a file; its providers are none of its services.
fn mesh(text: &str) -> Mesh {
    let loaded = loaded(&[("a.toml", text.to_owned())]);
    for finding in loaded.report.diagnostics() {
        assert_eq!(finding.code(), Code::ProviderNotFound, "{}", loaded.report);
    }
    loaded.mesh.unwrap()
}

fn text(source: &str) -> TextFormat {
    TextFormat::parse(source).unwrap()
}

fn layout(format: LogFormat, omit_empty: bool) -> Layout {
    Layout { format, omit_empty }
}

fn service(namespace: Option<&str>, host: &str, port: u16) -> ProviderService {
    ProviderService {
        namespace: namespace.map(Arc::from),
        host: Arc::from(host),
        port,
    }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|t| Pattern::parse(t).unwrap()).collect()
}

fn fields(of: &[(&'static str, &'static str)]) -> Vec<(HeaderName, HeaderValue)> {
    let field = |(name, text): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(text),
        )
    };
    of.iter().map(field).collect()
}

const LEAST: &str = r#"
[mesh]
extension-providers = [
  { name = "ask", envoy-ext-authz-http = { service = "authz.example.com", port = 8000 } },
  { name = "ask-grpc", envoy-ext-authz-grpc = { service = "shop/authz", port = 9000 } },
  { name = "counts", prometheus = {} },
  { name = "lines", envoy-file-access-log = {} },
  { name = "records", envoy-otel-als = { service = "ops/otel", port = 4317 } },
  { name = "spans", opentelemetry = { service = "ops/otel", port = 4317 } },
  { name = "zipkin", zipkin = { service = "ops/zipkin", port = 9411 } },
]
"#;

#[test]
fn what_is_left_out_of_a_provider_is_filled_in() {
    let mesh = mesh(LEAST);
    let asked = |service, over| ProviderKind::ExtAuthz {
        service,
        check: ExtAuthz {
            timeout: Duration::from_secs(5),
            fail_open: false,
            status_on_error: StatusCode::FORBIDDEN,
            clear_route_cache: false,
            body: None,
            over,
        },
    };
    let want = [
        asked(
            service(None, "authz.example.com", 8000),
            CheckOver::Http(HttpCheck::default()),
        ),
        asked(service(Some("shop"), "authz", 9000), CheckOver::Grpc),
        ProviderKind::Prometheus,
        ProviderKind::FileAccessLog(FileAccessLog {
            path: Arc::from("/dev/stdout"),
            layout: layout(LogFormat::text(), false),
        }),
        ProviderKind::OtelAccessLog(OtelAccessLog {
            service: service(Some("ops"), "otel", 4317),
            log_name: Arc::from("otel_envoy_accesslog"),
            format: LogFormat::text(),
        }),
        ProviderKind::OpenTelemetry(OpenTelemetry {
            service: service(Some("ops"), "otel", 4317),
            http: None,
            max_tag_length: 256,
        }),
        ProviderKind::Zipkin(Zipkin {
            service: service(Some("ops"), "zipkin", 9411),
            path: Arc::from("/api/v2/spans"),
            trace_context: TraceContext::B3,
        }),
    ];
    let providers = &mesh.settings.providers;
    let kinds: Vec<_> = providers.iter().map(|p| p.kind.clone()).collect();
    assert_eq!(kinds, want);
    let names: Vec<_> = providers.iter().map(|p| &*p.name).collect();
    assert_eq!(
        names,
        [
            "ask", "ask-grpc", "counts", "lines", "records", "spans", "zipkin"
        ]
    );
    assert_eq!(providers[1].origin.line, 5);
}

const MOST: &str = r#"
[[mesh.extension-providers]]
name = "ask"
[mesh.extension-providers.envoy-ext-authz-http]
service = "shop/authz.example.com"
port = 8000
timeout = "250ms"
fail-open = true
status-on-error = "503"
clear-route-cache = true
include-request-body-in-check = { max-request-bytes = 8192, allow-partial-message = true, pack-as-bytes = true }
path-prefix = "/check"
include-request-headers-in-check = ["Cookie", "x-*", "*-id"]
include-additional-headers-in-check = { X-Mesh = "edge" }
headers-to-upstream-on-allow = ["x-ext"]
headers-to-downstream-on-allow = ["set-cookie"]
headers-to-downstream-on-deny = []

[[mesh.extension-providers]]
name = "text"
envoy-file-access-log = { path = "/var/log/a", log-format = { text = "%REQ(:PATH)%\n" }, omit-empty-values = true }

[[mesh.extension-providers]]
name = "json"
envoy-file-access-log = { log-format = { labels = { path = "%REQ(:PATH)%", b = "%PROTOCOL%" } } }

[[mesh.extension-providers]]
name = "records"
envoy-otel-als = { service = "ops/otel", port = 4317, log-name = "shop", log-format = { labels = { path = "%REQ(:PATH)%", b = "%PROTOCOL%" } } }

[[mesh.extension-providers]]
name = "spans"
opentelemetry = { service = "ops/otel", port = 4318, max-tag-length = 64, http = { path = "/v1/traces", timeout = "1s", headers = [{ name = "X-Tenant", value = "shop" }] } }

[[mesh.extension-providers]]
name = "zipkin"
zipkin = { service = "ops/zipkin", port = 9411, path = "/spans", trace-context-option = "USE_B3_WITH_W3C_PROPAGATION" }
"#;

#[test]
fn everything_there_is_to_say_of_a_provider_is_read() {
    let mesh = mesh(MOST);
    let label = |key: &str, text: &str| (Arc::<str>::from(key), self::text(text));
    let labels = vec![label("b", "%PROTOCOL%"), label("path", "%REQ(:PATH)%")];
    let want = [
        ProviderKind::ExtAuthz {
            service: service(Some("shop"), "authz.example.com", 8000),
            check: ExtAuthz {
                timeout: Duration::from_millis(250),
                fail_open: true,
                status_on_error: StatusCode::SERVICE_UNAVAILABLE,
                clear_route_cache: true,
                body: Some(CheckedBody {
                    max_bytes: 8192,
                    allow_partial: true,
                    as_bytes: true,
                }),
                over: CheckOver::Http(HttpCheck {
                    path_prefix: Arc::from("/check"),
                    request_headers: patterns(&["cookie", "x-*", "*-id"]),
                    additional_headers: fields(&[("x-mesh", "edge")]),
                    upstream_on_allow: patterns(&["x-ext"]),
                    downstream_on_allow: patterns(&["set-cookie"]),
                    downstream_on_deny: Some(Vec::new()),
                }),
            },
        },
        ProviderKind::FileAccessLog(FileAccessLog {
            path: Arc::from("/var/log/a"),
            layout: layout(LogFormat::Text(text("%REQ(:PATH)%\n")), true),
        }),
        ProviderKind::FileAccessLog(FileAccessLog {
            path: Arc::from("/dev/stdout"),
            layout: layout(LogFormat::Json(labels.clone()), false),
        }),
        ProviderKind::OtelAccessLog(OtelAccessLog {
            service: service(Some("ops"), "otel", 4317),
            log_name: Arc::from("shop"),
            format: LogFormat::Json(labels),
        }),
        ProviderKind::OpenTelemetry(OpenTelemetry {
            service: service(Some("ops"), "otel", 4318),
            http: Some(OtlpHttp {
                path: Arc::from("/v1/traces"),
                timeout: Duration::from_secs(1),
                headers: fields(&[("x-tenant", "shop")]),
            }),
            max_tag_length: 64,
        }),
        ProviderKind::Zipkin(Zipkin {
            service: service(Some("ops"), "zipkin", 9411),
            path: Arc::from("/spans"),
            trace_context: TraceContext::B3AndW3c,
        }),
    ];
    let kinds: Vec<_> = mesh.settings.providers.iter().map(|p| &p.kind).collect();
    assert_eq!(kinds, want.iter().collect::<Vec<_>>());
}
