//! Makes one connection for all who wait for it, then keeps it going.

use std::io::ErrorKind::ConnectionRefused;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{Either, select};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{self, Pooled};
use super::{Failed, Key, Outcome, Shared};
use crate::hbone::Limits;
use crate::hbone::connect::{self, Connector, DialError, Hop};
use crate::hbone::quic::{self, Endpoint, QuicError};

/// Handshakes by QUIC that take longer have TCP asked whether anybody is there.
const QUIET: Duration = Duration::from_millis(150);
/// How long they may still take where TCP is refused: of a peer that is there and has TCP refused by a
/// firewall the round trip is less.
const GONE: Duration = Duration::from_millis(850);

/// A dial, and the connection it leads to, as one task.
pub(super) struct Dial<C> {
    pub(super) pool: Weak<Shared>,
    pub(super) connector: Arc<C>,
    pub(super) quic: Option<Endpoint>,
    pub(super) limits: Limits,
    pub(super) stopping: CancellationToken,
    pub(super) key: Key,
    pub(super) hop: Hop,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) tell: watch::Sender<Outcome>,
}

impl<C: Connector> Dial<C> {
    pub(super) async fn run(mut self) {
        let stopping = self.stopping.clone();
        let dialled = tokio::select! {
            dialled = self.attempt() => dialled,
            () = stopping.cancelled() => Err(DialError::Stopping),
        };
        let (outcome, driver) = match dialled {
            Ok(dialled) => {
                let (pooled, driver) = connection::pooled(self.hop.to, dialled);
                (Ok(Arc::new(pooled)), Some(driver))
            }
            Err(error) => (Err(Arc::new(error)), None),
        };
        self.settle(&outcome);
        self.tell.send_replace(Some(outcome));
        let Some(driver) = driver else { return };
        let (pool, key, to) = (self.pool.clone(), self.key.clone(), self.hop.to);
        let limits = self.limits.clone();
        // The dial's channel holds the connection, which must close when nobody else does.
        drop(self);
        if let Some(error) = driver.run(to, &limits).await {
            turned_away(&pool, key, error);
        }
    }

    async fn attempt(&mut self) -> Result<connect::Dialled, DialError> {
        if self.key.quic {
            let to = self.hop.to;
            let endpoint = self.quic.as_ref().ok_or(DialError::Quic {
                to,
                source: QuicError::NoSocket,
            })?;
            let dialled = self.by_quic(endpoint).await;
            match &dialled {
                Ok(_) => endpoint.paths().works(to),
                Err(DialError::QuicTimeout { .. }) => {
                    let now = Instant::now();
                    endpoint.paths().fails(to, now, self.limits.probe);
                }
                // It answers, whatever it says.
                Err(_) => {}
            }
            return dialled;
        }
        let tls = match self.tls.take() {
            Some(tls) => tls,
            None => connect::settings(&self.hop)?,
        };
        self.tls = Some(Arc::clone(&tls));
        connect::dial(&*self.connector, &self.hop, tls, &self.limits).await
    }

    /// QUIC's handshake, given up where TCP tells meanwhile that nobody listens there: by UDP nothing would.
    async fn by_quic(&self, endpoint: &Endpoint) -> Result<connect::Dialled, DialError> {
        let to = self.hop.to;
        let mut dialled = pin!(quic::dial(endpoint, &self.hop, &self.limits));
        if let Ok(outcome) = timeout(QUIET, dialled.as_mut()).await {
            return outcome;
        }
        let asked = pin!(self.connector.connect(to));
        match select(dialled, asked).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right((Err(source), dialled)) if source.kind() == ConnectionRefused => {
                let outcome = timeout(GONE, dialled).await;
                outcome.unwrap_or(Err(DialError::Connect { to, source }))
            }
            Either::Right((_somebody_or_unknown, dialled)) => dialled.await,
        }
    }

    /// Puts what came of it into the pool.
    fn settle(&self, outcome: &Result<Arc<Pooled>, Arc<DialError>>) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let mut state = pool.lock();
        // Gone when the pool drains; the connection then serves only those who waited for it.
        let Some(entry) = state.entries.get_mut(&self.key) else {
            return;
        };
        entry.dialling = None;
        let svid = Arc::clone(&self.hop.svid);
        entry.tls = self.tls.clone().map(|tls| (svid, tls));
        match outcome {
            Ok(connection) => {
                entry.failed = None;
                entry.connections.push(Arc::clone(connection));
            }
            Err(error) => entry.failed = Some(Failed::new(Arc::clone(error))),
        }
    }
}

/// Notes that a peer closed a connection before it ever said anything: in TLS 1.3 its verdict on
/// our certificate comes after the handshake, and without the note each connection of the program's
/// would ask for it again.
fn turned_away(pool: &Weak<Shared>, key: Key, error: DialError) {
    if let Some(pool) = pool.upgrade() {
        let mut state = pool.lock();
        let entry = state.entries.entry(key).or_default();
        entry.failed = Some(Failed::new(Arc::new(error)));
    }
}
