//! `cors` (§2.5).

use std::sync::Arc;
use std::time::Duration;

use crate::config::diagnose::Code;
use crate::config::mesh::route::fields;
use crate::config::mesh::route::lists::at_most;
use crate::config::read::{Table, Value, scalar};
use crate::model::route::{Cors, OriginPattern, UnmatchedPreflights};

/// Gateway API's limit on each list.
const MOST: usize = 64;

/// How long the answer to a preflight may be kept, unless the route says.
const USUAL_AGE: Duration = Duration::from_secs(5);

/// What stands for everything in these lists, alone.
const ANY: &str = "*";

pub(super) fn read(value: &Value<'_>) -> Option<Cors> {
    let table = value.nested()?;
    let origins = table.value("allow-origins");
    if origins.as_ref().is_none_or(Value::is_empty_list) {
        value.reject(
            Code::NoEffect,
            "allows no origin",
            "has no effect",
            "add `allow-origins`, as in `allow-origins = [\"https://shop.example\"]`",
        );
    }
    let origins = origins.and_then(|value| list(&value, "origins", origin));
    let allow_methods = words(&table, "allow-methods", false);
    let allow_headers = words(&table, "allow-headers", true);
    let expose_headers = words(&table, "expose-headers", true);
    let allow_credentials = table.optional("allow-credentials", Value::boolean);
    let max_age = table.optional("max-age", age);
    table.finish();
    Some(Cors {
        allow_origins: origins.unwrap_or_default(),
        allow_methods,
        allow_headers,
        expose_headers,
        allow_credentials: allow_credentials.unwrap_or(false),
        max_age: Some(max_age.unwrap_or(USUAL_AGE)),
        unmatched_preflights: UnmatchedPreflights::Refuse,
    })
}

/// Seconds, or a duration with its unit.
fn age(value: &Value<'_>) -> Option<Duration> {
    let longest = i32::MAX.unsigned_abs();
    if value.is_integer() {
        let seconds = value.count(1..=longest)?;
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let bounds = Duration::ZERO..=Duration::from_secs(u64::from(longest));
    scalar::duration(value, bounds)
}

pub(in crate::config::mesh::route) fn words(
    table: &Table<'_>,
    key: &'static str,
    lower: bool,
) -> Vec<Arc<str>> {
    let word = |value: &Value<'_>| {
        let text = value.text()?;
        if !fields::is_token(text) {
            value.bad(
                &format!("is not one: {text:?}"),
                "not a word of HTTP",
                "write the name of a method or header, or `\"*\"`",
            );
            return None;
        }
        Some(match lower {
            true => Arc::from(text.to_ascii_lowercase()),
            false => Arc::from(text),
        })
    };
    let words = table.optional(key, |value| list(value, "entries", word));
    words.unwrap_or_default()
}

/// A list in which `*` stands alone.
fn list<'a, T>(
    value: &Value<'a>,
    what: &str,
    read: impl Fn(&Value<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut any = false;
    let list = at_most(value, MOST, what, "use `\"*\"`, alone", |item| {
        any |= item.is_text() && item.text() == Some(ANY);
        read(item)
    })?;
    if any && list.len() > 1 {
        value.bad(
            "has `*` beside others, which it includes",
            "which of them?",
            "keep `[\"*\"]`, or take `*` out",
        );
    }
    Some(list)
}

/// `scheme://host[:port]`, with a `*` in the host.
fn origin(value: &Value<'_>) -> Option<OriginPattern> {
    let text = value.text()?;
    if text == ANY {
        return Some(OriginPattern::Any);
    }
    let lower = text.to_ascii_lowercase();
    match parsed(&lower) {
        Some(pattern) => Some(pattern),
        None => {
            value.bad(
                &format!("is not an origin: {text:?}"),
                "not an origin",
                "write scheme and host without a path, as in `\"https://*.shop.example:8443\"`, or `\"*\"`",
            );
            None
        }
    }
}

pub(in crate::config::mesh::route) fn parsed(text: &str) -> Option<OriginPattern> {
    let (scheme, rest) = text.split_once("://")?;
    let in_scheme = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.bytes().all(in_scheme) {
        return None;
    }
    let (host, port) = split_port(rest)?;
    let usual = matches!((scheme, port), ("http", Some(80)) | ("https", Some(443)));
    let port = port.filter(|_| !usual);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    match host.split_once('*') {
        Some((_, after)) if after.contains('*') => None,
        Some((before, after)) => Some(OriginPattern::Wildcard(
            format!("{scheme}://{before}").into(),
            format!("{after}{port}").into(),
        )),
        None => Some(OriginPattern::Exact(
            format!("{scheme}://{host}{port}").into(),
        )),
    }
}

/// Host and port of what follows the scheme.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let bracketed = text.starts_with('[');
    let at = match bracketed {
        true => text.find(']')? + 1,
        false => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(at);
    let in_host = |b: u8| match bracketed {
        true => b.is_ascii_hexdigit() || b"[]:.".contains(&b),
        false => b.is_ascii_alphanumeric() || b"-._*".contains(&b),
    };
    if host.is_empty() || !host.bytes().all(in_host) {
        return None;
    }
    match port.strip_prefix(':') {
        Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port > 0)?))),
        None => port.is_empty().then_some((host, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read() {
        let exact = |text: &str| Some(OriginPattern::Exact(Arc::from(text)));
        let wild = |a: &str, b: &str| Some(OriginPattern::Wildcard(Arc::from(a), Arc::from(b)));
        for (text, want) in [
            ("https://shop.example", exact("https://shop.example")),
            ("https://shop.example:443", exact("https://shop.example")),
            ("http://shop.example:80", exact("http://shop.example")),
            ("http://shop.example:443", exact("http://shop.example:443")),
            ("http://10.0.0.1:81", exact("http://10.0.0.1:81")),
            ("http://[fd00::1]:81", exact("http://[fd00::1]:81")),
            ("app+x://a", exact("app+x://a")),
            ("https://*.a.b", wild("https://", ".a.b")),
            ("https://x-*.a:8443", wild("https://x-", ".a:8443")),
            ("https://*:443", wild("https://", "")),
            ("https://*.*.a", None),
            ("https://", None),
            ("https://a/", None),
            ("https://a:", None),
            ("https://a:0", None),
            ("https://a:70000", None),
            ("https://a b", None),
            ("*://a", None),
            ("shop.example", None),
            ("null", None),
            ("", None),
        ] {
            assert_eq!(parsed(text), want, "{text}");
        }
    }
}
