//! Log records as OTLP has them.

use super::span::{attribute, nanos, resource, scope, text};
use crate::telemetry::record::Record;
use crate::wire::proto::otlp::logs::{LogRecord, ResourceLogs, ScopeLogs};
use crate::wire::proto::otlp::logs_collector::ExportLogsServiceRequest;

/// What is handed to a collector: records of a log called `name`, of whoever is described by `teller`.
pub fn export(
    name: &str,
    teller: &[(&'static str, String)],
    records: &[Record],
) -> ExportLogsServiceRequest {
    let mut resource = resource(teller);
    resource.attributes.push(attribute("log_name", name));
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: records.iter().map(of).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn of(record: &Record) -> LogRecord {
    let time = nanos(record.time);
    let members = record.members.iter();
    let span = record.span.as_ref();
    LogRecord {
        time_unix_nano: time,
        body: record.text.as_deref().map(text),
        attributes: members.map(|(key, value)| attribute(key, value)).collect(),
        dropped_attributes_count: 0,
        flags: span.map_or(0, |span| u32::from(span.decision.keeps())),
        trace_id: span.map(|s| s.trace.bytes().to_vec()).unwrap_or_default(),
        span_id: span.map(|s| s.span.bytes().to_vec()).unwrap_or_default(),
        observed_time_unix_nano: time,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use prost::Message as _;

    use super::*;
    use crate::telemetry::trace::{Decision, SpanContext, SpanId, TraceId};

    #[test]
    fn a_record_is_told_whole() {
        let span = SpanContext {
            trace: TraceId::new(1).unwrap(),
            span: SpanId::new(2).unwrap(),
            parent: None,
            decision: Decision::Keep,
        };
        let line = Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001),
            text: Some("GET /".to_owned()),
            members: Vec::new(),
            span: Some(span),
        };
        let members = Record {
            text: None,
            members: vec![(Arc::from("method"), "GET".to_owned())],
            span: None,
            ..line.clone()
        };
        let teller = [("service.name", "wp.shop".to_owned())];
        let message = export("access", &teller, &[line, members]);
        let bytes = message.encode_to_vec();
        assert_eq!(ExportLogsServiceRequest::decode(&*bytes).unwrap(), message);
        let logs = &message.resource_logs[0];
        let described = &logs.resource.as_ref().unwrap().attributes;
        let want = [
            attribute("service.name", "wp.shop"),
            attribute("log_name", "access"),
        ];
        assert_eq!(*described, want);
        let [line, members] = &*logs.scope_logs[0].log_records else {
            panic!("two records");
        };
        assert_eq!(line.time_unix_nano, 1_700_000_000_000_000_001);
        assert_eq!(line.body, Some(text("GET /")));
        assert_eq!((line.trace_id[15], line.span_id[7], line.flags), (1, 2, 1));
        assert_eq!(members.attributes, [attribute("method", "GET")]);
        assert!(members.body.is_none() && members.trace_id.is_empty());
    }
}
