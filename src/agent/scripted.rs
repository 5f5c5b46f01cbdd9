//! Control planes that do as they are told, for tests: one of ours or, in what it says and leaves
//! unsaid, an istiod (`spec/control-plane.md` §3.8).

mod fitness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use prost_types::Any;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

pub(super) use fitness::Fitness;

use super::channel::{Controls, Who};
use super::identity::{Mesh, NodeIdentity};
use crate::control::caller::Caller;
use crate::control::loopback::serve_tls;
use crate::identity::TrustDomain;
use crate::model::workload::Workload;
use crate::tls::testing::{Leaf, TestCa};
use crate::tls::{Svid, control_server, to_pem};
use crate::wire::convert::{Address, REVISION_NAME, RevisionSummary, digest, encode_revision};
use crate::wire::proto::citadel::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use crate::wire::proto::citadel::{IstioCertificateRequest, IstioCertificateResponse};
use crate::wire::proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use crate::wire::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use crate::wire::proto::grpc_health::health_server::HealthServer;
use crate::wire::proto::lateen::enrollment_server::{Enrollment, EnrollmentServer};
use crate::wire::proto::lateen::node_service_server::{NodeService, NodeServiceServer};
use crate::wire::proto::lateen::{
    ChallengeRequest, ChallengeResponse, Enrolled, JoinRequest, NodeReport, ReenrollRequest,
    RenewRequest, ReportAck,
};
use crate::wire::proto::security::{Authorization, Scope};
use crate::wire::{ADDRESS, AUTHORIZATION, REVISION};

/// The node that follows.
pub(super) const NODE: &str = "edge-1";
/// Longest wait for a condition.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

type Sent = Result<DeltaDiscoveryResponse, Status>;

/// How it is to behave.
#[derive(Clone, Default)]
pub(super) struct Script {
    /// It says that it is one of ours, and sends revisions.
    pub(super) ours: bool,
    /// It ends every stream OK, at once.
    pub(super) ends: bool,
    /// What there is of each type; it is silent about the others.
    pub(super) resources: BTreeMap<&'static str, Vec<Resource>>,
    /// It refuses certificates and renewals so.
    pub(super) refuses: Option<Code>,
    /// It says that it has nothing to serve.
    pub(super) unfit: bool,
}

/// What it has heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// Streams opened, and how many of them by somebody with a certificate.
    pub(super) streams: usize,
    pub(super) certified: usize,
    /// First requests, in order.
    pub(super) first: Vec<DeltaDiscoveryRequest>,
    /// Types that were acknowledged, in order.
    pub(super) acks: Vec<String>,
    /// What was refused, and why.
    pub(super) nacks: Vec<(String, String)>,
    /// `authorization` and `clusterid` of every RPC.
    pub(super) credentials: Vec<(Option<String>, Option<String>)>,
    pub(super) reports: usize,
    pub(super) requests: usize,
}

/// A control plane on loopback.
pub(super) struct Scripted {
    pub(super) url: String,
    address: SocketAddr,
    part: Part,
    tls: Arc<ServerConfig>,
    server: JoinSet<()>,
}

#[derive(Clone)]
struct Part {
    script: Arc<Mutex<Script>>,
    heard: Arc<watch::Sender<Heard>>,
    live: Arc<Mutex<Vec<mpsc::Sender<Sent>>>>,
    readers: Arc<Mutex<JoinSet<()>>>,
    /// Chain and roots as it answers requests for certificates.
    chain: Vec<String>,
}

impl Scripted {
    /// One of ours.
    pub(super) async fn lateen(ca: &TestCa, script: Script) -> Self {
        let script = Script {
            ours: true,
            ..script
        };
        Self::start(ca, control_tls(ca), script).await
    }

    /// An istiod.
    pub(super) async fn istiod(ca: &TestCa, script: Script) -> Self {
        Self::start(ca, istiod_tls(ca, "localhost"), script).await
    }

    pub(super) async fn start(ca: &TestCa, tls: Arc<ServerConfig>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let part = Part {
            script: Arc::new(Mutex::new(script)),
            heard: Arc::default(),
            live: Arc::default(),
            readers: Arc::default(),
            chain: vec![to_pem(&ca.root)],
        };
        Self {
            url: url(address),
            address,
            server: part.serve(listener, &tls),
            part,
            tls,
        }
    }

    /// Ends every connection and takes no more.
    pub(super) async fn stop(&mut self) {
        self.server.shutdown().await;
        self.part.live.lock().unwrap().clear();
    }

