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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::route::Regex;
    use crate::model::route::testing::{exact, pattern, prefix, text_prefix};

    #[test]
    fn a_prefix_is_replaced_with_one_slash_at_the_seam() {
        // The table of §2.4, and rows 24 and 25 of §11.
        for (path, matched, with, want) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo", "/foo/", "/xyz", "/xyz"),
            ("/foo/", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/foo//bar", "/foo", "/", "//bar"),
            ("/foo?a=/foo", "/foo", "/xyz", "/xyz?a=/foo"),
            (
                "/original-prefix/lemon?q=1",
                "/original-prefix",
                "/replacement-prefix",
                "/replacement-prefix/lemon?q=1",
            ),
            ("/prefix/one/two", "/prefix/one", "/one", "/one/two"),
            ("/strip-prefix", "/strip-prefix", "/", "/"),
            ("/strip-prefix/three", "/strip-prefix", "/", "/three"),
            (
                "/prefix/rewrite-path-and-modify-headers/one",
                "/prefix/rewrite-path-and-modify-headers",
                "/prefix",
                "/prefix/one",
            ),
        ] {
            let change = PathChange::Prefix(Arc::from(with));
            assert_eq!(
                change.apply(path, &prefix(matched)),
                want,
                "{path} {matched} {with}"
            );
        }
    }

    #[test]
    fn paths_change_as_they_are_told() {
        let full = |with: &str| PathChange::Full(Arc::from(with));
        let text = |with: &str| PathChange::Text(Arc::from(with));
        let regex =
            |find: &str, with: &str| PathChange::Regex(Regex::new(find).unwrap(), Arc::from(with));
        let any = Match::default();
        for (name, change, path, matched, want) in [
            (
                "25 full",
                full("/one"),
                "/full/one/two?x=1",
                &any,
                "/one?x=1",
            ),
            ("23 full", full("/y"), "/x", &any, "/y"),
            (
                "its own query",
                full("/y?a=1"),
                "/x?b=2",
                &any,
                "/y?a=1&b=2",
            ),
            ("an empty query", full("/y"), "/x?", &any, "/y?"),
            (
                "text for a text",
                text("/v2"),
                "/abcd?q",
                &text_prefix("/abc"),
                "/v2d?q",
            ),
            (
                "no seam is made",
                text("/"),
                "/abc/d",
                &text_prefix("/abc"),
                "//d",
            ),
            (
                "text for a path",
                text("/v2"),
                "/abc",
                &exact("/abc"),
                "/v2",
            ),
            (
                "text for a pattern",
                text("/v2"),
                "/abc",
                &pattern("/a.*"),
                "/v2",
            ),
            ("a path has a slash", text(""), "/abc", &exact("/abc"), "/"),
            (
                "pattern",
                regex("^/a/([^/]+)(/.*)", "\\2/\\1"),
                "/a/b/c?a",
                &any,
                "/c/b?a",
            ),
            (
                "all it finds",
                regex("o", "0"),
                "/foo/o?o",
                &any,
                "/f00/0?o",
            ),
            (
                "the whole",
                regex("b+", "[\\0\\\\]"),
                "/abb",
                &any,
                "/a[bb\\]",
            ),
            ("no dollar", regex("(b)", "$1${1}"), "/ab", &any, "/a$1${1}"),
            ("no such group", regex("b", "x\\7"), "/ab", &any, "/ax"),
            ("nothing found", regex("z", "y"), "/ab", &any, "/ab"),
        ] {
            assert_eq!(change.apply(path, matched), want, "{name}");
        }
    }
}
