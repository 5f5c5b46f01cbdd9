//! The workloads on this host's own network: units, users and guests behind an interface. One set of
//! ports and one table of rules serve all of them (DESIGN §7).
//!
//! Who a connection belongs to is found out as it arrives ([`desk`]), by what the rules and the mesh say
//! ([`board`]); from there on it is served by the workload's lane, as one in a network of its own is
//! ([`serving`]).

mod board;
mod desk;
mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::local::{HBONE, INBOUND_PLAINTEXT, OUTBOUND, note};
use super::quic;
use super::{Shared, datagrams};
use crate::agent::report::{CaptureState, LocalStates};
use crate::agent::{MeshState, Placement};
use crate::capture::host::{Outcome, Standing, Wanted, Workloads};
use crate::capture::ruleset::host::Mark;
use crate::capture::{Captured, Place, Target, near};
use crate::causes::chain;
use crate::model::declaration::Capture;
use crate::sys;
use board::{Board, Marks, is_hosted};
use serving::Serving;

/// Between attempts to serve this host's network.
const RETRY: Duration = Duration::from_millis(500);

/// This host's own network, as a component.
pub(super) struct Host {
    shared: Arc<Shared>,
    states: watch::Sender<LocalStates>,
    marks: Marks,
    /// Those whom the rules may know, and under which mark.
    captured: BTreeMap<Arc<str>, (Arc<Placement>, Mark)>,
    /// Whether datagrams are captured.
    udp: bool,
}

