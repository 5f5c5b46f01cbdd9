//! Whether providers allow it (`spec/waypoint-l7.md` §4.4). Whoever cannot be asked has not allowed it,
//! unless the mesh says that what he cannot be asked about passes.

mod answer;
mod grpc;
mod http;

use ::http::request::Parts;
use ::http::uri::Authority;
use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use hyper::body::Body as _;
use tracing::{debug, warn};

use super::authorization::{self, asked};
use super::{Found, NotLet};
use crate::causes::chain;
use crate::hbone::Connector;
use crate::model::authorization::Question;
use crate::model::declaration::{CheckOver, CheckedBody};
use crate::model::waypoint::Extension;
use crate::telemetry::Asked as Outcome;
use crate::waypoint::Arrival;
use crate::waypoint::attached::InForce;
use crate::waypoint::http::{Ask, Beginning, Received, Reply, Unanswered, Unread};
use crate::waypoint::routing::Seen;
use answer::Decision;
pub(in crate::waypoint) use answer::Unseen;

/// Octets of an answer's body: more than a page that says no, and less than what hurts.
const ANSWER: usize = 256 << 10;

/// Why a provider has not decided.
#[derive(Debug, thiserror::Error)]
enum Undecided {
    #[error("it does not answer in time")]
    Late,
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("gRPC status {0}")]
    Grpc(String),
    #[error("its answer is none: {0}")]
    Malformed(&'static str),
    #[error("connections are not asked about over HTTP")]
    NotOfConnections,
}

/// What a provider is asked about.
struct About<'a, C: Connector> {
    arrival: &'a Arrival<C>,
    seen: &'a Seen,
    /// Absent of a connection that is no HTTP.
    request: Option<Request<'a>>,
    /// The server name that inner TLS asks for.
    server_name: Option<&'a str>,
}

/// A request that a provider is asked about.
#[derive(Clone, Copy)]
struct Request<'a> {
    parts: &'a Parts,
    authority: &'a Authority,
    /// The beginning of its body, where the provider is told of it.
    body: Option<&'a Beginning>,
}

/// Asks about a request.
pub(super) async fn request<C: Connector + Clone>(
    (arrival, seen): (&Arrival<C>, &Seen),
    attached: InForce<'_>,
    parts: &mut Parts,
    authority: &Authority,
    body: &mut Received,
    found: &mut Found,
) -> Result<(), Reply> {
    let http = authorization::http(parts, authority, None);
    let questions = attached
        .policies()
        .questions(&asked((arrival, seen), Some(http), None));
    for question in questions {
        let Some(provider) = attached.extension(&question.provider) else {
            return Err(unknown(arrival, &question));
        };
        let sent = match provider.check.body {
            Some(limit) => Some(beginning(arrival, body, limit).await?),
            None => None,
        };
        let about = About {
            arrival,
            seen,
            request: Some(Request {
                parts,
                authority,
                body: sent.as_ref(),
            }),
            server_name: None,
        };
        let decision = decide(&about, provider).await;
        // What only the provider may say is the client's no longer, whatever became of the question.
        if let CheckOver::Http(http) = &provider.check.over {
            answer::strip(&mut parts.headers, &http.upstream_on_allow);
        }
        let applied = decision.and_then(|decision| match decision {
            Decision::Allow(changes) => {
                let cleared = provider.check.clear_route_cache;
                changes.apply(parts, found, cleared).map(|()| None)
            }
            Decision::Deny(denied) => Ok(Some(denied)),
        });
        conclude(arrival, &question, provider, applied)?;
    }
    Ok(())
}

/// What becomes of the request.
fn conclude<C: Connector>(
    arrival: &Arrival<C>,
    question: &Question,
    provider: &Extension,
    applied: Result<Option<answer::Denied>, Undecided>,
) -> Result<(), Reply> {
    let Question {
        provider: name,
        cause,
    } = question;
    let metrics = &arrival.shared.metrics;
    match applied {
        Ok(None) => {
            metrics.provider_asked(name, Outcome::allowed);
            Ok(())
        }
        Ok(Some(denied)) => {
            metrics.provider_asked(name, Outcome::denied);
            let reason = format!("ext_authz_denied: by provider {name}, asked by {cause}");
            Err(Reply::provider_denied(
                denied.status,
                denied.headers,
                denied.body,
                reason,
            ))
        }
        Err(undecided) => failed(arrival, question, provider, &undecided),
    }
}

