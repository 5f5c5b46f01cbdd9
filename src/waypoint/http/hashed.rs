//! What of a request is hashed, so that those alike in it go to the same endpoint
//! (`spec/waypoint-l7.md` §3.4, `consistent-hash`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::request::Parts;

use super::affinity::cookie;
use crate::model::balance::hash;
use crate::model::route::query_parameter;
use crate::model::traffic::{Balance, HashKey};
use crate::waypoint::endpoints::Ruled;

/// A request's key, and what gives the client one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hashed {
    /// Absent where it has none, or nobody asks: it goes to any endpoint.
    pub(super) key: Option<u64>,
    /// The cookie it is hashed by from now on, for `set-cookie`.
    pub(super) cookie: Option<HeaderValue>,
}

impl Hashed {
    /// The key of a client's own request.
    pub(super) fn read(ruled: &Ruled, request: &Parts, client: SocketAddr) -> Self {
        match &ruled.settings().load_balancer.policy {
            Balance::Hash { key, .. } => Self::by(key, request, client),
            _ => Self::default(),
        }
    }

    fn by(key: &HashKey, request: &Parts, client: SocketAddr) -> Self {
        let text = |text: &str| Self {
            key: Some(hash(text.as_bytes(), 0)),
            cookie: None,
        };
        let none = Self::default;
        match key {
            HashKey::Header(name) => {
                let fields: Vec<&[u8]> = request
                    .headers
                    .get_all(&**name)
                    .iter()
                    .map(HeaderValue::as_bytes)
                    .collect();
                let key = (!fields.is_empty()).then(|| hash(&fields.join(&b','), 0));
                Self { key, cookie: None }
            }
            HashKey::Cookie { name, path, ttl } => {
                let given = cookie(&request.headers, name).filter(|value| !value.is_empty());
                match (given, ttl) {
                    (Some(given), _) => text(given),
                    (None, Some(ttl)) => Self::issued(name, path.as_ref(), *ttl),
                    (None, None) => none(),
                }
            }
            HashKey::SourceIp => text(&client.ip().to_canonical().to_string()),
            HashKey::Query(name) => {
                let value = request.uri.query().and_then(|q| query_parameter(q, name));
                value.map_or_else(none, |value| text(&value))
            }
        }
    }

    fn issued(name: &str, path: Option<&Arc<str>>, ttl: Duration) -> Self {
        let value = format!("{:032x}", rand::random::<u128>());
        let mut cookie = format!("{name}={value}");
        if !ttl.is_zero() {
            cookie.push_str(&format!("; Max-Age={}", ttl.as_secs().max(1)));
        }
        if let Some(path) = path {
            cookie.push_str(&format!("; Path={path}"));
        }
        cookie.push_str("; HttpOnly");
        Self {
            key: Some(hash(value.as_bytes(), 0)),
            // Name and path were judged as they were read.
            cookie: HeaderValue::from_str(&cookie).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = Request::get(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn by(key: &HashKey, request: &Parts) -> Hashed {
        Hashed::by(key, request, "10.1.0.1:4000".parse().unwrap())
    }

    fn session(ttl: Option<u64>) -> HashKey {
        HashKey::Cookie {
            name: Arc::from("user"),
            path: Some(Arc::from("/shop")),
            ttl: ttl.map(Duration::from_secs),
        }
    }

    #[test]
    fn the_key_is_where_the_policy_says() {
        let header = HashKey::Header(Arc::from("x-user"));
        let query = HashKey::Query(Arc::from("user"));
        for (name, key, target, fields, want) in [
            (
                "a header",
                &header,
                "/",
                &[("x-user", "ann")][..],
                Some("ann"),
            ),
            (
                "several",
                &header,
                "/",
                &[("x-user", "a"), ("x-user", "b")],
                Some("a,b"),
            ),
            ("no header", &header, "/", &[], None),
            (
                "a cookie",
                &session(Some(60)),
                "/",
                &[("cookie", "a=b; user=ann")],
                Some("ann"),
            ),
            ("no cookie", &session(None), "/", &[], None),
            ("an address", &HashKey::SourceIp, "/", &[], Some("10.1.0.1")),
            ("a parameter", &query, "/?a=b&user=a%6En", &[], Some("ann")),
            ("no parameter", &query, "/?a=b", &[], None),
        ] {
            let hashed = by(key, &request(target, fields));
            let want = want.map(|text: &str| hash(text.as_bytes(), 0));
            assert_eq!(hashed.key, want, "{name}");
            assert_eq!(hashed.cookie, None, "{name}");
        }
    }

    #[test]
    fn who_has_no_cookie_is_given_one_that_leads_to_the_same_endpoint() {
        for (ttl, age) in [(60, "; Max-Age=60"), (0, "")] {
            let issued = by(&session(Some(ttl)), &request("/", &[]));
            let cookie = issued.cookie.unwrap();
            let cookie = cookie.to_str().unwrap();
            let (pair, rest) = cookie.split_at(cookie.find(';').unwrap());
            assert_eq!(rest, format!("{age}; Path=/shop; HttpOnly"));
            let again = by(&session(Some(ttl)), &request("/", &[("cookie", pair)]));
            assert_eq!(again.key, issued.key);
            assert_eq!(again.cookie, None);
        }
    }
}
