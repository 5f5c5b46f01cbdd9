//! Accepts tunnels: the server's end of HBONE.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::liveness::{self, Watched};
use super::{Authority, Limits, Tunnel, TunnelError, headers};
use crate::identity::SpiffeId;
use crate::tls::{self, PeerRefused, peer_identity};

/// Header list we take from a client (§1.2).
const HEADER_LIST: u32 = 64 << 10;
/// Streams a peer may reset before we have looked at them (`spec/reliability.md` §2 row 1).
const PENDING_RESETS: usize = 20;
/// Resets a peer may make us send before the connection is closed (row 2).
const LOCAL_RESETS: usize = 200;
/// Bytes of one stream that wait for the network before their sender is held back (§1.2).
const SEND_BUFFER: usize = 400 << 10;

/// Why a connection on the HBONE port came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The peer presented no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The peer's certificate is sound but not of anyone let in here.
    #[error(transparent)]
    Peer(PeerRefused),
    /// The peer's certificate is not.
    #[error("the peer's certificate is refused")]
    Certificate {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// The handshake failed otherwise: an old TLS version, no common protocol.
    #[error("TLS handshake failed")]
    Tls {
        /// What the TLS stack said.
        #[source]
        source: io::Error,
    },
    /// No tunnel was asked for in time.
    #[error("no handshake and CONNECT within the deadline")]
    Timeout,
    /// HTTP/2 broke.
    #[error("HTTP/2 failed")]
    Http2 {
        /// What it said.
        #[source]
        source: h2::Error,
    },
}

impl AcceptError {
    fn of_handshake(source: io::Error) -> Self {
        let inner = source
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(error) => match (PeerRefused::of(error), error) {
                (Some(refused), _) => Self::Peer(refused.clone()),
                (None, rustls::Error::InvalidCertificate(_)) => Self::Certificate {
                    source: error.clone(),
                },
                _ => Self::Tls { source },
            },
            None => Self::Tls { source },
        }
    }
}

/// Decides what becomes of each tunnel asked for.
pub trait Handler: Send + Sync + 'static {
    /// Serves one request to its end. Dropping the future resets the tunnel.
    fn handle(&self, request: Incoming) -> impl Future<Output = ()> + Send;
}

/// A request for a tunnel, not yet answered. Dropping it refuses with a reset.
pub struct Incoming {
    /// Who the peer proved to be.
    pub peer: Option<SpiffeId>,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Where the tunnel shall end.
    pub authority: Authority,
    /// The request's headers.
    pub headers: HeaderMap,
    respond: SendResponse<Bytes>,
    body: RecvStream,
}

/// Why a request is not well formed; answered before any handler sees it (§1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another method than CONNECT.
    Method,
    /// No target, or one that does not read.
    Authority,
}

impl Incoming {
    /// Opens the tunnel, telling the destination workload for telemetry.
    ///
    /// # Errors
    /// When the peer has gone in the meantime.
    pub fn accept(mut self, baggage: &str) -> Result<Tunnel, TunnelError> {
        let mut response = Response::new(());
        let map = response.headers_mut();
        map.insert(headers::BAGGAGE, headers::value(baggage));
        let stream = self.respond.send_response(response, false);
        let stream = stream.map_err(|source| TunnelError::Reset { source })?;
        Ok(Tunnel::new(stream, self.body, None))
    }

    /// Says no.
    pub fn refuse(mut self, status: StatusCode) {
        refuse(&mut self.respond, status);
    }
}

fn refuse(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // A peer that has gone needs no answer.
    let _gone = respond.send_response(response, true);
}

