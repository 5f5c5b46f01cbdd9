//! Telemetry becomes what it means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::mesh;
use crate::model::declaration::{
    Attachment, FileAccessLog, TargetKind, TargetRef, TelemetryDefaults,
};
use crate::model::expression::Expression;
use crate::model::log_format::{Layout, LogFormat, TextFormat};
use crate::model::telemetry::{
    CustomTag, Logging, Metric, Metrics, Override, Sampling, Sections, TagChange, Tracing,
};

const WORKLOAD: &str = "[[workload]]\nname = \"w\"\naddresses = [\"10.1.0.1\"]\n";

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().copied().map(Arc::from).collect()
}

fn expression(text: &str) -> Expression {
    Expression::parse(text).unwrap()
}

#[test]
fn every_field_of_telemetry_is_read() {
    let text = r#"
[mesh]
extension-providers = [
  { name = "otlp", opentelemetry = { service = "ops/otel", port = 4317 } },
  { name = "file", envoy-file-access-log = {} },
]

[[namespace]]
name = "ops"
[[workload]]
name = "otel"
namespace = "ops"
addresses = ["10.9.0.1"]
labels = { app = "otel" }
[[service]]
name = "otel"
namespace = "ops"
selector = { app = "otel" }
ports = [{ port = 4317 }]

[[telemetry]]
name = "t"
namespace = "istio-system"
target-refs = [{ kind = "GatewayClass", name = "istio-waypoint" }]

[[telemetry.tracing]]
match = { mode = "SERVER" }
providers = [{ name = "otlp" }]
random-sampling-percentage = 12.345
disable-span-reporting = true
enable-istio-tags = false
disable-context-propagation = true

[telemetry.tracing.custom-tags]
a = { literal = { value = "x" } }
b = { environment = { name = "REGION", default-value = "eu" } }
c = { header = { name = "X-Tenant" } }
d = { formatter = { value = "%PROTOCOL%" } }

[[telemetry.metrics]]
providers = [{ name = "prometheus" }]
reporting-interval = "5s"

[[telemetry.metrics.overrides]]
match = { metric = "REQUEST_COUNT", mode = "CLIENT_AND_SERVER" }
tag-overrides = { source_app = { operation = "REMOVE" }, host = { value = "request.host" } }

[[telemetry.metrics.overrides]]
match = { custom-metric = "istio_tcp_sent_bytes_total" }
disabled = true

[[telemetry.access-logging]]
providers = [{ name = "file" }, { name = "envoy" }]
filter = { expression = "response.code >= 400" }

[[telemetry.access-logging]]
providers = [{ name = "file" }]
disabled = true
"#;
    let mesh = mesh(&[("a.toml", format!("{text}\n{WORKLOAD}"))]);
    let telemetry = &mesh.telemetry[0];
    let target = TargetRef {
        kind: TargetKind::GatewayClass,
        name: Arc::from("istio-waypoint"),
    };
    assert_eq!(telemetry.attachment, Attachment::Targets(vec![target]));
    let tags = [
        ("a", CustomTag::Literal(Arc::from("x"))),
        (
            "b",
            CustomTag::Environment {
                name: Arc::from("REGION"),
                default: Some(Arc::from("eu")),
            },
        ),
        (
            "c",
            CustomTag::Header {
                name: Arc::from("x-tenant"),
                default: None,
            },
        ),
        (
            "d",
            CustomTag::Formatter(TextFormat::parse("%PROTOCOL%").unwrap()),
        ),
    ];
    let tags = tags.map(|(name, tag)| (Arc::from(name), tag));
    let want = Sections {
        tracing: vec![Tracing {
            providers: names(&["otlp"]),
            sampling: Some(Sampling(1_235)),
            disable_span_reporting: Some(true),
            custom_tags: Some(BTreeMap::from(tags)),
            enable_istio_tags: Some(false),
            disable_context_propagation: Some(true),
        }],
        metrics: vec![Metrics {
            providers: names(&["prometheus"]),
            overrides: vec![
                Override {
                    metric: Some(Metric::RequestCount),
                    disabled: None,
                    tags: BTreeMap::from([
                        (Arc::from("source_app"), TagChange::Remove),
                        (
                            Arc::from("host"),
                            TagChange::Upsert(expression("request.host")),
                        ),
                    ]),
                },
                Override {
                    metric: Some(Metric::TcpSent),
                    disabled: Some(true),
                    tags: BTreeMap::new(),
                },
            ],
            reporting_interval: Some(Duration::from_secs(5)),
        }],
        logging: vec![
            Logging {
                providers: names(&["file", "envoy"]),
                disabled: false,
                filter: Some(expression("response.code >= 400")),
            },
            Logging {
                providers: names(&["file"]),
                disabled: true,
                filter: None,
            },
        ],
    };
    assert_eq!(telemetry.says, want);
}

#[test]
fn the_mesh_says_what_holds_before_any_telemetry() {
    let json = |key: &str, text: &str| {
        LogFormat::Json(vec![(Arc::from(key), TextFormat::parse(text).unwrap())])
    };
    let file = |format| TelemetryDefaults {
        access_log: Some(FileAccessLog {
            path: Arc::from("/a"),
            layout: Layout {
                format,
                omit_empty: false,
            },
        }),
        ..TelemetryDefaults::default()
    };
    let text = LogFormat::Text(TextFormat::parse("%PROTOCOL%\n").unwrap());
    for (name, says, want) in [
        ("nothing", "", TelemetryDefaults::default()),
        (
            "a file",
            "access-log-file = \"/a\"",
            file(LogFormat::text()),
        ),
        (
            "a file of JSON",
            "access-log-file = \"/a\"\naccess-log-encoding = \"JSON\"",
            file(LogFormat::json()),
        ),
        (
            "a text",
            "access-log-file = \"/a\"\naccess-log-format = \"%PROTOCOL%\\n\"",
            file(text),
        ),
        (
            "an object",
            "access-log-file = \"/a\"\naccess-log-encoding = \"JSON\"\naccess-log-format = '{\"p\": \"%PROTOCOL%\"}'",
            file(json("p", "%PROTOCOL%")),
        ),
        (
            "providers",
            "default-providers = { metrics = [\"prometheus\"], access-logging = [\"envoy\"] }",
            TelemetryDefaults {
                metrics: names(&["prometheus"]),
                access_logging: names(&["envoy"]),
                ..TelemetryDefaults::default()
            },
        ),
    ] {
        let mesh = mesh(&[("a.toml", format!("[mesh]\n{says}\n{WORKLOAD}"))]);
        assert_eq!(mesh.settings.telemetry, want, "{name}");
    }
}
