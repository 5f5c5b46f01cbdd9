//! Access logs of what passes and of what does not.

use std::sync::Arc;
use std::time::Duration;

use ::http::{Response, StatusCode};
use prost::Message as _;
use tokio::io::AsyncReadExt as _;

use super::http::{Http1, text};
use super::program::{Plan, Shop};
use crate::hbone::TunnelIo;
use crate::hbone::testing::{eventually, soon};
use crate::model::attached::PolicyKey;
use crate::model::authorization::Authorization;
use crate::model::declaration::{Action, FileAccessLog, Origin, Rule};
use crate::model::log_format::{Layout, LogFormat, TextFormat};
use crate::model::telemetry::{Exporter, Sampling, Tracing};
use crate::waypoint::testing::Rig;
use crate::waypoint::testing::told::{rule, target, told};
use crate::wire::proto::otlp::common::{AnyValue, any_value};
use crate::wire::proto::otlp::logs_collector::ExportLogsServiceRequest;

/// A log of these lines, in a file that is its own.
struct Lines {
    dir: tempfile::TempDir,
}

impl Lines {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn of(&self, format: &str) -> Exporter {
        let path = self.dir.path().join("log");
        Exporter::File(FileAccessLog {
            path: Arc::from(path.to_str().unwrap()),
            layout: Layout {
                format: LogFormat::Text(TextFormat::parse(format).unwrap()),
                omit_empty: false,
            },
        })
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn say(&self, what: &str, want: &str) {
        let want = format!("{want}\n");
        eventually(what, || self.read().len() >= want.len()).await;
        assert_eq!(self.read(), want, "{what}");
    }
}

fn string(text: &str) -> AnyValue {
    AnyValue {
        value: Some(any_value::Value::StringValue(text.to_owned())),
    }
}

fn denying() -> Authorization {
    Authorization {
        key: PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from("nobody"),
        },
        origin: Origin {
            file: Arc::from("policy.toml"),
            line: 1,
        },
        action: Action::Deny,
        dry_run: false,
        rules: vec![Rule::default()],
    }
}

#[tokio::test]
async fn a_refused_tunnel_has_a_line() {
    let format = "%REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% \
                  %RESPONSE_FLAGS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_PEER_URI_SAN%";
    for (name, authority, address) in [
        ("an undeclared port", "10.96.0.10:8080", "10.96.0.10:8080"),
        ("a name", "other.shop:80", "127.0.0.1:80"),
    ] {
        let lines = Lines::new();
        let mut rig = Rig::new().await;
        rig.resources = Some(told().logged(lines.of(format)));
        rig.publish().await;
        rig.connect(authority).await.unwrap_err();
        let web = "spiffe://cluster.local/ns/shop/sa/web";
        let want = format!("CONNECT {authority} - HTTP/2 404 NR {address} {web}");
        lines.say(name, &want).await;
    }
}

#[tokio::test]
async fn a_connection_that_goes_nowhere_has_a_line() {
    let format = "%RESPONSE_FLAGS% %BYTES_SENT% %DOWNSTREAM_LOCAL_ADDRESS% %UPSTREAM_HOST%";
    for (name, resources, reached, want) in [
        ("no endpoint", told(), false, "UH 0 10.96.0.10:90 -"),
        (
            "denied",
            told().authorized(vec![denying()]),
            true,
            "- 0 10.96.0.10:90 -",
        ),
        (
            "an endpoint that nobody reaches",
            told(),
            true,
            "UF 0 10.96.0.10:90 10.1.0.11:8080",
        ),
    ] {
        let lines = Lines::new();
        let mut rig = Rig::new().await;
        if reached {
            rig.dead_endpoint("cart-1", "10.1.0.11");
        }
        rig.resources = Some(resources.logged(lines.of(format)));
        rig.publish().await;
        let mut io = TunnelIo::new(rig.cart(90).await);
        let mut heard = Vec::new();
        let read = soon(name, io.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(read, 0, "{name}");
        lines.say(name, want).await;
    }
}

#[tokio::test]
async fn a_denial_names_its_policy() {
    let lines = Lines::new();
    let mut rig = Rig::new().await;
    let resources = told().authorized(vec![denying()]);
    rig.resources = Some(resources.logged(lines.of("%CONNECTION_TERMINATION_DETAILS%")));
    rig.publish().await;
    let _tunnel = rig.cart(90).await;
    eventually("it has a line", || lines.read().ends_with('\n')).await;
    let policy = "rbac_access_denied_matched_policy[ns[shop]-policy[nobody]-rule[0]]";
    assert!(lines.read().starts_with(policy), "{}", lines.read());
}

#[tokio::test]
async fn a_collector_is_told_of_requests_with_their_spans() {
    let log = Exporter::OtelLog {
        to: target("v2"),
        log_name: Arc::from("shop"),
        format: LogFormat::Text(TextFormat::parse("%REQ(:PATH)% %RESPONSE_CODE%").unwrap()),
    };
    let spans = Exporter::OpenTelemetry {
        to: target("v3"),
        http: None,
        max_tag_length: 256,
    };
    let all = Tracing {
        sampling: Some(Sampling(10_000)),
        disable_span_reporting: Some(true),
        ..Tracing::default()
    };
    let resources = told().ruled(vec![rule().to("v1", 1)]);
    let shop = Shop::new(resources.logged(log).traced(all, spans)).await;
    let answer = Response::builder().header("grpc-status", "0");
    let taken = answer.body(text(&[0; 5][..])).unwrap();
    shop.v2.plan(Plan::Answer(taken));
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(client.get("/tea").await.0, StatusCode::OK);
    let ended = || shop.rig.metric("istio_requests_total", "") > 0;
    eventually("the request has ended", ended).await;
    let exports = &shop.rig.caller.shared.exports;
    exports.flush(Duration::from_secs(5)).await;
    let asked = shop.v2.last();
    let method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    assert_eq!(asked.target, method);
    // A gRPC message has its length before it.
    let told = ExportLogsServiceRequest::decode(&asked.octets[5..]).unwrap();
    let record = &told.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!(record.body, Some(string("/tea 200")));
    let trace: String = record.trace_id.iter().map(|b| format!("{b:02x}")).collect();
    let passed_on = shop.v1.last().header("traceparent").unwrap();
    assert!(passed_on.contains(&trace) && trace.len() == 32, "{trace}");
    let label = "signal=\"logs\",provider=\"log\"";
    let told = shop.rig.metric("lateen_telemetry_exported_total", label);
    assert_eq!(told, 1);
}
