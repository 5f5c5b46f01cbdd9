//! One request's account: counted, and told of once when its answer has ended, however it ends
//! (`spec/waypoint-l7.md` §6.2, §6.3).

mod ending;
mod flags;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, header};
use hyper::body::Frame;

use super::message;
use super::messages::{Messages, Received};
use super::record::{Record, details, request_line, size, status_line};
use super::trace::{About, Ending, Trace};
use crate::hbone::Connector;
use crate::model::authorization::Mark;
use crate::model::waypoint::{Bound, Destination};
use crate::telemetry::Metrics;
use crate::telemetry::access_log::Entry;
use crate::waypoint::Arrival;
use crate::waypoint::account::entry;
use crate::waypoint::filters::Strictest;
use crate::waypoint::records::Records;
use crate::waypoint::tracer::Tracer;
use crate::waypoint::upstream::Chosen;
pub(super) use flags::Flag;

/// A request from its head to the end of its answer.
pub(super) struct Account {
    metrics: Arc<Metrics>,
    entry: Entry,
    asked: Asked,
    started: Instant,
    answered: Option<Answered>,
    /// The rule that took it.
    route: Cow<'static, str>,
    /// Whom it went to: host name, port and subset.
    upstream: Option<(Arc<str>, u16, Option<Arc<str>>)>,
    delayed: bool,
    exhausted: bool,
    /// What policies said that decided nothing.
    marks: Vec<Mark>,
    /// Its part in a trace.
    trace: Option<Box<Trace>>,
    /// The rate limit that answers for it.
    limit: Option<Strictest>,
    /// Bytes of the request's body.
    pub(super) received: Arc<Received>,
    sent: u64,
    /// Messages of gRPC that were sent.
    messages: Messages,
    /// Bytes of the request's head and of the answer's.
    heads: (u64, u64),
    /// What is told of it.
    records: Option<Arc<Records>>,
    /// What that takes beside, if anything.
    record: Option<Box<Record>>,
    ended: bool,
}

/// What was asked, as it was received.
struct Asked {
    method: String,
    path: String,
    authority: String,
    request_id: String,
    protocol: &'static str,
    grpc: bool,
}

/// What was answered.
struct Answered {
    status: StatusCode,
    grpc_status: Option<String>,
    flag: Flag,
    /// Why, where the waypoint answered by itself.
    error: Option<String>,
    /// The same in Envoy's words.
    details: Cow<'static, str>,
}

impl Account {
    /// Begins with a request's head.
    pub(super) fn begin<C: Connector>(arrival: &Arrival<C>, parts: &Parts) -> Self {
        let path = parts.uri.path_and_query();
        let grpc = parts.headers.get(header::CONTENT_TYPE);
        let asked = Asked {
            method: parts.method.to_string(),
            path: path.map(ToString::to_string).unwrap_or_default(),
            authority: String::new(),
            request_id: String::new(),
            protocol: protocol(parts.version),
            grpc: grpc.is_some_and(|v| v.as_bytes().starts_with(b"application/grpc")),
        };
        let line = request_line(&asked.method, &asked.path);
        Self {
            heads: (size(line, &parts.headers), 0),
            received: Arc::new(Received::of(asked.grpc)),
            messages: Messages::default(),
            records: None,
            record: None,
            metrics: Arc::clone(&arrival.shared.metrics),
            entry: entry(arrival, None),
            asked,
            started: Instant::now(),
            answered: None,
            route: Cow::Borrowed("-"),
            upstream: None,
            delayed: false,
            exhausted: false,
            marks: Vec::new(),
            trace: None,
            limit: None,
            sent: 0,
            ended: false,
        }
    }

    /// Whether the client expects to be answered in gRPC's terms.
    pub(super) fn is_grpc(&self) -> bool {
        self.asked.grpc
    }

    /// Whether the client asks for a head alone.
    pub(super) fn is_head(&self) -> bool {
        self.asked.method == "HEAD"
    }

    /// Notes whom the request is for and by what it is known.
    pub(super) fn known_as(&mut self, authority: &str, headers: &HeaderMap) {
        authority.clone_into(&mut self.asked.authority);
        message::request_id(headers).clone_into(&mut self.asked.request_id);
        if let Some(record) = &mut self.record {
            record.request.clone_from(headers);
        }
    }

    /// Notes what is told of it.
    pub(super) fn recorded<C: Connector>(&mut self, arrival: &Arrival<C>, records: Arc<Records>) {
        if records.observes() {
            self.observe(&arrival.bound);
        }
        self.records = Some(records);
    }

    /// Keeps what logs, labels and tags may ask for.
    fn observe(&mut self, bound: &Bound) -> &mut Record {
        self.record.get_or_insert_with(|| {
            Box::new(Record {
                scheme: "http",
                asked: Some(bound.asked()),
                ..Record::default()
            })
        })
    }

    /// Notes the rule that took it; none is the service's own way.
    pub(super) fn routed(&mut self, rule: Option<&str>) {
        self.route = match rule {
            None => Cow::Borrowed("default"),
            Some(name) => Cow::Owned(name.to_owned()),
        };
    }

