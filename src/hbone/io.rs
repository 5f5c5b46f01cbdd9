//! A tunnel as a byte stream for whoever speaks a protocol through it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tunnel::{Tunnel, TunnelError};

/// Bytes taken over from one write at most: what is copied waits for the network.
const WRITE: usize = 64 << 10;

/// A [`Tunnel`] to read from and write to. The peer is let send more as what it sent is read.
///
/// Dropped before it was shut down it resets the tunnel, unless its [`Closer`] says otherwise.
///
/// # Cancel safety
/// Reads and writes lose nothing when their futures are dropped.
#[derive(Debug)]
pub struct TunnelIo {
    /// There until it is dropped.
    tunnel: Option<Tunnel>,
    held: Bytes,
    in_order: Arc<AtomicBool>,
}

/// Says how a stream ends that is in somebody else's hands.
#[derive(Clone, Debug)]
pub struct Closer(Arc<AtomicBool>);

impl Closer {
    /// Whatever was written is whole: it shall arrive, and then the end.
    pub fn in_order(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl TunnelIo {
    /// Reads from and writes to `tunnel`.
    pub fn new(tunnel: Tunnel) -> Self {
        Self {
            tunnel: Some(tunnel),
            held: Bytes::new(),
            in_order: Arc::default(),
        }
    }

    /// What may say how it ends.
    pub fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.in_order))
    }

    fn tunnel(&mut self) -> io::Result<&mut Tunnel> {
        self.tunnel
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for TunnelIo {
    fn drop(&mut self) {
        if let Some(tunnel) = self.tunnel.take()
            && self.in_order.load(Ordering::Relaxed)
        {
            tunnel.close();
        }
    }
}

fn broken(error: TunnelError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for TunnelIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.held.is_empty() {
            match ready!(this.tunnel()?.poll_read(cx)).map_err(broken)? {
                Some(bytes) => this.held = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = this.held.len().min(buf.remaining());
        buf.put_slice(this.held.get(..taken).unwrap_or_default());
        this.held.advance(taken);
        this.tunnel()?.release(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let wanted = buf.len().min(WRITE);
        let room = ready!(self.tunnel()?.poll_capacity(cx, wanted)).map_err(broken)?;
        let Some(taken) = buf.get(..room).filter(|taken| !taken.is_empty()) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        self.tunnel()?.send(Bytes::copy_from_slice(taken));
        Poll::Ready(Ok(room))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tunnel = self.tunnel()?;
        // Idle, it keeps no room that its neighbours could use.
        tunnel.unreserve();
        tunnel.poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tunnel = self.tunnel()?;
        tunnel.unreserve();
        tunnel.finish();
        let flushed = tunnel.poll_flush(cx).map_err(broken);
        // A reset now would overtake what has been written.
        self.in_order.store(true, Ordering::Relaxed);
        flushed
    }
}
