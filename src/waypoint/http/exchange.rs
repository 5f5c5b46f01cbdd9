//! One request and its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::account::Account;
use super::body::{Download, Upload};
use super::fault;
use super::message;
use super::pool::{Lease, Version};
use super::quiet::Quiet;
use super::reply::Reply;
use super::tasks::Spawn;
use super::upgrade;
use crate::hbone::Connector;
use crate::telemetry::access_log::chain;
use crate::waypoint::upstream::ATTEMPTS;
use crate::waypoint::{Arrival, filters};

/// Connections that waited, tried for one request when each turns out to be closed.
const STALE: usize = 2;
/// Longest time in which nothing of a request or its answer moves (§1.5).
const SILENCE: Duration = Duration::from_secs(300);

/// Serves one request.
pub(super) async fn serve<C: Connector + Clone>(
    arrival: Arc<Arrival<C>>,
    request: Request<Incoming>,
    version: Version,
    spawn: Spawn,
) -> Response<Download> {
    let (mut parts, body) = request.into_parts();
    let mut account = Account::begin(&arrival, &parts);
    let websocket = message::asks_for_websocket(&parts);
    let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| websocket);
    let received = fault::check(&mut parts).and_then(|()| message::receive(&mut parts));
    if let Some(waypoint) = arrival.tells_identity() {
        message::identify(&mut parts.headers, &waypoint, &arrival.client.identity);
    }
    let authority = match received.and_then(|to| filters::request(&arrival, &parts).map(|()| to)) {
        Ok(authority) => authority,
        Err(reply) => return reply.response(account),
    };
    account.known_as(authority.as_str(), message::request_id(&parts.headers));
    // A WebSocket goes on over HTTP/1.1, whatever else is spoken to the endpoint (§1.5).
    let version = if upgrade.is_some() {
        Version::Http1
    } else {
        version
    };
    let quiet = Quiet::new(SILENCE);
    let body = Upload::new(body, Arc::clone(&account.received), quiet.clone());
    let request = match prepare(parts, &authority, version, upgrade.is_some()) {
        Ok(parts) => Request::from_parts(parts, body),
        Err(reply) => return reply.response(account),
    };
    let asked = Instant::now();
    let answered = tokio::select! {
        answered = ask(&arrival, request, version, &mut account) => answered,
        () = quiet.silence() => Err(Reply::silent(quiet.has_asked())),
    };
    match answered {
        Ok((response, lease)) => {
            let answer = Answer {
                response,
                lease,
                asked,
                quiet,
            };
            answer.pass_on(account, upgrade, &spawn)
        }
        Err(reply) => reply.response(account),
    }
}

/// The head as it is for the endpoint.
fn prepare(
    mut parts: Parts,
    authority: &Authority,
    version: Version,
    websocket: bool,
) -> Result<Parts, Reply> {
    message::address(&mut parts, authority, version)?;
    if websocket {
        message::into_websocket(&mut parts.headers);
    }
    Ok(parts)
}

/// Asks one endpoint after another while nothing of the request has been sent.
async fn ask<C: Connector + Clone>(
    arrival: &Arrival<C>,
    mut request: Request<Upload>,
    version: Version,
    account: &mut Account,
) -> Result<(Response<Incoming>, Lease), Reply> {
    let mut tried = Vec::new();
    let mut failed = None;
    while tried.len() < ATTEMPTS {
        let chosen = match arrival.choose(&tried) {
            Ok(chosen) => chosen,
            // Nobody else is left: what the last one failed with says more.
            Err(none) => return Err(failed.unwrap_or_else(|| Reply::no_endpoint(chain(&none)))),
        };
        account.asks(arrival, &chosen);
        let mut stale = 0;
        loop {
            let pool = &arrival.shared.http;
            let lent = pool.lend(arrival, &chosen, version, stale >= STALE).await;
            let mut lease = match lent {
                Ok(lease) => lease,
                Err(e) if e.retryable() => {
                    failed = Some(Reply::no_way(chain(&e)));
                    break;
                }
                Err(e) => return Err(Reply::no_way(chain(&e))),
            };
            let mut error = match lease.send(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
            let Some(unsent) = error.take_message() else {
                return Err(lost(&error.into_error()));
            };
            request = unsent;
            if !lease.used {
                failed = Some(lost(&error.into_error()));
                break;
            }
            stale += 1;
        }
        tried.push(chosen.address());
    }
    Err(failed.unwrap_or_else(|| Reply::no_endpoint("no endpoint answers".to_owned())))
}

/// The request was sent, and no answer will come.
fn lost(error: &hyper::Error) -> Reply {
    let reset = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .is_some_and(h2::Error::is_reset);
    let reason = chain(error);
    match reset {
        true => Reply::reset(reason),
        false => Reply::closed(reason),
    }
}

/// What an endpoint answered.
struct Answer {
    response: Response<Incoming>,
    lease: Lease,
    asked: Instant,
    quiet: Quiet,
}

impl Answer {
    fn pass_on(
        self,
        mut account: Account,
        client: Option<OnUpgrade>,
        spawn: &Spawn,
    ) -> Response<Download> {
        let (mut parts, body) = self.response.into_parts();
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let endpoint = parts.extensions.remove::<OnUpgrade>();
        parts.extensions.clear();
        // The client's own version is for the server's end to say.
        parts.version = http::Version::HTTP_11;
        message::answer(&mut parts.headers, self.asked.elapsed().as_millis());
        account.answered(parts.status, &parts.headers);
        if !switches {
            let body = Download::endpoint(body, Some(self.lease), account, &self.quiet);
            return Response::from_parts(parts, body);
        }
        let (Some(client), Some(endpoint)) = (client, endpoint) else {
            let reason = "the endpoint switches protocols without being asked to";
            return Reply::closed(reason.to_owned()).response(account);
        };
        message::into_websocket(&mut parts.headers);
        spawn.spawn(upgrade::carry(client, endpoint, account));
        Response::from_parts(parts, Download::switched())
    }
}
