//! The threads that carry a waypoint's connections. Each has tunnel connections onward of its own and
//! prefers connections to endpoints that are its own, so that a request is read, passed on and
//! answered on one thread, and what many requests have to say to a peer in one turn of its loop
//! leaves in one write.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::hbone::{self, Connector, Pool};

/// One of the threads.
pub(super) struct Lane<C> {
    /// Which one.
    pub(super) number: usize,
    handle: Handle,
    /// Tunnel connections onward.
    pub(super) tunnels: Pool<C>,
    /// Tunnel connections that it was dealt.
    dealt: AtomicUsize,
}

/// A tunnel connection's place on a thread.
pub(super) struct Dealt<C> {
    lane: Arc<Lane<C>>,
}

impl<C> Drop for Dealt<C> {
    fn drop(&mut self) {
        self.lane.dealt.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C: Connector + Clone> Lane<C> {
    /// The thread behind `handle`.
    pub(super) fn new(number: usize, handle: Handle, connector: C) -> Self {
        Self {
            number,
            handle,
            tunnels: Pool::new(connector, hbone::Limits::default()),
            dealt: AtomicUsize::new(0),
        }
    }

    /// Where to spawn.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Gives it another tunnel connection.
    pub(super) fn deal(self: &Arc<Self>) -> Dealt<C> {
        self.dealt.fetch_add(1, Ordering::Relaxed);
        Dealt {
            lane: Arc::clone(self),
        }
    }

    /// Tunnel connections that it has now.
    pub(super) fn dealt(&self) -> usize {
        self.dealt.load(Ordering::Relaxed)
    }

    /// Lets its tunnels go; all of them have ended.
    pub(super) async fn drain(&self) {
        // What is left only waits for peers.
        let _in_time = tokio::time::timeout(Duration::from_secs(1), self.tunnels.drain()).await;
    }
}
