//! One request's account: counted, and told of once when its answer has ended, however it ends
//! (`spec/waypoint-l7.md` §6.2, §6.3).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, header};
use hyper::body::Frame;
use tracing::{Level, enabled};

use super::message;
use super::messages::{Messages, Received};
use super::record::{Ended, Record, details, request_line, size, status_line};
use super::trace::{About, Ending, Trace};
use crate::hbone::Connector;
use crate::model::authorization::Mark;
use crate::model::waypoint::{Bound, Destination};
use crate::telemetry::access_log::{Entry, chain};
use crate::telemetry::log;
use crate::telemetry::{Changes, Counted, Metrics, RequestLabels};
use crate::waypoint::Arrival;
use crate::waypoint::account::{entry, labels};
use crate::waypoint::filters::Strictest;
use crate::waypoint::records::{Key, Records};
use crate::waypoint::tracer::Tracer;
use crate::waypoint::upstream::Chosen;

/// What the log's filter knows these lines by.
const TARGET: &str = "access";

/// How a request ended, in Envoy's response flags (§1.9).
pub(super) type Flag = &'static str;

/// A flag with those of what happened on the way: a delay that a fault made, and retries used up.
fn flags(flag: Flag, delayed: bool, exhausted: bool) -> Flag {
    macro_rules! together {
        ($($one:literal)*) => {
            match (flag, delayed, exhausted) {
                ("-", true, false) => "DI",
                ("-", false, true) => "URX",
                ("-", true, true) => "DI,URX",
                $(($one, true, false) => concat!("DI,", $one),
                ($one, false, true) => concat!($one, ",URX"),
                ($one, true, true) => concat!("DI,", $one, ",URX"),)*
                _ => flag,
            }
        };
    }
    together!("UH" "UF" "UC" "UR" "UT" "UO" "NR" "NC" "FI" "DC" "DPE" "RL")
}

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
        self.record = records.observes().then(|| {
            Box::new(Record {
                scheme: "http",
                asked: Some(arrival.bound.asked()),
                ..Record::default()
            })
        });
        self.records = Some(records);
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

    /// Its answer has been sent.
    pub(super) fn complete(mut self) {
        self.end();
    }

    /// Its answer broke off on the endpoint's side.
    pub(super) fn broke(mut self, error: &dyn std::error::Error) {
        if let Some(answered) = &mut self.answered {
            answered.flag = "UC";
            answered.error = Some(format!("the answer broke off: {}", chain(error)));
        }
        self.end();
    }

    /// Its answer took longer than it may.
    pub(super) fn late(mut self, reason: &str) {
        if let Some(answered) = &mut self.answered {
            answered.flag = "UT";
            answered.error = Some(reason.to_owned());
        }
        self.end();
    }

    /// Its client took nothing of the answer for too long.
    pub(super) fn stalled(mut self) {
        if let Some(answered) = &mut self.answered {
            answered.flag = "DC";
            answered.error = Some("the client took nothing of the answer for too long".to_owned());
        }
        self.end();
    }

    /// What it became was cut off.
    pub(super) fn cut(mut self, reason: &str) {
        if let Some(answered) = &mut self.answered {
            answered.error = Some(reason.to_owned());
        }
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        let gone = Answered {
            status: StatusCode::OK,
            grpc_status: None,
            flag: "DC",
            error: Some("the client went away".to_owned()),
            details: Cow::Borrowed("downstream_remote_disconnect"),
        };
        let answered = self.answered.take();
        let known = answered.is_some();
        let mut answered = answered.unwrap_or(gone);
        answered.flag = flags(answered.flag, self.delayed, self.exhausted);
        // Nothing was answered: no code there is would say so (§1.9).
        let code = if known { answered.status.as_u16() } else { 0 };
        if let Some(trace) = self.trace.take_if(|trace| trace.is_kept()) {
            let ending = Ending {
                code,
                grpc: answered.grpc_status.as_deref(),
                flags: answered.flag,
            };
            trace.end(ending, &self.about());
        }
        self.tell(&answered, known.then_some(code));
        self.log(&answered, code);
    }

    /// Counts it, and writes it to the logs that telemetry resources name.
    fn tell(&self, answered: &Answered, code: Option<u16>) {
        let took = self.started.elapsed();
        let bodies = (self.received.bytes(), self.sent);
        let counted = Counted {
            took,
            received: self.heads.0 + bodies.0,
            sent: self.heads.1 + bodies.1,
            messages: (self.received.messages(), self.messages.count()),
        };
        let Some(records) = &self.records else {
            let labels = self.labels(answered, code);
            let series = self.metrics.requests(&labels, &Changes::new());
            return series.note(&counted);
        };
        let grpc_status = answered.grpc_status.as_ref().and_then(|s| s.parse().ok());
        let cluster = self.record.as_ref().and_then(|_| self.cluster());
        let peer = self.record.as_ref().and_then(|_| self.peer());
        let ended = Ended {
            entry: &self.entry,
            method: &self.asked.method,
            target: &self.asked.path,
            authority: &self.asked.authority,
            protocol: self.asked.protocol,
            route: &self.route,
            cluster: cluster.as_deref(),
            peer: peer.as_deref(),
            own: records.own(),
            flag: answered.flag,
            details: &answered.details,
            failure: answered
                .error
                .as_deref()
                .filter(|_| answered.flag.contains("UF")),
            code,
            grpc_status,
            took,
            heads: self.heads,
            bodies,
        };
        let facts = self.record.as_deref().map(|record| record.facts(&ended));
        let code = code.unwrap_or_default();
        let key = Key::new(
            &self.entry,
            self.asked.grpc,
            (answered.flag, code, grpc_status),
        );
        let labels = || self.labels(answered, Some(code));
        records.count(&self.metrics, key, facts.as_ref(), labels, &counted);
        if let Some(facts) = &facts {
            records.write(facts);
        }
    }

    /// What it counts for.
    fn labels(&self, answered: &Answered, code: Option<u16>) -> RequestLabels {
        let mut connection = labels(&self.entry).flagged(answered.flag);
        connection.request_protocol = if self.asked.grpc { "grpc" } else { "http" };
        RequestLabels {
            connection,
            response_code: code.unwrap_or_default(),
            grpc_response_status: answered.grpc_status.clone().unwrap_or_default(),
        }
    }

    /// The backend in Istio's terms.
    fn cluster(&self) -> Option<String> {
        let (host, port, subset) = self.upstream.as_ref()?;
        let subset = subset.as_deref().unwrap_or_default();
        Some(format!("outbound|{port}|{subset}|{host}"))
    }

    fn peer(&self) -> Option<String> {
        Some(self.entry.source_identity.as_ref()?.to_string())
    }

    fn log(&self, answered: &Answered, code: u16) {
        if !enabled!(target: TARGET, Level::INFO) {
            return;
        }
        let (entry, asked) = (&self.entry, &self.asked);
        log::write(Level::INFO, TARGET, "request complete", |line| {
            entry.ends(line);
            line.text("direction", entry.direction)
                .text("method", &asked.method)
                .text("path", &asked.path)
                .text("authority", &asked.authority)
                .text("protocol", asked.protocol)
                .text("request_id", &asked.request_id)
                .number("response_code", code.into())
                .text("response_flags", answered.flag)
                .text("route_name", &self.route);
            if let Some((host, port, subset)) = &self.upstream {
                let of = subset.as_deref().map_or(("", ""), |s| ("/", s));
                line.quoted("upstream", &format_args!("{host}:{port}{}{}", of.0, of.1));
            }
            if let Some(status) = &answered.grpc_status {
                line.text("grpc_status", status);
            }
            if let Some((first, more)) = self.marks.split_first() {
                line.quoted("policy", first)
                    .number("policy.more", more.len() as u64);
            }
            if let Some(limit) = &self.limit {
                line.quoted("limit", limit);
            }
            let duration = self.started.elapsed().as_millis();
            line.number("bytes_sent", self.sent)
                .number("bytes_recv", self.received.bytes())
                .quoted("duration", &format_args!("{duration}ms"));
            if let Some(error) = &answered.error {
                line.text("error", error);
            }
        });
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(answered) = &mut self.answered {
            answered.flag = "DC";
            answered.error = Some("the client went away, or this waypoint is stopping".to_owned());
        }
        self.end();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_tell_of_the_way_too() {
        for (flag, delayed, exhausted, want) in [
            ("-", false, false, "-"),
            ("UF", false, false, "UF"),
            ("-", true, false, "DI"),
            ("FI", true, false, "DI,FI"),
            ("UF", false, true, "UF,URX"),
            ("-", false, true, "URX"),
            ("UT", true, true, "DI,UT,URX"),
        ] {
            let told = flags(flag, delayed, exhausted);
            assert_eq!(told, want, "{flag} {delayed} {exhausted}");
        }
    }
}
