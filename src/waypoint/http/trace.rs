//! One request's part in a trace (`spec/waypoint-l7.md` §6.4): a span of its own, and one within it for each
//! time that an endpoint is asked. Copies for mirrors have none.

mod tags;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::HeaderMap;
use http::header::USER_AGENT;
use http::request::Parts;
use http::uri::Authority;

use crate::model::authorization::Mark;
use crate::model::telemetry::Facts;
use crate::model::waypoint::Bound;
use crate::telemetry::access_log::Entry;
use crate::telemetry::trace::{Kind, Span, SpanContext, Value, cut};
use crate::waypoint::tracer::{DESTINATION, SOURCE, Tag, Tracer, end, operation};
use tags::{common, custom, formats, marked, said, url};

/// A request as its trace goes.
pub(super) struct Trace {
    tracer: Arc<Tracer>,
    context: SpanContext,
    /// What is to be told of it, where it is kept.
    kept: Option<Kept>,
}

/// A span under way.
struct Kept {
    name: Arc<str>,
    clock: Clock,
    url: Arc<str>,
    user_agent: Option<Value>,
    custom: Vec<Tag>,
    attempt: Option<Attempt>,
    /// How often endpoints have been asked.
    times: u64,
}

/// An endpoint that is asked.
struct Attempt {
    context: SpanContext,
    began: Instant,
    to: SocketAddr,
    /// Which time it is, counted from nought.
    number: u64,
}

/// When something was, by one look at the wall's clock.
#[derive(Clone, Copy)]
struct Clock {
    wall: SystemTime,
    at: Instant,
}

impl Clock {
    fn time(&self, of: Instant) -> SystemTime {
        self.wall + of.saturating_duration_since(self.at)
    }
}

/// How a request, or one time that it was asked of an endpoint, ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending<'a> {
    /// The status; 0 without one.
    pub(super) code: u16,
    /// The status of gRPC.
    pub(super) grpc: Option<&'a str>,
    pub(super) flags: &'a str,
}

impl Ending<'_> {
    /// What went wrong, if anything did.
    fn error(&self) -> Option<String> {
        if self.code >= 500 {
            return Some(format!("HTTP status {}", self.code));
        }
        match self.grpc {
            Some(code @ ("2" | "4" | "12" | "13" | "14" | "15")) => {
                Some(format!("gRPC status {code}"))
            }
            _ if self.code == 0 => Some("no answer".to_owned()),
            _ => None,
        }
    }
}

/// What else is told of a request.
pub(super) struct About<'a> {
    pub(super) entry: &'a Entry,
    pub(super) method: &'a str,
    pub(super) protocol: &'static str,
    pub(super) request_id: &'a str,
    /// Whom it went to, in Istio's terms.
    pub(super) cluster: Option<String>,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// What policies said that decided nothing.
    pub(super) marks: &'a [Mark],
}

impl Trace {
    /// Begins with a request for `bound` that came at `began`.
    pub(super) fn begin(
        tracer: &Arc<Tracer>,
        bound: &Bound,
        (parts, authority): (&Parts, &Authority),
        began: Instant,
    ) -> Self {
        let incoming = tracer.propagation.read(&parts.headers);
        let context = SpanContext::within(incoming, |trace| tracer.share.keeps(trace));
        let keeps = context.decision.keeps() && tracer.sink.is_some();
        let kept = || Kept {
            name: operation(bound).into(),
            clock: Clock {
                wall: SystemTime::now()
                    .checked_sub(began.elapsed())
                    .unwrap_or(SystemTime::UNIX_EPOCH),
                at: began,
            },
            url: url(parts, authority, tracer.longest).into(),
            user_agent: parts.headers.get(USER_AGENT).and_then(|agent| {
                let agent = cut(agent.to_str().ok()?, tracer.longest);
                Some(agent.to_owned().into())
            }),
            custom: custom(tracer, &parts.headers),
            attempt: None,
            times: 0,
        };
        Self {
            kept: keeps.then(kept),
            tracer: Arc::clone(tracer),
            context,
        }
    }

