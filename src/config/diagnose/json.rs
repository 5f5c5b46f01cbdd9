//! A report as JSON. The keys are an interface: they are added to, never renamed.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Diagnostic, Report};
use crate::config::source::Place;

#[derive(Serialize)]
struct Finding<'a> {
    severity: &'static str,
    code: &'static str,
    message: &'a str,
    #[serde(flatten)]
    place: Span<'a>,
    /// The text at the place.
    text: &'a str,
    label: Option<&'a str>,
    help: Option<&'a str>,
    related: Vec<Other<'a>>,
}

#[derive(Serialize)]
struct Other<'a> {
    #[serde(flatten)]
    place: Span<'a>,
    label: &'a str,
}

/// Lines and columns count from 1; the end is one past the last character. Both are 1 for a
/// finding about a file as a whole.
#[derive(Serialize)]
struct Span<'a> {
    file: &'a str,
    line: u32,
    column: u32,
    end_line: u32,
    end_column: u32,
}

impl Report {
    /// `{"errors": n, "warnings": n, "diagnostics": [{"severity", "code", "message", "file",
    /// "line", "column", "end_line", "end_column", "text", "label", "help", "related": [{"file",
    /// "line", "column", "end_line", "end_column", "label"}]}]}`; `label` and `help` may be null.
    pub fn to_json(&self) -> Value {
        let findings: Vec<_> = self.diagnostics().iter().map(finding).collect();
        json!({
            "errors": self.errors(),
            "warnings": self.warnings(),
            "diagnostics": findings,
        })
    }
}

fn finding(diagnostic: &Diagnostic) -> Finding<'_> {
    Finding {
        severity: diagnostic.severity().as_str(),
        code: diagnostic.code().as_str(),
        message: diagnostic.message(),
        place: span(diagnostic.place()),
        text: diagnostic.place().text(),
        label: diagnostic.label.as_deref(),
        help: diagnostic.advice(),
        related: diagnostic
            .related_places()
            .iter()
            .map(|related| Other {
                place: span(&related.place),
                label: &related.label,
            })
            .collect(),
    }
}

fn span(place: &Place) -> Span<'_> {
    let (start, end) = (place.start(), place.end());
    Span {
        file: place.source().name(),
        line: start.line,
        column: start.column,
        end_line: end.line,
        end_column: end.column,
    }
}
