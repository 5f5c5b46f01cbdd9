//! The `Enrollment` service: a machine's first certificate for a token, and every later one for
//! the certificate before it (`spec/control-plane.md` §6.2, §6.3).

use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use tonic::{Code, Request, Response, Status};

use super::aside::aside;
use super::audit;
use super::ca::{Authority, Csr, CsrError, NODE_TTL};
use super::caller::Caller;
use super::challenge::Challenges;
use super::enrolment::{EnrolError, Enrolment, Joining, Presented};
use super::trust;
use crate::causes::chain;
use crate::clock::milliseconds;
use crate::identity::SpiffeId;
use crate::model::declaration::Settings;
use crate::tls::{
    CertificateKey, peer_identity, reenrol_payload, signed_by, spki_sha256, validity_of,
};
use crate::wire::proto::lateen::enrollment_server::Enrollment;
use crate::wire::proto::lateen::{
    ChallengeRequest, ChallengeResponse, Enrolled, JoinRequest, MeshInfo, ReenrollRequest,
    RenewRequest,
};

/// Failed joins of one address in a minute, before it is told to wait (row 14).
const FAILURES: u32 = 5;
/// Addresses whose failures are remembered; when full, remembering starts over.
const ADDRESSES: usize = 4096;
/// How long after its end a certificate still lets its node back in (§6.3).
const REENROL_WITHIN: Duration = super::ca::REMEMBERED;
/// Header of a refusal that carries its stable word.
pub const REASON: &str = "lateen-reason";

/// Refusals that mean that a token or a node's key is in other hands (§6.2, §6.3).
const ALERTS: [&str; 4] = [
    "TOKEN_USED",
    "TOKEN_WRONG_NODE",
    "NODE_ENROLLED",
    "CLONE_SUSPECTED",
];

/// What joining needs to know of the mesh in force.
pub trait Mesh: Send + Sync + 'static {
    /// Whether the mesh files have a node of this name.
    fn has_node(&self, name: &str) -> bool;
    /// The mesh's settings.
    fn settings(&self) -> Arc<Settings>;
}

/// Ends every stream that a node has open, with a status.
pub type Ends = Arc<dyn Fn(&str, Status) + Send + Sync>;

