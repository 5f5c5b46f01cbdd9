//! Istio's certificate service: a node asks for the certificates of the workloads and waypoints
//! placed on it, and for no other (`spec/control-plane.md` §4).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tonic::{Request, Response, Status};

use super::aside::aside;
use super::audit;
use super::ca::{Authority, Csr, MIN_TTL, granted_ttl};
use super::caller::Caller;
use super::gate::Gate;
use super::issued::Issued;
use crate::causes::chain;
use crate::identity::SpiffeId;
use crate::telemetry::ControlMetrics;
use crate::tls::to_pem;
use crate::wire::proto::citadel::istio_certificate_service_server::IstioCertificateService;
use crate::wire::proto::citadel::{IstioCertificateRequest, IstioCertificateResponse};

/// Certificates a node may ask for in a second, over time.
const RATE: f64 = 20.0;
/// And at once, apart from its workloads (§4.2).
const BURST: f64 = 50.0;
/// For each identity that runs on it: a node that starts asks for all of them together.
const BURST_EACH: f64 = 4.0;

/// Certificates of one identity that a node may ask for in a second, over time, and at once.
const RATE_ONE: f64 = 1.0 / 60.0;
const BURST_ONE: f64 = 20.0;
/// Identities whose requests are counted before those that rest are forgotten.
const ONES: usize = 100_000;

/// What runs where, by the revision in force.
pub trait Placements: Send + Sync + 'static {
    /// Whether the mesh places a workload or a waypoint with this namespace and service account on a
    /// node.
    fn runs(&self, node: &str, namespace: &str, service_account: &str) -> bool;
    /// How many identities run on a node.
    fn identities(&self, node: &str) -> u32;
    /// The longest life the mesh gives a workload's certificate.
    fn certificate_ttl(&self) -> Duration;
}

/// The service.
pub struct Service {
    authority: Arc<Authority>,
    placements: Arc<dyn Placements>,
    issued: Arc<Issued>,
    gate: Option<Gate>,
    metrics: ControlMetrics,
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
    ones: Mutex<HashMap<(Arc<str>, SpiffeId), Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(tokens: f64) -> Self {
        let at = Instant::now();
        Self { tokens, at }
    }

    fn take(&mut self, rate: f64, most: f64) -> bool {
        let gained = self.at.elapsed().as_secs_f64() * rate;
        self.at = Instant::now();
        self.tokens = (self.tokens + gained).min(most);
        let some = self.tokens >= 1.0;
        if some {
            self.tokens -= 1.0;
        }
        some
    }
}

impl Service {
    /// A service that signs with `authority` what `placements` allow, and notes it in `issued`.
    pub fn new(
        authority: Arc<Authority>,
        placements: Arc<dyn Placements>,
        issued: Arc<Issued>,
    ) -> Self {
        Self {
            authority,
            placements,
            issued,
            gate: None,
            metrics: ControlMetrics::default(),
            buckets: Mutex::default(),
            ones: Mutex::default(),
        }
    }

