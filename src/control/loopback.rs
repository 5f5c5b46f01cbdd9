//! Serves a gRPC service on loopback, for tests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tower_service::Service;

use super::caller::Caller;
use crate::tls::peer_identity;

/// SHA-256 of the key that every caller of [`serve_until`] has.
pub(crate) const KEY: [u8; 32] = [1; 32];

/// Serves until the tasks are dropped, taking every caller for `node` with credentials that end.
pub(crate) async fn serve_until<S>(
    service: S,
    node: Option<&'static str>,
    expires: Option<SystemTime>,
) -> (SocketAddr, JoinSet<()>)
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (tcp, address) = listener.accept().await.unwrap();
            let service = service.clone();
            let call = service_fn(move |mut request: http::Request<Incoming>| {
                let node = node.map(Arc::from);
                request.extensions_mut().insert(Caller {
                    node,
                    control: None,
                    bearer: None,
                    spki: Some(KEY),
                    made: None,
                    bearer_id: None,
                    certificate: None,
                    revoked: false,
                    expires,
                    address,
                    refused: None,
                });
                service.clone().call(request)
            });
            let http = http2::Builder::new(TokioExecutor::new());
            connections.spawn(http.serve_connection(TokioIo::new(tcp), call));
        }
    });
    (address, tasks)
}

/// Serves over TLS until the tasks are dropped, taking callers for whom their certificates name.
pub(crate) fn serve_tls<S>(service: S, listener: TcpListener, tls: Arc<ServerConfig>) -> JoinSet<()>
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let acceptor = TlsAcceptor::from(tls);
        let mut connections = JoinSet::new();
        loop {
            let (tcp, address) = listener.accept().await.unwrap();
            let (service, acceptor) = (service.clone(), acceptor.clone());
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let leaf = stream.get_ref().1.peer_certificates();
                let identity = leaf.and_then(<[_]>::first).and_then(peer_identity);
                let caller = Caller::new(identity.as_ref(), None, address);
                let call = service_fn(move |mut request: http::Request<Incoming>| {
                    request.extensions_mut().insert(caller.clone());
                    service.clone().call(request)
                });
                let http = http2::Builder::new(TokioExecutor::new());
                // Whoever breaks off does so in the course of a test.
                let _broken = http.serve_connection(TokioIo::new(stream), call).await;
            });
        }
    });
    tasks
}
