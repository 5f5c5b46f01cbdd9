//! Who the proxy runs as, and what it may do.
//!
//! The capture rules know the proxy by its user, so it must run as one that no workload runs as,
//! with just the capabilities that namespaces, rules and marked sockets take (DESIGN §7).

use std::fs;
use std::io;

use rustix::process::{Gid, Uid, getgid, getuid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// How the proxy's own packets are told from the workloads'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// By the user who owns the socket.
    Uid(u32),
    /// By mark: only where a user namespace maps a single user, as an unprivileged rig's does.
    Mark,
}

/// Why this process cannot be a node's proxy.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Capabilities are missing.
    #[error(
        "the node role needs {missing}; start it as root, or by systemd with AmbientCapabilities={missing}"
    )]
    Missing {
        /// Their names, joined by spaces.
        missing: String,
    },
    /// Changing the user failed.
    #[error("cannot become user {uid}")]
    Become {
        /// The user.
        uid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Other threads would keep their old user.
    #[error("the user must be changed before any thread is started; there are {threads}")]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// /proc does not read.
    #[error("cannot read {path}")]
    Proc {
        /// The file.
        path: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
];

/// Becomes the proxy: as root, changes to user `uid` and keeps only the capabilities needed; as
/// anyone else, checks that they are there. To be called before any thread is started.
///
/// # Errors
/// [`PrivilegeError`], naming what is missing.
pub fn become_proxy(uid: u32) -> Result<Exemption, PrivilegeError> {
    check()?;
    if single_user()? {
        keep_capabilities(uid)?;
        return Ok(Exemption::Mark);
    }
    if getuid().is_root() {
        change_user(uid)?;
    }
    keep_capabilities(uid)?;
    Ok(Exemption::Uid(getuid().as_raw()))
}

fn check() -> Result<(), PrivilegeError> {
    let have = thread::capabilities(None).map_err(|source| PrivilegeError::Proc {
        path: "this thread's capabilities",
        source: source.into(),
    })?;
    let lacks = |(capability, _): &&(CapabilitySet, &str)| !have.permitted.contains(*capability);
    let missing: Vec<&str> = NEEDED.iter().filter(lacks).map(|(_, name)| *name).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(PrivilegeError::Missing {
            missing: missing.join(" "),
        }),
    }
}

/// Whether the user namespace maps a single user, so that there is no other to become.
fn single_user() -> Result<bool, PrivilegeError> {
    let path = "/proc/self/uid_map";
    let map = fs::read_to_string(path).map_err(|source| PrivilegeError::Proc { path, source })?;
    let mut count: u64 = 0;
    for line in map.lines() {
        let length = line.split_whitespace().nth(2);
        count += length.and_then(|l| l.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(count == 1)
}

fn change_user(uid: u32) -> Result<(), PrivilegeError> {
    let path = "/proc/self/task";
    let tasks = fs::read_dir(path).map_err(|source| PrivilegeError::Proc { path, source })?;
    let threads = tasks.count();
    if threads != 1 {
        return Err(PrivilegeError::Threads { threads });
    }
    let failed = |source: rustix::io::Errno| PrivilegeError::Become {
        uid,
        source: source.into(),
    };
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    thread::set_keep_capabilities(true).map_err(failed)?;
    thread::set_thread_groups(&[]).map_err(failed)?;
    thread::set_thread_res_gid(group, group, group).map_err(failed)?;
    thread::set_thread_res_uid(user, user, user).map_err(failed)?;
    debug_assert_eq!((getuid(), getgid()), (user, group));
    Ok(())
}

/// Keeps the needed capabilities, for the programs we run as well, and drops all others.
fn keep_capabilities(uid: u32) -> Result<(), PrivilegeError> {
    let failed = |source: rustix::io::Errno| PrivilegeError::Become {
        uid,
        source: source.into(),
    };
    let mut keep = CapabilitySet::empty();
    for (capability, _name) in NEEDED {
        keep |= capability;
    }
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: keep,
    };
    thread::set_capabilities(None, sets).map_err(failed)?;
    for (capability, _name) in NEEDED {
        thread::configure_capability_in_ambient_set(capability, true).map_err(failed)?;
    }
    Ok(())
}
