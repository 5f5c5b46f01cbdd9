//! Paths: what they are matched with, and what they are changed to (§2.2, §2.4).

use std::sync::Arc;

use super::pattern;
use super::scope::Scope;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::Place;
use crate::model::route::{PathChange, PathMatch};

/// Gateway API's limit on the characters of a path.
const LONGEST: usize = 1024;

/// How a path is compared.
#[derive(Clone, Copy)]
enum Comparison {
    Exact,
    Prefix,
    Regex,
}

const COMPARISONS: [(&str, Comparison); 3] = [
    ("Exact", Comparison::Exact),
    ("PathPrefix", Comparison::Prefix),
    ("RegularExpression", Comparison::Regex),
];

/// `path` of a match. What is left out is the prefix that every path has.
pub(super) fn matching(value: &Value<'_>) -> Option<PathMatch> {
    let table = value.nested()?;
    let comparison = match table.value("type") {
        Some(word) => scalar::choice(&word, &COMPARISONS),
        None => Some(Comparison::Prefix),
    };
    let text = table.value("value");
    table.finish();
    let Some(text) = text else {
        return match comparison? {
            Comparison::Exact => Some(PathMatch::Exact(Arc::from("/"))),
            Comparison::Prefix => Some(PathMatch::Prefix(Arc::from("/"))),
            Comparison::Regex => pattern::compiled(value, "/").map(PathMatch::Regex),
        };
    };
    match comparison? {
        Comparison::Exact => plain(&text).map(PathMatch::Exact),
        Comparison::Prefix => plain(&text).map(PathMatch::Prefix),
        Comparison::Regex => pattern::read(&text).map(PathMatch::Regex),
    }
}

/// A path as a normalised one can be; others would never match.
pub(super) fn plain(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let Some(fault) = fault(text) else {
        return Some(Arc::from(text));
    };
    value.bad(
        &format!("{fault}: {text:?}"),
        "not a path",
        "write it as it is after normalisation, without query, as in `\"/cart/items\"`",
    );
    None
}

/// What keeps a text from being a normalised path.
fn fault(text: &str) -> Option<&'static str> {
    if !text.starts_with('/') {
        return Some("does not begin with `/`");
    }
    if text.len() > LONGEST {
        return Some("is longer than 1024 characters");
    }
    if text.contains("//") {
        return Some("has an empty segment");
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Some("has a segment `.` or `..`, which no request keeps");
    }
    if text.to_ascii_lowercase().contains("%2f") {
        return Some("has an encoded `/`, which no request keeps");
    }
    character_fault(text)
}

/// What is no character of a path (RFC 3986 §3.3).
fn character_fault(text: &str) -> Option<&'static str> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    if text.contains('?') {
        return Some("has a query, which `query-params` match");
    }
    if !text.bytes().all(legal) {
        return Some("has a character that paths do not have");
    }
    let escaped = text.split('%').skip(1);
    let whole = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let mut broken = escaped.filter(|rest| !whole(rest));
    broken
        .next()
        .map(|_| "has a `%` without two hexadecimal digits")
}

/// The two ways of changing a path.
#[derive(Clone, Copy)]
enum Way {
    Full,
    Prefix,
}

const WAYS: [(&str, Way); 2] = [
    ("ReplaceFullPath", Way::Full),
    ("ReplacePrefixMatch", Way::Prefix),
];

/// `path` of a redirect or rewrite.
pub(super) fn change(value: &Value<'_>, scope: &Scope) -> Option<PathChange> {
    let table = value.nested()?;
    let example = "type = \"ReplaceFullPath\"";
    let way = table.required("type", example, |value| scalar::choice(value, &WAYS));
    let change = match way {
        Some(Way::Full) => table.required("replace-full-path", "replace-full-path = \"/\"", |v| {
            replacement(v, false).map(PathChange::Full)
        }),
        Some(Way::Prefix) => {
            scope.change_prefix(value.place());
            let example = "replace-prefix-match = \"/\"";
            table.required("replace-prefix-match", example, |v| {
                replacement(v, true).map(PathChange::Prefix)
            })
        }
        None => {
            // Known, though not which of the two it should be.
            let _known = (
                table.value("replace-full-path"),
                table.value("replace-prefix-match"),
            );
            None
        }
    };
    table.finish();
    change
}

/// What a path, or the part of it that was matched, becomes.
pub(super) fn replacement(value: &Value<'_>, may_be_empty: bool) -> Option<Arc<str>> {
    let text = value.text()?;
    let fault = match text {
        "" if may_be_empty => None,
        text if !text.starts_with('/') => Some("does not begin with `/`"),
        text if text.len() > LONGEST => Some("is longer than 1024 characters"),
        text => character_fault(text),
    };
    let Some(fault) = fault else {
        return Some(Arc::from(text));
    };
    value.bad(
        &format!("{fault}: {text:?}"),
        "not a path",
        "write a path, as in `\"/cart\"`; the query of the request is kept by itself",
    );
    None
}

/// Says that a prefix can only be replaced where exactly one was matched.
pub(super) fn reject_prefix_change(rule: &Table<'_>, place: Place) {
    let message = format!(
        "{}: `ReplacePrefixMatch` in a rule that does not match exactly one prefix",
        rule.what()
    );
    let finding = Diagnostic::new(Code::ConflictingKeys, place, message);
    let help =
        "give the rule one match, with a path of type `PathPrefix`, or write `ReplaceFullPath`";
    rule.report(finding.label("replaces which prefix?").help(help));
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn paths_are_judged() {
        for (text, good) in [
            ("/", true),
            ("/a", true),
            ("/a/", true),
            ("/a/b.c/~d", true),
            ("/a%20b", true),
            ("/a..b/.c", true),
            ("/a:b@c=d;e,f", true),
            ("", false),
            ("a", false),
            ("//", false),
            ("/a//b", false),
            ("/a/./b", false),
            ("/a/.", false),
            ("/a/../b", false),
            ("/..", false),
            ("/a%2fb", false),
            ("/a%2Fb", false),
            ("/a#b", false),
            ("/a?b=c", false),
            ("/a b", false),
            ("/ä", false),
            ("/a%", false),
            ("/a%4", false),
            ("/a%4g", false),
        ] {
            assert_eq!(fault(text).is_none(), good, "{text}");
        }
        assert!(fault(&format!("/{}", "a".repeat(1024))).is_some());
    }
}
