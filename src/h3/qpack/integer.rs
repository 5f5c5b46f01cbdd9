//! Integers that begin in the last bits of a byte (RFC 9204 §4.1.1, RFC 7541 §5.1).

use bytes::BufMut;

/// The largest taken, as QPACK requires at least (RFC 9204 §4.1.1).
const MAX: u64 = (1 << 62) - 1;

/// Writes `value` into the last `bits` bits of a byte that begins with `flags`, and after it.
pub(super) fn put(value: u64, bits: u32, flags: u8, out: &mut impl BufMut) {
    let full = (1 << bits) - 1;
    if value < full {
        return out.put_u8(flags | value as u8);
    }
    out.put_u8(flags | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.put_u8(0x80 | rest as u8);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// Takes an integer whose first byte holds it in its last `bits` bits; `None` if it is cut short
/// or larger than any we take.
pub(super) fn take(bytes: &mut &[u8], bits: u32) -> Option<u64> {
    let (first, mut rest) = bytes.split_first()?;
    let full = (1u8 << bits) - 1;
    let mut value = u64::from(first & full);
    if value == u64::from(full) {
        let mut shift = 0;
        loop {
            let (next, after) = rest.split_first()?;
            rest = after;
            // Nine bytes hold more than the largest.
            if shift > 56 {
                return None;
            }
            value += u64::from(next & 0x7f) << shift;
            shift += 7;
            if next & 0x80 == 0 {
                break;
            }
        }
    }
    *bytes = rest;
    (value <= MAX).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541, appendices C.1.1 and C.1.2.
        for (value, bits, want) in [(10, 5, &[0x0a][..]), (1337, 5, &[0x1f, 0x9a, 0x0a])] {
            let mut bytes = Vec::new();
            put(value, bits, 0, &mut bytes);
            assert_eq!(bytes, want);
            assert_eq!(take(&mut &want[..], bits), Some(value));
            for cut in 0..want.len() {
                assert_eq!(take(&mut &want[..cut], bits), None, "{cut} of {value}");
            }
        }
    }

    #[test]
    fn integers_have_a_bound() {
        let long = [
            0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x0,
        ];
        let large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        for (name, bytes) in [("zeros without end", &long[..]), ("over 2⁶²", &large)] {
            assert_eq!(take(&mut &bytes[..], 7), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn integers_round_trip(value in 0..=MAX, shift in 0u32..62, bits in 3u32..8, rest: u8) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(value, bits, 0, &mut bytes);
            bytes.push(rest);
            let mut left = &bytes[..];
            prop_assert_eq!(take(&mut left, bits), Some(value));
            prop_assert_eq!(left, &[rest]);
        }
    }
}
