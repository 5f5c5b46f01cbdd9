//! The lanes of all who are served on this host's own network, and the desks that find them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::board::{Board, Marks};
use super::desk::{Desk, Roster};
use super::hosted;
use crate::agent::{MeshState, Placement};
use crate::capture::{Captured, Place};
use crate::hbone::Endpoint;
use crate::model::declaration::Capture;
use crate::node::Shared;
use crate::node::lane::{Hands, Lane, Network};
use crate::node::listener::Dealer;
use crate::node::load::Kind;
use crate::node::quic;
use crate::node::workers::Worker;

/// Serves those who are placed on one network.
pub(super) struct Serving {
    shared: Arc<Shared>,
    place: Place,
    stop: CancellationToken,
    quic: Option<Endpoint>,
    threads: Vec<(Arc<Worker>, Arc<Desk>)>,
    attended: BTreeMap<Arc<str>, Attended>,
    /// The lanes of those who are there, and of those who were and let their connections finish.
    lanes: JoinSet<usize>,
    board: Arc<Board>,
    /// Connections cut of those who have left.
    cut: usize,
}

/// Somebody who is served.
struct Attended {
    placement: Arc<Placement>,
    stop: CancellationToken,
    /// One on each thread.
    lanes: Vec<Arc<Lane>>,
}

impl Serving {
    /// Serves on `place` until `stop`.
    pub(super) fn new(
        shared: &Arc<Shared>,
        place: Place,
        stop: CancellationToken,
        quic: Option<Endpoint>,
    ) -> Self {
        let threads = shared.threads().into_iter();
        let desk = || Arc::new(Desk::new(Arc::clone(shared), stop.clone()));
        let threads = threads.map(|worker| (worker, desk())).collect();
        Self {
            shared: Arc::clone(shared),
            place,
            stop,
            quic,
            threads,
            attended: BTreeMap::new(),
            lanes: JoinSet::new(),
            board: Arc::default(),
            cut: 0,
        }
    }

    /// Opens the desks: one thread accepts on the ports, all of them serve; captured datagrams are one
    /// thread's. Nobody but these tasks holds the ports then.
    pub(super) fn open(
        &self,
        [outbound, plaintext, tunnels]: [TcpListener; 3],
        mut datagrams: Option<Captured>,
    ) -> JoinSet<io::Result<()>> {
        let mut desks = JoinSet::new();
        let mut outbound = Dealer::new(outbound, Kind::Program);
        let mut plaintext = Dealer::new(plaintext, Kind::Program);
        let mut tunnels = Dealer::new(tunnels, Kind::Tunnel);
        let quic = self.quic.as_ref();
        let mut arrivals = quic.map(|quic| Dealer::new(quic.clone(), Kind::Tunnel));
        for (worker, desk) in &self.threads {
            let hands = Hands {
                outbound: outbound.deal_to(worker),
                plaintext: plaintext.deal_to(worker),
                tunnels: tunnels.deal_to(worker),
                quic: quic::dealt(arrivals.as_mut(), worker),
                datagrams: datagrams.take(),
            };
            let desk = Arc::clone(desk);
            let served = async move {
                desk.run(hands).await;
                Ok(())
            };
            desks.spawn_on(served, worker.handle());
        }
        if let Some((first, _)) = self.threads.first() {
            for dealer in [outbound, plaintext, tunnels] {
                desks.spawn_on(dealer.run(self.stop.clone()), first.handle());
            }
            if let Some(arrivals) = arrivals {
                desks.spawn_on(arrivals.run(self.stop.clone()), first.handle());
            }
        }
        desks
    }

    /// Serves exactly those of a mesh who are placed here.
    pub(super) fn follow(&mut self, mesh: &MeshState, marks: &Marks) {
        let wanted: BTreeMap<Arc<str>, &Arc<Placement>> =
            hosted(mesh).map(|p| (Arc::clone(&p.uid), p)).collect();
        let before = self.uids();
        self.attended.retain(|uid, attended| {
            let same = |p: &&Arc<Placement>| p.captured_like(&attended.placement);
            let stays = wanted.get(uid).is_some_and(same);
            if !stays {
                attended.stop.cancel();
            }
            stays
        });
        let stayed = self.attended.len();
        for (uid, placement) in wanted {
            if !self.attended.contains_key(&uid) {
                self.attend(uid, placement);
            }
        }
        let board = Board::of(mesh, marks);
        let same = before == self.uids() && stayed == self.attended.len();
        if !same || *self.board != board {
            self.board = Arc::new(board);
            self.post();
        }
        while let Some(done) = self.lanes.try_join_next() {
            self.cut += count(done);
        }
    }

    fn uids(&self) -> BTreeSet<Arc<str>> {
        self.attended.keys().map(Arc::clone).collect()
    }

    fn attend(&mut self, uid: Arc<str>, placement: &Arc<Placement>) {
        let stop = self.stop.child_token();
        let network = match placement.capture {
            Some(Capture::Interface(_)) => Network::Guest,
            _ => Network::Host,
        };
        let mut lanes = Vec::new();
        for (worker, _desk) in &self.threads {
            let (shared, uid) = (Arc::clone(&self.shared), Arc::clone(&uid));
            let (place, quic) = (self.place.clone(), self.quic.clone());
            let lane = Lane::new(shared, uid, place, stop.clone(), quic);
            let lane = Arc::new(lane.on(network));
            self.lanes
                .spawn_on(Arc::clone(&lane).host(), worker.handle());
            lanes.push(lane);
        }
        let placement = Arc::clone(placement);
        self.attended.insert(
            uid,
            Attended {
                placement,
                stop,
                lanes,
            },
        );
    }

    /// Tells every desk who is who.
    fn post(&self) {
        for (at, (_worker, desk)) in self.threads.iter().enumerate() {
            let lane = |(uid, attended): (&Arc<str>, &Attended)| {
                Some((Arc::clone(uid), Arc::clone(attended.lanes.get(at)?)))
            };
            desk.post(Roster {
                board: Arc::clone(&self.board),
                lanes: self.attended.iter().filter_map(lane).collect(),
            });
        }
    }

    /// Who is who now.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// Waits until all have let their connections go, once stopped; tells how many were cut.
    pub(super) async fn ended(mut self) -> usize {
        while let Some(done) = self.lanes.join_next().await {
            self.cut += count(done);
        }
        self.cut
    }
}

fn count(done: Result<usize, tokio::task::JoinError>) -> usize {
    done.unwrap_or_else(|error| {
        warn!(error = %error, "a workload's task died");
        0
    })
}
