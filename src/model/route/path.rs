//! Paths: how they are normalised, and which of them a route means (`spec/waypoint-l7.md` §2.2, §4.3).

use super::PathMatch;
use super::percent::octet;

/// How paths are brought into the form that routing, policy and programs go by: the mesh setting
/// `path-normalization` (`spec/waypoint-l7.md` §4.3). Octets are decoded once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathNormalization {
    /// As they are.
    None,
    /// `\` as `/`, unreserved octets decoded, dot segments removed.
    #[default]
    Base,
    /// The same, then several slashes as one.
    MergeSlashes,
    /// The same, with `%2F` and `%5C` decoded before.
    DecodeAndMergeSlashes,
}

impl PathNormalization {
    /// A path in that form. `None` where it is so already.
    pub fn apply(self, path: &str) -> Option<String> {
        if self == Self::None || !path.starts_with('/') {
            return None;
        }
        let decoded = match self {
            Self::DecodeAndMergeSlashes => slashes(path),
            Self::None | Self::Base | Self::MergeSlashes => None,
        };
        let base = normalised(decoded.as_deref().unwrap_or(path)).or(decoded);
        if self == Self::Base {
            return base;
        }
        merged(base.as_deref().unwrap_or(path)).or(base)
    }
}

impl PathNormalization {
    /// Whether a path that is in this form means the same to whoever reads it. Another is answered 400.
    pub fn is_plain(self, path: &str) -> bool {
        self == Self::None || !has_dots_with_parameters(path)
    }
}

/// A path with its encoded slashes, of either kind, as such.
fn slashes(path: &str) -> Option<String> {
    let is_slash = |at: &usize| {
        let octet = path.as_bytes().get(*at..).and_then(octet);
        matches!(octet, Some(b'/' | b'\\'))
    };
    let mut found = path.match_indices('%').map(|(at, _)| at).filter(is_slash);
    let mut next = found.next()?;
    let mut text = String::with_capacity(path.len());
    let mut from = 0;
    loop {
        text.push_str(path.get(from..next)?);
        text.push('/');
        from = next + 3;
        match found.next() {
            Some(at) => next = at,
            None => break,
        }
    }
    text.push_str(path.get(from..)?);
    Some(text)
}

/// A path whose slashes are never beside one another.
fn merged(path: &str) -> Option<String> {
    path.contains("//").then(|| {
        let mut last = None;
        let mut doubled = |c: &char| last.replace(*c) == Some('/') && *c == '/';
        path.chars().filter(|c| !doubled(c)).collect()
    })
}

/// A path under BASE. `None` where it is so already.
fn normalised(path: &str) -> Option<String> {
    let differs =
        path.starts_with('/') && (0..path.len()).any(|at| differs(&path.as_bytes()[at..]));
    differs.then(|| without_dots(&unreserved(path)))
}

/// Whether every `%` of a path begins an octet, and none is NUL. Another is answered 400 (§4.3).
pub fn well_formed(path: &str) -> bool {
    let octets = path.match_indices('%');
    let mut octets = octets.map(|(at, _)| octet(&path.as_bytes()[at..]));
    octets.all(|octet| octet.is_some_and(|octet| octet != 0))
}

/// Whether a path means two things: some servers take `..;x` for `..` with a parameter, and go up by it
/// where all before them have seen a name. No client writes that.
fn has_dots_with_parameters(path: &str) -> bool {
    let mut segments = path.split('/').filter_map(|s| s.split_once(';'));
    segments.any(|(name, _parameters)| matches!(name, "." | ".."))
}

/// Whether what begins here is not as it is when normalised.
fn differs(rest: &[u8]) -> bool {
    match rest {
        [b'\\', ..] => true,
        [b'%', ..] => octet(rest).is_some_and(is_unreserved),
        [b'/', b'.'] | [b'/', b'.', b'/', ..] => true,
        [b'/', b'.', b'.'] | [b'/', b'.', b'.', b'/', ..] => true,
        _ => false,
    }
}

fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

fn unreserved(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['\\', '%']) {
        text.push_str(&rest[..at]);
        let special = &rest[at..];
        let (taken, instead) = match octet(special.as_bytes()) {
            Some(octet) if is_unreserved(octet) => (3, char::from(octet)),
            _ if special.starts_with('\\') => (1, '/'),
            _ => (1, '%'),
        };
        text.push(instead);
        rest = &special[taken..];
    }
    text.push_str(rest);
    text
}

/// A path without its segments `.` and `..` (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let dots = matches!(segment, "." | "..");
        if segment == ".." {
            text.truncate(text.rfind('/').unwrap_or(0));
        }
        if !dots {
            text.push('/');
            text.push_str(segment);
        } else if segments.peek().is_none() {
            text.push('/');
        }
    }
    text
}

/// A prefix as it counts: `/abc/` means the same as `/abc`, and `/` is everything.
pub(super) fn prefix(written: &str) -> &str {
    written.strip_suffix('/').unwrap_or(written)
}

