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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::route::PathChange;
    use crate::model::route::testing::prefix;

    const NOTHING: Redirect = Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: 302,
    };

    #[test]
    fn locations_are_absolute() {
        let host = |host: &str| Some(Arc::from(host));
        let scheme = |scheme: &str, port| Redirect {
            scheme: Some(Arc::from(scheme)),
            port,
            ..NOTHING
        };
        let to = |name: &str| Redirect {
            host: host(name),
            ..NOTHING
        };
        let port = |port| Redirect {
            port: Some(port),
            ..NOTHING
        };
        let path = |change: PathChange| Redirect {
            path: Some(change),
            ..NOTHING
        };
        let full = PathChange::Full(Arc::from("/y"));
        let replaced = PathChange::Prefix(Arc::from("/replacement-prefix"));
        for (name, redirect, asked, service_port, want) in [
            (
                "23 host",
                to("example.org"),
                "echo/x",
                80,
                "http://example.org/x",
            ),
            (
                "23 scheme",
                scheme("https", None),
                "echo/x",
                80,
                "https://echo/x",
            ),
            ("23 port", port(8083), "echo/x", 80, "http://echo:8083/x"),
            ("23 path", path(full), "echo/x", 9000, "http://echo:9000/y"),
            (
                "24 prefix",
                path(replaced),
                "echo/original-prefix/lemon?q=1",
                80,
                "http://echo/replacement-prefix/lemon?q=1",
            ),
            ("24 status alone", NOTHING, "echo/", 80, "http://echo/"),
            (
                "a scheme's own port",
                scheme("https", None),
                "echo:9000/x",
                9000,
                "https://echo/x",
            ),
            (
                "443 is omitted",
                scheme("https", Some(443)),
                "echo/",
                80,
                "https://echo/",
            ),
            (
                "80 is omitted",
                scheme("http", Some(80)),
                "echo/",
                9000,
                "http://echo/",
            ),
            (
                "80 is not https's",
                scheme("https", Some(80)),
                "echo/",
                80,
                "https://echo:80/",
            ),
            (
                "443 is not http's",
                port(443),
                "echo/",
                80,
                "http://echo:443/",
            ),
            (
                "not the Host's port",
                NOTHING,
                "echo:8080/x",
                80,
                "http://echo/x",
            ),
            ("IPv6", NOTHING, "[::1]:8080/x", 9000, "http://[::1]:9000/x"),
            (
                "IPv6, no port",
                NOTHING,
                "[2001:db8::1]/x",
                80,
                "http://[2001:db8::1]/x",
            ),
        ] {
            let (authority, _) = asked.split_once('/').unwrap();
            let path = &asked[authority.len()..];
            let matched = prefix("/original-prefix");
            let got = redirect.location(authority, service_port, path, &matched);
            assert_eq!(got, want, "{name}");
        }
    }
}
