//! Dials a peer and asks it for a target: the client's end of HBONE.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{Method, Request, StatusCode, Uri, uri};
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::liveness::{Heard, Watched};
use super::stream::{self, Turn};
use super::{Authority, Limits, headers};
use crate::clock;
use crate::identity::SpiffeId;
use crate::tls::{self, CertificateKey, PeerRefused, Svid, TlsError, Trust, peer_identity};

/// Header list we take from a server (§1.2).
const HEADER_LIST: u32 = 16 << 10;

/// How a TCP connection to a next hop is made: which namespace, which marks. Without a deadline of
/// its own it is cut off by the dial's.
pub trait Connector: Send + Sync + 'static {
    /// Connects to `to`.
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

/// A peer to reach, as whom, and who it must prove to be.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Where it listens.
    pub to: SocketAddr,
    /// The certificate we present.
    pub svid: Arc<Svid>,
    /// The identities it may have; empty accepts nobody.
    pub accepted: Arc<BTreeSet<SpiffeId>>,
    /// The name that tells it who is meant, where several share its address. One that is no DNS name
    /// cannot be told.
    pub name: Option<Arc<str>>,
}

impl Hop {
    /// What TLS calls it. An address is never sent (§1.1).
    fn server_name(&self) -> ServerName<'static> {
        let named = self.name.as_deref().map(str::to_owned);
        let named = named.and_then(|name| ServerName::try_from(name).ok());
        named.unwrap_or_else(|| ServerName::IpAddress(self.to.ip().into()))
    }
}

/// What a CONNECT asks and tells.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// Where the tunnel shall end.
    pub authority: Authority,
    /// The client workload, for telemetry.
    pub baggage: String,
    /// The client's address and the service it addressed.
    pub forwarded: String,
    /// Joins the log lines of both ends.
    pub traceparent: String,
}

/// What a peer answered.
#[derive(Clone, Debug)]
pub struct ConnectResponse {
    /// Who it proved to be.
    pub peer: SpiffeId,
    /// The destination workload, for telemetry.
    pub baggage: headers::Baggage,
}

/// Why no connection to a peer could be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// TCP failed.
    #[error("cannot connect to {to}")]
    Connect {
        /// The next hop.
        to: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// TCP, TLS and HTTP/2 together took too long.
    #[error("{to} did not complete a handshake in time; a firewall may block port {}", to.port())]
    Timeout {
        /// The next hop.
        to: SocketAddr,
    },
    /// The certificate at hand cannot be used.
    #[error("our own certificate cannot be used")]
    Settings(#[from] TlsError),
    /// The certificate at hand has expired.
    #[error("our own certificate as {id} has expired")]
    Expired {
        /// Who we are.
        id: SpiffeId,
    },
    /// The peer proved to be somebody else.
    #[error("{to} is not who it should be")]
    Identity {
        /// The next hop.
        to: SocketAddr,
        /// Who it is and who was expected.
        #[source]
        source: PeerRefused,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {to} failed")]
    Tls {
        /// The next hop.
        to: SocketAddr,
        /// What the TLS stack said.
        #[source]
        source: io::Error,
    },
    /// The HTTP/2 handshake failed.
    #[error("HTTP/2 handshake with {to} failed")]
    Http2 {
        /// The next hop.
        to: SocketAddr,
        /// What HTTP/2 said.
        #[source]
        source: h2::Error,
    },
    /// The pool has been drained.
    #[error("this proxy is stopping")]
    Stopping,
}

impl DialError {
    /// Whether nobody listens there.
    pub(super) fn is_refusal(&self) -> bool {
        let refused = io::ErrorKind::ConnectionRefused;
        matches!(self, Self::Connect { source, .. } if source.kind() == refused)
    }
}

/// Why no tunnel could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no connection to the peer.
    #[error(transparent)]
    Dial(#[from] Arc<DialError>),
    /// The peer's HTTP/2 failed us.
    #[error("HTTP/2 failed")]
    Http2 {
        /// What it said.
        #[source]
        source: h2::Error,
        /// Whether the request was not processed at all: never sent, or refused unread.
        unprocessed: bool,
    },
    /// The peer did not answer.
    #[error("the peer did not answer the CONNECT in time")]
    Timeout,
    /// The peer said no.
    #[error("the peer answered {status}")]
    Refused {
        /// Its status.
        status: StatusCode,
    },
    /// All connections to the peer are full.
    #[error("too many streams to this peer already")]
    Full,
    /// The target cannot be written as an authority.
    #[error("the target does not fit into a request")]
    Target,
}

impl ConnectError {
    /// Whether another endpoint may be tried: nothing of the program's has been sent, and the
    /// failure is of this peer and not of the request (§1.4).
    pub fn retryable(&self) -> bool {
        match self {
            Self::Dial(dial) => match **dial {
                DialError::Connect { .. }
                | DialError::Timeout { .. }
                | DialError::Identity { .. }
                | DialError::Tls { .. }
                | DialError::Http2 { .. } => true,
                DialError::Settings(_) | DialError::Expired { .. } | DialError::Stopping => false,
            },
            Self::Http2 { unprocessed, .. } => *unprocessed,
            Self::Refused { status } => *status == StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout | Self::Full | Self::Target => false,
        }
    }

    /// Whether the peer said nothing at all for as long as it may: asked again, it would hold up whoever
    /// waits as long again.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Dial(dial) => matches!(**dial, DialError::Timeout { .. }),
            Self::Timeout => true,
            Self::Http2 { .. } | Self::Refused { .. } | Self::Full | Self::Target => false,
        }
    }

    /// The response flag that tells it in metrics (§2.6).
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Dial(dial) => match **dial {
                DialError::Connect { .. } | DialError::Stopping => "CONNECT",
                DialError::Timeout { .. } => "NETWORK_POLICY",
                DialError::Settings(_) | DialError::Expired { .. } => "IDENTITY_ERROR",
                DialError::Identity { .. } | DialError::Tls { .. } => "TLS_FAILURE",
                DialError::Http2 { .. } => "H2_HANDSHAKE_FAILURE",
            },
            Self::Http2 { .. } => "H2_HANDSHAKE_FAILURE",
            Self::Refused { status } if *status == StatusCode::UNAUTHORIZED => "DENY",
            Self::Refused { .. } | Self::Timeout | Self::Full | Self::Target => "CONNECT",
        }
    }
}

