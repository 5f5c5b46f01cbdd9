//! What is remembered of workloads over a restart, and how that is written in the store.
//!
//! A value is a few words: `captured unhealthy edge-1`. Earlier versions wrote the first word only,
//! and only of captured workloads.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use tracing::warn;

use crate::control::store::{Store, Tree};
use crate::model::compile::Reported;
use crate::model::workload::Health;

const CAPTURED: &str = "captured";
const UNHEALTHY: &str = "unhealthy";

/// What is remembered of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// It is captured.
    pub(super) captured: bool,
    /// Whether it was given traffic.
    pub(super) health: Health,
    /// The node that last reported it; none from an earlier version.
    pub(super) node: Option<Arc<str>>,
}

impl Memory {
    fn decode(value: &[u8]) -> Self {
        let text = String::from_utf8_lossy(value);
        let mut words = text.split_whitespace();
        let captured = words.next() == Some(CAPTURED);
        let health = match words.next() {
            Some(UNHEALTHY) => Health::Unhealthy,
            _ => Health::Healthy,
        };
        Self {
            captured,
            health,
            node: words.next().map(Arc::from),
        }
    }

    fn encode(&self) -> String {
        let captured = match self.captured {
            true => CAPTURED,
            false => "plain",
        };
        let health = match self.health {
            Health::Healthy => "healthy",
            Health::Unhealthy => UNHEALTHY,
        };
        let node = self.node.as_deref().unwrap_or_default();
        format!("{captured} {health} {node}")
    }
}

/// All that is remembered, by uid. The store may have lost its last words: a workload is taken for
/// captured if either it or `published`, what was captured in the last revision, says so.
pub(super) fn recall(store: &dyn Store, published: &Reported) -> BTreeMap<Arc<str>, Memory> {
    let entries = store.entries(Tree::Health).unwrap_or_else(|e| {
        warn!(
            error = &e as &dyn Error,
            "cannot read what nodes reported before"
        );
        Vec::new()
    });
    let published = published.iter().map(|(uid, observed)| {
        let captured = observed.captured;
        let memory = Memory {
            captured,
            ..Memory::default()
        };
        (Arc::clone(uid), memory)
    });
    let mut all: BTreeMap<Arc<str>, Memory> = published.collect();
    for (uid, value) in entries {
        let Ok(uid) = String::from_utf8(uid) else {
            continue;
        };
        let known = all.entry(Arc::from(uid)).or_default();
        let memory = Memory::decode(&value);
        let captured = memory.captured || known.captured;
        *known = Memory { captured, ..memory };
    }
    all
}

/// Remembers one workload. That it may fail is in the nature of the store.
pub(super) fn keep(store: &dyn Store, uid: &str, memory: &Memory) {
    if let Err(e) = store.put(Tree::Health, uid.as_bytes(), memory.encode().as_bytes()) {
        warn!(
            error = &e as &dyn Error,
            "cannot remember what a node reported"
        );
    }
}

/// Forgets one workload.
pub(super) fn forget(store: &dyn Store, uid: &str) {
    if let Err(e) = store.remove(Tree::Health, uid.as_bytes()) {
        warn!(
            error = &e as &dyn Error,
            "cannot forget what a node reported"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store;
    use crate::model::compile::Observed;

    #[test]
    fn values() {
        let memory = |captured, health, node: Option<&str>| Memory {
            captured,
            health,
            node: node.map(Arc::from),
        };
        use Health::{Healthy, Unhealthy};
        for (name, value, want) in [
            (
                "an earlier version's",
                "captured",
                memory(true, Healthy, None),
            ),
            (
                "in full",
                "captured unhealthy edge-1",
                memory(true, Unhealthy, Some("edge-1")),
            ),
            (
                "in plain text",
                "plain healthy edge-1",
                memory(false, Healthy, Some("edge-1")),
            ),
            (
                "a later version's",
                "captured x y z",
                memory(true, Healthy, Some("y")),
            ),
            ("nothing", "", memory(false, Healthy, None)),
        ] {
            let read = Memory::decode(value.as_bytes());
            assert_eq!(read, want, "{name}");
            assert_eq!(Memory::decode(read.encode().as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn captured_if_either_source_says_so() {
        let store = store::Memory::default();
        store
            .put(Tree::Health, b"both", b"plain unhealthy edge-1")
            .unwrap();
        store.put(Tree::Health, b"in-store", b"captured").unwrap();
        let observed = Observed {
            captured: true,
            ..Observed::default()
        };
        let published = ["both", "in-revision"].map(|uid| (Arc::from(uid), observed));
        let known = recall(&store, &published.into_iter().collect());
        let uids: Vec<&str> = known.keys().map(|uid| &**uid).collect();
        assert_eq!(uids, ["both", "in-revision", "in-store"]);
        assert!(known.values().all(|memory| memory.captured));
        assert_eq!(known["both"].health, Health::Unhealthy);
    }
}
