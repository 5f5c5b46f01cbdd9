//! A server that answers what it has received, and that does as requests ask it to: it fails, is
//! late, or says something else.
//!
//! | header | what becomes of the request |
//! |---|---|
//! | `x-echo-sleep` | so many milliseconds pass first |
//! | `x-echo-status` | it is answered with this status |
//! | `x-echo-grpc-status` | it is answered with this status, without a message |
//! | `x-echo-answer` | the answer has this field, `name: value` |
//! | `x-echo-only` | the others are for a server of this name alone |
//! | `x-echo-times` | they are for the first so many requests of this `x-echo-key` alone |
//! | `x-echo-key` | it is remembered, and told to who asks the server's log for the key |
//!
//! Checks of `ext_authz` it answers as [`authorizer`] says.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::PrivateKeyDer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{authorizer, grpc, websocket};

/// How many requests are remembered whatever their key.
const LATEST: usize = 1000;

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// Who it is and which ports it has.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Echo {
    pub(crate) name: String,
    /// HTTP/1 and HTTP/2, in clear text.
    pub(crate) http: Vec<u16>,
    /// Its name, before the client says anything; then what it hears.
    pub(crate) banner: Vec<u16>,
    /// Over TLS its name and the server name that was asked for.
    pub(crate) tls: Vec<u16>,
    /// What it has received, for whoever asks for a key; how many connections, for `/accepted`; the latest
    /// requests, whatever their key, for `/latest`.
    pub(crate) log: Vec<u16>,
}

struct Server {
    name: String,
    /// What was received with a key.
    received: Mutex<HashMap<String, Vec<Value>>>,
    /// The latest of all that was received.
    latest: Mutex<VecDeque<Value>>,
    /// Connections so far.
    accepted: AtomicUsize,
}

impl Echo {
    pub(super) async fn serve(self) {
        let server = Arc::new(Server {
            name: self.name,
            received: Mutex::default(),
            latest: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let mut ports = JoinSet::new();
        for port in self.http {
            let server = Arc::clone(&server);
            ports.spawn(accept(port, move |tcp| {
                Arc::clone(&server).converse(tcp, false)
            }));
        }
        for port in self.banner {
            let server = Arc::clone(&server);
            ports.spawn(accept(port, move |tcp| Arc::clone(&server).greet(tcp)));
        }
        let acceptor = acceptor();
        for port in self.tls {
            let (server, acceptor) = (Arc::clone(&server), acceptor.clone());
            ports.spawn(accept(port, move |tcp| {
                Arc::clone(&server).secured(tcp, acceptor.clone())
            }));
        }
        for port in self.log {
            let server = Arc::clone(&server);
            ports.spawn(accept(port, move |tcp| {
                Arc::clone(&server).converse(tcp, true)
            }));
        }
        while let Some(ended) = ports.join_next().await {
            ended.unwrap();
        }
    }
}

/// Serves every connection to a port.
async fn accept<F>(port: u16, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address).await.unwrap();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => {
                connections.spawn(serve(accepted.unwrap().0));
            }
        }
    }
}

