//! Response codes (RFC 6895 §2.3).

use std::fmt;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u16);

impl Code {
    /// It was answered, be it with nothing.
    pub const OK: Self = Self(0);
    /// It could not be read.
    pub const FORMAT: Self = Self(1);
    /// Whoever was asked could not find out.
    pub const FAILURE: Self = Self(2);
    /// There is no such name.
    pub const NO_NAME: Self = Self(3);
    /// That is not done here.
    pub const NOT_IMPLEMENTED: Self = Self(4);
    /// Whoever was asked would not say.
    pub const REFUSED: Self = Self(5);
    /// EDNS of a version that is not known (RFC 6891 §9).
    pub const VERSION: Self = Self(16);

    /// Whether it says something of the name, and not of the server that was asked.
    pub fn is_of_the_name(self) -> bool {
        self == Self::OK || self == Self::NO_NAME
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("NOERROR"),
            1 => f.write_str("FORMERR"),
            2 => f.write_str("SERVFAIL"),
            3 => f.write_str("NXDOMAIN"),
            4 => f.write_str("NOTIMP"),
            5 => f.write_str("REFUSED"),
            16 => f.write_str("BADVERS"),
            other => write!(f, "RCODE{other}"),
        }
    }
}
