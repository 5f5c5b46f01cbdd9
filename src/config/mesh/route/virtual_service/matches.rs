//! `match`: the requests that a rule is for (§3.1).

use std::sync::Arc;

use super::text::{self, Said};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::no_effect;
use crate::config::mesh::route::lists::Seen;
use crate::config::mesh::route::{fields, matches, path, pattern};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::route::{Match, PathMatch, TextMatch};

/// Names that Istio passes over among `headers`, and what they are elsewhere.
const NO_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];
/// What stands before a claim of a token.
const CLAIMS: &str = "@request.auth.";

/// One of `match`.
pub(super) struct Matched {
    pub(super) place: Place,
    /// `name`, for logs.
    pub(super) name: Option<Arc<str>>,
    pub(super) is: Match,
}

/// The matches of a rule; one that takes everything where none is written. Those that no request can
/// meet at a waypoint are left out.
pub(super) fn read(table: &Table<'_>) -> Vec<Matched> {
    let everything = || {
        vec![Matched {
            place: table.place().clone(),
            name: None,
            is: Match::default(),
        }]
    };
    match table.value("match") {
        Some(value) if !value.is_empty_list() => value.list(matched).unwrap_or_default(),
        _ => everything(),
    }
}

fn matched(value: &Value<'_>) -> Option<Matched> {
    let table = value.nested()?;
    let name = table.optional("name", scalar::name);
    let path = table.optional("uri", uri);
    let ignore_case = table.optional("ignore-uri-case", Value::boolean);
    let is = Match {
        path: path.unwrap_or_else(|| Match::default().path),
        ignore_case: ignore_case.unwrap_or(false),
        method: table.optional("method", method),
        headers: table.optional("headers", headers).unwrap_or_default(),
        without_headers: table
            .optional("without-headers", headers)
            .unwrap_or_default(),
        query: table.optional("query-params", query).unwrap_or_default(),
        scheme: table.optional("scheme", text::always),
        authority: table.optional("authority", text::always),
        port: table.optional("port", scalar::port),
        source_namespace: table
            .optional("source-namespace", scalar::label)
            .map(|namespace| namespace.value),
    };
    if let Some(gateways) = table.value("gateways") {
        super::mesh_alone(&gateways);
    }
    table.unsupported(
        "stat-prefix",
        "take it out: requests are counted by service, and logged with the rule's `name`",
    );
    let by_labels = table.optional("source-labels", Value::nested);
    let labels = by_labels.filter(|labels| labels.entries().next().is_some());
    table.finish();
    if let Some(labels) = labels {
        let message = format!(
            "{}: a waypoint does not see the client's labels: this match takes nothing",
            labels.what()
        );
        let help = "tell clients apart by `source-namespace`, or take the match out";
        no_effect(&table, labels.place().clone(), message, help);
        return None;
    }
    Some(Matched {
        place: table.place().clone(),
        name: name.map(|name| name.value),
        is,
    })
}

/// A path as a normalised one can be.
fn uri(value: &Value<'_>) -> Option<PathMatch> {
    match text::said(value)? {
        Said::Exact(path) => path::plain(&path).map(PathMatch::Exact),
        Said::Prefix(path) => path::plain(&path).map(PathMatch::TextPrefix),
        Said::Regex(path) => pattern::read(&path).map(PathMatch::Regex),
        Said::Nothing => {
            text::reject_anything(value);
            None
        }
    }
}

fn method(value: &Value<'_>) -> Option<TextMatch> {
    match text::said(value)? {
        Said::Exact(method) => matches::method(&method).map(TextMatch::Exact),
        _ => text::always(value),
    }
}

/// `headers` and `without-headers`: what each has to be, by its name.
fn headers(value: &Value<'_>) -> Option<Vec<(Arc<str>, TextMatch)>> {
    let table = value.nested()?;
    let mut seen = Seen::default();
    let mut all = Vec::new();
    for (key, value) in table.entries() {
        let name = header_name(&table, key);
        let text = text::perhaps(&value);
        let (Some(name), Some(text)) = (name, text) else {
            continue;
        };
        if seen.is_new(&value, &name) {
            all.push((name.value, text));
        }
    }
    Some(all)
}

fn header_name(table: &Table<'_>, key: At<&str>) -> Option<At<Arc<str>>> {
    let text = key.value;
    if text.starts_with(CLAIMS) {
        let message = format!(
            "{}: claims of tokens are not supported by this version, which validates none",
            table.what()
        );
        table.report(
            Diagnostic::new(Code::Unsupported, key.place, message)
                .label("not supported yet")
                .help("take it out, or match a header that clients set by themselves"),
        );
        return None;
    }
    let help = match text.trim_start_matches(':') {
        name if NO_HEADERS.contains(&name) => Some(format!("match the `{name}` instead")),
        _ if fields::is_token(text) => None,
        _ => Some("use letters, digits and hyphens, as in `x-version`".to_owned()),
    };
    let Some(help) = help else {
        return Some(At::new(Arc::from(text.to_ascii_lowercase()), key.place));
    };
    let message = format!("{}: {text:?} is not the name of a header", table.what());
    table.report(
        Diagnostic::new(Code::BadName, key.place, message)
            .label("not a name")
            .help(help),
    );
    None
}

/// `query-params`: what each has to be, by its name.
fn query(value: &Value<'_>) -> Option<Vec<(Arc<str>, TextMatch)>> {
    let table = value.nested()?;
    let entries = table.entries();
    let read = entries.filter_map(|(key, value)| {
        let text = text::perhaps(&value)?;
        Some((Arc::from(key.value), text))
    });
    Some(read.collect())
}