    /// Notes whom it goes to.
    pub(super) fn goes_to(&mut self, to: &Destination<'_>) {
        if let Destination::Service {
            key, port, subset, ..
        } = to
        {
            let subset = subset.map(|s| Arc::clone(&s.name));
            self.upstream = Some((Arc::clone(&key.hostname), *port, subset));
        }
    }

    /// Notes that a fault held it up.
    pub(super) fn delayed(&mut self) {
        self.delayed = true;
    }

    /// Notes that it would have been asked again if it had not been so often.
    pub(super) fn exhausted(&mut self) {
        self.exhausted = true;
    }

    /// Notes what policies say that decides nothing.
    pub(super) fn marked(&mut self, marks: Vec<Mark>) {
        for mark in &marks {
            self.metrics.marked(mark);
        }
        self.marks = marks;
    }

    /// Notes the rate limit that answers for it.
    pub(super) fn limited(&mut self, limit: Option<Strictest>) {
        if let Some(limit) = limit.as_ref().filter(|limit| limit.refuses()) {
            self.metrics.limited(&limit.limit.key);
        }
        self.limit = limit;
    }

    /// Notes how it is traced.
    pub(super) fn traced(
        &mut self,
        tracer: &Arc<Tracer>,
        bound: &Bound,
        head: (&Parts, &Authority),
    ) {
        let trace = Trace::begin(tracer, bound, head, self.started);
        if trace.asks_facts() && self.record.is_none() {
            self.observe(bound).request.clone_from(&head.0.headers);
        }
        self.trace = Some(Box::new(trace));
    }

    /// Tells its trace to whoever is to get the request.
    pub(super) fn tell_trace(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.tell(headers);
        }
    }

    /// Notes the endpoint that is asked, which is told of the trace.
    pub(super) fn asks<C: Connector>(
        &mut self,
        arrival: &Arrival<C>,
        chosen: &Chosen,
        headers: &mut HeaderMap,
    ) {
        self.entry = entry(arrival, Some(chosen));
        if let Some(record) = &mut self.record {
            record.endpoint = Some(chosen.address());
        }
        if let Some(trace) = &mut self.trace {
            trace.asks(headers, chosen.address());
        }
    }

    /// Notes how that went, where another is to be asked.
    pub(super) fn asked(&mut self, ending: Ending<'_>) {
        let Some(mut trace) = self.trace.take_if(|trace| trace.is_kept()) else {
            return;
        };
        trace.asked(ending, &self.about());
        self.trace = Some(trace);
    }

    fn about(&self) -> About<'_> {
        About {
            entry: &self.entry,
            method: &self.asked.method,
            protocol: self.asked.protocol,
            request_id: &self.asked.request_id,
            cluster: self.cluster(),
            received: self.received.bytes(),
            sent: self.sent,
            marks: &self.marks,
        }
    }

    /// The backend in Istio's terms.
    fn cluster(&self) -> Option<String> {
        let (host, port, subset) = self.upstream.as_ref()?;
        let subset = subset.as_deref().unwrap_or_default();
        Some(format!("outbound|{port}|{subset}|{host}"))
    }

    /// Notes an endpoint's answer.
    pub(super) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.answered = Some(Answered {
            status,
            grpc_status: grpc_status(headers),
            flag: "-",
            error: None,
            details: Cow::Borrowed("via_upstream"),
        });
        self.headed(status, headers);
    }

    /// Notes the head of the answer.
    fn headed(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.heads.1 = size(status_line(status), headers);
        if let Some(record) = &mut self.record {
            record.response.clone_from(headers);
        }
    }

    /// Notes that the waypoint answers by itself, and why where that is not as it should be: no endpoint
    /// has a part in it.
    pub(super) fn replied(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        flag: Flag,
        error: String,
    ) {
        self.entry.destination_workload = None;
        self.answered = Some(Answered {
            status,
            grpc_status: grpc_status(headers),
            flag,
            details: details(flag, &error),
            error: Some(error).filter(|e| !e.is_empty()),
        });
        self.headed(status, headers);
    }

    /// Counts what goes to the client.
    pub(super) fn sent(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.sent += data.len() as u64;
            if self.asked.grpc {
                self.messages.note(data);
            }
        }
        if let (Some(trailers), Some(answered)) = (frame.trailers_ref(), &mut self.answered) {
            answered.grpc_status = grpc_status(trailers).or_else(|| answered.grpc_status.take());
        }
        if let (Some(trailers), Some(record)) = (frame.trailers_ref(), &mut self.record) {
            record.trailers = Some(trailers.clone());
        }
    }

    /// Counts what has gone each way since the request became a byte stream of its own.
    pub(super) fn streamed(&mut self, from_client: u64, to_client: u64) {
        self.received.more(from_client);
        self.sent += to_client;
    }
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<String> {
    let status = headers.get("grpc-status")?.to_str().ok()?;
    // Clients and endpoints write it: a code and no text, or every text is a series of its own.
    let code: u16 = status.parse().ok().filter(|code| *code <= 16)?;
    Some(code.to_string())
}
