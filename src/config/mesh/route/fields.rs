//! Header fields and query parameters: their names, their values, and what they are matched with.

use std::sync::Arc;

use super::lists::{MOST, Seen, at_most};
use super::pattern;
use crate::config::diagnose::Code;
use crate::config::read::{Value, scalar};
use crate::config::source::At;
use crate::model::route::TextMatch;

/// The name of a header field in lower case (RFC 9110 §5.1).
pub(in crate::config::mesh) fn header_name(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let text = value.text()?;
    if is_token(text) {
        let name = Arc::from(text.to_ascii_lowercase());
        return Some(At::new(name, value.place().clone()));
    }
    let help = match text {
        ":path" => "match the `path` instead",
        ":method" => "match the `method` instead",
        ":authority" => "write `\"host\"`",
        _ => "use letters, digits and hyphens, as in `\"x-version\"`",
    };
    value.reject(
        Code::BadName,
        &format!("is not the name of a header: {text:?}"),
        "not a name",
        help,
    );
    None
}

/// Whether a text is a token (RFC 9110 §5.6.2).
pub(in crate::config::mesh) fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

/// The name of a query parameter, as it is when decoded.
fn parameter_name(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let name = scalar::plain(value)?;
    Some(At::new(Arc::from(name), value.place().clone()))
}

/// The value of a header field (RFC 9110 §5.5).
pub(in crate::config::mesh) fn field_value(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    if text.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f)) {
        return Some(Arc::from(text));
    }
    value.bad(
        "has a control character in it",
        "cannot be sent",
        "leave out line breaks and the like",
    );
    None
}

/// `headers` of a match.
pub(super) fn headers(value: &Value<'_>) -> Option<Vec<(Arc<str>, TextMatch)>> {
    matchers(value, "headers", header_name)
}

/// `query-params` of a match.
pub(super) fn query(value: &Value<'_>) -> Option<Vec<(Arc<str>, TextMatch)>> {
    matchers(value, "query parameters", parameter_name)
}

fn matchers(
    value: &Value<'_>,
    what: &str,
    name: impl Fn(&Value<'_>) -> Option<At<Arc<str>>>,
) -> Option<Vec<(Arc<str>, TextMatch)>> {
    let mut seen = Seen::default();
    let help = "match on fewer: all of them have to hold";
    at_most(value, MOST, what, help, |item| {
        let (name, text) = matcher(item, &name)?;
        seen.is_new(item, &name).then_some((name.value, text))
    })
}

/// `{ type, name, value }`.
fn matcher(
    value: &Value<'_>,
    name: impl Fn(&Value<'_>) -> Option<At<Arc<str>>>,
) -> Option<(At<Arc<str>>, TextMatch)> {
    let table = value.nested()?;
    let exact = is_exact(table.value("type"));
    let name = table.required("name", "name = \"x-version\"", name);
    let text = table.required("value", "value = \"v2\"", |value| match exact? {
        true => field_value(value).map(TextMatch::Exact),
        false => pattern::read(value).map(TextMatch::Regex),
    });
    table.finish();
    Some((name?, text?))
}

/// `type` of what compares texts: as they are, unless it says otherwise.
pub(super) fn is_exact(value: Option<Value<'_>>) -> Option<bool> {
    match value {
        Some(value) => scalar::choice(&value, &[("Exact", true), ("RegularExpression", false)]),
        None => Some(true),
    }
}
