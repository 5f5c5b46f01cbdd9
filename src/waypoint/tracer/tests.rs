use std::collections::BTreeMap;

use prometheus_client::metrics::counter::Counter;

use super::*;
use crate::model::declaration::{OtlpHttp, TraceContext};
use crate::model::telemetry::Sampling;
use crate::model::testing::{service, workload};
use crate::telemetry::batch;
use crate::waypoint::testing::told::target;

fn traces() -> Traces {
    Traces {
        provider: Arc::from("spans"),
        sampling: Sampling::USUAL,
        reports: true,
        custom_tags: BTreeMap::new(),
        istio_tags: true,
        propagates: true,
    }
}

fn otlp(http: Option<OtlpHttp>) -> Exporter {
    Exporter::OpenTelemetry {
        to: target("v1"),
        http,
        max_tag_length: 64,
    }
}

fn zipkin(trace_context: TraceContext) -> Exporter {
    Exporter::Zipkin {
        to: target("v1"),
        path: Arc::from("/api/v2/spans"),
        trace_context,
    }
}

fn cart() -> Bound {
    let service = Arc::new(service("cart", &["10.96.0.10"]));
    Bound::Service {
        port: service.ports[0],
        asked: "10.96.0.10:80".parse().unwrap(),
        service,
    }
}

fn made(traces: &Traces, exporter: &Exporter) -> Option<Tracer> {
    let instance = workload("wp-1", &["10.1.0.2"]);
    let sink = || Arc::new(batch::queue(Counter::default()).0);
    Tracer::new(traces, exporter, &instance, sink)
}

#[test]
fn headers_are_those_of_whom_spans_are_told() {
    for (name, exporter, want) in [
        ("OTLP", otlp(None), Some((Propagation::W3c, 64))),
        (
            "Zipkin",
            zipkin(TraceContext::B3),
            Some((Propagation::B3, 256)),
        ),
        (
            "Zipkin and W3C",
            zipkin(TraceContext::B3AndW3c),
            Some((Propagation::B3AndW3c, 256)),
        ),
        ("who takes no spans", Exporter::Prometheus, None),
    ] {
        let made = made(&traces(), &exporter);
        let told = made.as_ref().map(|made| (made.propagation, made.longest));
        assert_eq!(told, want, "{name}");
    }
}

#[test]
fn nobody_is_told_where_nothing_is_reported() {
    let quiet = Traces {
        reports: false,
        ..traces()
    };
    assert!(made(&quiet, &otlp(None)).unwrap().sink.is_none());
    assert!(made(&traces(), &otlp(None)).unwrap().sink.is_some());
}

#[test]
fn a_span_is_called_after_what_was_asked_for() {
    let workload = Bound::Workload {
        workload: Arc::new(workload("cart-1", &["10.1.0.11"])),
        asked: "10.1.0.11:8080".parse().unwrap(),
    };
    for (bound, want) in [
        (cart(), "cart.shop.mesh.internal:80/*"),
        (workload, "10.1.0.11:8080/*"),
    ] {
        assert_eq!(operation(&bound), want);
    }
}

#[test]
fn tags_are_made_of_what_they_say() {
    let named = |name: &str| Arc::<str>::from(name);
    let header = |name, default: Option<&str>| CustomTag::Header {
        name: named(name),
        default: default.map(Arc::from),
    };
    let environment = |name, default: Option<&str>| CustomTag::Environment {
        name: named(name),
        default: default.map(Arc::from),
    };
    // What cargo has every test run with.
    let package = "CARGO_PKG_NAME";
    for (name, tag, want) in [
        ("literal", CustomTag::Literal(named("north")), Some("north")),
        ("header", header("x-tenant", Some("none")), Some("acme")),
        ("no header", header("x-plan", Some("free")), Some("free")),
        ("nothing", header("x-plan", None), None),
        ("environment", environment(package, None), Some("lateen")),
        (
            "no such variable",
            environment("LATEEN_NO_SUCH", Some("x")),
            Some("x"),
        ),
        (
            "no such variable, nothing",
            environment("LATEEN_NO_SUCH", None),
            None,
        ),
        ("no header's name", header("x tenant", Some("none")), None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", "acme".parse().unwrap());
        let told = Custom::new(&tag).and_then(|made_of| made_of.of(&headers));
        assert_eq!(told.as_deref(), want, "{name}");
    }
}