fn failed<C: Connector>(
    arrival: &Arrival<C>,
    question: &Question,
    provider: &Extension,
    undecided: &Undecided,
) -> Result<(), Reply> {
    let (name, why) = (&question.provider, chain(undecided));
    let metrics = &arrival.shared.metrics;
    if provider.check.fail_open {
        metrics.provider_asked(name, Outcome::let_pass);
        warn!(
            src.addr = %arrival.client.source,
            provider = &**name,
            error = why,
            "provider cannot be asked, its requests pass"
        );
        return Ok(());
    }
    metrics.provider_asked(name, Outcome::failed);
    let cause = &question.cause;
    let reason = format!("ext_authz_error: provider {name}, asked by {cause}: {why}");
    Err(Reply::unasked(provider.check.status_on_error, reason))
}

/// Nobody has told of the provider: what the rule matches is denied (vector 60).
fn unknown<C: Connector>(arrival: &Arrival<C>, question: &Question) -> Reply {
    arrival
        .shared
        .metrics
        .provider_asked(&question.provider, Outcome::failed);
    Reply::unasked(StatusCode::FORBIDDEN, missing(question))
}

fn missing(question: &Question) -> String {
    let Question { provider, cause } = question;
    format!("ext_authz_error: provider {provider}, asked by {cause}, is none that could be asked")
}

/// The beginning of a body, as far as a provider is told of it.
async fn beginning<C: Connector>(
    arrival: &Arrival<C>,
    body: &mut Received,
    limit: CheckedBody,
) -> Result<Beginning, Reply> {
    if body.is_end_stream() {
        return Ok(Beginning {
            bytes: Bytes::new(),
            whole: true,
        });
    }
    let most = usize::try_from(limit.max_bytes).unwrap_or(usize::MAX);
    let begun = body.begin(most, arrival.shared.settings.silence).await;
    let begun = begun.map_err(|unread| match unread {
        Unread::Silent => Reply::silent(false),
        Unread::Broken(_) => Reply::malformed(&chain(&unread)),
    })?;
    match begun.whole || limit.allow_partial {
        true => Ok(begun),
        false => Err(Reply::too_large(
            "the body is longer than a provider is told",
        )),
    }
}

/// Asks about a connection that is no HTTP.
pub(super) async fn connection<C: Connector + Clone>(
    (arrival, seen): (&Arrival<C>, &Seen),
    attached: InForce<'_>,
    server_name: Option<&str>,
) -> Result<(), NotLet> {
    let questions = attached
        .policies()
        .questions(&asked((arrival, seen), None, server_name));
    for question in questions {
        let refused = |reason| NotLet::Asked { reason };
        let Some(provider) = attached.extension(&question.provider) else {
            return Err(refused(missing(&question)));
        };
        let about = About {
            arrival,
            seen,
            request: None,
            server_name,
        };
        // Of a connection there is nothing to change.
        let decision = decide(&about, provider).await;
        let applied = decision.map(|decision| match decision {
            Decision::Allow(_) => None,
            Decision::Deny(denied) => Some(denied),
        });
        conclude(arrival, &question, provider, applied).map_err(|reply| refused(reply.reason))?;
    }
    Ok(())
}

async fn decide<C: Connector + Clone>(
    about: &About<'_, C>,
    provider: &Extension,
) -> Result<Decision, Undecided> {
    let ask = Ask {
        arrival: about.arrival,
        seen: about.seen,
        to: &provider.to,
        most: ANSWER,
    };
    let asking = async {
        match (&provider.check.over, about.request) {
            (CheckOver::Grpc, _) => grpc::check(&ask, about, provider.check.body).await,
            (CheckOver::Http(how), Some(request)) => http::check(&ask, request, how).await,
            (CheckOver::Http(_), None) => Err(Undecided::NotOfConnections),
        }
    };
    let decided = tokio::time::timeout(provider.check.timeout, asking).await;
    let decided = decided.unwrap_or(Err(Undecided::Late));
    debug!(provider = &*provider.name, decision = ?decided, "provider asked");
    decided
}

/// A decision to deny, without a word.
fn nothing(status: StatusCode) -> answer::Denied {
    answer::Denied {
        status,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}
