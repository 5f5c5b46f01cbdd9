//! Tunnels that go by QUIC where that works and is worth it, and by TCP meanwhile (`spec/hbone-dataplane.md`
//! §11.5). QUIC is never waited for: it is dialled beside what TCP carries, and a request that it
//! leaves unanswered on a way that has fallen silent is made over TCP.

use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};
use tokio::time::Instant;
use tracing::debug;

use super::connection::Pooled;
use super::{ConnectError, ConnectRequest, ConnectResponse, Connector, Hop, Lease, Pool, Tunnel};
use super::{Key, State, Transport, silence};
use crate::clock;
use crate::hbone::connect::Carries;

type Opened = Result<(Tunnel, ConnectResponse), ConnectError>;

impl<C: Connector> Pool<C> {
    /// Opens a tunnel by whichever way is better now.
    pub(super) async fn connect_auto(&self, hop: &Hop, request: &ConnectRequest) -> Opened {
        let by = |transport| Hop {
            transport,
            ..hop.clone()
        };
        let tcp = by(Transport::Tcp);
        let datagrams = request.carries == Carries::Datagrams;
        if let Some((connection, lease)) = self.by_quic(&by(Transport::Quic), datagrams) {
            match self.first_by_quic(&connection, lease, &tcp, request).await {
                // The peer was closing the connection as we chose it: nobody's failure.
                Err(error) if error.is_unprocessed() => {}
                outcome => return outcome,
            }
        }
        self.connect_by(&tcp, request).await
    }

    /// A stream of a QUIC connection that is better than TCP now, as it always is for datagrams. Where there is no connection, one is dialled
    /// for the next.
    fn by_quic(&self, hop: &Hop, datagrams: bool) -> Option<(Arc<Pooled>, Lease)> {
        let endpoint = self.shared.quic.as_ref()?;
        let limits = &self.shared.limits;
        let key = Key::of(hop);
        let beside = Key {
            quic: false,
            ..key.clone()
        };
        let mut state = self.shared.lock();
        if self.shared.stopping.is_cancelled() {
            return None;
        }
        state.reap(limits);
        let State { entries, tasks, .. } = &mut *state;
        let (wall, now) = (clock::now(), Instant::now());
        let tcp = entries.get(&beside).map(|entry| &entry.connections[..]);
        let worth_it = endpoint.paths().is_worth_it(hop.to, now, || {
            tcp.unwrap_or_default().iter().any(|c| c.is_poor())
        });
        let entry = entries.entry(key.clone()).or_default();
        entry.connections.retain(|connection| {
            let broken = silence::is_broken(connection, now);
            if broken {
                debug!(dst.addr = %hop.to, "a way by QUIC has broken, tunnels go by TCP");
                endpoint.paths().fails(hop.to, now, limits.probe);
                connection.leave();
            }
            !broken && connection.usable(wall)
        });
        if let Some(connection) = entry.least_loaded(limits) {
            let good = worth_it || datagrams;
            let lease = good.then(|| Lease::of(&connection, limits.streams_out));
            return Some((Arc::clone(&connection), lease??));
        }
        entry.dialling.take_if(|o| o.has_changed().is_err());
        entry.failed.take_if(|failed| failed.is_over(limits));
        let idle = entry.dialling.is_none() && entry.failed.is_none();
        if idle && endpoint.paths().may_try(hop.to, now) {
            self.dial(&key, entry, tasks, hop);
        }
        None
    }

    /// Asks by QUIC, and by TCP too once the way has been silent for longer than it would be.
    async fn first_by_quic(
        &self,
        connection: &Arc<Pooled>,
        lease: Lease,
        tcp: &Hop,
        request: &ConnectRequest,
    ) -> Opened {
        let mut exchange = pin!(self.ask(lease, request));
        if let Some(outcome) = silence::answered(connection, exchange.as_mut()).await {
            return outcome;
        }
        debug!(dst.addr = %tcp.to, "no answer by QUIC, asking by TCP");
        connection.suspect();
        let second = pin!(self.connect_by(tcp, request));
        // Nothing of the program's has been sent by either; the one that comes late is cancelled.
        match select(exchange, second).await {
            Either::Left((Ok(opened), _)) | Either::Right((Ok(opened), _)) => Ok(opened),
            Either::Left((Err(_lost), second)) => second.await,
            Either::Right((Err(_refused), exchange)) => exchange.await,
        }
    }
}
