//! `access-logging` of a telemetry, and how access logs are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Mode, Scope, Use, expression, mode, names};
use crate::config::mesh::no_effect;
use crate::config::read::Value;
use crate::config::source::At;
use crate::model::log_format::{LogFormat, TextFormat};
use crate::model::telemetry::Logging;

/// A format as it is written.
pub(in crate::config::mesh) enum Written<'a, 'v> {
    /// A line.
    Text(&'v Value<'a>),
    /// The members of an object.
    Labels(&'v Value<'a>),
}

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<(Mode, Logging)> {
    let table = value.nested()?;
    let mode = mode(&table);
    let providers = scope.providers(&table, Use::Logging);
    let disabled = table.optional("disabled", Value::boolean).unwrap_or(false);
    let written = table.value("filter");
    let filter = written.as_ref().and_then(filter);
    table.finish();
    if let (true, Some(written)) = (disabled, &written) {
        let message = format!("{}: what is not written is not filtered", table.what());
        let help = "take out `filter`, or `disabled`";
        no_effect(&table, written.place().clone(), message, help);
    }
    // Without the filter that was meant more would be written than was meant.
    if written.is_some() && filter.is_none() {
        return None;
    }
    let logging = Logging {
        providers: names(&providers),
        disabled,
        filter,
    };
    Some((mode, logging))
}

/// `{ expression = "…" }`.
fn filter(value: &Value<'_>) -> Option<crate::model::expression::Expression> {
    let table = value.nested()?;
    let example = "expression = \"response.code >= 400\"";
    let read = table.required("expression", example, expression);
    table.finish();
    read
}

/// How records are written; Istio's text unless it is written.
pub(in crate::config::mesh) fn log_format(written: Option<Written<'_, '_>>) -> Option<LogFormat> {
    Some(match written {
        None => LogFormat::text(),
        Some(Written::Text(value)) => LogFormat::Text(text_format(value)?),
        Some(Written::Labels(value)) => LogFormat::Json(members(value)?),
    })
}

/// A text with command operators.
pub(in crate::config::mesh) fn text_format(value: &Value<'_>) -> Option<TextFormat> {
    let text = value.text()?;
    let read = TextFormat::parse(text);
    report(value, read)
}

fn members(value: &Value<'_>) -> Option<Vec<(Arc<str>, TextFormat)>> {
    let table = value.nested()?;
    let member =
        |(key, text): (At<&str>, Value<'_>)| Some((Arc::from(key.value), text_format(&text)?));
    let members: BTreeMap<_, _> = table.entries().filter_map(member).collect();
    Some(members.into_iter().collect())
}

/// What was read, or nothing and a finding.
pub(super) fn report<T>(
    value: &Value<'_>,
    read: Result<T, crate::model::log_format::FormatError>,
) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(fault) => {
            value.bad(
                &format!("is no format: {fault}"),
                "not a format",
                "write text with command operators in it, as in `\"%REQ(:METHOD)% %RESPONSE_CODE%\"`",
            );
            None
        }
    }
}
