//! Conditions: how far what is written is in force, in Istio's words
//! (`spec/labels-and-policy.md` §1.9).

/// Whether something is in force, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Istio's name of the condition.
    pub kind: &'static str,
    /// Whether it is in force in some form.
    pub status: bool,
    /// Istio's word for why.
    pub reason: &'static str,
    /// How what is in force differs from what is written; empty when it does not.
    pub message: String,
}
