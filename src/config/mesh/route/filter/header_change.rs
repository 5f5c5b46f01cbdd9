//! `request-header-modifier` and `response-header-modifier`.

use std::sync::Arc;

use crate::config::diagnose::Code;
use crate::config::mesh::route::fields;
use crate::config::mesh::route::lists::{MOST, Seen, at_most};
use crate::config::read::Value;
use crate::config::source::At;
use crate::model::route::HeaderChange;

/// Fields that are about one connection and not about the message (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The field by which a body is delimited: another value would hide a request in it.
const LENGTH: &str = "content-length";

/// The authority of a request, by the name it has in HTTP/1.
pub(in crate::config::mesh::route) const HOST: &str = "host";

pub(super) fn read(value: &Value<'_>, of_request: bool) -> Option<HeaderChange> {
    let table = value.nested()?;
    let set = table.optional("set", |value| fields(value, of_request));
    let add = table.optional("add", |value| added(value, of_request));
    let remove = table.optional("remove", |value| names(value, of_request));
    table.finish();
    if table.entries().next().is_none() {
        value.reject(
            Code::NoEffect,
            "changes nothing",
            "has no effect",
            "add `set`, `add` or `remove`, or take the filter out",
        );
    }
    Some(HeaderChange {
        remove: remove.unwrap_or_default(),
        set: set.unwrap_or_default(),
        add: add.unwrap_or_default(),
    })
}

/// `[{ name, value }]`.
fn fields(value: &Value<'_>, of_request: bool) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let mut seen = Seen::default();
    let help = "write them in fewer fields";
    at_most(value, MOST, "headers", help, |item| {
        let (name, text) = field(item, of_request)?;
        seen.is_new(item, &name).then_some((name.value, text))
    })
}

/// The same of what is added to what is there: there is one authority.
fn added(value: &Value<'_>, of_request: bool) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let fields = fields(value, of_request)?;
    if of_request && fields.iter().any(|(name, _)| **name == *HOST) {
        reject_host(value);
    }
    Some(fields)
}

fn field(value: &Value<'_>, of_request: bool) -> Option<(At<Arc<str>>, Arc<str>)> {
    let table = value.nested()?;
    let name = table.required("name", "name = \"x-version\"", |value| {
        name(value, of_request)
    });
    let text = table.required("value", "value = \"v2\"", fields::field_value);
    table.finish();
    Some((name?, text?))
}

fn names(value: &Value<'_>, of_request: bool) -> Option<Vec<Arc<str>>> {
    let mut seen = Seen::default();
    let help = "write them in another route";
    let names = at_most(value, MOST, "headers", help, |item| {
        let name = name(item, of_request)?;
        seen.is_new(item, &name).then_some(name.value)
    })?;
    if of_request && names.iter().any(|name| **name == *HOST) {
        reject_host(value);
    }
    Some(names)
}

fn reject_host(value: &Value<'_>) {
    value.bad(
        "has `host` in it, of which a request has exactly one",
        "can only be set",
        "write it under `set`",
    );
}

/// A name that a route may change. `:authority` is `host` by its other name.
fn name(value: &Value<'_>, of_request: bool) -> Option<At<Arc<str>>> {
    if of_request && value.text()? == ":authority" {
        return Some(At::new(Arc::from(HOST), value.place().clone()));
    }
    let name = fields::header_name(value)?;
    let Some(fault) = fault(&name.value) else {
        return Some(name);
    };
    value.reject(
        Code::BadName,
        &format!("{fault}: `{}`", name.value),
        "not to be changed",
        "take it out: the waypoint sees to it",
    );
    None
}

/// What keeps a field of this name, in lower case, from being changed.
pub(in crate::config::mesh) fn fault(name: &str) -> Option<&'static str> {
    match name {
        LENGTH => Some("is how long the body is, which no route can say"),
        name if HOP_BY_HOP.contains(&name) => {
            Some("is about one connection, not about the request")
        }
        _ => None,
    }
}
