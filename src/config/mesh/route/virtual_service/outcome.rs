//! `redirect`, `direct-response`, `rewrite` and `delegate`: what becomes of a request beside going on as
//! it is.

use std::sync::Arc;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::no_effect;
use crate::config::mesh::route::filter::redirect::{SCHEMES, status};
use crate::config::mesh::route::scope::Scope;
use crate::config::mesh::route::{host, path, pattern};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::route::{DirectResponse, PathChange, Redirect, Rewrite};

/// The status of a redirect that says none.
const USUAL_STATUS: u16 = 301;

/// Where the port of a redirect is from.
#[derive(Clone, Copy)]
enum Derive {
    Protocol,
    Request,
}

const DERIVES: [(&str, Derive); 2] = [
    ("FROM_PROTOCOL_DEFAULT", Derive::Protocol),
    ("FROM_REQUEST_PORT", Derive::Request),
];

pub(super) fn redirect(value: &Value<'_>) -> Option<Redirect> {
    let table = value.nested()?;
    let scheme = table.optional("scheme", |value| scalar::choice(value, &SCHEMES));
    let authority = table.optional("authority", authority);
    let port = table.optional("port", scalar::port);
    let derived = derived(&table, scheme);
    let path = redirected_path(&table);
    let status = table.optional("redirect-code", status);
    table.finish();
    let of_authority = authority.as_ref().and_then(|(_, port)| *port);
    let ports = [port, of_authority, derived.flatten()];
    let given = ["port", "derive-port"].map(|key| table.value(key).is_some());
    let given = given.into_iter().chain([of_authority.is_some()]);
    if given.filter(|given| *given).count() > 1 {
        let message = format!("{} says more than once which port", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, table.place().clone(), message)
                .label("which of them?")
                .help("keep one of `port`, `derive-port` and the port in `authority`"),
        );
    }
    Some(Redirect {
        scheme: scheme.map(Arc::from),
        host: authority.map(|(host, _)| host),
        port: ports.into_iter().flatten().next(),
        path,
        status: status.unwrap_or(USUAL_STATUS),
    })
}

/// The port that `derive-port` means; none is the one of the request.
fn derived(table: &Table<'_>, scheme: Option<&str>) -> Option<Option<u16>> {
    let value = table.value("derive-port")?;
    let derive = scalar::choice(&value, &DERIVES)?;
    Some(match derive {
        Derive::Protocol if scheme == Some("https") => Some(443),
        Derive::Protocol => Some(80),
        Derive::Request if scheme.is_some() => {
            value.unsupported("write the `port`: with a `scheme` it is that scheme's unless said");
            None
        }
        Derive::Request => None,
    })
}

fn redirected_path(table: &Table<'_>) -> Option<PathChange> {
    let full = table.value("uri");
    let prefix = table.value("uri-prefix");
    if let (Some(_), Some(second)) = (&full, &prefix) {
        second.reject(
            Code::ConflictingKeys,
            "stands beside `uri`",
            "one of the two",
            "keep the one that is meant",
        );
    }
    let full = full.and_then(|v| path::replacement(&v, false));
    let prefix = prefix.and_then(|v| path::replacement(&v, false));
    let prefix = prefix.map(PathChange::Text);
    full.map(PathChange::Full).or(prefix)
}

/// A host name, perhaps with a port.
fn authority(value: &Value<'_>) -> Option<(Arc<str>, Option<u16>)> {
    let text = value.text()?;
    let (name, port) = match text.split_once(':') {
        None => (text, None),
        Some((name, port)) => match port.parse::<u16>() {
            Ok(port) if port > 0 => (name, Some(port)),
            _ => {
                value.bad(
                    &format!("has a port that is none: {text:?}"),
                    "not a port",
                    "write a host name and a number, as in `\"cart.example.com:8080\"`",
                );
                return None;
            }
        },
    };
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok();
    let fault = scalar::name_fault(name).filter(|_| !is_address);
    Some((host::judge(value, name, fault)?, port))
}

pub(super) fn direct(value: &Value<'_>) -> Option<DirectResponse> {
    let table = value.nested()?;
    let status = table.required("status", "status = 503", |value| {
        u16::try_from(value.integer(200..=599)?).ok()
    });
    let body = table.optional("body", |value| {
        let table = value.nested()?;
        table.unsupported("bytes", "write it as `string`");
        let text = table.optional("string", Value::text);
        table.finish();
        text
    });
    table.finish();
    Some(DirectResponse {
        status: status?,
        body: Arc::from(body.unwrap_or_default()),
    })
}

pub(super) fn rewrite(value: &Value<'_>) -> Option<Rewrite> {
    let table = value.nested()?;
    let uri = table.optional("uri", |value| path::replacement(value, false));
    let host = table.optional("authority", |value| {
        let _judged = authority(value)?;
        value.text().map(Arc::from)
    });
    let regex = table.optional("uri-regex-rewrite", by_pattern);
    table.finish();
    if let (Some(_), Some(second)) = (table.value("uri"), table.value("uri-regex-rewrite")) {
        second.reject(
            Code::ConflictingKeys,
            "stands beside `uri`",
            "one of the two",
            "keep the one that is meant",
        );
    }
    if table.entries().next().is_none() {
        let message = format!("{} rewrites nothing", table.what());
        let help = "add `uri`, `uri-regex-rewrite` or `authority`, or take it out";
        no_effect(&table, table.place().clone(), message, help);
    }
    Some(Rewrite {
        host,
        path: uri.map(PathChange::Text).or(regex),
    })
}

/// `{ match, rewrite }`: what a pattern finds in the path, to what.
fn by_pattern(value: &Value<'_>) -> Option<PathChange> {
    let table = value.nested()?;
    let found = table.required("match", "match = '^/v(\\d+)/'", pattern::read);
    let with = table.required("rewrite", "rewrite = '/version-\\1/'", Value::text);
    table.finish();
    Some(PathChange::Regex(found?, Arc::from(with?)))
}

/// `{ name, namespace }` of the virtual service whose rules take the place of this one.
pub(super) fn delegate(value: &Value<'_>, scope: &Scope) -> Option<At<(Arc<str>, Arc<str>)>> {
    let table = value.nested()?;
    let name = table.required("name", "name = \"cart\"", scalar::name);
    let namespace = table.optional("namespace", scalar::label);
    table.finish();
    let namespace = namespace.map_or_else(|| Arc::clone(&scope.namespace), |n| n.value);
    Some(At::new((namespace, name?.value), table.place().clone()))
}
