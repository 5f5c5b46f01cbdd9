//! Origins of browsers (RFC 6454 §7, `spec/waypoint-l7.md` §2.5).

use super::OriginPattern;

/// A well-formed origin in lower case, its scheme's default port left out; `None` for all else,
/// `null` included.
pub(super) fn canonical(origin: &str) -> Option<String> {
    let origin = origin.to_ascii_lowercase();
    let (scheme, rest) = origin.split_once("://")?;
    let (host, port) = split(rest)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let scheme_is =
        scheme.starts_with(|c: char| c.is_ascii_lowercase()) && scheme.bytes().all(legal);
    if !scheme_is || !is_host(host) {
        return None;
    }
    match port {
        Some(port) if !is_default(scheme, port.parse().ok()?) => Some(origin),
        Some(_) => Some(format!("{scheme}://{host}")),
        None => Some(origin),
    }
}

/// Host and port.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    let behind = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(behind);
    if port.is_empty() {
        return Some((host, None));
    }
    let port = port.strip_prefix(':')?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    digits.then_some((host, Some(port)))
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !host.is_empty() && host.bytes().all(legal)
}

fn is_default(scheme: &str, port: u16) -> bool {
    matches!((scheme, port), ("http", 80) | ("https", 443))
}

impl OriginPattern {
    /// Whether it takes an origin, as it was received and in its [`canonical`] form.
    pub(super) fn is_match(&self, received: &str, canonical: Option<&str>) -> bool {
        match self {
            Self::Any => canonical.is_some(),
            Self::Exact(want) => canonical == Some(want),
            Self::Wildcard(before, after) => canonical.is_some_and(|origin| {
                let rest = origin.strip_prefix(&**before);
                let star = rest.and_then(|rest| rest.strip_suffix(&**after));
                // A `*` is of the host: it takes no port with it.
                star.is_some_and(|star| !star.is_empty() && !star.contains(':'))
            }),
            Self::Prefix(want) => {
                let start = received.as_bytes().get(..want.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(want.as_bytes()))
            }
            Self::Regex(want) => {
                want.is_match(received) || canonical.is_some_and(|o| want.is_match(o))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::route::Regex;

    #[test]
    fn origins_have_one_form() {
        for (origin, want) in [
            ("https://www.foo.com", Some("https://www.foo.com")),
            ("HTTPS://Foo.com:443", Some("https://foo.com")),
            ("http://foo.com:80", Some("http://foo.com")),
            ("http://foo.com:443", Some("http://foo.com:443")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("http://[::1]:80", Some("http://[::1]")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("null", None),
            ("", None),
            ("foo.com", None),
            ("https://", None),
            ("://foo.com", None),
            ("https://foo.com/", None),
            ("https://a@foo.com", None),
            ("https://foo.com:", None),
            ("https://foo.com:x", None),
            ("https://foo.com:99999", None),
            ("https://foo.com:1:2", None),
            ("https://foo.com https://bar.com", None),
            ("http://[::1", None),
            ("http://[x]", None),
        ] {
            assert_eq!(canonical(origin).as_deref(), want, "{origin}");
        }
    }

    #[test]
    fn patterns_take_origins() {
        let exact = |text: &str| OriginPattern::Exact(Arc::from(text));
        let star = |a: &str, b: &str| OriginPattern::Wildcard(Arc::from(a), Arc::from(b));
        let bar = || star("https://", ".bar.com");
        let prefix = || OriginPattern::Prefix(Arc::from("https://foo"));
        let regex = || OriginPattern::Regex(Regex::new("https://f.o").unwrap());
        for (pattern, origin, want) in [
            (OriginPattern::Any, "https://a.b", true),
            (OriginPattern::Any, "null", false),
            (exact("https://www.foo.com"), "https://WWW.foo.com", true),
            (
                exact("https://www.foo.com"),
                "https://www.foo.com:443",
                true,
            ),
            (
                exact("https://www.foo.com"),
                "https://www.foo.com:8443",
                false,
            ),
            (exact("https://www.foo.com"), "http://www.foo.com", false),
            (bar(), "https://xpto.www.bar.com", true),
            (bar(), "https://a.bar.com:443", true),
            (bar(), "https://a.bar.com:8443", false),
            (bar(), "https://bar.com", false),
            (bar(), "https://.bar.com", false),
            (bar(), "https://foobar.com", false),
            (bar(), "https://evil.com/.bar.com", false),
            (bar(), "https://a.bar.com.evil.com", false),
            (star("https://", ""), "https://a.com", true),
            (star("https://", ""), "https://a.com:8443", false),
            (star("https://", ":8443"), "https://a.com:8443", true),
            (prefix(), "https://FOO.com", true),
            (prefix(), "https://fo", false),
            (regex(), "https://foo", true),
            (regex(), "HTTPS://foo:443", true),
            (regex(), "https://foo.com", false),
        ] {
            let canonical = canonical(origin);
            let got = pattern.is_match(origin, canonical.as_deref());
            assert_eq!(got, want, "{pattern:?} {origin}");
        }
    }
}
