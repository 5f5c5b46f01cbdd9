//! Who this node is: its certificate, kept on disk and renewed daily
//! (`spec/control-plane.md` §6.2–§6.3, §6.6).

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::channel::{ChannelError, Controls, elsewhere};
use super::trust;
use crate::causes::chain;
use crate::clock;
use crate::files::{self, FileError};
use crate::identity::{IdentityError, SpiffeId, TrustDomain};
use crate::tls::{
    Request, RequestError, Roots, Svid, SvidError, Trust, certificates_from_pem, reenrol_payload,
    sign_with, to_pem,
};
use crate::wire::proto::lateen::enrollment_client::EnrollmentClient;
use crate::wire::proto::lateen::{ChallengeRequest, Enrolled, ReenrollRequest, RenewRequest};

/// How old a certificate grows before it is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Between attempts at a renewal that fails, with 29 days still to go.
const RETRY: Duration = Duration::from_secs(60);

/// A node's certificate and what it was told of the mesh.
#[derive(Debug)]
pub struct NodeIdentity {
    /// The node's name.
    pub node: Arc<str>,
    /// Its certificate.
    pub svid: Svid,
    /// What else it was told.
    pub mesh: Mesh,
}

/// What a node is told of its mesh when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mesh {
    /// Where identities are rooted.
    pub trust_domain: String,
    /// The suffix of service names.
    pub mesh_domain: String,
    /// The cluster id told to Istio's tools.
    pub cluster_id: String,
    /// What tells this mesh from another of the same name.
    pub epoch: Vec<u8>,
    /// How many certificates this node has been given.
    pub generation: u64,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum NodeIdentityError {
    /// A file of it could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The current one could not be switched to.
    #[error("cannot switch to the new identity in {}", path.display())]
    Switch {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file of it does not read.
    #[error("{} is damaged; join again with a new token", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is unusable.
    #[error("the node certificate is unusable")]
    Certificate(#[from] SvidError),
    /// The name is no legal one.
    #[error("the node's name is not usable")]
    Name(#[from] IdentityError),
    /// No key could be made.
    #[error("cannot make a key")]
    Key(#[from] RequestError),
    /// The control plane cannot be reached.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The control plane said no.
    #[error("the control plane refused: {}", status.message())]
    Refused {
        /// Its answer.
        status: tonic::Status,
    },
    /// The answer is not what was asked for.
    #[error("the control plane's answer is not usable: {reason}")]
    Answer {
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl NodeIdentity {
    /// Makes an identity of an answer to join or renew, whose peers are judged by `trust`: that of
    /// the answer for a node that has none yet.
    ///
    /// # Errors
    /// When the answer is incomplete, or for somebody else.
    pub fn of(
        answer: Enrolled,
        request: &Request,
        id: &SpiffeId,
        trust: Option<Trust>,
    ) -> Result<Self, NodeIdentityError> {
        let missing = |reason| NodeIdentityError::Answer { reason };
        let bundle = answer.trust.ok_or_else(|| missing("it names no roots"))?;
        let told = answer
            .mesh
            .ok_or_else(|| missing("it does not name the mesh"))?;
        let trust = match trust {
            Some(trust) => trust,
            None => Trust::new(crate::wire::convert::bundle(&bundle)?),
        };
        let chain = answer.chain.into_iter().map(CertificateDer::from);
        let key = request.key.clone_key().into();
        let svid = Svid::new(chain.collect(), key, trust)?;
        let SpiffeId::Node { name, .. } = id else {
            return Err(missing("it is for no node"));
        };
        if svid.id() != id {
            return Err(missing("the certificate names somebody else"));
        }
        Ok(Self {
            node: Arc::clone(name),
            svid,
            mesh: Mesh {
                trust_domain: told.trust_domain,
                mesh_domain: told.mesh_domain,
                cluster_id: told.cluster_id,
                epoch: told.epoch,
                generation: answer.generation,
            },
        })
    }

    /// Keeps it as the current identity. It is durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written; the former one is then still current.
    pub fn keep(&self, state: &Path, key: &[u8]) -> Result<(), NodeIdentityError> {
        let home = home(state);
        let name = format!("gen-{}", self.mesh.generation);
        let directory = home.join(&name);
        files::directory(&directory)?;
        let pem: String = self.svid.chain().iter().map(|c| to_pem(c)).collect();
        files::write(&directory.join("key.der"), key)?;
        files::write(&directory.join("chain.pem"), pem.as_bytes())?;
        let roots = self.svid.trust().bundle().roots().to_pem();
        files::write(&directory.join("roots.pem"), roots.as_bytes())?;
        let mesh = serde_json::to_vec(&self.mesh).unwrap_or_default();
        files::write(&directory.join("mesh.json"), &mesh)?;
        switch(&home, &name).map_err(|source| NodeIdentityError::Switch {
            path: home.clone(),
            source,
        })?;
        self.forget_others(&home, &name);
        Ok(())
    }

    fn forget_others(&self, home: &Path, current: &str) {
        let Ok(entries) = fs::read_dir(home) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("gen-") && name != current {
                // Only disk space is at stake; the next renewal tries again.
                let _kept = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// The identity kept in a state directory; `None` for a node that has not joined.
    ///
    /// # Errors
    /// When there is one that does not read.
    pub fn load(state: &Path) -> Result<Option<Self>, NodeIdentityError> {
        let directory = home(state).join("current");
        let key_path = directory.join("key.der");
        let Some(key) = files::read_secret(&key_path)? else {
            return Ok(None);
        };
        let damaged = |name: &str| NodeIdentityError::Damaged {
            path: directory.join(name),
        };
        let text = |name: &str| -> Result<Vec<u8>, NodeIdentityError> {
            files::read(&directory.join(name))?.ok_or_else(|| damaged(name))
        };
        let roots = Arc::new(Roots::from_pem(&text("roots.pem")?)?);
        let chain = certificates_from_pem(&text("chain.pem")?)?;
        let mesh = serde_json::from_slice(&text("mesh.json")?);
        let mesh: Mesh = mesh.map_err(|_json| damaged("mesh.json"))?;
        let trust = match trust::kept(state, &mesh.epoch) {
            Some(bundle) => Trust::new(bundle),
            None => Trust::of_roots(roots)?,
        };
        let key = PrivateKeyDer::try_from(key).map_err(|_key| damaged("key.der"))?;
        let svid = Svid::new(chain, key, trust)?;
        match svid.id() {
            SpiffeId::Node { name, .. } => Ok(Some(Self {
                node: Arc::clone(name),
                mesh,
                svid,
            })),
            _ => Err(damaged("chain.pem")),
        }
    }
}

fn home(state: &Path) -> PathBuf {
    state.join("agent/identity")
}

/// Points `current` at a generation, in one step.
fn switch(home: &Path, name: &str) -> io::Result<()> {
    let staged = home.join("current.new");
    match fs::remove_file(&staged) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(name, &staged)?;
    let current = home.join("current");
    fs::rename(&staged, &current)?;
    files::sync_directory(&current)
}

/// Keeps the node's identity current.
pub struct Keeper {
    state: PathBuf,
    current: watch::Sender<Arc<NodeIdentity>>,
}

impl Keeper {
    /// A keeper of an identity kept in `state`.
    pub fn new(state: &Path, identity: NodeIdentity) -> Self {
        Self {
            state: state.to_owned(),
            current: watch::Sender::new(Arc::new(identity)),
        }
    }

    /// What peers are judged by, through all renewals.
    pub(super) fn trust(&self) -> Trust {
        self.current.borrow().svid.trust().clone()
    }

    /// The identity, and each one after it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<NodeIdentity>> {
        self.current.subscribe()
    }

    /// Renews daily, a tenth sooner or later so that nodes do not come all at once, until
    /// `shutdown`.
    pub async fn run(self, controls: Controls, shutdown: CancellationToken) {
        loop {
            let wait = self.until_due();
            let current = Arc::clone(&self.current.borrow());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = trust::superseded(&current.svid) => {}
            }
            match self.renew(&controls).await {
                Ok(generation) => info!(generation, "node certificate renewed"),
                Err(e) => {
                    warn!(
                        error = chain(&e),
                        "node certificate not renewed, trying again"
                    );
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
    }

    fn until_due(&self) -> Duration {
        let identity = self.current.borrow();
        let life = identity
            .svid
            .not_after()
            .duration_since(identity.svid.not_before());
        let after = RENEW_AFTER.min(life.unwrap_or_default() / 2);
        let jitter = rand::rng().random_range(0.9..1.1);
        let due = identity.svid.not_before() + after.mul_f64(jitter);
        due.duration_since(clock::now()).unwrap_or_default()
    }

    /// Renews now; tells the generation of the new certificate. Unless the answer is lost, this is the
    /// end of the former one: the control plane sees the new one in use at once.
    ///
    /// # Errors
    /// [`NodeIdentityError`]; the identity in force stays.
    pub async fn renew(&self, controls: &Controls) -> Result<u64, NodeIdentityError> {
        let current = Arc::clone(&self.current.borrow());
        let id = current.svid.id().clone();
        let request = Request::new(&id)?;
        let csr = request.csr.to_vec();
        let (control, answer) = match current.svid.not_after() <= clock::now() {
            true => self.reenroll(controls, &current, csr).await?,
            false => ask(controls, csr).await?,
        };
        let trust = current.svid.trust().clone();
        let renewed = NodeIdentity::of(answer, &request, &id, Some(trust))?;
        let key = request.key.secret_pkcs8_der();
        renewed.keep(&self.state, key)?;
        let generation = renewed.mesh.generation;
        self.current.send_replace(Arc::new(renewed));
        confirm(controls, control).await;
        Ok(generation)
    }
}

/// Shows the new certificate to whom it came from, which otherwise would see it with the next
/// connection only: until then another machine with a copy of the former one passes for this one,
/// whose answer was lost (§6.3).
async fn confirm(controls: &Controls, control: usize) {
    if let Err(e) = controls.serves(control).await {
        debug!(
            error = chain(&e),
            "the new certificate is shown with the next connection"
        );
    }
}

impl Keeper {
    /// Goes on after the certificate has expired: no handshake takes it any more, so its key signs
    /// what a control plane asks it to.
    async fn reenroll(
        &self,
        controls: &Controls,
        current: &NodeIdentity,
        csr: Vec<u8>,
    ) -> Result<(usize, Enrolled), NodeIdentityError> {
        let mut last = NodeIdentityError::Channel(ChannelError::None);
        for control in controls.order() {
            match self.reenroll_at(control, controls, current, &csr).await {
                Ok(enrolled) => return Ok((control, enrolled)),
                Err(NodeIdentityError::Refused { status }) if !elsewhere(&status) => {
                    return Err(NodeIdentityError::Refused { status });
                }
                Err(failed) => last = failed,
            }
        }
        Err(last)
    }

    async fn reenroll_at(
        &self,
        control: usize,
        controls: &Controls,
        current: &NodeIdentity,
        csr: &[u8],
    ) -> Result<Enrolled, NodeIdentityError> {
        let missing = |reason| NodeIdentityError::Answer { reason };
        let channel = controls.connect_unnamed(control).await?;
        let mut client = EnrollmentClient::new(channel);
        let node = current.node.to_string();
        let ask = ChallengeRequest { node };
        let nonce = client.challenge(ask).await.map_err(refused)?;
        let nonce = nonce.into_inner().nonce;
        let key = home(&self.state).join("current/key.der");
        let key = files::read_secret(&key)?.unwrap_or_default();
        let payload = reenrol_payload(&nonce, &current.node, csr);
        let signature = sign_with(&key, &payload);
        let signature = signature.ok_or_else(|| missing("the key kept cannot sign"))?;
        let ask = ReenrollRequest {
            expired_chain: current.svid.chain().iter().map(|c| c.to_vec()).collect(),
            csr: csr.to_vec(),
            nonce,
            signature,
            host: None,
        };
        Ok(client.reenroll(ask).await.map_err(refused)?.into_inner())
    }
}

fn refused(status: tonic::Status) -> NodeIdentityError {
    NodeIdentityError::Refused { status }
}

/// Asks one control plane after another: only one of them renews (§9.1). Which one did, and its answer.
async fn ask(controls: &Controls, csr: Vec<u8>) -> Result<(usize, Enrolled), NodeIdentityError> {
    let mut last = NodeIdentityError::Channel(ChannelError::None);
    for control in controls.order() {
        let channel = match controls.connect(control).await {
            Ok(line) => line.channel,
            Err(e) => {
                last = e.into();
                continue;
            }
        };
        let ask = RenewRequest {
            csr: csr.clone(),
            host: None,
        };
        match EnrollmentClient::new(channel).renew(ask).await {
            Ok(answer) => return Ok((control, answer.into_inner())),
            Err(status) if elsewhere(&status) => {
                last = NodeIdentityError::Refused { status };
            }
            Err(status) => return Err(NodeIdentityError::Refused { status }),
        }
    }
    Err(last)
}

/// The trust domain of a control plane, from the chain it presented.
pub(super) fn trust_domain_of(chain: &[CertificateDer<'static>]) -> Option<TrustDomain> {
    let leaf = chain.first()?;
    Some(crate::tls::peer_identity(leaf)?.trust_domain().clone())
}

#[cfg(test)]
mod tests;
