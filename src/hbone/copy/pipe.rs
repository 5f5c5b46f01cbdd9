//! One direction between two TCP connections.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::net::TcpStream;

use super::RelayError;
use super::broke;
use super::pace::Pace;
use crate::hbone::socket;

#[derive(Default)]
pub(super) struct Pipe {
    buffer: BytesMut,
    pace: Pace,
    ended: bool,
    done: bool,
}

impl Pipe {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        moved: &AtomicU64,
    ) -> Poll<Result<(), RelayError>> {
        while !self.done {
            if !self.buffer.is_empty() {
                ready!(self.write(cx, to))?;
            } else if self.ended {
                self.buffer = BytesMut::new();
                socket::finish(to);
                self.done = true;
            } else {
                ready!(self.read(cx, from, moved))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        moved: &AtomicU64,
    ) -> Poll<Result<(), RelayError>> {
        if from.poll_read_ready(cx).map_err(broke)?.is_pending() {
            // Gives the memory back while idle.
            self.buffer = BytesMut::new();
            return Poll::Pending;
        }
        let room = self.pace.size();
        self.buffer.reserve(room);
        match socket::read(from, &mut self.buffer, room) {
            Ok(0) => self.ended = true,
            Ok(read) => {
                moved.fetch_add(read as u64, Ordering::Relaxed);
                self.pace.note(read, room);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(broke(e))),
        }
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<Result<(), RelayError>> {
        ready!(to.poll_write_ready(cx)).map_err(broke)?;
        match socket::write(to, &[IoSlice::new(&self.buffer)]) {
            Ok(written) => self.buffer.advance(written),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(broke(e))),
        }
        Poll::Ready(Ok(()))
    }
}
