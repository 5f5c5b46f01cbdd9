//! Whom a waypoint tells before any resource: a part of its options.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::super::super::{Fault, Reason, enumeration};
use super::super::parts::{
    PRESENT, each, for_so_long, given, lasting, maybe, part, strings, texts,
};
use super::super::route::{encode_target, target};
use super::text_format;
use crate::model::declaration::{FileAccessLog, OtlpHttp, TraceContext};
use crate::model::log_format::{Layout, LogFormat};
use crate::model::telemetry::{Defaults, Exporter, Setup};
use crate::wire::proto::waypoint as proto;
use proto::exporter::zipkin::TraceContext as Context;
use proto::exporter::{File, Http, Is, OpenTelemetry, OtelLog, Zipkin};
use proto::log_format::{Is as Form, Json, Member};

pub(in crate::wire::convert::waypoint) fn encode(setup: &Setup) -> proto::TelemetrySetup {
    let providers = setup.providers.iter();
    proto::TelemetrySetup {
        tracing: strings(&setup.defaults.tracing),
        metrics: strings(&setup.defaults.metrics),
        access_logging: strings(&setup.defaults.access_logging),
        file: setup.defaults.file,
        providers: providers.map(encode_exporter).collect(),
    }
}

pub(in crate::wire::convert::waypoint) fn decode(
    given: proto::TelemetrySetup,
) -> Result<Setup, Fault> {
    Ok(Setup {
        defaults: Defaults {
            tracing: texts(given.tracing),
            metrics: texts(given.metrics),
            access_logging: texts(given.access_logging),
            file: given.file,
        },
        providers: each("providers", given.providers, exporter)?
            .into_iter()
            .collect(),
    })
}

fn encode_exporter((name, exporter): (&Arc<str>, &Exporter)) -> proto::Exporter {
    let is = match exporter {
        Exporter::Prometheus => Is::Prometheus(PRESENT),
        Exporter::File(file) => Is::File(File {
            path: file.path.to_string(),
            format: Some(encode_format(&file.layout.format)),
            omit_empty: file.layout.omit_empty,
        }),
        Exporter::OtelLog {
            to,
            log_name,
            format,
        } => Is::OtelLog(OtelLog {
            to: Some(encode_target(to)),
            log_name: log_name.to_string(),
            format: Some(encode_format(format)),
        }),
        Exporter::OpenTelemetry {
            to,
            http,
            max_tag_length,
        } => Is::OpenTelemetry(OpenTelemetry {
            to: Some(encode_target(to)),
            http: http.as_ref().map(encode_http),
            max_tag_length: *max_tag_length,
        }),
        Exporter::Zipkin {
            to,
            path,
            trace_context,
        } => Is::Zipkin(Zipkin {
            to: Some(encode_target(to)),
            path: path.to_string(),
            trace_context: match trace_context {
                TraceContext::B3 => Context::B3,
                TraceContext::B3AndW3c => Context::B3AndW3c,
            }
            .into(),
        }),
    };
    proto::Exporter {
        name: name.to_string(),
        is: Some(is),
    }
}

fn exporter(exporter: proto::Exporter) -> Result<(Arc<str>, Exporter), Fault> {
    let read = match given("is", exporter.is)? {
        Is::Prometheus(_) => Exporter::Prometheus,
        Is::File(file) => Exporter::File(FileAccessLog {
            path: Arc::from(file.path),
            layout: Layout {
                format: part("format", file.format, format)?,
                omit_empty: file.omit_empty,
            },
        }),
        Is::OtelLog(log) => Exporter::OtelLog {
            to: part("to", log.to, target)?,
            log_name: Arc::from(log.log_name),
            format: part("format", log.format, format)?,
        },
        Is::OpenTelemetry(collector) => Exporter::OpenTelemetry {
            to: part("to", collector.to, target)?,
            http: maybe("http", collector.http, http)?,
            max_tag_length: collector.max_tag_length,
        },
        Is::Zipkin(collector) => Exporter::Zipkin {
            to: part("to", collector.to, target)?,
            path: Arc::from(collector.path),
            trace_context: match enumeration("trace_context", collector.trace_context)? {
                Context::Unspecified => return Err(Fault::new("trace_context", Reason::Missing)),
                Context::B3 => TraceContext::B3,
                Context::B3AndW3c => TraceContext::B3AndW3c,
            },
        },
    };
    Ok((Arc::from(exporter.name), read))
}

fn encode_format(format: &LogFormat) -> proto::LogFormat {
    let is = match format {
        LogFormat::Text(text) => Form::Text(text.source().to_owned()),
        LogFormat::Json(members) => Form::Json(Json {
            members: members
                .iter()
                .map(|(key, text)| Member {
                    key: key.to_string(),
                    text: text.source().to_owned(),
                })
                .collect(),
        }),
    };
    proto::LogFormat { is: Some(is) }
}

fn format(format: proto::LogFormat) -> Result<LogFormat, Fault> {
    Ok(match given("is", format.is)? {
        Form::Text(source) => LogFormat::Text(text_format("text", &source)?),
        Form::Json(json) => LogFormat::Json(each("json", json.members, |member| {
            Ok((Arc::from(member.key), text_format("text", &member.text)?))
        })?),
    })
}

fn encode_http(http: &OtlpHttp) -> Http {
    // What the mesh files have is text.
    let field = |(name, value): &(HeaderName, HeaderValue)| proto::Header {
        name: name.to_string(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    Http {
        path: http.path.to_string(),
        timeout: Some(lasting(http.timeout)),
        headers: http.headers.iter().map(field).collect(),
    }
}

fn http(http: Http) -> Result<OtlpHttp, Fault> {
    let field = |field: proto::Header| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok();
        let value = HeaderValue::from_bytes(field.value.as_bytes()).ok();
        let read = name.zip(value);
        read.ok_or_else(|| Fault::new("name", Reason::Value(field.name)))
    };
    Ok(OtlpHttp {
        path: Arc::from(http.path),
        timeout: for_so_long("timeout", http.timeout)?,
        headers: each("headers", http.headers, field)?,
    })
}