/// Serves one accepted TCP connection: TLS, HTTP/2, then each CONNECT by `handler`. Returns when
/// the connection has ended; after `shutdown` it takes no new tunnels and ends with the last.
///
/// # Errors
/// [`AcceptError`], naming why the peer was turned away.
///
/// # Cancel safety
/// Dropping the future resets every tunnel of the connection.
pub async fn serve<H: Handler>(
    tcp: TcpStream,
    remote: SocketAddr,
    tls: Arc<ServerConfig>,
    limits: &Limits,
    handler: Arc<H>,
    shutdown: CancellationToken,
) -> Result<(), AcceptError> {
    let deadline = tokio::time::Instant::now() + limits.handshake;
    let stream = tokio::time::timeout_at(deadline, TlsAcceptor::from(tls).accept(tcp));
    let stream = match stream.await {
        Ok(accepted) => accepted.map_err(AcceptError::of_handshake)?,
        Err(_elapsed) => return Err(AcceptError::Timeout),
    };
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let peer = leaf.and_then(peer_identity);
    let expires = leaf.and_then(tls::not_after);
    let (stream, heard) = Watched::new(stream);
    let mut connection = builder(limits)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|source| AcceptError::Http2 { source })?;
    let ping = connection.ping_pong();
    let served = Served {
        connection,
        peer,
        remote,
        handler,
        requests: JoinSet::new(),
    };
    tokio::select! {
        outcome = served.run(deadline, expires, shutdown) => outcome,
        () = liveness::silent(ping, heard, limits.ping_after, limits.ping_timeout) => {
            debug!(src.addr = %remote, "tunnel connection is silent, closed");
            Ok(())
        }
    }
}

fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame)
        .max_header_list_size(HEADER_LIST)
        .max_concurrent_streams(limits.streams_in)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS));
    builder
}

struct Served<H> {
    connection: h2::server::Connection<Watched<TlsStream<TcpStream>>, Bytes>,
    peer: Option<SpiffeId>,
    remote: SocketAddr,
    handler: Arc<H>,
    requests: JoinSet<()>,
}

impl<H: Handler> Served<H> {
    async fn run(
        mut self,
        first_by: tokio::time::Instant,
        expires: Option<SystemTime>,
        shutdown: CancellationToken,
    ) -> Result<(), AcceptError> {
        let mut first = true;
        let mut closing = false;
        let expired = until(expires);
        tokio::pin!(expired);
        let outcome = loop {
            tokio::select! {
                accepted = self.connection.accept() => match accepted {
                    None => break Ok(()),
                    Some(Err(source)) => break Err(AcceptError::Http2 { source }),
                    Some(Ok((request, respond))) => {
                        first = false;
                        self.dispatch(request, respond);
                    }
                },
                Some(done) = self.requests.join_next() => if let Err(failed) = done {
                    warn!(error = %failed, "a tunnel's task died");
                },
                () = tokio::time::sleep_until(first_by), if first => break Err(AcceptError::Timeout),
                // Both tell the peer to open no more here and let what is open finish.
                () = shutdown.cancelled(), if !closing => {
                    closing = true;
                    first = false;
                    self.connection.graceful_shutdown();
                }
                () = &mut expired, if !closing => {
                    closing = true;
                    self.connection.graceful_shutdown();
                }
            }
        };
        // Without the connection every tunnel that is left sees a reset, and ends with that reason.
        drop(self.connection);
        while self.requests.join_next().await.is_some() {}
        outcome
    }

    fn dispatch(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let authority = match target(&request) {
            Ok(authority) => authority,
            Err(refusal) => {
                debug!(src.addr = %self.remote, ?refusal, "request is no CONNECT to a target");
                return refuse(&mut respond, StatusCode::BAD_REQUEST);
            }
        };
        let (parts, body) = request.into_parts();
        let incoming = Incoming {
            peer: self.peer.clone(),
            remote: self.remote,
            authority,
            headers: parts.headers,
            respond,
            body,
        };
        let handler = Arc::clone(&self.handler);
        self.requests
            .spawn(async move { handler.handle(incoming).await });
    }
}

/// Pends until a moment of the wall clock, for ever without one.
async fn until(moment: Option<SystemTime>) {
    /// A timer cannot see the wall clock being set, so it looks again now and then.
    const LOOK: Duration = Duration::from_secs(60);
    let Some(moment) = moment else {
        return std::future::pending().await;
    };
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

fn target(request: &Request<RecvStream>) -> Result<Authority, Refusal> {
    if request.method() != Method::CONNECT {
        return Err(Refusal::Method);
    }
    // The authority component itself, never a URI put together again (§1.3).
    let authority = request.uri().authority().ok_or(Refusal::Authority)?;
    let read = authority.as_str().parse();
    read.map_err(|_unreadable| Refusal::Authority)
}
