//! What collectors are told.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ::http::Response;
use prost::Message as _;

use super::http::text;
use super::program::{Plan, Shop};
use crate::hbone::testing::eventually;
use crate::model::declaration::{OtlpHttp, TraceContext};
use crate::model::log_format::LogFormat;
use crate::model::telemetry::Exporter;
use crate::telemetry::batch::Sink;
use crate::telemetry::record::Record;
use crate::telemetry::trace::{Decision, Kind, Span, SpanContext, SpanId, TraceId};
use crate::waypoint::export::Collector;
use crate::waypoint::testing::told::{target, told};
use crate::wire::proto::otlp::collector::{ExportTracePartialSuccess, ExportTraceServiceResponse};

fn otlp() -> Exporter {
    Exporter::OpenTelemetry {
        to: target("v1"),
        http: None,
        max_tag_length: 256,
    }
}

fn otlp_http() -> Exporter {
    Exporter::OpenTelemetry {
        to: target("v1"),
        http: Some(OtlpHttp {
            path: Arc::from("/v1/traces"),
            timeout: Duration::from_secs(3),
            headers: vec![("x-api-key".parse().unwrap(), "secret".parse().unwrap())],
        }),
        max_tag_length: 256,
    }
}

fn span() -> Span {
    Span {
        context: SpanContext {
            trace: TraceId::random(),
            span: SpanId::random(),
            parent: None,
            decision: Decision::Keep,
        },
        kind: Kind::Server,
        name: Arc::from("cart"),
        start: SystemTime::now(),
        end: SystemTime::now(),
        tags: Vec::new(),
        error: None,
    }
}

fn begin(shop: &Shop, to: Exporter) -> Arc<Sink<Span>> {
    let caller = &shop.rig.caller;
    caller.shared.exports.spans(
        caller,
        &Collector {
            name: Arc::from("spans"),
            is: to,
        },
    )
}

/// Tells so many spans, and has them sent at once.
async fn tell(shop: &Shop, to: Exporter, spans: usize) {
    let sink = begin(shop, to);
    (0..spans).for_each(|_| sink.tell(span()));
    let flushed = Instant::now();
    let exports = &shop.rig.caller.shared.exports;
    exports.flush(Duration::from_secs(4)).await;
    assert!(
        flushed.elapsed() < Duration::from_secs(4),
        "nothing was waited for"
    );
}

/// How many were taken, and how many not.
fn counted(shop: &Shop) -> (u64, u64) {
    let label = "signal=\"spans\",provider=\"spans\"";
    let metric = |name| shop.rig.metric(name, label);
    (
        metric("lateen_telemetry_exported_total"),
        metric("lateen_telemetry_dropped_total"),
    )
}

#[tokio::test]
async fn each_kind_of_collector_is_told_in_its_own_words() {
    let zipkin = Exporter::Zipkin {
        to: target("v1"),
        path: Arc::from("/api/v2/spans"),
        trace_context: TraceContext::B3,
    };
    let grpc = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    for (name, to, path, kind) in [
        ("OTLP, gRPC", otlp(), grpc, "application/grpc"),
        (
            "OTLP, HTTP",
            otlp_http(),
            "/v1/traces",
            "application/x-protobuf",
        ),
        ("Zipkin", zipkin, "/api/v2/spans", "application/json"),
    ] {
        let shop = Shop::new(told()).await;
        if to == otlp() {
            let answer = Response::builder().header("grpc-status", "0");
            shop.v1
                .plan(Plan::Answer(answer.body(text(&[0; 5][..])).unwrap()));
        }
        let keyed = to == otlp_http();
        tell(&shop, to, 2).await;
        let asked = shop.v1.last();
        assert_eq!(asked.target, path, "{name}");
        assert_eq!(
            asked.header("content-type").as_deref(),
            Some(kind),
            "{name}"
        );
        assert_eq!(asked.header("x-api-key").is_some(), keyed, "{name}");
        assert_eq!(counted(&shop), (2, 0), "{name}");
    }
}

#[tokio::test]
async fn what_a_collector_refuses_is_counted() {
    let partly = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 2,
            error_message: "too many tags".to_owned(),
        }),
    };
    let answer = |status: u16, body: Vec<u8>| {
        Plan::Answer(Response::builder().status(status).body(text(body)).unwrap())
    };
    for (name, plans, asked, want) in [
        ("taken", vec![], 1, (3, 0)),
        (
            "taken in part",
            vec![answer(200, partly.encode_to_vec())],
            1,
            (1, 2),
        ),
        ("refused for good", vec![answer(400, Vec::new())], 1, (0, 3)),
    ] {
        let shop = Shop::new(told()).await;
        plans.into_iter().for_each(|plan| shop.v1.plan(plan));
        tell(&shop, otlp_http(), 3).await;
        assert_eq!(
            (shop.v1.asked().len(), counted(&shop)),
            (asked, want),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_batch_is_tried_again_and_not_for_ever() {
    for (name, failures, asked, want) in
        [("it passes", 2, 3, (512, 0)), ("it stays", 3, 3, (0, 512))]
    {
        let shop = Shop::new(told()).await;
        (0..failures).for_each(|_| shop.v1.answers(503));
        let sink = begin(&shop, otlp_http());
        // As many as are sent at once.
        (0..512).for_each(|_| sink.tell(span()));
        let all = || {
            let (taken, dropped) = counted(&shop);
            taken + dropped == 512
        };
        eventually("the batch is told or given up", all).await;
        assert_eq!(
            (shop.v1.asked().len(), counted(&shop)),
            (asked, want),
            "{name}"
        );
    }
}

#[tokio::test]
async fn who_tells_the_same_collector_shares_its_queue() {
    let shop = Shop::new(told()).await;
    let first = begin(&shop, otlp_http());
    assert!(Arc::ptr_eq(&first, &begin(&shop, otlp_http())));
    assert!(!Arc::ptr_eq(&first, &begin(&shop, otlp())));
    first.tell(span());
    // The last who tells has gone: what is there is told at once.
    drop(first);
    eventually("it is told", || counted(&shop) == (1, 0)).await;
}

#[tokio::test]
async fn lines_of_an_access_log_are_told_over_grpc() {
    let shop = Shop::new(told()).await;
    let answer = Response::builder().header("grpc-status", "0");
    shop.v1
        .plan(Plan::Answer(answer.body(text(&[0; 5][..])).unwrap()));
    let caller = &shop.rig.caller;
    let log = Collector {
        name: Arc::from("logs"),
        is: Exporter::OtelLog {
            to: target("v1"),
            log_name: Arc::from("access"),
            format: LogFormat::text(),
        },
    };
    let sink = caller.shared.exports.records(caller, &log);
    sink.tell(Record {
        time: SystemTime::now(),
        text: Some("GET /what".to_owned()),
        members: Vec::new(),
        span: None,
    });
    caller.shared.exports.flush(Duration::from_secs(4)).await;
    let asked = shop.v1.last();
    let method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    assert_eq!(asked.target, method);
    assert!(asked.body.contains("GET /what") && asked.body.contains("access"));
    let label = "signal=\"logs\",provider=\"logs\"";
    assert_eq!(shop.rig.metric("lateen_telemetry_exported_total", label), 1);
}
