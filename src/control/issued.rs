//! When each node last had a certificate of each identity: what tells whether a root that retires
//! is still needed by anyone (`spec/control-plane.md` §4.5).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::warn;

use super::ca::MAX_TTL;
use super::store::{Store, Tree};
use crate::causes::chain;
use crate::identity::SpiffeId;

/// Parts of a key in the store; neither a node's name nor an identity has it.
const BETWEEN: char = ' ';

/// A node and an identity.
type Key = (Arc<str>, Arc<str>);
type Times = BTreeMap<Key, SystemTime>;

/// The times, in memory and, to survive a restart, in the store.
#[derive(Debug)]
pub struct Issued {
    store: Arc<dyn Store>,
    times: Mutex<Times>,
}

impl Issued {
    /// What the store remembers and can still matter.
    pub fn open(store: Arc<dyn Store>, now: SystemTime) -> Self {
        let entries = store.entries(Tree::Issued).unwrap_or_else(|e| {
            warn!(
                error = chain(&e),
                "cannot read when certificates were issued"
            );
            Vec::new()
        });
        let mut times = Times::new();
        for (key, value) in entries {
            match read(&key, &value) {
                Some((key, at)) if at + MAX_TTL > now => {
                    times.insert(key, at);
                }
                _ => {
                    if let Err(e) = store.remove(Tree::Issued, &key) {
                        warn!(error = chain(&e), "an old note of a certificate stays");
                    }
                }
            }
        }
        Self {
            store,
            times: Mutex::new(times),
        }
    }

    /// A node was given a certificate.
    pub fn note(&self, node: &Arc<str>, id: &SpiffeId, now: SystemTime) {
        let id = id.to_string();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let key = format!("{node}{BETWEEN}{id}");
        let put = self
            .store
            .put(Tree::Issued, key.as_bytes(), &seconds.to_be_bytes());
        if let Err(e) = put {
            warn!(
                error = chain(&e),
                "cannot note a certificate; replacing a root will wait longer for its node"
            );
        }
        self.lock().insert((Arc::clone(node), Arc::from(id)), now);
    }

    /// When a node last had a certificate of an identity.
    pub fn last(&self, node: &str, id: &str) -> Option<SystemTime> {
        let key = (Arc::from(node), Arc::from(id));
        self.lock().get(&key).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(key: &[u8], value: &[u8]) -> Option<(Key, SystemTime)> {
    let (node, id) = std::str::from_utf8(key).ok()?.split_once(BETWEEN)?;
    let seconds = u64::from_be_bytes(value.try_into().ok()?);
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Some(((Arc::from(node), Arc::from(id)), at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::Memory;

    #[test]
    fn the_last_time_is_remembered_until_it_cannot_matter() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let node = Arc::from("edge-1");
        let issued = Issued::open(Arc::clone(&store), at(0));
        issued.note(&node, &id, at(100));
        issued.note(&node, &id, at(200));
        let again = Issued::open(Arc::clone(&store), at(300));
        assert_eq!(again.last("edge-1", &id.to_string()), Some(at(200)));
        assert_eq!(again.last("edge-2", &id.to_string()), None);
        let late = Issued::open(Arc::clone(&store), at(200) + MAX_TTL);
        assert_eq!(late.last("edge-1", &id.to_string()), None);
        assert!(store.entries(Tree::Issued).unwrap().is_empty());
        store.put(Tree::Issued, b"odd", b"1").unwrap();
        Issued::open(Arc::clone(&store), at(0));
        assert!(
            store.entries(Tree::Issued).unwrap().is_empty(),
            "what does not read goes"
        );
    }
}