/// The service.
pub struct Service {
    authority: Arc<Authority>,
    enrolment: Arc<Enrolment>,
    mesh: Arc<dyn Mesh>,
    /// Who enrols nodes, where this control plane does not.
    primary: Option<String>,
    ends: Ends,
    challenges: Challenges,
    failures: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Service {
    /// A service that signs with `authority` for whom `enrolment` lets in. `ends` ends the streams of
    /// a node that is no longer who it was.
    pub fn new(
        authority: Arc<Authority>,
        enrolment: Arc<Enrolment>,
        mesh: Arc<dyn Mesh>,
        ends: Ends,
    ) -> Self {
        Self {
            authority,
            enrolment,
            mesh,
            primary: None,
            ends,
            challenges: Challenges::default(),
            failures: Mutex::default(),
        }
    }

    /// Leaves enrolling to the control plane at `primary`.
    #[must_use]
    pub fn beside(mut self, primary: Option<String>) -> Self {
        self.primary = primary;
        self
    }

    /// Refuses where another control plane enrols.
    fn here(&self) -> Result<(), Status> {
        let Some(primary) = &self.primary else {
            return Ok(());
        };
        let message = format!("this control plane enrols no nodes; {primary} does");
        Err(with_reason(
            Code::FailedPrecondition,
            &message,
            "NOT_PRIMARY",
        ))
    }

    fn enrol(&self, ask: &JoinRequest, now: SystemTime) -> Result<Enrolled, Status> {
        if let Some(role) = ask.roles.iter().find(|r| *r != "node") {
            let message = format!("this join token lets no {role} in, only a node");
            return Err(with_reason(
                Code::PermissionDenied,
                &message,
                "ROLE_NOT_ALLOWED",
            ));
        }
        if !self.authority.signs(now) {
            // Before the token is spent for nothing.
            let message = "the authority cannot sign now: its intermediate is about to expire";
            return Err(with_reason(Code::Unavailable, message, "CA_UNAVAILABLE"));
        }
        let csr = self.csr(&ask.csr, &ask.node)?;
        let joining = Joining {
            token: &ask.token_id,
            secret: &ask.secret,
            node: &ask.node,
            spki: csr.spki_sha256(),
            declared: self.mesh.has_node(&ask.node),
        };
        let joined = self.enrolment.join(&joining, now);
        let joined = joined.map_err(|e| refusal(&e))?;
        if joined.replaces {
            let revoked = self.authority.revoke_node(&ask.node, now);
            revoked.map_err(|e| with_reason(Code::Unavailable, &chain(&e), "CA_UNAVAILABLE"))?;
            self.end(&ask.node, "another machine has taken this node's place");
        }
        self.answer(&csr, &ask.node, joined.generation, now)
    }

    fn csr(&self, der: &[u8], node: &str) -> Result<Csr, Status> {
        let bad = |e: CsrError| with_reason(Code::InvalidArgument, &e.to_string(), "CSR_INVALID");
        let csr = Csr::from_der(&CertificateSigningRequestDer::from(der)).map_err(bad)?;
        let wanted = self.identity(node)?;
        match csr.identity() {
            Some(id) if *id == wanted => Ok(csr),
            _ => Err(with_reason(
                Code::InvalidArgument,
                &format!("the certificate request must name {wanted} and nothing else"),
                "CSR_IDENTITY",
            )),
        }
    }

    fn identity(&self, node: &str) -> Result<SpiffeId, Status> {
        SpiffeId::node(self.authority.trust_domain(), node)
            .map_err(|e| with_reason(Code::InvalidArgument, &e.to_string(), "CSR_IDENTITY"))
    }

    fn answer(
        &self,
        csr: &Csr,
        node: &str,
        generation: u64,
        now: SystemTime,
    ) -> Result<Enrolled, Status> {
        let id = self.identity(node)?;
        let signed = self.authority.sign(csr, &id, node, NODE_TTL, now);
        let signed =
            signed.map_err(|e| with_reason(Code::Unavailable, &chain(&e), "CA_UNAVAILABLE"))?;
        let settings = self.mesh.settings();
        Ok(Enrolled {
            chain: signed.chain.iter().map(|c| c.to_vec()).collect(),
            trust: Some(trust::bundle(
                &self.authority,
                &settings.trust_domain_aliases,
            )),
            mesh: Some(MeshInfo {
                trust_domain: settings.trust_domain.to_string(),
                mesh_domain: settings.domain.to_string(),
                cluster_id: settings.cluster_id.to_string(),
                network: settings.network.to_string(),
                epoch: self.authority.epoch().to_vec(),
            }),
            controls: Vec::new(),
            server_time_ms: milliseconds(now),
            generation,
        })
    }

    /// The generation of a node's next certificate; one that seems to be two machines is ended.
    fn renewed(
        &self,
        node: &str,
        presented: Presented,
        wanted: [u8; 32],
        now: SystemTime,
    ) -> Result<u64, Status> {
        let renewed = self.enrolment.renew(node, presented, wanted, now);
        if let Err(e @ EnrolError::CloneSuspected { .. }) = &renewed {
            self.end(node, &e.to_string());
        }
        renewed.map_err(|e| refusal(&e))
    }

    /// Ends what a node has open.
    fn end(&self, node: &str, reason: &str) {
        (self.ends)(node, Status::permission_denied(reason));
    }

    /// Lets a node whose certificate has expired go on: by its key, which the expired certificate
    /// names and the registry knows (§6.3).
    fn reenrol(
        &self,
        ask: &ReenrollRequest,
        now: SystemTime,
    ) -> Result<(Arc<str>, Enrolled), Status> {
        let node = self.challenges.redeem(&ask.nonce, now);
        let node = node.ok_or_else(|| {
            let message = "this challenge is not known, is used up or is too old; ask for another";
            with_reason(Code::Unauthenticated, message, "CHALLENGE_UNKNOWN")
        })?;
        let csr = self.csr(&ask.csr, &node)?;
        let expired = Expired::of(ask, &node, &self.authority)?;
        let since = now.duration_since(expired.not_after).unwrap_or_default();
        if since > REENROL_WITHIN {
            let message = format!(
                "the certificate of node {node} expired {} days ago; it needs a join token",
                since.as_secs() / 86_400
            );
            return Err(with_reason(
                Code::FailedPrecondition,
                &message,
                "EXPIRED_TOO_LONG",
            ));
        }
        let wanted = csr.spki_sha256();
        let presented = Presented {
            spki: expired.spki,
            made: expired.made,
        };
        let generation = self.renewed(&node, presented, wanted, now)?;
        let enrolled = self.answer(&csr, &node, generation, now)?;
        Ok((node, enrolled))
    }

    /// Refuses an address that keeps failing.
    fn throttle(&self, address: IpAddr) -> Result<(), Status> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(&address) {
            Some((since, count)) if since.elapsed().as_secs() < 60 && *count >= FAILURES => {
                Err(with_reason(
                    Code::ResourceExhausted,
                    "too many failed joins from this address; wait a minute",
                    "TOO_MANY_FAILURES",
                ))
            }
            _ => Ok(()),
        }
    }

