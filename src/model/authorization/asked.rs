//! What policies look at (`spec/waypoint-l7.md` §4.2).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use super::Token;
use crate::model::policy::Peer;

/// A request, or a connection that is no HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asks; none where he has proven to be no workload.
    pub peer: Option<&'a Peer>,
    /// Where he connects from.
    pub source: IpAddr,
    /// The first client's address.
    pub remote: IpAddr,
    /// What was asked for: the service's address and port, or the workload's.
    pub destination: SocketAddr,
    /// The server name that inner TLS asks for.
    pub server_name: Option<&'a str>,
    /// The request; none where it is no HTTP.
    pub http: Option<Http<'a>>,
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct Http<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, normalised, without query.
    pub path: &'a str,
    /// Its path with the query.
    pub target: &'a str,
    /// `Host` or `:authority`, with its port where it has one.
    pub authority: &'a str,
    /// Its scheme.
    pub scheme: &'a str,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// The token that was validated, if any was.
    pub token: Option<&'a Token>,
}

impl<'a> Http<'a> {
    /// A field by its name in lower case: several lines joined with commas, HTTP/2's own fields by their
    /// names there. None where it is absent.
    pub fn header(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let own = match name {
            ":method" => Some(self.method),
            ":path" => Some(self.target),
            ":authority" | "host" => Some(self.authority),
            ":scheme" => Some(self.scheme),
            _ => None,
        };
        if let Some(own) = own {
            return Some(Cow::Borrowed(own.as_bytes()));
        }
        let mut lines = self.headers.get_all(name).iter();
        let first = Cow::Borrowed(lines.next()?.as_bytes());
        Some(lines.fold(first, |joined, line| {
            let mut joined = joined.into_owned();
            joined.push(b',');
            joined.extend_from_slice(line.as_bytes());
            Cow::Owned(joined)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let mut headers = HeaderMap::new();
        headers.append("x-role", "user".parse().unwrap());
        headers.append("x-role", "admin".parse().unwrap());
        headers.append("x-none", "".parse().unwrap());
        let http = Http {
            method: "GET",
            path: "/a",
            target: "/a?b=c",
            authority: "Cart:80",
            scheme: "http",
            headers: &headers,
            token: None,
        };
        for (name, want) in [
            (":method", Some("GET")),
            (":path", Some("/a?b=c")),
            (":authority", Some("Cart:80")),
            ("host", Some("Cart:80")),
            (":scheme", Some("http")),
            ("x-role", Some("user,admin")),
            ("x-none", Some("")),
            ("x-other", None),
        ] {
            let found = http.header(name);
            assert_eq!(found.as_deref(), want.map(str::as_bytes), "{name}");
        }
    }
}