pub(super) type Http2 = Connection<Watched<stream::Client>, Bytes>;

/// A connection whose handshakes have passed, not driven yet.
pub(super) struct Dialled {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) connection: Http2,
    pub(super) turn: Turn<UnbufferedClientConnection>,
    pub(super) heard: Arc<Heard>,
    pub(super) peer: SpiffeId,
    /// The certificate by which it proved that.
    pub(super) key: Option<CertificateKey>,
    pub(super) trust: Trust,
    /// When the first of the two certificates expires: no new streams from then on, or from the end
    /// of the grace after it.
    pub(super) retire: SystemTime,
}

/// TLS settings towards a hop.
pub(super) fn settings(hop: &Hop) -> Result<Arc<ClientConfig>, DialError> {
    // The peer would say as much, but later, and to us it would look like its own fault.
    if hop.svid.good_until() <= clock::now() {
        let id = hop.svid.id().clone();
        return Err(DialError::Expired { id });
    }
    Ok(tls::hbone_client(&hop.svid, Arc::clone(&hop.accepted))?)
}

/// Connects to a hop and proves both identities.
pub(super) async fn dial<C: Connector>(
    connector: &C,
    hop: &Hop,
    tls: Arc<ClientConfig>,
    limits: &Limits,
) -> Result<Dialled, DialError> {
    let to = hop.to;
    let attempt = handshake(connector, hop, tls, limits);
    match tokio::time::timeout(limits.handshake, attempt).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(DialError::Timeout { to }),
    }
}

async fn handshake<C: Connector>(
    connector: &C,
    hop: &Hop,
    tls: Arc<ClientConfig>,
    limits: &Limits,
) -> Result<Dialled, DialError> {
    let to = hop.to;
    let tcp = connector.connect(to).await;
    let tcp = tcp.map_err(|source| match source.kind() {
        io::ErrorKind::TimedOut => DialError::Timeout { to },
        _ => DialError::Connect { to, source },
    })?;
    let stream = stream::connect(tcp, hop.server_name(), tls).await;
    let stream = stream.map_err(|source| tls_error(to, source))?;
    let leaf = stream.peer_certificate();
    let leaf = leaf.as_ref();
    let identity = leaf.and_then(peer_identity);
    let peer = identity.ok_or(DialError::Identity {
        to,
        source: PeerRefused::NoIdentity { wanted: "workload" },
    })?;
    let key = leaf.and_then(CertificateKey::of);
    let theirs = leaf.and_then(tls::not_after);
    let ours = hop.svid.not_after();
    let retire = theirs.map_or(ours, |t| t.min(ours));
    let turn = stream.turn();
    let (stream, heard) = Watched::new(stream);
    let http2 = builder(limits).handshake(stream).await;
    let (sender, connection) = http2.map_err(|source| DialError::Http2 { to, source })?;
    turn.begin();
    Ok(Dialled {
        sender,
        connection,
        turn,
        heard,
        peer,
        key,
        trust: hop.svid.trust().clone(),
        retire,
    })
}

fn tls_error(to: SocketAddr, source: io::Error) -> DialError {
    let inner = source.get_ref().and_then(|e| e.downcast_ref());
    match inner.and_then(PeerRefused::of) {
        Some(refused) => DialError::Identity {
            to,
            source: refused.clone(),
        },
        None => DialError::Tls { to, source },
    }
}

fn builder(limits: &Limits) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(limits.send_buffer)
        .initial_max_send_streams(limits.streams_out)
        .max_concurrent_reset_streams(limits.resets_kept)
        .reset_stream_duration(limits.reset_memory)
        .enable_push(false);
    builder
}

/// The CONNECT itself: method and authority only, as RFC 9113 §8.5 has it.
pub(super) fn request(request: &ConnectRequest) -> Result<Request<()>, ConnectError> {
    let authority = request.authority.to_string();
    let authority: uri::Authority = authority.parse().map_err(|_odd| ConnectError::Target)?;
    let mut parts = uri::Parts::default();
    parts.authority = Some(authority);
    let uri = Uri::from_parts(parts).map_err(|_odd| ConnectError::Target)?;
    let mut connect = Request::new(());
    *connect.method_mut() = Method::CONNECT;
    *connect.uri_mut() = uri;
    *connect.version_mut() = http::Version::HTTP_2;
    let map = connect.headers_mut();
    map.insert(headers::BAGGAGE, headers::value(&request.baggage));
    map.insert(headers::FORWARDED, headers::value(&request.forwarded));
    map.insert(headers::TRACEPARENT, headers::value(&request.traceparent));
    Ok(connect)
}

/// Why a CONNECT that was sent has no answer.
pub(super) fn exchange_error(source: h2::Error) -> ConnectError {
    // A GOAWAY reaches only the streams above the last one the peer has taken up (RFC 9113 §6.8).
    let passed_over = source.is_go_away() && source.is_remote();
    let refused = source.reason() == Some(h2::Reason::REFUSED_STREAM);
    ConnectError::Http2 {
        source,
        unprocessed: passed_over || refused,
    }
}
