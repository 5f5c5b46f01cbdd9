//! One port of a workload: whoever accepts deals each connection to the data plane thread that has
//! least to do, and that thread serves it in a task of its own. What a connection is the [`Source`] says.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::load::{Counted, Kind};
use super::workers::{Worker, least};
use crate::sys;

/// Connections of one workload on one port; above it, new ones wait in the kernel's queue. Four
/// times what `spec/reliability.md` §2b has: one busy gateway keeps ten thousand open.
const CONNECTIONS: usize = 16_384;
/// Connections accepted that a thread has not taken up yet.
const DEALT: usize = 256;
/// Pause after a failed accept: out of descriptors, most likely, and trying at once only spins.
const PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from.
pub(super) trait Source: Send + 'static {
    /// The same, on the thread that accepts.
    type Open: Send + Sync;
    /// A connection.
    type Arrival: Arrives;

    /// Begins, on the thread that accepts.
    fn open(self) -> io::Result<Self::Open>;

    /// The next connection.
    fn next(open: &Self::Open) -> impl Future<Output = io::Result<Self::Arrival>> + Send;
}

/// A connection on its way to the thread that serves it.
pub(super) trait Arrives: Send + 'static {
    /// What that has of it.
    type Taken;

    /// For whoever serves it.
    fn take(self) -> io::Result<Self::Taken>;
}

/// A connection on its way to the thread that will serve it.
pub(super) struct Dealt<A> {
    arrival: A,
    counted: Counted,
    /// Its place among those the workload may have on the port.
    place: OwnedSemaphorePermit,
}

/// A connection by TCP, and who opened it.
pub(super) struct Accepted {
    stream: Unserved,
    peer: SocketAddr,
}

impl Arrives for Accepted {
    type Taken = (TcpStream, SocketAddr);

    fn take(self) -> io::Result<Self::Taken> {
        Ok((self.stream.take()?, self.peer))
    }
}

/// Listeners must not block.
impl Source for TcpListener {
    type Open = AsyncFd<OwnedFd>;
    type Arrival = Accepted;

    fn open(self) -> io::Result<Self::Open> {
        sys::async_fd(self.into())
    }

    fn next(open: &Self::Open) -> impl Future<Output = io::Result<Accepted>> + Send {
        accept(open)
    }
}

/// A connection that nobody has taken up: dropped so it is reset, since an orderly end would look
/// like an answer.
struct Unserved(Option<std::net::TcpStream>);

impl Unserved {
    /// For whoever serves it.
    fn take(mut self) -> io::Result<TcpStream> {
        let stream = self.0.take().ok_or(io::ErrorKind::NotConnected)?;
        TcpStream::from_std(stream)
    }
}

impl Drop for Unserved {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            // Without the option the close is a plain one: worse to the program, harmless to us.
            let _best_effort = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// The accepting side of a port.
pub(super) struct Dealer<S: Source> {
    source: S,
    kind: Kind,
    room: Arc<Semaphore>,
    hands: Vec<(Arc<Worker>, Give<S>)>,
}

/// What deals to one thread.
type Give<S> = mpsc::Sender<Dealt<<S as Source>::Arrival>>;

/// The serving side of a port, on one thread.
pub(super) type Hand<S> = mpsc::Receiver<Dealt<<S as Source>::Arrival>>;

impl<S: Source> Dealer<S> {
    /// Deals what arrives at `source`. At equal load a connection stays with the first thread it is
    /// dealt to.
    pub(super) fn new(source: S, kind: Kind) -> Self {
        Self {
            source,
            kind,
            room: Arc::new(Semaphore::new(CONNECTIONS)),
            hands: Vec::new(),
        }
    }

    /// Deals to another thread.
    pub(super) fn deal_to(&mut self, worker: &Arc<Worker>) -> Hand<S> {
        let (give, hand) = mpsc::channel(DEALT);
        self.hands.push((Arc::clone(worker), give));
        hand
    }

    /// Accepts until `stop`; then nobody holds the port any more.
    ///
    /// # Errors
    /// When this thread cannot listen.
    pub(super) async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let Self {
            source,
            kind,
            room,
            hands,
        } = self;
        let open = source.open()?;
        let dealing = async {
            loop {
                match arrived::<S>(&open, &room).await {
                    Ok((arrival, place)) => {
                        let Some((worker, give)) = least(&hands, kind) else {
                            return;
                        };
                        let counted = worker.load().count(kind);
                        let dealt = Dealt {
                            arrival,
                            counted,
                            place,
                        };
                        // A thread that takes no more resets it.
                        let _unserved = give.send(dealt).await;
                    }
                    Err(e) => {
                        warn!(error = %e, "cannot accept, pausing");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            () = dealing => Ok(()),
        }
    }
}

/// The next connection, with its place among those the workload may have.
async fn arrived<S: Source>(
    open: &S::Open,
    room: &Arc<Semaphore>,
) -> io::Result<(S::Arrival, OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    Ok((S::next(open).await?, place))
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<Accepted> {
    loop {
        let mut ready = listener.readable().await?;
        let accepted = ready.try_io(|listener| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            Ok(acceptfrom_with(listener.as_fd(), flags)?)
        });
        // Else somebody was faster, or there was none.
        let Ok(accepted) = accepted else { continue };
        let (socket, peer) = accepted?;
        let stream = Unserved(Some(socket.into()));
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let peer = peer.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        return Ok(Accepted { stream, peer });
    }
}

/// Serves what is dealt until `stop`, then waits up to `drain` for open connections and cuts the
/// rest. Returns how many were cut.
pub(super) async fn serve<A, F, R>(
    mut hand: mpsc::Receiver<Dealt<A>>,
    stop: &CancellationToken,
    drain: Duration,
    handle: F,
) -> usize
where
    A: Arrives,
    F: Fn(A::Taken) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let take = |tasks: &mut JoinSet<()>, dealt: Dealt<A>| {
        let held = (dealt.place, dealt.counted);
        match dealt.arrival.take() {
            Ok(taken) => {
                tasks.spawn(handle(taken).map(|()| drop(held)));
            }
            Err(e) => warn!(error = %e, "cannot serve a connection"),
        }
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(done) = tasks.join_next() => report(done),
            Some(dealt) = hand.recv() => take(&mut tasks, dealt),
            else => break,
        }
    }
    hand.close();
    while let Ok(dealt) = hand.try_recv() {
        take(&mut tasks, dealt);
    }
    let finished = async {
        while let Some(done) = tasks.join_next().await {
            report(done);
        }
    };
    // Either all have finished, or the deadline has passed and the count below says so.
    let _in_time = tokio::time::timeout(drain, finished).await;
    let cut = tasks.len();
    tasks.shutdown().await;
    cut
}

fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(failed) = done {
        warn!(error = %failed, "a connection's task died");
    }
}
