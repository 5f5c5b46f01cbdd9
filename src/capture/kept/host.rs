//! The host's network: the keeper is told of the workloads there, and tells how they are.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use super::protocol::{PlaceId, Verb, pieces};
use super::{KeptPlace, PATIENCE, held};
use crate::capture::CaptureError;
use crate::capture::host::{Outcome, Standing, Wanted, Workloads};
use crate::capture::ruleset::host::Mark;
use crate::telemetry::access_log::chain;

/// What a keeper is told of the host's network, also one that comes after this one.
pub(super) struct Told {
    /// The workloads, once it is known who they are; none where the host's rules are not kept.
    wanted: Mutex<Option<Workloads>>,
    outcome: watch::Sender<Arc<Outcome>>,
    /// Of an outcome that is told in pieces, those that have come.
    coming: Mutex<BTreeMap<Mark, Standing>>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            wanted: Mutex::default(),
            outcome: watch::Sender::new(Arc::default()),
            coming: Mutex::default(),
        }
    }
}

impl Told {
    /// The questions by which another keeper learns of it.
    pub(super) fn verbs(&self, place: PlaceId) -> Vec<Verb> {
        // What the one before had begun to tell is not gone on with.
        held(&self.coming).clear();
        let Some(workloads) = held(&self.wanted).clone() else {
            return Vec::new();
        };
        let mut verbs = vec![Verb::KeepHost { place }];
        if let Some(workloads) = workloads {
            verbs.extend(told(place, &workloads));
        }
        verbs
    }

    /// Nobody wants the host's rules kept any more.
    pub(super) fn forget(&self) {
        *held(&self.wanted) = None;
    }

    /// Takes in a piece of an outcome.
    pub(super) fn note(
        &self,
        standings: Vec<(Mark, Standing)>,
        failed: Option<String>,
        more: bool,
    ) {
        let mut coming = held(&self.coming);
        coming.extend(standings);
        if more {
            return;
        }
        let failed = failed.map(|said| Arc::new(CaptureError::Told { said }));
        let workloads = std::mem::take(&mut *coming);
        self.outcome
            .send_replace(Arc::new(Outcome { workloads, failed }));
    }
}

fn told(place: PlaceId, workloads: &[Wanted]) -> Vec<Verb> {
    let pieces = pieces(workloads.to_vec());
    let last = pieces.len().saturating_sub(1);
    let numbered = pieces.into_iter().enumerate();
    let verbs = numbered.map(|(at, workloads)| Verb::Workloads {
        place,
        workloads,
        first: at == 0,
        more: at < last,
    });
    verbs.collect()
}

impl KeptPlace {
    /// Has the rules of the host's network kept, by whichever keeper is there; how they are it says at
    /// once, and the receiver has it.
    pub(in crate::capture) async fn keep_host(&self) -> io::Result<watch::Receiver<Arc<Outcome>>> {
        let mut outcome = self.host.outcome.subscribe();
        *held(&self.host.wanted) = Some(None);
        let kept = self.ask(Verb::KeepHost { place: self.id }, PATIENCE).await;
        let failed = match kept {
            Ok(_done) => match timeout(PATIENCE, outcome.changed()).await {
                Ok(Ok(())) => return Ok(outcome),
                Ok(Err(_)) | Err(_) => io::ErrorKind::TimedOut.into(),
            },
            Err(e) => e.into(),
        };
        self.host.forget();
        Err(failed)
    }

    /// Tells the keeper of the workloads, whenever they are others, for ever.
    pub(in crate::capture) async fn tell(&self, mut workloads: watch::Receiver<Workloads>) {
        loop {
            let now = workloads.borrow_and_update().clone();
            if let Some(now) = now {
                *held(&self.host.wanted) = Some(Some(Arc::clone(&now)));
                for verb in told(self.id, &now) {
                    if let Err(e) = self.ask(verb, PATIENCE).await {
                        // The next keeper is told when it is there.
                        warn!(
                            error = chain(&e),
                            "the keeper was not told of this host's workloads"
                        );
                        break;
                    }
                }
            }
            if workloads.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
