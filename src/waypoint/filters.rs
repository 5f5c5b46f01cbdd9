//! What is asked of a request before it goes on, in the order of `spec/waypoint-l7.md` §1.7:
//! authorization, authentication, limits, faults. Each filter sees the request as it was asked, before
//! any route changes it, and may answer it instead.

use http::request::Parts;
use http::uri::{Authority, PathAndQuery};

use super::Arrival;
use super::http::Reply;
use super::routing::{Seen, Untold};
use crate::hbone::Connector;
use crate::model::authorization::{Asked, Denial, Http, Verdict};
use crate::telemetry::access_log::chain;

/// Lets a request through, or says what to answer it.
///
/// # Errors
/// The answer.
pub(super) fn request<C: Connector>(
    arrival: &Arrival<C>,
    seen: &Seen,
    parts: &Parts,
    authority: &Authority,
) -> Result<(), Reply> {
    let set = seen.policies(&arrival.bound);
    let set = set.map_err(|untold| Reply::untold(chain(&untold)))?;
    let Some(set) = set.filter(|set| !set.is_empty()) else {
        return Ok(());
    };
    let http = Http {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        target: parts.uri.path_and_query().map_or("", PathAndQuery::as_str),
        authority: authority.as_str(),
        scheme: parts.uri.scheme_str().unwrap_or("http"),
        headers: &parts.headers,
        token: None,
    };
    match set.judge(&asked(arrival, Some(http), None)) {
        Verdict::Allowed(_) => Ok(()),
        Verdict::Denied(denial) => Err(Reply::denied(&denial)),
    }
}

/// Why a connection that is no HTTP does not pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLet {
    #[error(transparent)]
    Untold(#[from] Untold),
    #[error("{}: {denial}", denial.detail())]
    Denied { denial: Denial },
}

/// Lets a connection through that is no HTTP, and asks for `server_name` where it is TLS.
///
/// # Errors
/// [`NotLet`].
pub(super) fn connection<C: Connector>(
    arrival: &Arrival<C>,
    seen: &Seen,
    server_name: Option<&str>,
) -> Result<(), NotLet> {
    let Some(set) = seen.policies(&arrival.bound)? else {
        return Ok(());
    };
    match set.judge(&asked(arrival, None, server_name)) {
        Verdict::Allowed(_) => Ok(()),
        Verdict::Denied(denial) => Err(NotLet::Denied { denial }),
    }
}

fn asked<'a, C: Connector>(
    arrival: &'a Arrival<C>,
    http: Option<Http<'a>>,
    server_name: Option<&'a str>,
) -> Asked<'a> {
    let source = arrival.client.source.ip().to_canonical();
    Asked {
        peer: arrival.client.peer.as_ref(),
        source,
        remote: source,
        destination: arrival.bound.asked(),
        server_name,
        http,
    }
}
