//! DNS messages as bytes (RFC 1035 §4, RFC 6891): read as far as whoever passes them on must, and
//! written as far as whoever answers for addresses must.
//!
//! What is passed on stays the bytes that came, but for what belongs to one exchange alone. So a
//! record of a kind that nobody here knows arrives as it was sent, and no message takes longer to read
//! than its length warrants.

mod answer;
mod code;
mod found;
mod kind;
mod name;
mod query;
mod reader;
mod received;
mod shown;

pub use answer::{addresses, empty};
pub use code::Code;
pub use kind::{Kind, KindError};
pub use name::Name;
pub use query::{Edns, Query, Question, Transport, Unfit, ask};
pub use received::{Heard, Lives, Received, hear};
pub use shown::{Shown, shown};

/// Octets of a message's header.
const HEADER: usize = 12;
/// The class of everything that is of the Internet.
pub const IN: u16 = 1;

/// The second word of a header (RFC 1035 §4.1.1, RFC 2535 §6.1).
mod flag {
    /// It answers.
    pub(super) const RESPONSE: u16 = 0x8000;
    /// Who answers is the authority.
    pub(super) const AUTHORITATIVE: u16 = 0x0400;
    /// It did not fit.
    pub(super) const TRUNCATED: u16 = 0x0200;
    /// Who asks wants it followed up.
    pub(super) const RECURSE: u16 = 0x0100;
    /// Who answers does that.
    pub(super) const RECURSIVE: u16 = 0x0080;
    /// Who answers has checked signatures.
    pub(super) const AUTHENTIC: u16 = 0x0020;
    /// Who asks wants none checked.
    pub(super) const UNCHECKED: u16 = 0x0010;
    /// What kind of question it is; 0 is the usual one.
    pub(super) const OPCODE: u16 = 0x7800;
    /// What became of it.
    pub(super) const CODE: u16 = 0x000f;
}

#[cfg(test)]
pub(crate) mod hostile;