    /// Is there again, where it was.
    pub(super) async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.server = self.part.serve(listener, &self.tls);
    }

    /// Behaves otherwise from now on.
    pub(super) fn rewrite(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.part.script.lock().unwrap());
    }

    /// Pushes what there is of a type to everybody.
    pub(super) fn push(&self, type_url: &'static str) {
        let script = self.part.script.lock().unwrap().clone();
        let response = response(&script, type_url, &BTreeMap::new());
        for client in self.part.live.lock().unwrap().iter() {
            client.try_send(Ok(response.clone())).unwrap();
        }
    }

    pub(super) fn heard(&self) -> Heard {
        self.part.heard.borrow().clone()
    }

    /// Waits until what it has heard is so.
    pub(super) async fn hears(&self, what: &str, so: impl FnMut(&Heard) -> bool) -> Heard {
        let mut heard = self.part.heard.subscribe();
        let waited = tokio::time::timeout(PATIENCE, heard.wait_for(so)).await;
        match waited {
            Ok(heard) => heard.unwrap().clone(),
            Err(_elapsed) => panic!("{what}: last heard {:?}", self.heard()),
        }
    }
}

pub(super) fn url(address: SocketAddr) -> String {
    format!("https://localhost:{}", address.port())
}

/// TLS of a control plane of ours.
pub(super) fn control_tls(ca: &TestCa) -> Arc<ServerConfig> {
    let leaf = Leaf {
        dns: &["localhost"],
        ..Leaf::uris(&["spiffe://cluster.local/control/c"])
    };
    control_server(&ca.svid_of(&leaf), &TrustDomain::default()).unwrap()
}

/// TLS of an istiod that is called `name`: no identity, and glad of any certificate.
pub(super) fn istiod_tls(ca: &TestCa, name: &str) -> Arc<ServerConfig> {
    let names = [name];
    let leaf = Leaf {
        dns: &names,
        ..Leaf::uris(&[])
    };
    let (certificate, key) = ca.leaf(&leaf);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.root.clone()).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// The control planes of a node that has joined the mesh of this epoch.
pub(super) fn joined(ca: &TestCa, epoch: u8, urls: &[&str]) -> Controls {
    let uri = format!("spiffe://cluster.local/node/{NODE}");
    let (certificate, key) = ca.leaf(&Leaf::uris(&[&uri]));
    let identity = NodeIdentity {
        node: Arc::from(NODE),
        svid: Svid::new(vec![certificate], key, ca.trust()).unwrap(),
        mesh: Mesh {
            trust_domain: "cluster.local".to_owned(),
            mesh_domain: "mesh.internal".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            epoch: vec![epoch; 16],
            generation: 1,
        },
    };
    let (_keeper, identity) = watch::channel(Arc::new(identity));
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    Controls::new(urls, Who::Node(identity))
}

/// A workload as a resource.
pub(super) fn resource(workload: &Workload, version: &str) -> Resource {
    let body = Address::Workload(Arc::new(workload.clone())).encode();
    of(ADDRESS, &workload.uid, version, body)
}

/// A policy for the workloads that it is listed on.
pub(super) fn policy(name: &str) -> Resource {
    policy_of(name, "shop", Scope::WorkloadSelector)
}

/// A policy that reaches so far.
pub(super) fn policy_of(name: &str, namespace: &str, scope: Scope) -> Resource {
    let short = name.rsplit_once('/').map_or(name, |(_, short)| short);
    let policy = Authorization {
        name: short.to_owned(),
        namespace: namespace.to_owned(),
        scope: scope.into(),
        ..Authorization::default()
    };
    // An istiod gives policies no versions.
    of(AUTHORIZATION, name, "", policy.encode_to_vec())
}

/// The revision of these workloads and policies.
pub(super) fn revision(epoch: u8, serial: u64, resources: &[Resource]) -> Resource {
    let lines = resources.iter().map(|r| {
        let type_url = &r.resource.as_ref().unwrap().type_url;
        (&**type_url, r.name.as_str(), r.version.as_str())
    });
    let workloads = lines.clone().filter(|line| line.0 == ADDRESS);
    let total = u32::try_from(workloads.count()).unwrap();
    let summary = RevisionSummary {
        epoch: [epoch; 16],
        serial,
        number: serial,
        digest: digest(lines),
        source: String::new(),
        compiled_at: std::time::SystemTime::UNIX_EPOCH,
        totals: [(ADDRESS.to_owned(), total)].into(),
        warnings: 0,
        expired_grace: Duration::ZERO,
        domain: String::new(),
    };
    let version = serial.to_string();
    of(REVISION, REVISION_NAME, &version, encode_revision(&summary))
}

/// Everything of a mesh of these workloads.
pub(super) fn mesh(
    epoch: u8,
    serial: u64,
    workloads: &[Resource],
) -> BTreeMap<&'static str, Vec<Resource>> {
    BTreeMap::from([
        (ADDRESS, workloads.to_vec()),
        (AUTHORIZATION, Vec::new()),
        (REVISION, vec![revision(epoch, serial, workloads)]),
    ])
}

fn of(type_url: &str, name: &str, version: &str, value: Vec<u8>) -> Resource {
    let type_url = type_url.to_owned();
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(Any { type_url, value }),
        ..Resource::default()
    }
}

