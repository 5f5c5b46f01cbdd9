//! Asks one endpoint after another until one answers for good (`spec/waypoint-l7.md` §1.8, §2.7, §3.2).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::request::Parts;
use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;

use super::account::Account;
use super::deadline::Clock;
use super::pool::{Lease, NoConnection, Version, asked_host};
use super::replay::Tape;
use super::reply::Reply;
use super::trace::Ending;
use super::upload::{Origin, Upload};
use crate::causes::chain;
use crate::hbone::Connector;
use crate::model::route::{Failure, Retry, RetryOn};
use crate::model::waypoint::{Destination, Picking};
use crate::waypoint::Arrival;
use crate::waypoint::endpoints::{Outcome, UnderWay};
use crate::waypoint::outside::Unchosen;
use crate::waypoint::routing::Seen;
use crate::waypoint::upstream::Chosen;

/// Connections that waited, tried for one request when each turns out to be closed.
const STALE: usize = 2;

/// What is asked of endpoints: once, or as often as it takes.
pub(super) struct Question {
    /// As it is to be sent first, and again if nothing of it was sent.
    ready: Option<Request<Upload>>,
    /// What it takes to send it when some of it has been sent.
    again: Option<(Parts, Option<Tape>)>,
}

/// How endpoints of a service are asked.
pub(super) struct Attempts<'a, C: Connector> {
    pub(super) arrival: &'a Arrival<C>,
    pub(super) seen: &'a Seen,
    pub(super) to: Destination<'a>,
    pub(super) version: Version,
    pub(super) retry: &'a Retry,
    /// How long one attempt may take to begin its answer.
    pub(super) limit: Option<Duration>,
    pub(super) clock: Clock,
    /// See [`Picking`].
    pub(super) hash: Option<u64>,
    /// See [`Picking`].
    pub(super) pinned: Option<SocketAddr>,
    /// See [`Picking`].
    pub(super) host: &'a str,
    /// Where an endpoint is asked now.
    pub(super) asking: Asking,
}

/// The endpoint that is being asked, and has not answered.
#[derive(Default)]
pub(super) struct Asking(Mutex<Option<Arc<UnderWay>>>);

impl Asking {
    fn set(&self, under_way: Option<&Arc<UnderWay>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = under_way.cloned();
    }

    /// Whoever asks has waited for as long as it may: what that says of the endpoint is noted.
    pub(super) fn give_up(&self) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = asked.take() {
            under_way.note(Outcome::Lost);
        }
    }
}

/// An answer that is the client's.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
    pub(super) endpoint: SocketAddr,
}

/// An attempt without an answer.
struct Failed {
    /// How, where another attempt could do better.
    how: Option<Failure>,
    reply: Reply,
    /// The request, if nothing of it was sent.
    unsent: Option<Box<Request<Upload>>>,
}

/// Whether a request may be asked again after some of it was sent, so that a copy must be kept. What
/// gRPC alone answers, and streams alone refuse, does not happen elsewhere.
pub(super) fn repeats(retry: &Retry, version: Version, grpc: bool) -> bool {
    let streams = version == Version::Http2 || grpc;
    let usual = |on: &RetryOn| {
        let streamed = [
            RetryOn::RefusedStream,
            RetryOn::Unavailable,
            RetryOn::Cancelled,
        ];
        *on == RetryOn::ConnectFailure || (!streams && streamed.contains(on))
    };
    retry.attempts > 0 && !(retry.codes.is_empty() && retry.on.iter().all(usual))
}

impl Question {
    /// Asked once, or again while nothing of it was sent.
    pub(super) fn once(head: Parts, body: Upload) -> Self {
        Self {
            ready: Some(Request::from_parts(head, body)),
            again: None,
        }
    }

    /// Asked as often as it takes.
    pub(super) fn often(head: Parts, body: Origin) -> Self {
        let tape = (!body.is_end_stream()).then(|| Tape::new(body));
        Self {
            ready: None,
            again: Some((head, tape)),
        }
    }

    fn next(&mut self) -> Option<Request<Upload>> {
        if let Some(ready) = self.ready.take() {
            return Some(ready);
        }
        let (head, tape) = self.again.as_ref()?;
        let body = match tape {
            Some(tape) => tape.play()?,
            None => Upload::Nothing,
        };
        Some(Request::from_parts(head.clone(), body))
    }
}

