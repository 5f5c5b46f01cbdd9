//! What a waypoint tells collectors: spans and lines of access logs, batch by batch, beside everything else
//! (`spec/waypoint-l7.md` §6.4). Whoever tells something never waits.
//!
//! A collector is a service of the mesh and called as such ([`super::http::Caller`]). There is one task for
//! each that somebody tells something, for as long as somebody does.

mod records;
mod spans;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ::http::{Request, StatusCode};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Shared;
use super::http::{Bounds, CallError, Callee, Caller, NoMessage, Told as Answered, Unanswered};
use super::lane::Lane;
use crate::causes::chain;
use crate::hbone::Connector;
use crate::model::route::Target;
use crate::model::telemetry::Exporter;
use crate::telemetry::batch::{self, Batches, Sink};
use crate::telemetry::record::Record;
use crate::telemetry::trace::Span;
use crate::telemetry::{Exported, Metrics};

/// How often one batch is sent at most, and what is waited before the second time; four times as long before
/// the third.
const TIMES: u32 = 3;
const AGAIN: Duration = Duration::from_millis(250);
/// Longest wait for a collector that is spoken to over gRPC or in Zipkin's terms.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of a collector's answer, which has nothing to say.
const ANSWER: usize = 64 << 10;

/// Whom something is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Collector {
    /// The provider's name.
    pub(super) name: Arc<str>,
    /// What it is.
    pub(super) is: Exporter,
}

/// Who tells it, as attributes of a resource.
pub(super) type Teller = Vec<(&'static str, String)>;

/// What can be told to collectors.
pub(super) trait Told: Sized + Send + Sync + 'static {
    /// What the metrics call it.
    const SIGNAL: &'static str;

    /// The request that tells a batch.
    fn request(to: &Collector, teller: &Teller, batch: &[Self]) -> Option<Request<Bytes>>;

    /// How many of a batch a collector has refused by its answer.
    fn refused(to: &Collector, answer: Answered) -> Result<u64, Refused>;
}

/// Why a collector took nothing of a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the waypoint has ended")]
    Ended,
    #[error("it is nobody: {0}")]
    Nobody(Arc<str>),
    #[error("it cannot be told in that form")]
    Form,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Grpc(#[from] NoMessage),
    #[error("answered with HTTP status {0}")]
    Http(StatusCode),
}

impl Refused {
    /// Whether it may be taken later (OTLP, "failures" of both transports).
    fn retryable(&self) -> bool {
        match self {
            Self::Ended
            | Self::Nobody(_)
            | Self::Form
            | Self::Call(CallError::Malformed | CallError::Unanswered(Unanswered::TooLong(_))) => {
                false
            }
            Self::Call(_) => true,
            Self::Grpc(NoMessage::Status { code, .. }) => {
                matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15)
            }
            Self::Grpc(NoMessage::Http(status)) | Self::Http(status) => {
                matches!(status.as_u16(), 429 | 502 | 503 | 504)
            }
            Self::Grpc(_) => false,
        }
    }
}

/// Where something is told, by collector.
type Sinks<T> = Mutex<Vec<(Collector, Weak<Sink<T>>)>>;

/// The collectors that are told something.
pub(super) struct Exports {
    spans: Sinks<Span>,
    records: Sinks<Record>,
    tasks: Mutex<JoinSet<()>>,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Exports {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            spans: Mutex::default(),
            records: Mutex::default(),
            tasks: Mutex::default(),
            stop: CancellationToken::new(),
            metrics,
        }
    }

    /// Where spans for a collector are told, by whoever calls it.
    pub(super) fn spans<C: Connector + Clone>(
        &self,
        by: &Caller<C>,
        to: &Collector,
    ) -> Arc<Sink<Span>> {
        self.sink(&self.spans, by, to)
    }

    /// Where lines of an access log are told.
    pub(super) fn records<C: Connector + Clone>(
        &self,
        by: &Caller<C>,
        to: &Collector,
    ) -> Arc<Sink<Record>> {
        self.sink(&self.records, by, to)
    }

    fn sink<T: Told, C: Connector + Clone>(
        &self,
        sinks: &Sinks<T>,
        by: &Caller<C>,
        to: &Collector,
    ) -> Arc<Sink<T>> {
        let mut sinks = sinks.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.retain(|(_, sink)| sink.strong_count() > 0);
        let known = sinks.iter().find(|(known, _)| known == to);
        if let Some(sink) = known.and_then(|(_, sink)| sink.upgrade()) {
            return sink;
        }
        let counters = self.metrics.exported(T::SIGNAL, &to.name);
        let (sink, batches) = batch::queue(counters.dropped.clone());
        let sink = Arc::new(sink);
        sinks.push((to.clone(), Arc::downgrade(&sink)));
        drop(sinks);
        let telling = Telling {
            shared: Arc::downgrade(&by.shared),
            lane: Arc::clone(&by.lane),
            instance: Arc::clone(&by.instance),
            to: to.clone(),
            counters,
            unwell: false,
            stop: self.stop.clone(),
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(telling.run(batches), by.lane.handle());
        sink
    }

    /// Has everything told that is there, and nothing more; what takes longer than `limit` is lost.
    pub(super) async fn flush(&self, limit: Duration) {
        self.stop.cancel();
        let tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        if tasks.is_empty() {
            return;
        }
        let told = tasks.join_all();
        if tokio::time::timeout(limit, told).await.is_err() {
            warn!("a collector takes too long, the rest of its telemetry is lost");
        }
    }
}

