//! Field sections as QPACK writes them without a dynamic table (RFC 9204): our table's capacity is
//! 0 and no stream may be blocked, so a section never waits for another stream and a peer cannot
//! make us keep anything.

mod decode;
mod encode;
mod huffman;
mod integer;
mod table;

pub(super) use decode::{DecodeError, decode};
pub(super) use encode::Encoder;
