//! One request's account: counted, and told of once when its answer has ended, however it ends
//! (`spec/waypoint-l7.md` §6.2, §6.3).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use hyper::body::Frame;
use tracing::{Level, enabled};

use crate::hbone::Connector;
use crate::model::authorization::Mark;
use crate::model::waypoint::Destination;
use crate::telemetry::access_log::{Entry, chain};
use crate::telemetry::log;
use crate::telemetry::{Metrics, RequestLabels};
use crate::waypoint::Arrival;
use crate::waypoint::account::{entry, labels};
use crate::waypoint::filters::Strictest;
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
    /// The rate limit that answers for it.
    limit: Option<Strictest>,
    /// Bytes of the request's body.
    pub(super) received: Arc<AtomicU64>,
    sent: u64,
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
        Self {
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
            limit: None,
            received: Arc::default(),
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
    pub(super) fn known_as(&mut self, authority: &str, request_id: &str) {
        authority.clone_into(&mut self.asked.authority);
        request_id.clone_into(&mut self.asked.request_id);
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

    /// Notes the endpoint that is asked.
    pub(super) fn asks<C: Connector>(&mut self, arrival: &Arrival<C>, chosen: &Chosen) {
        self.entry = entry(arrival, Some(chosen));
    }

    /// Notes an endpoint's answer.
    pub(super) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.answered = Some(Answered {
            status,
            grpc_status: grpc_status(headers),
            flag: "-",
            error: None,
        });
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
            error: Some(error).filter(|e| !e.is_empty()),
        });
    }

    /// Counts what goes to the client.
    pub(super) fn sent(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.sent += data.len() as u64;
        }
        if let (Some(trailers), Some(answered)) = (frame.trailers_ref(), &mut self.answered) {
            answered.grpc_status = grpc_status(trailers).or_else(|| answered.grpc_status.take());
        }
    }

    /// Counts what has gone each way since the request became a byte stream of its own.
    pub(super) fn streamed(&mut self, from_client: u64, to_client: u64) {
        self.received.fetch_add(from_client, Ordering::Relaxed);
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
        };
        let answered = self.answered.take();
        let known = answered.is_some();
        let mut answered = answered.unwrap_or(gone);
        answered.flag = flags(answered.flag, self.delayed, self.exhausted);
        // Nothing was answered: no code there is would say so (§1.9).
        let code = if known { answered.status.as_u16() } else { 0 };
        self.count(&answered, code);
        self.log(&answered, code);
    }

    fn count(&self, answered: &Answered, code: u16) {
        let mut connection = labels(&self.entry).flagged(answered.flag);
        connection.request_protocol = if self.asked.grpc { "grpc" } else { "http" };
        let labels = RequestLabels {
            connection,
            response_code: code,
            grpc_response_status: answered.grpc_status.clone().unwrap_or_default(),
        };
        self.metrics.request(labels, self.started.elapsed());
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
                .number("bytes_recv", self.received.load(Ordering::Relaxed))
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
