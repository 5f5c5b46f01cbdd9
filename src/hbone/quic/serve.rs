//! The server's end: as [`crate::hbone::serve`], of connections that come by QUIC.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Method, StatusCode};
use quinn::crypto::rustls::QuicServerConfig;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Ways;
use super::dial::leaf;
use crate::h3::{self, Code};
use crate::hbone::accept::{Asked, HANDSHAKES, ended, report};
use crate::hbone::{AcceptError, Carries, Handler, Incoming, Limits, Refusal, masque};
use crate::identity::SpiffeId;
use crate::tls::{self, CertificateKey, ServerSide, peer_identity};

/// Handshakes under way from which peers must prove their address before any work is done for them
/// (`spec/hbone-dataplane.md` §11.1); nobody is sent more than three times what he sent before.
const UNPROVEN: usize = 256;

/// A connection of a peer's that has just come.
pub struct Arrival {
    incoming: quinn::Incoming,
    ways: Arc<Ways>,
}

impl Arrival {
    pub(super) fn new(incoming: quinn::Incoming, ways: Arc<Ways>) -> Self {
        Self { incoming, ways }
    }

    /// Has the peer prove that it is where it says, where there is so much to do that the work must not be
    /// for nobody; `None` then, and it comes again.
    pub(super) fn proven(self) -> Option<Self> {
        let crowded = HANDSHAKES.available_permits() < UNPROVEN;
        if !crowded || self.incoming.remote_address_validated() || !self.incoming.may_retry() {
            return Some(self);
        }
        // Only fails where the peer has proven it.
        let _asked = self.incoming.retry();
        None
    }

    /// Where the peer is now.
    pub fn remote(&self) -> SocketAddr {
        canonical(self.incoming.remote_address())
    }

    /// The address that it called; unknown where the kernel does not tell.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.incoming.local_ip().map(|ip| ip.to_canonical())
    }

    /// Says no to whoever it is.
    pub fn refuse(self) {
        self.incoming.refuse();
    }

    async fn open(self, tls: &ServerSide, roaming: bool) -> Result<quinn::Connection, AcceptError> {
        let (config, verdict) = tls.quic().map_err(AcceptError::Settings)?;
        let config = QuicServerConfig::try_from(config);
        let config = config.map_err(|source| AcceptError::QuicSettings { source })?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(config));
        // QUIC takes a peer's word for where it is until it has proven it: where policies look at that,
        // none may move.
        let transport = self.ways.transport(self.incoming.remote_address());
        config.migration(roaming).transport_config(transport);
        let opened = async { self.incoming.accept_with(Arc::new(config))?.await };
        opened.await.map_err(|source| match verdict.refusal() {
            Some(refusal) => AcceptError::of_tls(refusal.clone()),
            None => AcceptError::Quic { source },
        })
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Serves one connection that came by QUIC, as [`crate::hbone::serve`] does one of TCP: its handshake, then each
/// CONNECT by `handler`. After `shutdown` it takes no new tunnels (GOAWAY) and ends with the last.
///
/// # Errors
/// [`AcceptError`], naming why the peer was turned away. A connection that breaks later is no error: its
/// tunnels' relays tell.
///
/// # Cancel safety
/// Dropping the future resets every tunnel of the connection.
pub async fn serve_quic<H: Handler>(
    arrival: Arrival,
    tls: Arc<ServerSide>,
    limits: &Limits,
    handler: Arc<H>,
    shutdown: CancellationToken,
) -> Result<(), AcceptError> {
    let opening = async {
        // Held by those who have proven nothing yet; the others wait, up to the same deadline.
        let _turn = HANDSHAKES.acquire().await;
        arrival.open(&tls, limits.quic.roaming).await
    };
    let opening = tokio::time::timeout(limits.handshake, opening);
    let quic = tokio::select! {
        biased;
        // Nothing has been promised yet, so there is nothing to wait for.
        () = shutdown.cancelled() => return Ok(()),
        opened = opening => opened.map_err(|_elapsed| AcceptError::Timeout)??,
    };
    let leaf = leaf(&quic);
    let leaf = leaf.as_ref();
    let peer = leaf.and_then(peer_identity);
    let revoked = tls.trust.revoked(leaf.and_then(CertificateKey::of));
    let expired = ended(leaf.and_then(tls::not_after), &tls.trust);
    let disowned = tls
        .trust
        .disowned(peer.as_ref().map(SpiffeId::trust_domain), &tls.trust_domain);
    let served = Served {
        quic,
        peer: peer.clone(),
        handler,
        requests: JoinSet::new(),
    };
    tokio::select! {
        () = served.run(expired, limits, shutdown) => Ok(()),
        // Dropping what is served resets its tunnels.
        () = revoked => Err(AcceptError::Cut { peer: peer.clone() }),
        () = disowned => Err(AcceptError::Cut { peer: peer.clone() }),
    }
}

