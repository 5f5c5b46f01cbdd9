//! Paths in their forms, and the same by a reference that goes by the words of `spec/waypoint-l7.md` §4.3
//! one after the other: `spec/reliability.md` §2 rows 20 and 21.

use super::*;

/// Octets of a path by the characters that write them. Each is one of these all along, so that what was
/// decoded is not decoded again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// As it is.
    Plain(char),
    /// `%` and two digits, as they are written.
    Octet(u8, String),
}

fn pieces(path: &str) -> Vec<Piece> {
    let all: Vec<char> = path.chars().collect();
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(c) = all.get(at) {
        let digits: String = all.iter().skip(at + 1).take(2).collect();
        match u8::from_str_radix(&digits, 16) {
            Ok(octet) if *c == '%' && digits.len() == 2 => {
                pieces.push(Piece::Octet(octet, digits));
                at += 3;
            }
            _ => {
                pieces.push(Piece::Plain(*c));
                at += 1;
            }
        }
    }
    pieces
}

fn reference(form: PathNormalization, path: &str) -> String {
    if form == PathNormalization::None {
        return path.to_owned();
    }
    let mut pieces = pieces(path);
    for piece in &mut pieces {
        let decoded = match *piece {
            Piece::Octet(b'/' | b'\\', _) if form == PathNormalization::DecodeAndMergeSlashes => {
                Some('/')
            }
            Piece::Octet(octet, _) if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) => {
                Some(char::from(octet))
            }
            Piece::Plain('\\') => Some('/'),
            _ => None,
        };
        if let Some(decoded) = decoded {
            *piece = Piece::Plain(decoded);
        }
    }
    // RFC 3986 §5.2.4 by segments: the last of them may be empty.
    let segments: Vec<&[Piece]> = pieces.split(|p| *p == Piece::Plain('/')).skip(1).collect();
    let is = |segment: &[Piece], text: &str| {
        let plain = text.chars().map(Piece::Plain);
        plain.eq(segment.iter().cloned())
    };
    let mut kept: Vec<&[Piece]> = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        if is(segment, "..") {
            kept.pop();
        }
        match is(segment, "..") || is(segment, ".") {
            true if last => kept.push(&[]),
            true => {}
            false => kept.push(segment),
        }
    }
    if form != PathNormalization::Base {
        let last = kept.len().saturating_sub(1);
        let mut at = 0;
        kept.retain(|segment| {
            at += 1;
            !segment.is_empty() || at == last + 1
        });
    }
    let written = kept.iter().map(|segment| {
        let written = segment.iter().map(|piece| match piece {
            Piece::Plain(c) => c.to_string(),
            Piece::Octet(_, digits) => format!("%{digits}"),
        });
        format!("/{}", written.collect::<String>())
    });
    written.collect()
}

/// What stands between, and what is asked for by it.
const BETWEEN: [&str; 26] = [
    "/",
    "//",
    "///",
    "/./",
    "/../",
    "/x/../",
    "/x/./../",
    "/x/y/../../",
    "/%2e/",
    "/%2E%2e/",
    "/x/%2e%2E/",
    "/x/.%2e/",
    "/%2F",
    "/%2f%2F",
    "/x%2f..%2F",
    "/x%5C..%5c",
    "\\",
    "/\\",
    "/x\\..\\",
    "/a;x/",
    "/a;x/..;/",
    "/..;/",
    "/%252e%252e/",
    "/%252F",
    "/%c0%ae%c0%ae/",
    "/.../",
];
const ENDS: [&str; 10] = [
    "admin",
    "%61dmin",
    "%41dmin",
    "admin/",
    "admin/..",
    "admin%2f",
    "admin;a=b",
    "",
    ".",
    "admin/.%2e/x",
];
const BEGINS: [&str; 3] = ["", "/public", "/public/"];

#[test]
fn paths_are_what_a_reference_makes_of_them() {
    let mut tried = 0;
    for begin in BEGINS {
        for between in BETWEEN {
            for end in ENDS {
                let path = format!("{begin}{between}{end}");
                if !path.starts_with('/') {
                    continue;
                }
                for form in [
                    PathNormalization::None,
                    PathNormalization::Base,
                    PathNormalization::MergeSlashes,
                    PathNormalization::DecodeAndMergeSlashes,
                ] {
                    let made = form.apply(&path).unwrap_or_else(|| path.clone());
                    assert_eq!(made, reference(form, &path), "{path} {form:?}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried >= 2000, "{tried}");
}

#[test]
fn the_reference_is_right_where_that_is_plain() {
    use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes};
    for (form, path, want) in [
        (Base, "/../x", "/x"),
        (Base, "/%2E/%41", "/A"),
        (Base, "/a//../b", "/a/b"),
        (Base, "/a/..", "/"),
        (MergeSlashes, "//a//b//", "/a/b/"),
        (DecodeAndMergeSlashes, "/a%2F%5cb%252f", "/a/b%252f"),
    ] {
        assert_eq!(reference(form, path), want, "{path} {form:?}");
    }
}