/// Anybody's certificate: clients look at names alone.
fn acceptor() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["echo.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

impl Server {
    async fn converse(self: Arc<Self>, tcp: TcpStream, log: bool) {
        if !log {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        let peer = tcp.peer_addr().map(|at| at.ip().to_canonical().to_string());
        let peer = peer.unwrap_or_default();
        let service = service_fn(|request| {
            let (server, peer) = (Arc::clone(&self), peer.clone());
            async move {
                let answer = match log {
                    true => server.tell(request.uri().path()),
                    false => server.answer(request, &peer).await,
                };
                Ok::<_, Infallible>(answer)
            }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        // A client that goes away is its own business.
        let _ended = builder
            .serve_connection_with_upgrades(TokioIo::new(tcp), service)
            .await;
    }

    async fn greet(self: Arc<Self>, mut tcp: TcpStream) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let banner = format!("{}\n", self.name);
        let _gone = tcp.write_all(banner.as_bytes()).await;
        let (mut from, mut to) = tcp.split();
        let _gone = tokio::io::copy(&mut from, &mut to).await;
    }

    async fn secured(self: Arc<Self>, tcp: TcpStream, acceptor: TlsAcceptor) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let Ok(mut tls) = acceptor.accept(tcp).await else {
            return;
        };
        let sni = tls.get_ref().1.server_name().unwrap_or("-").to_owned();
        let _gone = tls
            .write_all(format!("{} {sni}\n", self.name).as_bytes())
            .await;
        let _gone = tls.shutdown().await;
        let _rest = tls.read(&mut [0; 64]).await;
    }

    /// What was received with the key that is the path, or how many connections there were.
    fn tell(&self, path: &str) -> Response<Body> {
        let told = match path {
            "/accepted" => json!(self.accepted.load(Ordering::Relaxed)),
            "/latest" => json!(*self.latest.lock().unwrap()),
            key => {
                let received = self.received.lock().unwrap();
                json!(
                    received
                        .get(key.trim_start_matches('/'))
                        .cloned()
                        .unwrap_or_default()
                )
            }
        };
        Response::new(text(told.to_string()))
    }

    async fn answer(&self, mut request: Request<Incoming>, peer: &str) -> Response<Body> {
        let upgrade = websocket::is_asked_for(&request).then(|| hyper::upgrade::on(&mut request));
        let is_grpc = grpc::is_asked_for(request.headers());
        let (head, body) = request.into_parts();
        let mut received = json!({
            "name": self.name,
            "peer": peer,
            "method": head.method.as_str(),
            "path": head.uri.path_and_query().map(|p| p.as_str()),
            "version": version(head.version),
            "host": host(&head),
            "headers": head.headers.iter()
                .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
                .collect::<Vec<_>>(),
        });
        self.remember(received.clone());
        if let Some(upgrade) = upgrade {
            return websocket::accept(&head.headers, upgrade);
        }
        if head.uri.path() == authorizer::CHECK {
            return authorizer::answer(body).await;
        }
        let orders = Orders::of(&head.headers);
        let obeyed = self.obeys(&orders);
        if is_grpc && !(obeyed && orders.answers()) {
            self.note(&orders, received.clone());
            if obeyed {
                tokio::time::sleep(orders.sleep).await;
            }
            return grpc::converse(body, received);
        }
        let Ok(body) = body.collect().await else {
            return std::future::pending().await;
        };
        let body = body.to_bytes();
        received["length"] = json!(body.len());
        received["digest"] = json!(digest(&body));
        self.note(&orders, received.clone());
        let mut answer = Response::new(text(format!("{received}\n")));
        for field in &orders.fields {
            let (name, value) = field.split_once(": ").unwrap();
            let name: header::HeaderName = name.parse().unwrap();
            answer.headers_mut().append(name, value.parse().unwrap());
        }
        if !obeyed {
            return answer;
        }
        tokio::time::sleep(orders.sleep).await;
        if let Some(status) = orders.grpc_status {
            return grpc::failed(&status);
        }
        if let Some(status) = orders.status {
            *answer.status_mut() = status;
        }
        answer
    }

    fn remember(&self, received: Value) {
        let mut latest = self.latest.lock().unwrap();
        latest.push_back(received);
        if latest.len() > LATEST {
            latest.pop_front();
        }
    }

    fn note(&self, orders: &Orders, received: Value) {
        if let Some(key) = &orders.key {
            let mut all = self.received.lock().unwrap();
            all.entry(key.clone()).or_default().push(received);
        }
    }

    /// Whether the orders are for this server and this request.
    fn obeys(&self, orders: &Orders) -> bool {
        let mine = orders.only.as_ref().is_none_or(|name| *name == self.name);
        let still = orders.times.is_none_or(|times| {
            let key = orders.key.as_deref().unwrap_or_default();
            let received = self.received.lock().unwrap();
            received.get(key).map_or(0, Vec::len) < times
        });
        mine && still
    }
}

/// What a request asks for.
#[derive(Default)]
struct Orders {
    sleep: Duration,
    status: Option<StatusCode>,
    grpc_status: Option<String>,
    fields: Vec<String>,
    only: Option<String>,
    times: Option<usize>,
    key: Option<String>,
}

impl Orders {
    fn of(headers: &HeaderMap) -> Self {
        let field = |name| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        let fields = headers.get_all("x-echo-answer").iter();
        Self {
            sleep: Duration::from_millis(field("x-echo-sleep").map_or(0, |v| v.parse().unwrap())),
            status: field("x-echo-status").map(|v| v.parse().unwrap()),
            grpc_status: field("x-echo-grpc-status"),
            fields: fields.map(|v| v.to_str().unwrap().to_owned()).collect(),
            only: field("x-echo-only"),
            times: field("x-echo-times").map(|v| v.parse().unwrap()),
            key: field("x-echo-key"),
        }
    }

    /// Whether the answer is to be another than usual.
    fn answers(&self) -> bool {
        self.status.is_some() || self.grpc_status.is_some()
    }
}

fn host(head: &http::request::Parts) -> String {
    let header = head.headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    authority.or(header).unwrap_or_default().to_owned()
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        _ => "2",
    }
}

/// Tells whether a body is the one that was sent.
pub(crate) fn digest(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn text(body: String) -> Body {
    Full::new(Bytes::from(body)).boxed()
}

pub(super) fn empty() -> Body {
    Empty::new().boxed()
}
