//! From a program to its tunnel.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::RelayError;
use super::broke;
use super::pace::Pace;
use crate::hbone::memory::Block;
use crate::hbone::socket;
use crate::hbone::tunnel::Tunnel;

#[derive(Default)]
pub(super) struct Uplink {
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
                // While it waits, for bytes or for room, the peer may give up.
                ready!(tunnel.poll_unwanted(cx))?;
                self.done = true;
            }
        }
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
        // Of the few sizes that there are blocks of, though the peer may take less.
        let mut block = Block::of(self.pace.block());
        let space = block.bytes_mut().get_mut(..room).unwrap_or_default();
        match socket::read_into(tcp, space) {
            Ok(0) => {
                tunnel.finish();
                self.done = true;
            }
            Ok(read) => {
                moved.fetch_add(read as u64, Ordering::Relaxed);
                self.pace.note(read, room);
                tunnel.send(bytes(block, read));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(broke(e))),
        }
        Poll::Ready(Ok(()))
    }
}

/// What was read. A block mostly empty is copied from: kept until the peer has made room, it would
/// pin many times the bytes that flow control counts.
fn bytes(block: Block, read: usize) -> Bytes {
    match block.bytes().get(..read) {
        Some(few) if 2 * read < block.bytes().len() => Bytes::copy_from_slice(few),
        _ => block.share(read),
    }
}
