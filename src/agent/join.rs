//! Joins a mesh with a one-time token (`spec/control-plane.md` §6.2).

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls_pki_types::PrivatePkcs8KeyDer;
use tracing::warn;

use super::identity::{NodeIdentity, NodeIdentityError, trust_domain_of};
use crate::causes::chain;
use crate::dial::{self, DialError};
use crate::files::{self, FileError};
use crate::identity::token::Token;
use crate::identity::{IdentityError, SpiffeId};
use crate::tls::{Request, RequestError, TlsError, join_client};
use crate::wire::proto::lateen::enrollment_client::EnrollmentClient;
use crate::wire::proto::lateen::{HostInfo, JoinRequest};

/// Difference of the clocks that is told.
const SKEW_MS: u64 = 5 * 60 * 1000;

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No control plane at the address, or not the one the token is of.
    #[error(transparent)]
    Channel(#[from] DialError),
    /// It showed no certificate that names its mesh.
    #[error("the control plane shows no certificate that names its mesh")]
    NoTrustDomain,
    /// The node's name cannot be an identity.
    #[error("`{node}` cannot be a node's name; set `node` in lateen.toml")]
    Name {
        /// The name.
        node: String,
        /// What is wrong with it.
        #[source]
        source: IdentityError,
    },
    /// No TLS settings could be made.
    #[error("cannot prepare TLS")]
    Tls(#[from] TlsError),
    /// No key could be made.
    #[error("cannot make a key")]
    Key(#[from] RequestError),
    /// The control plane refused.
    #[error("the control plane refused ({reason}): {message}")]
    Refused {
        /// The stable word for it, such as `TOKEN_USED`.
        reason: String,
        /// Its explanation.
        message: String,
    },
    /// The clocks are too far apart for the certificate to be valid here.
    #[error(
        "this machine's clock is off by {seconds} s, and its new certificate is not valid by it; set the clock and join again"
    )]
    ClockSkew {
        /// By how much.
        seconds: u64,
    },
    /// The key of the attempt could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was answered is unusable or could not be kept.
    #[error(transparent)]
    Identity(#[from] NodeIdentityError),
}

/// What came of joining.
#[derive(Debug)]
pub struct Joined {
    /// Who this node is now.
    pub id: SpiffeId,
    /// Which certificate of this node it is.
    pub generation: u64,
    /// A difference of the clocks worth telling, in seconds.
    pub skew: Option<u64>,
}

/// Joins the mesh whose control plane is at `url` as `node`, and keeps the identity in `state`.
/// Nothing secret is sent before the control plane has proven to hold the key that the token pins.
///
/// # Errors
/// [`JoinError`]. The same token may be tried again with the same call after a lost connection.
pub async fn join(url: &str, token: &Token, node: &str, state: &Path) -> Result<Joined, JoinError> {
    let presented = Arc::new(OnceLock::new());
    let tls = join_client(token.pin, Arc::clone(&presented))?;
    let channel = dial::connect(url, tls).await?;
    let shown = presented.get().map(Vec::as_slice).unwrap_or_default();
    let trust_domain = trust_domain_of(shown).ok_or(JoinError::NoTrustDomain)?;
    let id = SpiffeId::node(&trust_domain, node).map_err(|source| JoinError::Name {
        node: node.to_owned(),
        source,
    })?;
    let pending = state.join("agent/join.key");
    let request = request(&pending, &id)?;
    let ask = JoinRequest {
        token_id: token.id.clone(),
        secret: token.secret.to_vec(),
        node: node.to_owned(),
        csr: request.csr.to_vec(),
        host: Some(host_info()),
        roles: vec!["node".to_owned()],
    };
    let answer = EnrollmentClient::new(channel).join(ask).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let skew = skew(answer.server_time_ms);
    let identity = NodeIdentity::of(answer, &request, &id, None)?;
    let now = SystemTime::now();
    if now < identity.svid.not_before() || now >= identity.svid.not_after() {
        let seconds = skew.unwrap_or_default();
        return Err(JoinError::ClockSkew { seconds });
    }
    identity.keep(state, request.key.secret_pkcs8_der())?;
    // From here on it would only be a key that lies about.
    if let Err(e) = files::remove(&pending) {
        warn!(error = chain(&e), "the key of the join is left behind");
    }
    Ok(Joined {
        id,
        generation: identity.mesh.generation,
        skew,
    })
}

/// The request of this attempt: over the key of the one before it, if that was not finished, since its
/// answer may be lost and the token is spent for that key.
fn request(pending: &Path, id: &SpiffeId) -> Result<Request, JoinError> {
    if let Some(key) = files::read_secret(pending)?
        && let Ok(request) = Request::again(id, &PrivatePkcs8KeyDer::from(key))
    {
        return Ok(request);
    }
    let request = Request::new(id)?;
    if let Some(directory) = pending.parent() {
        files::directory(directory)?;
    }
    files::write(pending, request.key.secret_pkcs8_der())?;
    Ok(request)
}

fn refused(status: &tonic::Status) -> JoinError {
    let reason = status.metadata().get("lateen-reason");
    let reason = reason.and_then(|r| r.to_str().ok());
    JoinError::Refused {
        reason: reason.unwrap_or("UNKNOWN").to_owned(),
        message: status.message().to_owned(),
    }
}

fn milliseconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

fn skew(server_ms: i64) -> Option<u64> {
    let apart = server_ms.abs_diff(milliseconds());
    (apart > SKEW_MS).then_some(apart / 1000)
}

fn host_info() -> HostInfo {
    let line = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().to_owned()
    };
    HostInfo {
        hostname: line("/proc/sys/kernel/hostname"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: line("/proc/sys/kernel/osrelease"),
        wall_clock_ms: milliseconds(),
        machine_id_sha256: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_was_not_finished_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let pending = dir.path().join("agent/join.key");
        let id = "spiffe://cluster.local/node/edge-1".parse().unwrap();
        let key = |r: Request| r.key.secret_pkcs8_der().to_vec();
        let first = key(request(&pending, &id).unwrap());
        assert_eq!(key(request(&pending, &id).unwrap()), first);
        fs::write(&pending, "no key").unwrap();
        assert_ne!(
            key(request(&pending, &id).unwrap()),
            first,
            "a torn one is made anew"
        );
        fs::remove_file(&pending).unwrap();
        assert_ne!(key(request(&pending, &id).unwrap()), first);
    }
}
