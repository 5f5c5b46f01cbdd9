//! Where a workload is on this host, and how to get at its network (DESIGN §7).

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::netns::Netns;

/// The network this process is on, which is the host's.
const HOST: &str = "/proc/thread-self/ns/net";

/// What `capture =` names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Target {
    /// A network namespace, by its name under `/run/netns` or an absolute path.
    Netns(Arc<str>),
    /// A systemd unit on the host's network, by its whole name.
    Unit(Arc<str>),
    /// A cgroup on the host's network, by its path below the root of the cgroups.
    Cgroup(Arc<str>),
    /// Whatever a Unix user runs on the host's network, by name or number.
    User(Arc<str>),
    /// A guest behind an interface of the host, by the interface's name.
    Interface(Arc<str>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Netns(name) => ("network namespace", name),
            Self::Unit(name) => ("unit", name),
            Self::Cgroup(path) => ("cgroup", path),
            Self::User(name) => ("user", name),
            Self::Interface(name) => ("interface", name),
        };
        write!(f, "{kind} `{name}`")
    }
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
    /// Whether it is on the host's own network, whose rules are for all that are.
    pub fn on_host(&self) -> bool {
        match self {
            Self::Netns(_) => false,
            Self::Unit(_) | Self::Cgroup(_) | Self::User(_) | Self::Interface(_) => true,
        }
    }

    /// Opens the network the workload is on; a guest is taken on the host's.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::Missing`] may pass when the workload starts.
    pub fn attach(&self) -> Result<Netns, AttachError> {
        let name = match self {
            Self::Netns(name) => Arc::clone(name),
            Self::Unit(_) | Self::Cgroup(_) | Self::User(_) | Self::Interface(_) => Arc::from(HOST),
        };
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

    #[test]
    fn all_but_namespaces_are_on_the_hosts_network() {
        let host = Netns::current().unwrap();
        for make in [
            Target::Unit,
            Target::Cgroup,
            Target::User,
            Target::Interface,
        ] {
            let target = make(Arc::from("cart"));
            assert!(target.on_host(), "{target}");
            assert_eq!(target.attach().unwrap(), host, "{target}");
        }
        assert!(!Target::Netns(Arc::from("cart")).on_host());
    }
}
