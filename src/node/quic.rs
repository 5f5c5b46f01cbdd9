//! QUIC in one network: its socket, opened with the other ports and closed after them.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::Shared;
use super::listener::{Arrives, Dealer, Hand, Source};
use super::workers::Worker;
use crate::capture::Place;
use crate::hbone::{self, Arrival, Endpoint, Links};
use crate::model::workload::{Transport, Workload};

/// How long the peers of connections that end have to hear of it.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long an endpoint of before may hold the port still: a workload that is captured another way has a new
/// one at once.
const TAKEN: Duration = Duration::from_secs(2);
/// Between looks at whether the port is free.
const LOOK: Duration = Duration::from_millis(50);

/// QUIC in a place, read on the last of its data plane threads; `None` where this host has none, or there is no
/// socket for it, and tunnels go by TCP.
pub(super) async fn endpoint(shared: &Shared, place: &Place) -> Option<Endpoint> {
    if !shared.quic {
        return None;
    }
    let opened = async {
        let socket = listen(shared, place).await?;
        let [ipv4, ipv6] = shared.sockets.scouts(place).await;
        let threads = shared.threads();
        // What comes first is dealt to the first, and shall not wait for what all packets are read by.
        let last = threads.last().ok_or(io::ErrorKind::NotFound)?;
        let _there = last.handle().enter();
        Endpoint::new(socket, Links::new(ipv4, ipv6), place.name(), &shared.limits)
    };
    let opened: io::Result<_> = opened.await;
    opened
        .map_err(|error| {
            let network = place.name();
            warn!(network, %error, "no socket on port 15008/udp, tunnels go by TCP alone");
        })
        .ok()
}

async fn listen(shared: &Shared, place: &Place) -> io::Result<UdpSocket> {
    let since = Instant::now();
    loop {
        match shared.sockets.listen_tunnels_udp(place).await {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && since.elapsed() < TAKEN => {
                tokio::time::sleep(LOOK).await;
            }
            opened => return opened,
        }
    }
}

/// What is dealt to a thread; nothing where there is no QUIC.
pub(super) fn dealt(arrivals: Option<&mut Dealer<Endpoint>>, to: &Arc<Worker>) -> Hand<Endpoint> {
    match arrivals {
        Some(arrivals) => arrivals.deal_to(to),
        None => mpsc::channel(1).1,
    }
}

/// What a tunnel between two workloads may go by.
pub(crate) fn transport(ours: &Workload, theirs: &Workload) -> hbone::Transport {
    match ours.transport.between(theirs.transport) {
        Transport::Tcp => hbone::Transport::Tcp,
        Transport::Auto => hbone::Transport::Auto,
        Transport::Quic => hbone::Transport::Quic,
    }
}

/// Closes what is still open, and tells the peers.
pub(super) async fn close(quic: Endpoint) {
    quic.close();
    // Whoever cannot be told finds out by silence.
    let _told = timeout(FAREWELL, quic.idle()).await;
    if let Err(error) = quic.release() {
        debug!(%error, "the port of an endpoint is held until its connections are over");
    }
}

impl Arrives for Arrival {
    type Taken = Self;

    fn take(self) -> io::Result<Self> {
        Ok(self)
    }
}

impl Source for Endpoint {
    type Open = Accepting;
    type Arrival = Arrival;

    fn open(self) -> io::Result<Accepting> {
        Ok(Accepting(self))
    }

    async fn next(open: &Accepting) -> io::Result<Arrival> {
        match open.0.accept().await {
            Some(arrival) => Ok(arrival),
            // It is closed, and whoever accepts is told to stop.
            None => std::future::pending().await,
        }
    }
}

/// Takes connections until it is dropped.
pub(super) struct Accepting(Endpoint);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accept_no_more();
    }
}
