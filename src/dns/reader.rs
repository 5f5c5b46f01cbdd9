//! Reads on from a place in a message. Nothing here takes more than the message has.

use super::HEADER;
use super::name::{LONGEST, Name};

/// Jumps within one name. Each leads to at least one label of a name that was sent whole, and a name
/// has no more labels than this: more of them only cost time.
const JUMPS: usize = LONGEST / 2;

/// A place in a message.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At an offset of the message.
    pub(crate) fn at(message: &'a [u8], at: usize) -> Self {
        Self { message, at }
    }

    /// Where it is.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// The next octets.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    /// A number of 16 bits.
    pub(crate) fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A number of 32 bits.
    pub(crate) fn long(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A name, of which the rest may stand earlier in the message (RFC 1035 §4.1.4).
    pub(crate) fn name(&mut self) -> Option<Name> {
        let mut wire = Vec::with_capacity(32);
        self.each_label(|label| wire.extend(label))?;
        Some(Name::of_wire(wire))
    }

    /// Passes over a name, and tells how many octets it has: of thousands in a message, few are wanted.
    pub(crate) fn pass_name(&mut self) -> Option<usize> {
        let mut octets = 0;
        self.each_label(|label| octets += label.len())?;
        Some(octets)
    }

    /// Every label of a name, with its length before it.
    fn each_label(&mut self, mut tell: impl FnMut(&[u8])) -> Option<()> {
        let (mut at, mut end, mut jumps, mut octets) = (self.at, None, 0, 0);
        // What is referred to stands before what refers to it, to its end: else the one would be
        // another where what follows is.
        let mut before = self.message.len();
        loop {
            let length = *self.message.get(at)?;
            match length & 0xc0 {
                0x00 => {
                    let next = at + 1 + usize::from(length);
                    octets += next - at;
                    let fits = octets <= LONGEST && next <= before;
                    tell(self.message.get(at..next).filter(|_| fits)?);
                    at = next;
                    if length == 0 {
                        self.at = end.unwrap_or(at);
                        return Some(());
                    }
                }
                0xc0 => {
                    let low = *self.message.get(at + 1)?;
                    end.get_or_insert(at + 2);
                    let to = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    jumps += 1;
                    // Only ever back, and never into the header.
                    let back = HEADER <= to && to < at && at + 2 <= before && jumps <= JUMPS;
                    before = at;
                    at = back.then_some(to)?;
                }
                // Reserved (RFC 6891 §5).
                _ => return None,
            }
        }
    }
}
