//! HBONE over QUIC (`spec/hbone-dataplane.md` §11.1): one UDP socket for both roles.

mod dial;
mod links;
mod near;
mod paths;
mod pieces;
mod reset;
mod serve;
mod settings;
mod turns;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::Limits;
use crate::h3;

pub use links::Links;
pub use reset::ResetKey;
pub use serve::{Arrival, serve_quic};
pub use settings::Congestion;

pub(super) use dial::dial;
use paths::Paths;
use turns::ByTurns;

/// A connection whose handshakes have passed and whose peer has taken our certificate, not driven yet.
pub(super) struct Http3Line {
    pub(super) client: h3::Client,
    pub(super) quic: quinn::Connection,
    /// To be run for as long as the connection shall last.
    pub(super) driving: BoxFuture<'static, Result<(), h3::Ended>>,
}

/// Why QUIC came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// This proxy has no socket for it.
    #[error("this proxy has no UDP socket for tunnels")]
    NoSocket,
    /// The TLS stack will not have the settings.
    #[error("the TLS settings do not do for QUIC")]
    Settings(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// It could not be begun.
    #[error("the connection could not be begun")]
    Begin(#[from] quinn::ConnectError),
    /// The handshake failed.
    #[error("the handshake failed")]
    Handshake(#[from] quinn::ConnectionError),
    /// HTTP/3 ended before it began.
    #[error("HTTP/3 did not begin")]
    Http3(#[from] h3::Ended),
}

impl QuicError {
    /// Whether TLS within it failed, at either end (RFC 9001 §4.8).
    pub(super) fn is_of_tls(&self) -> bool {
        let source = match self {
            Self::Settings(_) => return true,
            Self::Handshake(source) | Self::Http3(h3::Ended::Lost(source)) => source,
            Self::NoSocket | Self::Begin(_) | Self::Http3(_) => return false,
        };
        let code = match source {
            quinn::ConnectionError::TransportError(error) => error.code,
            quinn::ConnectionError::ConnectionClosed(close) => close.error_code,
            _ => return false,
        };
        ALERTS.contains(&u64::from(code))
    }
}

/// TLS alerts as codes of QUIC.
const ALERTS: RangeInclusive<u64> = 0x100..=0x1ff;

/// What a host says of QUIC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quic {
    /// How it finds out how much a path takes.
    pub congestion: Congestion,
    /// The secret by which a process that comes after this one can end its connections; nobody's unless
    /// told.
    pub reset: ResetKey,
    /// Whether peers that proved who they are are followed where their address changes
    /// (RFC 9000 §9). Policies cannot look at the address of such.
    pub roaming: bool,
}

/// Where QUIC comes and goes in one network: clones are the same.
#[derive(Clone)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    ways: Arc<Ways>,
    paths: Arc<Paths>,
}

/// How connections are set, by where they go.
struct Ways {
    limits: Limits,
    links: Links,
}

impl Ways {
    fn transport(&self, to: SocketAddr) -> Arc<quinn::TransportConfig> {
        let longest = self.links.longest(to);
        Arc::new(settings::transport(&self.limits, longest))
    }
}

impl Endpoint {
    /// Speaks QUIC by `socket`, which does not block, in a network of that name and those links. Packets are read
    /// on the runtime this is called on; each connection lives where it is dialled or served.
    ///
    /// # Errors
    /// When the socket is of no use.
    pub fn new(
        socket: UdpSocket,
        links: Links,
        network: &str,
        limits: &Limits,
    ) -> io::Result<Self> {
        let quic = quinn::Endpoint::new(
            settings::endpoint(network, limits.quic.reset)?,
            Some(settings::nobody()?),
            socket,
            Arc::new(ByTurns),
        )?;
        let limits = limits.clone();
        Ok(Self {
            quic,
            ways: Arc::new(Ways { limits, links }),
            paths: Arc::default(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is of no use any more.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// The next connection of a peer's, of whom nothing is known yet; `None` once it is closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn accept(&self) -> Option<Arrival> {
        loop {
            let incoming = self.quic.accept().await?;
            let arrival = Arrival::new(incoming, Arc::clone(&self.ways));
            if let Some(arrival) = arrival.proven() {
                return Some(arrival);
            }
        }
    }

    /// Which peers it reaches.
    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Takes no more connections of peers; those that there are go on.
    pub fn accept_no_more(&self) {
        self.quic.set_server_config(None);
    }

    /// Closes every connection there is, of either role, and takes no more. What was said last still leaves
    /// while [`Endpoint::idle`] waits.
    pub fn close(&self) {
        self.quic.close(quinn::VarInt::from_u32(NO_ERROR), b"");
    }

    /// Lets go of its port, for another to take: what lingers of its connections says nothing from now on.
    ///
    /// # Errors
    /// When there are no sockets; it has its port until its connections are over then.
    pub fn release(&self) -> io::Result<()> {
        // The socket of before is heard until something comes at the new one, where nothing will.
        for _of_before in 0..2 {
            self.quic
                .rebind(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?)?;
        }
        Ok(())
    }

    /// Waits until the peers know of all that ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn idle(&self) {
        self.quic.wait_idle().await;
    }
}

/// `H3_NO_ERROR` (RFC 9114 §8.1).
const NO_ERROR: u32 = 0x100;

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint")
    }
}
