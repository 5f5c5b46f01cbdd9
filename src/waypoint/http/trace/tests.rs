use std::collections::BTreeMap;

use http::HeaderName;
use prometheus_client::metrics::counter::Counter;

use super::*;
use crate::model::log_format::TextFormat;
use crate::model::telemetry::{Request, Response};
use crate::model::testing::{service, workload};
use crate::telemetry::Carrier;
use crate::telemetry::batch::{self, Batches};
use crate::telemetry::trace::{Propagation, Share};
use crate::waypoint::tracer::{Custom, own};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn tracer(share: u16) -> (Tracer, Batches<Span>) {
    let (sink, batches) = batch::queue(Counter::default());
    let instance = workload("wp-1", &["10.1.0.2"]);
    let tracer = Tracer {
        propagation: Propagation::W3c,
        propagates: true,
        share: Share::hundredths(share),
        sink: Some(Arc::new(sink)),
        own: own(&instance, true),
        istio_tags: true,
        custom: Vec::new(),
        longest: 256,
    };
    (tracer, batches)
}

fn request(parent: Option<&str>) -> Parts {
    let mut request = http::Request::get("/a/path?b=c")
        .header("user-agent", "curl/8")
        .header("x-tenant", "acme");
    if let Some(flags) = parent {
        request = request.header("traceparent", format!("00-{TRACE}-{SPAN}-{flags}"));
    }
    request.body(()).unwrap().into_parts().0
}

fn cart() -> Bound {
    let service = Arc::new(service("cart", &["10.96.0.10"]));
    Bound::Service {
        port: service.ports[0],
        asked: "10.96.0.10:80".parse().unwrap(),
        service,
    }
}

fn entry() -> Entry {
    Entry {
        direction: "waypoint",
        source: "10.1.0.1:4000".parse().unwrap(),
        source_workload: Some(Arc::new(workload("web-1", &["10.1.0.1"]))),
        source_identity: None,
        destination: "10.96.0.10:80".parse().unwrap(),
        tunnelled: None,
        carrier: Carrier::none,
        service: None,
        destination_workload: None,
        destination_identity: None,
    }
}

fn about(entry: &Entry) -> About<'_> {
    About {
        entry,
        method: "GET",
        protocol: "HTTP/1.1",
        request_id: "id-1",
        cluster: Some("outbound|80||cart.shop.mesh.internal".to_owned()),
        received: 3,
        sent: 5,
        marks: &[],
    }
}

fn ending(code: u16, flags: &str) -> Ending<'_> {
    Ending {
        code,
        grpc: None,
        flags,
    }
}

fn facts<'a>(
    entry: &Entry,
    headers: &'a HeaderMap,
    (authority, answer): (&'a str, &'a HeaderMap),
    code: u16,
) -> Facts<'a> {
    Facts {
        request: Some(Request {
            method: "GET",
            target: "/a/path?b=c",
            authority,
            scheme: "http",
            protocol: "HTTP/1.1",
            headers,
            head: 0,
        }),
        response: Some(Response {
            code,
            grpc_status: None,
            headers: answer,
            trailers: None,
            head: 0,
        }),
        ..Facts::of_connection(entry.source, entry.destination)
    }
}

/// A request that is asked of endpoints, which answer so; the headers that each was told by, and the spans.
async fn traced(
    tracer: Tracer,
    mut batches: Batches<Span>,
    parts: &mut Parts,
    answers: &[u16],
) -> (Vec<HeaderMap>, Vec<Span>) {
    let tracer = Arc::new(tracer);
    let authority = Authority::from_static("cart");
    let mut trace = Trace::begin(&tracer, &cart(), (parts, &authority), Instant::now());
    let (entry, mut told) = (entry(), Vec::new());
    trace.tell(&mut parts.headers);
    let (last, before) = answers.split_last().unwrap();
    for answer in answers {
        trace.asks(&mut parts.headers, "10.1.0.11:8080".parse().unwrap());
        told.push(parts.headers.clone());
        if told.len() <= before.len() {
            trace.asked(ending(*answer, "-"), &about(&entry));
        }
    }
    let (authority, answer) = (authority.as_str(), HeaderMap::new());
    let facts = facts(&entry, &parts.headers, (authority, &answer), *last);
    trace.end(ending(*last, "-"), &about(&entry), Some(&facts));
    batches.close();
    (told, batches.next().await.unwrap_or_default())
}

