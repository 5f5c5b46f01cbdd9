//! The discovery client: one delta stream to a control plane, resumed where it broke off
//! (`spec/control-plane.md` §3.7).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rand::Rng as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{error, info, warn};

use super::channel::{ChannelError, Controls, RECEIVE_LIMIT};
use super::keep::view::{self, ViewFile};
use super::mirror::{MeshState, Mirror, Resources, TYPES};
use super::trust::Believed;
use crate::telemetry::access_log::chain;
use crate::wire::TRUST;
use crate::wire::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::wire::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status as Detail,
};

/// First wait after a stream ended; doubles up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(15));
/// How long a stream must have lived for the waits to begin anew.
const HEALTHY: Duration = Duration::from_secs(30);
/// Requests on their way out; each answers one response, so more than a few never wait.
const REQUESTS: usize = 16;
/// Header by which a control plane of ours says that it sends revisions.
const OURS: &str = "lateen-control";

/// How the connection to the control plane is.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The control plane connected to; `None` while there is none.
    pub connected: Option<String>,
    /// Since when it has been so; `None` before the first attempt.
    pub since: Option<SystemTime>,
    /// Why the last connection ended or failed.
    pub error: Option<String>,
    /// When the mesh view in force was kept, while it is one from disk.
    pub kept: Option<SystemTime>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the control plane ended discovery: {}", .0.message())]
    Status(Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the mesh view does not add up, asking for all of it again")]
    Lost,
}

/// Follows the mesh until `shutdown`, publishing each complete view and keeping it in `file`; begins
/// with the one that is kept there.
pub(super) async fn run(
    controls: Controls,
    node: Arc<str>,
    mesh: watch::Sender<Arc<MeshState>>,
    link: watch::Sender<Link>,
    file: ViewFile,
    believed: Believed,
    shutdown: CancellationToken,
) {
    let (held, keeping) = watch::channel(Resources::default());
    let mut client = Client {
        controls,
        node,
        mesh,
        link,
        mirror: Mirror::default(),
        held,
        believed,
    };
    client.restore(&file).await;
    let following = follow(client, shutdown.clone());
    tokio::join!(following, view::keep(file, keeping, shutdown));
}

