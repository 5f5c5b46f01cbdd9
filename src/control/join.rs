//! The `Enrollment` service: a machine's first certificate for a token, and every later one for
//! the certificate before it (`spec/control-plane.md` §6.2, §6.3).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use rustls_pki_types::CertificateSigningRequestDer;
use tonic::{Code, Request, Response, Status};

use super::audit;
use super::ca::{Authority, Csr, CsrError, NODE_TTL};
use super::caller::Caller;
use super::enrolment::{EnrolError, Enrolment, Joining};
use crate::identity::SpiffeId;
use crate::model::declaration::Settings;
use crate::telemetry::access_log::chain;
use crate::tls::spki_sha256;
use crate::wire::proto::lateen::enrollment_server::Enrollment;
use crate::wire::proto::lateen::{
    Enrolled, JoinRequest, MeshInfo, RenewRequest, TrustBundle, TrustRoot,
};

/// Failed joins of one address in a minute, before it is told to wait (row 14).
const FAILURES: u32 = 5;
/// Addresses whose failures are remembered; when full, remembering starts over.
const ADDRESSES: usize = 4096;
/// Header of a refusal that carries its stable word.
pub const REASON: &str = "lateen-reason";

/// What joining needs to know of the mesh in force.
pub trait Mesh: Send + Sync + 'static {
    /// Whether the mesh files have a node of this name.
    fn has_node(&self, name: &str) -> bool;
    /// The mesh's settings.
    fn settings(&self) -> Arc<Settings>;
}

/// The service.
pub struct Service {
    authority: Arc<Authority>,
    enrolment: Arc<Enrolment>,
    mesh: Arc<dyn Mesh>,
    failures: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Service {
    /// A service that signs with `authority` for whom `enrolment` lets in.
    pub fn new(authority: Arc<Authority>, enrolment: Arc<Enrolment>, mesh: Arc<dyn Mesh>) -> Self {
        Self {
            authority,
            enrolment,
            mesh,
            failures: Mutex::default(),
        }
    }

    fn enrol(&self, ask: &JoinRequest, now: SystemTime) -> Result<Enrolled, Status> {
        let csr = self.csr(&ask.csr, &ask.node)?;
        let joining = Joining {
            token: &ask.token_id,
            secret: &ask.secret,
            node: &ask.node,
            spki: csr.spki_sha256(),
            declared: self.mesh.has_node(&ask.node),
        };
        let generation = self.enrolment.join(&joining, now);
        let generation = generation.map_err(|e| refusal(&e))?;
        self.answer(&csr, &ask.node, generation, now)
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
        let signed = self.authority.sign(csr, &id, NODE_TTL, now);
        let signed =
            signed.map_err(|e| with_reason(Code::Unavailable, &chain(&e), "CA_UNAVAILABLE"))?;
        let settings = self.mesh.settings();
        let epoch = self.authority.epoch().to_vec();
        let root = |der: &rustls_pki_types::CertificateDer<'static>| TrustRoot {
            der: der.to_vec(),
            spki_sha256: spki_sha256(der).map(Vec::from).unwrap_or_default(),
            state: 0,
        };
        Ok(Enrolled {
            chain: signed.chain.iter().map(|c| c.to_vec()).collect(),
            trust: Some(TrustBundle {
                epoch: epoch.clone(),
                sequence: 1,
                roots: self
                    .authority
                    .roots()
                    .certificates()
                    .iter()
                    .map(root)
                    .collect(),
                trust_domains: vec![settings.trust_domain.to_string()],
                ..TrustBundle::default()
            }),
            mesh: Some(MeshInfo {
                trust_domain: settings.trust_domain.to_string(),
                mesh_domain: settings.domain.to_string(),
                cluster_id: settings.cluster_id.to_string(),
                network: settings.network.to_string(),
                epoch,
            }),
            controls: Vec::new(),
            server_time_ms: milliseconds(now),
            generation,
        })
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

#[tonic::async_trait]
impl Enrollment for Service {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Enrolled>, Status> {
        let caller = Caller::of(&request)?;
        let ask = request.into_inner();
        self.throttle(caller.address.ip())?;
        match self.enrol(&ask, SystemTime::now()) {
            Ok(enrolled) => {
                let detail = format!("token {} generation {}", ask.token_id, enrolled.generation);
                audit::granted("join", &ask.node, &caller.address, &detail);
                Ok(Response::new(enrolled))
            }
            Err(status) => {
                self.note_failure(caller.address.ip());
                let node: String = ask.node.chars().take(64).collect();
                audit::refused("join", &node, &caller.address, status.message());
                Err(status)
            }
        }
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Enrolled>, Status> {
        let caller = Caller::of(&request)?;
        let node = Arc::clone(caller.node()?);
        let presented = caller.spki.unwrap_or_default();
        let now = SystemTime::now();
        let csr = self.csr(&request.into_inner().csr, &node)?;
        let renewed = self
            .enrolment
            .renew(&node, presented, csr.spki_sha256(), now);
        match renewed {
            Ok(generation) => {
                let detail = format!("generation {generation}");
                audit::granted("renew", &node, &caller.address, &detail);
                Ok(Response::new(self.answer(&csr, &node, generation, now)?))
            }
            Err(e) => {
                audit::refused("renew", &node, &caller.address, &chain(&e));
                Err(refusal(&e))
            }
        }
    }
}

fn refusal(error: &EnrolError) -> Status {
    let code = match error {
        EnrolError::TokenUnknown | EnrolError::TokenExpired => Code::Unauthenticated,
        EnrolError::TokenUsed { .. } | EnrolError::NodeEnrolled { .. } => Code::AlreadyExists,
        EnrolError::TokenWrongNode { .. }
        | EnrolError::TokenRevoked
        | EnrolError::NotEnrolled { .. }
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

fn milliseconds(now: SystemTime) -> i64 {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
