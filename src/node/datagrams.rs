//! Datagrams of a workload: those that its programs send into the mesh, each pair of ends as a flow through a
//! tunnel of its own, and those that come to it from outside (`spec/hbone-dataplane.md` §11.4).
//!
//! Like a link, nothing here makes a sender wait: what cannot go on at once is dropped.

mod arrived;
mod leg;
mod open;
mod relay;

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Shared;
use super::lane::Lane;
use crate::capture::{Arrival, Arrivals, Captured, Datagrams, WantedDatagrams};

pub(super) use arrived::arrived;

/// Flows of a workload in each direction; datagrams of further ones are dropped.
const FLOWS: usize = 16_384;
/// Datagrams that wait for their flow, while its tunnel is opened say; further ones are dropped.
const WAITING: usize = 64;
/// Datagrams taken before others have their turn.
const TURN: usize = 64;

/// Who sends, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    from: SocketAddr,
    to: SocketAddr,
}

/// Which way a flow was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// By a program of the workload.
    Here,
    /// By somebody outside, in plain text.
    Outside,
}

/// The open flows of one direction.
struct Flows {
    lane: Arc<Lane>,
    begun: Begun,
    open: HashMap<Ends, (mpsc::Sender<Bytes>, Id)>,
    tasks: JoinSet<Ends>,
    crowded: bool,
}

/// Serves what is captured until `stop`, and then cuts it.
pub(super) async fn serve(lane: Arc<Lane>, captured: Captured, stop: CancellationToken) {
    let served = async {
        let outbound = Arrivals::new(captured.outbound)?;
        let inbound = Arrivals::new(captured.inbound)?;
        let here = Flows::new(Arc::clone(&lane), Begun::Here);
        let outside = Flows::new(Arc::clone(&lane), Begun::Outside);
        tokio::try_join!(here.run(outbound), outside.run(inbound)).map(|_never| ())
    };
    let served: io::Result<()> = tokio::select! {
        () = stop.cancelled() => return,
        served = served => served,
    };
    if let Err(error) = served {
        warn!(workload = %lane.uid, %error, "captured datagrams cannot be read, they are dropped");
    }
}

impl Flows {
    fn new(lane: Arc<Lane>, begun: Begun) -> Self {
        Self {
            lane,
            begun,
            open: HashMap::new(),
            tasks: JoinSet::new(),
            crowded: false,
        }
    }

    async fn run(mut self, mut arrivals: Arrivals) -> io::Result<std::convert::Infallible> {
        loop {
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id() => match done {
                    Ok((id, ends)) => self.ended(ends, id),
                    Err(died) => {
                        warn!(error = %died, "a flow's task died");
                        self.open.retain(|_, (_, id)| *id != died.id());
                    }
                },
                arrival = arrivals.recv() => {
                    let arrival = arrival?;
                    self.take(&arrival);
                    self.more(&mut arrivals)?;
                    tokio::task::consume_budget().await;
                }
            }
        }
    }

    /// Takes what came with one that was awaited.
    fn more(&mut self, arrivals: &mut Arrivals) -> io::Result<()> {
        for _turn in 1..TURN {
            match arrivals.try_recv()? {
                Some(arrival) => self.take(&arrival),
                None => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, arrival: &Arrival<'_>) {
        let ends = Ends {
            from: arrival.from,
            to: arrival.to,
        };
        let payload = Bytes::copy_from_slice(arrival.payload);
        let room = self.open.len() < FLOWS;
        let payload = match self.open.entry(ends) {
            Slot::Occupied(open) => match open.get().0.try_send(payload) {
                Ok(()) | Err(TrySendError::Full(_)) => return,
                // It has just ended, and begins anew.
                Err(TrySendError::Closed(payload)) => payload,
            },
            Slot::Vacant(_) if !room => {
                if !std::mem::replace(&mut self.crowded, true) {
                    warn!(workload = %self.lane.uid, flows = FLOWS, "too many flows of datagrams, further ones are dropped");
                }
                return;
            }
            Slot::Vacant(_) => payload,
        };
        self.begin(ends, payload);
    }

    fn begin(&mut self, ends: Ends, first: Bytes) {
        let (give, waiting) = mpsc::channel(WAITING);
        let lane = Arc::clone(&self.lane);
        let begun = self.begun;
        let task = self.tasks.spawn(async move {
            match begun {
                Begun::Here => open::into_the_mesh(&lane, ends, waiting).await,
                Begun::Outside => open::from_outside(&lane, ends, waiting).await,
            }
            ends
        });
        // There is room in a new channel.
        let _first = give.try_send(first);
        self.open.insert(ends, (give, task.id()));
    }

    fn ended(&mut self, ends: Ends, id: Id) {
        if self.open.get(&ends).is_some_and(|(_, of)| *of == id) {
            self.open.remove(&ends);
        }
        self.crowded &= self.open.len() >= FLOWS;
        debug!(src.addr = %ends.from, dst.addr = %ends.to, "flow ended");
    }
}

/// Tells which datagrams of a workload are to be captured, for as long as anybody listens; nothing until the
/// mesh has been heard.
pub(super) async fn wanted(
    shared: Arc<Shared>,
    uid: Arc<str>,
    told: watch::Sender<WantedDatagrams>,
) {
    let mut mesh = shared.mesh.clone();
    loop {
        let state = Arc::clone(&mesh.borrow_and_update());
        if state.is_heard() {
            let wanted = Datagrams {
                destinations: state.view.udp_targets(),
                ports: state.view.udp_inbound(&uid),
            };
            told.send_if_modified(|told| {
                let news = told.as_deref() != Some(&wanted);
                if news {
                    *told = Some(Arc::new(wanted));
                }
                news
            });
        }
        tokio::select! {
            changed = mesh.changed() => if changed.is_err() { return },
            () = told.closed() => return,
        }
    }
}
