//! Connections to a control plane: TCP, our own TLS, and gRPC over it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::identity::NodeIdentity;
use crate::tls::{PeerRefused, control_client};

/// Longest attempt at one control plane (`spec/control-plane.md` §9.2).
const CONNECT: Duration = Duration::from_secs(3);
/// Between our pings, and the longest wait for an answer (§1.2).
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Largest message we take (§1.2).
pub(super) const RECEIVE_LIMIT: usize = 200 << 20;

/// Why a control plane cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
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
    /// No TLS settings could be made.
    #[error("cannot prepare TLS towards {url}")]
    Tls {
        /// The address.
        url: String,
        /// What failed.
        #[source]
        source: crate::tls::TlsError,
    },
    /// None is configured.
    #[error(
        "no control plane address is configured; set `addresses` in the [control] table of lateen.toml"
    )]
    None,
}

impl ChannelError {
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

/// The control planes of this node, in order of preference, and who we are to them.
#[derive(Clone)]
pub struct Controls {
    urls: Arc<[String]>,
    identity: watch::Receiver<Arc<NodeIdentity>>,
}

impl Controls {
    /// Control planes by their URLs.
    pub fn new(urls: Vec<String>, identity: watch::Receiver<Arc<NodeIdentity>>) -> Self {
        Self {
            urls: urls.into(),
            identity,
        }
    }

    /// Connects to the first that answers, as this node.
    ///
    /// # Errors
    /// That of the last one tried.
    pub async fn connect(&self) -> Result<(String, Channel), ChannelError> {
        let mut last = ChannelError::None;
        for url in &*self.urls {
            let identity = Arc::clone(&self.identity.borrow());
            let trust = identity.svid.trust().clone();
            let tls = control_client(Some(&identity.svid), trust);
            let tls = tls.map_err(|source| ChannelError::Tls {
                url: url.clone(),
                source,
            })?;
            match connect(url, tls).await {
                Ok(channel) => return Ok((url.clone(), channel)),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

impl Controls {
    /// Connects to the first that answers, showing no certificate.
    ///
    /// # Errors
    /// That of the last one tried.
    pub async fn connect_unnamed(&self) -> Result<Channel, ChannelError> {
        let mut last = ChannelError::None;
        for url in &*self.urls {
            let trust = self.identity.borrow().svid.trust().clone();
            let tls = control_client(None, trust);
            let tls = tls.map_err(|source| ChannelError::Tls {
                url: url.clone(),
                source,
            })?;
            match connect(url, tls).await {
                Ok(channel) => return Ok(channel),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

/// Connects to one control plane with the given TLS settings.
///
/// # Errors
/// [`ChannelError`].
pub async fn connect(url: &str, tls: Arc<ClientConfig>) -> Result<Channel, ChannelError> {
    let bad = || ChannelError::Url {
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
    let name = ServerName::try_from(host.clone()).map_err(|_odd| bad())?;
    let dialer = Dialer {
        host,
        port,
        name,
        tls,
    };
    // gRPC sees a plain connection: the TLS beneath it is ours.
    Endpoint::from(uri)
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .connect_with_connector(dialer)
        .await
        .map_err(|source| ChannelError::Connect {
            url: url.to_owned(),
            source,
        })
}

#[derive(Clone)]
struct Dialer {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Dialer {
    async fn dial(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let attempt = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(self.tls).connect(self.name, tcp).await
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
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}
