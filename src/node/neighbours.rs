//! Workloads of this host, for each other: a connection between two of them needs no tunnel.
//!
//! It never leaves the process between one program's socket and the other's, so there is nobody to
//! hide it from. Everything else is as if it did (`spec/hbone-dataplane.md` §2.2): both need their
//! certificates, the server's identity must be one that is accepted there, the server's side decides
//! as it does for tunnels, and each side has its log line and its metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::lane::Lane;
use crate::model::workload::Workload;

type Lanes = HashMap<Arc<str>, Weak<Lane>>;

/// Which workloads this process serves now.
#[derive(Clone, Default)]
pub(super) struct Neighbours {
    lanes: Arc<Mutex<Lanes>>,
}

/// Keeps a workload known.
pub(super) struct Known {
    neighbours: Neighbours,
    uid: Arc<str>,
    lane: Weak<Lane>,
}

impl Neighbours {
    /// Makes a workload known by one of its lanes, until the guard is dropped.
    pub(super) fn enter(&self, lane: &Arc<Lane>) -> Known {
        let uid = Arc::clone(&lane.uid);
        let lane = Arc::downgrade(lane);
        self.lock().insert(Arc::clone(&uid), Weak::clone(&lane));
        Known {
            neighbours: self.clone(),
            uid,
            lane,
        }
    }

    /// A workload that is served here.
    pub(super) fn of(&self, workload: &Workload) -> Option<Arc<Lane>> {
        self.lock().get(&workload.uid)?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let mut lanes = self.neighbours.lock();
        // Another lane of the same workload may have come after it.
        if lanes
            .get(&self.uid)
            .is_some_and(|known| Weak::ptr_eq(known, &self.lane))
        {
            lanes.remove(&self.uid);
        }
    }
}
