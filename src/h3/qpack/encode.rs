//! Writes field sections (RFC 9204 §4.5): by number where the static table has the field, else by
//! number and value, else whole. Nothing is Huffman-coded: heads are short, and come once a stream.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::integer;
use super::table::{self, Found};

/// The field section being written.
pub(in crate::h3) struct Encoder {
    out: BytesMut,
    size: u64,
}

impl Encoder {
    pub(in crate::h3) fn new() -> Self {
        let mut out = BytesMut::with_capacity(256);
        // No insert of the dynamic table is required, nor is there a base to count from (§4.5.1).
        out.put_slice(&[0, 0]);
        Self { out, size: 0 }
    }

    /// Appends a field; its name is in lower case.
    pub(in crate::h3) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.size += (name.len() + value.len()) as u64 + super::decode::OVERHEAD;
        match table::find(name, value) {
            Some(Found::Field(index)) => integer::put(index, 6, 0b1100_0000, &mut self.out),
            Some(Found::Name(index)) => {
                integer::put(index, 4, 0b0101_0000, &mut self.out);
                self.string(value, 7, 0);
            }
            None => {
                self.string(name, 3, 0b0010_0000);
                self.string(value, 7, 0);
            }
        }
    }

    fn string(&mut self, string: &[u8], bits: u32, flags: u8) {
        integer::put(string.len() as u64, bits, flags, &mut self.out);
        self.out.put_slice(string);
    }

    /// The section, and its size as a peer counts it that bounds it (RFC 9114 §4.2.2).
    pub(in crate::h3) fn finish(self) -> (Bytes, u64) {
        (self.out.freeze(), self.size)
    }
}
