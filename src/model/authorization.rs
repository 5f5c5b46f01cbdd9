//! L7 policy: what a waypoint lets through, and why not (`spec/labels-and-policy.md` §2.2, §3;
//! `spec/waypoint-l7.md` §4).
//!
//! A [`Set`] is the policies that hold for one service behind a waypoint, or for what is addressed to
//! workloads. It is asked about each request, and about each connection that is no HTTP, by what is
//! known of it ([`Asked`]). Waypoints and `lateen explain` ask the same set.

mod asked;
mod claims;
mod index;
mod remote;
mod rule;
mod set;
mod template;

use super::attached::PolicyKey;
use super::declaration::{Action, Origin, Rule};

pub use asked::{Asked, Http};
pub use claims::Token;
pub use remote::Trusted;
pub use set::{Cause, Denial, Mark, Question, Set, Verdict};

/// An authorization policy as waypoints evaluate it: as it was written, but for trust domains that
/// stand for one another, which are all named (`spec/labels-and-policy.md` §3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Its name.
    pub key: PolicyKey,
    /// Where it was written.
    pub origin: Origin,
    /// What a match means.
    pub action: Action,
    /// Matches are told of and mean nothing.
    pub dry_run: bool,
    /// One of these must match; with none it never matches, and an allowing one still shuts out what
    /// no other allows.
    pub rules: Vec<Rule>,
}
