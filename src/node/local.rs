//! One workload of this host: its ports and its capture rules, kept while it is placed here. What
//! comes in on the ports is served by a [`Lane`] on each data plane thread.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Shared;
use super::datagrams;
use super::dns::{self, Answering, Client, Listeners, Servers, Upstream};
use super::lane::{Hands, Lane};
use super::listener::Dealer;
use super::load::Kind;
use super::quic;
use crate::agent::report::{CaptureState, LocalStates};
use crate::agent::{MeshState, Placement};
use crate::capture::reconcile::State;
use crate::capture::{self, AttachError as NoNetwork, Captured, Place, Target, near};
use crate::causes::chain;
use crate::hbone::Endpoint;
use crate::model::declaration::Capture;

/// Where captured outbound connections arrive.
pub(super) const OUTBOUND: u16 = 15001;
/// Where captured plaintext inbound connections arrive.
pub(super) const INBOUND_PLAINTEXT: u16 = 15006;
/// Where HBONE arrives.
pub(super) const HBONE: u16 = 15008;

/// Between attempts to capture a workload whose namespace is not there yet.
const RETRY: Duration = Duration::from_millis(500);
/// A workload placed here, as a component.
pub(super) struct Local {
    shared: Arc<Shared>,
    placement: Arc<Placement>,
    states: watch::Sender<LocalStates>,
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
    #[error("cannot take datagrams in network namespace `{name}`")]
    Datagrams { name: Arc<str>, source: io::Error },
    #[error("cannot watch the rules of network namespace `{name}`")]
    Watch { name: Arc<str>, source: io::Error },
    #[error("capture rules are not in place")]
    Rules(#[source] Arc<capture::CaptureError>),
}

impl Local {
    pub(super) fn new(
        shared: Arc<Shared>,
        placement: Arc<Placement>,
        states: watch::Sender<LocalStates>,
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
        let sockets = &self.shared.sockets;
        let place = sockets.attach(&Target::Netns(Arc::clone(name))).await?;
        let outbound = self.listen(&place, OUTBOUND).await?;
        near::local(&outbound);
        let plaintext = self.listen(&place, INBOUND_PLAINTEXT).await?;
        let tunnels = self.listen(&place, HBONE).await?;
        let quic = quic::endpoint(&self.shared, &place).await;
        let datagrams = sockets.capture_udp(&place).await;
        let datagrams = datagrams.map_err(|source| AttachError::Datagrams {
            name: Arc::clone(name),
            source,
        })?;
        let captures_dns = self.shared.dns.captures(self.placement.dns_capture);
        let names = match captures_dns {
            true => Some(self.listen_for_names(&place).await?),
            false => None,
        };
        // Listeners first: from the instant the rules hold, somebody answers.
        let (tell, wanted) = watch::channel(None);
        let kept = sockets.keep_udp(&place, captures_dns, wanted).await;
        let (keeping, rules) = kept.map_err(|source| AttachError::Watch {
            name: Arc::clone(name),
            source,
        })?;
        let inner = stop.child_token();
        let ports = [outbound, plaintext, tunnels];
        let lanes = self.lanes(&place, &inner, ports, quic.as_ref(), datagrams);
        let (shared, uid) = (Arc::clone(&self.shared), Arc::clone(&self.placement.uid));
        let ((), (), (), (), cut) = tokio::join!(
            async {
                // One after the other, or rules might be put back that have just been removed.
                keeping.run(inner.clone()).await;
                self.release(&place).await;
            },
            self.keep(&place, &inner, rules),
            self.answer(names, &place, &inner),
            datagrams::wanted(shared, Some(uid), tell),
            ended(lanes, &inner),
        );
        if let Some(quic) = quic {
            quic::close(quic).await;
        }
        if cut > 0 {
            warn!(workload = %self.placement.uid, cut, "drain deadline passed, connections cut");
        }
        Ok(())
    }

