//! How a peer learns at once that a process which it had a connection with is gone: the next one on the port
//! knows the connection by the peer's packets alone, and says so by a token that only somebody with the
//! same secret could have made (RFC 9000 §10.3).

use std::fmt;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag, sign};

/// A secret that processes of a host hand on to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResetKey([u8; Self::LENGTH]);

impl ResetKey {
    /// Bytes of it.
    pub const LENGTH: usize = 32;

    /// The secret as it was kept.
    pub fn new(secret: [u8; Self::LENGTH]) -> Self {
        Self(secret)
    }

    /// What makes the tokens of the connections of one network.
    pub(super) fn tokens(&self, network: &str) -> Key {
        Key::new(HMAC_SHA256, self.derived("tokens", network).as_ref())
    }

    /// What makes its connection ids be known again.
    pub(super) fn ids(&self, network: &str) -> u64 {
        let derived = self.derived("ids", network);
        let first = derived.as_ref().first_chunk();
        first.map_or(0, |first| u64::from_be_bytes(*first))
    }

    fn derived(&self, what: &str, network: &str) -> Tag {
        let key = Key::new(HMAC_SHA256, &self.0);
        sign(&key, format!("{what} of {network}").as_bytes())
    }
}

impl Default for ResetKey {
    /// One that nobody hands on.
    fn default() -> Self {
        Self(rand::random())
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey")
    }
}
