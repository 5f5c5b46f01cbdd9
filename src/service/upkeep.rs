//! The herald as a part of a process: begun when it serves, ended when nothing is left to tell of.

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Herald, Manager, Phase, Pulse, State};

/// The task that tells the service manager, where there is one.
pub struct Upkeep {
    phase: watch::Sender<Phase>,
    end: CancellationToken,
    task: JoinSet<()>,
}

impl Upkeep {
    /// Tells `manager` how the process is by `state`, while all `runtimes` do what they are given. To
    /// be called in the one that is the last to end.
    pub fn begin<S>(manager: Option<Manager>, runtimes: Vec<Handle>, state: S) -> Self
    where
        S: FnMut() -> State + Send + 'static,
    {
        let (phase, seen) = watch::channel(Phase::Up);
        let end = CancellationToken::new();
        let mut task = JoinSet::new();
        if let Some(manager) = manager {
            let (pulse, last) = (Pulse::new(runtimes), Pulse::new(vec![Handle::current()]));
            let herald = Herald::new(manager, pulse, last, seen, state);
            task.spawn(herald.run(end.clone()));
        }
        Self { phase, end, task }
    }

    /// The settings are being read again, until what is returned is dropped.
    pub fn reloading(&self) -> Reloading<'_> {
        self.phase.send_replace(Phase::Reloading);
        Reloading(&self.phase)
    }

    /// The process stops.
    pub fn stopping(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Nothing more is told.
    pub async fn end(mut self) {
        self.end.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

/// A reload that is under way: given up or not, it ends with this.
#[derive(Debug)]
pub struct Reloading<'a>(&'a watch::Sender<Phase>);

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.0.send_replace(Phase::Up);
    }
}
