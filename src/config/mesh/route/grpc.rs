//! `matches` of a `grpc-route`: methods, as paths (§2.8).

use std::sync::Arc;

use super::{fields, pattern};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::Value;
use crate::model::route::{Match, PathMatch, Regex};

pub(super) fn read(value: &Value<'_>) -> Option<Match> {
    let table = value.nested()?;
    let path = match table.value("method") {
        Some(value) => path(&value),
        None => Some(Match::default().path),
    };
    let headers = table.optional("headers", fields::headers);
    table.finish();
    Some(Match {
        path: path?,
        headers: headers.unwrap_or_default(),
        ..Match::default()
    })
}

/// `{ type, service, method }`.
fn path(value: &Value<'_>) -> Option<PathMatch> {
    let table = value.nested()?;
    let exact = fields::is_exact(table.value("type"));
    let (service, method) = (table.value("service"), table.value("method"));
    if service.is_none() && method.is_none() {
        let message = format!("{} names neither service nor method", table.what());
        let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message);
        let finding = finding.label("calls of what?");
        let help = "add one, as in `service = \"shop.Cart\"`, or take `method` out for every call";
        table.missing(vec!["service", "method"], finding.help(help));
    }
    table.finish();
    match exact? {
        true => by_name(service.as_ref(), method.as_ref()),
        false => by_pattern(value, service.as_ref(), method.as_ref()),
    }
}

fn by_name(service: Option<&Value<'_>>, method: Option<&Value<'_>>) -> Option<PathMatch> {
    let service = service.map(|value| name(value, true));
    let method = method.map(|value| name(value, false));
    match (service, method) {
        (Some(service), Some(method)) => Some(PathMatch::Exact(
            format!("/{}/{}", service?, method?).into(),
        )),
        (Some(service), None) => Some(PathMatch::Prefix(format!("/{}/", service?).into())),
        // Of the characters of a method none means anything in a pattern.
        (None, Some(method)) => regex(&format!("/[^/]+/{}", method?)),
        (None, None) => None,
    }
}

/// The name of a service, with its package, or of a method.
fn name<'a>(value: &Value<'a>, dotted: bool) -> Option<&'a str> {
    let text = value.text()?;
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let is_name = |part: &str| {
        part.bytes().next().is_some_and(first)
            && part.bytes().all(|b| first(b) || b.is_ascii_digit())
    };
    let good = match dotted {
        true => text.split('.').all(is_name),
        false => is_name(text),
    };
    if good {
        return Some(text);
    }
    let help = match dotted {
        true => "write it with its package, as in `\"shop.Cart\"`",
        false => "write it by itself, as in `\"AddItem\"`, and its service in `service`",
    };
    value.bad(&format!("is no name of gRPC: {text:?}"), "not a name", help);
    None
}

fn by_pattern(
    whole: &Value<'_>,
    service: Option<&Value<'_>>,
    method: Option<&Value<'_>>,
) -> Option<PathMatch> {
    let service = service.map(part);
    let method = method.map(part);
    let path = match (service, method) {
        (Some(service), Some(method)) => format!("/{}/{}", service?, method?),
        (Some(service), None) => format!("/{}/.+", service?),
        (None, Some(method)) => format!("/[^/]+/{}", method?),
        (None, None) => return None,
    };
    pattern::compiled(whole, &path).map(PathMatch::Regex)
}

/// A pattern that is to be part of another: what it offers to choose from stays its own.
fn part(value: &Value<'_>) -> Option<Arc<str>> {
    let regex = pattern::read(value)?;
    let source = regex.source();
    Some(match source.contains('|') {
        true => format!("(?:{source})").into(),
        false => Arc::from(source),
    })
}

fn regex(source: &str) -> Option<PathMatch> {
    Regex::new(source).ok().map(PathMatch::Regex)
}
