//! Takes spans: OTLP over gRPC and over HTTP, and Zipkin's JSON, all on one port. To who asks for `/` it
//! tells all it has taken, each with how it came.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use lateen::wire::proto::otlp::collector::ExportTraceServiceRequest;
use lateen::wire::proto::otlp::common::{KeyValue, any_value};
use lateen::wire::proto::otlp::trace::Span;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::echo::{Body, text};
use super::grpc;

/// Where it is.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Collector {
    pub(crate) port: u16,
}

type Spans = Arc<Mutex<Vec<Value>>>;

impl Collector {
    pub(super) async fn serve(self) {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.port));
        let listener = TcpListener::bind(address).await.unwrap();
        let (mut connections, spans) = (JoinSet::new(), Spans::default());
        loop {
            let (tcp, _from) = listener.accept().await.unwrap();
            let spans = Arc::clone(&spans);
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let spans = Arc::clone(&spans);
                    async move { Ok::<_, Infallible>(answer(request, &spans).await) }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                let _gone = builder.serve_connection(TokioIo::new(tcp), service).await;
            });
        }
    }
}

async fn answer(request: Request<Incoming>, spans: &Spans) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let kind = head.headers.get(header::CONTENT_TYPE);
    let kind = kind.map_or("", |kind| kind.to_str().unwrap());
    let path = head.uri.path().to_owned();
    let (how, taken, answer) = match kind {
        "application/grpc" => {
            let message = grpc::take(&mut BytesMut::from(&*body)).unwrap();
            ("grpc", otlp(&message), well())
        }
        "application/x-protobuf" => ("http", otlp(&body), Response::new(text(String::new()))),
        "application/json" => ("zipkin", zipkin(&body), Response::new(text(String::new()))),
        _ => return Response::new(text(json!(*spans.lock().unwrap()).to_string())),
    };
    let key = head.headers.get("x-api-key");
    for mut span in taken {
        span["how"] = json!(how);
        span["path"] = json!(path);
        span["key"] = json!(key.map(|key| key.to_str().unwrap()));
        spans.lock().unwrap().push(span);
    }
    answer
}

/// A call that took everything.
fn well() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let empty = Frame::data(Bytes::from_static(&[0; 5]));
    let frames = tokio_stream::iter([Ok(empty), Ok(Frame::trailers(trailers))]);
    let response = Response::builder().header(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    response.body(StreamBody::new(frames).boxed()).unwrap()
}

fn otlp(message: &[u8]) -> Vec<Value> {
    let message = ExportTraceServiceRequest::decode(message).unwrap();
    let mut all = Vec::new();
    for told in message.resource_spans {
        let resource = attributes(&told.resource.unwrap().attributes);
        let spans = told.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.extend(spans.map(|span| of_otlp(&span, &resource)));
    }
    all
}

fn of_otlp(span: &Span, resource: &Map<String, Value>) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    json!({
        "trace": hex(&span.trace_id),
        "span": hex(&span.span_id),
        "parent": hex(&span.parent_span_id),
        "name": span.name,
        "kind": span.kind().as_str_name().trim_start_matches("SPAN_KIND_"),
        "service": resource["service.name"],
        "tags": attributes(&span.attributes),
    })
}

fn attributes(attributes: &[KeyValue]) -> Map<String, Value> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => json!(text),
        other => panic!("{other:?}"),
    };
    attributes
        .iter()
        .map(|pair| (pair.key.clone(), text(pair)))
        .collect()
}

fn zipkin(body: &[u8]) -> Vec<Value> {
    let spans: Vec<Value> = serde_json::from_slice(body).unwrap();
    let span = |span: Value| {
        json!({
            "trace": span["traceId"],
            "span": span["id"],
            "parent": span["parentId"].as_str().unwrap_or_default(),
            "name": span["name"],
            "kind": span["kind"],
            "service": span["localEndpoint"]["serviceName"],
            "tags": span["tags"],
        })
    };
    spans.into_iter().map(span).collect()
}
