//! Types of records (RFC 1035 §3.2.2 and its successors).

use std::fmt;
use std::str::FromStr;

/// What is asked for, or what a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u16);

/// Those that have a name here: the ones that programs ask for. Every other goes by its number.
const NAMED: [(&str, u16); 16] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("NAPTR", 35),
    ("DNAME", 39),
    ("DS", 43),
    ("DNSKEY", 48),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("ANY", 255),
];

impl Kind {
    /// IPv4 addresses.
    pub const A: Self = Self(1);
    /// Authorities.
    pub(super) const NS: Self = Self(2);
    /// Another name for the same.
    pub(super) const CNAME: Self = Self(5);
    /// Where an authority begins.
    pub(super) const SOA: Self = Self(6);
    /// The name of an address.
    pub(super) const PTR: Self = Self(12);
    /// Mail exchangers.
    pub const MX: Self = Self(15);
    /// IPv6 addresses.
    pub const AAAA: Self = Self(28);
    /// Another name for all below (RFC 6672).
    pub(super) const DNAME: Self = Self(39);
    /// What is said of the exchange itself (RFC 6891).
    pub(super) const OPT: Self = Self(41);

    /// Its name, for counting: `other` where it has none, so that nobody makes up labels.
    pub fn label(self) -> &'static str {
        let named = NAMED.iter().find(|(_, number)| *number == self.0);
        named.map_or("other", |(name, _)| name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.label() {
            "other" => write!(f, "TYPE{}", self.0),
            name => f.write_str(name),
        }
    }
}

/// The text is no type of record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no type of DNS record; write one such as A, AAAA, MX, or TYPE65")]
pub struct KindError(String);

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        let upper = text.to_ascii_uppercase();
        let named = NAMED.iter().find(|(name, _)| *name == upper);
        let number = named.map(|(_, number)| *number);
        let number = number.or_else(|| upper.strip_prefix("TYPE")?.parse().ok());
        number.map(Self).ok_or_else(|| KindError(text.to_owned()))
    }
}