async fn follow(mut client: Client, shutdown: CancellationToken) {
    let mut backoff = BACKOFF.0;
    loop {
        let begun = Instant::now();
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = client.follow() => ended,
        };
        client.lost(&ended);
        if begun.elapsed() >= HEALTHY {
            backoff = BACKOFF.0;
        }
        // Full jitter, so that nodes do not return in step.
        let wait = backoff.mul_f64(rand::rng().random_range(0.0..1.0));
        backoff = (backoff * 2).min(BACKOFF.1);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Client {
    controls: Controls,
    node: Arc<str>,
    mesh: watch::Sender<Arc<MeshState>>,
    link: watch::Sender<Link>,
    mirror: Mirror,
    held: watch::Sender<Resources>,
    believed: Believed,
}

impl Client {
    /// Begins with the mesh that was kept, so that the workloads of a machine that starts with no
    /// control plane in reach are served and protected as they were.
    async fn restore(&mut self, file: &ViewFile) {
        let reader = file.clone();
        let read = tokio::task::spawn_blocking(move || reader.load()).await;
        let Ok(Some((kept, responses))) = read else {
            return;
        };
        if !self.mirror.restore(responses) {
            return file.damaged("it does not add up to its revision");
        }
        let (workloads, services) = self.publish();
        info!(workloads, services, "mesh view from disk in force");
        self.link.send_modify(|link| link.kept = Some(kept));
    }

    /// Puts what is held in force; tells how many workloads and services there are.
    fn publish(&mut self) -> (usize, usize) {
        let state = self.mirror.state();
        let size = state.view.size();
        self.mesh.send_replace(Arc::new(state));
        size
    }

    /// One stream from its first request to its end.
    async fn follow(&mut self) -> StreamError {
        match self.stream().await {
            Ok(()) => StreamError::Closed,
            Err(e) => e,
        }
    }

    async fn stream(&mut self) -> Result<(), StreamError> {
        let (url, channel) = self.controls.connect().await?;
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(RECEIVE_LIMIT);
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        for type_url in TYPES {
            // The channel is larger than the list of types, so this never fails.
            let _fits = requests.try_send(self.first(type_url));
        }
        let stream = client
            .delta_aggregated_resources(ReceiverStream::new(outgoing))
            .await
            .map_err(StreamError::Status)?;
        let staged = stream.metadata().contains_key(OURS);
        let mut responses = stream.into_inner();
        self.connected(url);
        while let Some(response) = responses.message().await.map_err(StreamError::Status)? {
            let (ack, lost) = match response.type_url == TRUST {
                true => (self.believe(response).await, false),
                false => self.hear(response, staged),
            };
            if requests.send(ack).await.is_err() {
                return Ok(());
            }
            if lost {
                self.mirror.forget();
                return Err(StreamError::Lost);
            }
        }
        Ok(())
    }

    fn first(&self, type_url: &str) -> DeltaDiscoveryRequest {
        let name = self.node.to_string();
        let text = |text: String| Value {
            kind: Some(Kind::StringValue(text)),
        };
        let fields = [("NODE_NAME".to_owned(), text(name.clone()))];
        DeltaDiscoveryRequest {
            node: Some(Node {
                id: format!("lateen~{name}"),
                cluster: String::new(),
                metadata: Some(Struct {
                    fields: fields.into_iter().collect(),
                }),
            }),
            type_url: type_url.to_owned(),
            initial_resource_versions: self.mirror.versions(type_url),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Takes a trust bundle up at once; its acknowledgement.
    async fn believe(&self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let mut refused = None;
        for resource in response.resources {
            let (believed, body) = (self.believed.clone(), resource.resource.unwrap_or_default());
            let taken = tokio::task::spawn_blocking(move || believed.take(&body.value)).await;
            let error = match taken {
                Ok(Ok(())) => continue,
                Ok(Err(e)) => chain(&e),
                Err(e) => e.to_string(),
            };
            error!(error, "trust bundle refused; the one in force stays");
            refused = Some(error);
        }
        acknowledgement(response.type_url, response.nonce, refused)
    }

    /// Takes a response in; its acknowledgement, and whether to start over.
    fn hear(
        &mut self,
        response: DeltaDiscoveryResponse,
        staged: bool,
    ) -> (DeltaDiscoveryRequest, bool) {
        let type_url = response.type_url.clone();
        let nonce = response.nonce.clone();
        let heard = self.mirror.take(response, staged);
        if let Some(reason) = &heard.refused {
            warn!(
                type_url,
                error = reason.as_str(),
                "parts of the mesh refused"
            );
        }
        if heard.complete {
            let (workloads, services) = self.publish();
            let number = self.mesh.borrow().revision.as_ref().map(|r| r.number);
            info!(revision = number, workloads, services, "mesh view in force");
            self.held.send_replace(self.mirror.held());
            self.link
                .send_if_modified(|link| link.kept.take().is_some());
        }
        (acknowledgement(type_url, nonce, heard.refused), heard.lost)
    }

    fn connected(&self, url: String) {
        info!(control = url, "connected to the control plane");
        self.link.send_modify(|link| {
            link.connected = Some(url);
            link.since = Some(SystemTime::now());
            link.error = None;
        });
    }

    /// Notes an end; an outage is logged once, not at every attempt.
    fn lost(&self, error: &StreamError) {
        let reason = chain(error);
        self.link.send_if_modified(|link| {
            if link.connected.is_none() && link.error.as_ref() == Some(&reason) {
                return false;
            }
            warn!(
                error = reason.as_str(),
                "no connection to the control plane; the mesh view in force stays"
            );
            if link.connected.take().is_some() || link.since.is_none() {
                link.since = Some(SystemTime::now());
            }
            link.error = Some(reason);
            true
        });
    }
}

/// The answer to a response: taken, or why not.
fn acknowledgement(
    type_url: String,
    response_nonce: String,
    refused: Option<String>,
) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url,
        response_nonce,
        error_detail: refused.map(|message| Detail {
            message,
            ..Detail::default()
        }),
        ..DeltaDiscoveryRequest::default()
    }
}
