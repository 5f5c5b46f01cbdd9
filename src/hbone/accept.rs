//! Accepts tunnels: the server's end of HBONE.

mod refusal;
mod request;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, StatusCode};
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Limits;
use super::liveness::{self, Heard, Watched};
use super::stream::{self, Turn};
use crate::clock;
use crate::identity::SpiffeId;
use crate::tls::{self, CertificateKey, ServerSide, Trust, peer_identity};

pub use refusal::AcceptError;
pub(super) use request::Asked;
pub use request::{Incoming, Refusal};

/// Handshakes under way at once in this process (`spec/reliability.md` §2b).
pub(super) static HANDSHAKES: Semaphore = Semaphore::const_new(512);
/// Header list we take from a client, decoded (§1.2, `spec/reliability.md` §2 row 5).
const HEADER_LIST: u32 = 64 << 10;
/// Streams a peer may reset before we have looked at them (`spec/reliability.md` §2 row 1).
const PENDING_RESETS: usize = 20;
/// Resets a peer may provoke by breaking the protocol, over the connection's life (row 2).
const LOCAL_RESETS: usize = 200;
/// Bytes of one stream that wait for the network before their sender is held back (§1.2).
const SEND_BUFFER: usize = 400 << 10;

/// Decides what becomes of each tunnel asked for.
pub trait Handler: Send + Sync + 'static {
    /// What answers another method than CONNECT (§1.4).
    const NO_CONNECT: StatusCode = StatusCode::BAD_REQUEST;

    /// Serves one request to its end. Dropping the future resets the tunnel.
    fn handle(self: Arc<Self>, request: Incoming) -> impl Future<Output = ()> + Send + 'static;
}

/// Serves one accepted TCP connection: TLS, HTTP/2, then each CONNECT by `handler`. Returns when
/// the connection and its handlers have ended. After `shutdown` it takes no new tunnels (GOAWAY)
/// and ends with the last; how long that may take is for the caller to bound.
///
/// # Errors
/// [`AcceptError`], naming why the peer was turned away. A connection that has carried tunnels and
/// then breaks is no error: its tunnels' relays tell.
///
/// # Cancel safety
/// Dropping the future resets every tunnel of the connection.
pub async fn serve<H: Handler>(
    tcp: TcpStream,
    remote: SocketAddr,
    tls: Arc<ServerSide>,
    limits: &Limits,
    handler: Arc<H>,
    shutdown: CancellationToken,
) -> Result<(), AcceptError> {
    let deadline = Instant::now() + limits.handshake;
    let opening = async {
        // Held by those who have proven nothing yet; the others wait, up to the same deadline.
        let _turn = HANDSHAKES.acquire().await;
        open(tcp, Arc::clone(&tls.config), limits).await
    };
    let opening = tokio::time::timeout_at(deadline, opening);
    let opened = tokio::select! {
        biased;
        // Nothing has been promised yet, so there is nothing to wait for.
        () = shutdown.cancelled() => return Ok(()),
        opened = opening => opened,
    };
    let opened = opened.map_err(|_elapsed| AcceptError::Timeout)??;
    let peer = opened.peer.clone();
    let served = Served {
        connection: opened.connection,
        turn: opened.turn,
        peer: opened.peer,
        remote,
        handler,
        requests: JoinSet::new(),
        phase: Phase::Waiting(deadline),
    };
    let revoked = tls.trust.revoked(opened.key);
    let expired = ended(opened.expires, &tls.trust);
    let theirs = peer.as_ref().map(SpiffeId::trust_domain);
    let disowned = tls.trust.disowned(theirs, &tls.trust_domain);
    tokio::select! {
        ended = served.run(opened.heard, expired, limits, shutdown) => ended,
        // Dropping what is served resets its tunnels.
        () = revoked => Err(AcceptError::Cut { peer }),
        () = disowned => Err(AcceptError::Cut { peer: peer.clone() }),
    }
}

type Http2 = Connection<Watched<stream::Server>, Bytes>;

/// A connection whose handshakes have passed.
struct Opened {
    connection: Http2,
    turn: Turn<UnbufferedServerConnection>,
    heard: Arc<Heard>,
    peer: Option<SpiffeId>,
    key: Option<CertificateKey>,
    expires: Option<SystemTime>,
}

async fn open(
    tcp: TcpStream,
    tls: Arc<ServerConfig>,
    limits: &Limits,
) -> Result<Opened, AcceptError> {
    let stream = stream::accept(tcp, tls).await;
    let stream = stream.map_err(AcceptError::of_handshake)?;
    let leaf = stream.peer_certificate();
    let leaf = leaf.as_ref();
    let peer = leaf.and_then(peer_identity);
    let key = leaf.and_then(CertificateKey::of);
    let expires = leaf.and_then(tls::not_after);
    let turn = stream.turn();
    let (stream, heard) = Watched::new(stream);
    let http2 = builder(limits).handshake(stream).await;
    let connection = http2.map_err(|source| AcceptError::Http2 { source })?;
    turn.begin();
    Ok(Opened {
        connection,
        turn,
        heard,
        peer,
        key,
        expires,
    })
}

fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame)
        .enable_connect_protocol()
        .max_header_list_size(HEADER_LIST)
        .max_concurrent_streams(limits.streams_in)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS))
        .max_concurrent_reset_streams(limits.resets_kept)
        .reset_stream_duration(limits.reset_memory);
    builder
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No CONNECT yet, and one is due by then.
    Waiting(Instant),
    /// Takes tunnels.
    Open,
    /// Lets the open ones finish.
    Closing,
}

struct Served<H> {
    connection: Http2,
    turn: Turn<UnbufferedServerConnection>,
    peer: Option<SpiffeId>,
    remote: SocketAddr,
    handler: Arc<H>,
    requests: JoinSet<()>,
    phase: Phase,
}

impl<H: Handler> Served<H> {
    async fn run(
        mut self,
        heard: Arc<Heard>,
        expired: impl Future<Output = ()>,
        limits: &Limits,
        shutdown: CancellationToken,
    ) -> Result<(), AcceptError> {
        let ping = self.connection.ping_pong();
        let silent = liveness::silent(ping, heard, limits.ping_after, limits.ping_timeout);
        let idle = tokio::time::sleep(limits.idle_in);
        tokio::pin!(silent, expired, idle);
        let outcome = loop {
            let closing = self.phase == Phase::Closing;
            tokio::select! {
                Some(done) = self.requests.join_next() => {
                    report(done);
                    idle.as_mut().reset(Instant::now() + limits.idle_in);
                }
                accepted = accepted(&mut self.connection, &self.turn) => match accepted {
                    None => break Ok(()),
                    Some(Err(source)) => break self.broke(source),
                    Some(Ok((request, respond))) => self.take(request, respond, limits),
                },
                () = self.phase.overdue() => break Err(AcceptError::Timeout),
                () = &mut silent => {
                    debug!(src.addr = %self.remote, "tunnel connection is silent, closed");
                    break Ok(());
                }
                // These tell the peer to open no more here and let what is open finish.
                () = shutdown.cancelled(), if !closing => self.close(),
                () = &mut expired, if !closing => self.close(),
                () = &mut idle, if !closing && self.requests.is_empty() => self.close(),
            }
        };
        // Its end is what tells the relays, each of which then says so where it is logged.
        drop(self.connection);
        while let Some(done) = self.requests.join_next().await {
            report(done);
        }
        outcome
    }

    fn close(&mut self) {
        self.phase = Phase::Closing;
        self.connection.graceful_shutdown();
    }

    /// Whether a broken connection is news to anybody but its tunnels.
    fn broke(&self, source: h2::Error) -> Result<(), AcceptError> {
        let barren = matches!(self.phase, Phase::Waiting(_));
        if barren || source.is_library() {
            return Err(AcceptError::Http2 { source });
        }
        debug!(src.addr = %self.remote, error = %source, "tunnel connection ended");
        Ok(())
    }

    fn take(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        limits: &Limits,
    ) {
        if matches!(self.phase, Phase::Waiting(_)) {
            self.phase = Phase::Open;
        }
        // A peer may reset what it opened and open anew, while we still connect for the first.
        if self.requests.len() >= limits.streams_in as usize {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let (authority, carries) = match request::target(&request) {
            Ok(asked) => asked,
            Err(refusal) => {
                debug!(src.addr = %self.remote, ?refusal, "request is no CONNECT to a target");
                let status = match refusal {
                    Refusal::Method => H::NO_CONNECT,
                    Refusal::Authority | Refusal::Ended | Refusal::Headers => {
                        StatusCode::BAD_REQUEST
                    }
                };
                return request::refuse(&mut respond, status);
            }
        };
        let (parts, body) = request.into_parts();
        let asked = Asked {
            authority,
            headers: parts.headers,
            carries,
        };
        let incoming = Incoming::http2(self.peer.clone(), self.remote, asked, (respond, body));
        let handler = Arc::clone(&self.handler);
        self.requests.spawn(handler.handle(incoming));
    }
}

/// The next request; drives the connection while it waits.
async fn accepted(
    connection: &mut Http2,
    turn: &Turn<UnbufferedServerConnection>,
) -> Option<Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>> {
    poll_fn(|cx| {
        let accepted = connection.poll_accept(cx);
        let _moved = turn.end(cx);
        accepted
    })
    .await
}

impl Phase {
    async fn overdue(self) {
        match self {
            Self::Waiting(deadline) => tokio::time::sleep_until(deadline).await,
            Self::Open | Self::Closing => std::future::pending().await,
        }
    }
}

pub(super) fn report(done: Result<(), JoinError>) {
    if let Err(failed) = done {
        warn!(error = %failed, "a tunnel's task died");
    }
}

/// Pends until the end of a certificate and of the grace there is after it, for ever without one.
pub(super) async fn ended(not_after: Option<SystemTime>, trust: &Trust) {
    /// A timer cannot see the wall clock being set, nor the grace, so it looks again now and then.
    const LOOK: Duration = Duration::from_secs(60);
    let Some(not_after) = not_after else {
        return std::future::pending().await;
    };
    let left = || {
        let until = trust.grace().extends(not_after);
        until.duration_since(clock::now())
    };
    while let Ok(left) = left() {
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
