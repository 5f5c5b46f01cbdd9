//! Why a step of a comparison did not work.

use std::io;
use std::time::Duration;

use lateen::rig::RigError;

/// What went wrong, told once, beside the contender or the figure it concerns.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The rig did not come up.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// The kernel refused something.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program, or somebody's answer, was not what it should be.
    #[error("{doing}: {said}")]
    Said {
        /// What was being done.
        doing: String,
        /// What came instead.
        said: String,
    },
    /// A step took too long.
    #[error("{doing} was not done within {} s", within.as_secs())]
    Late {
        /// What was being done.
        doing: String,
        /// How long it was given.
        within: Duration,
    },
}

impl Fault {
    /// The kernel refused `doing`.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// `doing` brought `said` instead.
    pub(crate) fn said(doing: impl Into<String>, said: impl Into<String>) -> Self {
        Self::Said {
            doing: doing.into(),
            said: said.into(),
        }
    }
}
