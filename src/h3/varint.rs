//! Integers of one, two, four or eight bytes, whose first two bits tell which (RFC 9000 §16).

use bytes::BufMut;

/// The largest there is, 2⁶²−1.
pub(super) const MAX: u64 = (1 << 62) - 1;

/// Bytes that `value` takes.
pub(super) const fn size(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Bytes of the integer that begins with `first`.
pub(super) const fn size_from(first: u8) -> usize {
    1 << (first >> 6)
}

/// Writes `value`, at most [`MAX`], as short as it goes.
pub(super) fn put(value: u64, out: &mut impl BufMut) {
    debug_assert!(value <= MAX, "no varint holds {value}");
    match size(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(0x4000 | value as u16),
        4 => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64((0b11 << 62) | value & MAX),
    }
}

/// The integer that `bytes` begins with, and how many of them it takes; `None` while some are
/// missing.
pub(super) fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let (first, _) = bytes.split_first()?;
    let size = size_from(*first);
    let rest = bytes.get(1..size)?;
    let begin = u64::from(first & 0x3f);
    let value = rest.iter().fold(begin, |v, b| v << 8 | u64::from(*b));
    Some((value, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 9000, appendix A.1.
        for (bytes, want) in [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            assert_eq!(read(bytes), Some((want, bytes.len())), "{bytes:x?}");
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), None, "{cut} of {bytes:x?}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0..=MAX, shift in 0u32..62, rest: u8) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(value, &mut bytes);
            prop_assert_eq!(bytes.len(), size(value));
            prop_assert_eq!(size_from(bytes[0]), size(value));
            bytes.push(rest);
            prop_assert_eq!(read(&bytes), Some((value, size(value))));
        }
    }
}