    /// The same, counting what it does in `metrics`.
    #[must_use]
    pub fn counted(self, metrics: ControlMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Has callers judged anew while they are served: the body of a request may take its time.
    #[must_use]
    pub fn judged_by(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// A caller as it stands now.
    fn again(&self, caller: Caller) -> Caller {
        Gate::judged(self.gate.as_ref(), caller)
    }

    /// Signs for a caller, who must be somebody before and after.
    fn serve(
        &self,
        caller: Caller,
        ask: &IstioCertificateRequest,
    ) -> Result<(SpiffeId, IstioCertificateResponse), Status> {
        let caller = self.again(caller);
        let node = Arc::clone(caller.named()?);
        let now = SystemTime::now();
        let (id, answer) = self.issue(&node, ask, now)?;
        let caller = self.again(caller);
        let still = caller.named().map(|_node| ());
        if let Err(status) = still {
            // Shut out meanwhile: what was just signed was perhaps not there to be revoked.
            let revoked = self.authority.revoke_node(&node, now);
            revoked.map_err(|e| Status::unavailable(chain(&e)))?;
            return Err(status);
        }
        Ok((id, answer))
    }

    fn throttle(&self, node: &Arc<str>) -> Result<(), Status> {
        let most = BURST + BURST_EACH * f64::from(self.placements.identities(node));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full = || Bucket::new(most);
        let bucket = buckets.entry(Arc::clone(node)).or_insert_with(full);
        match bucket.take(RATE, most) {
            true => Ok(()),
            false => Err(Status::resource_exhausted(
                "too many certificate requests from this node",
            )),
        }
    }

    /// Each certificate is one that may have to be revoked: a node that asks for ever more of one
    /// identity would make that impossible.
    fn throttle_one(&self, node: &Arc<str>, id: &SpiffeId) -> Result<(), Status> {
        let mut buckets = self.ones.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ONES {
            // Whoever has not asked for so long has a full bucket anyway.
            buckets.retain(|_, bucket| bucket.at.elapsed().as_secs_f64() * RATE_ONE < BURST_ONE);
        }
        let key = (Arc::clone(node), id.clone());
        let full = || Bucket::new(BURST_ONE);
        match buckets
            .entry(key)
            .or_insert_with(full)
            .take(RATE_ONE, BURST_ONE)
        {
            true => Ok(()),
            false => Err(Status::resource_exhausted(format!(
                "{node} has asked for {id} too often; its certificates last longer than that"
            ))),
        }
    }

    fn issue(
        &self,
        node: &Arc<str>,
        ask: &IstioCertificateRequest,
        now: SystemTime,
    ) -> Result<(SpiffeId, IstioCertificateResponse), Status> {
        self.throttle(node)?;
        let csr = Csr::from_pem(&ask.csr);
        let csr = csr.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let id = identity(ask, &csr)?;
        let SpiffeId::Workload {
            trust_domain,
            namespace,
            service_account,
        } = &id
        else {
            let message = format!("{id} is not given out here, only workloads' identities are");
            return Err(Status::permission_denied(message));
        };
        if trust_domain != self.authority.trust_domain() {
            let ours = self.authority.trust_domain();
            let message = format!("{id} is not of this mesh's trust domain {ours}");
            return Err(Status::permission_denied(message));
        }
        if !self.placements.runs(node, namespace, service_account) {
            let message = format!("{node} runs no workload as {namespace}/{service_account}");
            return Err(Status::permission_denied(message));
        }
        self.throttle_one(node, &id)?;
        let longest = self.placements.certificate_ttl().max(MIN_TTL);
        let ttl = granted_ttl(ask.validity_duration).min(longest);
        let signed = self.authority.sign(&csr, &id, node, ttl, now);
        let signed = signed.map_err(|e| Status::failed_precondition(chain(&e)))?;
        self.issued.note(node, &id, now);
        let mut cert_chain: Vec<String> = signed.chain.iter().map(|c| to_pem(c)).collect();
        // Peers read the last element as all the roots there are (§4.4).
        cert_chain.push(self.authority.roots().to_pem());
        Ok((id, IstioCertificateResponse { cert_chain }))
    }
}

/// Whom a request is for: what its metadata says, else what its CSR names; both must agree.
fn identity(ask: &IstioCertificateRequest, csr: &Csr) -> Result<SpiffeId, Status> {
    let fields = ask.metadata.as_ref().map(|m| &m.fields);
    let text = |key: &str| {
        let value = fields.and_then(|f| f.get(key))?;
        match &value.kind {
            Some(prost_types::value::Kind::StringValue(text)) if !text.is_empty() => {
                Some(text.as_str())
            }
            _ => None,
        }
    };
    if text("CertSigner").is_some() {
        return Err(Status::invalid_argument(
            "other signers are not served here",
        ));
    }
    let asked = match text("ImpersonatedIdentity") {
        Some(asked) => {
            let asked: Result<SpiffeId, _> = asked.parse();
            Some(asked.map_err(|e| Status::invalid_argument(e.to_string()))?)
        }
        None => None,
    };
    match (asked, csr.identity()) {
        (Some(asked), Some(named)) if asked != *named => Err(Status::invalid_argument(format!(
            "the request is for {asked} and its CSR names {named}"
        ))),
        (Some(id), _) => Ok(id),
        (None, Some(id)) => Ok(id.clone()),
        (None, None) => Err(Status::invalid_argument("the request names no identity")),
    }
}

impl Service {
    fn created(
        &self,
        caller: Caller,
        ask: &IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        let node = Arc::clone(caller.named()?);
        let address = caller.address;
        let issued = self.serve(caller, ask);
        self.metrics.certificate(issued.is_ok());
        match issued {
            Ok((id, response)) => {
                audit::granted("certificate", &id, &node, "");
                Ok(response)
            }
            Err(status) => {
                audit::refused("certificate", &node, &address, status.message());
                Err(status)
            }
        }
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Arc<Service> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (service, ask) = (Self::clone(self), request.into_inner());
        let created = aside(move || service.created(caller, &ask)).await?;
        Ok(Response::new(created))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::Memory;
    use crate::identity::TrustDomain;
    use crate::tls::{self, Request as CsrRequest, certificates_from_pem};
    use std::collections::BTreeMap;
    use std::path::Path;

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    /// `edge-1` runs `shop/cart`; certificates live for two days at most.
    struct Mesh;

    impl Placements for Mesh {
        fn runs(&self, node: &str, namespace: &str, service_account: &str) -> bool {
            (node, namespace, service_account) == ("edge-1", "shop", "cart")
        }

        fn identities(&self, _node: &str) -> u32 {
            1
        }

        fn certificate_ttl(&self) -> Duration {
            Duration::from_secs(2 * 86_400)
        }
    }

    fn service(dir: &Path) -> Service {
        let td = TrustDomain::default();
        let authority = Authority::open(dir, None, &td, SystemTime::now()).unwrap();
        let issued = Issued::open(Arc::new(Memory::default()), SystemTime::now());
        Service::new(Arc::new(authority), Arc::new(Mesh), Arc::new(issued))
    }

    fn ask(
        csr_for: &str,
        impersonate: Option<&str>,
        more: Option<&str>,
    ) -> IstioCertificateRequest {
        let mut fields = BTreeMap::new();
        let text = |t: &str| prost_types::Value {
            kind: Some(prost_types::value::Kind::StringValue(t.to_owned())),
        };
        if let Some(id) = impersonate {
            fields.insert("ImpersonatedIdentity".to_owned(), text(id));
        }
        if let Some(key) = more {
            fields.insert(key.to_owned(), text("x"));
        }
        IstioCertificateRequest {
            csr: CsrRequest::new(&csr_for.parse().unwrap())
                .unwrap()
                .csr_pem(),
            validity_duration: 86_400,
            metadata: Some(prost_types::Struct { fields }),
        }
    }

    #[test]
    fn a_node_gets_certificates_for_what_runs_on_it_and_for_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path());
        let web = "spiffe://cluster.local/ns/shop/sa/web";
        let foreign = "spiffe://other.local/ns/shop/sa/cart";
        let node = "spiffe://cluster.local/node/edge-1";
        for (name, from, request, want) in [
            (
                "its own workload",
                "edge-1",
                ask(CART, Some(CART), None),
                "granted",
            ),
            (
                "named by the CSR alone",
                "edge-1",
                ask(CART, None, None),
                "granted",
            ),
            (
                "unknown metadata",
                "edge-1",
                ask(CART, Some(CART), Some("Other")),
                "granted",
            ),
            (
                "another's workload",
                "edge-2",
                ask(CART, Some(CART), None),
                "edge-2 runs no workload as shop/cart",
            ),
            (
                "a workload it does not run",
                "edge-1",
                ask(web, Some(web), None),
                "runs no workload as shop/web",
            ),
            (
                "another trust domain",
                "edge-1",
                ask(foreign, Some(foreign), None),
                "not of this mesh's trust domain",
            ),
            (
                "a node's identity",
                "edge-1",
                ask(node, Some(node), None),
                "not given out here",
            ),
            (
                "CSR and metadata differ",
                "edge-1",
                ask(web, Some(CART), None),
                "its CSR names",
            ),
            (
                "another signer",
                "edge-1",
                ask(CART, Some(CART), Some("CertSigner")),
                "other signers",
            ),
            (
                "no identity at all",
                "edge-1",
                ask(CART, Some("shop/cart"), None),
                "is not a mesh identity",
            ),
        ] {
            let got = match service.issue(&Arc::from(from), &request, SystemTime::now()) {
                Ok(_) => "granted".to_owned(),
                Err(status) => status.message().to_owned(),
            };
            assert!(got.contains(want), "{name}: {got}");
        }
    }

    #[test]
    fn an_answer_is_leaf_intermediates_and_all_roots_and_lives_as_the_mesh_says() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path());
        let request = IstioCertificateRequest {
            validity_duration: 30 * 86_400,
            ..ask(CART, Some(CART), None)
        };
        let now = SystemTime::now();
        let (_id, answer) = service.issue(&Arc::from("edge-1"), &request, now).unwrap();
        assert_eq!(answer.cert_chain.len(), 3);
        let leaf = certificates_from_pem(answer.cert_chain[0].as_bytes()).unwrap();
        assert_eq!(tls::peer_identity(&leaf[0]).unwrap().to_string(), CART);
        let life = tls::not_after(&leaf[0])
            .unwrap()
            .duration_since(now)
            .unwrap();
        assert!(life <= Duration::from_secs(2 * 86_400), "{life:?}");
    }

    #[test]
    fn a_node_that_asks_too_much_is_told_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path());
        let node = Arc::from("edge-1");
        let asked = (0..1000).map(|_| service.throttle(&node));
        let granted: Vec<_> = asked.take_while(Result::is_ok).collect();
        assert!((54..60).contains(&granted.len()), "{}", granted.len());
        let refused = service.throttle(&node).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn one_identity_is_not_asked_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path());
        let node = Arc::from("edge-1");
        let ask = ask(CART, Some(CART), None);
        let issue = || service.issue(&node, &ask, SystemTime::now());
        let granted = (0..40).take_while(|_| issue().is_ok()).count();
        assert!((20..25).contains(&granted), "{granted}");
        assert!(issue().unwrap_err().message().contains("too often"));
    }
}
