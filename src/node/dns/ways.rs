//! Who has questions followed up on one network, each apart from the others: one that asks for what takes
//! long waits for itself alone, and what it was told is not what others are.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::forward::Forwarder;
use super::upstream::Upstream;

/// Questions of one asker that are being followed up at once, so that one that asks for everything
/// leaves room for others.
pub(super) const FLYING: usize = 1024;

/// One asker's way to everybody else.
pub(super) struct Way {
    pub(super) forwarder: Arc<Forwarder>,
    /// What it may have followed up.
    pub(super) flying: Semaphore,
}

/// Those of one network.
pub(super) struct Ways {
    /// Of whoever is no workload that shares the network with others.
    own: Arc<Way>,
    upstream: Upstream,
    /// Of those who share it.
    shared: Mutex<HashMap<Arc<str>, Arc<Way>>>,
}

impl Way {
    fn new(upstream: Upstream) -> Arc<Self> {
        Arc::new(Self {
            forwarder: Forwarder::new(upstream),
            flying: Semaphore::new(FLYING),
        })
    }
}

impl Ways {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self {
            own: Way::new(upstream.apart()),
            upstream,
            shared: Mutex::default(),
        }
    }

    /// That of whom the network is.
    pub(super) fn own(&self) -> &Arc<Way> {
        &self.own
    }

    /// That of a workload that shares the network with those `present`; the ways of all others are
    /// given up where there are more ways than workloads.
    pub(super) fn of(
        &self,
        uid: &Arc<str>,
        present: impl FnOnce() -> HashSet<Arc<str>>,
    ) -> Arc<Way> {
        let mut shared = self.lock();
        if let Some(way) = shared.get(uid) {
            return Arc::clone(way);
        }
        let present = present();
        if shared.len() >= present.len() {
            shared.retain(|uid, way| {
                let stays = present.contains(uid);
                if !stays {
                    way.forwarder.abandon();
                }
                stays
            });
        }
        let way = Way::new(self.upstream.apart());
        shared.insert(Arc::clone(uid), Arc::clone(&way));
        way
    }

    /// Asks nobody any more, and waits until that is so.
    pub(super) async fn stop(&self) {
        self.own.forwarder.stop().await;
        let shared = std::mem::take(&mut *self.lock());
        for way in shared.into_values() {
            way.forwarder.stop().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Way>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::dns::Servers;

    #[tokio::test]
    async fn whoever_has_left_is_forgotten() {
        let ways = Ways::new(Upstream::of_host(Servers::these(&[])));
        let of = |uid: &str, present: &[&str]| {
            let present = present.iter().map(|uid| Arc::from(*uid)).collect();
            ways.of(&Arc::from(uid), || present)
        };
        let a = of("a", &["a", "b"]);
        assert!(Arc::ptr_eq(&a, &of("a", &["a", "b"])));
        let b = of("b", &["a", "b"]);
        of("c", &["b", "c"]);
        let known = ways.lock().keys().cloned().collect::<HashSet<_>>();
        assert_eq!(known, ["b", "c"].map(Arc::from).into());
        assert!(Arc::ptr_eq(&b, &of("b", &["b", "c"])));
        ways.stop().await;
    }
}