    fn note_failure(&self, address: IpAddr) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES {
            failures.clear();
        }
        let entry = failures
            .entry(address)
            .or_insert_with(|| (Instant::now(), 0));
        if entry.0.elapsed().as_secs() >= 60 {
            *entry = (Instant::now(), 0);
        }
        entry.1 += 1;
    }
}

impl Service {
    fn joined(&self, caller: &Caller, ask: &JoinRequest) -> Result<Enrolled, Status> {
        match self.enrol(ask, SystemTime::now()) {
            Ok(enrolled) => {
                let detail = format!("token {} generation {}", ask.token_id, enrolled.generation);
                audit::granted("join", &ask.node, &caller.address, &detail);
                Ok(enrolled)
            }
            Err(status) => {
                self.note_failure(caller.address.ip());
                let node: String = ask.node.chars().take(64).collect();
                told("join", &node, caller, &status);
                Err(status)
            }
        }
    }

    fn renewal(&self, caller: &Caller, csr: &[u8]) -> Result<Enrolled, Status> {
        // As it was presented: the registry tells below what has become of it.
        let node = Arc::clone(caller.presented()?);
        let presented = Presented {
            spki: caller.spki.unwrap_or_default(),
            made: caller.made.unwrap_or(SystemTime::UNIX_EPOCH),
        };
        let now = SystemTime::now();
        let renewed = self.csr(csr, &node).and_then(|csr| {
            let generation = self.renewed(&node, presented, csr.spki_sha256(), now)?;
            self.answer(&csr, &node, generation, now)
        });
        match renewed {
            Ok(enrolled) => {
                let detail = format!("generation {}", enrolled.generation);
                audit::granted("renew", &node, &caller.address, &detail);
                Ok(enrolled)
            }
            Err(status) => {
                told("renew", &node, caller, &status);
                Err(status)
            }
        }
    }

    fn returned(&self, caller: &Caller, ask: &ReenrollRequest) -> Result<Enrolled, Status> {
        match self.reenrol(ask, SystemTime::now()) {
            Ok((node, enrolled)) => {
                let detail = format!("generation {}", enrolled.generation);
                audit::granted("reenroll", &node, &caller.address, &detail);
                Ok(enrolled)
            }
            Err(status) => {
                self.note_failure(caller.address.ip());
                told("reenroll", &"-", caller, &status);
                Err(status)
            }
        }
    }
}

#[tonic::async_trait]
impl Enrollment for Arc<Service> {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Enrolled>, Status> {
        self.here()?;
        let caller = Caller::of(&request)?;
        self.throttle(caller.address.ip())?;
        let (service, ask) = (Self::clone(self), request.into_inner());
        let joined = aside(move || service.joined(&caller, &ask)).await?;
        Ok(Response::new(joined))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Enrolled>, Status> {
        self.here()?;
        let caller = Caller::of(&request)?;
        let (service, csr) = (Self::clone(self), request.into_inner().csr);
        let renewed = aside(move || service.renewal(&caller, &csr)).await?;
        Ok(Response::new(renewed))
    }

