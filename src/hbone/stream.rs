//! The byte stream beneath HTTP/2: TLS 1.3 over TCP, made for few and large system calls.
//!
//! It reads as much as the socket has and opens the records in place. What HTTP/2 writes is sealed
//! at once and sent when the connection's task has said all it had to say in this turn
//! ([`Turn::end`]), however many frames of however many tunnels that were.

mod buffer;
mod key;
mod records;
#[cfg(test)]
mod tests;
mod traffic;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::socket;
use crate::sys::{self, Way};
use records::{Records, Shaken, Side};
use traffic::{Opened, broken};

/// Bytes taken from the socket in one turn of the connection's task: then those have theirs who wait
/// for them, while they are still in the processor's cache.
const TURN: usize = 128 << 10;

/// The client's end of a stream.
pub(super) type Client = Stream<UnbufferedClientConnection>;
/// The server's end.
pub(super) type Server = Stream<UnbufferedServerConnection>;

/// A stream whose handshake has passed.
pub(super) struct Stream<S: Side> {
    inner: Arc<Mutex<Inner<S>>>,
}

/// What the connection's task holds of the stream that it has given to HTTP/2.
pub(super) struct Turn<S: Side> {
    inner: Arc<Mutex<Inner<S>>>,
}

/// Looks at a stream's connection for as long as there is one, without keeping it.
pub(super) struct Glance<S: Side> {
    inner: Weak<Mutex<Inner<S>>>,
}

impl<S: Side> Glance<S> {
    /// How its way has been.
    pub(super) fn way(&self) -> Option<Way> {
        let inner = self.inner.upgrade()?;
        let inner = lock(&inner);
        sys::way(inner.tcp.as_fd()).ok()
    }
}

struct Inner<S: Side> {
    tcp: TcpStream,
    records: Records<S>,
    /// The peer's end of TCP has been read.
    drained: bool,
    /// Somebody ends turns, so that writing may wait for that.
    turns: bool,
    /// Bytes received in this turn.
    received: usize,
    /// Bytes sent in it.
    sent: usize,
}

/// Connects over `tcp` to a peer, which proves itself by what `tls` accepts. It hears the name it is
/// called by, unless that is an address.
///
/// # Errors
/// Those of the socket; [`rustls::Error`] as the source of one when the handshake failed.
pub(super) async fn connect(
    tcp: TcpStream,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
) -> io::Result<Client> {
    let session = UnbufferedClientConnection::new(tls, name).map_err(broken)?;
    Stream::open(tcp, session).await
}

/// Accepts a peer over `tcp` by the rules of `tls`.
///
/// # Errors
/// As [`connect`].
pub(super) async fn accept(tcp: TcpStream, tls: Arc<ServerConfig>) -> io::Result<Server> {
    let session = UnbufferedServerConnection::new(tls).map_err(broken)?;
    Stream::open(tcp, session).await
}

impl<S: Side> Stream<S> {
    async fn open(tcp: TcpStream, session: S) -> io::Result<Self> {
        // A delayed acknowledgement must never hold back a frame; a socket that refuses is only slower.
        let _slower = tcp.set_nodelay(true);
        let mut inner = Inner {
            tcp,
            records: Records::new(session),
            drained: false,
            turns: false,
            received: 0,
            sent: 0,
        };
        poll_fn(|cx| inner.poll_handshake(cx)).await?;
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
        })
    }

    /// The certificate by which the peer has proven itself.
    pub(super) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        lock(&self.inner).records.peer_certificate().cloned()
    }

    /// What lets its holder put the stream into turns.
    pub(super) fn turn(&self) -> Turn<S> {
        Turn {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S: Side> Turn<S> {
    /// What looks at the connection.
    pub(super) fn glance(&self) -> Glance<S> {
        Glance {
            inner: Arc::downgrade(&self.inner),
        }
    }

    /// From now on what is written leaves at the end of a turn, which the caller promises to end
    /// each time it has polled whoever writes. Not before somebody does: with nobody to end a turn,
    /// what has come in during it would count for ever.
    pub(super) fn begin(&self) {
        let mut inner = lock(&self.inner);
        inner.turns = true;
        inner.received = 0;
    }

    /// Sends what was written in this turn; tells how many bytes came and went in it. What the socket does not take leaves in a later one, for
    /// which the task is woken; an error is told by the next read or write.
    pub(super) fn end(&self, cx: &mut Context<'_>) -> usize {
        let mut inner = lock(&self.inner);
        let _later = inner.poll_send(cx);
        mem::take(&mut inner.received) + mem::take(&mut inner.sent)
    }
}

fn lock<S: Side>(inner: &Mutex<Inner<S>>) -> MutexGuard<'_, Inner<S>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Side> Inner<S> {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let shaken = self.records.shake();
            let sent = self.poll_send(cx);
            let shaken = shaken.map_err(broken)?;
            if shaken == Shaken::Ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(sent)?;
            if shaken == Shaken::Hands {
                return Poll::Ready(Ok(()));
            }
            if self.drained {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        loop {
            let opened = self.records.open(into);
            let opened = opened.inspect_err(|_fatal| {
                // The alert that says so; the peer may be gone already.
                let _best_effort = self.poll_send(cx);
            });
            match opened.map_err(broken)? {
                Opened::Plain if into.remaining() > 0 => continue,
                Opened::Plain | Opened::Ended => return Poll::Ready(Ok(())),
                Opened::Starved if into.filled().len() > before => return Poll::Ready(Ok(())),
                Opened::Starved => {}
            }
            if self.drained {
                let cut = "the peer closed the connection without ending TLS";
                let cut = io::Error::new(io::ErrorKind::UnexpectedEof, cut);
                return Poll::Ready(Err(cut));
            }
            if self.turns && self.received >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let received = &mut self.records.received;
        loop {
            if self.tcp.poll_read_ready(cx)?.is_pending() {
                received.rest();
                return Poll::Pending;
            }
            received.spread();
            match socket::read_into(&self.tcp, received.space()) {
                Ok(bytes) => {
                    received.fill(bytes);
                    self.received += bytes;
                    self.drained = bytes == 0;
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => received.fill(0),
                Err(e) => {
                    received.fill(0);
                    return Poll::Ready(Err(e));
                }
            }
        }
    }

    /// Sends all that is sealed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sealed = &mut self.records.sealed;
        while !sealed.is_empty() {
            ready!(self.tcp.poll_write_ready(cx))?;
            match socket::write(&self.tcp, &[IoSlice::new(sealed.filled())]) {
                Ok(bytes) => {
                    self.sent += bytes;
                    sealed.discard(bytes);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let bytes = self.records.seal(slices)?;
            if bytes > 0 || slices.iter().all(|s| s.is_empty()) {
                return Poll::Ready(Ok(bytes));
            }
            // Full.
            ready!(self.poll_send(cx))?;
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sealed once; later calls only wait for it to leave.
        if self.records.seal_end().is_ok() || !self.records.sealed.is_empty() {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(match SockRef::from(&self.tcp).shutdown(Shutdown::Write) {
            Err(e) if e.kind() != io::ErrorKind::NotConnected => Err(e),
            _ => Ok(()),
        })
    }
}

impl<S: Side> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        lock(&self.inner).poll_read(cx, buf)
    }
}

impl<S: Side> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.inner).poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.inner).poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.inner);
        if inner.turns {
            return Poll::Ready(Ok(()));
        }
        inner.poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.inner).poll_shutdown(cx)
    }
}
