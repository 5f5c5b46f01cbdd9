//! Hears from nodes how their workloads are (`spec/control-plane.md` §7.2).
//!
//! Every node keeps one report stream open. What it says of its own workloads, and what follows from
//! its silence, is kept in the ledger, remembered in the store, and handed to `control::compile` for
//! the next revision. [`Health::run`] is what hears silence.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{error, info, warn};

use super::caller::Caller;
use super::gate::Gate;
use super::revision::Revision;
use super::store::Store;
use crate::clock::milliseconds;
use crate::model::compile::Reported;
use crate::model::workload;
use crate::wire::proto::lateen::node_service_server::{NodeService, NodeServiceServer};
use crate::wire::proto::lateen::{NodeReport, ReportAck};

mod ledger;
mod memory;

pub use ledger::{CaptureState, LEASE, NodeHealth, ProbeVerdict, WorkloadHealth};
use ledger::{Context, Heard, Ledger, News, Passed, StreamId};

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
    /// Ends each node's stream, when it opens another or is not to be heard any more.
    streams: HashMap<Arc<str>, End>,
}

/// Tells a stream why it ends.
type End = watch::Sender<Option<Status>>;

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
        let known = memory::recall(&*store, &captured);
        let ledger = Ledger::new(known, now());
        let (reported, receiver) = watch::channel(Arc::new(ledger.reported().clone()));
        let books = Books {
            ledger,
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

    /// What the gRPC server is given; `gate` judges callers anew once their streams are registered.
    pub fn service(&self, gate: Option<Gate>) -> NodeServiceServer<Desk> {
        let health = self.clone();
        NodeServiceServer::new(Desk { health, gate })
    }

    /// How every node that has reported since this process started is, in the order of names.
    pub fn snapshot(&self) -> Vec<NodeHealth> {
        self.0.books().ledger.snapshot(now())
    }

    /// Whether most nodes have fallen silent at once, so that nothing follows from their silence.
    pub fn mass_loss(&self) -> bool {
        self.0.books().ledger.mass_loss()
    }

    /// Ends the stream of a node with `status`, and hears nothing more of it. Streams that are opened
    /// later are not touched: refuse them at the door, before this.
    pub fn end(&self, node: &str, status: Status) {
        let mut books = self.0.books();
        books.ledger.closed(node);
        if let Some(end) = books.streams.remove(node) {
            end.send_replace(Some(status));
        }
    }

    /// Takes the workloads of a node that is shut out from service at once, until it reports again
    /// (§6.4). Its stream is no longer heard; [`Health::end`] ends it.
    pub fn revoked(&self, node: &str) {
        let revision = self.0.revisions.borrow().clone();
        let news = in_context(
            revision.as_deref(),
            milliseconds(SystemTime::now()),
            |context| {
                let mut books = self.0.books();
                let news = books.ledger.revoked(node, context);
                self.0.publish(&books, &news);
                news
            },
        );
        for news in &news {
            self.0.note_news(news);
        }
    }

    /// Notices, until `shutdown`, what happens by nobody saying anything.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            // Whatever is heard meanwhile has consequences later than this, so nothing is late.
            let due = self.0.books().ledger.due(now());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(due.into()) => self.0.pass(),
            }
        }
    }
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        // The ledger is complete after each of its steps, so a panic elsewhere spoils nothing.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, node: &Arc<str>) -> (StreamId, watch::Receiver<Option<Status>>) {
        let (end, ending) = watch::channel(None);
        let mut books = self.books();
        let id = books.ledger.opened(node, now());
        if let Some(older) = books.streams.insert(node.clone(), end) {
            older.send_replace(Some(superseded()));
        }
        (id, ending)
    }

    /// Takes a report in; none when a newer stream of the node has taken over.
    fn hear(&self, node: &Arc<str>, stream: StreamId, report: NodeReport) -> Option<ReportAck> {
        let seq = report.seq;
        let revision = self.revisions.borrow().clone();
        let wall_clock_ms = milliseconds(SystemTime::now());
        let heard = in_context(revision.as_deref(), wall_clock_ms, |context| {
            let mut books = self.books();
            let heard = books.ledger.report(node, stream, report, context)?;
            self.publish(&books, &heard.news);
            Some(heard)
        })?;
        self.note(node, &heard);
        Some(ReportAck {
            seq,
            need_full: heard.need_full,
            lease_ms: u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX),
            server_time_ms: wall_clock_ms,
        })
    }

    /// Takes note of the time that has passed.
    fn pass(&self) {
        let Some(revision) = self.revisions.borrow().clone() else {
            return;
        };
        let wall_clock_ms = milliseconds(SystemTime::now());
        let passed = in_context(Some(&*revision), wall_clock_ms, |context| {
            let mut books = self.books();
            let passed = books.ledger.pass(context);
            self.publish(&books, &passed.news);
            passed
        });
        self.note_passed(&passed);
    }

    /// To be called with the books open, so that what is known never goes backwards.
    fn publish(&self, books: &Books, news: &[News]) {
        if news.iter().any(|news| news.before != news.now) {
            let known = Arc::new(books.ledger.reported().clone());
            self.reported.send_replace(known);
        }
    }

    fn note(&self, node: &str, heard: &Heard) {
        for news in &heard.news {
            self.note_news(news);
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

    fn note_passed(&self, passed: &Passed) {
        match passed.mass_loss {
            Some(true) => error!(
                "most nodes have fallen silent at once: the fault is probably here, so their workloads stay as they are"
            ),
            Some(false) => info!("most nodes are heard again"),
            None => {}
        }
        for node in &passed.given_up {
            warn!(
                node = &**node,
                "a node has fallen silent: its workloads are given no more traffic"
            );
        }
        for news in &passed.news {
            self.note_news(news);
        }
        for uid in &passed.forgotten {
            memory::forget(&*self.store, uid);
        }
    }

    fn note_news(&self, news: &News) {
        let News {
            uid,
            before,
            now,
            memory,
        } = news;
        let node = memory.node.as_deref().unwrap_or_default();
        if before.captured != now.captured {
            let captured = now.captured;
            info!(node, workload.uid = %uid, captured, "capture changed");
        }
        if before.health != now.health {
            let healthy = now.health == workload::Health::Healthy;
            info!(node, workload.uid = %uid, healthy, "health changed");
        }
        if before.held != now.held {
            let held = now.held;
            warn!(node, workload.uid = %uid, held, "a workload that goes up and down is held back, or no longer");
        }
        memory::keep(&*self.store, uid, memory);
    }
}

/// Does `work` with what `revision` says of nodes and workloads.
fn in_context<T>(
    revision: Option<&Revision>,
    wall_clock_ms: i64,
    work: impl FnOnce(&Context<'_>) -> T,
) -> T {
    let context = Context {
        revision: revision.map_or(0, Revision::number),
        placed: &|node, uid| revision.and_then(|r| r.expects(node, uid)),
        known: &|uid| revision.is_some_and(|r| r.declares(uid)),
        declared: &|node| revision.is_some_and(|r| r.hears(node)),
        now: now(),
        wall_clock_ms,
    };
    work(&context)
}

/// By the runtime's clock, which the timer goes by too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// One node's report stream. It is driven by whoever reads the answers: a node that does not read
/// them is not heard, and loses its lease.
struct ReportStream {
    shared: Arc<Shared>,
    node: Arc<str>,
    id: StreamId,
    ending: watch::Receiver<Option<Status>>,
    /// When the credential it was opened with ends.
    expires: Option<SystemTime>,
    reports: Streaming<NodeReport>,
}

impl ReportStream {
    async fn next(&mut self) -> Result<ReportAck, Status> {
        let report = tokio::select! {
            // Who is not to be heard is not, whatever it has sent meanwhile.
            biased;
            () = self.shared.shutdown.cancelled() => {
                return Err(Status::cancelled("the control plane is going down"));
            }
            status = told(&mut self.ending) => return Err(status),
            () = expired(self.expires) => {
                return Err(Status::unauthenticated("the certificate that opened this stream has expired"));
            }
            report = self.reports.message() => report?,
        };
        let report = report.ok_or_else(|| Status::cancelled("the node has ended its side"))?;
        match self.shared.hear(&self.node, self.id, report) {
            Some(ack) => Ok(ack),
            None => Err(self.ending.borrow().clone().unwrap_or_else(superseded)),
        }
    }
}

/// Why a stream is to end, once that is so.
async fn told(ending: &mut watch::Receiver<Option<Status>>) -> Status {
    let told = ending.wait_for(Option::is_some).await;
    told.ok()
        .and_then(|status| status.clone())
        .unwrap_or_else(superseded)
}

fn superseded() -> Status {
    Status::aborted("a newer report stream of this node has taken over")
}

async fn expired(at: Option<SystemTime>) {
    match at {
        Some(at) => {
            let left = at.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::time::sleep(left).await;
        }
        None => std::future::pending().await,
    }
}

/// Where reports come in.
#[derive(Clone, Debug)]
pub struct Desk {
    health: Health,
    gate: Option<Gate>,
}

#[tonic::async_trait]
impl NodeService for Desk {
    type ReportStream = BoxStream<'static, Result<ReportAck, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let caller = Caller::of(&request)?;
        let node = Arc::clone(caller.node()?);
        // From here on: whoever loses the right to be here meanwhile must not be let in.
        let shared = &self.health.0;
        let (id, ending) = shared.opened(&node);
        let caller = Gate::judged(self.gate.as_ref(), caller);
        caller.node()?;
        match &*shared.revisions.borrow() {
            None => return Err(Status::unavailable("no revision is loaded")),
            Some(revision) if !revision.knows(&node) => {
                let text = format!("node `{node}` is not declared in the mesh files");
                return Err(Status::permission_denied(text));
            }
            Some(_) => {}
        }
        let stream = ReportStream {
            shared: Arc::clone(shared),
            node,
            id,
            ending,
            expires: caller.expires,
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
