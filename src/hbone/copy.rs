//! Carries a TCP connection through a tunnel, or through another TCP connection: both directions
//! in one task, each end's half-close kept, a reset kept a reset (`spec/hbone-dataplane.md` §1.5).
//!
//! A direction holds no buffer while it is idle: one is made when bytes are there and room is too,
//! as large as the flow deserves.

mod downlink;
mod pace;
mod pipe;
mod through;
mod uplink;

use std::future::{Future, poll_fn};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::tunnel::{Tunnel, TunnelError};
use downlink::Downlink;
use pipe::Pipe;
use through::Through;
use uplink::Uplink;

/// Bytes moved so far; survives the relay, so that a connection that is cut is still accounted.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the first stream of the relay to the second.
    pub forth: AtomicU64,
    /// From the second to the first.
    pub back: AtomicU64,
}

impl Traffic {
    /// Bytes moved forth and back.
    pub fn totals(&self) -> (u64, u64) {
        (
            self.forth.load(Ordering::Relaxed),
            self.back.load(Ordering::Relaxed),
        )
    }
}

/// Why a relay ended before both directions were done.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A program's connection broke; the other end has been reset.
    #[error("connection to the program broke")]
    Program {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The tunnel broke; the program's connection has been reset.
    #[error("the tunnel ended early")]
    Tunnel(#[from] TunnelError),
}

/// Moves bytes both ways until both directions have ended. On an error the other end is reset.
///
/// # Errors
/// [`RelayError`], telling which side broke.
///
/// # Cancel safety
/// Dropping the future resets both ends: bytes read from one and not yet written to the other are
/// lost, and neither program may take what it got for the whole.
pub fn relay(
    tcp: TcpStream,
    mut tunnel: Tunnel,
    traffic: &Traffic,
) -> impl Future<Output = Result<(), RelayError>> + Send {
    // Of what a future takes over it keeps one copy, of what an `async fn` is given two.
    let program = Program::new(tcp);
    let mut forth = Uplink::default();
    let mut back = Downlink::default();
    async move {
        let tcp = &program.tcp;
        let moved = poll_fn(|cx| {
            let up = forth.poll(cx, tcp, &mut tunnel, &traffic.forth);
            let last = up.is_ready();
            // Also when the tunnel broke: the program gets what it takes at once of what came before.
            let down = back.poll(cx, tcp, &mut tunnel, &traffic.back, last);
            both(up?, down?)
        });
        let outcome = tokio::select! {
            biased;
            outcome = moved => outcome,
            broke = broken(tcp) => Err(broke),
        };
        match &outcome {
            Ok(()) => program.close(),
            Err(_) => tunnel.abort(),
        }
        outcome
    }
}

/// Moves bytes between two TCP connections, by the same rules.
///
/// # Errors
/// [`RelayError::Program`] for either side.
///
/// # Cancel safety
/// As [`relay`].
pub fn relay_tcp(
    a: TcpStream,
    b: TcpStream,
    traffic: &Traffic,
) -> impl Future<Output = Result<(), RelayError>> + Send {
    let (a, b) = (Program::new(a), Program::new(b));
    let mut forth = Pipe::default();
    let mut back = Pipe::default();
    async move {
        let moved = poll_fn(|cx| {
            let up = forth.poll(cx, &a.tcp, &b.tcp, &traffic.forth)?;
            let down = back.poll(cx, &b.tcp, &a.tcp, &traffic.back)?;
            both(up, down)
        });
        let outcome = tokio::select! {
            biased;
            outcome = moved => outcome,
            broke = broken(&a.tcp) => Err(broke),
            broke = broken(&b.tcp) => Err(broke),
        };
        if outcome.is_ok() {
            a.close();
            b.close();
        }
        outcome
    }
}

/// Moves bytes between two tunnels, by the same rules.
///
/// # Errors
/// [`RelayError::Tunnel`] for either side.
///
/// # Cancel safety
/// As [`relay`].
pub fn relay_tunnels(
    mut a: Tunnel,
    mut b: Tunnel,
    traffic: &Traffic,
) -> impl Future<Output = Result<(), RelayError>> + Send {
    let mut forth = Through::default();
    let mut back = Through::default();
    async move {
        let outcome = poll_fn(|cx| {
            let up = forth.poll(cx, &mut a, &mut b, &traffic.forth)?;
            let down = back.poll(cx, &mut b, &mut a, &traffic.back)?;
            both(up, down)
        });
        let outcome = outcome.await;
        if outcome.is_err() {
            a.abort();
            b.abort();
        }
        outcome
    }
}

/// Closes a connection so that its program sees a reset, never an orderly end.
pub fn reset(tcp: TcpStream) {
    drop(Program::new(tcp));
}

fn broke(source: io::Error) -> RelayError {
    RelayError::Program { source }
}

fn both(up: Poll<()>, down: Poll<()>) -> Poll<Result<(), RelayError>> {
    match (up, down) {
        (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
        _ => Poll::Pending,
    }
}

/// Waits until a connection is reset or otherwise fails. Reading tells as much, but a direction
/// that waits for its other end does not read, and would keep a dead program's tunnel open.
async fn broken(tcp: &TcpStream) -> RelayError {
    if tcp.ready(Interest::ERROR).await.is_ok()
        && let Ok(Some(source)) = tcp.take_error()
    {
        return RelayError::Program { source };
    }
    // Whoever read or wrote last was told instead.
    std::future::pending().await
}

/// A program's connection, reset when it is dropped instead of closed.
struct Program {
    tcp: TcpStream,
    whole: bool,
}

impl Program {
    fn new(tcp: TcpStream) -> Self {
        Self { tcp, whole: false }
    }

    fn close(mut self) {
        self.whole = true;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.whole {
            // Without the option the close is a plain one: worse to the program, harmless to us.
            let _best_effort = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        }
    }
}
