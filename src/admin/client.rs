//! Asks a running process over its unix socket: how the command line reaches it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("cannot reach a running lateen at {}; is it started, and may you open the socket?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("{} answered with something that is no answer", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What was wrong with it.
        #[source]
        source: hyper::Error,
    },
    /// The question could not be put into a request.
    #[error("`{page}` is no page")]
    Page {
        /// The page asked for.
        page: String,
        /// What was wrong with it.
        #[source]
        source: http::Error,
    },
    /// The process refused, and says why.
    #[error("{reason}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The reason it gave.
        reason: String,
    },
}

/// Sends one request and returns the body of a 200.
///
/// # Errors
/// [`AskError`], telling a process that is not there from one that says no.
pub async fn ask(
    path: &Path,
    method: Method,
    page: &str,
    body: String,
) -> Result<String, AskError> {
    let broken = |source| AskError::Broken {
        path: path.to_owned(),
        source,
    };
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| AskError::Unreachable {
            path: path.to_owned(),
            source,
        })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = Request::builder()
        .method(method)
        .uri(page)
        .header(http::header::HOST, "lateen")
        .body(Full::new(Bytes::from(body)))
        .map_err(|source| AskError::Page {
            page: page.to_owned(),
            source,
        })?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let (status, text) = tokio::select! {
        outcome = exchange => outcome.map_err(broken)?,
        // The connection only ends first when it breaks; the exchange then tells why.
        Err(source) = connection => return Err(broken(source)),
    };
    match status {
        StatusCode::OK => Ok(text),
        _ => Err(AskError::Refused {
            status,
            reason: text,
        }),
    }
}
