//! The stream for whoever reads and writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;

/// Bytes taken over from one write at most: what is copied waits for the network.
const WRITE: usize = 64 << 10;

/// # Cancel safety
/// Reads and writes lose nothing when their futures are dropped.
impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            if self.unread.is_empty() {
                match self.poll_data(cx) {
                    Poll::Ready(Ok(Some(bytes))) => self.unread = bytes,
                    Poll::Ready(Ok(None)) => break,
                    // What came before is passed on first; the error is told then.
                    Poll::Ready(Err(error)) if buf.filled().len() == before => {
                        return Poll::Ready(Err(error.into()));
                    }
                    Poll::Pending if buf.filled().len() == before => return Poll::Pending,
                    Poll::Ready(Err(_)) | Poll::Pending => break,
                }
            }
            let some = self.unread.len().min(buf.remaining());
            buf.put_slice(self.unread.get(..some).unwrap_or_default());
            self.unread.advance(some);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx))?;
        let some = buf.get(..buf.len().min(WRITE)).unwrap_or_default();
        if self.inner()?.writer.has_ended() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.put(Bytes::copy_from_slice(some));
        // Whether it has left is asked by the next write.
        let _held = self.poll_ready(cx)?;
        Poll::Ready(Ok(some.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        ready!(self.poll_ready(cx))?;
        Poll::Ready(Ok(()))
    }
}
