//! Follows the primary: the one control plane of a mesh that enrols nodes and takes certificates back.
//! What it says of whom to believe is what this one says to its own nodes (`spec/control-plane.md`
//! §9.1).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rand::Rng as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{info, warn};

use super::ca::{Authority, SignError};
use crate::causes::chain;
use crate::dial::{self, DialError, RECEIVE_LIMIT};
use crate::files::{self, FileError};
use crate::identity::SpiffeId;
use crate::tls::{Bundle, TlsError, Trust, control_client};
use crate::wire::TRUST;
use crate::wire::convert::{BundleError, decode_bundle};
use crate::wire::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::wire::proto::discovery::{DeltaDiscoveryRequest, Node, Status as Detail};

/// First wait after a stream ended; doubles up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(15));

/// How long a stream must have lived for the waits to begin anew.
const HEALTHY: Duration = Duration::from_secs(30);

/// Why the primary is not followed for the moment.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("cannot prepare TLS")]
    Tls(#[from] TlsError),
    #[error("cannot make a certificate")]
    Sign(#[from] SignError),
    #[error("the primary ended the stream: {}", .0.message())]
    Status(Status),
    #[error("the primary closed the stream")]
    Closed,
}

/// What follows it.
pub(super) struct Follower {
    /// Where it is.
    pub(super) primary: String,
    /// Who this control plane is.
    pub(super) id: SpiffeId,
    /// Signs what this control plane shows it.
    pub(super) authority: Arc<Authority>,
    /// What callers here are judged by.
    pub(super) trust: Trust,
    /// Where what it says is kept.
    pub(super) path: PathBuf,
    /// What nodes here are told, encoded; empty until the primary has said.
    pub(super) bundle: watch::Sender<Bytes>,
}

impl Follower {
    /// Follows until `shutdown`. While the primary is away, what it said last stays.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut backoff = BACKOFF.0;
        let mut told = String::new();
        loop {
            let begun = Instant::now();
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.follow() => ended,
            };
            let reason = chain(&ended);
            if reason != told {
                warn!(
                    primary = self.primary,
                    error = reason,
                    "not connected to the primary; whom it told to believe stays"
                );
                told = reason;
            }
            if begun.elapsed() >= HEALTHY {
                backoff = BACKOFF.0;
            }
            let wait = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            backoff = (backoff * 2).min(BACKOFF.1);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn follow(&self) -> PeerError {
        match self.stream().await {
            Ok(()) => PeerError::Closed,
            Err(e) => e,
        }
    }

    async fn stream(&self) -> Result<(), PeerError> {
        let svid = self.authority.serving(&self.id, &[], SystemTime::now())?;
        let tls = control_client(Some(&svid), self.trust.clone())?;
        let channel = dial::connect(&self.primary, tls).await?;
        let client = AggregatedDiscoveryServiceClient::new(channel);
        let mut client = client.max_decoding_message_size(RECEIVE_LIMIT);
        let (requests, outgoing) = mpsc::channel(2);
        let first = DeltaDiscoveryRequest {
            node: Some(Node {
                id: self.id.to_string(),
                ..Node::default()
            }),
            type_url: TRUST.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        // The channel is empty, so it fits.
        let _fits = requests.try_send(first);
        let stream = client
            .delta_aggregated_resources(ReceiverStream::new(outgoing))
            .await;
        let mut responses = stream.map_err(PeerError::Status)?.into_inner();
        info!(primary = self.primary, "connected to the primary");
        while let Some(response) = responses.message().await.map_err(PeerError::Status)? {
            let mut refused = None;
            for resource in response.resources {
                let body = resource.resource.unwrap_or_default().value;
                refused = self.take(&body).err().map(|e| chain(&e));
            }
            if let Some(error) = &refused {
                warn!(
                    primary = self.primary,
                    error, "trust bundle refused; the one in force stays"
                );
            }
            let ack = DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                error_detail: refused.map(|message| Detail {
                    message,
                    ..Detail::default()
                }),
                ..DeltaDiscoveryRequest::default()
            };
            if requests.send(ack).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&self, encoded: &[u8]) -> Result<(), BundleError> {
        let held = self.trust.bundle();
        let (_told, bundle) = decode_bundle(encoded, &self.authority.epoch(), &held)?;
        let sequence = bundle.sequence();
        self.trust.replace(bundle);
        self.bundle.send_replace(Bytes::copy_from_slice(encoded));
        if let Err(e) = files::write(&self.path, encoded) {
            warn!(
                error = chain(&e),
                "what the primary says is not kept: a restart without it would not know what is revoked since"
            );
        }
        info!(sequence, "trust bundle of the primary in force");
        Ok(())
    }
}

/// What the primary said last, as a state directory keeps it: encoded, and to judge by. Nothing where
/// it has never been heard.
///
/// # Errors
/// When the file does not read, or holds something else: to go on without it could let somebody in.
pub(super) fn kept(
    path: &Path,
    authority: &Authority,
) -> Result<Option<(Bytes, Bundle)>, KeptError> {
    let Some(encoded) = files::read(path)? else {
        return Ok(None);
    };
    let none = Bundle::of_roots(authority.roots());
    let damaged = |source| KeptError::Damaged {
        path: path.to_owned(),
        source,
    };
    let none = none.map_err(|e| damaged(e.into()))?;
    let read = decode_bundle(&encoded, &authority.epoch(), &none);
    let (_told, bundle) = read.map_err(damaged)?;
    Ok(Some((Bytes::from(encoded), bundle)))
}

/// Why what the primary said last cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The file did not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds something else.
    #[error("{} is damaged; move it away once the primary can be reached, it says everything again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BundleError,
    },
}
