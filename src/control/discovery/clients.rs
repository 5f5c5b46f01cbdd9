//! Who is connected and how far they have come: what `lateen status` shows of nodes. And by whom
//! streams are ended from outside.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tonic::Status;

use crate::control::revision::Kind;
use crate::telemetry::ControlMetrics;

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
pub struct Clients {
    nodes: Mutex<BTreeMap<Arc<str>, ClientStatus>>,
    /// What tells the streams of a node to end. Replaced when it is used.
    ends: Mutex<BTreeMap<Arc<str>, watch::Sender<Option<Status>>>>,
    metrics: ControlMetrics,
}

impl Clients {
    /// Nobody yet.
    pub(super) fn new(metrics: ControlMetrics) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Ends every stream that `node` has open or is opening, with `status`, which must not be OK:
    /// stock proxies reopen such a stream at once, hundreds of times a second. Streams that are
    /// opened later are not touched: refuse them at the door, before this.
    pub fn end(&self, node: &str, status: Status) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = ends.remove(node) {
            end.send_replace(Some(status));
        }
    }

    /// Resolves when streams of `node` that are open at this moment are to end.
    pub(super) fn ending(&self, node: &Arc<str>) -> Ending {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = ends
            .entry(node.clone())
            .or_insert_with(|| watch::Sender::new(None));
        Ending(end.subscribe())
    }

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
        self.metrics.opened();
        Connected {
            clients: self.clone(),
            node,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, ClientStatus>> {
        // Every change is complete in itself, so a panic elsewhere leaves nothing half done.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's end, decided outside it.
#[derive(Debug)]
pub(super) struct Ending(watch::Receiver<Option<Status>>);

impl Ending {
    /// The status to end with.
    pub(super) async fn status(mut self) -> Status {
        let told = self.0.wait_for(Option::is_some).await;
        match told.ok().and_then(|status| status.clone()) {
            Some(status) => status,
            // Nobody is left who could tell.
            None => std::future::pending().await,
        }
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
            // What it refused before was mended, or is not wanted any more.
            status.nack.take_if(|nack| nack.kind == kind);
            if let Some(revision) = revision {
                status.acked.insert(kind, revision);
            }
        });
    }

    /// Notes a response sent.
    pub(super) fn pushed(&self, kind: &'static str, bytes: usize) {
        self.clients.metrics.pushed(kind, bytes);
    }

    /// Notes a refusal.
    pub(super) fn nacked(&self, kind: Kind, message: String, now: SystemTime) {
        self.clients.metrics.nacked(kind.label());
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
        self.clients.metrics.closed();
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

    #[tokio::test]
    async fn ends_what_is_open_and_nothing_later() {
        let clients = Clients::default();
        let node: Arc<str> = Arc::from("edge-1");
        let (first, second) = (clients.ending(&node), clients.ending(&node));
        let other = clients.ending(&Arc::from("edge-2"));
        clients.end("edge-1", Status::permission_denied("revoked"));
        let later = clients.ending(&node);
        for ending in [first, second] {
            assert_eq!(ending.status().await.message(), "revoked");
        }
        for (name, ending) in [("another node", other), ("opened later", later)] {
            let told = futures::FutureExt::now_or_never(ending.status());
            assert!(told.is_none(), "{name}");
        }
        clients.end("edge-9", Status::permission_denied("never seen"));
    }

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
        first.acked(Kind::Authorization, Some(8), at(6));
        assert!(status().nack.is_some(), "of another type");
        first.acked(Kind::Address, Some(8), at(7));
        assert_eq!(status().nack, None, "mended");
        second.nacked(Kind::Address, "y: bad".to_owned(), at(8));
        drop((first, second));
        assert_eq!((status().streams, status().connected_since), (0, None));
        assert_eq!(status().revision(), Some(5), "remembered");
        drop(clients.connected(Arc::from("edge-1"), address, at(9)));
        assert_eq!(status().nack, None, "a new connection starts clean");
    }
}
