//! One request's account: counted, and told of once when its answer has ended, however it ends
//! (`spec/waypoint-l7.md` §6.2, §6.3).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use hyper::body::Frame;
use tracing::{Level, enabled};

use crate::hbone::Connector;
use crate::telemetry::access_log::{Entry, chain};
use crate::telemetry::log;
use crate::telemetry::{Metrics, RequestLabels};
use crate::waypoint::Arrival;
use crate::waypoint::account::{entry, labels};
use crate::waypoint::upstream::Chosen;

/// What the log's filter knows these lines by.
const TARGET: &str = "access";

/// How a request ended, in Envoy's response flags (§1.9).
pub(super) type Flag = &'static str;

/// A request from its head to the end of its answer.
pub(super) struct Account {
    metrics: Arc<Metrics>,
    entry: Entry,
    asked: Asked,
    started: Instant,
    answered: Option<Answered>,
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
            received: Arc::default(),
            sent: 0,
            ended: false,
        }
    }

    /// Whether the client expects to be answered in gRPC's terms.
    pub(super) fn is_grpc(&self) -> bool {
        self.asked.grpc
    }

    /// Notes whom the request is for and by what it is known.
    pub(super) fn known_as(&mut self, authority: &str, request_id: &str) {
        authority.clone_into(&mut self.asked.authority);
        request_id.clone_into(&mut self.asked.request_id);
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

    /// Notes that the waypoint answers by itself: no endpoint has a part in it.
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
            error: Some(error),
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
        let answered = answered.unwrap_or(gone);
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
                .text("response_flags", answered.flag);
            if let Some(status) = &answered.grpc_status {
                line.text("grpc_status", status);
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
