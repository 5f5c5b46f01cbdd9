//! Why a machine is not let in, each with its stable word.

use std::sync::Arc;

use crate::files::FileError;

/// Why a machine may not join or renew; each is a row of `spec/control-plane.md` §6.2 or §6.3.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No such token, or not its secret.
    #[error("this join token is not known here")]
    TokenUnknown,
    /// Too late.
    #[error("this join token has expired; make a new one with lateen token create")]
    TokenExpired,
    /// Spent by another key.
    #[error("this join token was used {ago} s ago; a token joins one machine once")]
    TokenUsed {
        /// Seconds since then.
        ago: u64,
    },
    /// For another node.
    #[error("this join token is for node {node}, not for {asked}")]
    TokenWrongNode {
        /// The node it is for.
        node: Arc<str>,
        /// The node that asks.
        asked: String,
    },
    /// Taken back.
    #[error("this join token has been revoked")]
    TokenRevoked,
    /// The mesh files know no such node.
    #[error("node {node} is not in the mesh files; add a [[node]] of that name first")]
    NodeUnknown {
        /// The node that asks.
        node: String,
    },
    /// Already joined.
    #[error("node {node} has joined already; to replace it, make the token with --replace")]
    NodeEnrolled {
        /// The node that asks.
        node: String,
    },
    /// Never joined.
    #[error("node {node} has not joined; it needs a join token")]
    NotEnrolled {
        /// The node that asks.
        node: String,
    },
    /// Shut out.
    #[error(
        "node {node} has been revoked; to let it in again, make a token with --replace and join"
    )]
    NodeRevoked {
        /// The node that asks.
        node: String,
    },
    /// A certificate that was replaced.
    #[error("this certificate of node {node} has been replaced by another")]
    Superseded {
        /// The node that asks.
        node: String,
    },
    /// Two machines hold this identity.
    #[error(
        "node {node} renews with a certificate that another machine has replaced: two machines seem to share one identity; make a new token with --replace for the right one"
    )]
    CloneSuspected {
        /// The node that asks.
        node: String,
    },
    /// What was decided could not be made durable.
    #[error(transparent)]
    File(#[from] FileError),
}

impl EnrolError {
    /// The stable word for it, sent beside the message and written to the audit log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TokenUnknown => "TOKEN_UNKNOWN",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::TokenUsed { .. } => "TOKEN_USED",
            Self::TokenWrongNode { .. } => "TOKEN_WRONG_NODE",
            Self::TokenRevoked => "TOKEN_REVOKED",
            Self::NodeUnknown { .. } => "NODE_UNKNOWN",
            Self::NodeEnrolled { .. } => "NODE_ENROLLED",
            Self::NotEnrolled { .. } => "NOT_ENROLLED",
            Self::NodeRevoked { .. } => "NODE_REVOKED",
            Self::Superseded { .. } => "SUPERSEDED",
            Self::CloneSuspected { .. } => "CLONE_SUSPECTED",
            Self::File(_) => "CA_UNAVAILABLE",
        }
    }
}
