//! `envoy-file-access-log` and `envoy-otel-als`: where access logs go (§6.1, §6.3).

use std::sync::Arc;

use super::service;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::telemetry::{self, WrittenFormat};
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::{FileAccessLog, OtelAccessLog, ProviderKind};
use crate::model::log_format::{Layout, LogFormat};

const STDOUT: &str = "/dev/stdout";
const OTEL_LOG: &str = "otel_envoy_accesslog";

pub(super) fn file(value: &Value<'_>) -> Option<ProviderKind> {
    let table = value.nested()?;
    let path = table.optional("path", absolute);
    let omit_empty = table.optional("omit-empty-values", Value::boolean);
    let format = format(&table, "JSON");
    table.finish();
    Some(ProviderKind::FileAccessLog(FileAccessLog {
        path: path.unwrap_or_else(|| Arc::from(STDOUT)),
        layout: Layout {
            format: format?,
            omit_empty: omit_empty.unwrap_or(false),
        },
    }))
}

pub(super) fn otel(value: &Value<'_>) -> Option<ProviderKind> {
    let table = value.nested()?;
    let service = service(&table);
    let log_name = table.optional("log-name", scalar::plain);
    let format = format(&table, "attributes");
    table.finish();
    Some(ProviderKind::OtelAccessLog(OtelAccessLog {
        service: service?,
        log_name: Arc::from(log_name.unwrap_or(OTEL_LOG)),
        format: format?,
    }))
}

/// A file on a machine.
pub(in crate::config::mesh) fn absolute(value: &Value<'_>) -> Option<Arc<str>> {
    let text = scalar::plain(value)?;
    if !text.starts_with('/') {
        value.bad(
            &format!("is not an absolute path: {text:?}"),
            "of which directory?",
            "begin it with `/`, as in `\"/var/log/lateen/access.log\"`",
        );
        return None;
    }
    Some(Arc::from(text))
}

/// `{ text }` or `{ labels }`, which come out as `members`; Istio's text where neither is written.
fn format(table: &Table<'_>, members: &str) -> Option<LogFormat> {
    let Some(value) = table.value("log-format") else {
        return telemetry::log_format(None);
    };
    let table = value.nested()?;
    let text = table.value("text");
    let labels = table.value("labels");
    table.finish();
    let written = match (&text, &labels) {
        (Some(text), None) => WrittenFormat::Text(text),
        (None, Some(labels)) => WrittenFormat::Labels(labels),
        (Some(text), Some(labels)) => {
            let message = format!("{} has both `text` and `labels`", table.what());
            table.report(
                Diagnostic::new(Code::ConflictingKeys, labels.place().clone(), message)
                    .label("one of the two")
                    .related(text.place().clone(), "the other")
                    .help(format!("keep `text` for lines, or `labels` for {members}")),
            );
            return None;
        }
        (None, None) => {
            value.reject(
                Code::MissingKey,
                "says neither `text` nor `labels`",
                "which format?",
                format!("write `text` for lines, or `labels` for {members}, or leave it out for Istio's own text"),
            );
            return None;
        }
    };
    telemetry::log_format(Some(written))
}
