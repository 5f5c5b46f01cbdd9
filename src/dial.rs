//! A gRPC connection over our own TLS, for whoever talks to a control plane: nodes, and control planes
//! among themselves.

mod received;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::tls::PeerRefused;
use received::Counted;
pub use received::Received;

/// Longest attempt at one control plane (`spec/control-plane.md` §9.2).
const CONNECT: Duration = Duration::from_secs(3);
/// Between our pings, and the longest wait for an answer (§1.2).
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Largest message we take from a control plane (§1.2).
pub const RECEIVE_LIMIT: usize = 200 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is no https URL.
    #[error("`{url}` is no control plane address; write it as https://HOST:15012")]
    Url {
        /// What was given.
        url: String,
    },
    /// It cannot be reached, or is not whom we trust.
    #[error("cannot connect to {url}")]
    Connect {
        /// The address.
        url: String,
        /// What failed.
        #[source]
        source: tonic::transport::Error,
    },
}

impl DialError {
    /// Whether the control plane answered and was found to be somebody else.
    pub fn refused(&self) -> Option<PeerRefused> {
        let Self::Connect { source, .. } = self else {
            return None;
        };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source);
        while let Some(error) = cause {
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            let tls = inner.and_then(|e| e.downcast_ref::<rustls::Error>());
            let tls = tls.or_else(|| error.downcast_ref::<rustls::Error>());
            if let Some(refused) = tls.and_then(PeerRefused::of) {
                return Some(refused.clone());
            }
            cause = error.source();
        }
        None
    }
}

/// A connection.
pub struct Line {
    /// What RPCs go over.
    pub channel: Channel,
    /// Our own address on it.
    pub local: Option<IpAddr>,
    /// Bytes that have come over it so far.
    pub received: Received,
}

/// Connects to one control plane with the given TLS settings.
///
/// # Errors
/// [`DialError`].
pub async fn connect(url: &str, tls: Arc<ClientConfig>) -> Result<Channel, DialError> {
    Ok(dial(url, None, tls).await?.channel)
}

/// Connects; `name` is the one its certificate must have where it is not the URL's.
///
/// # Errors
/// [`DialError`].
pub async fn dial(
    url: &str,
    name: Option<&str>,
    tls: Arc<ClientConfig>,
) -> Result<Line, DialError> {
    let bad = || DialError::Url {
        url: url.to_owned(),
    };
    let rest = url.strip_prefix("https://").ok_or_else(bad)?;
    let authority = rest.trim_end_matches('/');
    let uri: Uri = format!("http://{authority}")
        .parse()
        .map_err(|_odd| bad())?;
    let host = uri.host().ok_or_else(bad)?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = uri.port_u16().unwrap_or(15012);
    let name = name.map_or_else(|| host.clone(), str::to_owned);
    let name = ServerName::try_from(name).map_err(|_odd| bad())?;
    let local = Arc::new(OnceLock::new());
    let received = Received::default();
    let dialer = Dialer {
        host,
        port,
        name,
        tls,
        local: Arc::clone(&local),
        received: received.clone(),
    };
    // gRPC sees a plain connection: the TLS beneath it is ours.
    let channel = Endpoint::from(uri)
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .connect_with_connector(dialer)
        .await
        .map_err(|source| DialError::Connect {
            url: url.to_owned(),
            source,
        })?;
    let local = local.get().copied();
    Ok(Line {
        channel,
        local,
        received,
    })
}

type Dialled = TokioIo<TlsStream<Counted<TcpStream>>>;

#[derive(Clone)]
struct Dialer {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    /// Told our own address once connected.
    local: Arc<OnceLock<IpAddr>>,
    received: Received,
}

impl Dialer {
    async fn dial(self) -> io::Result<Dialled> {
        let attempt = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            if let Ok(address) = tcp.local_addr() {
                // A connection made again by the channel leaves from the same host.
                let _already_known = self.local.set(address.ip().to_canonical());
            }
            let counted = Counted::new(tcp, self.received);
            TlsConnector::from(self.tls)
                .connect(self.name, counted)
                .await
        };
        match tokio::time::timeout(CONNECT, attempt).await {
            Ok(stream) => Ok(TokioIo::new(stream?)),
            Err(_elapsed) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", CONNECT.as_secs()),
            )),
        }
    }
}

impl tower_service::Service<Uri> for Dialer {
    type Response = Dialled;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}
