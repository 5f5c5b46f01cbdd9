//! One request and its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use super::account::Account;
use super::affinity::Affinity;
use super::attempts::{Answered, Asking, Attempts, Question, repeats};
use super::backend::Ruled;
use super::body::Download;
use super::copy::{Copier, copy};
use super::deadline::{Alarm, Clock, grpc_timeout, stricter};
use super::hashed::Hashed;
use super::mirror::{self, Mirrored};
use super::pool::Version;
use super::quiet::Quiet;
use super::received::Received;
use super::reply::Reply;
use super::tasks::Spawn;
use super::upload::{Origin, Upload};
use super::{fault, injection, message, route, upgrade};
use crate::causes::chain;
use crate::hbone::Connector;
use crate::model::route::{Retry, Target};
use crate::model::service::AppProtocol;
use crate::model::waypoint::Destination;
use crate::waypoint::endpoints::Ruled as Policy;
use crate::waypoint::filters::{Found, Head, Standing, Unseen};
use crate::waypoint::routing::Seen;
use crate::waypoint::{Arrival, filters};

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
    let seen = arrival.look();
    let records = seen.as_ref().and_then(|seen| arrival.records(seen));
    if let Some(records) = records {
        account.recorded(&arrival, records);
    }
    let received = received.and_then(|authority| {
        let paths = seen.as_ref().map(|seen| seen.options().paths);
        route::normalise(&mut parts, paths.unwrap_or_default())?;
        Ok(authority)
    });
    let authority = match received {
        Ok(authority) => authority,
        Err(reply) => return reply.response(account),
    };
    account.known_as(authority.as_str(), &parts.headers);
    let Some(seen) = seen else {
        let gone = "the waypoint's instance is not in the mesh view".to_owned();
        return Reply::no_endpoint(gone).response(account);
    };
    if let Some(tracer) = arrival.tracer(&seen) {
        account.traced(&tracer, &arrival.bound, (&parts, &authority));
    }
    let mut found = Found::default();
    let mut body = Received::new(body);
    let passed = filters::request(
        &arrival, &seen, &mut parts, &authority, &mut body, &mut found,
    );
    let passed = passed.await;
    account.marked(found.marks);
    account.limited(found.limit);
    let standing = upgrade.is_some().then(|| {
        Standing::Request(Box::new(Head {
            parts: parts.clone(),
            authority: authority.clone(),
            token: found.token.take(),
        }))
    });
    let mut told = Told {
        filtered: found.answer,
        added: found.answer_added,
        ..Told::default()
    };
    if let Err(reply) = passed {
        return told.local(reply, account);
    }
    let exchange = Exchange {
        arrival: &arrival,
        seen: &seen,
        version,
        client: parts.version,
        websocket: upgrade.is_some(),
        unseen: &found.unseen,
    };
    let answer = exchange.answer(parts, authority, body, &mut account, &mut told);
    match answer.await {
        Ok(answer) => {
            let upgrade = upgrade.zip(standing);
            let upgrade = upgrade.map(|(client, standing)| Upgrade {
                client,
                standing,
                arrival: Arc::clone(&arrival),
                seen: seen.clone(),
            });
            answer.pass_on(account, upgrade, &spawn, &told)
        }
        Err(reply) => told.local(reply, account),
    }
}

/// One request, and the mesh by which it is judged from start to end.
struct Exchange<'a, C: Connector> {
    arrival: &'a Arc<Arrival<C>>,
    seen: &'a Seen,
    /// What is spoken to endpoints of the service that was asked for.
    version: Version,
    /// What the client speaks.
    client: http::Version,
    websocket: bool,
    /// What filters have changed that its routes do not see.
    unseen: &'a Unseen,
}