/// Why this host's network is not served.
#[derive(Debug, thiserror::Error)]
enum HostError {
    #[error("cannot get at this host's network")]
    Network(#[source] io::Error),
    #[error("cannot listen on port {port} of this host; another program may have it")]
    Listen { port: u16, source: io::Error },
    #[error(
        "cannot take datagrams of this host; another program may have port {OUTBOUND} or {INBOUND_PLAINTEXT} of UDP"
    )]
    Datagrams(#[source] io::Error),
    #[error("cannot watch the rules of this host's network")]
    Watch(#[source] io::Error),
}

/// Those of a mesh who are served on this host's network.
pub(super) fn hosted(mesh: &MeshState) -> impl Iterator<Item = &Arc<Placement>> {
    mesh.placements.iter().filter(|p| is_hosted(p))
}

impl Host {
    pub(super) fn new(shared: Arc<Shared>, states: watch::Sender<LocalStates>) -> Self {
        Self {
            shared,
            states,
            marks: Marks::default(),
            captured: BTreeMap::new(),
            udp: sys::tells_marks(),
        }
    }

    /// Captures whoever is placed on this host's network and serves them until `stop`.
    ///
    /// Rules stay when the process stops: captured traffic is refused then, not leaked. They are
    /// removed when the mesh wants nobody captured here any more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(e) = self.attempt(&stop).await {
                self.failed(&chain(&e));
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn attempt(&mut self, stop: &CancellationToken) -> Result<(), HostError> {
        let place = self.shared.sockets.host().await;
        let place = place.map_err(HostError::Network)?;
        let (told, wanted) = watch::channel(Workloads::None);
        let (tell, datagrams) = watch::channel(None);
        let datagrams = self.udp.then_some(datagrams);
        let sockets = &self.shared.sockets;
        let kept = sockets.keep_host(&place, wanted, datagrams).await;
        let (keeping, outcome) = kept.map_err(HostError::Watch)?;
        let inner = stop.child_token();
        // Where no datagrams are captured nobody listens.
        let datagrams = datagrams::wanted(Arc::clone(&self.shared), None, tell);
        let served = async {
            let served = self.serve(&place, &told, outcome, &inner).await;
            inner.cancel();
            served
        };
        let ((), served, ()) = tokio::join!(keeping.run(inner.clone()), served, datagrams);
        served
    }

    /// Serves until stopped, with the ports open for as long as anybody is there to be served.
    async fn serve(
        &mut self,
        place: &Place,
        told: &watch::Sender<Workloads>,
        mut outcome: watch::Receiver<Arc<Outcome>>,
        stop: &CancellationToken,
    ) -> Result<(), HostError> {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.somebody(told) => {}
            }
            // Listeners first: from the instant the rules hold, somebody answers.
            let ports = self.listen(place).await?;
            let datagrams = self.datagrams(place).await?;
            let inner = stop.child_token();
            let quic = quic::endpoint(&self.shared, place).await;
            let (shared, network) = (&self.shared, place.clone());
            let mut serving = Serving::new(shared, network, inner.clone(), quic.clone());
            let desks = serving.open(ports, datagrams);
            let ((), ()) = tokio::join!(
                self.follow(&mut serving, told, &mut outcome, &inner),
                ended(desks, &inner),
            );
            let cut = serving.ended().await;
            if let Some(quic) = quic {
                quic::close(quic).await;
            }
            if cut > 0 {
                warn!(
                    cut,
                    "drain deadline passed, connections of this host's network cut"
                );
            }
        }
        Ok(())
    }

    /// Waits until somebody is to be served here; until then rules that an earlier process may have left
    /// are in nobody's interest, once the mesh has been heard.
    async fn somebody(&self, told: &watch::Sender<Workloads>) {
        let mut mesh = self.shared.mesh.clone();
        loop {
            let state = Arc::clone(&mesh.borrow_and_update());
            if hosted(&state).next().is_some() {
                return;
            }
            if state.is_heard() {
                told.send_if_modified(|told| told.replace(Arc::default()).is_none());
            }
            // Whoever tells of the mesh is gone, and so is the process in a moment.
            if mesh.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn listen(&self, place: &Place) -> Result<[TcpListener; 3], HostError> {
        let sockets = &self.shared.sockets;
        let listening = |listener: io::Result<TcpListener>, port| {
            listener.map_err(|source| HostError::Listen { port, source })
        };
        let outbound = sockets.listen(place, OUTBOUND).await;
        let outbound = listening(outbound, OUTBOUND)?;
        near::local(&outbound);
        let plaintext = sockets.listen(place, INBOUND_PLAINTEXT).await;
        let plaintext = listening(plaintext, INBOUND_PLAINTEXT)?;
        let tunnels = listening(sockets.listen(place, HBONE).await, HBONE)?;
        Ok([outbound, plaintext, tunnels])
    }

    /// The sockets that captured datagrams come to, where any are captured.
    async fn datagrams(&self, place: &Place) -> Result<Option<Captured>, HostError> {
        if !self.udp {
            warn!(
                remedy = "run Linux 5.19 or newer",
                "the kernel does not tell whose a datagram is: those of units and users go past the mesh"
            );
            return Ok(None);
        }
        let captured = self.shared.sockets.capture_udp(place).await;
        captured.map(Some).map_err(HostError::Datagrams)
    }

    /// Serves, and has captured, exactly those whom the mesh places here; until stopped, or until there
    /// is nobody any more and the rules are gone.
    async fn follow(
        &mut self,
        serving: &mut Serving,
        told: &watch::Sender<Workloads>,
        outcome: &mut watch::Receiver<Arc<Outcome>>,
        stop: &CancellationToken,
    ) {
        let mut mesh = self.shared.mesh.clone();
        loop {
            let state = Arc::clone(&mesh.borrow_and_update());
            let in_force = Arc::clone(&outcome.borrow_and_update());
            let uids = hosted(&state).map(|p| &p.uid);
            self.marks.assign(uids, in_force.workloads.keys());
            serving.follow(&state, &self.marks);
            self.shared.dns.know(self.marks.known());
            let wanted = self.wanted(&state, serving.board());
            let nobody = wanted.is_empty();
            told.send_if_modified(|told| {
                let news = told.as_deref() != Some(&*wanted);
                if news {
                    *told = Some(wanted.into());
                }
                news
            });
            self.tell(&state, &in_force);
            if nobody && in_force.workloads.is_empty() && in_force.failed.is_none() {
                return stop.cancel();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = mesh.changed() => if changed.is_err() { return stop.cancelled().await },
                changed = outcome.changed() => if changed.is_err() { return stop.cancel() },
            }
        }
    }

    /// Who is to be captured, and what of theirs.
    fn wanted(&self, mesh: &MeshState, board: &Board) -> Vec<Wanted> {
        let wanted = |placement: &Arc<Placement>| {
            let sharer = board.sharing.get(&placement.uid);
            let workload = mesh.view.workload(&placement.uid);
            let addresses = workload.into_iter().flat_map(|w| w.addresses.iter());
            Some(Wanted {
                mark: self.marks.of(&placement.uid)?,
                target: target(placement.capture.as_ref()?),
                addresses: addresses.copied().collect(),
                ports: sharer.map(|s| s.ports.clone()).unwrap_or_default(),
                // A guest shares no addresses.
                udp_ports: match sharer {
                    Some(sharer) => sharer.udp_ports.clone(),
                    None => mesh.view.udp_inbound(&placement.uid),
                },
            })
        };
        hosted(mesh).filter_map(wanted).collect()
    }

    /// Tells how the capture of each is, and of those that are let go.
    fn tell(&mut self, mesh: &MeshState, outcome: &Outcome) {
        let gone = |p: &&Arc<Placement>| {
            let mark = self.marks.of(&p.uid);
            let standing = mark.and_then(|mark| outcome.workloads.get(&mark));
            standing == Some(&Standing::Absent)
        };
        let gone = hosted(mesh).filter(gone).map(|p| Arc::clone(&p.uid));
        let gone: BTreeSet<_> = gone.collect();
        self.shared.absent.send_if_modified(|absent| {
            let news = *absent != gone;
            *absent = gone;
            news
        });
        let mut left = std::mem::take(&mut self.captured);
        for placement in hosted(mesh) {
            let mark = self.marks.of(&placement.uid);
            let standing = mark.and_then(|mark| outcome.workloads.get(&mark));
            if let Some(mark) = mark {
                let known = (Arc::clone(placement), mark);
                left.remove(&placement.uid);
                self.captured.insert(Arc::clone(&placement.uid), known);
            }
            let state = match (&outcome.failed, standing) {
                (Some(e), _) => CaptureState::Failed(chain(&**e)),
                (None, Some(Standing::Failed(reason))) => CaptureState::Failed(reason.to_string()),
                // From the instant it starts it is captured, and so is what calls it now.
                (None, Some(Standing::Captured | Standing::Absent)) => CaptureState::Captured,
                (None, None) if mark.is_none() => {
                    let reason = "there are more workloads on this host's network than marks";
                    CaptureState::Failed(reason.to_owned())
                }
                (None, None) => continue,
            };
            self.publish(placement, state);
        }
        for (uid, (placement, mark)) in left {
            match outcome.workloads.contains_key(&mark) {
                // The rules are still those of before.
                true => _ = self.captured.insert(uid, (placement, mark)),
                false => self.publish(&placement, CaptureState::Released),
            }
        }
    }

    /// Nobody can be served, for this reason.
    fn failed(&self, reason: &str) {
        for placement in hosted(&self.shared.mesh()) {
            self.publish(placement, CaptureState::Failed(reason.to_owned()));
        }
    }

    fn publish(&self, placement: &Arc<Placement>, state: CaptureState) {
        let news = self
            .states
            .send_if_modified(|states| note(states, &self.shared.mesh(), placement, state.clone()));
        if !news {
            return;
        }
        let workload = &placement.uid;
        match state {
            CaptureState::Failed(error) => {
                warn!(%workload, error, "workload not captured, trying again");
            }
            CaptureState::Captured => info!(%workload, "workload captured"),
            CaptureState::Released => info!(%workload, "workload released"),
        }
    }
}

/// What the rules go by.
fn target(capture: &Capture) -> Target {
    match capture {
        Capture::Netns(name) => Target::Netns(Arc::clone(name)),
        Capture::Unit(name) => Target::Unit(Arc::clone(name)),
        Capture::Cgroup(path) => Target::Cgroup(Arc::clone(path)),
        Capture::User(name) => Target::User(Arc::clone(name)),
        Capture::Interface(name) => Target::Interface(Arc::clone(name)),
    }
}

/// Waits until every thread has let the ports go. One that cannot serve stops the others, and all is
/// begun anew.
async fn ended(mut desks: JoinSet<io::Result<()>>, stop: &CancellationToken) {
    while let Some(done) = desks.join_next().await {
        match done {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!(error = %e, "a data plane thread cannot serve"),
            Err(e) => warn!(error = %e, "a task of this host's network died"),
        }
        stop.cancel();
    }
}
