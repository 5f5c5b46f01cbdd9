//! Whether policies allow it (`spec/waypoint-l7.md` §4).

use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use tracing::info;

use super::{Found, NotLet};
use crate::hbone::Connector;
use crate::model::authorization::{Asked, Http, Set, Token, Verdict};
use crate::model::policy::Peer;
use crate::waypoint::Arrival;
use crate::waypoint::http::Reply;
use crate::waypoint::routing::Seen;

/// Judges a request.
pub(super) fn request<C: Connector>(
    (arrival, seen): (&Arrival<C>, &Seen),
    set: &Set,
    parts: &Parts,
    authority: &Authority,
    found: &mut Found,
) -> Result<(), Reply> {
    if set.is_empty() {
        return Ok(());
    }
    let http = http(parts, authority, found.token.as_ref());
    let asked = asked((arrival, seen), Some(http), None);
    let marks = set.marks(&asked);
    let verdict = set.judge(&asked);
    found.marks = marks;
    match verdict {
        Verdict::Allowed(_) => Ok(()),
        Verdict::Denied(denial) => Err(Reply::denied(&denial)),
    }
}

/// Judges a connection that is no HTTP. What policies say that decides nothing is told here: such a
/// connection has no other line before its end.
pub(super) fn connection<C: Connector>(
    (arrival, seen): (&Arrival<C>, &Seen),
    set: &Set,
    server_name: Option<&str>,
) -> Result<(), NotLet> {
    let asked = asked((arrival, seen), None, server_name);
    for mark in set.marks(&asked) {
        arrival.shared.metrics.marked(&mark);
        info!(
            src.addr = %asked.source,
            src.principal = asked.peer.map(Peer::principal),
            dst.addr = %asked.destination,
            policy = %mark,
            "policy mark"
        );
    }
    match set.judge(&asked) {
        Verdict::Allowed(_) => Ok(()),
        Verdict::Denied(denial) => Err(NotLet::Denied { denial }),
    }
}

/// A request as policies see it.
pub(super) fn http<'a>(
    parts: &'a Parts,
    authority: &'a Authority,
    token: Option<&'a Token>,
) -> Http<'a> {
    Http {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        target: parts.uri.path_and_query().map_or("", PathAndQuery::as_str),
        authority: authority.as_str(),
        scheme: parts.uri.scheme_str().unwrap_or("http"),
        headers: &parts.headers,
        token,
    }
}

/// What policies look at.
pub(super) fn asked<'a, C: Connector>(
    (arrival, seen): (&'a Arrival<C>, &Seen),
    http: Option<Http<'a>>,
    server_name: Option<&'a str>,
) -> Asked<'a> {
    let source = arrival.client.source.ip().to_canonical();
    let peer = arrival.client.peer.as_ref();
    let trusted = &seen.options().trusted;
    Asked {
        peer,
        source,
        remote: http.map_or(source, |http| trusted.remote(peer, source, http.headers)),
        destination: arrival.bound.asked(),
        server_name,
        http,
    }
}
