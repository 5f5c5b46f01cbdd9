//! Traces of what passes.

use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, StatusCode};
use serde_json::Value;

use super::http::{Http1, read, text};
use super::program::{Plan, Shop};
use crate::hbone::testing::eventually;
use crate::model::declaration::TraceContext;
use crate::model::log_format::TextFormat;
use crate::model::route::{Filter, Fraction, Mirror, Retry, Timeouts};
use crate::model::telemetry::{CustomTag, Exporter, Sampling, Tracing};
use crate::model::waypoint::Resources;
use crate::waypoint::testing::told::{rule, target, told};

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
const SPAN: &str = "e457b5a2e4d86bd1";

fn zipkin() -> Exporter {
    Exporter::Zipkin {
        to: target("v3"),
        path: "/api/v2/spans".into(),
        trace_context: TraceContext::B3AndW3c,
    }
}

/// All is traced, and `v3` is told.
fn traced(resources: Resources) -> Resources {
    let all = Tracing {
        sampling: Some(Sampling(10_000)),
        ..Tracing::default()
    };
    resources.traced(all, zipkin())
}

/// The spans that `v3` has been told once it is flushed, the first to begin first.
async fn spans(shop: &Shop) -> Vec<Value> {
    // A client may have all of its answer before the waypoint is done with it.
    let ended = || shop.rig.metric("istio_requests_total", "") > 0;
    eventually("the request has ended", ended).await;
    let exports = &shop.rig.caller.shared.exports;
    exports.flush(Duration::from_secs(5)).await;
    let batches = shop.v3.asked().into_iter();
    let batches = batches.map(|asked| serde_json::from_str::<Vec<Value>>(&asked.body).unwrap());
    let mut spans: Vec<Value> = batches.flatten().collect();
    spans.sort_by_key(|span| (span["timestamp"].as_u64(), span["kind"] == "CLIENT"));
    spans
}

async fn get(client: &mut Http1, path: &str, fields: &[(&str, &str)]) -> StatusCode {
    let request = fields.iter().fold(
        Request::get(path).header("host", "cart"),
        |request, (name, value)| request.header(*name, *value),
    );
    let response = client.send(request.body(text("")).unwrap()).await;
    let status = response.status();
    read(response.into_body()).await;
    status
}