fn tags(span: &Span) -> BTreeMap<&str, &str> {
    let tags = span.tags.iter();
    let told: BTreeMap<_, _> = tags.map(|(key, value)| (&**key, value.as_str())).collect();
    assert_eq!(told.len(), span.tags.len(), "each key once");
    told
}

#[tokio::test]
async fn each_time_an_endpoint_is_asked_is_a_span_within_the_requests() {
    let (tracer, batches) = tracer(0);
    let mut parts = request(Some("01"));
    let (told, spans) = traced(tracer, batches, &mut parts, &[503, 200]).await;
    let [first, second, server] = &*spans else {
        panic!("{spans:?}");
    };
    assert_eq!(server.context.trace.to_string(), TRACE);
    assert_eq!(server.context.parent.unwrap().to_string(), SPAN);
    assert_eq!(
        (server.kind, &*server.name),
        (Kind::Server, "cart.shop.mesh.internal:80/*")
    );
    for (span, told) in [first, second].into_iter().zip(&told) {
        assert_eq!(span.kind, Kind::Client);
        assert_eq!(
            &*span.name,
            "router outbound|80||cart.shop.mesh.internal egress"
        );
        assert_eq!(span.context.parent, Some(server.context.span));
        let told = told["traceparent"].to_str().unwrap();
        assert_eq!(told, format!("00-{TRACE}-{}-01", span.context.span));
        assert!(span.start >= server.start && span.end <= server.end);
    }
    assert_ne!(first.context.span, second.context.span);
    assert_eq!(first.error.as_deref(), Some("HTTP status 503"));
    assert_eq!((&second.error, &server.error), (&None, &None));
    let (first, second) = (tags(first), tags(second));
    assert_eq!((first["http.status_code"], first["error"]), ("503", "true"));
    assert_eq!(
        (second["http.status_code"], second["retry.count"]),
        ("200", "1")
    );
    assert_eq!(second["upstream_address"], "10.1.0.11:8080");
    assert!(!first.contains_key("retry.count") && !second.contains_key("error"));
}

#[tokio::test]
async fn a_span_bears_the_usual_tags() {
    let (tracer, batches) = tracer(10_000);
    let (_told, spans) = traced(tracer, batches, &mut request(None), &[503]).await;
    let tags = tags(&spans[1]);
    for (key, want) in [
        ("component", "proxy"),
        ("node_id", "waypoint~10.1.0.2~wp-1.shop~shop"),
        ("http.method", "GET"),
        ("http.url", "http://cart/a/path?b=c"),
        ("http.status_code", "503"),
        ("http.protocol", "HTTP/1.1"),
        ("response_flags", "-"),
        ("request_size", "3"),
        ("response_size", "5"),
        ("user_agent", "curl/8"),
        ("guid:x-request-id", "id-1"),
        ("peer.address", "10.1.0.1"),
        ("upstream_cluster", "outbound|80||cart.shop.mesh.internal"),
        ("error", "true"),
        ("istio.mesh_id", "cluster.local"),
        ("istio.namespace", "shop"),
        ("istio.source_namespace", "shop"),
        ("istio.source_instance_name", "web-1"),
        ("istio.source_workload_type", "deployment"),
        ("istio.destination_workload", "unknown"),
        ("istio.destination_app_version", "unknown"),
    ] {
        assert_eq!(tags.get(key), Some(&want), "{key}");
    }
    assert_eq!(spans[1].context.parent, None, "a trace of its own");
}