    /// Whether anything is to be told of it.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether it is to be told what an access log would be.
    pub(super) fn asks_facts(&self) -> bool {
        self.is_kept() && formats(&self.tracer).next().is_some()
    }

    /// Its own span.
    pub(super) fn context(&self) -> SpanContext {
        self.context
    }

    /// Tells the trace to whoever gets the request, or a copy.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        if self.tracer.propagates {
            self.tracer.propagation.write(headers, &self.context);
        }
    }

    /// An endpoint is about to be asked.
    pub(super) fn asks(&mut self, headers: &mut HeaderMap, to: SocketAddr) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        let context = self.context.child();
        if self.tracer.propagates {
            self.tracer.propagation.write(headers, &context);
        }
        kept.attempt = Some(Attempt {
            context,
            began: Instant::now(),
            to,
            number: kept.times,
        });
        kept.times += 1;
    }

    /// The endpoint has been asked, and another is to be.
    pub(super) fn asked(&mut self, ending: Ending<'_>, about: &About<'_>) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        if let Some(attempt) = kept.attempt.take() {
            let span = attempted(kept, attempt, ending, about);
            if let Some(sink) = &self.tracer.sink {
                sink.tell(span);
            }
        }
    }

    /// It has ended; `facts` are what tags are made of that say what an access log would.
    pub(super) fn end(mut self, ending: Ending<'_>, about: &About<'_>, facts: Option<&Facts<'_>>) {
        self.asked(ending, about);
        let (Some(mut kept), Some(sink)) = (self.kept, &self.tracer.sink) else {
            return;
        };
        if let Some(facts) = facts {
            kept.custom.extend(said(&self.tracer, facts));
        }
        let mut tags = self.tracer.own.clone();
        common(&mut tags, &kept.url, ending, about);
        for (key, value) in [
            ("request_size", about.received.to_string()),
            ("response_size", about.sent.to_string()),
            ("guid:x-request-id", about.request_id.to_owned()),
            (
                "peer.address",
                about.entry.source.ip().to_canonical().to_string(),
            ),
        ] {
            tags.push((key.into(), value.into()));
        }
        if let Some(agent) = kept.user_agent {
            tags.push(("user_agent".into(), agent));
        }
        if self.tracer.istio_tags {
            tags.extend(end(&SOURCE, about.entry.source_workload.as_deref()));
            tags.extend(end(
                &DESTINATION,
                about.entry.destination_workload.as_deref(),
            ));
        }
        tags.extend(about.marks.iter().flat_map(marked));
        // Who asks for a tag by name gets that one.
        tags.retain(|(key, _)| kept.custom.iter().all(|(custom, _)| custom != key));
        tags.extend(kept.custom);
        sink.tell(Span {
            context: self.context,
            kind: Kind::Server,
            name: kept.name,
            start: kept.clock.wall,
            end: kept.clock.time(Instant::now()),
            tags,
            error: ending.error().map(Into::into),
        });
    }
}

fn attempted(kept: &Kept, attempt: Attempt, ending: Ending<'_>, about: &About<'_>) -> Span {
    let mut tags: Vec<Tag> = vec![("component".into(), "proxy".into())];
    common(&mut tags, &kept.url, ending, about);
    tags.push(("upstream_address".into(), attempt.to.to_string().into()));
    let peer = attempt.to.ip().to_canonical().to_string();
    tags.push(("peer.address".into(), peer.into()));
    if attempt.number > 0 {
        tags.push(("retry.count".into(), attempt.number.to_string().into()));
    }
    let cluster = about.cluster.as_deref().unwrap_or("unknown");
    Span {
        context: attempt.context,
        kind: Kind::Client,
        name: format!("router {cluster} egress").into(),
        start: kept.clock.time(attempt.began),
        end: kept.clock.time(Instant::now()),
        tags,
        error: ending.error().map(Into::into),
    }
}

#[cfg(test)]
mod tests;
