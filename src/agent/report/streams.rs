//! A stream of reports to every control plane that can be reached: health is soft state, and each of
//! them publishes it (`spec/control-plane.md` §9.1).

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::facts::Facts;
use super::{LocalStates, stream};
use crate::agent::channel::Controls;
use crate::agent::failover::{Backoff, Timing};
use crate::causes::chain;

/// Reports to all of them until `shutdown`.
pub(in crate::agent) async fn run(
    controls: Controls,
    captures: watch::Receiver<LocalStates>,
    timing: Timing,
    facts: Facts,
    shutdown: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    for control in 0..controls.urls().len() {
        let captures = captures.clone();
        let one = follow(
            controls.clone(),
            control,
            captures,
            timing,
            facts.clone(),
            shutdown.clone(),
        );
        tasks.spawn(one);
    }
    while let Some(done) = tasks.join_next().await {
        if let Err(e) = done {
            error!(error = %e, "reports to a control plane died; the others go on");
        }
    }
}

/// Reports to one of them, on a stream that is opened again whenever it ends.
async fn follow(
    controls: Controls,
    control: usize,
    captures: watch::Receiver<LocalStates>,
    timing: Timing,
    facts: Facts,
    shutdown: CancellationToken,
) {
    let mut backoff = Backoff::new(timing.backoff);
    loop {
        let begun = Instant::now();
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = stream(&controls, control, captures.clone(), facts.clone()) => ended,
        };
        if let Err(e) = ended {
            let url = controls.urls().get(control).map(String::as_str);
            debug!(control = url, error = chain(&e), "reports interrupted");
        }
        if begun.elapsed() >= timing.healthy {
            backoff.reset();
        }
        let wait = backoff.wait((timing.dice)());
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
