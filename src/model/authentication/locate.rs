//! Where tokens are in a request (`spec/labels-and-policy.md` §5.1). Every place that holds one counts:
//! nobody hides a bad token behind a good one by saying it twice.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::COOKIE;

use super::Request;
use crate::model::declaration::Location;
use crate::model::route::query_parameters;

/// The tokens of a place; nothing at all is no token.
pub(super) fn tokens<'r>(at: &Location, request: &Request<'r>) -> Vec<Cow<'r, str>> {
    let mut found = match at {
        Location::Header { name, prefix } => {
            let lines = request.headers.get_all(name).iter();
            let begun = lines.filter_map(|line| line.as_bytes().strip_prefix(prefix.as_bytes()));
            begun.map(|rest| text(rest.trim_ascii())).collect()
        }
        Location::Parameter(name) => {
            let query = request.query.unwrap_or_default();
            query_parameters(query, name).collect()
        }
        Location::Cookie(name) => cookies(request.headers, name),
    };
    found.retain(|token| !token.is_empty());
    found
}

/// What is no UTF-8 is no token either, and is found to be none by whoever reads it.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn cookies<'r>(headers: &'r HeaderMap, name: &str) -> Vec<Cow<'r, str>> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    let values = pairs.filter_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        let value = value.strip_prefix(b"=")?.trim_ascii();
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""));
        Some(text(quoted.unwrap_or(value)))
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderName, HeaderValue, Method};

    use super::*;

    fn header(name: &'static str, prefix: &str) -> Location {
        Location::Header {
            name: HeaderName::from_static(name),
            prefix: Arc::from(prefix),
        }
    }

    #[test]
    fn tokens_are_found_where_they_may_be() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", &b"Bearer a.b.c"[..]),
            ("authorization", b"bearer d.e.f"),
            ("authorization", b"Basic abc"),
            ("authorization", b"Bearer   g.h.i  "),
            ("x-jwt", b"Value j"),
            ("x-jwt", b"Value "),
            ("x-bare", b"k"),
            ("x-odd", b"\xff"),
            ("cookie", b"a=1; jwt=l; jwt2=x; jwt=\"m\""),
            ("cookie", b"jwt=n;jwt="),
        ] {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(name, value);
        }
        let request = Request {
            method: &Method::GET,
            headers: &headers,
            query: Some("access_token=o&x=1&access_token=%70&access_token="),
        };
        for (at, want) in [
            (header("authorization", "Bearer "), &["a.b.c", "g.h.i"][..]),
            (header("x-jwt", "Value "), &["j"]),
            (header("x-jwt", "value "), &[]),
            (header("x-bare", ""), &["k"]),
            (header("x-odd", ""), &["\u{fffd}"]),
            (header("x-none", ""), &[]),
            (Location::Parameter(Arc::from("access_token")), &["o", "p"]),
            (Location::Parameter(Arc::from("token")), &[]),
            (Location::Cookie(Arc::from("jwt")), &["l", "m", "n"]),
            (Location::Cookie(Arc::from("none")), &[]),
        ] {
            assert_eq!(tokens(&at, &request), want, "{at:?}");
        }
    }
}
