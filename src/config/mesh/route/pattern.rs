//! Regular expressions.

use crate::config::read::Value;
use crate::model::route::Regex;

pub(super) fn read(value: &Value<'_>) -> Option<Regex> {
    compiled(value, value.text()?)
}

/// Compiles a pattern that comes of a value.
pub(super) fn compiled(value: &Value<'_>, source: &str) -> Option<Regex> {
    match Regex::new(source) {
        Ok(regex) => Some(regex),
        Err(fault) => {
            let fault = fault.to_string();
            // The lines before show the pattern, as the finding does by itself.
            let reason = fault.lines().last().unwrap_or_default();
            let reason = reason.trim_start_matches("no regular expression: ");
            let reason = reason.trim_start_matches("error: ").trim_end_matches('.');
            value.bad(
                &format!("is no regular expression: {reason}"),
                "not a pattern",
                "write it in RE2's language; it has to match the whole text",
            );
            None
        }
    }
}