impl<C: Connector + Clone> Attempts<'_, C> {
    /// Asks until there is an answer that the client gets.
    ///
    /// # Errors
    /// What to answer without one.
    pub(super) async fn ask(
        &self,
        mut question: Question,
        account: &mut Account,
    ) -> Result<Answered, Reply> {
        let mut tried = Vec::new();
        let mut retries = 0;
        let mut next = question.next();
        // Its place among the retries, while it is one.
        let mut place = None;
        loop {
            let Some(mut request) = next.take() else {
                return Err(Reply::closed("there is nothing to ask".to_owned()));
            };
            let chosen = self.choose(&mut tried).await?;
            let under_way = chosen.under_way.clone();
            account.asks(self.arrival, &chosen, request.headers_mut());
            let mut outcome = self.attempt(request, &chosen).await;
            if !self.again(&outcome) {
                return outcome.map_err(|failed| failed.reply);
            }
            if retries == self.retry.attempts {
                if retries > 0 {
                    account.exhausted();
                }
                return outcome.map_err(|failed| failed.reply);
            }
            drop(place.take());
            if let Some(under_way) = under_way {
                place = under_way.retry();
                if place.is_none() {
                    return outcome.map_err(|failed| failed.reply);
                }
            }
            if let Err(failed) = &mut outcome {
                question.ready = failed.unsent.take().map(|unsent| *unsent);
            }
            next = question.next();
            if next.is_none() {
                return outcome.map_err(|failed| failed.reply);
            }
            account.asked(ending(&outcome));
            drop(outcome);
            if self.retry.ignore_previous_hosts {
                tried.push(chosen.address());
            }
            retries += 1;
            tokio::time::sleep(self.retry.wait(retries, rand::random())).await;
        }
    }

    /// An endpoint that was not tried; where all of them were, another than the last.
    async fn choose(&self, tried: &mut Vec<SocketAddr>) -> Result<Chosen, Reply> {
        loop {
            let picking = Picking {
                tried,
                hash: self.hash,
                pinned: self.pinned,
                among: None,
                host: Some(self.host),
            };
            let chosen = self.arrival.choose(self.seen, &self.to, &picking);
            match chosen.await {
                Ok(chosen) => return Ok(chosen),
                Err(uncovered @ Unchosen::Uncovered { .. }) => {
                    return Err(Reply::not_found(&chain(&uncovered)));
                }
                Err(none) if tried.is_empty() => return Err(Reply::no_endpoint(chain(&none))),
                Err(_) => tried.drain(..tried.len().saturating_sub(1).max(1)),
            };
        }
    }

    /// Whether the policy would have it asked again.
    fn again(&self, outcome: &Result<Answered, Failed>) -> bool {
        match outcome {
            Ok(answered) => {
                let response = &answered.response;
                let status = response.status().as_u16();
                self.retry.after_answer(status, response.headers())
            }
            Err(failed) => failed.how.is_some_and(|how| self.retry.after_failure(how)),
        }
    }

    async fn attempt(&self, request: Request<Upload>, chosen: &Chosen) -> Result<Answered, Failed> {
        let alarm = self.clock.alarm(self.limit);
        self.asking.set(chosen.under_way.as_ref());
        tokio::select! {
            biased;
            outcome = self.send(request, chosen) => {
                self.asking.set(None);
                outcome
            }
            () = alarm => {
                self.asking.give_up();
                Err(Failed {
                    how: Some(Failure::AttemptTimeout),
                    reply: Reply::late("the endpoint took too long to answer"),
                    unsent: None,
                })
            }
        }
    }

    async fn send(
        &self,
        mut request: Request<Upload>,
        chosen: &Chosen,
    ) -> Result<Answered, Failed> {
        let mut stale = 0;
        loop {
            let pool = &self.arrival.shared.http;
            let fresh = stale >= STALE;
            let host = asked_host(&request);
            let host = host.as_ref().map(Authority::host);
            let lent = pool.lend(self.arrival, chosen, self.version, host, fresh);
            let lent = lent.await;
            let mut lease = match lent {
                Ok(lease) => lease,
                Err(e) => {
                    return Err(Failed {
                        how: e.retryable().then_some(Failure::Connect),
                        reply: match &e {
                            NoConnection::Overflow(_) => Reply::overflow(chain(&e)),
                            _ => Reply::no_way(chain(&e)),
                        },
                        unsent: Some(Box::new(request)),
                    });
                }
            };
            let mut error = match lease.send(request).await {
                Ok(response) => {
                    return Ok(Answered {
                        response,
                        lease,
                        endpoint: chosen.address(),
                    });
                }
                Err(error) => error,
            };
            let unsent = error.take_message();
            let lost = lost(&error.into_error());
            let Some(unsent) = unsent else {
                return Err(lost);
            };
            request = unsent;
            if !lease.used {
                // It never carried anything: no better than one that was never made.
                return Err(Failed {
                    how: Some(Failure::Connect),
                    unsent: Some(Box::new(request)),
                    ..lost
                });
            }
            stale += 1;
        }
    }
}

/// How it went, for the trace.
fn ending(outcome: &Result<Answered, Failed>) -> Ending<'_> {
    match outcome {
        Ok(answered) => {
            let grpc = answered.response.headers().get("grpc-status");
            Ending {
                code: answered.response.status().as_u16(),
                grpc: grpc.and_then(|status| status.to_str().ok()),
                flags: "-",
            }
        }
        Err(failed) => Ending {
            code: failed.reply.status.as_u16(),
            grpc: None,
            flags: failed.reply.flag,
        },
    }
}

/// The request was sent, and no answer will come.
fn lost(error: &hyper::Error) -> Failed {
    let h2 = std::error::Error::source(error).and_then(|e| e.downcast_ref::<h2::Error>());
    let refused = h2.is_some_and(|e| {
        let unseen = e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR);
        e.reason() == Some(h2::Reason::REFUSED_STREAM) || unseen
    });
    let reset = h2.is_some_and(h2::Error::is_reset);
    let reason = chain(error);
    Failed {
        how: Some(match refused {
            true => Failure::RefusedStream,
            false => Failure::Reset { sent: true },
        }),
        reply: match reset {
            true => Reply::reset(reason),
            false => Reply::closed(reason),
        },
        unsent: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_kept_only_where_it_can_be_needed() {
        let usual = Retry::usual;
        let never = Retry {
            attempts: 0,
            ..usual()
        };
        let coded = Retry {
            codes: [503].into(),
            ..usual()
        };
        let mut reset = usual();
        reset.on.insert(RetryOn::Reset);
        for (name, retry, version, grpc, want) in [
            ("usual", usual(), Version::Http1, false, false),
            ("usual, in streams", usual(), Version::Http2, false, true),
            ("usual, gRPC", usual(), Version::Http1, true, true),
            ("never", never, Version::Http2, true, false),
            ("codes", coded, Version::Http1, false, true),
            ("resets", reset, Version::Http1, false, true),
        ] {
            assert_eq!(repeats(&retry, version, grpc), want, "{name}");
        }
    }
}
