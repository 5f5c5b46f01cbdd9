//! What is spoken to a program before its own protocol, once the way to it is open: the PROXY protocol's
//! header, then TLS (`spec/waypoint-l7.md` §3.5). Inside the tunnel, or on the wire where there is none.

mod header;
mod material;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::model::traffic::{ProxyProtocol, TlsOrigination};
pub(super) use material::{Materials, NoMaterial};

/// A way to a program that is more than bytes of its own.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What is to be spoken inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Alpn {
    /// Nobody is asked.
    None,
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
}

/// TLS to a program: how, and by what name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Secured {
    pub(super) origination: TlsOrigination,
    /// The name asked for.
    pub(super) server_name: Arc<str>,
    pub(super) alpn: Alpn,
}

/// Why a program was not proven to be the one meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSecured {
    #[error("{name:?} cannot be asked for by TLS")]
    Name { name: Arc<str> },
    #[error(transparent)]
    Material(#[from] NoMaterial),
    #[error("the program at {to} is not secured")]
    Handshake { to: SocketAddr, source: io::Error },
}

impl Secured {
    /// Begins TLS with the program at `to`.
    pub(super) async fn begin(
        &self,
        materials: &Materials,
        stream: Box<dyn Stream>,
        to: SocketAddr,
    ) -> Result<Box<dyn Stream>, NotSecured> {
        let name = ServerName::try_from(self.server_name.to_string());
        let name = name.map_err(|_illegal| NotSecured::Name {
            name: Arc::clone(&self.server_name),
        })?;
        let config = materials.config(&self.origination, self.alpn).await?;
        let shaken = TlsConnector::from(config).connect(name, stream).await;
        let secured = shaken.map_err(|source| NotSecured::Handshake { to, source })?;
        Ok(Box::new(secured))
    }
}

/// Tells the program at the other end of a way whose connection it carries.
pub(super) async fn introduce(
    stream: &mut (impl AsyncWrite + Unpin),
    version: ProxyProtocol,
    client: SocketAddr,
    asked: SocketAddr,
) -> io::Result<()> {
    let header = header::header(version, client, asked);
    stream.write_all(&header).await?;
    stream.flush().await
}
