//! The static Huffman code (RFC 7541, appendix B), of which we read what peers write.
//!
//! The code is canonical: codes of one length follow one another in the order of the symbols, and
//! those of the next length follow them. So the lengths say everything.

/// How many codes there are of each length from 0 to 30 bits.
const COUNTS: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19,
    29, 0, 4,
];

/// The symbols by length of their code, then by value. The end of the string, which is never sent,
/// would be the last.
#[rustfmt::skip]
const SYMBOLS: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57,
    61, 65, 95, 98, 100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71,
    72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119,
    120, 121, 122, 38, 42, 44, 59, 88, 90, 33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91,
    93, 126, 94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161,
    167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136, 146, 154, 156,
    160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1,
    135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174,
    175, 180, 182, 183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225,
    236, 237, 199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242,
    243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252,
    253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28,
    29, 30, 31, 127, 220, 249, 10, 13, 22,];

/// Of the codes of one length: the first after the last of them, at the top of 32 bits, and what
/// takes a code to its place in [`SYMBOLS`].
#[derive(Clone, Copy)]
struct Length {
    end: u64,
    offset: i64,
}

const LENGTHS: [Length; 31] = lengths();

const fn lengths() -> [Length; 31] {
    let mut lengths = [Length { end: 0, offset: 0 }; 31];
    let (mut code, mut symbol, mut bits) = (0u64, 0i64, 0);
    while bits < lengths.len() {
        code <<= 1;
        let offset = symbol - code as i64;
        code += COUNTS[bits] as u64;
        symbol += COUNTS[bits] as i64;
        let end = code << (32 - bits);
        lengths[bits] = Length { end, offset };
        bits += 1;
    }
    lengths
}

/// What is wrong with a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HuffmanError {
    /// It has an end of the string in it, or ends otherwise than in the first bits of one (§5.2).
    Malformed,
    /// It is longer than is taken.
    TooLong,
}

/// Appends what `coded` stands for to `out`, at most `most` bytes.
pub(super) fn decode(coded: &[u8], most: usize, out: &mut Vec<u8>) -> Result<(), HuffmanError> {
    let most = out.len() + most;
    let mut coded = coded.iter();
    // The next bits are the last `held` of `window`.
    let (mut window, mut held) = (0u64, 0u32);
    loop {
        while held < 32
            && let Some(byte) = coded.next()
        {
            window = window << 8 | u64::from(*byte);
            held += 8;
        }
        if held == 0 {
            return Ok(());
        }
        // As if the end of the string followed, all whose bits are set.
        let top = match held {
            0..32 => (window << (32 - held)) | ((1 << (32 - held)) - 1),
            _ => window >> (held - 32),
        } & 0xffff_ffff;
        let length = LENGTHS.iter().position(|l| top < l.end);
        let fits = length.filter(|bits| *bits as u32 <= held);
        let symbol = fits.and_then(|bits| {
            let place = LENGTHS.get(bits)?.offset + (top >> (32 - bits)) as i64;
            SYMBOLS.get(usize::try_from(place).ok()?)
        });
        let (Some(bits), Some(symbol)) = (fits, symbol) else {
            // Less than a byte of padding, of ones.
            let ones = (1 << held.min(8)) - 1;
            return match held < 8 && window & ones == ones {
                true => Ok(()),
                false => Err(HuffmanError::Malformed),
            };
        };
        if out.len() == most {
            return Err(HuffmanError::TooLong);
        }
        out.push(*symbol);
        held -= bits as u32;
        window &= (1 << held) - 1;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The other direction, which only tests need.
    pub(in crate::h3::qpack) fn encode(plain: &[u8]) -> Vec<u8> {
        let (mut bits, mut out) = (Vec::new(), Vec::new());
        for byte in plain {
            let place = SYMBOLS.iter().position(|s| s == byte).unwrap();
            let (mut end, mut length) = (0, 0);
            while end <= place {
                length += 1;
                end += COUNTS[length] as usize;
            }
            let code = place as i64 - LENGTHS[length].offset;
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        for byte in bits.chunks(8) {
            let set = |n: usize| u8::from(byte.get(n).copied().unwrap_or(true)) << (7 - n);
            out.push((0..8).map(set).sum());
        }
        out
    }

    fn hex(text: &str) -> Vec<u8> {
        let text: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        text.chunks(2).map(byte).collect()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541, appendices C.4 and C.6.
        for (plain, coded) in [
            ("www.example.com", "f1e3 c2e5 f23a 6ba0 ab90 f4ff"),
            ("no-cache", "a8eb 1064 9cbf"),
            ("custom-key", "25a8 49e9 5ba9 7d7f"),
            ("custom-value", "25a8 49e9 5bb8 e8b4 bf"),
            ("302", "6402"),
            ("private", "aec3 771a 4b"),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff",
            ),
            (
                "https://www.example.com",
                "9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3",
            ),
            ("307", "640e ff"),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            ),
        ] {
            let coded = hex(coded);
            let mut out = Vec::new();
            assert_eq!(decode(&coded, 100, &mut out), Ok(()), "{plain}");
            assert_eq!(str::from_utf8(&out), Ok(plain));
            assert_eq!(encode(plain.as_bytes()), coded, "{plain}");
        }
    }

    #[test]
    fn every_symbol_has_a_code() {
        let all: Vec<u8> = (0..=255).collect();
        let mut out = Vec::new();
        assert_eq!(decode(&encode(&all), 256, &mut out), Ok(()));
        assert_eq!(out, all);
    }

    #[test]
    fn malformed_strings_are_told() {
        use HuffmanError::{Malformed, TooLong};
        for (name, coded, most, want) in [
            ("nothing", &[][..], 9, Ok(())),
            ("`0` and five ones", &[0x07], 9, Ok(())),
            ("a byte of padding", &[0xff], 9, Err(Malformed)),
            (
                "padding after a whole byte",
                &[0x07, 0xff],
                9,
                Err(Malformed),
            ),
            ("padding of zeros", &[0b0001_1000], 9, Err(Malformed)),
            (
                "an end of string",
                &[0xff, 0xff, 0xff, 0xfc],
                9,
                Err(Malformed),
            ),
            (
                "one byte too many",
                &[0b0000_0000, 0b0011_1111],
                1,
                Err(TooLong),
            ),
            ("just fits", &[0b0000_0000, 0b0011_1111], 2, Ok(())),
        ] {
            let mut out = Vec::new();
            assert_eq!(decode(coded, most, &mut out), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(plain: Vec<u8>) {
            let mut out = Vec::new();
            prop_assert_eq!(decode(&encode(&plain), plain.len(), &mut out), Ok(()));
            prop_assert_eq!(out, plain);
        }

        #[test]
        fn any_bytes_are_read_without_panic(coded: Vec<u8>) {
            let mut out = Vec::new();
            if decode(&coded, usize::MAX >> 1, &mut out).is_ok() {
                prop_assert_eq!(encode(&out), coded);
            }
        }
    }
}