    /// Serves the ports: one data plane thread accepts, all of them serve. Nobody but these
    /// tasks holds the ports then: once they have let go, connections are refused and do not wait to
    /// be accepted.
    fn lanes(
        &self,
        place: &Place,
        stop: &CancellationToken,
        [outbound, plaintext, tunnels]: [TcpListener; 3],
        quic: Option<&Endpoint>,
        datagrams: Captured,
    ) -> JoinSet<io::Result<usize>> {
        let mut lanes = JoinSet::new();
        let mut outbound = Dealer::new(outbound, Kind::Program);
        let mut plaintext = Dealer::new(plaintext, Kind::Program);
        let mut tunnels = Dealer::new(tunnels, Kind::Tunnel);
        let mut arrivals = quic.map(|quic| Dealer::new(quic.clone(), Kind::Tunnel));
        let threads = self.shared.threads();
        let mut datagrams = Some(datagrams);
        for worker in &threads {
            let hands = Hands {
                outbound: outbound.deal_to(worker),
                plaintext: plaintext.deal_to(worker),
                tunnels: tunnels.deal_to(worker),
                quic: quic::dealt(arrivals.as_mut(), worker),
                datagrams: datagrams.take(),
            };
            let uid = Arc::clone(&self.placement.uid);
            let (shared, quic) = (Arc::clone(&self.shared), quic.cloned());
            let lane = Lane::new(shared, uid, place.clone(), stop.clone(), quic);
            let served = async move { Ok(lane.run(hands).await) };
            lanes.spawn_on(served, worker.handle());
        }
        if let Some(first) = threads.first() {
            for dealer in [outbound, plaintext, tunnels] {
                let stop = stop.clone();
                let dealt = async move { dealer.run(stop).await.map(|()| 0) };
                lanes.spawn_on(dealt, first.handle());
            }
            if let Some(arrivals) = arrivals {
                let stop = stop.clone();
                let dealt = async move { arrivals.run(stop).await.map(|()| 0) };
                lanes.spawn_on(dealt, first.handle());
            }
        }
        lanes
    }

    /// Answers questions for names, where they are captured, until `stop`.
    async fn answer(&self, names: Option<Listeners>, place: &Place, stop: &CancellationToken) {
        let Some(listeners) = names else {
            return;
        };
        let servers = Servers::of_namespace(place.name());
        let sockets = self.shared.sockets.clone();
        let upstream = Upstream::of_workload(servers, sockets, place.clone());
        let client = Client::Workload(Arc::clone(&self.placement.uid));
        let answering = Answering::new(client, self.shared.dns.clone(), upstream);
        if let Err(e) = dns::serve(answering, listeners, stop.clone()).await {
            warn!(workload = %self.placement.uid, error = %e, "questions for names cannot be answered");
            // The workload is then attached anew.
            stop.cancel();
        }
    }

    /// On loopback of both families, where questions are redirected to.
    async fn listen_for_names(&self, place: &Place) -> Result<Listeners, AttachError> {
        let tcp = vec![self.listen(place, dns::PORT).await?];
        let sockets = &self.shared.sockets;
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, dns::PORT));
        let udp = sockets.listen_udp(place, v4).await;
        let mut udp = vec![udp.map_err(|source| AttachError::Listen {
            name: Arc::from(place.name()),
            port: dns::PORT,
            source,
        })?];
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, dns::PORT));
        // Without IPv6 there is nobody who asks by it.
        udp.extend(sockets.listen_udp(place, v6).await);
        Ok(Listeners { udp, tcp })
    }

    async fn listen(&self, place: &Place, port: u16) -> Result<TcpListener, AttachError> {
        let listener = self.shared.sockets.listen(place, port).await;
        listener.map_err(|source| AttachError::Listen {
            name: Arc::from(place.name()),
            port,
            source,
        })
    }

    /// Tells how the rules are; returns when stopped, or when the namespace is not the one we serve
    /// any more, having stopped its listeners.
    async fn keep(
        &self,
        place: &Place,
        stop: &CancellationToken,
        mut rules: watch::Receiver<State>,
    ) {
        let gone = place.gone();
        tokio::pin!(gone);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut gone => {
                    warn!(workload = %self.placement.uid, netns = place.name(), "network namespace is gone or replaced");
                    return stop.cancel();
                }
                Ok(()) = rules.changed() => {
                    let state = rules.borrow_and_update().clone();
                    self.tell(place, state);
                }
            }
        }
    }

    fn tell(&self, place: &Place, state: State) {
        match state {
            State::Pending => {}
            State::InPlace if self.publish(CaptureState::Captured) => {
                info!(workload = %self.placement.uid, netns = place.name(), "workload captured");
            }
            State::InPlace => {}
            State::Failed(e) => self.failed(&AttachError::Rules(e)),
        }
    }

    /// Removes the rules when the mesh no longer wants the workload captured; while the node is
    /// only stopping they stay. At once, not after the drain: until then new connections would be
    /// redirected to nobody.
    async fn release(&self, place: &Place) {
        // By whichever name: rules that are there for another are not to be gone for a moment.
        let wanted = |p: &Arc<Placement>| p.enrolled && p.capture == self.placement.capture;
        if self.shared.mesh().placements.iter().any(wanted) {
            return;
        }
        if let Err(e) = self.shared.sockets.release(place).await {
            warn!(workload = %self.placement.uid, error = chain(&e), "capture rules not removed");
            return;
        }
        self.publish(CaptureState::Released);
        info!(workload = %self.placement.uid, netns = place.name(), "workload released");
    }

    fn failed(&self, error: &AttachError) {
        let reason = chain(error);
        if self.publish(CaptureState::Failed(reason.clone())) {
            warn!(workload = %self.placement.uid, error = reason, "workload not captured, trying again");
        }
    }

    /// Whether the state is new.
    fn publish(&self, state: CaptureState) -> bool {
        // The placements are looked at here, where nobody can have tidied up meanwhile.
        self.states
            .send_if_modified(|states| note(states, &self.shared.mesh(), &self.placement, state))
    }
}

