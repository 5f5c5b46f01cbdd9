//! Serves HTTP that comes through a tunnel (`spec/waypoint-l7.md` §1.5): HTTP/1 or HTTP/2 with
//! prior knowledge, whichever the client speaks. Each request goes to an endpoint of its own.
//!
//! [`front`] lets well-formed requests pass. [`exchange`] is one request: [`route`] finds its rule and
//! what that makes of it, [`backend`] puts it into the form in which the backend gets it, [`attempts`]
//! asks endpoints until one answers, [`mirror`] sends copies. [`pool`] keeps connections to endpoints,
//! [`message`] says what of a message is for the next hop, [`ask`] asks others what they say of it, [`reply`] is what the waypoint answers itself.

mod account;
mod affinity;
mod ask;
mod attempts;
mod backend;
mod body;
mod call;
mod copy;
mod deadline;
mod exchange;
mod fault;
mod framing;
mod front;
mod hashed;
mod injection;
mod message;
mod messages;
mod mirror;
mod pool;
mod quiet;
mod received;
mod record;
mod replay;
mod reply;
mod resets;
mod route;
mod stall;
mod tasks;
mod trace;
mod upgrade;
mod upload;
mod websocket;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Arrival;
use crate::causes::chain;
use crate::hbone::{Connector, Tunnel, TunnelIo};
pub(super) use ask::{Ask, Told, Unanswered};
use body::Download;
pub(super) use call::{Bounds, CallError, Callee, Caller, NoMessage, grpc_message, grpc_request};
pub(super) use framing::HEAD;
use front::{Front, Gate};
pub(super) use message::{is_between_neighbours, request_id};
pub(super) use pool::{Pool, Version};
use quiet::Busy;
pub(super) use received::{Beginning, Received, Unread};
pub(super) use reply::Reply;
use resets::Resets;
pub(super) use route::asked as as_routed;
use tasks::{Spawn, Tasks};

/// How long a connection is kept on which nothing is asked (§1.5).
pub(super) const IDLE: Duration = Duration::from_secs(3600);
/// Longest wait, after a stop, for one more request of HTTP/1, and for the first of HTTP/2.
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// What hyper holds of an HTTP/1 connection, one way: any head that [`front`] lets pass, and its
/// line before it is taken to be one.
const BUFFER: usize = 128 << 10;
/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 200;
/// Receive windows of an HTTP/2 stream and connection. The tunnel beneath has its own.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);
/// Streams a client may reset before we have looked at them, and resets that it may provoke
/// (`spec/reliability.md` §2 rows 1 and 2).
const RESETS: (usize, usize) = (20, 200);

/// Serves one tunnel to its end: `client` is spoken in it, `endpoint` to those behind. After `stop`,
/// after an hour in which nothing was asked, or once a client takes back too much, it finishes what was
/// asked and takes nothing more, but for what clients ask that cannot know of it yet.
pub(super) async fn serve<C: Connector + Clone>(
    arrival: Arc<Arrival<C>>,
    tunnel: Tunnel,
    client: Version,
    endpoint: Version,
    stop: &CancellationToken,
) {
    let tasks = Tasks::default();
    let spawn = tasks.spawner();
    let (gate, busy, resets) = (Arc::<Gate>::default(), Busy::default(), Resets::default());
    let io = TunnelIo::new(tunnel);
    let closer = io.closer();
    let asked = CancellationToken::new();
    let silence = arrival.shared.settings.silence;
    let service = service_fn(|request: Request<Incoming>| {
        asked.cancel();
        let (arrival, gate, spawn) = (Arc::clone(&arrival), Arc::clone(&gate), spawn.clone());
        let (active, closer, stop) = (busy.begin(), closer.clone(), stop.clone());
        let unanswered = resets.begin();
        // hyper drops what it was asked to switch and did not, instead of closing it in order.
        let drops = request.headers().contains_key(::http::header::UPGRADE);
        async move {
            let mut response = answer(arrival, request, endpoint, &gate, spawn).await;
            unanswered.answered();
            stall::watch(response.body().silence(silence));
            let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            let drops = drops && !switched;
            if client == Version::Http1 && stop.is_cancelled() && !switched {
                let fields = response.headers_mut();
                fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| match drops {
                true => body.under(active).closing(closer),
                false => body.under(active),
            }))
        }
    });
    let stopping = async {
        stop.cancelled().await;
        match client {
            // Whoever asks meanwhile is told with the answer that it is the last. Closed without one,
            // nobody could know that nothing was done.
            Version::Http1 => tokio::time::sleep(FIRST).await,
            Version::Http2 => {
                let _asked_or_not = tokio::time::timeout(FIRST, asked.cancelled()).await;
            }
        }
    };
    let over = async {
        tokio::select! {
            () = stopping => {}
            () = busy.idle(IDLE) => {}
            () = resets.flooded() => {}
        }
    };
    let served = match client {
        Version::Http1 => {
            let io = TokioIo::new(Front::new(io, Arc::clone(&gate), silence));
            let connection = http1().serve_connection(io, service).with_upgrades();
            drive(connection, |c| c.graceful_shutdown(), over).await
        }
        Version::Http2 => {
            let io = TokioIo::new(io);
            let connection = http2(spawn.clone()).serve_connection(io, service);
            drive(connection, |c| c.graceful_shutdown(), over).await
        }
    };
    if let Err(e) = served {
        if e.is_parse() {
            // It was answered as what it is, and the answer shall arrive.
            closer.in_order();
        }
        // Each request that was under way has told of itself.
        debug!(src.addr = %arrival.client.source, error = %chain(&e), "HTTP connection ended early");
    }
    // What a request has become goes on: a WebSocket, for one.
    tasks.finish().await;
}

/// Drives a connection to its end, which begins when it is `over`.
async fn drive<F>(
    connection: F,
    close: impl FnOnce(Pin<&mut F>),
    over: impl Future<Output = ()>,
) -> hyper::Result<()>
where
    F: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        served = &mut connection => served,
        () = over => {
            close(connection.as_mut());
            connection.await
        }
    }
}

/// Answers one request, in the terms of the version that its client speaks.
async fn answer<C: Connector + Clone>(
    arrival: Arc<Arrival<C>>,
    request: Request<Incoming>,
    endpoint: Version,
    gate: &Gate,
    spawn: Spawn,
) -> Response<Download> {
    let (mut parts, body) = request.into_parts();
    let http2 = parts.version == ::http::Version::HTTP_2;
    let fault = match http2 {
        true => fault::of_http2(&parts),
        false => gate.fault(&parts),
    };
    if let Some(fault) = fault {
        parts.extensions.insert(fault);
    }
    let bridged = http2 && websocket::receive(&mut parts);
    let upgrades = message::asks_for_websocket(&parts);
    let request = Request::from_parts(parts, body);
    let mut response = Box::pin(exchange::serve(arrival, request, endpoint, spawn)).await;
    if bridged {
        websocket::answer(&mut response);
    } else if upgrades {
        gate.decide(response.status() == StatusCode::SWITCHING_PROTOCOLS);
    }
    response
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(BUFFER)
        .max_headers(framing::FIELDS + 1)
        .timer(TokioTimer::new())
        // It would count while nothing is asked; `front` does it better.
        .header_read_timeout(None);
    builder
}

fn http2(spawn: Spawn) -> http2::Builder<Spawn> {
    let mut builder = http2::Builder::new(spawn);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_pending_accept_reset_streams(RESETS.0)
        .max_local_error_reset_streams(RESETS.1);
    builder
}
