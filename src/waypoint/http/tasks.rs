//! Tasks that HTTP connections spawn, owned by whoever owns the connections.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::task::{JoinError, JoinSet};
use tracing::warn;

use super::stall;

/// Owns tasks: they end by themselves, or with it.
#[derive(Default)]
pub(super) struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
}

/// Spawns tasks for an owner that may be gone: then they are not begun.
#[derive(Clone)]
pub(super) struct Spawn {
    set: Weak<Mutex<JoinSet<()>>>,
}

impl Tasks {
    pub(super) fn spawner(&self) -> Spawn {
        Spawn {
            set: Arc::downgrade(&self.set),
        }
    }

    fn take(&self) -> JoinSet<()> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *set)
    }

    /// Waits until all of them have ended, also those begun meanwhile.
    ///
    /// # Cancel safety
    /// Dropping the future aborts them.
    pub(super) async fn finish(self) {
        loop {
            let mut set = self.take();
            if set.is_empty() {
                return;
            }
            while let Some(done) = set.join_next().await {
                report(done);
            }
        }
    }

    /// Aborts them, and waits until they are.
    pub(super) async fn shutdown(&self) {
        self.take().shutdown().await;
    }
}

impl Spawn {
    /// Begins a task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(set) = self.set.upgrade() else {
            return;
        };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(done) = set.try_join_next() {
            report(done);
        }
        set.spawn(task);
    }
}

/// hyper has it drive streams of HTTP/2.
impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        self.spawn(stall::drive(stream));
    }
}

fn report(done: Result<(), JoinError>) {
    if let Err(failed) = done
        && failed.is_panic()
    {
        warn!(error = %failed, "an HTTP task died");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn what_is_spawned_is_waited_for() {
        let tasks = Tasks::default();
        let spawn = tasks.spawner();
        let (tell, told) = oneshot::channel();
        let again = spawn.clone();
        spawn.spawn(async move {
            tokio::task::yield_now().await;
            again.spawn(async move { tell.send(()).unwrap() });
        });
        tasks.finish().await;
        told.await.unwrap();
        let (tell, told) = oneshot::channel::<()>();
        spawn.spawn(async move { tell.send(()).unwrap() });
        assert!(told.await.is_err(), "nobody owns it, so it is not begun");
    }
}