struct Served<H> {
    quic: quinn::Connection,
    peer: Option<SpiffeId>,
    handler: Arc<H>,
    requests: JoinSet<()>,
}

impl<H: Handler> Served<H> {
    async fn run(
        mut self,
        expired: impl Future<Output = ()>,
        limits: &Limits,
        shutdown: CancellationToken,
    ) {
        let (server, driver) = h3::server(self.quic.clone(), h3::Config::default());
        let driving = driver.run();
        let idle = tokio::time::sleep(limits.idle_in);
        let leaving = CancellationToken::new();
        tokio::pin!(driving, expired, idle);
        loop {
            let closing = leaving.is_cancelled();
            tokio::select! {
                Some(done) = self.requests.join_next() => {
                    report(done);
                    idle.as_mut().reset(Instant::now() + limits.idle_in);
                }
                // Over, in order or not: what is open tells of it where it is logged.
                ended = &mut driving => {
                    if let Err(error) = ended {
                        let remote = canonical(self.quic.remote_address());
                        debug!(src.addr = %remote, %error, "tunnel connection ended");
                    }
                    break;
                }
                Ok(request) = server.accept() => self.take(request, limits),
                // These tell the peer to open no more here and let what is open finish.
                () = shutdown.cancelled(), if !closing => leaving.cancel(),
                () = &mut expired, if !closing => leaving.cancel(),
                () = &mut idle, if !closing && self.requests.is_empty() => leaving.cancel(),
            }
            if leaving.is_cancelled() && !closing {
                server.leave();
            }
        }
        while let Some(done) = self.requests.join_next().await {
            report(done);
        }
    }

    fn take(&mut self, request: h3::Incoming, limits: &Limits) {
        let remote = canonical(self.quic.remote_address());
        let (peer, handler) = (self.peer.clone(), Arc::clone(&self.handler));
        let roams = limits.quic.roaming;
        let (patience, room) = (
            limits.response,
            self.requests.len() < limits.streams_in as usize,
        );
        self.requests.spawn(async move {
            let early = request.is_early();
            let Ok(Ok((head, responder))) = tokio::time::timeout(patience, request.request()).await
            else {
                debug!(src.addr = %remote, "a request came to nothing before its end");
                return;
            };
            if !room {
                return responder.reset(Code::REQUEST_REJECTED);
            }
            let asked = match early {
                true => Err(StatusCode::TOO_EARLY),
                false => asked::<H>(head).map_err(|(refusal, status)| {
                    debug!(src.addr = %remote, ?refusal, "request is no CONNECT to a target");
                    status
                }),
            };
            match asked {
                Ok(asked) => {
                    handler
                        .handle(Incoming::http3(peer, (remote, roams), asked, responder))
                        .await
                }
                Err(status) => responder.refuse(&h3::Response::new(status)),
            }
        });
    }
}

/// What a well-formed request asks for.
fn asked<H: Handler>(head: h3::Request) -> Result<Asked, (Refusal, StatusCode)> {
    if head.method != Method::CONNECT {
        return Err((Refusal::Method, H::NO_CONNECT));
    }
    let (authority, carries) = match head.protocol.as_deref() {
        None => (
            head.authority.and_then(|to| to.parse().ok()),
            Carries::Bytes,
        ),
        Some(masque::PROTOCOL) => {
            let target = head.path.as_deref().and_then(masque::target);
            (target, Carries::Datagrams)
        }
        Some(_unknown) => return Err((Refusal::Method, H::NO_CONNECT)),
    };
    let authority = authority.ok_or((Refusal::Authority, StatusCode::BAD_REQUEST))?;
    Ok(Asked {
        authority,
        headers: head.headers,
        carries,
    })
}