/// Where a request goes, and how.
struct Way<'a> {
    to: Destination<'a>,
    policy: Policy,
    ruled: Option<Ruled<'a>>,
    version: Version,
    affinity: Affinity<'a>,
    retry: &'a Retry,
    /// How long all of it may take.
    limit: Option<Duration>,
    /// How long one attempt may take to begin its answer.
    attempt: Option<Duration>,
}

/// What the client is told besides, by the filters and the rule.
#[derive(Default)]
struct Told<'a> {
    filtered: HeaderMap,
    added: HeaderMap,
    ruled: Option<Ruled<'a>>,
    cors: Option<HeaderMap>,
    session: Option<(HeaderName, HeaderValue)>,
    /// What it is hashed by from now on.
    cookie: Option<HeaderValue>,
}

impl<'a, C: Connector + Clone> Exchange<'a, C> {
    /// Finds whom to ask, and asks.
    ///
    /// # Errors
    /// What to answer instead.
    async fn answer(
        &self,
        mut parts: Parts,
        authority: Authority,
        body: Received,
        account: &mut Account,
        told: &mut Told<'a>,
    ) -> Result<Answer, Reply> {
        let asked = self.unseen.restored(&parts);
        let way = self.way(&asked, &authority, account, told).await?;
        drop(asked);
        account.goes_to(&way.to);
        told.ruled = way.ruled;
        let limit = match account.is_grpc() {
            true => stricter(way.limit, grpc_timeout(&parts.headers)),
            false => way.limit,
        };
        let hashed = Hashed::read(&way.policy, &parts, self.arrival.client.source);
        told.cookie = hashed.cookie;
        let mut host = authority;
        if let Some(ruled) = &way.ruled {
            host = ruled.change(&mut parts, host)?;
        }
        account.tell_trace(&mut parts.headers);
        let limited = limit.or(way.attempt).is_some() && !body.is_end_stream();
        let (clock, whole) = match limited {
            true => {
                let (clock, whole) = Clock::waiting();
                (clock, Some(whole))
            }
            false => (Clock::default(), None),
        };
        let copies = match way.ruled {
            Some(ruled) if !self.websocket => self.mirror(ruled, &parts, &host, &body)?,
            _ => Vec::new(),
        };
        let length = message::Length::of(&body);
        let quiet = Quiet::new(self.arrival.shared.settings.silence);
        let received = Arc::clone(&account.received);
        let origin = Origin::new(body, received, copies, whole).heard_by(quiet.clone());
        message::address(&mut parts, &host, way.version, length)?;
        if self.websocket {
            message::into_websocket(&mut parts.headers);
        }
        let often = !self.websocket && repeats(way.retry, way.version, account.is_grpc());
        let question = match often {
            true => Question::often(parts, origin),
            false => Question::once(parts, Upload::Once(origin)),
        };
        let mut alarm = clock.alarm(limit);
        let attempts = Attempts {
            arrival: self.arrival,
            seen: self.seen,
            to: way.to,
            version: way.version,
            retry: way.retry,
            limit: way.attempt,
            clock,
            hash: hashed.key,
            pinned: way.affinity.endpoint(),
            host: host.host(),
            asking: Asking::default(),
        };
        let asked = Instant::now();
        let answered = tokio::select! {
            biased;
            answered = attempts.ask(question, account) => answered?,
            () = &mut alarm => {
                attempts.asking.give_up();
                return Err(Reply::late("no answer in time"));
            }
            () = quiet.silence() => {
                let asked = quiet.has_asked();
                // Before that it is the client who falls silent.
                if asked {
                    attempts.asking.give_up();
                }
                return Err(Reply::silent(asked));
            }
        };
        let key = &self.arrival.shared.settings.sessions;
        told.session = way.affinity.told(key, &way.to, answered.endpoint);
        Ok(Answer {
            answered,
            asked,
            quiet,
            alarm,
        })
    }

