//! Clients that stay with an endpoint (`spec/waypoint-l7.md` §2.7).

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::model::route::{Backend, PersistBy, Persistence, Rule, Session, SessionKey, Target};
use crate::model::waypoint::Destination;

/// Whom a client stays with, by the rule that takes its request.
#[derive(Default)]
pub(super) struct Affinity<'a> {
    persistence: Option<&'a Persistence>,
    /// What its token says.
    session: Option<Session>,
}

impl<'a> Affinity<'a> {
    /// Reads what a request says.
    pub(super) fn read(rule: &'a Rule<Target>, key: &SessionKey, headers: &HeaderMap) -> Self {
        let Some(persistence) = &rule.persistence else {
            return Self::default();
        };
        let token = match &persistence.by {
            PersistBy::Cookie { name, .. } => cookie(headers, name),
            PersistBy::Header { name } => headers.get(&**name).and_then(|v| v.to_str().ok()),
        };
        Self {
            persistence: Some(persistence),
            session: token.and_then(|token| key.open(token)),
        }
    }

    /// The backend of the rule that it stays with, whatever the weights.
    pub(super) fn backend(&self, rule: &'a Rule<Target>) -> Option<&'a Backend<Target>> {
        let session = self.session.as_ref()?;
        let mut backends = rule.backends.iter();
        backends.find(|backend| match &backend.to {
            Target::Service { key, port, subset } => {
                *key == session.service && *port == session.port && *subset == session.subset
            }
            Target::Invalid(_) => false,
        })
    }

    /// The endpoint it stays with.
    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        self.session.as_ref().map(|s| s.endpoint)
    }

    /// What tells the client to stay with who answered; nothing where it does.
    pub(super) fn told(
        &self,
        key: &SessionKey,
        to: &Destination<'_>,
        endpoint: SocketAddr,
    ) -> Option<(HeaderName, HeaderValue)> {
        let persistence = self.persistence?;
        let session = session(to, endpoint)?;
        if self.session.as_ref().is_some_and(|s| same(s, &session)) {
            return None;
        }
        let token = key.seal(&session);
        let (name, value) = match &persistence.by {
            PersistBy::Header { name } => (name.parse().ok()?, token),
            PersistBy::Cookie {
                name,
                path,
                permanent,
            } => {
                let mut cookie = format!("{name}={token}; Path={path}; HttpOnly");
                if let (true, Some(age)) = (permanent, persistence.absolute_timeout) {
                    cookie.push_str(&format!("; Max-Age={}", age.as_secs()));
                }
                (header::SET_COOKIE, cookie)
            }
        };
        Some((name, HeaderValue::from_str(&value).ok()?))
    }
}

fn session(to: &Destination<'_>, endpoint: SocketAddr) -> Option<Session> {
    match to {
        Destination::Service {
            key, port, subset, ..
        } => Some(Session {
            service: (*key).clone(),
            port: *port,
            subset: subset.map(|s| Arc::clone(&s.name)),
            endpoint,
        }),
        Destination::Workload { .. } => None,
    }
}

fn same(a: &Session, b: &Session) -> bool {
    (&a.service, a.port, &a.subset, a.endpoint) == (&b.service, b.port, &b.subset, b.endpoint)
}

/// The first cookie of a name.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let fields = headers.get_all(header::COOKIE).iter();
    let mut pairs = fields
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let found = pairs.find(|(n, _)| *n == name);
    found.map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("a=1; sess=x=y;b=\"2\""),
        );
        headers.append(header::COOKIE, HeaderValue::from_static("c=3; a=4"));
        for (name, want) in [
            ("a", Some("1")),
            ("sess", Some("x=y")),
            ("b", Some("2")),
            ("c", Some("3")),
            ("ses", None),
            ("A", None),
        ] {
            assert_eq!(cookie(&headers, name), want, "{name}");
        }
    }
}
