//! The gRPC face of discovery.
//!
//! Written by hand where `tonic-prost-build` would generate it: the generated service can only send
//! decoded messages, and ours are encoded once for all clients; and see [`super::frames`].

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use http::{HeaderValue, header};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::sleep;
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::server::NamedService;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use tracing::warn;

use super::Limits;
use super::bucket::Bucket;
use super::clients::Clients;
use super::frames;
use super::session::Who;
use super::stream::{OUTGOING, Stream};
use crate::control::caller::Caller;
use crate::control::gate::Gate;
use crate::control::revision::Revision;
use crate::wire::convert::delta;
use crate::wire::proto::discovery::DeltaDiscoveryRequest;

const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// A client that holds a large mesh names every resource when it reconnects; the library's own
/// 4 MiB would keep it out for ever (§1.2).
const LARGEST_REQUEST: usize = 64 << 20;

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    shared: Arc<Shared>,
    gate: Option<Gate>,
}

#[derive(Debug)]
struct Shared {
    revisions: watch::Receiver<Option<Arc<Revision>>>,
    opened: mpsc::Sender<Stream>,
    clients: Arc<Clients>,
    bucket: Mutex<Bucket>,
    places: Arc<Semaphore>,
    limits: Limits,
}

impl Service {
    pub(super) fn new(
        revisions: watch::Receiver<Option<Arc<Revision>>>,
        opened: mpsc::Sender<Stream>,
        clients: Arc<Clients>,
        bucket: Bucket,
        limits: Limits,
    ) -> Self {
        let shared = Shared {
            revisions,
            opened,
            clients,
            bucket: Mutex::new(bucket),
            places: Arc::new(Semaphore::new(limits.snapshots)),
            limits,
        };
        Self {
            shared: Arc::new(shared),
            gate: None,
        }
    }

    /// Has callers judged anew once their streams are registered.
    #[must_use]
    pub fn judged_by(self, gate: Gate) -> Self {
        let gate = Some(gate);
        Self { gate, ..self }
    }
}

/// As whom a stream is opened.
fn who(caller: &Caller) -> Result<Who, Status> {
    Ok(match caller.control()? {
        Some(name) => Who::Control(Arc::clone(name)),
        None => Who::Node(Arc::clone(caller.named()?)),
    })
}

impl Shared {
    async fn open(
        &self,
        caller: Option<Caller>,
        gate: Option<&Gate>,
        requests: Streaming<DeltaDiscoveryRequest>,
    ) -> Result<http::Response<Body>, Status> {
        let caller = Caller::known(caller)?;
        let node = who(&caller)?.label();
        if caller.control()?.is_none() {
            self.check(&node)?;
        }
        // From here on: whoever loses the right to be here while waiting must not be let in.
        let ending = self.clients.ending(&node);
        let caller = Gate::judged(gate, caller);
        let who = who(&caller)?;
        self.admit().await?;
        let (responses, outgoing) = mpsc::channel(OUTGOING);
        let now = SystemTime::now();
        let stream = Stream {
            client: self.clients.connected(node, caller.address, now),
            who,
            ending: Some(ending),
            expires: caller.expires,
            requests,
            responses,
            revisions: self.revisions.clone(),
            places: self.places.clone(),
            place: None,
            limits: self.limits,
        };
        let accepted = self.opened.send(stream).await;
        accepted.map_err(|_closed| Status::cancelled("the control plane is going down"))?;
        let mut response = http::Response::new(frames::body(outgoing));
        let headers = response.headers_mut();
        let grpc = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, grpc);
        headers.insert("lateen-control", HeaderValue::from_static("1"));
        Ok(response)
    }

    async fn admit(&self) -> Result<(), Status> {
        let wait = {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(Instant::now())
        };
        let busy = || Status::resource_exhausted("too many new streams; come back");
        sleep(wait.ok_or_else(busy)?).await;
        Ok(())
    }

    fn check(&self, node: &str) -> Result<(), Status> {
        match &*self.revisions.borrow() {
            None => Err(Status::unavailable("no revision is loaded")),
            Some(revision) if !revision.knows(node) => {
                warn!(node, "refusing a node that the mesh files do not declare");
                let text = format!("node `{node}` is not declared in the mesh files");
                Err(Status::permission_denied(text))
            }
            Some(_) => Ok(()),
        }
    }
}

/// The requests in a body, which must not be compressed: no client of this type is.
fn requests<B>(
    headers: &http::HeaderMap,
    body: B,
) -> Result<Streaming<DeltaDiscoveryRequest>, Status>
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    let encoding = headers.get("grpc-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented("compressed requests are not read"));
    }
    let mut codec = ProstCodec::<delta::Response, DeltaDiscoveryRequest>::default();
    let largest = Some(LARGEST_REQUEST);
    Ok(Streaming::new_request(codec.decoder(), body, None, largest))
}

impl<B> tower_service::Service<http::Request<B>> for Service
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (shared, gate) = (self.shared.clone(), self.gate.clone());
        Box::pin(async move {
            if request.uri().path() != DELTA {
                let status = Status::unimplemented("only delta discovery is served");
                return Ok(status.into_http());
            }
            let (parts, body) = request.into_parts();
            let caller = parts.extensions.get::<Caller>().cloned();
            let opened = match requests(&parts.headers, body) {
                Ok(requests) => shared.open(caller, gate.as_ref(), requests).await,
                Err(status) => Err(status),
            };
            Ok(opened.unwrap_or_else(Status::into_http))
        })
    }
}

impl NamedService for Service {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}
