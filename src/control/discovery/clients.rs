//! Who is connected and how far they have come: what `lateen status` shows of nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::control::revision::Kind;

/// A response that a client refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The type of its resources.
    pub kind: Kind,
    /// The client's reason.
    pub message: String,
    /// When.
    pub at: SystemTime,
}

/// How discovery stands with one node. Kept after it has gone, until this process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientStatus {
    /// The node.
    pub node: Arc<str>,
    /// Streams it has open.
    pub streams: usize,
    /// Since when it has had one without a gap; none while it has none.
    pub connected_since: Option<SystemTime>,
    /// Where it last called from.
    pub address: SocketAddr,
    /// When it last acknowledged anything.
    pub acked_at: Option<SystemTime>,
    /// The last response it refused since it connected.
    pub nack: Option<Nack>,
    acked: BTreeMap<Kind, u64>,
}

impl ClientStatus {
    /// The last revision of which the node has a type in full.
    pub fn acked(&self, kind: Kind) -> Option<u64> {
        self.acked.get(&kind).copied()
    }

    /// The last revision the node has in force: the one whose announcement it acknowledged, which
    /// our agents do when they have applied it; for others, the one it has every type of.
    pub fn revision(&self) -> Option<u64> {
        let announced = self.acked.get(&Kind::Revision);
        let others = self.acked.iter().filter(|(kind, _)| **kind != Kind::Trust);
        announced
            .or_else(|| others.map(|(_, number)| number).min())
            .copied()
    }
}

/// All nodes that have connected.
#[derive(Debug, Default)]
pub struct Clients(Mutex<BTreeMap<Arc<str>, ClientStatus>>);

impl Clients {
    /// How discovery stands with each node, in the order of their names.
    pub fn snapshot(&self) -> Vec<ClientStatus> {
        self.lock().values().cloned().collect()
    }

    /// Notes a new stream; it counts until the returned value is dropped.
    pub(super) fn connected(
        self: &Arc<Self>,
        node: Arc<str>,
        address: SocketAddr,
        now: SystemTime,
    ) -> Connected {
        let mut nodes = self.lock();
        let status = nodes.entry(node.clone()).or_insert_with(|| ClientStatus {
            node: node.clone(),
            streams: 0,
            connected_since: None,
            address,
            acked_at: None,
            nack: None,
            acked: BTreeMap::new(),
        });
        if status.streams == 0 {
            status.connected_since = Some(now);
            status.nack = None;
        }
        status.streams += 1;
        status.address = address;
        drop(nodes);
        Connected {
            clients: self.clone(),
            node,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, ClientStatus>> {
        // Every change is complete in itself, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open stream in the books.
#[derive(Debug)]
pub(super) struct Connected {
    clients: Arc<Clients>,
    node: Arc<str>,
}

impl Connected {
    pub(super) fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// Notes an acknowledgement, and the revision the node now has in full of that type.
    pub(super) fn acked(&self, kind: Kind, revision: Option<u64>, now: SystemTime) {
        self.update(|status| {
            status.acked_at = Some(now);
            if let Some(revision) = revision {
                status.acked.insert(kind, revision);
            }
        });
    }

    /// Notes a refusal.
    pub(super) fn nacked(&self, kind: Kind, message: String, now: SystemTime) {
        let at = now;
        self.update(|status| status.nack = Some(Nack { kind, message, at }));
    }

    fn update(&self, change: impl FnOnce(&mut ClientStatus)) {
        if let Some(status) = self.clients.lock().get_mut(&self.node) {
            change(status);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.update(|status| {
            status.streams = status.streams.saturating_sub(1);
            if status.streams == 0 {
                status.connected_since = None;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn keeps_book() {
        let clients = Arc::new(Clients::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let status = || clients.snapshot().pop().unwrap();
        let first = clients.connected(Arc::from("edge-1"), address, at(1));
        let second = clients.connected(Arc::from("edge-1"), address, at(2));
        assert_eq!(
            (status().streams, status().connected_since),
            (2, Some(at(1)))
        );
        first.acked(Kind::Address, Some(7), at(3));
        first.acked(Kind::Authorization, Some(6), at(3));
        assert_eq!(status().revision(), Some(6));
        first.acked(Kind::Address, None, at(4));
        second.acked(Kind::Revision, Some(5), at(4));
        assert_eq!(status().revision(), Some(5), "what it says it has applied");
        second.nacked(Kind::Address, "x: bad".to_owned(), at(5));
        assert_eq!(status().nack.unwrap().message, "x: bad");
        drop((first, second));
        assert_eq!((status().streams, status().connected_since), (0, None));
        assert_eq!(status().revision(), Some(5), "remembered");
        drop(clients.connected(Arc::from("edge-1"), address, at(9)));
        assert_eq!(status().nack, None, "a new connection starts clean");
    }
}
