//! An HTTP server that tells who it is and who asked.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Largest body given out.
const BODY: usize = 64 << 20;

/// Serves until it is ended: any path answers with a line of JSON that holds `name`, the client's
/// address as seen here, `text`, and the `x-request-id` of the request, which waypoints give it; `/bytes/N` answers with N bytes.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(listen: SocketAddr, name: String, text: String) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let about = Arc::new((name, text));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_done) = tasks.join_next() => {}
            accepted = listener.accept() => {
                let (stream, peer) = accepted?;
                let about = Arc::clone(&about);
                let service = service_fn(move |request| {
                    let about = Arc::clone(&about);
                    async move { Ok::<_, Infallible>(answer(&request, peer, &about)) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tasks.spawn(async move {
                    // A client that goes away is its own business.
                    let _ended = connection.await;
                });
            }
        }
    }
}

fn answer(
    request: &Request<Incoming>,
    peer: SocketAddr,
    about: &(String, String),
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if let Some(count) = path.strip_prefix("/bytes/") {
        let count = count.parse::<usize>().ok().filter(|n| *n <= BODY);
        return match count {
            Some(count) => Response::new(Full::from(vec![b'x'; count])),
            None => {
                let mut refused = Response::new(Full::from("how many bytes?\n"));
                *refused.status_mut() = StatusCode::BAD_REQUEST;
                refused
            }
        };
    }
    let request_id = request.headers().get("x-request-id");
    let request_id = request_id.and_then(|id| id.to_str().ok());
    let told = serde_json::json!({
        "server": about.0,
        "client": peer.ip().to_canonical(),
        "path": path,
        "text": about.1,
        "request-id": request_id,
    });
    Response::new(Full::from(format!("{told}\n")))
}
