//! Connections to a control plane: TCP, our own TLS, and gRPC over it.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
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
use tonic::{Code, Status};

use super::guest::{Guest, GuestError};
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
    /// A file that names this node, or whom it trusts, is no use.
    #[error(transparent)]
    Guest(#[from] GuestError),
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

/// Who we are to the control planes.
#[derive(Clone)]
pub enum Who {
    /// A node that has joined, by its certificate.
    Node(watch::Receiver<Arc<NodeIdentity>>),
    /// A node of another's control plane, by a token.
    Guest(Arc<Guest>),
}

/// The control planes of this node, numbered in order of preference, and who we are to them.
#[derive(Clone)]
pub struct Controls {
    urls: Arc<[String]>,
    who: Who,
    /// The one that discovery follows; tried first by everybody else.
    best: Arc<AtomicUsize>,
}

/// A connection to one of them.
pub(super) struct Line {
    pub(super) channel: Channel,
    /// Our own address on it.
    pub(super) local: Option<IpAddr>,
}

impl Controls {
    /// Control planes by their URLs.
    pub fn new(urls: Vec<String>, who: Who) -> Self {
        Self {
            urls: urls.into(),
            who,
            best: Arc::default(),
        }
    }

    /// Their URLs, in order of preference.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Who we are to them.
    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    /// Says which one is followed.
    pub(super) fn set_best(&self, control: usize) {
        self.best.store(control, Ordering::Relaxed);
    }

    /// All of them in the order to ask in: the one that is followed, then by preference.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let best = self.best.load(Ordering::Relaxed);
        let rest = (0..self.urls.len()).filter(move |other| *other != best);
        let first = (best < self.urls.len()).then_some(best);
        first.into_iter().chain(rest)
    }

    /// Connects to one of them, as who we are.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub(super) async fn connect(&self, control: usize) -> Result<Line, ChannelError> {
        let url = self.urls.get(control).ok_or(ChannelError::None)?;
        let (tls, name) = match &self.who {
            Who::Node(identity) => {
                let identity = Arc::clone(&identity.borrow());
                let trust = identity.svid.trust().clone();
                let tls = control_client(Some(&identity.svid), trust);
                let tls = tls.map_err(|source| ChannelError::Tls {
                    url: url.clone(),
                    source,
                })?;
                (tls, None)
            }
            Who::Guest(guest) => (guest.tls().await?, guest.server_name.as_deref()),
        };
        dial(url, name, tls).await
    }

    /// Connects to one of them as nobody: a node whose certificate has expired.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub(super) async fn connect_unnamed(&self, control: usize) -> Result<Channel, ChannelError> {
        let url = self.urls.get(control).ok_or(ChannelError::None)?;
        let Who::Node(identity) = &self.who else {
            return Err(ChannelError::None);
        };
        let trust = identity.borrow().svid.trust().clone();
        let tls = control_client(None, trust).map_err(|source| ChannelError::Tls {
            url: url.clone(),
            source,
        })?;
        connect(url, tls).await
    }

    /// A message with the credentials of this moment.
    ///
    /// # Errors
    /// [`ChannelError::Guest`] when the token cannot be read.
    pub(super) async fn request<T>(&self, message: T) -> Result<tonic::Request<T>, ChannelError> {
        match &self.who {
            Who::Node(_) => Ok(tonic::Request::new(message)),
            Who::Guest(guest) => Ok(guest.credentials(message).await?),
        }
    }
}

/// Whether another control plane might grant what one refused so: it is ending, or is not the one
/// that has what it takes (§9.1).
pub(super) fn elsewhere(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::FailedPrecondition)
}

/// Connects to one control plane with the given TLS settings.
///
/// # Errors
/// [`ChannelError`].
pub async fn connect(url: &str, tls: Arc<ClientConfig>) -> Result<Channel, ChannelError> {
    Ok(dial(url, None, tls).await?.channel)
}

/// Connects; `name` is the one its certificate must have where it is not the URL's.
async fn dial(url: &str, name: Option<&str>, tls: Arc<ClientConfig>) -> Result<Line, ChannelError> {
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
    let name = name.map_or_else(|| host.clone(), str::to_owned);
    let name = ServerName::try_from(name).map_err(|_odd| bad())?;
    let local = Arc::new(OnceLock::new());
    let dialer = Dialer {
        host,
        port,
        name,
        tls,
        local: Arc::clone(&local),
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
        .map_err(|source| ChannelError::Connect {
            url: url.to_owned(),
            source,
        })?;
    let local = local.get().copied();
    Ok(Line { channel, local })
}

#[derive(Clone)]
struct Dialer {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    /// Told our own address once connected.
    local: Arc<OnceLock<IpAddr>>,
}

impl Dialer {
    async fn dial(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let attempt = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            if let Ok(address) = tcp.local_addr() {
                // A connection made again by the channel leaves from the same host.
                let _already_known = self.local.set(address.ip().to_canonical());
            }
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
