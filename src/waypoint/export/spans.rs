//! Spans as collectors are told of them.

use ::http::{HeaderValue, Request, header};
use bytes::Bytes;
use prost::Message as _;

use super::{Collector, Refused, Teller, Told};
use crate::model::telemetry::Exporter;
use crate::telemetry::trace::{self, Span};
use crate::waypoint::http::{Told as Answered, grpc_message, grpc_request};
use crate::wire::convert::span::export;
use crate::wire::proto::otlp::collector::ExportTraceServiceResponse;

/// The method that takes them.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

impl Told for Span {
    const SIGNAL: &'static str = "spans";

    fn request(to: &Collector, teller: &Teller, batch: &[Self]) -> Option<Request<Bytes>> {
        match &to.is {
            Exporter::OpenTelemetry { http: None, .. } => {
                Some(grpc_request(EXPORT, &export(teller, batch)))
            }
            Exporter::OpenTelemetry {
                http: Some(http), ..
            } => {
                let body = export(teller, batch).encode_to_vec();
                let mut request = post(&http.path, "application/x-protobuf", body)?;
                for (name, value) in &http.headers {
                    request.headers_mut().insert(name, value.clone());
                }
                Some(request)
            }
            Exporter::Zipkin { path, .. } => {
                let mut names = teller.iter().filter(|(key, _)| *key == "service.name");
                let service = names.next().map_or("", |(_, name)| name);
                post(path, "application/json", trace::zipkin(service, batch))
            }
            Exporter::Prometheus | Exporter::File(_) | Exporter::OtelLog { .. } => None,
        }
    }

    fn refused(to: &Collector, answer: Answered) -> Result<u64, Refused> {
        let taken: ExportTraceServiceResponse = match &to.is {
            Exporter::OpenTelemetry { http: None, .. } => grpc_message(answer)?,
            _ if !answer.head.status.is_success() => {
                return Err(Refused::Http(answer.head.status));
            }
            // What cannot be read has no refusals in it.
            Exporter::OpenTelemetry { .. } => {
                ExportTraceServiceResponse::decode(answer.body).unwrap_or_default()
            }
            _ => return Ok(0),
        };
        let partial = taken.partial_success.unwrap_or_default();
        Ok(u64::try_from(partial.rejected_spans).unwrap_or(0))
    }
}

fn post(path: &str, kind: &'static str, body: Vec<u8>) -> Option<Request<Bytes>> {
    let request = Request::post(path).header(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    request.body(Bytes::from(body)).ok()
}
