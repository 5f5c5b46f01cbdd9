//! The control role, put together: the mesh directory to revisions, revisions to nodes, and the
//! certificate authority beside them, all on one port.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tracing::{error, info, warn};

use super::bearer::{BearerError, Bearers};
use super::ca::{Authority, OpenError, SignError};
use super::citadel::{self, Placements};
use super::compile::{CompileStatus, Input, LastGood, Publisher};
use super::discovery::{Clients, Discovery, Limits};
use super::enrolment::Enrolment;
use super::gate::Gate;
use super::health::Health;
use super::issued::Issued;
use super::join::{self, Mesh};
use super::listener;
use super::peer::{self, Follower, KeptError};
use super::readiness::Readiness;
use super::revision::Revision;
use super::source::{Source, SourceStatus};
use super::store::{self, StoreError};
use super::trust;
use crate::causes::chain;
use crate::files::{self, FileError};
use crate::identity::{IdentityError, SpiffeId};
use crate::model::declaration::Settings as MeshSettings;
use crate::telemetry::{ControlMetrics, Metrics};
use crate::tls::{TlsError, Trust, control_server};
use crate::wire::proto::citadel::istio_certificate_service_server::IstioCertificateServiceServer;
use crate::wire::proto::lateen::enrollment_server::EnrollmentServer;

/// Largest request taken that is no discovery request: one with a certificate request in it.
const REQUEST_LIMIT: usize = 64 << 10;
/// Longest time from the head of a request to that of its answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How often the port's own certificate is made anew; it lives for thirty days.
const RENEW: Duration = Duration::from_secs(24 * 3600);

/// Between looks at what time asks of the authority, and at the files of a plugged-in one.
const LOOK: Duration = Duration::from_secs(1);

/// What the control role is told by `lateen.toml`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state directory.
    pub state: PathBuf,
    /// The directory of an authority that is brought along.
    pub authority: Option<PathBuf>,
    /// The URL of the control plane that enrols nodes, where another does.
    pub primary: Option<String>,
    /// The mesh directory.
    pub mesh: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// This control plane's name.
    pub name: String,
    /// Names and addresses it is reached by.
    pub names: Vec<String>,
    /// Over how long streams are ended at a stop.
    pub drain: Duration,
}

