//! What `[mesh]` says of telemetry: `access-log-file` and its form, and `default-providers`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::logging::report;
use super::{NamedProvider, Use, text_format};
use crate::config::mesh::no_effect;
use crate::config::mesh::provider::absolute;
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::declaration::{FileAccessLog, TelemetryDefaults};
use crate::model::log_format::{Layout, LogFormat, TextFormat};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Text,
    Json,
}

const ENCODINGS: [(&str, Encoding); 2] = [("TEXT", Encoding::Text), ("JSON", Encoding::Json)];

/// What it says, and the providers it names.
pub(in crate::config::mesh) fn read(table: &Table<'_>) -> (TelemetryDefaults, Vec<NamedProvider>) {
    let mut named = Vec::new();
    let mut defaults = TelemetryDefaults {
        access_log: access_log(table),
        ..TelemetryDefaults::default()
    };
    if let Some(table) = table.value("default-providers").and_then(|v| v.nested()) {
        let mut of = |key, used| providers(&table, key, used, &mut named);
        defaults.tracing = of("tracing", Use::Tracing);
        defaults.metrics = of("metrics", Use::Metrics);
        defaults.access_logging = of("access-logging", Use::Logging);
        table.finish();
    }
    (defaults, named)
}

fn providers(
    table: &Table<'_>,
    key: &'static str,
    used: Use,
    named: &mut Vec<NamedProvider>,
) -> Vec<Arc<str>> {
    let names = table.optional(key, |value| {
        value.list(|value| {
            Some(At::new(
                Arc::from(scalar::plain(value)?),
                value.place().clone(),
            ))
        })
    });
    let names: Vec<At<Arc<str>>> = names.unwrap_or_default();
    let all = names.iter().map(|name| Arc::clone(&name.value)).collect();
    named.extend(names.into_iter().map(|name| NamedProvider { used, name }));
    all
}

fn access_log(table: &Table<'_>) -> Option<FileAccessLog> {
    let path = table.optional("access-log-file", absolute);
    let encoding = table.optional("access-log-encoding", |value| {
        scalar::choice(value, &ENCODINGS)
    });
    let json = encoding == Some(Encoding::Json);
    let written = table.value("access-log-format");
    let format = match &written {
        Some(value) if json => members(value).map(LogFormat::Json),
        Some(value) => text_format(value).map(LogFormat::Text),
        None if json => Some(LogFormat::json()),
        None => Some(LogFormat::text()),
    };
    if let (None, Some(written)) = (&path, written) {
        let message = format!("{}: a format of no file", table.what());
        let help = "add `access-log-file`, as in `access-log-file = \"/dev/stdout\"`";
        no_effect(table, written.place().clone(), message, help);
    }
    Some(FileAccessLog {
        path: path?,
        layout: Layout {
            format: format?,
            omit_empty: false,
        },
    })
}

/// Istio writes the members as JSON.
fn members(value: &Value<'_>) -> Option<Vec<(Arc<str>, TextFormat)>> {
    let text = value.text()?;
    let Ok(members) = serde_json::from_str::<BTreeMap<String, String>>(text) else {
        value.bad(
            "is no JSON object of texts",
            "not an object",
            "write it as in `'{\"status\": \"%RESPONSE_CODE%\"}'`, or leave it out for Istio's own",
        );
        return None;
    };
    let member = |(key, text): (String, String)| {
        let format = report(value, TextFormat::parse(&text))?;
        Some((Arc::from(key), format))
    };
    members.into_iter().map(member).collect()
}
