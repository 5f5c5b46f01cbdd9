//! From text to tables, past as many faults as there are.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use toml::de::DeTable;

use super::depth::{DEEPEST, too_deep};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::source::{Place, Source};

/// Faults of one file beyond which the rest is noise.
const MOST_FAULTS: usize = 20;

/// A file's tables, and what kept it from being TOML.
pub(super) struct Parsed<'a> {
    /// A guess at what was meant where there are faults.
    pub root: DeTable<'a>,
    /// At most one a line.
    pub faults: Vec<Diagnostic>,
    /// Lines that say something else than they seem to.
    pub broken: HashSet<u32>,
}

pub(super) fn parse(source: &Arc<Source>) -> Parsed<'_> {
    if let Some(span) = too_deep(source.text()) {
        let message = format!("tables and lists are nested deeper than {DEEPEST}");
        let finding = Diagnostic::new(Code::TooLarge, source.place(span), message);
        let finding = finding.label("too deep");
        let help = "nothing in these files nests that deep; look for a bracket that is not closed";
        return Parsed {
            root: DeTable::new(),
            faults: vec![finding.help(help)],
            broken: HashSet::new(),
        };
    }
    let (root, errors) = DeTable::parse_recoverable(source.text());
    let mut faults: Vec<_> = errors.iter().map(|e| fault(source, e)).collect();
    faults.sort_by_key(|fault| fault.place().span().start);
    // One slip of the pen makes several errors; the first of a line is the one to mend.
    let mut lines = HashSet::new();
    faults.retain(|fault| lines.insert(fault.place().start().line));
    let headless = without_header(source, &faults);
    // A key that is there twice because the header between the two is broken.
    faults.retain(|fault| {
        let follows = headless.contains(&fault.place().start().line);
        !(follows && fault.message().ends_with(TWICE))
    });
    faults.truncate(MOST_FAULTS);
    let lines = |fault: &Diagnostic| fault.place().start().line..=fault.place().end().line;
    let broken = faults.iter().flat_map(lines).chain(headless).collect();
    Parsed {
        root: root.into_inner(),
        faults,
        broken,
    }
}

const TWICE: &str = "is written twice";

/// The lines between a broken header and the next one: their keys are in another table now.
fn without_header(source: &Source, faults: &[Diagnostic]) -> HashSet<u32> {
    let mut starts = faults
        .iter()
        .map(|fault| fault.place().start().line)
        .peekable();
    let mut lines = HashSet::new();
    let mut lost = false;
    for (number, line) in (1_u32..).zip(source.text().lines()) {
        let at_fault = starts.next_if_eq(&number).is_some();
        if line.trim_start().starts_with('[') {
            lost = at_fault;
        } else if lost {
            lines.insert(number);
        }
    }
    lines
}

fn fault(source: &Arc<Source>, error: &toml::de::Error) -> Diagnostic {
    let end = source.text().len();
    let mut place = source.place(error.span().unwrap_or(end..end));
    let message = error.message();
    let message = message
        .strip_suffix(", expected nothing")
        .unwrap_or(message);
    if message.starts_with("duplicate key") {
        let message = format!("`{}` {TWICE}", place.text());
        let finding = Diagnostic::new(Code::Syntax, place, message);
        return finding.label("again").help("keep one of the two");
    }
    let word = word_around(source, &place);
    let text = word.text();
    let unquoted = message.starts_with("string values must be quoted");
    if unquoted || (message.starts_with("invalid") && wants_quotes(text)) {
        let help = format!("write `\"{text}\"`");
        let finding = Diagnostic::new(Code::Syntax, word.clone(), "this text is not in quotes");
        return finding.label("not in quotes").help(help);
    }
    if place.span().is_empty() && !text.is_empty() {
        place = word;
    }
    Diagnostic::new(Code::Syntax, place, message).label("here")
}

/// The unbroken text a place is part of.
fn word_around(source: &Arc<Source>, place: &Place) -> Place {
    let ends = |c: char| {
        c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}' | '=' | '#' | '"' | '\'')
    };
    let text = source.text();
    let span = place.span();
    let (before, after) = (&text[..span.start], &text[span.end..]);
    let start = before.rfind(ends).map_or(0, |at| {
        at + before[at..].chars().next().map_or(0, char::len_utf8)
    });
    let end = after.find(ends).map_or(text.len(), |at| span.end + at);
    source.place(start..end)
}

fn wants_quotes(word: &str) -> bool {
    let address = word.split('/').next().unwrap_or_default();
    address.parse::<IpAddr>().is_ok()
        || word.starts_with(|c: char| c.is_alphabetic())
        || word.ends_with(|c: char| c.is_alphabetic())
}
