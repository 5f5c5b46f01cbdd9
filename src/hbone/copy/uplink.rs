//! From a program to its tunnel.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use super::RelayError;
use super::socket::{self, Pace, broke};
use crate::hbone::tunnel::Tunnel;

#[derive(Default)]
pub(super) struct Uplink {
    buffer: BytesMut,
    pace: Pace,
    done: bool,
}

impl Uplink {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &TcpStream,
        tunnel: &mut Tunnel,
        moved: &AtomicU64,
    ) -> Poll<Result<(), RelayError>> {
        while !self.done {
            if self.step(cx, tcp, tunnel, moved)?.is_pending() {
                self.buffer = BytesMut::new();
                // While it waits, for bytes or for room, the peer may give up.
                ready!(tunnel.poll_unwanted(cx))?;
                self.done = true;
            }
        }
        self.buffer = BytesMut::new();
        // The other direction may be waiting for its program, deaf to a reset.
        let _orderly = tunnel.poll_unwanted(cx)?;
        Poll::Ready(Ok(()))
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &TcpStream,
        tunnel: &mut Tunnel,
        moved: &AtomicU64,
    ) -> Poll<Result<(), RelayError>> {
        if tcp.poll_read_ready(cx).map_err(broke)?.is_pending() {
            // Idle, it keeps no room that its neighbours could use.
            tunnel.unreserve();
            return Poll::Pending;
        }
        let room = ready!(tunnel.poll_capacity(cx, self.pace.size()))?;
        if room == 0 {
            self.done = true;
            return Poll::Ready(Ok(()));
        }
        self.buffer.reserve(room);
        match socket::read(tcp, &mut self.buffer, room) {
            Ok(0) => {
                tunnel.finish();
                self.done = true;
            }
            Ok(read) => {
                moved.fetch_add(read as u64, Ordering::Relaxed);
                self.pace.note(read, room);
                tunnel.send(self.take());
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(broke(e))),
        }
        Poll::Ready(Ok(()))
    }

    /// What was read. A buffer mostly empty is copied: kept until the peer has made room, it would
    /// pin many times the bytes that flow control counts.
    fn take(&mut self) -> Bytes {
        if self.buffer.len() * 2 >= self.buffer.capacity() {
            return mem::take(&mut self.buffer).freeze();
        }
        let bytes = Bytes::copy_from_slice(&self.buffer);
        self.buffer.clear();
        bytes
    }
}
