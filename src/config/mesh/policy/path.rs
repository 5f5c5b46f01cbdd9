//! Paths: texts with a star at one end, and templates (`spec/labels-and-policy.md` §3.2).

use std::sync::Arc;

use super::values;
use crate::config::read::Value;
use crate::model::declaration::PathPattern;

/// One segment that is not empty.
const ONE: &str = "{*}";
/// Anything, slashes included.
const REST: &str = "{**}";

pub(super) fn read(value: &Value<'_>) -> Option<PathPattern> {
    let text = value.text()?;
    if !text.contains(['{', '}']) {
        return values::pattern(value).map(PathPattern::Text);
    }
    let Some(fault) = fault(text) else {
        return Some(PathPattern::Template(Arc::from(text)));
    };
    value.bad(
        &format!("{fault}: {text:?}"),
        "not a template",
        "write whole segments, `{*}` for one and `{**}` once for any number, as in `\"/shop/{*}/items/{**}\"`",
    );
    None
}

/// What keeps a text with braces from being a template.
fn fault(text: &str) -> Option<&'static str> {
    let Some(path) = text.strip_prefix('/') else {
        return Some("is a template that does not begin with `/`");
    };
    // Either end may be a bare slash, which is literal.
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut rest_before = false;
    for segment in path.split('/') {
        match segment {
            ONE | REST if rest_before => return Some("has an operator after `{**}`"),
            ONE => {}
            REST => rest_before = true,
            "" => return Some("is a template with an empty segment"),
            _ if segment.contains(['{', '}']) => {
                return Some("has a brace that is not a whole segment `{*}` or `{**}`");
            }
            _ if segment.contains('*') => return Some("is a template with a bare `*`"),
            _ if !segment.bytes().all(is_literal) => {
                return Some("is a template with a character that templates do not have");
            }
            _ => {}
        }
    }
    None
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn templates_are_judged() {
        for (text, good) in [
            ("/{*}", true),
            ("/{**}", true),
            ("/foo/{*}", true),
            ("/foo/{*}/bar/{**}", true),
            ("/foo/{**}/", true),
            ("/foo/{**}/bar", true),
            ("/{*}/{*}/{**}", true),
            ("/a-._~%!$&'()+,;:@=/{*}", true),
            ("/*/baz/{*}", false),
            ("/{**}/foo/{*}", false),
            ("/{**}/{**}", false),
            ("/foo/{*}.txt", false),
            ("/foo/{***}", false),
            ("/foo/{a}", false),
            ("/foo/}", false),
            ("/foo*/{*}", false),
            ("/foo//{*}", false),
            ("foo/{*}", false),
            ("{*}", false),
            ("/föö/{*}", false),
            ("/foo?x/{*}", false),
        ] {
            assert_eq!(fault(text).is_none(), good, "{text}");
        }
    }
}
