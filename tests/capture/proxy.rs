//! The least a proxy can do: passes everything on, and tells what it saw.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use lateen::capture::kept::link::Link;
use lateen::capture::reconcile::State;
use lateen::capture::ruleset::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT};
use lateen::capture::{Place, Sockets, Target, Terms, original_destination};
use rustix::thread::CapabilitySet;
use tokio::io::{AsyncWriteExt as _, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::keeper::SOCKET;
use crate::room::{PROXY, Room};

/// Enough for what a case does before it looks.
const SEEN: usize = 1024;

/// Where the proxy goes on to nobody: what arrives there has gone beside it.
pub(crate) const SINK: u16 = 81;

/// A connection that came to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Outbound(SocketAddr),
    Plaintext(SocketAddr),
    Tunnel(SocketAddr),
}

/// A running proxy, which has the rules kept in place.
pub(crate) struct Proxy {
    seen: Receiver<Seen>,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Proxy {
    /// Starts one that has the powers itself; the rules are in place on return.
    pub(crate) fn start(room: &Room) -> Self {
        Self::start_on(room, room.exemption())
    }

    /// The same on terms of its own.
    pub(crate) fn start_on(room: &Room, terms: impl Into<Terms>) -> Self {
        let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_RAW;
        Self::with(room, needed, Sockets::own(terms), None)
    }

    /// Starts one that has none and asks the keeper.
    pub(crate) fn kept(room: &Room) -> Self {
        let (sockets, link) = Sockets::kept(Path::new(SOCKET));
        Self::with(room, CapabilitySet::empty(), sockets, Some(link))
    }

    fn with(room: &Room, powers: CapabilitySet, sockets: Sockets, link: Option<Link>) -> Self {
        let (tell, seen) = sync_channel(SEEN);
        let (started, ready) = sync_channel(1);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let users = room.users;
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
                let cart = Target::Netns("cart".into());
                let place = sockets.attach(&cart).await.unwrap();
                let part = Part {
                    place,
                    sockets,
                    tell,
                };
                for port in [OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT] {
                    let listener = part.sockets.listen(&part.place, port).await.unwrap();
                    let listener = TcpListener::from_std(listener).unwrap();
                    tasks.spawn(part.clone().accept(listener, port));
                }
                let (keeping, state) = part.sockets.keep(&part.place, false).await.unwrap();
                tasks.spawn(report(state, started));
                keeping.run(token).await;
                tasks.shutdown().await;
            });
        });
        ready.recv().unwrap();
        Self { seen, stop, thread }
    }

    /// What came since the last look, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }

    /// Ends it, with all its sockets; the rules stay.
    pub(crate) fn stop(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
    }
}

/// Says once that the rules are in place; later failures fail the test where they matter.
async fn report(mut state: watch::Receiver<State>, started: SyncSender<()>) {
    let state = state.wait_for(|s| !matches!(s, State::Pending)).await;
    match &*state.unwrap() {
        State::InPlace => started.send(()).unwrap(),
        other => panic!("rules not applied: {other:?}"),
    }
}

#[derive(Clone)]
struct Part {
    place: Place,
    sockets: Sockets,
    tell: SyncSender<Seen>,
}

impl Part {
    async fn accept(self, listener: TcpListener, port: u16) {
        let mut tasks = JoinSet::new();
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let part = self.clone();
            tasks.spawn(async move {
                // A connection that fails is seen to fail by its client.
                let _failed = part.handle(stream, peer, port).await;
            });
        }
    }

    async fn handle(self, mut stream: TcpStream, peer: SocketAddr, port: u16) -> io::Result<()> {
        if port == HBONE_PORT {
            self.tell.send(Seen::Tunnel(peer)).unwrap();
            stream.write_all(b"tunnel\n").await?;
            let (mut read, mut write) = stream.split();
            copy(&mut read, &mut write).await?;
            return Ok(());
        }
        let to = original_destination(&stream)?;
        let (seen, from) = match port {
            OUTBOUND_PORT => (Seen::Outbound(to), None),
            _ => (Seen::Plaintext(to), Some(peer.ip())),
        };
        self.tell.send(seen).unwrap();
        if [OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT, SINK].contains(&to.port()) {
            return Ok(());
        }
        let mut next = self.sockets.connect(&self.place, to, from).await?;
        copy_bidirectional(&mut stream, &mut next).await?;
        Ok(())
    }
}
