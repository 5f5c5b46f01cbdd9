//! Who the keeper and the proxy run as, and what they may do.
//!
//! The capture rules know the proxy's sockets by the user who opened them and their mark. That user
//! is the keeper's, which has just the capabilities that namespaces, rules and marked sockets take;
//! the proxy has none. Without a keeper one process is both (DESIGN §7). None of it may run as
//! somebody whom workloads run as.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{self, DumpableBehavior, Gid, Uid, getgid, getuid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// How the proxy's own packets are told from the workloads'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// By the user who owns the socket, and its mark.
    Uid(u32),
    /// By mark: only where a user namespace maps a single user, as an unprivileged rig's does.
    Mark,
}

impl Exemption {
    /// What whoever runs the proxy should know about it, for the log.
    pub fn caution(self) -> Option<&'static str> {
        match self {
            Self::Uid(_) => None,
            Self::Mark => Some(
                "this user namespace maps a single user, so the rules tell the proxy's packets by \
                 their mark, which a program with NET_RAW can forge: good for a rig, not for \
                 programs one does not trust",
            ),
        }
    }
}

/// Why this process cannot be a node's proxy.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Capabilities are missing.
    #[error(
        "{who} needs {missing}; start it as root, or by systemd with AmbientCapabilities={missing}"
    )]
    Missing {
        /// What needs them.
        who: &'static str,
        /// Their names, joined by spaces.
        missing: String,
    },
    /// Root's programs are everywhere.
    #[error(
        "the proxy cannot run as root, nor can the keeper: whatever root runs in a workload's \
         namespace would go uncaptured; set `user`, or `keeper-user`, in lateen.toml to a user of \
         its own"
    )]
    Root,
    /// The user namespace this runs in does not know the user or group.
    #[error(
        "user {uid} or group {gid} is not mapped in this user namespace; set `user`, or \
         `keeper-user`, in lateen.toml to one that is"
    )]
    Unmapped {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
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

/// What rules and marks take, and to enter namespaces.
const KEEPER: [(CapabilitySet, &str); 2] = [
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
];
/// What the one process that is both has always asked for.
const BOTH: [(CapabilitySet, &str); 3] = [
    KEEPER[0],
    KEEPER[1],
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
];

/// How rules can know a proxy that runs as user `uid` here.
///
/// # Errors
/// [`PrivilegeError::Root`], and when /proc does not read.
pub fn exemption(uid: u32) -> Result<Exemption, PrivilegeError> {
    let path = "/proc/self/uid_map";
    let map = fs::read_to_string(path).map_err(|source| PrivilegeError::Proc { path, source })?;
    choose(uid, users(&map))
}

fn choose(uid: u32, users: u64) -> Result<Exemption, PrivilegeError> {
    match (users, uid) {
        // There is no other user to become, and whoever is here is it.
        (0 | 1, _) => Ok(Exemption::Mark),
        (_, 0) => Err(PrivilegeError::Root),
        (_, uid) => Ok(Exemption::Uid(uid)),
    }
}

/// How many users a user namespace maps (user_namespaces(7)).
fn users(map: &str) -> u64 {
    let lengths = map.lines().filter_map(|l| l.split_whitespace().nth(2));
    lengths.filter_map(|l| l.parse::<u64>().ok()).sum()
}

/// Becomes the keeper: as root, changes to user `uid` and group `gid` and keeps only the
/// capabilities needed; as anyone else, stays that user and checks that they are there. What this
/// process starts inherits them, and nothing it starts can gain more.
///
/// The kernel keeps all of this by thread: to be called before any thread is started.
///
/// # Errors
/// [`PrivilegeError`], naming what is missing.
pub fn become_keeper(uid: u32, gid: u32) -> Result<Exemption, PrivilegeError> {
    become_privileged("the keeper", &KEEPER, uid, gid)
}

/// Becomes the proxy that is its own keeper, in the same way.
///
/// # Errors
/// [`PrivilegeError`], naming what is missing.
pub fn become_both(uid: u32, gid: u32) -> Result<Exemption, PrivilegeError> {
    become_privileged("the node role", &BOTH, uid, gid)
}

/// Becomes the proxy of a keeper: as root, changes to user `uid` and group `gid`; whoever it is, gives
/// up every capability, and every way to gain one again, for this process and what it starts.
///
/// The kernel keeps this by thread: to be called before any thread is started.
///
/// # Errors
/// [`PrivilegeError`].
pub fn become_proxy(uid: u32, gid: u32) -> Result<(), PrivilegeError> {
    let root = getuid().is_root();
    let uid = if root { uid } else { getuid().as_raw() };
    let exemption = exemption(uid)?;
    alone()?;
    let failed = |source: io::Error| PrivilegeError::Become { uid, source };
    empty_bounding_set().map_err(failed)?;
    if root && exemption != Exemption::Mark {
        change_user(uid, gid)?;
    }
    match powerless() {
        // A unit without any may not even be allowed to ask for fewer.
        true => thread::set_no_new_privs(true).map_err(|e| failed(e.into()))?,
        false => relinquish().map_err(failed)?,
    }
    // Else programs of the same user could look into its memory, where the keys are.
    let hidden = process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    hidden.map_err(|e| failed(e.into()))
}

/// Whether this process can be a proxy that is its own keeper.
pub fn is_both() -> bool {
    check("the node role", &BOTH).is_ok()
}

fn become_privileged(
    who: &'static str,
    needed: &[(CapabilitySet, &str)],
    uid: u32,
    gid: u32,
) -> Result<Exemption, PrivilegeError> {
    let root = getuid().is_root();
    let uid = if root { uid } else { getuid().as_raw() };
    let exemption = exemption(uid)?;
    check(who, needed)?;
    alone()?;
    if root && exemption != Exemption::Mark {
        change_user(uid, gid)?;
    }
    keep_capabilities(needed).map_err(|source| PrivilegeError::Become { uid, source })?;
    Ok(exemption)
}

fn check(who: &'static str, needed: &[(CapabilitySet, &str)]) -> Result<(), PrivilegeError> {
    let have = thread::capabilities(None).map_err(|source| PrivilegeError::Proc {
        path: "this thread's capabilities",
        source: source.into(),
    })?;
    let lacks = |(capability, _): &&(CapabilitySet, &str)| !have.permitted.contains(*capability);
    let missing: Vec<&str> = needed.iter().filter(lacks).map(|(_, name)| *name).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(PrivilegeError::Missing {
            who,
            missing: missing.join(" "),
        }),
    }
}

