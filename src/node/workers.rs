//! The threads that move bytes. Each runs an event loop of its own and keeps what it is dealt: a
//! program's connection, its stream and the tunnel connection that carries it are all woken,
//! read and written on one thread, so that nothing waits for a lock or wakes another thread, and
//! whatever came in during one turn of the loop leaves in one write.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::load::{Kind, Load};
use super::vigil;
use crate::sys;

/// Tasks run before the thread looks for what has come in meanwhile. Few, since the task of a busy
/// tunnel moves a hundred kilobytes each time, and a small request waits for all of them.
const EVENTS: u32 = 2;

/// How long a thread runs before another may, when it was woken while others run: the shortest that
/// the kernel grants.
const TURN: Duration = Duration::from_micros(100);

/// One of the threads, as others see it.
pub(super) struct Worker {
    handle: Handle,
    load: Arc<Load>,
}

impl Worker {
    /// Where to spawn.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What it has to do.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }
}

/// The one with the least to do, where another connection of this kind comes.
pub(super) fn least<T>(of: &[(Arc<Worker>, T)], kind: Kind) -> Option<(&Worker, &T)> {
    let now = Instant::now();
    let weighed = of.iter().min_by_key(|(worker, _)| {
        let busy = worker.handle.metrics().worker_total_busy_duration(0);
        worker.load.weight(kind, now, busy)
    });
    weighed.map(|(worker, with)| (&**worker, with))
}

/// The running threads. Dropping it ends them and what still runs on them.
pub struct Workers {
    workers: Vec<Arc<Worker>>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts `count` threads, at least one. With `awake` they wait awake for what is about to come.
    ///
    /// # Errors
    /// When the kernel gives no thread or no event queue.
    pub fn start(count: usize, awake: bool) -> io::Result<Self> {
        let mut workers = Self {
            workers: Vec::new(),
            threads: Vec::new(),
            stop: CancellationToken::new(),
        };
        for number in 0..count.max(1) {
            let (tell, told) = mpsc::sync_channel(1);
            let stop = workers.stop.clone();
            let load = Arc::<Load>::default();
            let its = Arc::clone(&load);
            let thread = thread::Builder::new()
                .name(format!("data-{number}"))
                .spawn(move || work(its, &tell, &stop, awake))?;
            workers.threads.push(thread);
            let handle = told.recv().map_err(io::Error::other)??;
            workers.workers.push(Arc::new(Worker { handle, load }));
        }
        Ok(workers)
    }

    /// Where to spawn on each of the threads.
    pub fn handles(&self) -> Vec<Handle> {
        let handles = self.workers.iter().map(|w| w.handle().clone());
        handles.collect()
    }

    /// The threads.
    pub(super) fn all(&self) -> &[Arc<Worker>] {
        &self.workers
    }
}

fn work(
    load: Arc<Load>,
    tell: &mpsc::SyncSender<io::Result<Handle>>,
    stop: &CancellationToken,
    awake: bool,
) {
    if let Err(e) = sys::short_turns(TURN) {
        debug!(error = %e, "no short turns on the processor");
    }
    let woken = Arc::clone(&load);
    let built = Builder::new_current_thread()
        .event_interval(EVENTS)
        .on_thread_park(move || load.sleeps(Instant::now()))
        .on_thread_unpark(move || woken.wakes(Instant::now()))
        .enable_all()
        .build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(e) => {
            // Whoever started us waits for it.
            let _told = tell.send(Err(e));
            return;
        }
    };
    if tell.send(Ok(runtime.handle().clone())).is_ok() {
        runtime.block_on(async {
            tokio::select! {
                () = stop.cancelled() => {}
                never = vigil::keep(), if awake => match never {},
            }
        });
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                warn!("a data plane thread died");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn each_handle_is_a_thread_of_its_own() {
        let workers = Workers::start(3, true).unwrap();
        let mut names = BTreeSet::new();
        for worker in workers.all() {
            let name = worker
                .handle()
                .spawn(async { thread::current().name().map(str::to_owned) });
            names.insert(name.await.unwrap().unwrap());
        }
        let want = ["data-0", "data-1", "data-2"];
        assert_eq!(names, want.map(str::to_owned).into());
    }

    #[test]
    fn there_is_at_least_one() {
        assert_eq!(Workers::start(0, false).unwrap().all().len(), 1);
    }
}
