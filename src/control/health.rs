//! Hears from nodes how their workloads are (`spec/control-plane.md` §7.2).
//!
//! Every node keeps one report stream open. What it says of its own workloads is kept in the
//! ledger, remembered in the store, and handed to `control::compile` for the next revision.
//! Probe results and what follows from a lost lease are still to come; until then a workload is
//! healthy.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::caller::Caller;
use super::revision::Revision;
use super::store::{Store, StoreError, Tree};
use crate::model::compile::{Observed, Reported};
use crate::wire::proto::lateen::node_service_server::{NodeService, NodeServiceServer};
use crate::wire::proto::lateen::{NodeReport, ReportAck};

mod ledger;

pub use ledger::{CaptureState, LEASE, NodeHealth, WorkloadHealth};
use ledger::{Context, Heard, Ledger, StreamId};

/// The report service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    books: Mutex<Books>,
    reported: watch::Sender<Arc<Reported>>,
    revisions: watch::Receiver<Option<Arc<Revision>>>,
    store: Arc<dyn Store>,
    shutdown: CancellationToken,
}

#[derive(Debug)]
struct Books {
    ledger: Ledger,
    /// Ends each node's stream when it opens another.
    streams: HashMap<Arc<str>, CancellationToken>,
}

impl Health {
    /// A service that starts from what the store remembers and from `captured`, what was captured
    /// when the last revision was published: the store may have lost its last words, and a
    /// workload is taken for captured if either says so. The receiver has what is known of all
    /// workloads.
    pub fn open(
        store: Arc<dyn Store>,
        captured: Reported,
        revisions: watch::Receiver<Option<Arc<Revision>>>,
        shutdown: CancellationToken,
    ) -> (Self, watch::Receiver<Arc<Reported>>) {
        let known = remembered(&*store, captured);
        let (reported, receiver) = watch::channel(Arc::new(known.clone()));
        let books = Books {
            ledger: Ledger::new(known),
            streams: HashMap::new(),
        };
        let shared = Shared {
            books: Mutex::new(books),
            reported,
            revisions,
            store,
            shutdown,
        };
        (Self(Arc::new(shared)), receiver)
    }

    /// What the gRPC server is given.
    pub fn service(&self) -> NodeServiceServer<Self> {
        NodeServiceServer::new(self.clone())
    }

    /// How every node that has reported since this process started is, in the order of names.
    pub fn snapshot(&self) -> Vec<NodeHealth> {
        self.0.books().ledger.snapshot(Instant::now())
    }
}

fn remembered(store: &dyn Store, mut known: Reported) -> Reported {
    let entries = store.entries(Tree::Health).unwrap_or_else(|e| {
        warn!(
            error = &e as &dyn Error,
            "cannot read what nodes reported before"
        );
        Vec::new()
    });
    for (uid, _) in entries {
        if let Ok(uid) = String::from_utf8(uid) {
            let observed = Observed {
                captured: true,
                ..known.of(&uid)
            };
            known.set(Arc::from(uid), observed);
        }
    }
    known
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        // The ledger is complete after each of its steps, so a panic elsewhere spoils nothing.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, node: &Arc<str>) -> (StreamId, CancellationToken) {
        let end = self.shutdown.child_token();
        let mut books = self.books();
        let id = books.ledger.opened(node, Instant::now());
        if let Some(older) = books.streams.insert(node.clone(), end.clone()) {
            older.cancel();
        }
        (id, end)
    }

    /// Takes a report in; none when a newer stream of the node has taken over.
    fn hear(&self, node: &str, stream: StreamId, report: NodeReport) -> Option<ReportAck> {
        let seq = report.seq;
        let revision = self.revisions.borrow().clone();
        let wall_clock_ms = millis(SystemTime::now());
        let placed = |uid: &str| revision.as_ref().is_some_and(|r| r.places(node, uid));
        let context = Context {
            revision: revision.as_ref().map_or(0, |r| r.number()),
            placed: &placed,
            now: Instant::now(),
            wall_clock_ms,
        };
        let heard = {
            let mut books = self.books();
            let heard = books.ledger.report(node, stream, report, &context)?;
            if !heard.learned.is_empty() {
                // Under the lock, so that what is known never goes backwards.
                let known = Arc::new(books.ledger.reported().clone());
                self.reported.send_replace(known);
            }
            heard
        };
        self.note(node, &heard);
        Some(ReportAck {
            seq,
            need_full: heard.need_full,
            lease_ms: u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX),
            server_time_ms: wall_clock_ms,
        })
    }

    fn note(&self, node: &str, heard: &Heard) {
        for (uid, captured) in &heard.learned {
            info!(node, workload.uid = %uid, captured, "capture changed");
            if let Err(e) = self.remember(uid, *captured) {
                warn!(
                    error = &e as &dyn Error,
                    "cannot remember what a node reported"
                );
            }
        }
        for failed in &heard.failed {
            warn!(node, workload.uid = %failed.uid, code = failed.code, detail = failed.detail,
                "a node cannot capture a workload");
        }
        if let [first, ..] = heard.strangers.as_slice() {
            warn!(
                node,
                workload.uid = first,
                count = heard.strangers.len(),
                "a node reports workloads that the mesh files do not place on it: ignored"
            );
        }
    }

    /// Only what is captured has an entry.
    fn remember(&self, uid: &str, captured: bool) -> Result<(), StoreError> {
        match captured {
            true => self.store.put(Tree::Health, uid.as_bytes(), b"captured"),
            false => self.store.remove(Tree::Health, uid.as_bytes()),
        }
    }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// One node's report stream. It is driven by whoever reads the answers: a node that does not read
/// them is not heard, and loses its lease.
struct ReportStream {
    shared: Arc<Shared>,
    node: Arc<str>,
    id: StreamId,
    end: CancellationToken,
    reports: Streaming<NodeReport>,
}

impl ReportStream {
    async fn next(&mut self) -> Result<ReportAck, Status> {
        let report = tokio::select! {
            () = self.end.cancelled() => return Err(self.ended()),
            report = self.reports.message() => report?,
        };
        let report = report.ok_or_else(|| Status::cancelled("the node has ended its side"))?;
        let ack = self.shared.hear(&self.node, self.id, report);
        ack.ok_or_else(|| self.ended())
    }

    fn ended(&self) -> Status {
        match self.shared.shutdown.is_cancelled() {
            true => Status::cancelled("the control plane is going down"),
            false => Status::aborted("a newer report stream of this node has taken over"),
        }
    }
}

#[tonic::async_trait]
impl NodeService for Health {
    type ReportStream = BoxStream<'static, Result<ReportAck, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let node = Arc::clone(Caller::of(&request)?.node()?);
        match &*self.0.revisions.borrow() {
            None => return Err(Status::unavailable("no revision is loaded")),
            Some(revision) if !revision.knows(&node) => {
                let text = format!("node `{node}` is not declared in the mesh files");
                return Err(Status::permission_denied(text));
            }
            Some(_) => {}
        }
        let (id, end) = self.0.opened(&node);
        let stream = ReportStream {
            shared: self.0.clone(),
            node,
            id,
            end,
            reports: request.into_inner(),
        };
        let acks = stream::unfold(Some(stream), |stream| async {
            let mut stream = stream?;
            match stream.next().await {
                Ok(ack) => Some((Ok(ack), Some(stream))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(acks.boxed()))
    }
}

#[cfg(test)]
mod tests;