/// Takes note of how the capture of `own` is, as the mesh as last heard places it; tells whether
/// that is news. To have let go of a workload that has moved away says nothing of the workload:
/// whoever took that for RELEASED would reach it in plain text where it now is.
pub(super) fn note(
    states: &mut LocalStates,
    mesh: &MeshState,
    own: &Placement,
    state: CaptureState,
) -> bool {
    let mut placed = mesh.placements.iter();
    match placed.find(|p| p.uid == own.uid) {
        None => states.forgotten(&own.uid),
        // It came back while it was let go, and is taken up again.
        Some(now) if state == CaptureState::Released && now.captured_like(own) => false,
        Some(_) => states.captured(&own.uid, state),
    }
}

/// Waits until every thread has let the workload's connections go, and tells how many were cut. One
/// that cannot serve stops the others: the workload is then attached anew.
async fn ended(mut lanes: JoinSet<io::Result<usize>>, stop: &CancellationToken) -> usize {
    let mut cut = 0;
    while let Some(done) = lanes.join_next().await {
        match done {
            Ok(Ok(connections)) => cut += connections,
            Ok(Err(e)) => warn!(error = %e, "a data plane thread cannot serve"),
            Err(e) => warn!(error = %e, "a workload's task died"),
        }
        stop.cancel();
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(name: &str, enrolled: bool) -> Arc<Placement> {
        Arc::new(Placement {
            uid: Arc::from("cart"),
            name: Arc::from(name),
            namespace: Arc::from("shop"),
            service_account: Arc::from("cart"),
            enrolled,
            capture: Some(Capture::Netns(Arc::from("cart"))),
            health: None,
            dns_capture: None,
        })
    }

    #[test]
    fn only_a_workload_that_stays_is_released() {
        use CaptureState::{Captured, Released};
        let failed = || CaptureState::Failed("no rules".to_owned());
        let own = placed("cart-1", true);
        for (name, now, state, want) in [
            ("captured", Some(Arc::clone(&own)), Captured, Some(Captured)),
            ("failed", Some(Arc::clone(&own)), failed(), Some(failed())),
            (
                "no longer enrolled",
                Some(placed("cart-1", false)),
                Released,
                Some(Released),
            ),
            (
                "captured differently",
                Some(placed("cart-2", true)),
                Released,
                Some(Released),
            ),
            ("moved away", None, Released, None),
            ("failed as it moved away", None, failed(), None),
            (
                "away and back",
                Some(Arc::clone(&own)),
                Released,
                Some(Captured),
            ),
        ] {
            let mut states = LocalStates::default();
            states.captured(&own.uid, Captured);
            let mesh = MeshState {
                placements: now.into_iter().collect(),
                ..MeshState::default()
            };
            note(&mut states, &mesh, &own, state);
            let known = states.workloads.get("cart");
            assert_eq!(known.and_then(|w| w.capture.clone()), want, "{name}");
        }
    }

    #[test]
    fn nothing_is_told_of_what_is_no_longer_placed_here() {
        let mut states = LocalStates::default();
        states.captured(&Arc::from("cart"), CaptureState::Released);
        assert!(!states.keep(|uid| uid == "cart"));
        assert!(states.keep(|uid| uid == "web"));
        assert!(states.workloads.is_empty() && !states.forgotten(&Arc::from("cart")));
    }
}
