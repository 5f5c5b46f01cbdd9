//! Large buffers that exist only while there is something in them: a connection that is idle holds
//! none, and one that is busy does not ask the allocator for each of its writes.

use std::ops::Range;

use crate::hbone::memory::Block;

/// Eight full TLS records, which hold the largest frame a relay sends, and room for two more. With
/// what a relay reads it stays in a processor's second-level cache.
pub(super) const SIZE: usize = 10 * RECORD;
/// The longest TLS 1.3 record that carries no padding: 2^14 bytes, header, content type and tag
/// (RFC 8446 §5.2).
pub(super) const RECORD: usize = PLAIN + 22;
/// The most bytes of an application in one record (RFC 8446 §5.1).
pub(super) const PLAIN: usize = 1 << 14;
/// What little is kept in.
const SMALL: usize = 1 << 10;
/// Bytes in the order they came. Holds memory only while it holds bytes or is being filled.
#[derive(Default)]
pub(super) struct Buffer {
    memory: Option<Block>,
    filled: Range<usize>,
}

impl Buffer {
    pub(super) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// How many more bytes fit behind those it holds.
    pub(super) fn room(&self) -> usize {
        self.memory.as_ref().map_or(SIZE, |m| m.bytes().len()) - self.filled.end
    }

    /// What it holds.
    pub(super) fn filled(&self) -> &[u8] {
        let memory = self.memory.as_ref().map(Block::bytes).unwrap_or_default();
        memory.get(self.filled.clone()).unwrap_or_default()
    }

    /// What it holds, to be worked on in place.
    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        let memory = self.memory.as_mut().map(Block::bytes_mut);
        let memory = memory.unwrap_or_default();
        memory.get_mut(self.filled.clone()).unwrap_or_default()
    }

    /// Moves what it holds to the front of the usual memory, so that all its room lies behind it.
    pub(super) fn spread(&mut self) {
        if self.memory.as_ref().is_some_and(|m| m.bytes().len() < SIZE) {
            self.move_to(SIZE);
        } else if let Some(memory) = &mut self.memory
            && self.filled.start > 0
        {
            memory.bytes_mut().copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
    }

    /// The room behind what it holds; [`Buffer::fill`] tells how much of it was used.
    pub(super) fn space(&mut self) -> &mut [u8] {
        let memory = self.memory.get_or_insert_with(|| Block::of(SIZE));
        memory
            .bytes_mut()
            .get_mut(self.filled.end..)
            .unwrap_or_default()
    }

    /// Makes room for at least `bytes`, beyond the usual size if need be.
    pub(super) fn reserve(&mut self, bytes: usize) {
        if self.room() < bytes {
            self.move_to((self.filled.len() + bytes).max(SIZE));
        }
    }

    /// Moves what it holds to other memory, which must have room for it.
    fn move_to(&mut self, size: usize) {
        let mut other = Block::of(size);
        let held = self.filled();
        let length = held.len();
        other.bytes_mut()[..length].copy_from_slice(held);
        self.memory = Some(other);
        self.filled = 0..length;
    }

    /// Counts the first `bytes` of the space as held.
    pub(super) fn fill(&mut self, bytes: usize) {
        self.filled.end += bytes;
        self.settle();
    }

    /// Forgets the first `bytes` of what it holds.
    pub(super) fn discard(&mut self, bytes: usize) {
        self.filled.start += bytes;
        self.settle();
    }

    /// Keeps a little in little memory, while more of it may be long in coming.
    pub(super) fn rest(&mut self) {
        let large = self
            .memory
            .as_ref()
            .is_some_and(|m| m.bytes().len() > SMALL);
        if large && self.filled.len() <= SMALL {
            self.move_to(SMALL);
        }
    }

    /// Gives the memory away when there is nothing in it.
    fn settle(&mut self) {
        if self.filled.is_empty() {
            self.filled = 0..0;
            self.memory = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_memory_with_the_last() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.room(), SIZE);
        buffer.space()[..6].copy_from_slice(b"abcdef");
        buffer.fill(6);
        buffer.discard(4);
        assert_eq!(buffer.filled(), b"ef");
        assert_eq!(buffer.room(), SIZE - 6);
        buffer.spread();
        assert_eq!(buffer.room(), SIZE - 2);
        buffer.reserve(SIZE);
        assert_eq!((buffer.filled(), buffer.room()), (&b"ef"[..], SIZE));
        buffer.discard(2);
        assert!(buffer.is_empty() && buffer.memory.is_none());
        buffer.space();
        buffer.fill(0);
        assert!(buffer.memory.is_none(), "nothing came");
        buffer.space()[..3].copy_from_slice(b"ghi");
        buffer.fill(3);
        buffer.rest();
        assert_eq!((buffer.filled(), buffer.room()), (&b"ghi"[..], SMALL - 3));
        buffer.spread();
        assert_eq!((buffer.filled(), buffer.room()), (&b"ghi"[..], SIZE - 3));
    }
}
