//! Path templates (`spec/labels-and-policy.md` §3.2).

/// One segment that is not empty.
const ONE: &str = "{*}";
/// Any characters, slashes included, or none.
const REST: &str = "{**}";

/// Whether a template, which is one, means a path.
pub(super) fn matches(template: &str, path: &str) -> bool {
    match template.split_once(REST) {
        // What follows it has no operator.
        Some((before, after)) => {
            begins(before, path).is_some_and(|rest| rest.as_bytes().ends_with(after.as_bytes()))
        }
        None => begins(template, path).is_some_and(str::is_empty),
    }
}

/// What each path begins with that a template means.
pub(super) fn beginning(template: &str) -> &str {
    template.split('{').next().unwrap_or_default()
}

/// What is left of a path after what a template without [`REST`] means.
fn begins<'p>(template: &str, path: &'p str) -> Option<&'p str> {
    let mut parts = template.split(ONE);
    let mut rest = path.strip_prefix(parts.next()?)?;
    for literal in parts {
        let end = rest.find('/').unwrap_or(rest.len());
        let after = rest.get(end..).filter(|_| end > 0)?;
        rest = after.strip_prefix(literal)?;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_mean_paths() {
        for (template, hits, misses) in [
            (
                "/foo/{*}",
                &["/foo/bar"][..],
                &["/foo/", "/foo", "/foo/bar/baz", "/foo/bar/"][..],
            ),
            ("/{*}", &["/a"], &["/", "/a/b", ""]),
            ("/{*}/b", &["/a/b"], &["//b", "/a/c", "/a/bb", "/a/b/"]),
            ("/a/{**}", &["/a/", "/a/b/c", "/a//"], &["/a", "/ab/c"]),
            ("/{**}", &["/", "/a", "/a/b"], &["", "a"]),
            (
                "/foo/{**}/",
                &["/foo/bar/", "/foo//", "/foo/a/b/"],
                &["/foo/bar", "/foo/"],
            ),
            (
                "/foo/{*}/bar/{**}",
                &["/foo/x/bar/", "/foo/x/bar/baz", "/foo/buzz/bar/bat.txt"],
                &["/foo//bar/bat.txt", "/foo/x/bar", "/foo/x/y/bar/"],
            ),
            (
                "/store/{**}/cart",
                &["/store//cart", "/store/a/b/cart"],
                &["/store/cart", "/store/a/cart/", "/store/a/carts"],
            ),
            ("/{*}/{*}/{**}", &["/a/b/", "/a/b/c/d"], &["/a/b", "/a//c"]),
            ("/{*}{", &[], &["/a{b"]),
        ] {
            for hit in hits {
                assert!(matches(template, hit), "{template} misses {hit}");
            }
            for miss in misses {
                assert!(!matches(template, miss), "{template} hits {miss}");
            }
        }
    }
}