/// Tells one collector.
struct Telling<C: Connector> {
    /// It ends with the waypoint, and not the other way round.
    shared: Weak<Shared<C>>,
    lane: Arc<Lane<C>>,
    /// The uid of the instance that has begun it.
    instance: Arc<str>,
    to: Collector,
    counters: Exported,
    /// The last batch was not taken.
    unwell: bool,
    stop: CancellationToken,
}

impl<C: Connector + Clone> Telling<C> {
    async fn run<T: Told>(mut self, mut batches: Batches<T>) {
        let stop = self.stop.clone();
        loop {
            let next = stop.run_until_cancelled(batches.next()).await;
            let batch = match next {
                Some(batch) => batch,
                None => {
                    batches.close();
                    batches.next().await
                }
            };
            let Some(batch) = batch else {
                return;
            };
            self.tell(&batch).await;
        }
    }

    async fn tell<T: Told>(&mut self, batch: &[T]) {
        let count = batch.len() as u64;
        let refused = match self.try_often(batch).await {
            Ok(refused) => refused.min(count),
            Err(why) => {
                if !self.unwell {
                    warn!(
                        provider = %self.to.name,
                        error = %chain(&why),
                        "a collector takes nothing, telemetry is lost"
                    );
                }
                count
            }
        };
        self.counters.taken.inc_by(count - refused);
        self.counters.dropped.inc_by(refused);
        let unwell = refused == count;
        if self.unwell && !unwell {
            info!(provider = %self.to.name, "the collector takes telemetry again");
        }
        self.unwell = unwell;
    }

    /// How many a collector refuses, once it has taken the others.
    async fn try_often<T: Told>(&self, batch: &[T]) -> Result<u64, Refused> {
        let mut wait = AGAIN;
        let mut times = 1;
        loop {
            match self.try_once(batch).await {
                Err(why) if why.retryable() && times < TIMES => {
                    let waited = tokio::time::sleep(wait);
                    // Who stops has no time for those who are unwell.
                    if self.stop.run_until_cancelled(waited).await.is_none() {
                        return Err(why);
                    }
                }
                told => return told,
            }
            (times, wait) = (times + 1, wait * 4);
        }
    }

    async fn try_once<T: Told>(&self, batch: &[T]) -> Result<u64, Refused> {
        let shared = self.shared.upgrade().ok_or(Refused::Ended)?;
        let at = match self.to.is.service() {
            Some(Target::Service { key, port, .. }) => Callee {
                service: key.clone(),
                port: *port,
            },
            Some(Target::Invalid(why)) => return Err(Refused::Nobody(Arc::clone(why))),
            None => return Err(Refused::Form),
        };
        let caller = Caller {
            instance: shared.here().unwrap_or_else(|| Arc::clone(&self.instance)),
            lane: Arc::clone(&self.lane),
            shared,
        };
        let request = T::request(&self.to, &caller.teller(), batch).ok_or(Refused::Form)?;
        let bounds = Bounds {
            time: match &self.to.is {
                Exporter::OpenTelemetry {
                    http: Some(http), ..
                } => http.timeout,
                _ => PATIENCE,
            },
            answer: ANSWER,
        };
        let answer = caller.call(&at, request, bounds).await?;
        T::refused(&self.to, answer)
    }
}

impl<C: Connector> Caller<C> {
    /// Who tells it (<https://opentelemetry.io/docs/specs/semconv/resource/>): the waypoint, and which of its
    /// instances.
    fn teller(&self) -> Teller {
        let name = &self.shared.settings.name;
        vec![
            ("service.name", format!("{}.{}", name.name, name.namespace)),
            ("service.namespace", name.namespace.to_string()),
            ("service.instance.id", self.instance.to_string()),
            ("host.name", self.shared.settings.node.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        let status = |code| {
            Refused::Grpc(NoMessage::Status {
                code,
                message: String::new(),
            })
        };
        let http = |code| Refused::Http(StatusCode::from_u16(code).unwrap());
        for (name, refused, want) in [
            ("unavailable", status(14), true),
            ("exhausted", status(8), true),
            ("unimplemented", status(12), false),
            ("denied", status(7), false),
            ("too many", http(429), true),
            ("unavailable, in HTTP", http(503), true),
            ("not found", http(404), false),
            ("late", Refused::Call(CallError::Late(PATIENCE)), true),
            (
                "too long",
                Refused::Call(Unanswered::TooLong(ANSWER).into()),
                false,
            ),
            ("a form that it has not", Refused::Form, false),
        ] {
            assert_eq!(refused.retryable(), want, "{name}");
        }
    }
}
