//! What is asked of a request before it goes on, in the order of `spec/waypoint-l7.md` §1.7:
//! authorization, authentication, limits. Each filter sees the request as it was asked, before any
//! route changes it, and may answer it instead; faults and CORS are the route's.

mod authentication;
mod authorization;
mod custom;
mod limits;
mod standing;

use http::HeaderMap;
use http::request::Parts;
use http::uri::Authority;

use super::Arrival;
use super::http::{Received, Reply};
use super::routing::{Seen, Untold};
use crate::causes::chain;
use crate::hbone::Connector;
use crate::model::authorization::{Denial, Mark, Token};

pub(super) use custom::Unseen;
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
    /// Fields of the answer, whoever gives it, in place of its own.
    pub(super) answer: HeaderMap,
    /// Fields that stand beside the answer's own.
    pub(super) answer_added: HeaderMap,
    /// What was changed of the request that its routes do not see.
    pub(super) unseen: Unseen,
}

/// Lets a request through, or says what to answer it. They may add to its fields and take from them.
///
/// # Errors
/// The answer.
pub(super) async fn request<C: Connector + Clone>(
    arrival: &Arrival<C>,
    seen: &Seen,
    parts: &mut Parts,
    authority: &Authority,
    body: &mut Received,
    found: &mut Found,
) -> Result<(), Reply> {
    let attached = seen.attached(&arrival.bound);
    let attached = attached.map_err(|untold| Reply::untold(chain(&untold)))?;
    let Some(attached) = attached else {
        return Ok(());
    };
    let place = (arrival, seen);
    let policies = attached.policies();
    custom::request(place, attached, parts, authority, body, found).await?;
    let authentications = attached.authentications();
    authentication::request(arrival, authentications, parts, authority, found).await?;
    authorization::request(place, policies, parts, authority, found)?;
    let limits = attached.limits();
    let limits = limits.map_err(|untold| Reply::untold(chain(&untold)))?;
    limits::request(place, limits, parts, authority, found)
}

/// Why a connection that is no HTTP does not pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLet {
    #[error(transparent)]
    Untold(#[from] Untold),
    #[error("{}: {denial}", denial.detail())]
    Denied { denial: Denial },
    #[error("{reason}")]
    Asked { reason: String },
}

/// Lets a connection through that is no HTTP, and asks for `server_name` where it is TLS.
///
/// # Errors
/// [`NotLet`].
pub(super) async fn connection<C: Connector + Clone>(
    arrival: &Arrival<C>,
    seen: &Seen,
    server_name: Option<&str>,
) -> Result<(), NotLet> {
    let Some(attached) = seen.attached(&arrival.bound)? else {
        return Ok(());
    };
    custom::connection((arrival, seen), attached, server_name).await?;
    authorization::connection((arrival, seen), attached.policies(), server_name)
}