/// Whether a path begins with the segments of a [`prefix`].
pub(super) fn is_under(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl PathMatch {
    /// Whether it takes a path. A pattern minds case whatever `ignore_case` says.
    pub(super) fn is_match(&self, path: &str, ignore_case: bool) -> bool {
        match self {
            Self::Exact(want) if ignore_case => want.eq_ignore_ascii_case(path),
            Self::Exact(want) => **want == *path,
            Self::Prefix(want) if ignore_case => {
                let lower = path.to_ascii_lowercase();
                is_under(&lower, &prefix(want).to_ascii_lowercase())
            }
            Self::Prefix(want) => is_under(path, prefix(want)),
            Self::TextPrefix(want) if ignore_case => {
                let start = path.as_bytes().get(..want.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(want.as_bytes()))
            }
            Self::TextPrefix(want) => path.starts_with(&**want),
            Self::Regex(want) => want.is_match(path),
        }
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_normalised_once() {
        for (path, want) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a\\b", "/a/b"),
            ("/%41%2d%7E", "/A-~"),
            ("/%2e%2E/x", "/x"),
            ("/../x", "/x"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/public/../private", "/private"),
            ("/public/%2E%2E/private", "/private"),
            ("/public/%2e/%2e%2e/private", "/private"),
            ("/a\\..\\b", "/b"),
            // What stays.
            ("/a%2Fb%5cc", "/a%2Fb%5cc"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/%c3%A4 ä", "/%c3%A4 ä"),
            ("/.a/..b/c.", "/.a/..b/c."),
            ("/%4", "/%4"),
            ("*", "*"),
            ("", ""),
        ] {
            let got = normalised(path);
            assert_eq!(got.as_deref().unwrap_or(path), want, "{path}");
            assert_eq!(
                got.is_some(),
                path != want,
                "{path} is copied only if it changes"
            );
        }
    }

    #[test]
    fn each_form_goes_as_far_as_it_says() {
        use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
        for (path, none, base, merge, decode) in [
            ("/", "/", "/", "/", "/"),
            ("//admin", "//admin", "//admin", "/admin", "/admin"),
            ("/%2Fadmin", "/%2Fadmin", "/%2Fadmin", "/%2Fadmin", "/admin"),
            ("/a%5cb", "/a%5cb", "/a%5cb", "/a%5cb", "/a/b"),
            ("/a/../b", "/a/../b", "/b", "/b", "/b"),
            (
                "/a%2f..%2Fb",
                "/a%2f..%2Fb",
                "/a%2f..%2Fb",
                "/a%2f..%2Fb",
                "/b",
            ),
            ("/a\\\\b", "/a\\\\b", "/a//b", "/a/b", "/a/b"),
            ("/%252Fa", "/%252Fa", "/%252Fa", "/%252Fa", "/%252Fa"),
            ("///a////b/", "///a////b/", "///a////b/", "/a/b/", "/a/b/"),
            ("*", "*", "*", "*", "*"),
        ] {
            for (mode, want) in [
                (None, none),
                (Base, base),
                (MergeSlashes, merge),
                (DecodeAndMergeSlashes, decode),
            ] {
                let got = mode.apply(path);
                assert_eq!(got.as_deref().unwrap_or(path), want, "{path} {mode:?}");
            }
        }
    }

    #[test]
    fn malformed_octets_are_found() {
        for (path, want) in [
            ("/", true),
            ("/%41%2f%ff", true),
            ("/%00", false),
            ("/%", false),
            ("/%4", false),
            ("/%4g", false),
            ("/%41%", false),
        ] {
            assert_eq!(well_formed(path), want, "{path}");
        }
    }

    #[test]
    fn dot_segments_have_no_parameters() {
        let base = PathNormalization::Base;
        for (path, want) in [
            ("/a/..;/b", false),
            ("/a/..;x=y", false),
            ("/.;/b", false),
            ("/..;", false),
            ("/a;x=y/b", true),
            ("/a/...;x", true),
            ("/..a;x", true),
            ("/a..;x", true),
            ("/;..", true),
            ("/..%3b/a", true),
        ] {
            assert_eq!(base.is_plain(path), want, "{path}");
            assert!(PathNormalization::None.is_plain(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normalised_path_stays_as_it_is(path in "/([ab./%\\\\]|%2e|%2F|%5c|%41|%25|ä){0,12}") {
            prop_assume!(well_formed(&path));
            for mode in [
                PathNormalization::Base,
                PathNormalization::MergeSlashes,
                PathNormalization::DecodeAndMergeSlashes,
            ] {
                let once = mode.apply(&path).unwrap_or_else(|| path.clone());
                prop_assert_eq!(mode.apply(&once), None, "{} from {} {:?}", once, path, mode);
                prop_assert!(once.starts_with('/'));
                prop_assert!(once.split('/').all(|segment| !matches!(segment, "." | "..")));
                prop_assert!(mode == PathNormalization::Base || !once.contains("//"));
            }
        }
    }
}
