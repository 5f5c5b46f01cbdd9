//! Blocks of memory that are used again and again. What an allocator gives back to the system
//! costs a page fault for each of its pages when it is next wanted, which is more than moving the
//! bytes that go into them.

use std::cell::RefCell;
use std::mem;

use bytes::Bytes;

/// Blocks a thread keeps of each size for those who need one next.
const SPARE: usize = 8;
/// Sizes kept, at the most. Whoever asks for others than the usual ones does so seldom.
const SIZES: usize = 6;

thread_local! {
    static SPARES: RefCell<Vec<Shelf>> = const { RefCell::new(Vec::new()) };
}

struct Shelf {
    size: usize,
    blocks: Vec<Box<[u8]>>,
}

/// Memory of a fixed size, with whatever was in it before.
#[derive(Debug)]
pub(super) struct Block {
    memory: Box<[u8]>,
}

impl Block {
    /// A block of this size. Callers use few sizes.
    pub(super) fn of(size: usize) -> Self {
        let spare = SPARES.try_with(|shelves| {
            let mut shelves = shelves.borrow_mut();
            let shelf = shelves.iter_mut().find(|s| s.size == size)?;
            shelf.blocks.pop()
        });
        let memory = spare.ok().flatten();
        Self {
            memory: memory.unwrap_or_else(|| vec![0; size].into_boxed_slice()),
        }
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory
    }

    /// All of it, to be written to.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// The first `length` bytes, to be shared; the block is used again when the last holder has let
    /// go of them.
    pub(super) fn share(self, length: usize) -> Bytes {
        let length = length.min(self.memory.len());
        Bytes::from_owner(Filled {
            block: self,
            length,
        })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let memory = mem::take(&mut self.memory);
        // While a thread ends it keeps none.
        let _ended = SPARES.try_with(|shelves| keep(&mut shelves.borrow_mut(), memory));
    }
}

fn keep(shelves: &mut Vec<Shelf>, memory: Box<[u8]>) {
    let size = memory.len();
    let place = shelves.iter().position(|s| s.size == size);
    let place = place.unwrap_or(shelves.len());
    if place == shelves.len() {
        if size == 0 || place == SIZES {
            return;
        }
        let blocks = Vec::with_capacity(SPARE);
        shelves.push(Shelf { size, blocks });
    }
    let Some(shelf) = shelves.get_mut(place) else {
        return;
    };
    if shelf.blocks.len() < SPARE {
        shelf.blocks.push(memory);
    }
}

struct Filled {
    block: Block,
    length: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.block.bytes().get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_once_nobody_shares_it() {
        const SIZE: usize = 12_345;
        let mut block = Block::of(SIZE);
        block.bytes_mut()[..3].copy_from_slice(b"abc");
        let place = block.bytes().as_ptr();
        let shared = block.share(3);
        let part = shared.slice(1..);
        drop(shared);
        let other = Block::of(SIZE);
        assert_ne!(other.bytes().as_ptr(), place, "still shared");
        assert_eq!(&part[..], b"bc");
        drop(part);
        assert_eq!(Block::of(SIZE).bytes().as_ptr(), place);
        drop(other);
    }

    #[test]
    fn a_thread_keeps_only_so_many() {
        let shelf = |shelves: &[Shelf]| shelves.iter().map(|s| s.blocks.len()).collect::<Vec<_>>();
        let mut shelves = Vec::new();
        for _ in 0..2 * SPARE {
            keep(&mut shelves, vec![0; 10].into());
        }
        for size in 20..40 {
            keep(&mut shelves, vec![0; size].into());
        }
        assert_eq!(shelf(&shelves), [SPARE, 1, 1, 1, 1, 1]);
    }
}