fn kinds(spans: &[Value]) -> Vec<(&str, &str)> {
    spans
        .iter()
        .map(|span| {
            let code = &span["tags"]["http.status_code"];
            (span["kind"].as_str().unwrap(), code.as_str().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_tag_may_say_what_an_access_log_would() {
    let line = "%REQ(:PATH)% %RESPONSE_CODE% %RESP(X-KIND)% %ROUTE_NAME% %DOWNSTREAM_PEER_URI_SAN%";
    let line = CustomTag::Formatter(TextFormat::parse(line).unwrap());
    let says = Tracing {
        sampling: Some(Sampling(10_000)),
        custom_tags: Some([(Arc::from("line"), line)].into()),
        ..Tracing::default()
    };
    let resources = told().ruled(vec![rule().to("v1", 1)]);
    let shop = Shop::new(resources.traced(says, zipkin())).await;
    let answer = ::http::Response::builder().header("x-kind", "tea");
    let plan = Plan::Answer(answer.body(text("")).unwrap());
    shop.v1.plan(plan);
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(get(&mut client, "/x?y", &[]).await, StatusCode::OK);
    let spans = spans(&shop).await;
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    let want = format!("/x?y 200 tea shop.cart.0 {web}");
    assert_eq!(spans[0]["tags"]["line"], want, "{spans:#?}");
    assert!(spans[1]["tags"]["line"].is_null(), "the request's alone");
}

#[tokio::test]
async fn a_request_is_a_span_and_so_is_each_attempt() {
    let retry = Retry {
        codes: [503].into(),
        ..Retry::usual()
    };
    let mut again = rule().to("v1", 1);
    again.retry = Some(retry);
    let shop = Shop::new(traced(told().ruled(vec![again]))).await;
    shop.v1.answers(503);
    let mut client = Http1::to(&shop.rig).await;
    let parent = format!("{TRACE}-{SPAN}-1");
    let status = get(&mut client, "/x", &[("b3", &parent)]).await;
    assert_eq!(status, StatusCode::OK);
    let spans = spans(&shop).await;
    let want = [("SERVER", "200"), ("CLIENT", "503"), ("CLIENT", "200")];
    assert_eq!(kinds(&spans), want, "{spans:#?}");
    assert_eq!(
        (&spans[0]["traceId"], &spans[0]["parentId"]),
        (&TRACE.into(), &SPAN.into())
    );
    for (span, asked) in spans[1..].iter().zip(shop.v1.asked()) {
        assert_eq!(span["parentId"], spans[0]["id"]);
        assert_eq!(asked.header("x-b3-spanid").as_deref(), span["id"].as_str());
        let id = span["id"].as_str().unwrap();
        let told = format!("00-{TRACE}-{id}-01");
        assert_eq!(asked.header("traceparent"), Some(told));
    }
}

#[tokio::test]
async fn a_request_that_nobody_is_asked_is_a_span_alone() {
    let rules = vec![rule().at("/v1").to("v1", 1)];
    let shop = Shop::new(traced(told().ruled(rules))).await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(
        get(&mut client, "/nobody", &[]).await,
        StatusCode::NOT_FOUND
    );
    let spans = spans(&shop).await;
    assert_eq!(kinds(&spans), [("SERVER", "404")]);
    assert_eq!(spans[0]["tags"]["response_flags"], "NR");
    assert_eq!(spans[0]["name"], "cart.shop.mesh.internal:80/*");
}

#[tokio::test]
async fn an_endpoint_that_is_given_up_is_told_of_as_such() {
    let mut late = rule().to("v1", 1);
    late.timeouts = Timeouts {
        request: Some(Duration::from_millis(50)),
        ..Timeouts::default()
    };
    let shop = Shop::new(traced(told().ruled(vec![late]))).await;
    shop.v1.plan(Plan::Never);
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(
        get(&mut client, "/", &[]).await,
        StatusCode::GATEWAY_TIMEOUT
    );
    let spans = spans(&shop).await;
    assert_eq!(kinds(&spans), [("SERVER", "504"), ("CLIENT", "504")]);
    for span in &spans {
        assert_eq!(span["tags"]["response_flags"], "UT");
    }
}

#[tokio::test]
async fn a_mirror_is_no_span_and_knows_the_requests() {
    let mirror = Filter::Mirror(Mirror {
        to: target("v2"),
        share: Fraction::ALL,
    });
    let rules = vec![rule().to("v1", 1).with(mirror)];
    let shop = Shop::new(traced(told().ruled(rules))).await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(get(&mut client, "/", &[]).await, StatusCode::OK);
    eventually("there is a copy", || shop.v2.asked().len() == 1).await;
    let spans = spans(&shop).await;
    assert_eq!(kinds(&spans), [("SERVER", "200"), ("CLIENT", "200")]);
    let told = shop.v2.last().header("x-b3-spanid");
    assert_eq!(told.as_deref(), spans[0]["id"].as_str());
}

#[tokio::test]
async fn nothing_is_touched_where_nothing_is_traced() {
    let shop = Shop::new(told().ruled(vec![rule().to("v1", 1)])).await;
    let mut client = Http1::to(&shop.rig).await;
    let fields = [
        ("b3", "0"),
        ("x-b3-traceid", TRACE),
        ("traceparent", "00-what"),
        ("tracestate", "a=1"),
    ];
    assert_eq!(get(&mut client, "/", &fields).await, StatusCode::OK);
    let asked = shop.v1.last();
    for (name, value) in fields {
        assert_eq!(asked.header(name).as_deref(), Some(value), "{name}");
    }
    assert!(asked.header("x-b3-spanid").is_none());
}

#[tokio::test]
async fn a_provider_that_nobody_was_told_of_takes_none() {
    let mut resources = traced(told().ruled(vec![rule().to("v1", 1)]));
    let gateway = Arc::make_mut(resources.gateway.as_mut().unwrap());
    gateway.options.telemetry.providers.clear();
    let shop = Shop::new(resources).await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(get(&mut client, "/", &[]).await, StatusCode::OK);
    assert!(shop.v1.last().header("traceparent").is_none());
    assert!(spans(&shop).await.is_empty());
}

#[tokio::test]
async fn each_port_of_a_service_has_spans_of_its_own_name() {
    let shop = Shop::new(traced(told().ruled(vec![rule()]))).await;
    for port in [9000, 80] {
        let mut client = Http1::through(shop.rig.cart(port).await).await;
        get(&mut client, "/", &[]).await;
    }
    let both = || shop.rig.metric("istio_requests_total", "") == 2;
    eventually("both have ended", both).await;
    let spans = spans(&shop).await;
    let mut names: Vec<_> = spans.iter().map(|span| span["name"].as_str()).collect();
    names.sort_unstable();
    let want = [
        "cart.shop.mesh.internal:80/*",
        "cart.shop.mesh.internal:9000/*",
    ];
    assert_eq!(names, want.map(Some));
}
