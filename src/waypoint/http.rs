//! Serves HTTP that comes through a tunnel (`spec/waypoint-l7.md` §1.5): HTTP/1 or HTTP/2 with
//! prior knowledge, whichever the client speaks. Each request goes to an endpoint of its own.
//!
//! [`exchange`] is one request: [`route`] finds its rule and what that makes of it, [`backend`] puts it
//! into the form in which the backend gets it, [`attempts`] asks endpoints until one answers, [`mirror`]
//! sends copies. [`pool`] keeps connections to endpoints, [`message`] says what of a message is for the
//! next hop, [`reply`] is what the waypoint answers itself.

mod account;
mod affinity;
mod attempts;
mod backend;
mod body;
mod copy;
mod deadline;
mod exchange;
mod hashed;

mod injection;
mod message;
mod mirror;
mod pool;
mod replay;
mod reply;
mod route;
mod tasks;
mod upgrade;
mod upload;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Arrival;
use crate::hbone::{Connector, Tunnel, TunnelIo};
use crate::telemetry::access_log::chain;
pub(super) use pool::{Pool, Version};
pub(super) use reply::Reply;
use tasks::{Spawn, Tasks};

/// Bytes of a request's head, and its fields (§1.5).
const HEAD: (usize, usize) = (60 << 10, 100);
/// Longest wait for the next whole head on an HTTP/1 connection. Since it also counts while nothing
/// is asked, it is longer than clients keep connections for.
const NEXT: Duration = Duration::from_secs(300);
/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 200;
/// Receive windows of an HTTP/2 stream and connection. The tunnel beneath has its own.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);
/// Streams a client may reset before we have looked at them, and resets that it may provoke
/// (`spec/reliability.md` §2 rows 1 and 2).
const RESETS: (usize, usize) = (20, 200);

/// Serves one tunnel to its end. After `stop` it finishes what was asked and takes nothing more.
pub(super) async fn serve<C: Connector + Clone>(
    arrival: Arc<Arrival<C>>,
    tunnel: Tunnel,
    version: Version,
    stop: &CancellationToken,
) {
    let tasks = Tasks::default();
    let spawn = tasks.spawner();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (arrival, spawn) = (Arc::clone(&arrival), spawn.clone());
        async move { Ok::<_, Infallible>(exchange::serve(arrival, request, version, spawn).await) }
    });
    let builder = builder(spawn.clone());
    let io = TunnelIo::new(tunnel);
    let closer = io.closer();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = served {
        let error = e.downcast_ref::<hyper::Error>();
        if error.is_some_and(|e| e.is_parse() || e.is_timeout()) {
            // It was answered as what it is, and the answer shall arrive.
            closer.in_order();
        }
        // Each request that was under way has told of itself.
        debug!(src.addr = %arrival.client.source, error = %chain(&*e), "HTTP connection ended early");
    }
    // What a request has become goes on: a WebSocket, for one.
    tasks.finish().await;
}

fn builder(spawn: Spawn) -> Builder<Spawn> {
    let mut builder = Builder::new(spawn);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT)
        .max_buf_size(HEAD.0)
        .max_headers(HEAD.1);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEAD.0).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_pending_accept_reset_streams(RESETS.0)
        .max_local_error_reset_streams(RESETS.1);
    builder
}
