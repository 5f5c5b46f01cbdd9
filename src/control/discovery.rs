//! Serves revisions to nodes over delta discovery (`spec/control-plane.md` §3).
//!
//! [`Discovery`] is the component: it owns one task per stream. [`Service`] is what the gRPC server
//! is given; it checks a new stream and hands it over. What a stream is sent, and when, is decided
//! by [`session`], which knows neither sockets nor time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::revision::Revision;
use crate::telemetry::ControlMetrics;

mod bucket;
mod clients;
mod frames;
pub mod session;
mod stream;
mod subscription;
mod transport;

use bucket::Bucket;
pub use clients::{ClientStatus, Clients, Nack};
use session::Chunk;
use stream::Stream;
pub use transport::Service;

/// Limits of the discovery service.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How much goes into one response.
    pub chunk: Chunk,
    /// New streams per second, over all clients.
    pub streams_per_second: u32,
    /// Over how long the ends of streams are spread at shutdown.
    pub drain: Duration,
    /// How long a stream may be open without a first request.
    pub first_request: Duration,
    /// How long a client may leave a response unacknowledged.
    pub acknowledgement: Duration,
    /// How many clients are sent a large mesh from the beginning at the same time: each costs a
    /// list of all its names, and one response (§9.4).
    pub snapshots: usize,
    /// How long a client waits for such a place; then it is served without one, so that those who
    /// are slow hold up nobody for longer.
    pub snapshot_wait: Duration,
}

impl Default for Limits {
    /// §3.4 rules 5 and 6: 20 + 5 × cores new streams per second, a drain of 30 s, 60 s for an ACK;
    /// §9.4: 8 snapshots at once.
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let cores = u32::try_from(cores).unwrap_or(1).min(1_000);
        Self {
            chunk: Chunk::default(),
            streams_per_second: 20 + 5 * cores,
            drain: Duration::from_secs(30),
            first_request: Duration::from_secs(10),
            acknowledgement: Duration::from_secs(60),
            snapshots: 8,
            snapshot_wait: Duration::from_secs(5),
        }
    }
}

/// Accepted streams that wait to be taken up. The component only ever spawns, so this holds what
/// arrives while it is scheduled; when full, an opening stream waits.
const OPENING: usize = 64;

/// Owns the streams. See [`Discovery::new`].
#[derive(Debug)]
pub struct Discovery {
    opened: mpsc::Receiver<Stream>,
    limits: Limits,
}

impl Discovery {
    /// The component and the service that feeds it. `revisions` holds none until one is loaded;
    /// streams are refused until then.
    pub fn new(
        revisions: watch::Receiver<Option<Arc<Revision>>>,
        limits: Limits,
        metrics: ControlMetrics,
    ) -> (Self, Service, Arc<Clients>) {
        let (sender, opened) = mpsc::channel(OPENING);
        let clients = Arc::new(Clients::new(metrics));
        let bucket = Bucket::new(limits.streams_per_second);
        let service = Service::new(revisions, sender, clients.clone(), bucket, limits);
        (Self { opened, limits }, service, clients)
    }

    /// Serves streams until `shutdown`, then ends them one by one over the drain time, each
    /// CANCELLED: a stream that ended OK would be reopened at once, hundreds of times a second.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(stream) = self.opened.recv() => {
                    streams.spawn(stream.run(shutdown.clone()));
                }
                Some(ended) = streams.join_next() => report(ended),
            }
        }
        // Whoever opened in the last moment is told like everyone else.
        self.opened.close();
        while let Some(stream) = self.opened.recv().await {
            streams.spawn(stream.run(shutdown.clone()));
        }
        info!(streams = streams.len(), within = ?self.limits.drain, "ending discovery streams");
        while let Some(ended) = streams.join_next().await {
            report(ended);
        }
    }
}

/// A stream that panics ends alone.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failed) = ended {
        error!(error = %failed, "a discovery stream failed");
    }
}

#[cfg(test)]
mod tests;