/// What is answered to who holds these versions: changed workloads, and every policy again.
fn response(
    script: &Script,
    type_url: &'static str,
    held: &BTreeMap<String, String>,
) -> DeltaDiscoveryResponse {
    let all = script.resources.get(type_url).cloned().unwrap_or_default();
    let gone = held
        .keys()
        .filter(|name| !all.iter().any(|r| r.name == **name));
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        removed_resources: gone.cloned().collect(),
        resources: all
            .into_iter()
            .filter(|r| r.version.is_empty() || held.get(&r.name) != Some(&r.version))
            .collect(),
        nonce: format!("2026-08-22T10:00:00Z/7{:032x}", rand::random::<u128>()),
        ..DeltaDiscoveryResponse::default()
    }
}

impl Part {
    fn serve(&self, listener: TcpListener, tls: &Arc<ServerConfig>) -> JoinSet<()> {
        let routes = Routes::new(AggregatedDiscoveryServiceServer::new(self.clone()))
            .add_service(IstioCertificateServiceServer::new(self.clone()))
            .add_service(EnrollmentServer::new(self.clone()))
            .add_service(NodeServiceServer::new(self.clone()))
            .add_service(HealthServer::new(Fitness(Arc::clone(&self.script))));
        serve_tls(routes, listener, Arc::clone(tls))
    }

    fn note<T>(&self, request: &Request<T>, note: impl FnOnce(&mut Heard)) {
        let header = |name| {
            let value = request.metadata().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let credentials = (header("authorization"), header("clusterid"));
        self.heard.send_modify(|heard| {
            heard.credentials.push(credentials);
            note(heard);
        });
    }

    fn script(&self) -> Script {
        self.script.lock().unwrap().clone()
    }

    fn refused(&self) -> Result<(), Status> {
        match self.script().refuses {
            Some(code) => Err(Status::new(code, "told to")),
            None => Ok(()),
        }
    }

    async fn read(self, mut requests: Streaming<DeltaDiscoveryRequest>, out: mpsc::Sender<Sent>) {
        while let Ok(Some(request)) = requests.message().await {
            let first = request.response_nonce.is_empty();
            self.heard.send_modify(|heard| match &request.error_detail {
                _ if first => heard.first.push(request.clone()),
                Some(detail) => {
                    let refused = (request.type_url.clone(), detail.message.clone());
                    heard.nacks.push(refused);
                }
                None => heard.acks.push(request.type_url.clone()),
            });
            let script = self.script();
            let known = script.resources.keys().find(|t| **t == request.type_url);
            if let Some(type_url) = known.filter(|_| first) {
                let held = &request.initial_resource_versions;
                let response = response(&script, type_url, held);
                out.send(Ok(response)).await.unwrap();
            }
        }
        self.live.lock().unwrap().retain(|l| !l.same_channel(&out));
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Part {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = BoxStream<'static, Sent>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let certified = Caller::of(&request)?.node.is_some();
        self.note(&request, |heard| {
            heard.streams += 1;
            heard.certified += usize::from(certified);
        });
        let script = self.script();
        let (out, responses) = mpsc::channel(64);
        if !script.ends {
            self.live.lock().unwrap().push(out.clone());
            let reading = self.clone().read(request.into_inner(), out);
            self.readers.lock().unwrap().spawn(reading);
        }
        let mut answer = Response::new(ReceiverStream::new(responses).boxed());
        if script.ours {
            let metadata = answer.metadata_mut();
            metadata.insert("lateen-control", "1".parse().unwrap());
        }
        Ok(answer)
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Part {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.note(&request, |heard| heard.requests += 1);
        self.refused()?;
        let cert_chain = self.chain.clone();
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

#[tonic::async_trait]
impl Enrollment for Part {
    async fn join(&self, _request: Request<JoinRequest>) -> Result<Response<Enrolled>, Status> {
        Err(Status::unimplemented("no joining here"))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Enrolled>, Status> {
        self.note(&request, |heard| heard.requests += 1);
        self.refused()?;
        Ok(Response::new(Enrolled {
            generation: 2,
            ..Enrolled::default()
        }))
    }

    async fn challenge(
        &self,
        _request: Request<ChallengeRequest>,
    ) -> Result<Response<ChallengeResponse>, Status> {
        Err(Status::unimplemented("no challenges here"))
    }

    async fn reenroll(
        &self,
        _request: Request<ReenrollRequest>,
    ) -> Result<Response<Enrolled>, Status> {
        Err(Status::unimplemented("no coming back here"))
    }
}

#[tonic::async_trait]
impl NodeService for Part {
    type ReportStream = BoxStream<'static, Result<ReportAck, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let heard = Arc::clone(&self.heard);
        let reports = request.into_inner();
        let acks = reports.map(move |report| {
            let report = report?;
            heard.send_modify(|heard| heard.reports += report.workloads.len());
            Ok(ReportAck {
                seq: report.seq,
                ..ReportAck::default()
            })
        });
        Ok(Response::new(acks.boxed()))
    }
}
