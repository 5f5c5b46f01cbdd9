//! Asks the control plane for workloads' certificates (`spec/control-plane.md` §4.1, §4.4).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::transport::Channel;
use tracing::warn;

use super::channel::{ChannelError, Controls, elsewhere};
use super::keep::certs::Shelf;
use crate::causes::chain;
use crate::identity::SpiffeId;
use crate::tls::{Request, RequestError, Roots, Svid, SvidError, Trust, certificates_from_pem};
use crate::wire::proto::citadel::IstioCertificateRequest;
use crate::wire::proto::citadel::istio_certificate_service_client::IstioCertificateServiceClient;

/// Longest wait for one control plane's answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The control plane cannot be reached.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The control plane said no.
    #[error("the control plane refused: {}", status.message())]
    Refused {
        /// Its answer.
        status: tonic::Status,
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
    /// One connection serves all requests, to the control plane of this number; a failed one is
    /// replaced.
    channel: tokio::sync::Mutex<Option<(usize, Channel)>>,
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

    async fn channel(&self, control: usize) -> Result<Channel, ChannelError> {
        let mut kept = self.channel.lock().await;
        if let Some((of, channel)) = &*kept
            && *of == control
        {
            return Ok(channel.clone());
        }
        let channel = self.controls.connect(control).await?.channel;
        *kept = Some((control, channel.clone()));
        Ok(channel)
    }

    /// Asks one control plane after another, the one that is followed first.
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
        let mut last = IssueError::Channel(ChannelError::None);
        for control in self.controls.order() {
            let asked = self.ask_one(control, ask.clone());
            let failed = match tokio::time::timeout(DEADLINE, asked).await {
                Ok(Ok(chain)) => {
                    let key = request.key.secret_pkcs8_der().to_vec();
                    let svid = svid(chain, request, id, self.shelf.trust())?;
                    return self.keep(svid, key).await;
                }
                Ok(Err(failed)) => failed,
                Err(_elapsed) => IssueError::Timeout,
            };
            // The next request finds out whether it was the connection.
            *self.channel.lock().await = None;
            match failed {
                IssueError::Refused { status } if !elsewhere(&status) => {
                    return Err(IssueError::Refused { status });
                }
                failed => last = failed,
            }
        }
        Err(last)
    }

    async fn ask_one(
        &self,
        control: usize,
        ask: IstioCertificateRequest,
    ) -> Result<Vec<String>, IssueError> {
        let mut client = IstioCertificateServiceClient::new(self.channel(control).await?);
        let ask = self.controls.request(ask).await?;
        match client.create_certificate(ask).await {
            Ok(answer) => Ok(answer.into_inner().cert_chain),
            Err(status) => Err(IssueError::Refused { status }),
        }
    }
}

/// Leaf, then intermediates one by one, last all roots in one element (§4.4): by these a node judges
/// its peers that has no trust bundle.
fn svid(
    mut chain: Vec<String>,
    request: Request,
    id: &SpiffeId,
    trust: Option<&Trust>,
) -> Result<Svid, IssueError> {
    let roots = chain.pop().filter(|_| !chain.is_empty());
    let roots = roots.ok_or(IssueError::NoRoots)?;
    let trust = match trust {
        Some(trust) => trust.clone(),
        None => Trust::of_roots(Arc::new(Roots::from_pem(roots.as_bytes())?))?,
    };
    let mut certificates = Vec::new();
    for element in &chain {
        certificates.extend(certificates_from_pem(element.as_bytes())?);
    }
    let svid = Svid::new(certificates, request.key.into(), trust)?;
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
        self.ask(id).await
    }
}
