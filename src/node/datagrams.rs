//! Datagrams of a workload: those that its programs send into the mesh, each pair of ends as a flow through a
//! tunnel of its own, and those that come to it from outside (`spec/hbone-dataplane.md` §11.4).
//!
//! Like a link, nothing here makes a sender wait: what cannot go on at once is dropped.

mod arrived;
mod leg;
mod open;
mod relay;

use std::collections::HashMap;
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
use crate::capture::ruleset::host::Mark;
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

/// What tells a flow from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Whose it is, where that is told: one end may be used by several, one after the other or at once.
    mark: Option<Mark>,
    ends: Ends,
}

/// A flow, as whoever reads for all sees it.
struct Open {
    give: mpsc::Sender<Bytes>,
    task: Id,
    workload: Arc<str>,
}

/// How many flows a workload has.
#[derive(Default)]
struct Crowd {
    flows: usize,
    warned: bool,
}

/// The open flows of one direction.
struct Flows<W> {
    /// Says whose a datagram is.
    whose: W,
    begun: Begun,
    open: HashMap<Key, Open>,
    crowds: HashMap<Arc<str>, Crowd>,
    tasks: JoinSet<Key>,
}

/// Serves what is captured until `stop`, and then cuts it. Each flow is its workload's, who is found by
/// `sender` where a program sends and by `receiver` where somebody outside does.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn serve(
    captured: Captured,
    stop: CancellationToken,
    sender: impl Fn(&Arrival<'_>) -> Option<Arc<Lane>>,
    receiver: impl Fn(&Arrival<'_>) -> Option<Arc<Lane>>,
) -> io::Result<()> {
    let served = async {
        let outbound = Arrivals::new(captured.outbound)?;
        let inbound = Arrivals::new(captured.inbound)?;
        let here = Flows::new(sender, Begun::Here);
        let outside = Flows::new(receiver, Begun::Outside);
        tokio::try_join!(here.run(outbound), outside.run(inbound)).map(|_never| ())
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        served = served => served,
    }
}

impl<W: Fn(&Arrival<'_>) -> Option<Arc<Lane>>> Flows<W> {
    fn new(whose: W, begun: Begun) -> Self {
        Self {
            whose,
            begun,
            open: HashMap::new(),
            crowds: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    async fn run(mut self, mut arrivals: Arrivals) -> io::Result<std::convert::Infallible> {
        loop {
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id() => match done {
                    Ok((id, key)) => self.ended(key, id),
                    Err(died) => {
                        warn!(error = %died, "a flow's task died");
                        self.died(died.id());
                    }
                },
                arrival = arrivals.recv() => {
                    let arrival = arrival?;
                    self.take(&arrival);
                    self.more(&mut arrivals)?;
                    // Flows that were woken here run on this thread, and no sooner than this task lets
                    // them: meanwhile their room fills.
                    tokio::task::yield_now().await;
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
        let key = Key {
            mark: arrival.mark,
            ends,
        };
        let payload = Bytes::copy_from_slice(arrival.payload);
        let payload = match self.open.get(&key) {
            Some(open) => match open.give.try_send(payload) {
                Ok(()) | Err(TrySendError::Full(_)) => return,
                // It has just ended, and begins anew.
                Err(TrySendError::Closed(payload)) => payload,
            },
            None => payload,
        };
        let Some(lane) = (self.whose)(arrival) else {
            return debug!(src.addr = %ends.from, dst.addr = %ends.to, "a datagram is nobody's, dropped");
        };
        if self.has_room(&lane.uid) {
            self.begin(key, lane, payload);
        }
    }

    /// Whether a workload may have one more flow.
    fn has_room(&mut self, workload: &Arc<str>) -> bool {
        let Some(crowd) = self.crowds.get_mut(workload) else {
            return true;
        };
        let room = crowd.flows < FLOWS;
        if !room && !std::mem::replace(&mut crowd.warned, true) {
            warn!(%workload, flows = FLOWS, "too many flows of datagrams, further ones are dropped");
        }
        room
    }

    fn begin(&mut self, key: Key, lane: Arc<Lane>, first: Bytes) {
        let (give, waiting) = mpsc::channel(WAITING);
        let (begun, workload) = (self.begun, Arc::clone(&lane.uid));
        let task = self.tasks.spawn(async move {
            let flow = async {
                match begun {
                    Begun::Here => open::into_the_mesh(&lane, key.ends, waiting).await,
                    Begun::Outside => open::from_outside(&lane, key.ends, waiting).await,
                }
            };
            // Of a workload that leaves while others stay it is cut as well.
            let _stopped: Option<()> = lane.stop.run_until_cancelled(flow).await;
            key
        });
        // There is room in a new channel.
        let _first = give.try_send(first);
        self.crowds.entry(Arc::clone(&workload)).or_default().flows += 1;
        let open = Open {
            give,
            task: task.id(),
            workload,
        };
        if let Some(before) = self.open.insert(key, open) {
            self.left(&before.workload);
        }
    }

    fn ended(&mut self, key: Key, task: Id) {
        if self.open.get(&key).is_some_and(|open| open.task == task)
            && let Some(open) = self.open.remove(&key)
        {
            self.left(&open.workload);
        }
        let Ends { from, to } = key.ends;
        debug!(src.addr = %from, dst.addr = %to, "flow ended");
    }

    fn died(&mut self, task: Id) {
        let found = self.open.iter().find(|(_, open)| open.task == task);
        if let Some((key, _)) = found {
            self.ended(*key, task);
        }
    }

    /// A flow of a workload is no more.
    fn left(&mut self, workload: &Arc<str>) {
        if let Some(crowd) = self.crowds.get_mut(workload) {
            crowd.flows -= 1;
            crowd.warned &= crowd.flows + 1 >= FLOWS;
            if crowd.flows == 0 {
                self.crowds.remove(workload);
            }
        }
    }
}

/// Tells which datagrams are to be captured, of ports those of a workload, for as long as anybody listens;
/// nothing until the mesh has been heard.
pub(super) async fn wanted(
    shared: Arc<Shared>,
    uid: Option<Arc<str>>,
    told: watch::Sender<WantedDatagrams>,
) {
    let mut mesh = shared.mesh.clone();
    loop {
        let state = Arc::clone(&mesh.borrow_and_update());
        if state.is_heard() {
            let ports = uid.as_deref().map(|uid| state.view.udp_inbound(uid));
            let wanted = Datagrams {
                destinations: state.view.udp_targets(),
                ports: ports.unwrap_or_default(),
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
