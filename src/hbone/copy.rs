//! Carries a TCP connection through a tunnel, or through another TCP connection: both directions
//! in one task, each end's half-close kept, a reset kept a reset (`spec/hbone-dataplane.md` §1.5).
//!
//! A direction holds no buffer while it is idle: one is made when bytes are there and room is too,
//! as large as the flow so far deserves.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;

use super::tunnel::{Tunnel, TunnelError};

/// Bytes gathered from a tunnel before they are written to the program at once.
const BATCH: usize = 256 << 10;
/// Pieces gathered, the most one `writev` takes in a single go here.
const PIECES: usize = 16;

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
/// Dropping the future resets the tunnel and closes the program's connection; bytes read from one
/// end and not yet written to the other are lost, as with any cut connection.
pub async fn relay(
    tcp: TcpStream,
    mut tunnel: Tunnel,
    traffic: &Traffic,
) -> Result<(), RelayError> {
    let mut forth = Uplink::default();
    let mut back = Downlink::default();
    let outcome = poll_fn(|cx| {
        let up = forth.poll(cx, &tcp, &mut tunnel, &traffic.forth)?;
        let down = back.poll(cx, &tcp, &mut tunnel, &traffic.back)?;
        match (up, down) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await;
    if outcome.is_err() {
        tunnel.abort();
        reset(tcp);
    }
    outcome
}

/// Moves bytes between two TCP connections, by the same rules.
///
/// # Errors
/// [`RelayError::Program`] for either side.
///
/// # Cancel safety
/// As [`relay`].
pub async fn relay_tcp(
    mut a: TcpStream,
    mut b: TcpStream,
    traffic: &Traffic,
) -> Result<(), RelayError> {
    let mut forth = Pipe::default();
    let mut back = Pipe::default();
    let outcome = poll_fn(|cx| {
        let up = forth.poll(cx, &mut a, &mut b, &traffic.forth)?;
        let down = back.poll(cx, &mut b, &mut a, &traffic.back)?;
        match (up, down) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await;
    if outcome.is_err() {
        reset(a);
        reset(b);
    }
    outcome
}

/// Closes a connection so that its program sees a reset, never an orderly end.
pub(crate) fn reset(tcp: TcpStream) {
    // Without the option the close is a plain one: worse to the program, harmless to us.
    let _best_effort = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
    drop(tcp);
}

/// Buffer sizes grow with the flow and never shrink (§1.5).
fn buffer_size(moved: u64) -> usize {
    match moved {
        0..0x2_0000 => 4 << 10,
        0x2_0000..0xA0_0000 => 16 << 10,
        _ => 256 << 10,
    }
}

/// Program to tunnel.
#[derive(Default)]
struct Uplink {
    done: bool,
}

impl Uplink {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &TcpStream,
        tunnel: &mut Tunnel,
        moved: &AtomicU64,
    ) -> Poll<Result<(), RelayError>> {
        while !self.done {
            let broke = |source| RelayError::Program { source };
            ready!(tcp.poll_read_ready(cx)).map_err(broke)?;
            let size = buffer_size(moved.load(Ordering::Relaxed));
            let room = ready!(tunnel.poll_capacity(cx, size))?;
            let mut buffer = BytesMut::with_capacity(room);
            match tcp.try_read_buf(&mut buffer) {
                Ok(0) => {
                    tunnel.finish()?;
                    self.done = true;
                }
                Ok(read) => {
                    moved.fetch_add(read as u64, Ordering::Relaxed);
                    tunnel.send(buffer.freeze())?;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(broke(e))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Tunnel to program.
#[derive(Default)]
struct Downlink {
    waiting: VecDeque<Bytes>,
    held: usize,
    ended: bool,
    done: bool,
}

impl Downlink {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &TcpStream,
        tunnel: &mut Tunnel,
        moved: &AtomicU64,
    ) -> Poll<Result<(), RelayError>> {
        while !self.done {
            let starved = self.gather(cx, tunnel)?;
            if self.waiting.is_empty() {
                if self.ended {
                    self.done = true;
                    // A program that is gone already needs no end.
                    let _gone = SockRef::from(tcp).shutdown(Shutdown::Write);
                    break;
                }
                debug_assert!(starved, "nothing waits, so the tunnel had nothing");
                return Poll::Pending;
            }
            let broke = |source| RelayError::Program { source };
            ready!(tcp.poll_write_ready(cx)).map_err(broke)?;
            match self.write(tcp) {
                Ok(written) => {
                    moved.fetch_add(written as u64, Ordering::Relaxed);
                    tunnel.release(written);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(broke(e))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what the tunnel has, up to a batch; whether it had too little for one.
    fn gather(&mut self, cx: &mut Context<'_>, tunnel: &mut Tunnel) -> Result<bool, TunnelError> {
        while !self.ended && self.held < BATCH && self.waiting.len() < PIECES {
            match tunnel.poll_read(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Ok(Some(bytes))) if bytes.is_empty() => {}
                Poll::Ready(Ok(Some(bytes))) => {
                    self.held += bytes.len();
                    self.waiting.push_back(bytes);
                }
                Poll::Ready(Ok(None)) => self.ended = true,
                Poll::Ready(Err(e)) => return Err(e),
            }
        }
        Ok(false)
    }

    fn write(&mut self, tcp: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES];
        for (slice, bytes) in slices.iter_mut().zip(&self.waiting) {
            *slice = IoSlice::new(bytes);
        }
        let count = self.waiting.len().min(PIECES);
        let written = tcp.try_write_vectored(slices.get(..count).unwrap_or_default())?;
        self.held -= written;
        let mut left = written;
        while left > 0 {
            let Some(front) = self.waiting.front_mut() else {
                break;
            };
            let taken = left.min(front.len());
            front.advance(taken);
            left -= taken;
            if front.is_empty() {
                self.waiting.pop_front();
            }
        }
        Ok(written)
    }
}

/// One direction between two TCP connections.
#[derive(Default)]
struct Pipe {
    buffer: BytesMut,
    ended: bool,
    done: bool,
}

impl Pipe {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        moved: &AtomicU64,
    ) -> Poll<Result<(), RelayError>> {
        let broke = |source| RelayError::Program { source };
        while !self.done {
            if self.buffer.is_empty() && !self.ended {
                // Gives the memory back while idle.
                self.buffer = BytesMut::new();
                ready!(from.poll_read_ready(cx)).map_err(broke)?;
                self.buffer
                    .reserve(buffer_size(moved.load(Ordering::Relaxed)));
                match from.try_read_buf(&mut self.buffer) {
                    Ok(0) => self.ended = true,
                    Ok(read) => {
                        moved.fetch_add(read as u64, Ordering::Relaxed);
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(e) => return Poll::Ready(Err(broke(e))),
                }
            }
            if !self.buffer.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer));
                self.buffer.advance(written.map_err(broke)?);
            } else if self.ended {
                self.done = true;
                // A program that is gone already needs no end.
                let _gone = SockRef::from(&*to).shutdown(Shutdown::Write);
            }
        }
        Poll::Ready(Ok(()))
    }
}