    /// Where the rules have a request go; it waits where they say so.
    async fn way(
        &self,
        parts: &Parts,
        authority: &Authority,
        account: &mut Account,
        told: &mut Told<'a>,
    ) -> Result<Way<'a>, Reply> {
        let bound = &self.arrival.bound;
        let chosen = route::rule(self.arrival, self.seen, parts, authority)?;
        account.routed(chosen.as_ref().map(|c| c.name));
        let Some(chosen) = chosen else {
            let (to, retry) = (Destination::from(bound), self.seen.retry());
            let policy = self.policy(&to)?;
            return Ok(Way {
                version: self.version_by_policy(&policy, self.version),
                to,
                policy,
                ruled: None,
                affinity: Affinity::default(),
                retry,
                limit: None,
                attempt: retry.per_try_timeout,
            });
        };
        let rule = chosen.rule;
        injection::commit(&rule.fault, account).await?;
        told.cors = route::cors(rule, parts)?;
        route::pass(&chosen, parts, authority, bound.asked().port())?;
        let affinity = Affinity::read(rule, &self.arrival.shared.settings.sessions, &parts.headers);
        let backend = match affinity.backend(rule) {
            Some(backend) => backend,
            None => route::backend(rule)?,
        };
        let to = self.destination(&backend.to)?;
        let policy = self.policy(&to)?;
        let (timeouts, retry) = (rule.timeouts, rule.retry.as_ref());
        // Without a word on retries, what one attempt may take is what all of it may.
        let (limit, attempt) = match retry {
            Some(_) => (timeouts.request, timeouts.backend_request),
            None => (stricter(timeouts.request, timeouts.backend_request), None),
        };
        let retry = retry.unwrap_or_else(|| self.seen.retry());
        Ok(Way {
            version: self.version_for(&to, &policy),
            to,
            policy,
            ruled: Some(Ruled {
                rule,
                matched: chosen.matched,
                backend,
            }),
            affinity,
            retry,
            limit,
            attempt: stricter(attempt, retry.per_try_timeout),
        })
    }

    fn destination(&self, to: &'a Target) -> Result<Destination<'a>, Reply> {
        let asked = self.arrival.bound.asked();
        let destination = self.seen.destination(to, asked);
        let destination = destination.map_err(|untold| Reply::untold(chain(&untold)))?;
        destination.ok_or_else(|| match to {
            Target::Invalid(why) => Reply::invalid_backend(why.to_string()),
            Target::Service { .. } => Reply::invalid_backend(String::new()),
        })
    }

    /// The traffic policy that holds for a destination.
    fn policy(&self, to: &Destination<'_>) -> Result<Policy, Reply> {
        let ruled = self.seen.ruled(to);
        ruled.map_err(|untold| Reply::untold(chain(&untold)))
    }

    /// What is spoken to endpoints of `to` (§1.4). A WebSocket goes on over HTTP/1.1 in any case.
    fn version_for(&self, to: &Destination<'_>, policy: &Policy) -> Version {
        let version = match self.seen.spoken(to) {
            AppProtocol::Http11 => Version::Http1,
            AppProtocol::Http2 | AppProtocol::Grpc => Version::Http2,
            AppProtocol::Unknown | AppProtocol::Tcp | AppProtocol::Tls => self.clients(),
        };
        self.version_by_policy(policy, version)
    }

    /// The same where the traffic policy has a word on it (§3.4).
    fn version_by_policy(&self, policy: &Policy, version: Version) -> Version {
        let pool = &policy.settings().connection_pool;
        match version {
            _ if self.websocket => Version::Http1,
            _ if pool.use_client_protocol => self.clients(),
            Version::Http1 if pool.h2_upgrade => Version::Http2,
            version => version,
        }
    }

    fn clients(&self) -> Version {
        match self.client {
            http::Version::HTTP_2 => Version::Http2,
            _ => Version::Http1,
        }
    }

    /// Sends the copies the rule asks for. Returns where those of the body come from.
    fn mirror(
        &self,
        ruled: Ruled<'a>,
        parts: &Parts,
        host: &Authority,
        body: &Received,
    ) -> Result<Vec<Copier>, Reply> {
        let mut copiers = Vec::new();
        for target in mirror::drawn(ruled.rule) {
            let asked = self.arrival.bound.asked();
            let Ok(Some(to)) = self.seen.destination(target, asked) else {
                continue;
            };
            let Ok(policy) = self.seen.ruled(&to) else {
                continue;
            };
            let version = self.version_for(&to, &policy);
            let mut head = parts.clone();
            message::address(&mut head, host, version, message::Length::of(body))?;
            let body = match body.is_end_stream() {
                true => Upload::Nothing,
                false => {
                    let (copier, copied) = copy(&self.arrival.shared.metrics);
                    copiers.push(copier);
                    Upload::Copy(copied)
                }
            };
            let mirrored = Mirrored {
                arrival: Arc::clone(self.arrival),
                seen: self.seen.clone(),
                to: target.clone(),
                version,
            };
            mirrored.begin(head, body);
        }
        Ok(copiers)
    }
}