/// Whether this thread has no capability, and can have none.
fn powerless() -> bool {
    let none = |sets: CapabilitySets| {
        let all = sets.effective | sets.permitted | sets.inheritable;
        all.is_empty()
    };
    thread::capabilities(None).is_ok_and(none)
}

/// Takes every capability from what a program that is started could ever gain, where that is
/// allowed. Where it is not, this process has none itself, and none are gained without privileges
/// that are new.
fn empty_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last one that this kernel has; or not allowed.
            Err(Errno::INVAL | Errno::PERM) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn alone() -> Result<(), PrivilegeError> {
    let path = "/proc/self/task";
    let tasks = fs::read_dir(path).map_err(|source| PrivilegeError::Proc { path, source })?;
    match tasks.count() {
        1 => Ok(()),
        threads => Err(PrivilegeError::Threads { threads }),
    }
}

fn change_user(uid: u32, gid: u32) -> Result<(), PrivilegeError> {
    let failed = |source: Errno| match source {
        Errno::INVAL => PrivilegeError::Unmapped { uid, gid },
        source => PrivilegeError::Become {
            uid,
            source: source.into(),
        },
    };
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // Else the change takes all capabilities with it.
    thread::set_keep_capabilities(true).map_err(failed)?;
    thread::set_thread_groups(&[]).map_err(failed)?;
    thread::set_thread_res_gid(group, group, group).map_err(failed)?;
    thread::set_thread_res_uid(user, user, user).map_err(failed)?;
    debug_assert_eq!((getuid(), getgid()), (user, group));
    Ok(())
}

/// Keeps the needed capabilities, for the programs we run as well, and drops all others.
fn keep_capabilities(needed: &[(CapabilitySet, &str)]) -> io::Result<()> {
    let mut keep = CapabilitySet::empty();
    for (capability, _name) in needed {
        keep |= *capability;
    }
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: keep,
    };
    thread::set_capabilities(None, sets)?;
    for (capability, _name) in needed {
        thread::configure_capability_in_ambient_set(*capability, true)?;
    }
    // Ambient capabilities survive this; set-user-ID programs lose their point.
    thread::set_no_new_privs(true)?;
    Ok(())
}

/// Gives up every capability of this thread, for it and for what it starts, for good.
pub(super) fn relinquish() -> io::Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    // Where there is nothing to give up, a filter of system calls may forbid to try.
    if thread::capabilities(None)? != sets {
        // What is not permitted and inheritable is not ambient either.
        thread::set_capabilities(None, sets)?;
    }
    // Else a program that starts as root would gain them all again.
    Ok(thread::set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_for_namespaces_of_one_user() {
        let whole = "         0          0 4294967295\n";
        let rootless = "0 1000 1\n1 100000 65536\n";
        for (name, map, uid, want) in [
            ("the host", whole, 998, Some(Exemption::Uid(998))),
            ("the host's root", whole, 0, None),
            ("one user", "0 65534 1\n", 0, Some(Exemption::Mark)),
            (
                "one user, another asked",
                "0 65534 1\n",
                998,
                Some(Exemption::Mark),
            ),
            ("not mapped yet", "", 998, Some(Exemption::Mark)),
            ("a range of users", rootless, 998, Some(Exemption::Uid(998))),
            ("a range of users, root", rootless, 0, None),
        ] {
            assert_eq!(choose(uid, users(map)).ok(), want, "{name}");
        }
    }

    #[test]
    fn a_process_with_threads_is_refused() {
        // The harness has started one for this test, or runs it on its only one.
        let threads = fs::read_dir("/proc/self/task").unwrap().count();
        assert_eq!(alone().is_ok(), threads == 1);
    }
}
