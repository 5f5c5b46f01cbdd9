//! Gets keys from where they are.
//!
//! Nobody is followed elsewhere: an answer that is no 200 is none. Every address is judged before it is
//! dialled, whatever name it was found by, so that neither a URL nor whoever answers for a name leads to
//! what only this host can reach (`spec/reliability.md` §2 row 27). Services of the mesh are asked like
//! anybody else, by the names and addresses that this host knows.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::http::uri::Authority;
use ::http::{Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::hbone::Connector;
use crate::model::authentication::{Fetching, Keys, KeysError};
use crate::model::declaration::{Remote, RemoteAt, configuration_of};
use crate::model::traffic::TlsOrigination;
use crate::resolve::{LookupError, Names};
use crate::waypoint::secure::{Alpn, Materials, NotSecured, Secured, Stream};

/// Longest answer.
const LONGEST: usize = 1 << 20;
/// Addresses of a name that are tried.
const TRIED: usize = 4;

/// What keys are got with.
pub(super) struct Fetcher<'a, C> {
    pub(super) connector: &'a C,
    pub(super) names: &'a Names,
    pub(super) materials: &'a Materials,
    pub(super) fetching: Arc<Fetching>,
}

/// A key set, and how it was sent.
pub(super) struct Fetched {
    pub(super) keys: Keys,
    pub(super) text: Bytes,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer within {} ms", after.as_millis())]
    Late { after: std::time::Duration },
    #[error("{url:?} is no URL of http or https")]
    Url { url: String },
    #[error("`{host}` cannot be resolved")]
    Unresolved { host: String, source: LookupError },
    #[error("{address} is of this host or its link, and is not asked; see `jwks-local-ranges`")]
    Local { address: IpAddr },
    #[error("cannot connect to {to}")]
    Unreachable { to: SocketAddr, source: io::Error },
    #[error(transparent)]
    Unsecured(#[from] NotSecured),
    #[error("{url} does not answer in HTTP")]
    Broken { url: String, source: hyper::Error },
    #[error("{url} answers {status}; name one that answers 200, nobody is followed elsewhere")]
    Status { url: String, status: StatusCode },
    #[error("{url} says more than 1 MiB")]
    TooLong { url: String },
    #[error("the answer of {url} breaks off")]
    Cut { url: String },
    #[error("{url} has no key set: {source}")]
    NoKeys { url: String, source: KeysError },
    #[error("cannot read {path}")]
    File { path: String, source: io::Error },
    #[error("{url} is no OpenID configuration: it names no `jwks_uri`")]
    NoConfiguration { url: String },
    #[error("{url} is the configuration of another issuer: {issuer:?}")]
    OtherIssuer { url: String, issuer: String },
    #[error("{url} says that its keys are at {keys:?}, which is no place for them")]
    OddPlace { url: String, keys: String },
}

impl<C: Connector> Fetcher<'_, C> {
    /// The keys of a source, as they are now.
    pub(super) async fn fetch(&self, of: &Remote) -> Result<Fetched, FetchError> {
        let fetching = self.keys(&of.at);
        match tokio::time::timeout(of.timeout, fetching).await {
            Ok(fetched) => fetched,
            Err(_elapsed) => Err(FetchError::Late { after: of.timeout }),
        }
    }

    async fn keys(&self, at: &RemoteAt) -> Result<Fetched, FetchError> {
        let (url, text) = match at {
            RemoteAt::Uri(uri) => match uri.strip_prefix("file://") {
                Some(path) => (path.to_owned(), file(path).await?),
                None => (uri.to_string(), self.get(uri).await?),
            },
            RemoteAt::Discovery(issuer) => {
                let configuration = configuration_of(issuer);
                let text = self.get(&configuration).await?;
                let keys = keys_of(issuer, configuration, &text)?;
                let text = self.get(&keys).await?;
                (keys, text)
            }
        };
        match Keys::read(&text) {
            Ok(keys) => Ok(Fetched { keys, text }),
            Err(source) => Err(FetchError::NoKeys { url, source }),
        }
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let odd = || FetchError::Url {
            url: url.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_odd| odd())?;
        let authority = uri.authority().cloned().ok_or_else(odd)?;
        let (secure, port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(odd()),
        };
        let host = authority.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(port);
        let (stream, to) = self.dial(host, port).await?;
        let mut stream: Box<dyn Stream> = Box::new(stream);
        if secure {
            let secured = Secured {
                origination: TlsOrigination::default(),
                server_name: Arc::from(host),
                alpn: Alpn::Http1,
            };
            stream = secured.begin(self.materials, stream, to).await?;
        }
        ask(stream, &uri, &authority).await
    }

