//! Serves a gRPC service on loopback, for tests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::body::Body;
use tower_service::Service;

use super::caller::Caller;

/// Serves until the tasks are dropped, taking every caller for `node`.
pub(crate) async fn serve<S>(service: S, node: Option<&'static str>) -> (SocketAddr, JoinSet<()>)
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    serve_until(service, node, None).await
}

/// The same, with credentials that end.
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
                    bearer: None,
                    spki: None,
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
