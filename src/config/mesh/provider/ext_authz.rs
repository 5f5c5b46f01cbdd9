//! `envoy-ext-authz-http` and `envoy-ext-authz-grpc`: whom CUSTOM policies ask (§4.4).

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::{header, path, service};
use crate::config::diagnose::Code;
use crate::config::mesh::route::{header_fault, is_token};
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::{CheckOver, CheckedBody, ExtAuthz, HttpCheck, ProviderKind};
use crate::model::policy::Pattern;

/// Bounds of `timeout`. Upstream waits ten minutes unless told otherwise, which is no answer at all to who
/// waits for one.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);
const USUAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds of `max-request-bytes`: what one request may hold in the waypoint's memory while it waits.
const BODY: RangeInclusive<u32> = 1..=1 << 20;

/// What `status-on-error` may be: an answer that is no leave.
const STATUS: RangeInclusive<u64> = 400..=599;

pub(super) fn grpc(value: &Value<'_>) -> Option<ProviderKind> {
    let table = value.nested()?;
    let kind = check(&table, CheckOver::Grpc);
    table.finish();
    kind
}

pub(super) fn http(value: &Value<'_>) -> Option<ProviderKind> {
    let table = value.nested()?;
    let path_prefix = table.optional("path-prefix", path);
    let request_headers = table.optional("include-request-headers-in-check", read_names);
    let additional_headers = table.optional("include-additional-headers-in-check", additional);
    let upstream_on_allow = table.optional("headers-to-upstream-on-allow", settable);
    let downstream_on_allow = table.optional("headers-to-downstream-on-allow", settable);
    let downstream_on_deny = table.optional("headers-to-downstream-on-deny", settable);
    table.unsupported(
        "include-headers-in-check",
        "write `include-request-headers-in-check`, which is what it is called now",
    );
    let over = CheckOver::Http(HttpCheck {
        path_prefix: path_prefix.unwrap_or_default(),
        request_headers: request_headers.unwrap_or_default(),
        additional_headers: additional_headers.unwrap_or_default(),
        upstream_on_allow: upstream_on_allow.unwrap_or_default(),
        downstream_on_allow: downstream_on_allow.unwrap_or_default(),
        downstream_on_deny,
    });
    let kind = check(&table, over);
    table.finish();
    kind
}

fn check(table: &Table<'_>, over: CheckOver) -> Option<ProviderKind> {
    let service = service(table);
    let timeout = table.optional("timeout", |value| scalar::duration(value, TIMEOUT));
    let fail_open = table.optional("fail-open", Value::boolean);
    let status_on_error = table.optional("status-on-error", status);
    let clear_route_cache = table.optional("clear-route-cache", Value::boolean);
    let body = table.optional("include-request-body-in-check", body);
    let check = ExtAuthz {
        timeout: timeout.unwrap_or(USUAL_TIMEOUT),
        fail_open: fail_open.unwrap_or(false),
        status_on_error: status_on_error.unwrap_or(StatusCode::FORBIDDEN),
        clear_route_cache: clear_route_cache.unwrap_or(false),
        body,
        over,
    };
    Some(ProviderKind::ExtAuthz {
        service: service?,
        check,
    })
}

/// A status in quotes, as Istio has it, or without.
fn status(value: &Value<'_>) -> Option<StatusCode> {
    let number = match value.is_text() {
        true => {
            let text = value.text()?;
            let number = text.parse().ok();
            number.filter(|number| STATUS.contains(number))
        }
        false => return u16::try_from(value.integer(STATUS)?).ok().and_then(of),
    };
    if number.is_none() {
        value.bad(
            "is not a status that refuses",
            "no such status",
            "write a number from 400 to 599, as in `\"503\"`",
        );
    }
    number.and_then(|number| of(u16::try_from(number).ok()?))
}

fn of(number: u16) -> Option<StatusCode> {
    StatusCode::from_u16(number).ok()
}

fn body(value: &Value<'_>) -> Option<CheckedBody> {
    let table = value.nested()?;
    let example = "max-request-bytes = 8192";
    let max_bytes = table.required("max-request-bytes", example, |value| value.count(BODY));
    let allow_partial = table.optional("allow-partial-message", Value::boolean);
    let as_bytes = table.optional("pack-as-bytes", Value::boolean);
    table.finish();
    Some(CheckedBody {
        max_bytes: max_bytes?,
        allow_partial: allow_partial.unwrap_or(false),
        as_bytes: as_bytes.unwrap_or(false),
    })
}

/// Names of header fields, with a star at one end.
fn read_names(value: &Value<'_>) -> Option<Vec<Pattern>> {
    value.list(name)
}

/// The same of what an answer may set, which no connection's own fields are.
fn settable(value: &Value<'_>) -> Option<Vec<Pattern>> {
    value.list(|item| {
        let pattern = name(item)?;
        let Pattern::Exact(exact) = &pattern else {
            return Some(pattern);
        };
        let host = (&**exact == "host").then_some("is whom the request is for, which stays");
        let Some(fault) = header_fault(exact).or(host) else {
            return Some(pattern);
        };
        let message = format!("{fault}: `{exact}`");
        let help = "take it out: the waypoint sees to it";
        item.reject(Code::BadName, &message, "not to be set", help);
        None
    })
}

fn name(value: &Value<'_>) -> Option<Pattern> {
    let text = value.text()?.to_ascii_lowercase();
    let bare = text.strip_suffix('*').or_else(|| text.strip_prefix('*'));
    let pattern = Pattern::parse(&text).ok();
    let pattern = pattern.filter(|_| is_token(bare.unwrap_or(&text)));
    if pattern.is_none() {
        value.reject(
            Code::BadName,
            &format!("is not the name of a header: {text:?}"),
            "not a name",
            "write a name, or its beginning or end and a star, as in `\"x-user\"`, `\"x-user-*\"` or `\"*-id\"`",
        );
    }
    pattern
}

/// A table of fields by their names.
fn additional(value: &Value<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let table = value.nested()?;
    let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (key, text) in table.entries() {
        let Some((name, text)) = header(key.value, &text) else {
            continue;
        };
        // Two keys that differ in case are one header.
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some(field) => field.1 = text,
            None => fields.push((name, text)),
        }
    }
    Some(fields)
}
