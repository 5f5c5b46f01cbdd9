//! A socket without a wasted system call.

use std::io::{self, IoSlice};
use std::net::Shutdown;

use bytes::{BufMut as _, BytesMut};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::activity;

/// Reads behind what `buffer` holds, up to `limit` bytes and its capacity; 0 at the end.
pub(super) fn read(tcp: &TcpStream, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
    let limit = limit.min(buffer.capacity() - buffer.len());
    full_or_last(tcp, Interest::READABLE, limit, || {
        tcp.try_read_buf(&mut (&mut *buffer).limit(limit))
    })
}

/// Reads into `space`; 0 at the end.
pub(super) fn read_into(tcp: &TcpStream, space: &mut [u8]) -> io::Result<usize> {
    full_or_last(tcp, Interest::READABLE, space.len(), || tcp.try_read(space))
}

/// Writes what the socket takes.
pub(super) fn write(tcp: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let total = slices.iter().map(|s| s.len()).sum();
    full_or_last(tcp, Interest::WRITABLE, total, || {
        tcp.try_write_vectored(slices)
    })
}

/// Moves bytes by one call of `transfer`. When it moved fewer than `all`, the socket has been
/// emptied or filled; noting that spares the call that would only say so: the readiness seen
/// before is cleared, and whatever has happened since has set it anew.
fn full_or_last(
    tcp: &TcpStream,
    interest: Interest,
    all: usize,
    transfer: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    activity::note();
    let mut short = 0;
    let full = tcp.try_io(interest, || match transfer() {
        Ok(moved) if 0 < moved && moved < all => {
            short = moved;
            Err(io::ErrorKind::WouldBlock.into())
        }
        other => other,
    });
    if short > 0 { Ok(short) } else { full }
}

/// Ends our direction towards a program; one that is gone already needs no end.
pub(super) fn finish(tcp: &TcpStream) {
    let _gone = SockRef::from(tcp).shutdown(Shutdown::Write);
}
