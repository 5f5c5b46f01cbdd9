//! How a path is changed (`spec/waypoint-l7.md` §2.4, §3.1).

use std::borrow::Cow;

use super::path::prefix;
use super::{Match, PathChange, PathMatch};

impl PathChange {
    /// The path and query that take the place of those that a match took. The query is kept; one
    /// that the operator's text has comes before it.
    pub fn apply(&self, path_and_query: &str, matched: &Match) -> String {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        let mut text = self.path(path, matched);
        if !text.starts_with('/') {
            text.insert(0, '/');
        }
        if let Some(query) = query {
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str(query);
        }
        text
    }

    fn path(&self, path: &str, matched: &Match) -> String {
        match self {
            Self::Full(with) => with.as_ref().to_owned(),
            Self::Prefix(with) => {
                let mut text = with.strip_suffix('/').unwrap_or(with).to_owned();
                text.push_str(after(path, &matched.path));
                text
            }
            Self::Text(with) => format!("{with}{}", after(path, &matched.path)),
            Self::Regex(pattern, with) => pattern.replace_all(path, with).into_owned(),
        }
    }
}

/// What of a path is behind what was matched: nothing where that is the whole of it.
fn after<'a>(path: &'a str, matched: &PathMatch) -> &'a str {
    let taken = match matched {
        PathMatch::Prefix(written) => prefix(written).len(),
        PathMatch::TextPrefix(written) => written.len(),
        PathMatch::Exact(_) | PathMatch::Regex(_) => path.len(),
    };
    path.get(taken..).unwrap_or_default()
}

/// A text in which `\0` to `\9` are groups and `\\` is a `\`, as RE2 rewrites.
pub(super) fn expand(with: &str, groups: &regex::Captures<'_>, to: &mut String) {
    let mut rest = with.chars();
    while let Some(c) = rest.next() {
        let escaped = if c == '\\' { rest.next() } else { None };
        match escaped.map(|c| (c, c.to_digit(10))) {
            None => to.push(c),
            Some((_, Some(group))) => {
                let group = usize::try_from(group).ok().and_then(|n| groups.get(n));
                to.push_str(group.map_or("", |group| group.as_str()));
            }
            Some((c, None)) => to.push(c),
        }
    }
}

impl super::Regex {
    /// A text with all that the pattern finds in it replaced, in which `\1` is the first group.
    pub(super) fn replace_all<'t>(&self, text: &'t str, with: &str) -> Cow<'t, str> {
        self.part()
            .replace_all(text, |groups: &regex::Captures<'_>| {
                let mut to = String::new();
                expand(with, groups, &mut to);
                to
            })
    }
}
