//! One discovery stream: feeds its session with requests, revisions and time.

use std::future;
use std::sync::Arc;
use std::time::SystemTime;

use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{debug, warn};

use super::Limits;
use super::clients::{Connected, Ending};
use super::session::{Outcome, Refusal, Session, Who};
use crate::control::revision::{Kind, Revision};
use crate::wire::convert::delta::Response;
use crate::wire::proto::discovery::DeltaDiscoveryRequest;

/// Responses on their way to the socket. At most one per type is unacknowledged, and the status
/// that ends the stream comes on top, so this is never full.
pub(super) const OUTGOING: usize = 8;

/// An open stream, not yet running.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) client: Connected,
    pub(super) who: Who,
    /// Taken when it runs.
    pub(super) ending: Option<Ending>,
    /// When the credential it was opened with ends.
    pub(super) expires: Option<SystemTime>,
    pub(super) requests: Streaming<DeltaDiscoveryRequest>,
    pub(super) responses: mpsc::Sender<Result<Response, Status>>,
    pub(super) revisions: watch::Receiver<Option<Arc<Revision>>>,
    pub(super) places: Arc<Semaphore>,
    /// Held while a large mesh is sent from the beginning.
    pub(super) place: Option<OwnedSemaphorePermit>,
    pub(super) limits: Limits,
}

/// A mesh this small is sent to however many at once.
const SMALL: usize = 1 << 20;

impl Stream {
    /// Serves the stream to its end, which is never OK.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let responses = self.responses.clone();
        let drained = self.drained(shutdown);
        let (ending, expired) = (self.ending.take(), expired(self.expires));
        let end = tokio::select! {
            // The client has gone away: there is nobody to tell.
            () = responses.closed() => return,
            end = self.serve() => end,
            () = drained => Status::cancelled("the control plane is going down"),
            end = ended(ending) => end,
            () = expired => Status::unauthenticated("the certificate or token that opened this stream has expired"),
        };
        debug!(node = %self.client.node(), code = ?end.code(), reason = end.message(), "discovery stream ends");
        if responses.try_send(Err(end)).is_err() {
            debug!(node = %self.client.node(), "the client was gone first");
        }
    }

    /// Passes some time after the shutdown began, so that not all clients come back at once.
    fn drained(&self, shutdown: CancellationToken) -> impl Future<Output = ()> + use<> {
        let delay = self.limits.drain.mul_f64(rand::random());
        async move {
            shutdown.cancelled().await;
            sleep(delay).await;
        }
    }

    async fn serve(&mut self) -> Status {
        let mut session = match self.open().await {
            Ok(session) => session,
            Err(status) => return status,
        };
        loop {
            let now = Instant::now().into_std();
            while let Some(response) = session.next_response(now, rand::random()) {
                self.count(&response);
                if self.responses.try_send(Ok(response)).is_err() {
                    return Status::cancelled("the client reads no more");
                }
            }
            if !session.is_fresh() {
                self.place = None;
            }
            let waiting = session.waiting_since().map(Instant::from_std);
            let deadline = waiting.map(|since| since + self.limits.acknowledgement);
            let step = tokio::select! {
                request = self.requests.message() => match request {
                    Ok(Some(request)) => self.request(&mut session, request),
                    Ok(None) => return Status::cancelled("the client has ended its side"),
                    Err(status) => return failed(status),
                },
                changed = self.revisions.changed() => match changed {
                    Ok(()) => self.revision(&mut session),
                    Err(_closed) => return Status::cancelled("the control plane is going down"),
                },
                () = until(deadline) => Err(Refusal::Unacknowledged),
            };
            if let Err(refusal) = step {
                return self.refused(&refusal);
            }
        }
    }

    /// Waits for the first request and checks it.
    async fn open(&mut self) -> Result<Session, Status> {
        let first = match timeout(self.limits.first_request, self.requests.message()).await {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) => return Err(Status::cancelled("the client has ended its side")),
            Ok(Err(status)) => return Err(failed(status)),
            Err(_elapsed) => return Err(Status::invalid_argument("no request was sent")),
        };
        self.wait_for_place().await;
        let revision = self.revisions.borrow_and_update().clone();
        let revision = revision.ok_or_else(|| Status::unavailable("no revision is loaded"))?;
        let who = self.who.clone();
        let session = Session::open(who, first.node.as_ref(), revision, self.limits.chunk);
        let opened = session.and_then(|mut session| {
            self.request(&mut session, first)?;
            Ok(session)
        });
        opened.map_err(|refusal| self.refused(&refusal))
    }

    async fn wait_for_place(&mut self) {
        let revision = self.revisions.borrow().clone();
        if revision.is_none_or(|r| r.size() <= SMALL) {
            return;
        }
        let place = self.places.clone().acquire_owned();
        let place = timeout(self.limits.snapshot_wait, place).await;
        self.place = place.ok().and_then(Result::ok);
    }

    fn request(
        &self,
        session: &mut Session,
        request: DeltaDiscoveryRequest,
    ) -> Result<(), Refusal> {
        match session.request(request)? {
            Outcome::Noted | Outcome::UnknownType => {}
            Outcome::Acked { kind, revision } => {
                self.client.acked(kind, revision, SystemTime::now());
            }
            Outcome::Nacked { kind, message } => {
                let node = self.client.node();
                warn!(%node, resource.kind = kind.type_url(), reason = message, "a node refused resources");
                self.client.nacked(kind, message, SystemTime::now());
            }
        }
        Ok(())
    }

    fn count(&self, response: &Response) {
        let kind = Kind::of(&response.type_url);
        let kind = kind.map_or("other", Kind::label);
        self.client.pushed(kind, response.encoded_len());
    }

    fn revision(&mut self, session: &mut Session) -> Result<(), Refusal> {
        let revision = self.revisions.borrow_and_update().clone();
        revision.map_or(Ok(()), |revision| session.advance(revision))
    }

    fn refused(&self, refusal: &Refusal) -> Status {
        warn!(node = %self.client.node(), reason = %refusal, "ending a discovery stream");
        Status::new(code(refusal), refusal.to_string())
    }
}

async fn ended(ending: Option<Ending>) -> Status {
    match ending {
        Some(ending) => ending.status().await,
        None => future::pending().await,
    }
}

async fn expired(at: Option<SystemTime>) {
    match at {
        Some(at) => sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
        None => future::pending().await,
    }
}

/// The statuses of §3.4.
fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NoNode => Code::InvalidArgument,
        Refusal::OtherNode { .. } | Refusal::UnknownNode { .. } => Code::PermissionDenied,
        Refusal::TooManyNames { .. } => Code::ResourceExhausted,
        Refusal::HistoryLost | Refusal::Unacknowledged => Code::Cancelled,
    }
}

/// A request that could not be read. Never OK, whatever the transport made of it.
fn failed(status: Status) -> Status {
    match status.code() {
        Code::Ok => Status::cancelled("the client has ended its side"),
        _ => status,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}
