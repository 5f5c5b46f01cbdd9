//! `matches` of an `http-route` (§2.2).

use std::sync::Arc;

use super::lists::at_most;
use super::{fields, path};
use crate::config::read::{Table, Value};
use crate::config::source::At;
use crate::model::route::{Match, TextMatch};

/// Gateway API's limit on the matches of one rule.
const MOST_MATCHES: usize = 64;

/// Methods that Gateway API knows (RFC 9110 §9.3, RFC 5789).
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// The matches of a rule, each read by `read`; one that takes everything where none is written.
pub(super) fn read<'a>(
    table: &Table<'a>,
    read: impl Fn(&Value<'a>) -> Option<Match>,
) -> Vec<At<Match>> {
    let everything = || vec![At::new(Match::default(), table.place().clone())];
    let Some(value) = table.value("matches") else {
        return everything();
    };
    if value.is_empty_list() {
        return everything();
    }
    let help = "write another rule for them";
    let matches = at_most(&value, MOST_MATCHES, "matches", help, |item| {
        Some(At::new(read(item)?, item.place().clone()))
    });
    matches.unwrap_or_default()
}

/// One match of HTTP. Without a path it has the prefix that every path has.
pub(in crate::config::mesh) fn http(value: &Value<'_>) -> Option<Match> {
    let table = value.nested()?;
    let path = match table.value("path") {
        Some(value) => path::matching(&value),
        None => Some(Match::default().path),
    };
    let method = table.optional("method", method);
    let headers = table.optional("headers", fields::headers);
    let query = table.optional("query-params", fields::query);
    table.finish();
    Some(Match {
        path: path?,
        method: method.map(TextMatch::Exact),
        headers: headers.unwrap_or_default(),
        query: query.unwrap_or_default(),
        ..Match::default()
    })
}

/// A method. Its case counts, and all that are in use are in upper case.
pub(super) fn method(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let upper = text.to_ascii_uppercase();
    let misspelt = upper != text && METHODS.contains(&upper.as_str());
    if !misspelt && fields::is_token(text) {
        return Some(Arc::from(text));
    }
    let help = match misspelt {
        true => format!("write `\"{upper}\"`"),
        false => "write a method, as in `\"GET\"`".to_owned(),
    };
    value.bad(&format!("is not a method: {text:?}"), "not a method", help);
    None
}
