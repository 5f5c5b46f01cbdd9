//! Lines of access logs as collectors are told of them: OTLP, over gRPC.

use ::http::Request;
use bytes::Bytes;

use super::{Collector, Refused, Teller, Told};
use crate::model::telemetry::Exporter;
use crate::telemetry::record::Record;
use crate::waypoint::http::{Told as Answered, grpc_message, grpc_request};
use crate::wire::convert::record::export;
use crate::wire::proto::otlp::logs_collector::ExportLogsServiceResponse;

/// The method that takes them.
const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

impl Told for Record {
    const SIGNAL: &'static str = "logs";

    fn request(to: &Collector, teller: &Teller, batch: &[Self]) -> Option<Request<Bytes>> {
        let Exporter::OtelLog { log_name, .. } = &to.is else {
            return None;
        };
        Some(grpc_request(EXPORT, &export(log_name, teller, batch)))
    }

    fn refused(_to: &Collector, answer: Answered) -> Result<u64, Refused> {
        let taken: ExportLogsServiceResponse = grpc_message(answer)?;
        let partial = taken.partial_success.unwrap_or_default();
        Ok(u64::try_from(partial.rejected_log_records).unwrap_or(0))
    }
}
