//! Dials a peer and asks it for a target: the client's end of HBONE.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, uri};
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use super::liveness::{Heard, Watched};
use super::quic::{Http3Line, QuicError};
use super::stream::{self, Turn};
use super::{Authority, Limits, headers, masque};
use crate::clock;
use crate::h3;
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
    /// What may carry the tunnel.
    pub transport: Transport,
}

/// What a tunnel may be carried by (§11.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP/2 over TLS over TCP.
    #[default]
    Tcp,
    /// HTTP/3 over QUIC, nothing else.
    Quic,
    /// QUIC where it works and is worth it, else TCP.
    Auto,
}

impl Hop {
    /// What TLS calls it. An address is never sent (§1.1).
    pub(super) fn server_name(&self) -> ServerName<'static> {
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
    /// What the tunnel is for.
    pub carries: Carries,
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carries {
    /// A connection of TCP.
    #[default]
    Bytes,
    /// Datagrams of UDP between two ends (RFC 9298).
    Datagrams,
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
    /// QUIC, its TLS or HTTP/3 failed.
    #[error("cannot connect to {to} by QUIC")]
    Quic {
        /// The next hop.
        to: SocketAddr,
        /// What it said.
        #[source]
        source: QuicError,
    },
    /// Nothing came back by UDP.
    #[error("{to} did not answer by QUIC in time; a firewall may block port {}/udp", to.port())]
    QuicTimeout {
        /// The next hop.
        to: SocketAddr,
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
    /// The peer's HTTP/3 failed us.
    #[error("HTTP/3 failed")]
    Http3 {
        /// What it said.
        #[source]
        source: h3::RequestError,
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
    /// The peer carries no datagrams.
    #[error("the peer carries no datagrams")]
    NoDatagrams,
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
                | DialError::Http2 { .. }
                | DialError::Quic { .. }
                | DialError::QuicTimeout { .. } => true,
                DialError::Settings(_) | DialError::Expired { .. } | DialError::Stopping => false,
            },
            Self::Http2 { .. } | Self::Http3 { .. } => self.is_unprocessed(),
            Self::Refused { status } => *status == StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout | Self::Full | Self::Target | Self::NoDatagrams => false,
        }
    }

    /// Whether the peer has certainly not looked at the request: it was closing the connection, say, or has
    /// begun anew since.
    pub(super) fn is_unprocessed(&self) -> bool {
        match self {
            Self::Http2 { unprocessed, .. } => *unprocessed,
            Self::Http3 { source } => source.is_unprocessed(),
            _ => false,
        }
    }

    /// Whether the peer said nothing at all for as long as it may: asked again, it would hold up whoever
    /// waits as long again.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Dial(dial) => matches!(
                **dial,
                DialError::Timeout { .. } | DialError::QuicTimeout { .. }
            ),
            Self::Timeout => true,
            Self::Http2 { .. }
            | Self::Http3 { .. }
            | Self::Refused { .. }
            | Self::Full
            | Self::Target
            | Self::NoDatagrams => false,
        }
    }

    /// The response flag that tells it in metrics (§2.6).
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Dial(dial) => match **dial {
                DialError::Connect { .. } | DialError::Stopping => "CONNECT",
                DialError::Timeout { .. } | DialError::QuicTimeout { .. } => "NETWORK_POLICY",
                DialError::Quic { ref source, .. } if source.is_of_tls() => "TLS_FAILURE",
                DialError::Quic { .. } => "QUIC_FAILURE",
                DialError::Settings(_) | DialError::Expired { .. } => "IDENTITY_ERROR",
                DialError::Identity { .. } | DialError::Tls { .. } => "TLS_FAILURE",
                DialError::Http2 { .. } => "H2_HANDSHAKE_FAILURE",
            },
            Self::Http2 { .. } => "H2_HANDSHAKE_FAILURE",
            Self::Http3 { .. } => "QUIC_FAILURE",
            Self::Refused { status } if *status == StatusCode::UNAUTHORIZED => "DENY",
            Self::Refused { .. }
            | Self::Timeout
            | Self::Full
            | Self::Target
            | Self::NoDatagrams => "CONNECT",
        }
    }
}

pub(super) type Http2 = Connection<Watched<stream::Client>, Bytes>;

