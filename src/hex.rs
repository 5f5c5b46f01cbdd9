//! Bytes as people and file names have them: lower-case hex.

use std::fmt::Write as _;

/// Two digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A string takes whatever is written to it.
        let _taken = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_two_digits() {
        for (bytes, want) in [(&[][..], ""), (&[0, 9, 0xab], "0009ab")] {
            assert_eq!(hex(bytes), want);
        }
    }
}