/// Why the control role cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no mesh to begin with.
    #[error("no mesh to serve: the mesh directory {} does not pass, and there is no earlier good revision; run lateen check {}", directory.display(), directory.display())]
    NoMesh {
        /// The mesh directory.
        directory: PathBuf,
    },
    /// The certificate authority does not open.
    #[error(transparent)]
    Authority(#[from] OpenError),
    /// A file does not read or write.
    #[error(transparent)]
    File(#[from] FileError),
    /// What the primary said last is unusable.
    #[error(transparent)]
    Primary(#[from] KeptError),
    /// Bearer tokens do not open.
    #[error(transparent)]
    Bearers(#[from] BearerError),
    /// The store is in use by another process.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The revisions kept do not read.
    #[error("cannot read the revisions kept in {}", path.display())]
    Revisions {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The port is taken, or may not be had.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No certificate for the port.
    #[error(
        "cannot make a certificate for this control plane; are the `names` in lateen.toml host names or addresses?"
    )]
    Serving(#[from] SignError),
    /// The name is no legal one.
    #[error("`name` in the [control] table is not usable")]
    Name(#[from] IdentityError),
    /// No TLS settings.
    #[error("cannot prepare TLS")]
    Tls(#[from] TlsError),
}

/// The control role.
pub struct Control {
    counts: ControlMetrics,
    settings: Settings,
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    authority: Arc<Authority>,
    enrolment: Arc<Enrolment>,
    bearers: Arc<Bearers>,
    issued: Arc<Issued>,
    following: Option<Follower>,
    source: Source,
    publisher: Publisher,
    discovery: Discovery,
    discovery_service: super::discovery::Service,
    health: Health,
    reported: watch::Receiver<Arc<crate::model::compile::Reported>>,
    in_force: Arc<InForce>,
    metrics: Arc<Metrics>,
    handle: Handle,
}

/// What the rest of the process asks of the control role.
#[derive(Clone)]
pub struct Handle {
    /// Signs, and knows what tokens pin.
    pub authority: Arc<Authority>,
    /// The control plane that enrols nodes, where another does.
    pub primary: Option<String>,
    /// Tokens and nodes.
    pub enrolment: Arc<Enrolment>,
    /// Bearer tokens.
    pub bearers: Arc<Bearers>,
    /// When who last had a certificate.
    pub issued: Arc<Issued>,
    /// How reading the mesh directory stands.
    pub source: watch::Receiver<SourceStatus>,
    /// Asks that it is read again.
    pub reread: Arc<Notify>,
    /// How compiling stands.
    pub compile: watch::Receiver<CompileStatus>,
    /// The revision in force.
    pub revisions: watch::Receiver<Option<Arc<Revision>>>,
    /// The mesh that last passed.
    pub inputs: watch::Receiver<Option<Arc<Input>>>,
    /// Nodes that follow discovery.
    pub clients: Arc<Clients>,
    /// Nodes that report.
    pub health: Health,
}

/// The mesh in force, as joining and signing ask of it.
struct InForce {
    revisions: watch::Receiver<Option<Arc<Revision>>>,
    inputs: watch::Receiver<Option<Arc<Input>>>,
    fallback: Arc<MeshSettings>,
}

impl Mesh for InForce {
    fn has_node(&self, name: &str) -> bool {
        let input = self.inputs.borrow();
        input
            .as_ref()
            .is_some_and(|i| i.mesh.nodes.contains_key(name))
    }

    fn settings(&self) -> Arc<MeshSettings> {
        match &*self.inputs.borrow() {
            Some(input) => Arc::new(input.mesh.settings.clone()),
            None => Arc::clone(&self.fallback),
        }
    }
}

impl Placements for InForce {
    fn runs(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        let revision = self.revisions.borrow();
        revision
            .as_ref()
            .is_some_and(|r| r.runs(node, namespace, service_account))
    }

    fn identities(&self, node: &str) -> u32 {
        let revision = self.revisions.borrow();
        let count = revision.as_ref().map_or(0, |r| r.identities(node).count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn certificate_ttl(&self) -> Duration {
        self.settings().certificate_ttl
    }
}

impl Control {
    /// Opens everything the role stands on.
    ///
    /// # Errors
    /// [`StartError`]: nothing is half started.
    pub async fn open(
        settings: Settings,
        metrics: Arc<Metrics>,
        shutdown: &CancellationToken,
    ) -> Result<Self, StartError> {
        let state = settings.state.join("control");
        files::directory(&state)?;
        let revisions_dir = state.join("revision");
        files::directory(&revisions_dir)?;
        let counts = metrics.control().clone();
        let source = Source::new(&settings.mesh, Arc::clone(&metrics));
        source.begin(&LastGood::new(&revisions_dir)).await;
        let inputs = source.inputs();
        let input = inputs.borrow().clone();
        let input = input.ok_or_else(|| StartError::NoMesh {
            directory: settings.mesh.clone(),
        })?;
        let trust_domain = &input.mesh.settings.trust_domain;
        let now = SystemTime::now();
        let plugged = settings.authority.as_deref();
        let authority = Authority::open(&settings.state, plugged, trust_domain, now)?;
        let authority = Arc::new(authority);
        let enrolment = Arc::new(Enrolment::open(&settings.state)?);
        let following = follower(&settings, &authority)?;
        let bearers = Bearers::open(&settings.state, authority.epoch(), trust_domain)?;
        let bearers = Arc::new(bearers);
        let store = store::open(&state.join("store"))?;
        let issued = Arc::new(Issued::open(Arc::clone(&store), now));
        let opened = Publisher::open(
            &revisions_dir,
            authority.epoch(),
            Arc::clone(&store),
            counts.clone(),
        );
        let (publisher, published) = opened.map_err(|source| StartError::Revisions {
            path: revisions_dir.clone(),
            source,
        })?;
        let (health, reported) = Health::open(
            store,
            published.captured,
            published.revisions.clone(),
            shutdown.clone(),
        );
        let limits = Limits {
            drain: settings.drain,
            ..Limits::default()
        };
        let (discovery, discovery_service, clients) =
            Discovery::new(published.revisions.clone(), limits, counts.clone());
        let serving = serving(&authority, &settings, &input)?;
        let listener = TcpListener::bind(settings.listen).await;
        let listener = listener.map_err(|source| StartError::Listen {
            listen: settings.listen,
            source,
        })?;
        let in_force = Arc::new(InForce {
            revisions: published.revisions.clone(),
            inputs: inputs.clone(),
            fallback: Arc::new(input.mesh.settings.clone()),
        });
        let handle = Handle {
            authority: Arc::clone(&authority),
            primary: settings.primary.clone(),
            enrolment: Arc::clone(&enrolment),
            bearers: Arc::clone(&bearers),
            issued: Arc::clone(&issued),
            source: source.status(),
            reread: source.again(),
            compile: published.status,
            revisions: published.revisions,
            inputs,
            clients,
            health: health.clone(),
        };
        Ok(Self {
            counts,
            settings,
            listener,
            tls: Arc::new(ArcSwap::new(serving)),
            authority,
            enrolment,
            bearers,
            issued,
            following,
            source,
            publisher,
            discovery,
            discovery_service,
            health,
            reported,
            in_force,
            metrics,
            handle,
        })
    }

    /// For the rest of the process.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown`, then ends streams in order.
    pub async fn run(self, shutdown: CancellationToken) {
        info!(listen = %self.settings.listen, name = self.settings.name, "control plane serving");
        let mut tasks = JoinSet::new();
        let trust_domain = self.authority.trust_domain().clone();
        let inputs = self.handle.inputs.clone();
        tasks.spawn(self.source.run(trust_domain, shutdown.clone()));
        let bundles = match &self.following {
            None => {
                let rings = self.authority.subscribe();
                let (bundle, bundles) =
                    watch::channel(trust::of(&self.authority, inputs.borrow().as_deref()));
                let authority = Arc::clone(&self.authority);
                let following =
                    trust::follow(authority, rings, inputs.clone(), bundle, shutdown.clone());
                tasks.spawn(following);
                bundles
            }
            Some(follower) => follower.bundle.subscribe(),
        };
        let trust = match &self.following {
            None => self.authority.trust().clone(),
            Some(follower) => follower.trust.clone(),
        };
        if let Some(follower) = self.following {
            tasks.spawn(follower.run(shutdown.clone()));
        }
        let publishing =
            self.publisher
                .run(inputs.clone(), self.reported, bundles, shutdown.clone());
        tasks.spawn(publishing);
        tasks.spawn(self.discovery.run(shutdown.clone()));
        tasks.spawn(self.health.clone().run(shutdown.clone()));
        let compiled = self.handle.compile.clone();
        tasks.spawn(gauges(compiled, self.metrics, shutdown.clone()));
        let (ready, connections) = mpsc::channel(listener::READY);
        let tls = Arc::clone(&self.tls);
        tasks.spawn(listener::accept(
            self.listener,
            tls,
            ready,
            shutdown.clone(),
        ));
        let upkeep = Upkeep {
            authority: Arc::clone(&self.authority),
            settings: self.settings.clone(),
            inputs,
            tls: self.tls,
        };
        tasks.spawn(upkeep.run(shutdown.clone()));
        let mesh: Arc<dyn Mesh> = Arc::<InForce>::clone(&self.in_force);
        let authority = Arc::clone(&self.authority);
        let enrolment = self.enrolment;
        tasks.spawn(Arc::clone(&enrolment).run(shutdown.clone()));
        let clients = Arc::clone(&self.handle.clients);
        let reports = self.health.clone();
        let ends: join::Ends = Arc::new(move |node, status| {
            clients.end(node, status.clone());
            reports.end(node, status);
        });
        let primary = self.settings.primary.clone();
        // Only the primary knows who has joined.
        let registry = primary.is_none().then(|| Arc::clone(&enrolment));
        let gate = Gate::new(self.bearers, trust, registry);
        let joining = join::Service::new(authority, enrolment, mesh, ends).beside(primary);
        let readiness = Readiness::new(self.handle.revisions, Arc::clone(&self.authority));
        let certificates = citadel::Service::new(self.authority, self.in_force, self.issued);
        let certificates = certificates.counted(self.counts).judged_by(gate.clone());
        let certificates = IstioCertificateServiceServer::new(Arc::new(certificates));
        let joining = EnrollmentServer::new(Arc::new(joining));
        let discovery = self.discovery_service.judged_by(gate.clone());
        let reports = self.health.service(Some(gate.clone()));
        let named = InterceptorLayer::new(move |request| gate.check(request));
        let router = Server::builder()
            .layer(named)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .max_concurrent_streams(Some(1000))
            // Of what is asked once; streams end otherwise.
            .timeout(ANSWER)
            .add_service(discovery)
            .add_service(reports)
            .add_service(readiness)
            .add_service(certificates.max_decoding_message_size(REQUEST_LIMIT))
            .add_service(joining.max_decoding_message_size(REQUEST_LIMIT));
        let stop = shutdown.clone().cancelled_owned();
        tasks.spawn(async move {
            let connections = ReceiverStream::new(connections);
            let served = router.serve_with_incoming_shutdown(connections, stop).await;
            if let Err(e) = served {
                error!(error = chain(&e), "the control plane's port failed");
            }
        });
        while let Some(done) = tasks.join_next().await {
            if let Err(e) = done {
                error!(error = %e, "a part of the control plane died, stopping it");
                shutdown.cancel();
            }
        }
    }
}

/// Keeps the gauges of what was last compiled.
async fn gauges(
    mut compiled: watch::Receiver<CompileStatus>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    loop {
        let endpoints = Arc::clone(&compiled.borrow_and_update().endpoints);
        metrics.endpoints(&endpoints);
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = compiled.changed() => if changed.is_err() { return },
        }
    }
}

/// Keeps the authority and the port's own certificate current.
struct Upkeep {
    authority: Arc<Authority>,
    settings: Settings,
    inputs: watch::Receiver<Option<Arc<Input>>>,
    tls: Arc<ArcSwap<ServerConfig>>,
}

impl Upkeep {
    async fn run(self, shutdown: CancellationToken) {
        let mut rings = self.authority.subscribe();
        let mut told = String::new();
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                // Another root or intermediate is to be shown at once.
                Ok(()) = rings.changed() => {
                    self.renew().await;
                    renewed = Instant::now();
                }
                () = tokio::time::sleep(LOOK) => {
                    self.maintain(&mut told).await;
                    if renewed.elapsed() >= RENEW {
                        self.renew().await;
                        renewed = Instant::now();
                    }
                }
            }
        }
    }

    /// A fault is told once, not at every look.
    async fn maintain(&self, told: &mut String) {
        let authority = Arc::clone(&self.authority);
        let looked = tokio::task::spawn_blocking(move || authority.maintain(SystemTime::now()));
        let reason = match looked.await {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(chain(&e)),
            Err(e) => Some(e.to_string()),
        };
        match reason {
            None => told.clear(),
            Some(reason) => {
                if reason != *told {
                    error!(error = reason, "the authority stays as it was");
                }
                *told = reason;
            }
        }
    }

    async fn renew(&self) {
        let Some(input) = self.inputs.borrow().clone() else {
            return;
        };
        let (authority, settings) = (Arc::clone(&self.authority), self.settings.clone());
        let made = tokio::task::spawn_blocking(move || serving(&authority, &settings, &input));
        let reason = match made.await {
            Ok(Ok(config)) => return self.tls.store(config),
            Ok(Err(e)) => chain(&e),
            Err(e) => e.to_string(),
        };
        warn!(
            error = reason,
            "the control plane's certificate is not renewed"
        );
    }
}

/// What follows the primary, where another control plane is that.
fn follower(
    settings: &Settings,
    authority: &Arc<Authority>,
) -> Result<Option<Follower>, StartError> {
    let Some(primary) = settings.primary.clone() else {
        return Ok(None);
    };
    let path = settings.state.join("control/primary-trust");
    let (bundle, trust) = match peer::kept(&path, authority)? {
        Some((encoded, bundle)) => (encoded, Trust::new(bundle)),
        None => (
            Bytes::new(),
            Trust::of_roots(authority.roots()).map_err(OpenError::from)?,
        ),
    };
    Ok(Some(Follower {
        primary,
        id: SpiffeId::control(authority.trust_domain(), &settings.name)?,
        authority: Arc::clone(authority),
        trust,
        path,
        bundle: watch::Sender::new(bundle),
    }))
}

/// TLS settings of the port, over a new certificate for every name it is reached by.
fn serving(
    authority: &Authority,
    settings: &Settings,
    input: &Input,
) -> Result<Arc<ServerConfig>, StartError> {
    let id = SpiffeId::control(authority.trust_domain(), &settings.name)?;
    let mut names = settings.names.clone();
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    names.extend(local);
    if let Some(node) = input.mesh.nodes.get(settings.name.as_str()) {
        names.extend(node.addresses.iter().map(ToString::to_string));
    }
    names.sort();
    names.dedup();
    let svid = authority.serving(&id, &names, SystemTime::now())?;
    Ok(control_server(&svid, authority.trust_domain())?)
}
