//! Names as they are sent: labels behind their lengths (RFC 1035 §3.1).

use std::fmt;

/// Octets of a name with its lengths (RFC 1035 §2.3.4).
pub(super) const LONGEST: usize = 255;
/// Octets of a label.
const LONGEST_LABEL: usize = 63;

/// A whole name. Its letters are as they came, and mean the same whether large or small.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// A name in dots, absolute whether it ends in one or not; `None` where it is too long or has an
    /// empty label.
    pub fn of(text: &str) -> Option<Self> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        let text = text.strip_suffix('.').unwrap_or(text);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            let fits = (1..=LONGEST_LABEL).contains(&label.len());
            let length = u8::try_from(label.len()).ok().filter(|_| fits)?;
            wire.push(length);
            wire.extend(label.as_bytes());
        }
        wire.push(0);
        (wire.len() <= LONGEST).then(|| Self(wire.into()))
    }

    /// From what was read, which is whole.
    pub(super) fn of_wire(wire: Vec<u8>) -> Self {
        Self(wire.into())
    }

    /// As it is sent.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The same in small letters, for looking up. Lengths are less than the first letter.
    pub fn folded(&self) -> Self {
        Self(self.0.to_ascii_lowercase().into())
    }

    /// Whether both mean the same.
    pub fn is(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// In dots and small letters, without one at the end; `None` where a label holds what no host name
    /// of ours does, so that no two names read the same.
    pub fn host(&self) -> Option<String> {
        let mut text = String::with_capacity(self.0.len());
        for label in self.labels() {
            let plain = |b: &u8| b.is_ascii_graphic() && *b != b'.' && *b != b'\\';
            if !label.iter().all(plain) {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        }
        Some(text)
    }

    fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let label = after
                .get(..usize::from(*length))
                .filter(|l| !l.is_empty())?;
            rest = &after[label.len()..];
            Some(label)
        })
    }
}

/// As RFC 4343 §2.1 has it: what is no plain character is escaped, so that a log line stays one.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut any = false;
        for label in self.labels() {
            for byte in label {
                match byte {
                    b'.' | b'\\' | b'"' => write!(f, "\\{}", char::from(*byte))?,
                    b if b.is_ascii_graphic() => write!(f, "{}", char::from(*b))?,
                    other => write!(f, "\\{other:03}")?,
                }
            }
            f.write_str(".")?;
            any = true;
        }
        if any { Ok(()) } else { f.write_str(".") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let longest = format!(
            "{}.{}",
            ["a".repeat(63).as_str(); 3].join("."),
            "b".repeat(61)
        );
        for (text, host, shown) in [
            ("", Some(""), "."),
            (".", Some(""), "."),
            ("Cart.Shop", Some("cart.shop"), "Cart.Shop."),
            ("cart.shop.", Some("cart.shop"), "cart.shop."),
            ("_http._tcp.x", Some("_http._tcp.x"), "_http._tcp.x."),
            ("a b", None, "a\\032b."),
            ("a\nlevel=error", None, "a\\010level=error."),
            ("ü", None, "\\195\\188."),
            (&longest, Some(&*longest), &format!("{longest}.")),
        ] {
            let name = Name::of(text).unwrap_or_else(|| panic!("{text:?}"));
            assert_eq!(name.host().as_deref(), host, "{text:?}");
            assert_eq!(name.to_string(), shown, "{text:?}");
            assert!(name.is(&name.folded()), "{text:?}");
        }
        let too_long = format!("{longest}c");
        for text in ["a..b", ".a", "a..", &"a".repeat(64), &too_long] {
            assert_eq!(Name::of(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_dot_within_a_label_is_no_other_name() {
        let odd = Name::of_wire(b"\x09cart.shop\0".to_vec());
        assert_eq!(odd.host(), None);
        assert_eq!(odd.to_string(), "cart\\.shop.");
        assert!(!odd.is(&Name::of("cart.shop").unwrap()));
    }
}
