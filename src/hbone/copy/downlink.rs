//! From a tunnel to its program.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::net::TcpStream;

use super::RelayError;
use super::broke;
use crate::hbone::socket;
use crate::hbone::tunnel::{Tunnel, TunnelError};

/// Bytes gathered from a tunnel before they are written to the program at once. They still count
/// against the stream's window.
const BATCH: usize = 128 << 10;
/// Pieces gathered, all of which one system call takes.
const PIECES: usize = 16;
/// Below it a piece that has others before it is copied to its neighbours rather than kept by
/// itself: a peer that sends byte by byte must not cost us a frame's bookkeeping for each.
const CRUMB: usize = 1 << 10;

/// What waits for the program, in order: `waiting`, then `crumbs`.
#[derive(Default)]
pub(super) struct Downlink {
    waiting: VecDeque<Bytes>,
    crumbs: BytesMut,
    held: usize,
    ended: bool,
    /// How the tunnel broke, told once the program has what came before.
    broke: Option<TunnelError>,
    done: bool,
}

impl Downlink {
    /// Moves what the tunnel has. `last` tells that the other direction has ended, so that the
    /// program's connection will be closed after this one.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &TcpStream,
        tunnel: &mut Tunnel,
        moved: &AtomicU64,
        last: bool,
    ) -> Poll<Result<(), RelayError>> {
        while !self.done {
            self.gather(cx, tunnel);
            if self.held == 0 {
                if let Some(broke) = self.broke.take() {
                    return Poll::Ready(Err(broke.into()));
                }
                if !self.ended {
                    return Poll::Pending;
                }
                // Closing the connection ends this direction too.
                if !last {
                    socket::finish(tcp);
                }
                self.done = true;
                break;
            }
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

    /// Takes what the tunnel has, up to a batch. Returns with less only once the tunnel has ended
    /// or will wake the task.
    fn gather(&mut self, cx: &mut Context<'_>, tunnel: &mut Tunnel) {
        while !self.ended && self.held < BATCH && self.waiting.len() < PIECES {
            match tunnel.poll_read(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(bytes))) => self.keep(bytes),
                Poll::Ready(Ok(None)) => self.ended = true,
                Poll::Ready(Err(e)) => {
                    self.broke = Some(e);
                    self.ended = true;
                }
            }
        }
    }

    fn keep(&mut self, bytes: Bytes) {
        // A last frame may hold nothing but the end.
        if bytes.is_empty() {
            return;
        }
        self.held += bytes.len();
        if bytes.len() < CRUMB && self.held > bytes.len() {
            self.crumbs.extend_from_slice(&bytes);
            return;
        }
        if !self.crumbs.is_empty() {
            self.waiting.push_back(mem::take(&mut self.crumbs).freeze());
        }
        self.waiting.push_back(bytes);
    }

    fn write(&mut self, tcp: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES + 2];
        let pieces = self.waiting.iter().map(|b| &b[..]);
        let pieces = pieces.chain((!self.crumbs.is_empty()).then_some(&self.crumbs[..]));
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let written = socket::write(tcp, slices.get(..count).unwrap_or_default())?;
        self.forget(written);
        Ok(written)
    }

    fn forget(&mut self, written: usize) {
        self.held -= written;
        let mut left = written;
        while left > 0 {
            let Some(front) = self.waiting.front_mut() else {
                self.crumbs.advance(left);
                break;
            };
            let taken = left.min(front.len());
            front.advance(taken);
            left -= taken;
            if front.is_empty() {
                self.waiting.pop_front();
            }
        }
        if self.held == 0 {
            self.crumbs = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the sizes of the pieces and of the writes, order and count are kept.
        #[test]
        fn pieces_leave_as_they_came(
            sizes in proptest::collection::vec(1usize..3000, 1..40),
            writes in proptest::collection::vec(1usize..5000, 1..40),
        ) {
            let mut downlink = Downlink::default();
            let mut byte = 0u8;
            let mut sent = Vec::new();
            let mut got = Vec::new();
            let mut writes = writes.into_iter().cycle();
            let mut drain = |downlink: &mut Downlink, got: &mut Vec<u8>| {
                let all: Vec<u8> = downlink.waiting.iter().flat_map(|b| b.to_vec())
                    .chain(downlink.crumbs.to_vec()).collect();
                assert_eq!(all.len(), downlink.held);
                let written = writes.next().unwrap_or(1).min(all.len());
                got.extend_from_slice(&all[..written]);
                downlink.forget(written);
            };
            for size in sizes {
                let piece: Vec<u8> = (0..size).map(|_| { byte = byte.wrapping_add(1); byte }).collect();
                sent.extend_from_slice(&piece);
                // As `gather` does.
                while downlink.waiting.len() >= PIECES {
                    drain(&mut downlink, &mut got);
                }
                downlink.keep(piece.into());
                let pieces = downlink.waiting.len() + usize::from(!downlink.crumbs.is_empty());
                prop_assert!(pieces <= PIECES + 2, "{pieces} pieces are more than one write takes");
            }
            while downlink.held > 0 {
                drain(&mut downlink, &mut got);
            }
            prop_assert_eq!(sent, got);
        }
    }
}
