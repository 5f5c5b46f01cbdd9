//! Accepts on one port, each connection in a task of its own, until stopped; then lets what is
//! open finish.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Connections of one workload on one port; above it, new ones wait in the kernel's queue
/// (`spec/reliability.md` §2b).
const CONNECTIONS: usize = 4096;
/// Pause after a failed accept: out of descriptors, most likely, and trying at once only spins.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves `listener` until `stop`, then waits up to `drain` for open connections and cuts the
/// rest. Returns how many were cut.
pub(super) async fn serve<F, R>(
    listener: TcpListener,
    stop: &CancellationToken,
    drain: Duration,
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
            accepted = listener.accept(), if tasks.len() < CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    tasks.spawn(handle(stream, peer));
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

fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(failed) = done {
        warn!(error = %failed, "a connection's task died");
    }
}
