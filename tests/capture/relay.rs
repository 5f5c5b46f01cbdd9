//! The least a proxy can do with datagrams: sends back what goes into the mesh, passes on what comes from
//! outside, and tells what it saw.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use lateen::capture::host::Outcome;
use lateen::capture::kept::link::Link;
use lateen::capture::reconcile::State;
use lateen::capture::{
    Arrivals, Datagrams, Mark, Place, Sockets, Target, Terms, Wanted, WantedDatagrams,
};
use rustix::thread::CapabilitySet;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::keeper::SOCKET;
use crate::room::{PROXY, Room, eventually};
use crate::site::Site;

/// Enough for what a case does before it looks.
const SEEN: usize = 65_536;
/// What a proxy takes that asks no keeper.
const POWERS: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::NET_RAW);

/// A datagram that came to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Outbound {
        from: SocketAddr,
        to: SocketAddr,
    },
    /// On a host's network, of the workload of this mark.
    Of {
        mark: Mark,
        from: SocketAddr,
        to: SocketAddr,
    },
    Inbound {
        from: SocketAddr,
        to: SocketAddr,
    },
    /// What a program answered.
    Back {
        from: SocketAddr,
        to: SocketAddr,
    },
}

/// A running proxy, which has the rules kept in place. Dropped, it goes on.
pub(crate) struct Relay {
    told: watch::Sender<WantedDatagrams>,
    seen: Receiver<Came>,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Relay {
    /// Starts one that has the powers itself; the rules are in place on return.
    pub(crate) fn start(room: &Room, datagrams: Datagrams) -> Self {
        Self::start_on(room, room.exemption(), false, datagrams)
    }

    /// The same on terms of its own, and maybe with questions for names.
    pub(crate) fn start_on(
        room: &Room,
        terms: impl Into<Terms>,
        dns: bool,
        datagrams: Datagrams,
    ) -> Self {
        let wanted = Some(Arc::new(datagrams));
        Self::with(room, POWERS, Sockets::own(terms), None, dns, wanted)
    }

    /// Starts one that has none and asks the keeper; what it wants it may not know yet.
    pub(crate) fn kept(room: &Room, wanted: WantedDatagrams) -> Self {
        let (sockets, link) = Sockets::kept(Path::new(SOCKET));
        let powers = CapabilitySet::empty();
        let relay = Self::with(room, powers, sockets, Some(link), false, wanted);
        // The keeper has the rules in place first.
        relay.settled(room);
        relay
    }

    fn with(
        room: &Room,
        powers: CapabilitySet,
        sockets: Sockets,
        link: Option<Link>,
        dns: bool,
        wanted: WantedDatagrams,
    ) -> Self {
        let (tell, seen) = sync_channel(SEEN);
        let (started, ready) = sync_channel(1);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let users = room.users;
        let (told, datagrams) = watch::channel(wanted);
        let thread = thread::spawn(move || {
            users.become_user(PROXY, powers);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let mut tasks = JoinSet::new();
                if let Some(link) = link {
                    tasks.spawn(link.run(CancellationToken::new()));
                }
                let place = sockets.attach(&Target::Netns("cart".into())).await.unwrap();
                let captured = sockets.capture_udp(&place).await.unwrap();
                let part = Part {
                    place,
                    sockets,
                    tell,
                };
                tasks.spawn(part.clone().outbound(captured.outbound));
                tasks.spawn(part.clone().inbound(captured.inbound));
                let kept = part.sockets.keep_udp(&part.place, dns, datagrams).await;
                let (keeping, mut state) = kept.unwrap();
                tasks.spawn(async move {
                    let now = state.wait_for(|s| !matches!(s, State::Pending)).await;
                    assert!(
                        matches!(&*now.unwrap(), State::InPlace),
                        "rules not applied"
                    );
                    started.send(()).unwrap();
                });
                keeping.run(token).await;
                tasks.shutdown().await;
            });
        });
        ready.recv().unwrap();
        Self {
            told,
            seen,
            stop,
            thread,
        }
    }

    /// Starts one on a host's network, for workloads there; from the keeper or by powers of its own.
    pub(crate) fn on_host(
        site: &Site<'_>,
        kept: bool,
        workloads: Vec<Wanted>,
        datagrams: Datagrams,
    ) -> Self {
        let (tell, seen) = sync_channel(SEEN);
        let (started, ready) = sync_channel(1);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let (ns, users) = (site.room.cart.clone(), site.room.users);
        let (powers, (sockets, link)) = match kept {
            true => {
                let (sockets, link) = Sockets::kept(Path::new(SOCKET));
                (CapabilitySet::empty(), (sockets, Some(link)))
            }
            false => (POWERS, (Sockets::own(site.terms()), None)),
        };
        let told = watch::Sender::new(Some(Arc::new(datagrams)));
        let wanted = told.subscribe();
        let thread = thread::spawn(move || {
            // Its host is the room's.
            ns.settle().unwrap();
            users.become_user(PROXY, powers);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let mut tasks = JoinSet::new();
                if let Some(link) = link {
                    tasks.spawn(link.run(CancellationToken::new()));
                }
                let place = sockets.host().await.unwrap();
                let captured = sockets.capture_udp(&place).await.unwrap();
                let part = Part {
                    place,
                    sockets,
                    tell,
                };
                tasks.spawn(part.clone().outbound(captured.outbound));
                tasks.spawn(part.clone().inbound(captured.inbound));
                let count = workloads.len();
                let workloads = watch::Sender::new(Some(Arc::from(workloads)));
                let told = workloads.subscribe();
                let kept = part
                    .sockets
                    .keep_host(&part.place, told, Some(wanted))
                    .await;
                let (keeping, mut outcome) = kept.unwrap();
                tasks.spawn(async move {
                    let settled = |now: &Arc<Outcome>| now.workloads.len() == count;
                    let now = outcome.wait_for(settled).await;
                    assert!(now.unwrap().failed.is_none(), "rules not applied");
                    started.send(()).unwrap();
                    std::future::pending().await
                });
                keeping.run(token).await;
                drop(workloads);
                tasks.shutdown().await;
            });
        });
        ready.recv().unwrap();
        let relay = Self {
            told,
            seen,
            stop,
            thread,
        };
        relay.settled(site.room);
        relay
    }

    /// Waits until the sets hold what was told.
    pub(crate) fn settled(&self, room: &Room) {
        let size = self.told.borrow().as_ref().map(|d| d.destinations.len());
        eventually("what was told", || {
            let sets = "nft list set inet lateen udp4; nft list set inet lateen udp6";
            let now = room.sh(sets).matches(" . ").count();
            // Those of their types are such, too.
            if size.is_none_or(|size| now == size + 2) {
                Ok(())
            } else {
                Err(now)
            }
        });
    }

    /// Has these captured from now on, or soon after.
    pub(crate) fn tell(&self, datagrams: Datagrams) {
        self.told.send_replace(Some(Arc::new(datagrams)));
    }

    /// What came since the last look, in order.
    pub(crate) fn seen(&self) -> Vec<Came> {
        self.seen.try_iter().collect()
    }

    /// Ends it, with all its sockets; the rules stay.
    pub(crate) fn stop(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
    }
}