#[tokio::test]
async fn tags_are_as_operators_want_them() {
    let (plain, batches) = tracer(10_000);
    let header = |name: &'static str, default: Option<&str>| Custom::Header {
        name: HeaderName::from_static(name),
        default: default.map(Arc::from),
    };
    let format = |text| Custom::Format(TextFormat::parse(text).unwrap());
    let custom = [
        ("site", Custom::Text(Arc::from("north"))),
        ("tenant", header("x-tenant", None)),
        ("plan", header("x-plan", Some("free"))),
        ("nothing", header("x-plan", None)),
        ("component", Custom::Text(Arc::from("mine"))),
        (
            "line",
            format("%REQ(:METHOD)% %RESPONSE_CODE% %REQ(X-TENANT)%"),
        ),
        ("no line", format("%REQ(X-PLAN)%")),
    ];
    let tracer = Tracer {
        custom: custom
            .map(|(key, made_of)| (Arc::from(key), made_of))
            .into(),
        own: own(&workload("wp-1", &["10.1.0.2"]), false),
        istio_tags: false,
        longest: 10,
        ..plain
    };
    let (_told, spans) = traced(tracer, batches, &mut request(None), &[200]).await;
    let tags = tags(&spans[1]);
    for (key, want) in [
        ("site", Some("north")),
        ("tenant", Some("acme")),
        ("plan", Some("free")),
        ("nothing", None),
        ("component", Some("mine")),
        ("line", Some("GET 200 ac")),
        ("no line", None),
        ("http.url", Some("http://cart/a/path?b=")),
        ("user_agent", Some("curl/8")),
        ("error", None),
    ] {
        assert_eq!(tags.get(key).copied(), want, "{key}");
    }
    assert!(
        tags.keys().all(|key| !key.starts_with("istio.")),
        "{tags:?}"
    );
}

#[tokio::test]
async fn what_is_decided_is_obeyed_and_passed_on() {
    for (name, parent, share, reports, flags, spans) in [
        ("dropped, at 100 %", Some("00"), 10_000, true, "00", 0),
        ("nothing said, at 100 %", None, 10_000, true, "01", 2),
        ("nothing said, at 0 %", None, 0, true, "00", 0),
        ("kept, at 0 %", Some("01"), 0, true, "01", 2),
        ("kept, and not reported", Some("01"), 0, false, "01", 0),
    ] {
        let (mut tracer, batches) = tracer(share);
        if !reports {
            tracer.sink = None;
        }
        let mut parts = request(parent);
        let (told, got) = traced(tracer, batches, &mut parts, &[200]).await;
        assert_eq!(got.len(), spans, "{name}");
        let told = told[0]["traceparent"].to_str().unwrap();
        assert!(told.ends_with(&format!("-{flags}")), "{name}: {told}");
        assert_eq!(told.contains(TRACE), parent.is_some(), "{name}");
        assert!(!told.contains(SPAN), "{name}");
    }
}

#[tokio::test]
async fn headers_are_left_alone_where_that_is_wanted() {
    let (mut tracer, batches) = tracer(10_000);
    tracer.propagates = false;
    let mut parts = request(Some("01"));
    let before = parts.headers.clone();
    let (told, spans) = traced(tracer, batches, &mut parts, &[200]).await;
    assert_eq!((&told[0], spans.len()), (&before, 2));
    assert_eq!(
        spans[1].context.trace.to_string(),
        TRACE,
        "reported all the same"
    );
}

#[test]
fn errors_are_told_as_such() {
    for (name, code, grpc, want) in [
        ("an answer", 200, None, None),
        ("the client's fault", 404, None, None),
        ("the server's", 500, None, Some("HTTP status 500")),
        ("no answer", 0, None, Some("no answer")),
        ("gRPC", 200, Some("0"), None),
        ("gRPC, the client's fault", 200, Some("5"), None),
        (
            "gRPC, the server's",
            200,
            Some("14"),
            Some("gRPC status 14"),
        ),
    ] {
        let ending = Ending {
            code,
            grpc,
            flags: "-",
        };
        assert_eq!(ending.error().as_deref(), want, "{name}");
    }
}
