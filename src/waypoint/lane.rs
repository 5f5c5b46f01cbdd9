//! The threads that carry a waypoint's connections. Each has tunnel connections onward of its own and
//! prefers connections to endpoints that are its own, so that a request is read, passed on and
//! answered on one thread, and what many requests have to say to a peer in one turn of its loop
//! leaves in one write.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::warn;

use super::Settings;
use crate::hbone::{Connector, Endpoint, Limits, Links, Pool, Quic, ResetKey};

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

/// QUIC to peers, from whichever of this host's addresses.
fn outward(handle: &Handle, limits: &Limits) -> Option<Endpoint> {
    let opened = || -> io::Result<_> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        // Where IPv6 is switched off.
        let plain = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        let socket = UdpSocket::bind(any).or_else(|_no_ipv6| plain())?;
        socket.set_nonblocking(true)?;
        let _there = handle.enter();
        Endpoint::new(socket, Links::here(), "onward", limits)
    };
    let opened = opened();
    opened
        .map_err(|error| warn!(%error, "no socket for QUIC, tunnels onward go by TCP alone"))
        .ok()
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
    pub(super) fn new(number: usize, handle: Handle, connector: C, settings: &Settings) -> Self {
        let limits = Limits {
            quic: Quic {
                reset: ResetKey::default(),
                ..settings.quic.unwrap_or_default()
            },
            ..Limits::default()
        };
        let quic = settings.quic.and_then(|_| outward(&handle, &limits));
        Self {
            number,
            handle,
            tunnels: Pool::with_quic(connector, limits, quic),
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
