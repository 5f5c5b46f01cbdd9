//! Stands before hyper on an HTTP/1 connection: hands it one whole head at a time, and in place of
//! one that is refused a stand-in, which the service knows by its mark and answers.
//!
//! hyper itself reads heads more leniently than `spec/waypoint-l7.md` §1.5 (both a length and a
//! coding, fragments in targets), and answers what it does refuse without telling anybody. Its
//! timer for heads also runs while nothing is asked.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::fault::Fault;
use super::framing::{Body, Head};

/// From the first byte of a head to its last (§1.5).
const WHOLE: Duration = Duration::from_secs(10);
/// Bytes read at once where they may be those of a head.
const READ: usize = 8 << 10;
/// Carries the mark of a stand-in.
const MARK: HeaderName = HeaderName::from_static("x-lateen-refused");

/// What the two ends of hyper tell each other around it.
#[derive(Debug)]
pub(super) struct Gate {
    /// What no client can know.
    mark: HeaderValue,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    upgrade: Upgrade,
    waiting: Option<Waker>,
}

/// What becomes of a request to become a WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Upgrade {
    #[default]
    Undecided,
    Switched,
    Refused,
}

impl Default for Gate {
    fn default() -> Self {
        let mark = format!("{:032x}", rand::random::<u128>());
        Self {
            // Hexadecimal digits are a value, always.
            mark: HeaderValue::from_str(&mark).unwrap_or(HeaderValue::from_static("")),
            state: Mutex::default(),
        }
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a request was refused, if it is a stand-in.
    pub(super) fn fault(&self, parts: &Parts) -> Option<Fault> {
        let stands_in = parts.headers.get(&MARK) == Some(&self.mark);
        self.lock().fault.filter(|_| stands_in)
    }

    /// Tells what became of a request to become a WebSocket.
    pub(super) fn decide(&self, switched: bool) {
        let mut state = self.lock();
        state.upgrade = match switched {
            true => Upgrade::Switched,
            false => Upgrade::Refused,
        };
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
    }

    fn poll_decided(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        match state.upgrade {
            Upgrade::Undecided => {
                state.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            Upgrade::Switched => Poll::Ready(true),
            Upgrade::Refused => Poll::Ready(false),
        }
    }
}

/// Where in its requests a connection is.
#[derive(Debug)]
enum At {
    Head(Head),
    Body {
        body: Body,
        upgrades: bool,
    },
    /// Nobody knows yet whether what comes is HTTP.
    Switching,
    /// No HTTP any more.
    Stream,
    /// The last head was refused: its answer ends the connection.
    Refused,
    /// A body broke: so does the connection.
    Broken,
}

/// A connection as hyper may read it. Of writing it only sees to it that the client goes on to read what
/// it has asked for.
///
/// # Cancel safety
/// Reads lose nothing when their futures are dropped.
#[derive(Debug)]
pub(super) struct Front<T> {
    io: T,
    gate: Arc<Gate>,
    at: At,
    /// Received, and not handed on.
    inbox: BytesMut,
    /// Of these, what may be handed on.
    passing: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Longest time in which a client takes nothing of an answer.
    silence: Duration,
    /// Its end, while there is something that the client does not take.
    stalled: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl<T: AsyncRead + Unpin> Front<T> {
    /// Stands before whoever reads `io`.
    pub(super) fn new(io: T, gate: Arc<Gate>, silence: Duration) -> Self {
        Self {
            io,
            gate,
            at: At::Head(Head::default()),
            inbox: BytesMut::new(),
            passing: 0,
            deadline: None,
            silence,
            stalled: None,
            ended: false,
        }
    }

    fn pass(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.passing.min(buf.remaining()).min(self.inbox.len());
        buf.put_slice(self.inbox.get(..count).unwrap_or_default());
        self.inbox.advance(count);
        self.passing -= count;
    }

    /// Puts what answers `fault` in the place of all that has come and will.
    fn refuse(&mut self, fault: Fault) {
        self.gate.lock().fault = Some(fault);
        self.inbox.clear();
        // A method and a target that say, in the log, that nothing was read.
        let head = b"- * HTTP/1.1\r\nhost: -\r\nconnection: close\r\nx-lateen-refused: ";
        self.inbox.extend_from_slice(head);
        self.inbox.extend_from_slice(self.gate.mark.as_bytes());
        self.inbox.extend_from_slice(b"\r\n\r\n");
        self.passing = self.inbox.len();
        self.at = At::Refused;
    }

    /// Reads more into the inbox. True at the client's end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.ended {
            return Poll::Ready(Ok(true));
        }
        let held = self.inbox.len();
        self.inbox.resize(held + READ, 0);
        let mut room = ReadBuf::new(self.inbox.get_mut(held..).unwrap_or_default());
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut room);
        let read = room.filled().len();
        self.inbox.truncate(held + read);
        if self.inbox.is_empty() {
            // Most connections wait most of the time, and need no room for it.
            self.inbox = BytesMut::new();
        }
        ready!(polled)?;
        self.ended = read == 0;
        Poll::Ready(Ok(self.ended))
    }

