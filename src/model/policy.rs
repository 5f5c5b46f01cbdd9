//! L4 policy: what a node proxy lets in, and why not (`spec/labels-and-policy.md`).
//!
//! [`compile`](super::compile) makes [`Policy`]s of what the operator declared; a [`Guard`] is those
//! that hold for one workload, and gives the [`Verdict`]. Nodes and `lateen explain` ask the same
//! guard.

mod guard;
mod pattern;
mod rule;

pub use guard::{Cause, Considered, Denial, Guard, Policies, Rehearsal, Verdict};
pub use pattern::{Pattern, PatternError};
pub use rule::{Clause, Effect, Match, Peer, Policy, Request, Rule, Scope, ServiceAccount, Values};
