//! One workload of this host: its listeners, its capture rules, its pool of tunnels.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Shared, inbound, listener, outbound, passthrough};
use crate::agent::certs::CertError;
use crate::agent::report::{CaptureState, CaptureStates};
use crate::agent::{MeshState, Placement};
use crate::capture::reconcile::State;
use crate::capture::{self, AttachError as NoNetwork, Netns, Reconcile, Target};
use crate::hbone;
use crate::model::declaration::Capture;
use crate::model::workload::Workload;
use crate::telemetry::access_log::chain;
use crate::tls::{Svid, TlsError, hbone_server};

/// Where captured outbound connections arrive.
pub(super) const OUTBOUND: u16 = 15001;
/// Where captured plaintext inbound connections arrive.
pub(super) const INBOUND_PLAINTEXT: u16 = 15006;
/// Where HBONE arrives.
pub(super) const HBONE: u16 = 15008;

/// Between attempts to capture a workload whose namespace is not there yet.
const RETRY: Duration = Duration::from_millis(500);
/// How long a connection waits for its own workload to appear in the view
/// (`spec/hbone-dataplane.md` §2.1).
const WORKLOAD_WAIT: Duration = Duration::from_secs(5);

/// A workload placed here, as a component.
pub(super) struct Local {
    shared: Arc<Shared>,
    placement: Arc<Placement>,
    states: watch::Sender<CaptureStates>,
}

/// What the connections of a captured workload share.
pub(super) struct Captured {
    pub(super) shared: Arc<Shared>,
    pub(super) uid: Arc<str>,
    pub(super) ns: Netns,
    pub(super) pool: hbone::Pool<Connector>,
    pub(super) stop: CancellationToken,
    server: Mutex<Option<(String, Arc<ServerConfig>)>>,
}

/// Why a workload is not captured.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Network(#[from] NoNetwork),
    #[error("cannot listen on port {port} in network namespace `{name}`")]
    Listen {
        name: Arc<str>,
        port: u16,
        source: io::Error,
    },
    #[error("cannot watch the rules of network namespace `{name}`")]
    Watch { name: Arc<str>, source: io::Error },
    #[error("capture rules are not in place")]
    Rules(#[source] Arc<capture::CaptureError>),
}

