//! Where a workload is on this host, and how to get at its network (DESIGN §7).

use std::io;
use std::sync::Arc;

use super::netns::Netns;

/// What `capture =` names. Units, users and guests behind an interface are on the host's network
/// and take rules of their own kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A network namespace, by its name under `/run/netns` or an absolute path.
    Netns(Arc<str>),
}

/// Why a workload's network cannot be got at.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Nothing goes by that name, yet or any more.
    #[error(
        "there is no network namespace `{name}`; make it with `ip netns add`, or let whatever runs \
         the workload make it, under /run/netns or at the path given"
    )]
    Missing {
        /// The name.
        name: Arc<str>,
    },
    /// It may not be opened.
    #[error(
        "not allowed to open network namespace `{name}`; a path below another user's /proc/PID \
         takes CAP_SYS_PTRACE, a name under /run/netns does not"
    )]
    Forbidden {
        /// The name.
        name: Arc<str>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is something else, or the system is out of something.
    #[error("cannot open network namespace `{name}`")]
    Open {
        /// The name.
        name: Arc<str>,
        /// What was wrong.
        #[source]
        source: io::Error,
    },
}

impl Target {
    /// Opens the network the workload is on.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::Missing`] may pass when the workload starts.
    pub fn attach(&self) -> Result<Netns, AttachError> {
        let Self::Netns(name) = self;
        let name = Arc::clone(name);
        Netns::named(&name).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => AttachError::Missing { name },
            io::ErrorKind::PermissionDenied => AttachError::Forbidden { name, source },
            _ => AttachError::Open { name, source },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_name_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = file.path().to_str().unwrap();
        for (name, target, want) in [
            ("no such name", "lateen-no-such", "there is no network"),
            ("no such path", "/proc/0/ns/net", "there is no network"),
            ("not a namespace", other, "cannot open"),
            ("not a name", "a/b", "cannot open"),
        ] {
            let error = Target::Netns(target.into()).attach().unwrap_err();
            assert!(error.to_string().starts_with(want), "{name}: {error}");
        }
    }
}
