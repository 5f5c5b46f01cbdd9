//! Writes records.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use super::{Part, TextFormat};
use crate::model::telemetry::Facts;

/// What an operator says.
#[derive(Debug)]
pub(super) enum Said<'a> {
    Nothing,
    Number(u64),
    Text(Cow<'a, str>),
}

impl<'a> Said<'a> {
    pub(super) fn made(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }

    /// A text, or its first characters.
    pub(super) fn cut(text: Option<Cow<'a, str>>, most: Option<usize>) -> Self {
        let Some(text) = text else {
            return Self::Nothing;
        };
        let end = most.and_then(|most| text.char_indices().nth(most));
        Self::Text(match (end, text) {
            (None, text) => text,
            (Some((end, _)), Cow::Borrowed(text)) => Cow::Borrowed(text.get(..end).unwrap_or(text)),
            (Some((end, _)), Cow::Owned(mut text)) => {
                text.truncate(end);
                Cow::Owned(text)
            }
        })
    }
}

/// A line of text. Quotes are escaped too: fields that stand in them end where they say.
pub(super) fn text(parts: &[Part], facts: &Facts<'_>, omit_empty: bool, line: &mut String) {
    for part in parts {
        match part {
            Part::Literal(text) => line.push_str(text),
            Part::Said(operator) => match operator.say(facts) {
                Said::Nothing if omit_empty => {}
                Said::Nothing => line.push('-'),
                Said::Number(number) => push(line, number),
                Said::Text(text) => escape(&text, line),
            },
        }
    }
    line.push('\n');
}

/// The same without escapes.
pub(super) fn plain(parts: &[Part], facts: &Facts<'_>) -> Option<String> {
    let mut whole = String::new();
    for part in parts {
        match part {
            Part::Literal(text) => whole.push_str(text),
            Part::Said(operator) => match operator.say(facts) {
                Said::Nothing if parts.len() == 1 => return None,
                Said::Nothing => whole.push('-'),
                Said::Number(number) => push(&mut whole, number),
                Said::Text(text) => whole.push_str(&text),
            },
        }
    }
    Some(whole)
}

/// An object: what is one operator keeps its kind, a number or nothing.
pub(super) fn json(
    members: &[(Arc<str>, TextFormat)],
    facts: &Facts<'_>,
    omit_empty: bool,
    line: &mut String,
) {
    line.push('{');
    let mut first = true;
    for (key, format) in members {
        let said = match &*format.parts {
            [Part::Said(operator)] => operator.say(facts),
            parts => plain(parts, facts).map_or(Said::Nothing, Said::made),
        };
        if omit_empty && matches!(said, Said::Nothing) {
            continue;
        }
        if !std::mem::take(&mut first) {
            line.push(',');
        }
        quote(key, line);
        line.push(':');
        match said {
            Said::Nothing => line.push_str("null"),
            Said::Number(number) => push(line, number),
            Said::Text(text) => quote(&text, line),
        }
    }
    line.push_str("}\n");
}

fn push(line: &mut String, number: u64) {
    // Writing to a string does not fail.
    let _infallible = write!(line, "{number}");
}

/// What begins another line, moves a cursor or ends a quoted field is told of, and not done.
fn escape(text: &str, line: &mut String) {
    if text
        .bytes()
        .all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
    {
        return line.push_str(text);
    }
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            c if is_control(c) => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
}

fn quote(text: &str, line: &mut String) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            c if is_control(c) => {
                // All of them are of the first 65 536.
                let _infallible = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

/// With the two that end lines in Unicode, and those that turn the direction of what follows.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
