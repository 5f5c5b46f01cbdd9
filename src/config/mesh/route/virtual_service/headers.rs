//! `headers`: fields of the request and of its answer that are changed.

use std::sync::Arc;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::route::fields;
use crate::config::mesh::route::filter::header_change::{self, HOST};
use crate::config::mesh::route::lists::Seen;
use crate::config::read::{Table, Value};
use crate::config::source::At;
use crate::model::route::{BackendRef, Filter, HeaderChange};

/// What changes the request, then what changes the answer.
pub(super) fn read(value: &Value<'_>) -> Option<Vec<Filter<BackendRef>>> {
    let table = value.nested()?;
    let request = table.optional("request", |value| changes(value, true));
    let response = table.optional("response", |value| changes(value, false));
    table.finish();
    let filters = [
        request.map(Filter::RequestHeaders),
        response.map(Filter::ResponseHeaders),
    ];
    Some(filters.into_iter().flatten().collect())
}

fn changes(value: &Value<'_>, of_request: bool) -> Option<HeaderChange> {
    let table = value.nested()?;
    let set = table.optional("set", |value| fields(value, of_request, true));
    let add = table.optional("add", |value| fields(value, of_request, false));
    let remove = table.optional("remove", |value| removed(value, of_request));
    table.finish();
    if table.entries().next().is_none() {
        value.reject(
            Code::NoEffect,
            "changes nothing",
            "has no effect",
            "add `set`, `add` or `remove`, or take it out",
        );
    }
    Some(HeaderChange {
        remove: remove.unwrap_or_default(),
        set: set.unwrap_or_default(),
        add: add.unwrap_or_default(),
    })
}

/// Values by name.
fn fields(
    value: &Value<'_>,
    of_request: bool,
    settable: bool,
) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let table = value.nested()?;
    let mut seen = Seen::default();
    let mut all = Vec::new();
    for (key, value) in table.entries() {
        let name = key_name(&table, key, of_request, settable);
        let text = fields::field_value(&value);
        let (Some(name), Some(text)) = (name, text) else {
            continue;
        };
        if seen.is_new(&value, &name) {
            all.push((name.value, text));
        }
    }
    Some(all)
}

fn key_name(
    table: &Table<'_>,
    key: At<&str>,
    of_request: bool,
    settable: bool,
) -> Option<At<Arc<str>>> {
    match name(key.value, of_request, settable) {
        Ok(name) => Some(At::new(name, key.place)),
        Err(wrong) => {
            let message = format!("{}: `{}` {}", table.what(), key.value, wrong.fault);
            table.report(
                Diagnostic::new(Code::BadName, key.place, message)
                    .label("not to be changed")
                    .help(wrong.help),
            );
            None
        }
    }
}

fn removed(value: &Value<'_>, of_request: bool) -> Option<Vec<Arc<str>>> {
    let mut seen = Seen::default();
    value.list(|item| {
        let At { value: text, place } = item.text_at()?;
        match name(text, of_request, false) {
            Ok(name) => {
                let name = At::new(name, place);
                seen.is_new(item, &name).then_some(name.value)
            }
            Err(wrong) => {
                let message = format!("{}: {text:?}", wrong.fault);
                item.reject(Code::BadName, &message, "not to be changed", wrong.help);
                None
            }
        }
    })
}

/// Why a name cannot stand there.
struct Wrong {
    fault: &'static str,
    help: &'static str,
}

/// A name that a route may change. A request has exactly one `host`, so that it can only be set.
fn name(text: &str, of_request: bool, settable: bool) -> Result<Arc<str>, Wrong> {
    let lower = text.to_ascii_lowercase();
    let lower = match lower.as_str() {
        ":authority" if of_request => HOST,
        lower => lower,
    };
    if !fields::is_token(lower) {
        return Err(Wrong {
            fault: "is not the name of a header",
            help: "use letters, digits and hyphens, as in `x-version`",
        });
    }
    if let Some(fault) = header_change::fault(lower) {
        return Err(Wrong {
            fault,
            help: "take it out: the waypoint sees to it",
        });
    }
    match of_request && lower == HOST && !settable {
        true => Err(Wrong {
            fault: "is there exactly once in a request",
            help: "write it under `set`",
        }),
        false => Ok(Arc::from(lower)),
    }
}
