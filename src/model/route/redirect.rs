//! Where a client is sent (`spec/waypoint-l7.md` §2.4).

use super::{Match, Redirect};

impl Redirect {
    /// The `Location` of an answer to a request for `host`, as it was received, on a service port.
    pub fn location(&self, host: &str, port: u16, path_and_query: &str, matched: &Match) -> String {
        let scheme = self.scheme.as_deref().unwrap_or("http");
        let host = self.host.as_deref().unwrap_or_else(|| without_port(host));
        let usual = if scheme == "https" { 443 } else { 80 };
        let named = self.scheme.is_some().then_some(usual);
        let port = self.port.or(named).unwrap_or(port);
        let path = match &self.path {
            Some(change) => change.apply(path_and_query, matched),
            None => path_and_query.to_owned(),
        };
        if port == usual {
            format!("{scheme}://{host}{path}")
        } else {
            format!("{scheme}://{host}:{port}{path}")
        }
    }
}

/// A host without its port; the colons of an IPv6 address are within brackets.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !open(host) => host,
        _ => authority,
    }
}

fn open(host: &str) -> bool {
    host.contains('[') && !host.ends_with(']')
}