/// A connection whose handshakes have passed, not driven yet.
pub(super) struct Dialled {
    pub(super) line: Line,
    pub(super) peer: SpiffeId,
    /// The certificate by which it proved that.
    pub(super) key: Option<CertificateKey>,
    pub(super) trust: Trust,
    /// When the first of the two certificates expires: no new streams from then on, or from the end
    /// of the grace after it.
    pub(super) retire: SystemTime,
}

/// What was dialled over.
pub(super) enum Line {
    Http2(Box<Http2Line>),
    Http3(Http3Line),
}

pub(super) struct Http2Line {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) connection: Http2,
    pub(super) turn: Turn<UnbufferedClientConnection>,
    pub(super) heard: Arc<Heard>,
}

/// TLS settings towards a hop.
pub(super) fn settings(hop: &Hop) -> Result<Arc<ClientConfig>, DialError> {
    stands(hop)?;
    Ok(tls::hbone_client(&hop.svid, Arc::clone(&hop.accepted))?)
}

/// Refuses to show a certificate that has expired: the peer would say as much, but later, and to us it
/// would look like its own fault.
pub(super) fn stands(hop: &Hop) -> Result<(), DialError> {
    if hop.svid.good_until() <= clock::now() {
        let id = hop.svid.id().clone();
        return Err(DialError::Expired { id });
    }
    Ok(())
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
    let turn = stream.turn();
    let (stream, heard) = Watched::new(stream);
    let http2 = builder(limits).handshake(stream).await;
    let (sender, connection) = http2.map_err(|source| DialError::Http2 { to, source })?;
    turn.begin();
    let line = Line::Http2(Box::new(Http2Line {
        sender,
        connection,
        turn,
        heard,
    }));
    proven(hop, leaf.as_ref(), line)
}

/// A connection to a peer whose certificate the handshake has judged.
pub(super) fn proven(
    hop: &Hop,
    leaf: Option<&CertificateDer<'_>>,
    line: Line,
) -> Result<Dialled, DialError> {
    let identity = leaf.and_then(peer_identity);
    let peer = identity.ok_or(DialError::Identity {
        to: hop.to,
        source: PeerRefused::NoIdentity { wanted: "workload" },
    })?;
    let theirs = leaf.and_then(tls::not_after);
    let ours = hop.svid.not_after();
    Ok(Dialled {
        line,
        peer,
        key: leaf.and_then(CertificateKey::of),
        trust: hop.svid.trust().clone(),
        retire: theirs.map_or(ours, |t| t.min(ours)),
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

/// The CONNECT itself: method and authority only, as RFC 9113 §8.5 has it; for datagrams as RFC 8441 has it,
/// by way of `to`.
pub(super) fn request(
    to: SocketAddr,
    request: &ConnectRequest,
) -> Result<Request<()>, ConnectError> {
    let mut parts = uri::Parts::default();
    let authority = match request.carries {
        Carries::Bytes => request.authority.to_string(),
        Carries::Datagrams => {
            let path = masque::path(&request.authority).parse();
            parts.scheme = Some(uri::Scheme::HTTPS);
            parts.path_and_query = Some(path.map_err(|_odd| ConnectError::Target)?);
            to.to_string()
        }
    };
    let authority: uri::Authority = authority.parse().map_err(|_odd| ConnectError::Target)?;
    parts.authority = Some(authority);
    let uri = Uri::from_parts(parts).map_err(|_odd| ConnectError::Target)?;
    let mut connect = Request::new(());
    *connect.method_mut() = Method::CONNECT;
    *connect.uri_mut() = uri;
    *connect.version_mut() = http::Version::HTTP_2;
    *connect.headers_mut() = fields(request);
    if request.carries == Carries::Datagrams {
        let protocol = h2::ext::Protocol::from_static(masque::PROTOCOL);
        connect.extensions_mut().insert(protocol);
        let capsules = HeaderValue::from_static("?1");
        connect.headers_mut().insert(masque::CAPSULES, capsules);
    }
    Ok(connect)
}

/// The headers of a CONNECT.
pub(super) fn fields(request: &ConnectRequest) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(headers::BAGGAGE, headers::value(&request.baggage));
    map.insert(headers::FORWARDED, headers::value(&request.forwarded));
    map.insert(headers::TRACEPARENT, headers::value(&request.traceparent));
    map
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
