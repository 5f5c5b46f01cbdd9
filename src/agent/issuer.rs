//! Asks the control plane for workloads' certificates (`spec/control-plane.md` §4.1, §4.4).

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::transport::Channel;
use tracing::warn;

use super::channel::{ChannelError, Controls};
use super::keep::certs::Shelf;
use crate::identity::SpiffeId;
use crate::telemetry::access_log::chain;
use crate::tls::{Request, RequestError, Svid, SvidError, Trust, certificates_from_pem};
use crate::wire::proto::citadel::IstioCertificateRequest;
use crate::wire::proto::citadel::istio_certificate_service_client::IstioCertificateServiceClient;

/// Longest wait for a certificate.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The control plane cannot be reached.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The control plane said no.
    #[error("the control plane refused: {message}")]
    Refused {
        /// Its explanation.
        message: String,
    },
    /// The control plane did not answer.
    #[error("the control plane did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
    /// No key could be made.
    #[error("cannot make a key")]
    Key(#[from] RequestError),
    /// The answer is unusable.
    #[error("the certificate that came is not usable")]
    Certificate(#[from] SvidError),
    /// The certificate is somebody else's.
    #[error("a certificate for {got} came where {asked} was asked for")]
    Identity {
        /// Who it is for.
        got: SpiffeId,
        /// Who was asked for.
        asked: SpiffeId,
    },
    /// It could not be looked after; this process is ending.
    #[error("the certificate was lost on its way to the disk")]
    Keep,
    /// The answer has no roots beside the leaf.
    #[error("no root certificate present in the answer")]
    NoRoots,
}

/// Gives out certificates.
pub trait Issuer: Send + Sync + 'static {
    /// A new certificate over a new key.
    fn issue(&self, id: &SpiffeId) -> impl Future<Output = Result<Svid, IssueError>> + Send;

    /// A certificate issued before that is still good, from before this process began.
    fn kept(&self, id: &SpiffeId) -> impl Future<Output = Option<Svid>> + Send;

    /// Nobody needs the identity any more.
    fn forget(&self, id: &SpiffeId) -> impl Future<Output = ()> + Send;
}

/// The control plane as an issuer.
pub struct ControlIssuer {
    controls: Controls,
    ttl: Duration,
    shelf: Shelf,
    /// One connection serves all requests; a failed one is replaced.
    channel: tokio::sync::Mutex<Option<Channel>>,
}

impl ControlIssuer {
    /// An issuer that asks for certificates of this life and keeps them in `shelf`.
    pub(super) fn new(controls: Controls, ttl: Duration, shelf: Shelf) -> Self {
        Self {
            controls,
            ttl,
            shelf,
            channel: tokio::sync::Mutex::default(),
        }
    }

    async fn channel(&self) -> Result<Channel, ChannelError> {
        let mut kept = self.channel.lock().await;
        if let Some(channel) = &*kept {
            return Ok(channel.clone());
        }
        let (_url, channel) = self.controls.connect().await?;
        *kept = Some(channel.clone());
        Ok(channel)
    }

    async fn ask(&self, id: &SpiffeId) -> Result<Svid, IssueError> {
        let request = Request::new(id)?;
        let fields = BTreeMap::from([(
            "ImpersonatedIdentity".to_owned(),
            Value {
                kind: Some(Kind::StringValue(id.to_string())),
            },
        )]);
        let ask = IstioCertificateRequest {
            csr: request.csr_pem(),
            validity_duration: i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: Some(Struct { fields }),
        };
        let mut client = IstioCertificateServiceClient::new(self.channel().await?);
        let answer = match client.create_certificate(ask).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                // The next request finds out whether it was the connection.
                *self.channel.lock().await = None;
                let message = status.message().to_owned();
                return Err(IssueError::Refused { message });
            }
        };
        let key = request.key.secret_pkcs8_der().to_vec();
        let svid = svid(answer.cert_chain, request, id, self.shelf.trust())?;
        self.keep(svid, key).await
    }
}

/// Leaf, then intermediates one by one, last all roots in one element (§4.4): these are for those
/// who have no trust bundle.
fn svid(
    mut chain: Vec<String>,
    request: Request,
    id: &SpiffeId,
    trust: &Trust,
) -> Result<Svid, IssueError> {
    let roots = chain.pop().filter(|_| !chain.is_empty());
    roots.ok_or(IssueError::NoRoots)?;
    let mut certificates = Vec::new();
    for element in &chain {
        certificates.extend(certificates_from_pem(element.as_bytes())?);
    }
    let svid = Svid::new(certificates, request.key.into(), trust.clone())?;
    if svid.id() != id {
        return Err(IssueError::Identity {
            got: svid.id().clone(),
            asked: id.clone(),
        });
    }
    Ok(svid)
}

impl ControlIssuer {
    /// Keeps a certificate for the next start; one that cannot be kept is as good until then.
    async fn keep(&self, svid: Svid, key: Vec<u8>) -> Result<Svid, IssueError> {
        let shelf = self.shelf.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let put = shelf.put(&svid, &key);
            (svid, put)
        });
        let (svid, put) = kept.await.map_err(|_died| IssueError::Keep)?;
        if let Err(e) = put {
            warn!(identity = %svid.id(), error = chain(&e),
                "a certificate is not kept: a start without control plane would not have it");
        }
        Ok(svid)
    }
}

impl Issuer for ControlIssuer {
    async fn kept(&self, id: &SpiffeId) -> Option<Svid> {
        let (shelf, id) = (self.shelf.clone(), id.clone());
        let read = tokio::task::spawn_blocking(move || shelf.get(&id));
        read.await.ok().flatten()
    }

    async fn forget(&self, id: &SpiffeId) {
        let (shelf, id) = (self.shelf.clone(), id.clone());
        if let Err(e) = tokio::task::spawn_blocking(move || shelf.forget(&id)).await {
            warn!(error = %e, "forgetting a certificate died");
        }
    }

    async fn issue(&self, id: &SpiffeId) -> Result<Svid, IssueError> {
        match tokio::time::timeout(DEADLINE, self.ask(id)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                *self.channel.lock().await = None;
                Err(IssueError::Timeout)
            }
        }
    }
}
