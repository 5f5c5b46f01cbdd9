//! Percent-encoding (RFC 3986 §2.1).

use std::borrow::Cow;

/// The octet that is written at the beginning of a text, as `%` and two hex digits.
pub(super) fn octet(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = *text else {
        return None;
    };
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

/// A text, every octet of it decoded once. What is no octet stays; what is no UTF-8 is U+FFFD.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let octet = octet(rest);
        bytes.push(octet.unwrap_or(*first));
        rest = if octet.is_some() { &rest[3..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// A text in which every octet is encoded that is not unreserved (§2.3 there).
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_decoded_once() {
        for (text, want) in [
            ("plain", "plain"),
            ("a%20b%c3%A4", "a bä"),
            ("%2541", "%41"),
            ("%", "%"),
            ("%4", "%4"),
            ("%4g%zz", "%4g%zz"),
            ("%ff", "\u{fffd}"),
            ("a+b", "a+b"),
        ] {
            assert_eq!(decoded(text), want, "{text}");
        }
    }
}
