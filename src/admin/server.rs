//! A small HTTP/1.1 server for admin pages: exact paths, bounded bodies, no keep-alive surprises.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Longest request body; admin verbs carry names and numbers.
const BODY_LIMIT: usize = 64 * 1024;
/// Longest wait for a request's headers (`spec/hbone-dataplane.md` §7).
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Admin connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;

/// What a page answers.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The content type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    /// 200 with plain text.
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    /// 200 with JSON; 500 when the value cannot be written.
    pub fn json(value: &impl serde::Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(body) => Self {
                status: StatusCode::OK,
                content_type: "application/json",
                body,
            },
            Err(e) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
        }
    }

    /// A refusal with its reason as text.
    pub fn error(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::text(reason)
        }
    }
}

type Page = Arc<dyn Fn(Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// The pages of one server, by method and exact path.
#[derive(Default, Clone)]
pub struct Routes {
    pages: Vec<(Method, &'static str, Page)>,
}

impl Routes {
    /// Adds a page; it is handed the request's body.
    #[must_use]
    pub fn on<F, R>(mut self, method: Method, path: &'static str, page: F) -> Self
    where
        F: Fn(Bytes) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let page: Page = Arc::new(move |body| Box::pin(page(body)));
        self.pages.push((method, path, page));
        self
    }

    /// All pages of both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.pages.extend(other.pages);
        self
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let mut known = false;
        for (method, path, page) in &self.pages {
            if *path != parts.uri.path() {
                continue;
            }
            known = true;
            if *method == parts.method {
                return match Limited::new(body, BODY_LIMIT).collect().await {
                    Ok(body) => page(body.to_bytes()).await,
                    Err(_too_long) => Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "body too long"),
                };
            }
        }
        match known {
            true => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "no such method here"),
            false => Answer::error(StatusCode::NOT_FOUND, "no such page"),
        }
    }
}

/// Where pages are served.
pub enum Listener {
    /// To anyone who reaches the address.
    Tcp(TcpListener),
    /// To the owner of the socket.
    Unix(UnixListener),
}

impl Listener {
    /// A unix socket that only this user may open, in place of one left by a dead process.
    ///
    /// # Errors
    /// When the directory or the socket cannot be made, or a live process holds it.
    pub fn unix(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another process serves {}", path.display()),
            ));
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::Unix(listener))
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Serves the pages until `shutdown`; open requests are then cut, they hold nothing.
pub async fn serve(listener: Listener, routes: Routes, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_done) = tasks.join_next() => {}
            accepted = listener.accept(), if tasks.len() < CONNECTIONS => match accepted {
                Ok(stream) => {
                    tasks.spawn(connection(TokioIo::new(stream), routes.clone()));
                }
                Err(e) => {
                    debug!(error = %e, "admin connection not accepted");
                    // Out of descriptors, most likely: trying again at once would only spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
}

async fn connection(stream: TokioIo<Box<dyn Stream>>, routes: Routes) {
    let service = service_fn(move |request| {
        let routes = routes.clone();
        async move {
            let answer = routes.answer(request).await;
            Ok::<_, Infallible>(response(answer))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(stream, service)
        .await;
    if let Err(e) = served {
        debug!(error = %e, "admin connection ended");
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    let value = header::HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