    /// Connects to the first address that may be asked and can be reached.
    async fn dial(
        &self,
        host: &str,
        port: u16,
    ) -> Result<(tokio::net::TcpStream, SocketAddr), FetchError> {
        let unresolved = |source| FetchError::Unresolved {
            host: host.to_owned(),
            source,
        };
        let addresses: Arc<[IpAddr]> = match host.parse() {
            Ok(address) => Arc::from([address]),
            Err(_a_name) => self.names.addresses(host).await.map_err(unresolved)?,
        };
        let mut last = unresolved(LookupError::NoAddress);
        for address in addresses.iter().take(TRIED) {
            let (address, to) = (*address, SocketAddr::new(*address, port));
            if !self.fetching.may_reach(address) {
                last = FetchError::Local { address };
                continue;
            }
            match self.connector.connect(to).await {
                Ok(stream) => return Ok((stream, to)),
                Err(source) => last = FetchError::Unreachable { to, source },
            }
        }
        Err(last)
    }
}

async fn ask(
    stream: Box<dyn Stream>,
    uri: &Uri,
    authority: &Authority,
) -> Result<Bytes, FetchError> {
    let url = || uri.to_string();
    let broken = |source| FetchError::Broken { url: url(), source };
    let request = Request::get(uri.path_and_query().map_or("/", |target| target.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::ACCEPT, "application/json")
        .header(
            header::USER_AGENT,
            concat!("lateen/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|_odd| FetchError::Url { url: url() })?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(FetchError::Status { url: url(), status });
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        body.map(|body| body.to_bytes())
            .map_err(|e| match e.downcast_ref::<LengthLimitError>() {
                Some(_) => FetchError::TooLong { url: url() },
                None => FetchError::Cut { url: url() },
            })
    };
    tokio::pin!(exchange);
    tokio::select! {
        text = &mut exchange => text,
        // What has come until then is still to be had, and the exchange knows what has not.
        _ended = connection => exchange.await,
    }
}

async fn file(path: &str) -> Result<Bytes, FetchError> {
    let unread = |source| FetchError::File {
        path: path.to_owned(),
        source,
    };
    let about = tokio::fs::metadata(path).await.map_err(unread)?;
    // A pipe or a device would keep whoever reads it.
    if !about.is_file() {
        return Err(unread(io::Error::other("it is no file")));
    }
    if about.len() > LONGEST as u64 {
        return Err(FetchError::TooLong {
            url: path.to_owned(),
        });
    }
    tokio::fs::read(path).await.map(Bytes::from).map_err(unread)
}

/// Where an issuer's configuration says that its keys are. They are no less secure than itself, and no
/// file of this host.
fn keys_of(issuer: &str, url: String, text: &[u8]) -> Result<String, FetchError> {
    let read: Option<Value> = serde_json::from_slice(text).ok();
    let named = |name: &str| read.as_ref()?.get(name)?.as_str().map(str::to_owned);
    if let Some(other) = named("issuer").filter(|other| other != issuer) {
        return Err(FetchError::OtherIssuer { url, issuer: other });
    }
    let Some(keys) = named("jwks_uri") else {
        return Err(FetchError::NoConfiguration { url });
    };
    let secure = keys.starts_with("https://");
    match secure || (keys.starts_with("http://") && url.starts_with("http://")) {
        true => Ok(keys),
        false => Err(FetchError::OddPlace { url, keys }),
    }
}

#[cfg(test)]
mod tests;
