//! Carries a tunnel to a program behind TLS or a PROXY header, which the relays of bytes know nothing of.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use crate::causes::chain;
use crate::hbone::{Traffic, Tunnel, TunnelIo};
use crate::waypoint::secure::Stream;

/// Moves bytes both ways until both directions have ended.
///
/// # Errors
/// Why they ended early, in words.
pub(super) async fn relay(
    tunnel: Tunnel,
    program: Box<dyn Stream>,
    traffic: &Traffic,
) -> Result<(), String> {
    let mut client = TunnelIo::new(tunnel);
    let mut program = Counted {
        inner: program,
        traffic,
    };
    let moved = copy_bidirectional(&mut client, &mut program).await;
    moved.map(|_totals| ()).map_err(|e| chain(&e))
}

/// Counts what a program is sent and sends, as it goes.
struct Counted<'a> {
    inner: Box<dyn Stream>,
    traffic: &'a Traffic,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = (buffer.filled().len() - before) as u64;
        self.traffic.back.fetch_add(read, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.traffic
                .forth
                .fetch_add(*written as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