/// No certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerConfigError {
    #[error("the workload is not in the mesh view")]
    UnknownWorkload,
    #[error("no certificate")]
    Certificate(#[from] CertError),
    #[error("unusable certificate")]
    Tls(#[from] TlsError),
}

impl Local {
    pub(super) fn new(
        shared: Arc<Shared>,
        placement: Arc<Placement>,
        states: watch::Sender<CaptureStates>,
    ) -> Self {
        Self {
            shared,
            placement,
            states,
        }
    }

    /// Captures the workload and serves its traffic until `stop`; tries again for as long as its
    /// namespace is missing, and starts over when the namespace is replaced.
    ///
    /// Rules stay when the process stops: captured traffic is refused then, not leaked. They are
    /// removed when the mesh no longer wants the workload captured.
    pub(super) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(e) = self.attempt(&stop).await {
                self.failed(&e);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn attempt(&self, stop: &CancellationToken) -> Result<(), AttachError> {
        let Some(Capture::Netns(name)) = &self.placement.capture else {
            return Ok(());
        };
        let ns = Target::Netns(Arc::clone(name)).attach()?;
        let outbound = self.listen(&ns, OUTBOUND).await?;
        let plaintext = self.listen(&ns, INBOUND_PLAINTEXT).await?;
        let tunnels = self.listen(&ns, HBONE).await?;
        // Listeners first: from the instant the rules hold, somebody answers.
        let plan = capture::plan(&self.shared.exemption);
        let reconcile = Reconcile::new(ns.clone(), plan);
        let (reconcile, rules) = reconcile.map_err(|source| AttachError::Watch {
            name: Arc::clone(name),
            source,
        })?;
        let inner = stop.child_token();
        let captured = Arc::new(Captured::new(self, ns, inner.clone()));
        let drain = self.shared.drain;
        let (a, b, c, (), ()) = tokio::join!(
            listener::serve(outbound, &inner, drain, |s, p| outbound::handle(
                Arc::clone(&captured),
                s,
                p
            )),
            listener::serve(plaintext, &inner, drain, |s, p| passthrough::handle(
                Arc::clone(&captured),
                s,
                p
            )),
            listener::serve(tunnels, &inner, drain, |s, p| inbound::handle(
                Arc::clone(&captured),
                s,
                p
            )),
            async {
                // One after the other, or rules might be put back that have just been removed.
                reconcile.run(inner.clone()).await;
                self.release(&captured.ns).await;
            },
            self.keep(&captured, rules),
        );
        captured.pool.drain().await;
        if a + b + c > 0 {
            warn!(workload = %self.placement.uid, cut = a + b + c, "drain deadline passed, connections cut");
        }
        Ok(())
    }

    async fn listen(&self, ns: &Netns, port: u16) -> Result<tokio::net::TcpListener, AttachError> {
        let listener = self.shared.sockets.listen(ns, port).await;
        listener.map_err(|source| AttachError::Listen {
            name: Arc::from(ns.name()),
            port,
            source,
        })
    }

    /// Tells how the rules are; returns when stopped, or when the namespace is not the one we serve
    /// any more, having stopped its listeners.
    async fn keep(&self, captured: &Captured, mut rules: watch::Receiver<State>) {
        let (ns, stop) = (&captured.ns, &captured.stop);
        let mut tick = tokio::time::interval(RETRY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _now = tick.tick() => {
                    captured.pool.reap();
                    if Netns::named(ns.name()).map_or(true, |now| now != *ns) {
                        warn!(workload = %self.placement.uid, netns = ns.name(), "network namespace is gone or replaced");
                        stop.cancel();
                    }
                }
                Ok(()) = rules.changed() => {
                    let state = rules.borrow_and_update().clone();
                    self.tell(ns, state);
                }
            }
        }
    }

    fn tell(&self, ns: &Netns, state: State) {
        match state {
            State::Pending => {}
            State::InPlace if self.publish(CaptureState::Captured) => {
                info!(workload = %self.placement.uid, netns = ns.name(), "workload captured");
            }
            State::InPlace => {}
            State::Failed(e) => self.failed(&AttachError::Rules(e)),
        }
    }

    /// Removes the rules when the mesh no longer wants the workload captured; while the node is
    /// only stopping they stay. At once, not after the drain: until then new connections would be
    /// redirected to nobody.
    async fn release(&self, ns: &Netns) {
        if self.shared.mesh().placements.contains(&self.placement) {
            return;
        }
        if let Err(e) = capture::clear(ns).await {
            warn!(workload = %self.placement.uid, error = chain(&e), "capture rules not removed");
            return;
        }
        self.publish(CaptureState::Released);
        info!(workload = %self.placement.uid, netns = ns.name(), "workload released");
    }

    fn failed(&self, error: &AttachError) {
        let reason = chain(error);
        if self.publish(CaptureState::Failed(reason.clone())) {
            warn!(workload = %self.placement.uid, error = reason, "workload not captured, trying again");
        }
    }

    /// Whether the state is new.
    fn publish(&self, state: CaptureState) -> bool {
        self.states.send_if_modified(|states| {
            let old = states.insert(Arc::clone(&self.placement.uid), state.clone());
            old.as_ref() != Some(&state)
        })
    }
}

impl Captured {
    fn new(local: &Local, ns: Netns, stop: CancellationToken) -> Self {
        let connector = Connector {
            shared: Arc::clone(&local.shared),
            ns: ns.clone(),
        };
        Self {
            shared: Arc::clone(&local.shared),
            uid: Arc::clone(&local.placement.uid),
            ns,
            pool: hbone::Pool::new(connector, hbone::Limits::default()),
            stop,
            server: Mutex::new(None),
        }
    }

    /// The mesh, and this workload in it; waits a little for a view that does not have it yet.
    pub(super) async fn workload(&self) -> Option<(Arc<MeshState>, Arc<Workload>)> {
        let mut mesh = self.shared.mesh.clone();
        let known = mesh.wait_for(|m| m.view.workload(&self.uid).is_some());
        let state = tokio::time::timeout(WORKLOAD_WAIT, known).await.ok()?;
        let state = Arc::clone(&*state.ok()?);
        let workload = Arc::clone(state.view.workload(&self.uid)?);
        Some((state, workload))
    }

    /// The certificate this workload is known by.
    pub(super) async fn svid(&self, workload: &Workload) -> Result<Arc<Svid>, ServerConfigError> {
        let identity = workload.identity();
        let identity = identity.map_err(|_no_identity| ServerConfigError::UnknownWorkload)?;
        Ok(self.shared.certs.get(&identity).await?)
    }

    /// TLS settings for inbound HBONE, built once per certificate.
    pub(super) async fn server_config(&self) -> Result<Arc<ServerConfig>, ServerConfigError> {
        let (_mesh, workload) = self
            .workload()
            .await
            .ok_or(ServerConfigError::UnknownWorkload)?;
        let svid = self.svid(&workload).await?;
        let mut cached = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((serial, config)) = &*cached
            && serial == svid.serial()
        {
            return Ok(Arc::clone(config));
        }
        let config = hbone_server(&svid)?;
        *cached = Some((svid.serial().to_owned(), Arc::clone(&config)));
        Ok(config)
    }

    /// Connects to a program in the workload, as the client's address where that is another's.
    pub(super) async fn deliver(&self, to: SocketAddr, client: IpAddr) -> io::Result<TcpStream> {
        let from = (client != to.ip() && !client.is_loopback()).then_some(client);
        Ok(self.shared.sockets.connect(&self.ns, to, from).await?)
    }
}

/// Makes TCP connections to next hops inside the workload's namespace.
pub(super) struct Connector {
    shared: Arc<Shared>,
    ns: Netns,
}

impl hbone::Connector for Connector {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        Ok(self.shared.sockets.connect(&self.ns, to, None).await?)
    }
}
