//! The control plane's port: accepts, does the TLS handshake aside, and hands tonic connections
//! that know who called (`spec/control-plane.md` §1.2).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tracing::{debug, info, warn};

use super::caller::Caller;
use crate::causes::chain;
use crate::tls::{CertificateKey, PeerRefused, peer_identity, spki_sha256, validity_of};

/// Longest TLS handshake (`spec/reliability.md` §2b).
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at once; above it, connections wait in the kernel's queue.
const HANDSHAKES: usize = 512;
/// Connections ready for tonic; when full, finished handshakes wait.
pub(super) const READY: usize = 64;
/// Pause after a failed accept, so that running out of descriptors does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection whose handshake has passed.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts until `shutdown`. `tls` is read anew for each connection, so that a renewed certificate
/// serves the next one.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    ready: mpsc::Sender<io::Result<Connection>>,
    shutdown: CancellationToken,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_done) = handshakes.join_next() => {}
            accepted = listener.accept(), if handshakes.len() < HANDSHAKES => match accepted {
                Ok((stream, peer)) => {
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    let acceptor = TlsAcceptor::from(tls.load_full());
                    handshakes.spawn(handshake(acceptor, stream, peer, ready.clone()));
                }
                Err(e) => {
                    warn!(error = %e, "cannot accept, pausing");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    if let Err(e) = stream.set_nodelay(true) {
        debug!(src.addr = %peer, error = %e, "no TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return refused(peer, &e),
        Err(_elapsed) => {
            info!(src.addr = %peer, "handshake too slow, connection closed");
            return;
        }
    };
    let caller = {
        let (_io, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let identity = leaf.and_then(peer_identity);
        let spki = leaf.and_then(|l| spki_sha256(l).ok());
        let mut caller = Caller::new(identity.as_ref(), spki, peer);
        caller.certificate = leaf.and_then(CertificateKey::of);
        if let Some((made, end)) = leaf.and_then(validity_of) {
            caller.made = Some(made);
            caller.until(end);
        }
        caller
    };
    // A closed channel means that the server has stopped; the connection goes with it.
    let _stopped = ready.send(Ok(Connection { stream, caller })).await;
}

fn refused(peer: SocketAddr, error: &io::Error) {
    let tls = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    let reason = match tls.and_then(PeerRefused::of) {
        Some(refused) => refused.to_string(),
        None => chain(error),
    };
    info!(src.addr = %peer, error = reason, "connection to the control plane refused");
}
