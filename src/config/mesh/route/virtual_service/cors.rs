//! `cors-policy` (§2.5).

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::text::{self, Said};
use crate::config::diagnose::Code;
use crate::config::mesh::route::filter::cors::{parsed, words};
use crate::config::mesh::route::pattern;
use crate::config::read::{Value, scalar};
use crate::model::route::{Cors, OriginPattern, UnmatchedPreflights};

/// How long the answer to a preflight may be kept, in whole seconds of 31 bits.
const AGES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(0x7fff_ffff);

const PREFLIGHTS: [(&str, UnmatchedPreflights); 2] = [
    ("FORWARD", UnmatchedPreflights::Forward),
    ("IGNORE", UnmatchedPreflights::Ignore),
];

pub(super) fn read(value: &Value<'_>) -> Option<Cors> {
    let table = value.nested()?;
    table.unsupported(
        "allow-origin",
        "write `allow-origins = [{ exact = \"https://shop.example\" }]`",
    );
    let origins = table.value("allow-origins");
    let none = origins.as_ref().is_none_or(Value::is_empty_list);
    if none && table.value("allow-origin").is_none() {
        value.reject(
            Code::NoEffect,
            "allows no origin",
            "has no effect",
            "add `allow-origins`, as in `allow-origins = [{ exact = \"https://shop.example\" }]`",
        );
    }
    let origins = origins.and_then(|value| value.list(origin));
    let allow_methods = words(&table, "allow-methods", false);
    let allow_headers = words(&table, "allow-headers", true);
    let expose_headers = words(&table, "expose-headers", true);
    let allow_credentials = table.optional("allow-credentials", Value::boolean);
    let max_age = table.optional("max-age", |value| scalar::duration(value, AGES));
    let unmatched = table.optional("unmatched-preflights", |value| {
        scalar::choice(value, &PREFLIGHTS)
    });
    table.finish();
    Some(Cors {
        allow_origins: origins.unwrap_or_default(),
        allow_methods,
        allow_headers,
        expose_headers,
        allow_credentials: allow_credentials.unwrap_or(false),
        max_age,
        unmatched_preflights: unmatched.unwrap_or(UnmatchedPreflights::Forward),
    })
}

fn origin(value: &Value<'_>) -> Option<OriginPattern> {
    match text::said(value)? {
        Said::Exact(text) => exact(&text),
        Said::Prefix(text) => Some(OriginPattern::Prefix(Arc::from(text.text()?))),
        Said::Regex(text) => pattern::read(&text).map(OriginPattern::Regex),
        Said::Nothing => {
            text::reject_anything(value);
            None
        }
    }
}

fn exact(value: &Value<'_>) -> Option<OriginPattern> {
    let text = value.text()?;
    if text == "*" {
        return Some(OriginPattern::Any);
    }
    match parsed(&text.to_ascii_lowercase()) {
        Some(origin @ OriginPattern::Exact(_)) => Some(origin),
        _ => {
            value.bad(
                &format!("is not an origin: {text:?}"),
                "not an origin",
                "write scheme and host without a path, as in `\"https://shop.example:8443\"`; `regex` takes several",
            );
            None
        }
    }
}
