//! `{ exact }`, `{ prefix }` and `{ regex }`: how a virtual-service matches a text.

use std::sync::Arc;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::route::pattern;
use crate::config::read::Value;
use crate::model::route::TextMatch;

/// Which of them is there.
pub(super) enum Said<'a> {
    /// None: it has to be there, whatever it is.
    Nothing,
    Exact(Value<'a>),
    Prefix(Value<'a>),
    Regex(Value<'a>),
}

pub(super) fn said<'a>(value: &Value<'a>) -> Option<Said<'a>> {
    let table = value.nested()?;
    let exact = table.value("exact").map(Said::Exact);
    let prefix = table.value("prefix").map(Said::Prefix);
    let regex = table.value("regex").map(Said::Regex);
    let unknown = table.errors();
    table.finish();
    let mut all = [exact, prefix, regex].into_iter().flatten();
    let Some(first) = all.next() else {
        return (table.errors() == unknown).then_some(Said::Nothing);
    };
    if all.next().is_some() {
        let message = format!("{} says how to match twice", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, table.place().clone(), message)
                .label("which of them?")
                .help("keep one of `exact`, `prefix` and `regex`"),
        );
        return None;
    }
    Some(first)
}

/// A text that is there in every request.
pub(super) fn always(value: &Value<'_>) -> Option<TextMatch> {
    let text = match said(value)? {
        Said::Exact(text) => TextMatch::Exact(Arc::from(text.text()?)),
        Said::Prefix(text) => TextMatch::Prefix(Arc::from(text.text()?)),
        Said::Regex(text) => TextMatch::Regex(pattern::read(&text)?),
        Said::Nothing => TextMatch::Present,
    };
    if is_anything(&text) {
        reject_anything(value);
        return None;
    }
    Some(text)
}

/// A text that may be missing: nothing said of it, or `*`, is that it is there.
pub(super) fn perhaps(value: &Value<'_>) -> Option<TextMatch> {
    let text = match said(value)? {
        Said::Exact(text) => TextMatch::Exact(Arc::from(text.text()?)),
        Said::Prefix(text) => TextMatch::Prefix(Arc::from(text.text()?)),
        Said::Regex(text) if text.is_text() && text.text() == Some("*") => TextMatch::Present,
        Said::Regex(text) => TextMatch::Regex(pattern::read(&text)?),
        Said::Nothing => TextMatch::Present,
    };
    Some(match is_anything(&text) {
        true => TextMatch::Present,
        false => text,
    })
}

fn is_anything(text: &TextMatch) -> bool {
    match text {
        TextMatch::Exact(text) | TextMatch::Prefix(text) => text.is_empty(),
        TextMatch::Regex(pattern) => pattern.source().is_empty(),
        TextMatch::Present => true,
    }
}

pub(super) fn reject_anything(value: &Value<'_>) {
    value.bad(
        "says nothing of what it has to be",
        "matches what?",
        "write `{ exact = \"…\" }`, `{ prefix = \"…\" }` or `{ regex = \"…\" }`, or leave the key out",
    );
}
