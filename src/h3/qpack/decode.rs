//! Reads field sections (RFC 9204 §4.5), bounded by what they are once decoded.

use super::huffman::{self, HuffmanError};
use super::{integer, table};

/// What a field counts beside its bytes (RFC 9114 §4.2.2).
pub(super) const OVERHEAD: u64 = 32;

/// Why a field section is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::h3) enum DecodeError<E> {
    /// It makes no sense, or refers to a dynamic table, of which there is none.
    Malformed,
    /// It is larger than is taken.
    TooLarge,
    /// Whoever was told the fields has refused one.
    Field(E),
}

/// Reads a section of at most `size` bytes decoded, as RFC 9114 §4.2.2 counts them, and of `count`
/// fields; tells each to `field`.
pub(in crate::h3) fn decode<E>(
    mut section: &[u8],
    size: u64,
    count: usize,
    mut field: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<(), DecodeError<E>> {
    prefix(&mut section).ok_or(DecodeError::Malformed)?;
    let (mut left, mut fields) = (size, 0);
    let (mut name, mut value) = (Vec::new(), Vec::new());
    while let Some(first) = section.first() {
        fields += 1;
        left = left.checked_sub(OVERHEAD).ok_or(DecodeError::TooLarge)?;
        if fields > count {
            return Err(DecodeError::TooLarge);
        }
        let (name, value) = match first >> 4 {
            // A number of the static table.
            0b1100..=0b1111 => {
                let indexed = integer::take(&mut section, 6).and_then(table::at);
                let (name, value) = indexed.ok_or(DecodeError::Malformed)?;
                (name.as_bytes(), value.as_bytes())
            }
            // The number of a name there, and a value.
            0b0101 | 0b0111 => {
                let indexed = integer::take(&mut section, 4).and_then(table::at);
                let (name, _) = indexed.ok_or(DecodeError::Malformed)?;
                (name.as_bytes(), string(&mut section, 7, left, &mut value)?)
            }
            // A name and a value.
            0b0010 | 0b0011 => {
                let name = string(&mut section, 3, left, &mut name)?;
                (name, string(&mut section, 7, left, &mut value)?)
            }
            // All others are of the dynamic table.
            _ => return Err(DecodeError::Malformed),
        };
        let length = (name.len() + value.len()) as u64;
        left = left.checked_sub(length).ok_or(DecodeError::TooLarge)?;
        field(name, value).map_err(DecodeError::Field)?;
    }
    Ok(())
}

/// The section's prefix (§4.5.1): no insert may be required, and no base lie below that.
fn prefix(section: &mut &[u8]) -> Option<()> {
    // Of 8 bits; any other number than 0 needs an insert.
    let (inserts, rest) = section.split_first()?;
    *section = rest;
    let below = section.first()? & 0x80 != 0;
    integer::take(section, 7)?;
    (*inserts == 0 && !below).then_some(())
}

/// A string whose length begins in the last `bits` bits, after the one that tells whether it is
/// Huffman-coded.
fn string<'a, 's: 'a, E>(
    section: &mut &'s [u8],
    bits: u32,
    most: u64,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], DecodeError<E>> {
    let first = section.first().ok_or(DecodeError::Malformed)?;
    let coded = first >> bits & 1 == 1;
    let length = integer::take(section, bits).ok_or(DecodeError::Malformed)?;
    let length = usize::try_from(length).map_err(|_odd| DecodeError::Malformed)?;
    let (bytes, rest) = section
        .split_at_checked(length)
        .ok_or(DecodeError::Malformed)?;
    *section = rest;
    if !coded {
        return Ok(bytes);
    }
    scratch.clear();
    let most = usize::try_from(most).unwrap_or(usize::MAX >> 1);
    match huffman::decode(bytes, most, scratch) {
        Ok(()) => Ok(scratch),
        Err(HuffmanError::Malformed) => Err(DecodeError::Malformed),
        Err(HuffmanError::TooLong) => Err(DecodeError::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h3::qpack::Encoder;
    use crate::h3::qpack::huffman::tests::encode;
    use proptest::prelude::*;

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(section: &[u8], size: u64, count: usize) -> Result<Fields, DecodeError<()>> {
        let mut fields = Vec::new();
        decode(section, size, count, |name, value| {
            fields.push((name.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(fields)
    }

    fn field(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (name.into(), value.into())
    }

    #[test]
    fn sections_are_read() {
        // RFC 9204, appendix B.1.
        let index = [&[0x00, 0x00, 0x51, 0x0b][..], b"/index.html"].concat();
        let coded = encode(b"custom-key");
        let literal = [
            &[0, 0, 0b0010_1111, coded.len() as u8 - 7][..],
            &coded,
            &[1, b'v'],
        ]
        .concat();
        for (name, section, want) in [
            (
                "appendix B.1",
                &index[..],
                vec![field(":path", "/index.html")],
            ),
            ("nothing", &[0, 0], vec![]),
            ("a base", &[0, 0x7f, 0x03], vec![]),
            (
                "numbers of one and two bytes",
                &[0, 0, 0xcf, 0xff, 0x00],
                vec![field(":method", "CONNECT"), field(":status", "100")],
            ),
            (
                "a name in Huffman code",
                &literal,
                vec![field("custom-key", "v")],
            ),
            (
                "never to be indexed",
                &[0, 0, 0x70, 1, b'a', 0x31, b'x', 0],
                vec![field(":authority", "a"), field("x", "")],
            ),
        ] {
            assert_eq!(read(section, 1000, 10).as_ref(), Ok(&want), "{name}");
        }
    }

    #[test]
    fn what_needs_a_dynamic_table_is_malformed() {
        for (name, section) in [
            ("empty", &[][..]),
            ("half a prefix", &[0]),
            ("a required insert", &[1, 0]),
            ("a base below zero", &[0, 0x80]),
            ("a dynamic field", &[0, 0, 0x80]),
            ("a dynamic name", &[0, 0, 0x40, 0]),
            ("a field after the base", &[0, 0, 0x10]),
            ("a name after the base", &[0, 0, 0x00, 0]),
            ("a number past the table", &[0, 0, 0xff, 0x24]),
            ("a name past the table", &[0, 0, 0x5f, 0x54, 0]),
            ("a string cut short", &[0, 0, 0x50, 2, b'a']),
            (
                "a length past everything",
                &[0, 0, 0x50, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f],
            ),
            ("a string ill-coded", &[0, 0, 0x50, 0x81, 0x00]),
        ] {
            let want = Err(DecodeError::Malformed);
            assert_eq!(read(section, 1000, 10), want, "{name}");
        }
    }

    #[test]
    fn sections_are_bounded_by_what_they_are_decoded() {
        // One byte on the wire, 36 decoded: `age: 0` is 3 + 1 + 32.
        let ages = |n: usize| [vec![0, 0], vec![0xc2; n]].concat();
        let zeros = encode(&[b'0'; 80]);
        let long = [&[0, 0, 0x52, 0x80 | zeros.len() as u8][..], &zeros].concat();
        let large = Err(DecodeError::TooLarge);
        for (name, section, size, count, want) in [
            ("fits", ages(10), 360, 10, Ok(10)),
            ("a byte too many", ages(10), 359, 10, large),
            ("a field too many", ages(11), 1000, 10, large),
            ("nothing is left", ages(11), 370, 20, large),
            ("fits, coded", long.clone(), 115, 10, Ok(1)),
            ("a byte too many, coded", long, 114, 10, large),
        ] {
            let got = read(&section, size, count).map(|fields| fields.len());
            assert_eq!(got, want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn sections_round_trip(fields: Vec<(Vec<u8>, Vec<u8>)>) {
            let mut encoder = Encoder::new();
            fields.iter().for_each(|(name, value)| encoder.field(name, value));
            let (section, size) = encoder.finish();
            let got = read(&section, size, fields.len());
            prop_assert_eq!(got.as_ref(), Ok(&fields));
            if let Some(less) = size.checked_sub(1) {
                prop_assert_eq!(read(&section, less, fields.len()), Err(DecodeError::TooLarge));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, cut in 0usize..40) {
            let _read = read(&bytes, 65536, 128);
            let numbers = [&[0, 0][..], &bytes].concat();
            let _read = read(&numbers[..numbers.len().min(cut)], 65536, 128);
            let _read = read(&numbers, 65536, 128);
        }
    }
}