impl Told<'_> {
    /// What the rule changes of a backend's answer.
    fn change(&self, headers: &mut HeaderMap) {
        if let Some(ruled) = &self.ruled {
            ruled.change_answer(headers);
        }
        if let Some((name, value)) = &self.session {
            // There may be other cookies.
            headers.append(name, value.clone());
        }
        if let Some(cookie) = &self.cookie {
            headers.append(header::SET_COOKIE, cookie.clone());
        }
        self.add_to(headers);
    }

    /// An answer of the waypoint's own.
    fn local(&self, reply: Reply, account: Account) -> Response<Download> {
        let mut response = reply.response(account);
        self.add_to(response.headers_mut());
        response
    }

    /// What is said in any answer.
    fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in self.cors.iter().flatten() {
            headers.insert(name, value.clone());
        }
        for name in self.filtered.keys() {
            headers.remove(name);
        }
        for (name, value) in self.filtered.iter().chain(&self.added) {
            headers.append(name, value.clone());
        }
    }
}

/// A client that asks to go on in another protocol, and what let it in.
struct Upgrade<C: Connector> {
    client: OnUpgrade,
    standing: Standing,
    arrival: Arc<Arrival<C>>,
    seen: Seen,
}

/// What an endpoint answered.
struct Answer {
    answered: Answered,
    asked: Instant,
    quiet: Quiet,
    /// When it must have ended.
    alarm: Alarm,
}

impl Answer {
    fn pass_on<C: Connector>(
        self,
        mut account: Account,
        client: Option<Upgrade<C>>,
        spawn: &Spawn,
        told: &Told<'_>,
    ) -> Response<Download> {
        let Answered {
            response, lease, ..
        } = self.answered;
        let (mut parts, body) = response.into_parts();
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let endpoint = parts.extensions.remove::<OnUpgrade>();
        parts.extensions.clear();
        // The client's own version is for the server's end to say.
        parts.version = http::Version::HTTP_11;
        message::answer(&mut parts.headers, self.asked.elapsed().as_millis());
        told.change(&mut parts.headers);
        account.answered(parts.status, &parts.headers);
        if !switches {
            let until = (self.alarm, &self.quiet);
            let body = Download::endpoint(body, lease, until, account);
            return Response::from_parts(parts, body);
        }
        let (Some(client), Some(endpoint)) = (client, endpoint) else {
            let reason = "the endpoint switches protocols without being asked to";
            return Reply::closed(reason.to_owned()).response(account);
        };
        message::into_websocket(&mut parts.headers);
        spawn.spawn(async move {
            let revoked = client.standing.revoked(&client.arrival, &client.seen);
            upgrade::carry(client.client, endpoint, account, revoked).await;
            // Until then it is under way.
            drop(lease);
        });
        Response::from_parts(parts, Download::switched())
    }
}