    async fn challenge(
        &self,
        request: Request<ChallengeRequest>,
    ) -> Result<Response<ChallengeResponse>, Status> {
        self.here()?;
        let caller = Caller::of(&request)?;
        self.throttle(caller.address.ip())?;
        let node = request.into_inner().node;
        self.identity(&node)?;
        // Whoever never joined is not told so, and takes no room.
        let known = self.enrolment.knows(&node);
        let (nonce, expires) = self.challenges.make(&node, known, SystemTime::now());
        Ok(Response::new(ChallengeResponse {
            nonce: nonce.to_vec(),
            expires_ms: milliseconds(expires),
        }))
    }

    async fn reenroll(
        &self,
        request: Request<ReenrollRequest>,
    ) -> Result<Response<Enrolled>, Status> {
        self.here()?;
        let caller = Caller::of(&request)?;
        self.throttle(caller.address.ip())?;
        let (service, ask) = (Self::clone(self), request.into_inner());
        let returned = aside(move || service.returned(&caller, &ask)).await?;
        Ok(Response::new(returned))
    }
}

/// A certificate that was ours to give, and whose key its holder has proven to hold.
struct Expired {
    spki: [u8; 32],
    made: SystemTime,
    not_after: SystemTime,
}

impl Expired {
    fn of(ask: &ReenrollRequest, node: &str, authority: &Authority) -> Result<Self, Status> {
        let bad = |message: &str| with_reason(Code::Unauthenticated, message, "PROOF_INVALID");
        let chain: Vec<CertificateDer<'static>> = ask
            .expired_chain
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let leaf = chain
            .first()
            .ok_or_else(|| bad("no certificate was shown"))?;
        let (made, not_after) =
            validity_of(leaf).ok_or_else(|| bad("the certificate shown does not parse"))?;
        let taken_back =
            CertificateKey::of(leaf).is_none_or(|k| authority.was_revoked(&k.serial()));
        if taken_back {
            return Err(with_reason(
                Code::PermissionDenied,
                "the certificate shown has been revoked; this node needs a join token",
                "NODE_REVOKED",
            ));
        }
        // As it was while it was good.
        let then = not_after - Duration::from_secs(1);
        if !authority.trust().bundle().believed_at(&chain, then) {
            return Err(bad("the certificate shown is none of this mesh's"));
        }
        let named = peer_identity(leaf).is_some_and(|id| match id {
            SpiffeId::Node { name, .. } => *name == *node,
            _ => false,
        });
        if !named {
            return Err(bad("the certificate shown is another's"));
        }
        let signed = reenrol_payload(&ask.nonce, node, &ask.csr);
        if !signed_by(leaf, &signed, &ask.signature) {
            return Err(bad("the signature is not of the certificate's key"));
        }
        let spki =
            spki_sha256(leaf).map_err(|_parsed| bad("the certificate shown does not parse"))?;
        Ok(Self {
            spki,
            made,
            not_after,
        })
    }
}

/// The audit line of a refusal.
fn told(act: &'static str, node: &dyn Display, caller: &Caller, status: &Status) {
    let reason = status.metadata().get(REASON);
    let reason = reason.and_then(|r| r.to_str().ok()).unwrap_or_default();
    let line = match ALERTS.contains(&reason) {
        true => audit::alarmed,
        false => audit::refused,
    };
    line(act, node, &caller.address, status.message());
}

fn refusal(error: &EnrolError) -> Status {
    let code = match error {
        EnrolError::TokenUnknown | EnrolError::TokenExpired => Code::Unauthenticated,
        EnrolError::TokenUsed { .. } | EnrolError::NodeEnrolled { .. } => Code::AlreadyExists,
        EnrolError::TokenWrongNode { .. }
        | EnrolError::TokenRevoked
        | EnrolError::NotEnrolled { .. }
        | EnrolError::NodeRevoked { .. }
        | EnrolError::Superseded { .. }
        | EnrolError::CloneSuspected { .. } => Code::PermissionDenied,
        EnrolError::NodeUnknown { .. } => Code::FailedPrecondition,
        EnrolError::File(_) => Code::Unavailable,
    };
    with_reason(code, &chain(error), error.reason())
}

fn with_reason(code: Code, message: &str, reason: &'static str) -> Status {
    let mut status = Status::new(code, message);
    let value = tonic::metadata::MetadataValue::from_static(reason);
    status.metadata_mut().insert(REASON, value);
    status
}

#[cfg(test)]
mod tests;
