//! What is open now: for `lateen connections`, and for the count a drain reports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

/// One open connection.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Connection {
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// The local workload's uid.
    pub workload: Arc<str>,
    /// The client's address.
    pub source: SocketAddr,
    /// Where the client wanted to go.
    pub destination: String,
    /// `hbone` or `tcp`.
    pub protocol: &'static str,
    /// When it was accepted.
    pub since: SystemTime,
}

/// The open connections of a process.
#[derive(Clone, Default)]
pub struct Connections {
    next: Arc<AtomicU64>,
    peak: Arc<AtomicUsize>,
    open: Arc<Mutex<BTreeMap<u64, Connection>>>,
}

impl Connections {
    /// Notes one as open until the guard is dropped.
    pub fn open(&self, connection: Connection) -> Open {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let open = {
            let mut list = self.lock();
            list.insert(id, connection);
            list.len()
        };
        self.peak.fetch_max(open, Ordering::Relaxed);
        Open {
            connections: self.clone(),
            id,
        }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// The most that were open at once since the peak was last forgotten.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Begins a new count of the peak.
    pub fn forget_peak(&self) {
        self.peak.store(0, Ordering::Relaxed);
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, oldest first.
    pub fn snapshot(&self) -> Vec<Connection> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a connection on the list.
pub struct Open {
    connections: Connections,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
    }
}
