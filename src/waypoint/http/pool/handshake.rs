//! The beginning of HTTP with an endpoint, once the way to it is open.

use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::super::framing::HEAD;
use super::super::tasks::Spawn;
use super::kept::Sender;
use super::{NoConnection, Version};

/// Fields of an answer's head.
const FIELDS: usize = 256;
/// Receive windows of an HTTP/2 stream and connection. The tunnel beneath has its own.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);
/// How often an endpoint of HTTP/2 is asked whether it is there while something is under way, and how long
/// it may take to say so.
const PINGS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// Begins HTTP on `io`, by tasks of `spawn`. What is no `tunnel`, which asks by itself, asks for signs of
/// life where it can.
pub(super) async fn handshake<T>(
    io: T,
    version: Version,
    tunnel: bool,
    spawn: &Spawn,
) -> Result<Sender, NoConnection>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(io);
    match version {
        Version::Http1 => {
            let shaken = http1::Builder::new()
                .max_headers(FIELDS)
                .handshake(io)
                .await;
            let (sender, connection) = shaken.map_err(NoConnection::Handshake)?;
            spawn.spawn(async move { ended(connection.with_upgrades().await) });
            Ok(Sender::Http1(sender))
        }
        Version::Http2 => {
            let shaken = http2(spawn.clone(), tunnel).handshake(io).await;
            let (sender, connection) = shaken.map_err(NoConnection::Handshake)?;
            spawn.spawn(async move { ended(connection.await) });
            Ok(Sender::Http2(sender))
        }
    }
}

fn http2(spawn: Spawn, tunnel: bool) -> http2::Builder<Spawn> {
    let mut builder = http2::Builder::new(spawn);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1);
    if !tunnel {
        builder
            .keep_alive_interval(PINGS.0)
            .keep_alive_timeout(PINGS.1);
    }
    builder
}

fn ended(outcome: Result<(), hyper::Error>) {
    if let Err(e) = outcome {
        // Whoever waited for an answer on it says so.
        debug!(error = %e, "connection to an endpoint ended early");
    }
}