#[derive(Clone)]
struct Part {
    place: Place,
    sockets: Sockets,
    tell: SyncSender<Came>,
}

impl Part {
    /// Sends each back, as whom it was sent to.
    async fn outbound(self, socket: std::net::UdpSocket) {
        let mut arrivals = Arrivals::new(socket).unwrap();
        let mut answering = HashMap::new();
        loop {
            let arrival = arrivals.recv().await.unwrap();
            let (from, to) = (arrival.from, arrival.to);
            let came = match arrival.mark {
                Some(mark) => Came::Of { mark, from, to },
                None => Came::Outbound { from, to },
            };
            self.tell.send(came).unwrap();
            let socket = match answering.entry(to) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(none) => none.insert(self.answering(to).await),
            };
            socket.send_to(arrival.payload, from).await.unwrap();
        }
    }

    /// Passes each on as its client, and back what the program answers.
    async fn inbound(self, socket: std::net::UdpSocket) {
        let mut arrivals = Arrivals::new(socket).unwrap();
        let mut dialed = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let arrival = arrivals.recv().await.unwrap();
            let (from, to) = (arrival.from, arrival.to);
            self.tell.send(Came::Inbound { from, to }).unwrap();
            let socket = match dialed.entry((from, to)) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(none) => {
                    // A host that is its own client needs no other's address.
                    let client = (from.ip() != to.ip()).then_some(from);
                    let socket = self.sockets.dial_udp(&self.place, to, client).await;
                    let socket = Arc::new(UdpSocket::from_std(socket.unwrap()).unwrap());
                    tasks.spawn(self.clone().back(Arc::clone(&socket), from, to));
                    none.insert(socket)
                }
            };
            // A program that is not there is told of by who waits for it.
            let _refused = socket.send(arrival.payload).await;
        }
    }

    async fn back(self, program: Arc<UdpSocket>, client: SocketAddr, asked: SocketAddr) {
        let answering = self.answering(asked).await;
        let mut heard = vec![0; 65_536];
        loop {
            if let Ok(length) = program.recv(&mut heard).await {
                let (from, to) = (asked, client);
                self.tell.send(Came::Back { from, to }).unwrap();
                answering.send_to(&heard[..length], client).await.unwrap();
            }
        }
    }

    async fn answering(&self, from: SocketAddr) -> UdpSocket {
        let socket = self.sockets.answer_udp(&self.place, from).await;
        UdpSocket::from_std(socket.unwrap()).unwrap()
    }
}
