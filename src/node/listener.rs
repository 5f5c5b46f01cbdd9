//! Accepts on one port, each connection in a task of its own, until stopped; then lets what is
//! open finish.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Connections of one workload on one port; above it, new ones wait in the kernel's queue. Four
/// times what `spec/reliability.md` §2b has: one busy gateway keeps ten thousand open.
const CONNECTIONS: usize = 16_384;
/// Pause after a failed accept: out of descriptors, most likely, and trying at once only spins.
const PAUSE: Duration = Duration::from_millis(50);

/// How many more connections a workload may have on each of its ports, over all threads.
#[derive(Clone)]
pub(super) struct Room {
    pub(super) outbound: Arc<Semaphore>,
    pub(super) plaintext: Arc<Semaphore>,
    pub(super) tunnels: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        let room = || Arc::new(Semaphore::new(CONNECTIONS));
        Self {
            outbound: room(),
            plaintext: room(),
            tunnels: room(),
        }
    }
}

/// Serves `listener` until `stop`, then waits up to `drain` for open connections and cuts the
/// rest. Returns how many were cut.
pub(super) async fn serve<F, R>(
    listener: TcpListener,
    stop: &CancellationToken,
    drain: Duration,
    room: &Arc<Semaphore>,
    handle: F,
) -> usize
where
    F: Fn(TcpStream, SocketAddr) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(done) = tasks.join_next() => report(done),
            accepted = accept(&listener, room) => match accepted {
                Ok((stream, peer, place)) => {
                    let handled = handle(stream, peer);
                    tasks.spawn(async move {
                        handled.await;
                        drop(place);
                    });
                }
                Err(e) => {
                    warn!(error = %e, "cannot accept, pausing");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
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

/// The next connection, with its place among those the workload may have.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    Ok((stream, peer, place))
}

fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(failed) = done {
        warn!(error = %failed, "a connection's task died");
    }
}
