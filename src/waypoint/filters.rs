//! What is asked of a request before it goes on, in the order of `spec/waypoint-l7.md` §1.7:
//! authorization, authentication, limits. Each filter sees the request as it was asked, before any
//! route changes it, and may answer it instead; faults and CORS are the route's.

mod authorization;
mod limits;
mod standing;

use http::HeaderMap;
use http::request::Parts;
use http::uri::Authority;

use super::Arrival;
use super::http::Reply;
use super::routing::{Seen, Untold};
use crate::hbone::Connector;
use crate::model::authorization::{Denial, Mark, Token};
use crate::telemetry::access_log::chain;
pub(super) use limits::Strictest;
pub(super) use standing::{Head, Standing};

/// What the filters have found of a request, whether it passes or not.
#[derive(Default)]
pub(super) struct Found {
    /// The token that vouches for whoever asks.
    pub(super) token: Option<Token>,
    /// What policies say that decides nothing.
    pub(super) marks: Vec<Mark>,
    /// The rate limit that answers for it.
    pub(super) limit: Option<Strictest>,
    /// Fields of the answer, whoever gives it.
    pub(super) answer: HeaderMap,
}

/// Lets a request through, or says what to answer it. They may add to its fields and take from them.
///
/// # Errors
/// The answer.
#[expect(clippy::unused_async, reason = "others are to be asked")]
pub(super) async fn request<C: Connector>(
    arrival: &Arrival<C>,
    seen: &Seen,
    parts: &mut Parts,
    authority: &Authority,
    found: &mut Found,
) -> Result<(), Reply> {
    let attached = seen.attached(&arrival.bound);
    let attached = attached.map_err(|untold| Reply::untold(chain(&untold)))?;
    let Some(attached) = attached else {
        return Ok(());
    };
    authorization::request(
        (arrival, seen),
        attached.policies(),
        parts,
        authority,
        found,
    )?;
    let limits = attached.limits();
    let limits = limits.map_err(|untold| Reply::untold(chain(&untold)))?;
    limits::request((arrival, seen), limits, parts, authority, found)
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
    match seen.attached(&arrival.bound)? {
        Some(attached) => {
            authorization::connection((arrival, seen), attached.policies(), server_name)
        }
        None => Ok(()),
    }
}
