//! The gRPC face of discovery.
//!
//! Written by hand where `tonic-prost-build` would generate it, for one reason: the generated
//! service can only send decoded messages, and ours are encoded once for all clients.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::metadata::MetadataValue;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tracing::warn;

use super::Limits;
use super::bucket::Bucket;
use super::clients::Clients;
use super::stream::{OUTGOING, Stream};
use crate::control::caller::Caller;
use crate::control::revision::Revision;
use crate::wire::convert::delta;
use crate::wire::proto::discovery::DeltaDiscoveryRequest;

const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// A client that holds a large mesh names every resource when it reconnects; the library's own
/// 4 MiB would keep it out for ever (§1.2).
const LARGEST_REQUEST: usize = 64 << 20;

type Responses = BoxStream<'static, Result<delta::Response, Status>>;

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service(Arc<Shared>);

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
        Self(Arc::new(Shared {
            revisions,
            opened,
            clients,
            bucket: Mutex::new(bucket),
            places: Arc::new(Semaphore::new(limits.snapshots)),
            limits,
        }))
    }
}

impl Shared {
    async fn open(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let caller = Caller::of(&request)?;
        let node = Arc::clone(caller.named()?);
        self.check(&node)?;
        // From here on: whoever loses the right to be here while waiting must not be let in.
        let ending = self.clients.ending(&node);
        self.admit().await?;
        let (responses, outgoing) = mpsc::channel(OUTGOING);
        let now = SystemTime::now();
        let stream = Stream {
            client: self.clients.connected(node, caller.address, now),
            ending: Some(ending),
            expires: caller.expires,
            requests: request.into_inner(),
            responses,
            revisions: self.revisions.clone(),
            places: self.places.clone(),
            place: None,
            limits: self.limits,
        };
        let accepted = self.opened.send(stream).await;
        accepted.map_err(|_closed| Status::cancelled("the control plane is going down"))?;
        // A task that dies without a word must not end the stream OK.
        let lost = stream::once(async { Err(Status::cancelled("the stream was lost")) });
        let responses = ReceiverStream::new(outgoing).chain(lost).boxed();
        let mut response = Response::new(responses);
        let ours = MetadataValue::from_static("1");
        response.metadata_mut().insert("lateen-control", ours);
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

struct Open(Arc<Shared>);

impl StreamingService<DeltaDiscoveryRequest> for Open {
    type Response = delta::Response;
    type ResponseStream = Responses;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Responses>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { shared.open(request).await })
    }
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
        let shared = self.0.clone();
        Box::pin(async move {
            if request.uri().path() != DELTA {
                let status = Status::unimplemented("only delta discovery is served");
                return Ok(status.into_http());
            }
            let codec = ProstCodec::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST_REQUEST);
            Ok(grpc.streaming(Open(shared), request).await)
        })
    }
}

impl NamedService for Service {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}
