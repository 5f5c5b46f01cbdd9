//! A program's socket without a wasted system call, and how much to ask of it.

use std::io::{self, IoSlice};
use std::net::Shutdown;

use bytes::{BufMut as _, BytesMut};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::RelayError;

/// First buffer of a flow, and the least.
const SMALL: usize = 1 << 10;
/// After 128 KiB. With its frame header it fills one TLS record and no second one.
const MEDIUM: usize = 16_320;
/// After 10 MiB. Sixteen TLS records with its frame header.
const LARGE: usize = 262_080;

/// How much to read at once: up to what the flow so far deserves (§1.5), down to what the last
/// read found, so that a long-lived flow of short messages costs short buffers.
#[derive(Debug)]
pub(super) struct Pace {
    moved: u64,
    next: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            moved: 0,
            next: SMALL,
        }
    }
}

impl Pace {
    /// Bytes to make room for.
    pub(super) fn size(&self) -> usize {
        self.next
    }

    /// Learns that `read` bytes were found where `room` was given.
    pub(super) fn note(&mut self, read: usize, room: usize) {
        self.moved += read as u64;
        let most = match self.moved {
            0..0x2_0000 => SMALL,
            0x2_0000..0xA0_0000 => MEDIUM,
            _ => LARGE,
        };
        self.next = if read >= room {
            most
        } else {
            (2 * read).clamp(SMALL, most)
        };
    }
}

pub(super) fn broke(source: io::Error) -> RelayError {
    RelayError::Program { source }
}

/// Reads behind what `buffer` holds, up to `limit` bytes and its capacity; 0 at the end.
///
/// A short read has emptied the socket. Noting that spares the call that would only say so: the
/// readiness seen before the read is cleared, and whatever arrived since has set it anew.
pub(super) fn read(tcp: &TcpStream, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
    let limit = limit.min(buffer.capacity() - buffer.len());
    let mut short = 0;
    let full = tcp.try_io(Interest::READABLE, || {
        match tcp.try_read_buf(&mut (&mut *buffer).limit(limit)) {
            Ok(read) if 0 < read && read < limit => {
                short = read;
                Err(io::ErrorKind::WouldBlock.into())
            }
            other => other,
        }
    });
    if short > 0 { Ok(short) } else { full }
}

/// Writes what the socket takes. As with [`read`], a short write has filled it.
pub(super) fn write(tcp: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let total = slices.iter().map(|s| s.len()).sum();
    let mut short = 0;
    let full = tcp.try_io(Interest::WRITABLE, || {
        match tcp.try_write_vectored(slices) {
            Ok(written) if 0 < written && written < total => {
                short = written;
                Err(io::ErrorKind::WouldBlock.into())
            }
            other => other,
        }
    });
    if short > 0 { Ok(short) } else { full }
}

/// Ends our direction towards a program; one that is gone already needs no end.
pub(super) fn finish(tcp: &TcpStream) {
    let _gone = SockRef::from(tcp).shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_follow_the_flow() {
        for (name, reads, want) in [
            ("at first", vec![], SMALL),
            ("full reads below 128 KiB", vec![(1024, 1024); 127], SMALL),
            ("full reads past 128 KiB", vec![(1024, 1024); 128], MEDIUM),
            ("full reads past 10 MiB", vec![(16_320, 16_320); 643], LARGE),
            (
                "short messages past 10 MiB",
                [vec![(16_320, 16_320); 643], vec![(100, LARGE)]].concat(),
                SMALL,
            ),
            (
                "half a buffer past 10 MiB",
                [vec![(16_320, 16_320); 643], vec![(100_000, LARGE)]].concat(),
                200_000,
            ),
            (
                "little room, filled",
                [vec![(16_320, 16_320); 643], vec![(10, 10)]].concat(),
                LARGE,
            ),
        ] {
            let mut pace = Pace::default();
            for (read, room) in reads {
                pace.note(read, room);
            }
            assert_eq!(pace.size(), want, "{name}");
        }
    }
}
