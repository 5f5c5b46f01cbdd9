//! How a request ends, and who is told.

use std::borrow::Cow;

use http::StatusCode;
use tracing::{Level, enabled};

use super::flags::flags;
use super::{Account, Answered};
use crate::causes::chain;
use crate::model::telemetry::Facts;
use crate::telemetry::log;
use crate::telemetry::{Changes, Counted, RequestLabels};
use crate::waypoint::account::labels;
use crate::waypoint::http::record::Ended;
use crate::waypoint::http::trace::Ending;
use crate::waypoint::records::Key;

/// What the log's filter knows these lines by.
const TARGET: &str = "access";

impl Answered {
    /// The status of gRPC as a number.
    fn grpc_code(&self) -> Option<u16> {
        self.grpc_status.as_ref()?.parse().ok()
    }
}

impl Account {
    /// Its answer has been sent.
    pub(in crate::waypoint::http) fn complete(mut self) {
        self.end();
    }

    /// Its answer broke off on the endpoint's side.
    pub(in crate::waypoint::http) fn broke(mut self, error: &dyn std::error::Error) {
        if let Some(answered) = &mut self.answered {
            answered.flag = "UC";
            answered.error = Some(format!("the answer broke off: {}", chain(error)));
        }
        self.end();
    }

    /// Its answer took longer than it may.
    pub(in crate::waypoint::http) fn late(mut self, reason: &str) {
        if let Some(answered) = &mut self.answered {
            answered.flag = "UT";
            answered.error = Some(reason.to_owned());
        }
        self.end();
    }

    /// Its client took nothing of the answer for too long.
    pub(in crate::waypoint::http) fn stalled(mut self) {
        if let Some(answered) = &mut self.answered {
            answered.flag = "DC";
            answered.error = Some("the client took nothing of the answer for too long".to_owned());
        }
        self.end();
    }

    /// What it became was cut off.
    pub(in crate::waypoint::http) fn cut(mut self, reason: &str) {
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
        let code = known.then(|| answered.status.as_u16());
        self.tell(&answered, code);
        self.log(&answered, code.unwrap_or_default());
    }

    /// Tells of it whoever is to know: metrics, a collector of spans, and the logs that telemetry resources
    /// name.
    fn tell(&mut self, answered: &Answered, code: Option<u16>) {
        let trace = self.trace.take();
        let span = trace.as_ref().map(|trace| trace.context());
        let (cluster, peer) = match &self.record {
            Some(_) => (self.cluster(), self.peer()),
            None => (None, None),
        };
        let failure = answered.error.as_deref();
        let ended = Ended {
            entry: &self.entry,
            method: &self.asked.method,
            target: &self.asked.path,
            authority: &self.asked.authority,
            protocol: self.asked.protocol,
            route: &self.route,
            cluster: cluster.as_deref(),
            peer: peer.as_deref(),
            own: self.records.as_ref().and_then(|records| records.own()),
            flag: answered.flag,
            details: &answered.details,
            failure: failure.filter(|_| answered.flag.contains("UF")),
            code,
            grpc_status: answered.grpc_code(),
            took: self.started.elapsed(),
            heads: self.heads,
            bodies: (self.received.bytes(), self.sent),
        };
        let facts = self.record.as_deref().map(|record| record.facts(&ended));
        if let Some(trace) = trace.filter(|trace| trace.is_kept()) {
            let ending = Ending {
                code: code.unwrap_or_default(),
                grpc: answered.grpc_status.as_deref(),
                flags: answered.flag,
            };
            trace.end(ending, &self.about(), facts.as_ref());
        }
        self.count(answered, &ended, facts.as_ref());
        if let (Some(records), Some(facts)) = (&self.records, &facts) {
            records.write(facts, span);
        }
    }

    fn count(&self, answered: &Answered, ended: &Ended<'_>, facts: Option<&Facts<'_>>) {
        let counted = Counted {
            took: ended.took,
            received: ended.heads.0 + ended.bodies.0,
            sent: ended.heads.1 + ended.bodies.1,
            messages: (self.received.messages(), self.messages.count()),
        };
        let labels = || self.labels(answered, ended.code);
        let Some(records) = &self.records else {
            let series = self.metrics.requests(&labels(), &Changes::new());
            return series.note(&counted);
        };
        let how = (
            answered.flag,
            ended.code.unwrap_or_default(),
            ended.grpc_status,
        );
        let key = Key::new(&self.entry, self.asked.grpc, how);
        records.count(&self.metrics, key, facts, labels, &counted);
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