    /// Reads on until a head is whole or refused. True at the client's end.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let At::Head(head) = &mut self.at else {
            return Poll::Ready(Ok(false));
        };
        match head.read(&self.inbox) {
            Ok(Some(whole)) => {
                self.deadline = None;
                self.passing = whole.length;
                if whole.upgrades {
                    self.gate.lock().upgrade = Upgrade::Undecided;
                }
                self.at = At::Body {
                    body: whole.body,
                    upgrades: whole.upgrades,
                };
                return Poll::Ready(Ok(false));
            }
            Err(fault) => {
                self.refuse(fault);
                return Poll::Ready(Ok(false));
            }
            Ok(None) => {}
        }
        let polled = self.poll_more(cx);
        if polled.is_pending() && !self.inbox.is_empty() {
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(WHOLE)));
            ready!(deadline.as_mut().poll(cx));
            self.refuse(Fault::Slow);
            return Poll::Ready(Ok(false));
        }
        polled
    }

    /// Hands on what of a body has come.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let At::Body { body, upgrades } = &mut self.at else {
            return Poll::Ready(Ok(false));
        };
        if !body.has_ended() {
            if self.inbox.is_empty() {
                // Straight to whoever reads: only what is no part of the body is copied twice.
                let before = buf.filled().len();
                ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
                self.stalled = None;
                let new = buf.filled().get(before..).unwrap_or_default();
                if new.is_empty() {
                    self.ended = true;
                    return Poll::Ready(Ok(true));
                }
                match body.follow(new) {
                    Ok(count) => {
                        let next = new.get(count..).unwrap_or_default();
                        self.inbox.extend_from_slice(next);
                        buf.set_filled(before + count);
                    }
                    Err(_broken) => self.at = At::Broken,
                }
                return Poll::Ready(Ok(true));
            }
            match body.follow(&self.inbox) {
                Ok(count) => self.passing = count,
                Err(_broken) => {
                    self.passing = self.inbox.len();
                    self.at = At::Broken;
                }
            }
            return Poll::Ready(Ok(false));
        }
        self.at = match *upgrades {
            true => At::Switching,
            false => At::Head(Head::default()),
        };
        Poll::Ready(Ok(false))
    }

    /// Holds what comes until it is known what it is.
    fn poll_switching(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match self.gate.poll_decided(cx) {
            Poll::Ready(true) => self.at = At::Stream,
            Poll::Ready(false) if self.inbox.is_empty() => self.at = At::Head(Head::default()),
            // Whoever sent it took it for something else than the next request
            // (`spec/reliability.md` §2 row 30).
            Poll::Ready(false) => {
                self.refuse(Fault::Malformed("bytes before the answer to an upgrade"));
            }
            Poll::Pending if self.inbox.len() >= READ => return Poll::Pending,
            Poll::Pending => return self.poll_more(cx),
        }
        Poll::Ready(Ok(false))
    }
}

impl<T> Front<T> {
    /// What became of a write. What has switched is no answer, and may wait for its client.
    fn patiently(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() || matches!(self.at, At::Stream) {
            self.stalled = None;
            return written;
        }
        let silence = self.silence;
        let end = self.stalled.get_or_insert_with(|| Box::pin(sleep(silence)));
        ready!(end.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Front<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.passing > 0 {
                // A client that sends on is not silent, whatever it reads.
                this.stalled = None;
                this.pass(buf);
                return Poll::Ready(Ok(()));
            }
            let done = match &this.at {
                At::Head(_) => ready!(this.poll_head(cx))?,
                At::Body { .. } => ready!(this.poll_body(cx, buf))?,
                At::Switching => ready!(this.poll_switching(cx))?,
                At::Stream if this.inbox.is_empty() => {
                    return Pin::new(&mut this.io).poll_read(cx, buf);
                }
                At::Stream => {
                    this.passing = this.inbox.len();
                    false
                }
                At::Refused => return Poll::Pending,
                At::Broken => true,
            };
            if done {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Front<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.patiently(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.patiently(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
