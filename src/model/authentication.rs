//! Request authentication: whose tokens a waypoint believes (`spec/waypoint-l7.md` §5).
//!
//! A [`Set`] is the rules that hold for one service behind a waypoint, or for what is addressed to
//! workloads. It is asked what a request's tokens are worth ([`Set::judge`]), by the keys that somebody
//! else keeps ([`Keyring`]). Which steps a token takes and what its failure is called is decided here;
//! what a signature is worth, by the cryptography beneath TLS.

mod algorithm;
#[cfg(test)]
mod corpus;
mod fetching;
mod invalid;
mod keys;
mod locate;
mod set;
#[cfg(test)]
pub(crate) mod testing;
mod token;

use super::attached::PolicyKey;
use super::declaration::{JwtRule, Origin};

pub use fetching::Fetching;
pub use invalid::Invalid;
pub use keys::{Keys, KeysError};
pub use set::{Admitted, Changes, Keyring, Refused, Request, RuleRef, Set};
pub use token::Jwt;

/// A `request-authentication` as waypoints evaluate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Its name.
    pub key: PolicyKey,
    /// Where it was written.
    pub origin: Origin,
    /// Its rules.
    pub rules: Vec<JwtRule>,
}

impl Authentication {
    /// Where a rule of it was written, as `file:line`.
    pub fn place(&self, rule: usize) -> String {
        let line = self.rules.get(rule).map_or(0, |rule| rule.line);
        let line = if line == 0 { self.origin.line } else { line };
        format!("{}:{line}", self.origin.file)
    }

    /// What its rules tell programs in these fields, whoever asks must not.
    pub fn told_headers(&self) -> impl Iterator<Item = &http::HeaderName> {
        self.rules.iter().flat_map(|rule| {
            let claims = rule.claim_headers.iter().map(|told| &told.header);
            rule.payload_header.iter().chain(claims)
        })
    }
}
