//! The way on to an endpoint: which one, and how it is reached (`spec/waypoint-l7.md` §1.8).

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;

use super::Arrival;
use super::routing::Seen;
use crate::agent::certs::{CertError, Certs};
use crate::hbone::{self, ConnectError, ConnectRequest, Connector, Hop, Pool, Tunnel, headers};
use crate::model::balance::{Candidate, Pick, RoundRobin};
use crate::model::outbound::{Refusal, Route, Tunnelled};
use crate::model::service::{Service, ServiceKey};
use crate::model::waypoint::{Destination, Picking, toward};
use crate::model::workload::Workload;

/// Longest wait for a plain connection (§1.8).
const CONNECT: Duration = Duration::from_secs(10);

/// Opens ways as this waypoint.
pub(super) struct Upstream<C> {
    pool: Pool<C>,
    connector: C,
    certs: Certs,
    turns: Mutex<RoundRobin>,
}

/// A way to an endpoint.
pub(super) enum Way {
    /// Through a tunnel.
    Tunnel(Tunnel),
    /// As it is.
    Plain(TcpStream),
}

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the waypoint's instance is not in the mesh view")]
    Gone,
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error(transparent)]
    Tunnel(#[from] ConnectError),
    #[error("cannot connect to {to}")]
    Plain { to: SocketAddr, source: io::Error },
}

impl OpenError {
    /// Whether another endpoint may do better. Nothing has been sent in any case.
    pub(super) fn retryable(&self) -> bool {
        match self {
            Self::Gone | Self::Certificate(_) => false,
            Self::Tunnel(e) => e.retryable(),
            Self::Plain { .. } => true,
        }
    }

    /// The flag that tells it in the metrics of connections.
    pub(super) fn flag(&self) -> &'static str {
        match self {
            Self::Gone => "CONNECT",
            Self::Certificate(_) => "IDENTITY_ERROR",
            Self::Tunnel(e) => e.flag(),
            Self::Plain { .. } => "CONNECT",
        }
    }
}

impl<C: Connector + Clone> Upstream<C> {
    pub(super) fn new(connector: C, certs: Certs) -> Self {
        // Begins anywhere, so that instances that start together do not all begin with one endpoint.
        let start = rand::random::<u32>() as usize;
        Self {
            pool: Pool::new(connector.clone(), hbone::Limits::default()),
            connector,
            certs,
            turns: Mutex::new(RoundRobin::starting_after(start)),
        }
    }

    /// Lets go of connections nobody needs any more.
    pub(super) fn reap(&self) {
        self.pool.reap();
    }

    /// Lets its tunnels go; all of them have ended.
    pub(super) async fn drain(&self) {
        // What is left only waits for peers.
        let _in_time = tokio::time::timeout(Duration::from_secs(1), self.pool.drain()).await;
    }

    async fn tunnel(&self, arrival: &Arrival<C>, to: &Tunnelled) -> Result<Tunnel, OpenError> {
        let known = arrival.shared.known(&arrival.instance);
        let (_mesh, instance) = known.ok_or(OpenError::Gone)?;
        let identity = instance.identity().map_err(|_illegal| OpenError::Gone)?;
        let hop = Hop {
            to: to.hop,
            svid: self.certs.get(&identity).await?,
            accepted: Arc::clone(&to.accepted),
        };
        let client = &arrival.client;
        let service = arrival.bound.service().map(|s| &*s.key.hostname);
        let request = ConnectRequest {
            authority: to.target.into(),
            baggage: client.baggage.clone(),
            forwarded: headers::forwarded(client.source, service),
            traceparent: client.traceparent.clone(),
        };
        let (tunnel, _answer) = self.pool.connect(&hop, &request).await?;
        Ok(tunnel)
    }

    async fn plain(&self, to: SocketAddr) -> Result<TcpStream, OpenError> {
        let connecting = tokio::time::timeout(CONNECT, self.connector.connect(to)).await;
        let connected = connecting.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|source| OpenError::Plain { to, source })
    }
}

/// The lock is held for the turn only, not for the decision around it.
struct Turns<'a>(&'a Mutex<RoundRobin>);

impl Pick for Turns<'_> {
    fn pick(&mut self, service: &ServiceKey, port: u16, candidates: &[Candidate<'_>]) -> usize {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.pick(service, port, candidates)
    }
}

/// An endpoint that was chosen, and how it is reached.
pub(super) struct Chosen {
    pub(super) route: Route,
}

impl Chosen {
    /// The endpoint's own address.
    pub(super) fn address(&self) -> SocketAddr {
        match &self.route {
            Route::Passthrough { to } => *to,
            Route::Plain { endpoint, .. } => endpoint.address,
            Route::Tunnel(tunnelled) => tunnelled.target,
        }
    }

    /// Where the connection goes on the wire.
    pub(super) fn hop(&self) -> SocketAddr {
        match &self.route {
            Route::Tunnel(tunnelled) => tunnelled.hop,
            Route::Passthrough { .. } | Route::Plain { .. } => self.address(),
        }
    }

    /// The endpoint, where the mesh knows it.
    pub(super) fn workload(&self) -> Option<&Arc<Workload>> {
        match &self.route {
            Route::Passthrough { .. } => None,
            Route::Plain { endpoint, .. } => Some(&endpoint.workload),
            Route::Tunnel(tunnelled) => Some(&tunnelled.workload),
        }
    }

    /// The service that it is an endpoint of.
    pub(super) fn service(&self) -> Option<&Arc<Service>> {
        match &self.route {
            Route::Passthrough { .. } => None,
            Route::Plain { service, .. } => service.as_ref(),
            Route::Tunnel(tunnelled) => tunnelled.service.as_ref(),
        }
    }

    /// What the tunnel to it is, if it takes one.
    pub(super) fn tunnelled(&self) -> Option<&Tunnelled> {
        match &self.route {
            Route::Tunnel(tunnelled) => Some(tunnelled),
            Route::Passthrough { .. } | Route::Plain { .. } => None,
        }
    }
}

impl<C: Connector + Clone> Arrival<C> {
    /// Chooses an endpoint of `to`.
    pub(super) fn choose(
        &self,
        seen: &Seen,
        to: &Destination<'_>,
        picking: &Picking<'_>,
    ) -> Result<Chosen, Refusal> {
        let mut turns = Turns(&self.shared.upstream.turns);
        let route = toward(&seen.mesh.view, &seen.instance, to, picking, &mut turns)?;
        Ok(Chosen { route })
    }

    /// Opens the way to an endpoint.
    pub(super) async fn open(&self, chosen: &Chosen) -> Result<Way, OpenError> {
        let upstream = &self.shared.upstream;
        match chosen.tunnelled() {
            Some(to) => Ok(Way::Tunnel(upstream.tunnel(self, to).await?)),
            None => Ok(Way::Plain(upstream.plain(chosen.address()).await?)),
        }
    }
}
