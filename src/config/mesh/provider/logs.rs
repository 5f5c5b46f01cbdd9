//! `envoy-file-access-log` and `envoy-otel-als`: where access logs go (§6.1, §6.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::service;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Value, scalar};
use crate::model::declaration::{FileAccessLog, LogFormat, OtelAccessLog, ProviderKind};

const STDOUT: &str = "/dev/stdout";
const OTEL_LOG: &str = "otel_envoy_accesslog";

pub(super) fn file(value: &Value<'_>) -> Option<ProviderKind> {
    let table = value.nested()?;
    let path = table.optional("path", absolute);
    let format = table.optional("log-format", format);
    let omit_empty = table.optional("omit-empty-values", Value::boolean);
    table.finish();
    Some(ProviderKind::FileAccessLog(FileAccessLog {
        path: path.unwrap_or_else(|| Arc::from(STDOUT)),
        format,
        omit_empty: omit_empty.unwrap_or(false),
    }))
}

pub(super) fn otel(value: &Value<'_>) -> Option<ProviderKind> {
    let table = value.nested()?;
    let service = service(&table);
    let log_name = table.optional("log-name", scalar::plain);
    table.finish();
    Some(ProviderKind::OtelAccessLog(OtelAccessLog {
        service: service?,
        log_name: Arc::from(log_name.unwrap_or(OTEL_LOG)),
    }))
}

fn absolute(value: &Value<'_>) -> Option<Arc<str>> {
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

/// `{ text }` or `{ labels }`.
fn format(value: &Value<'_>) -> Option<LogFormat> {
    let table = value.nested()?;
    let text = table.value("text");
    let labels = table.value("labels");
    table.finish();
    match (text, labels) {
        (Some(text), None) => text.text().map(|text| LogFormat::Text(Arc::from(text))),
        (None, Some(labels)) => members(&labels).map(LogFormat::Labels),
        (Some(text), Some(labels)) => {
            let message = format!("{} has both `text` and `labels`", table.what());
            table.report(
                Diagnostic::new(Code::ConflictingKeys, labels.place().clone(), message)
                    .label("one of the two")
                    .related(text.place().clone(), "the other")
                    .help("keep `text` for lines, or `labels` for JSON"),
            );
            None
        }
        (None, None) => {
            value.reject(
                Code::MissingKey,
                "says neither `text` nor `labels`",
                "which format?",
                "write `text` for lines, or `labels` for JSON, or leave it out for Istio's own text",
            );
            None
        }
    }
}

fn members(value: &Value<'_>) -> Option<BTreeMap<Arc<str>, Arc<str>>> {
    let table = value.nested()?;
    let member = |(key, text): (crate::config::source::At<&str>, Value<'_>)| {
        Some((Arc::from(key.value), Arc::from(text.text()?)))
    };
    Some(table.entries().filter_map(member).collect())
}
