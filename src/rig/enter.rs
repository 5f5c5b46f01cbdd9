//! Enters a host of a running rig and becomes a program there. Only for a process of one thread.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType as Kind, move_into_link_name_space};

use super::spec::RunAs;
use super::{RigError, cgroups, record};

/// Becomes `command` inside `place`, which is `HOST` or `HOST/NAMESPACE`. Only returns when that
/// fails.
///
/// # Errors
/// [`RigError`].
pub fn exec(
    state: &Path,
    place: &str,
    identity: &RunAs,
    command: &[String],
) -> Result<(), RigError> {
    enter_as(state, place, identity.unit.as_deref())?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(RigError::Unknown {
            what: "no command to run; write it after --".to_owned(),
        });
    };
    let mut process = Command::new(program);
    process.args(arguments);
    if let Some(user) = identity.user {
        process.uid(user).gid(user);
    }
    let source = process.exec();
    Err(RigError::Run {
        program: program.clone(),
        source,
    })
}

/// Moves this process into `place`.
///
/// # Errors
/// [`RigError`].
pub fn into(state: &Path, place: &str) -> Result<(), RigError> {
    enter_as(state, place, None)
}

/// The same, as a program of a unit there.
fn enter_as(state: &Path, place: &str, unit: Option<&str>) -> Result<(), RigError> {
    let (host, namespace) = match place.split_once('/') {
        Some((host, namespace)) => (host, Some(namespace)),
        None => (place, None),
    };
    let rig = record(state)?;
    let known = rig.hosts.get(host).ok_or_else(|| RigError::Unknown {
        what: format!(
            "the rig has no host `{host}`; it has {}",
            names(rig.hosts.keys())
        ),
    })?;
    if let Some(namespace) = namespace
        && !known.namespaces.iter().any(|n| n == namespace)
    {
        return Err(RigError::Unknown {
            what: format!(
                "host `{host}` has no namespace `{namespace}`; it has {}",
                names(known.namespaces.iter())
            ),
        });
    }
    let here = std::env::current_dir().ok();
    let groups = join(known.pid).map_err(RigError::system("cannot enter the host"))?;
    if let Some(unit) = unit {
        cgroups::join(unit).map_err(RigError::system("cannot become a program of the unit"))?;
    }
    // Last: from inside nobody who is outside can be moved.
    if let Some(groups) = groups {
        let entered = move_into_link_name_space(groups.as_fd(), Some(Kind::ControlGroup));
        let entered = entered.map_err(io::Error::from);
        entered.map_err(RigError::system("cannot enter the host's cgroups"))?;
    }
    if let Some(namespace) = namespace {
        let path = Path::new("/run/netns").join(namespace);
        enter(&path, Kind::Network).map_err(RigError::system("cannot enter the namespace"))?;
    }
    // A directory that is hidden inside the host leaves the root, where entering put us.
    let _hidden = here.map(std::env::set_current_dir);
    Ok(())
}

fn names<'a>(all: impl Iterator<Item = &'a String>) -> String {
    let all: Vec<&str> = all.map(String::as_str).collect();
    all.join(", ")
}

/// Returns the host's cgroups, where it has some of its own.
fn join(pid: u32) -> io::Result<Option<File>> {
    let of = |name: &str| PathBuf::from(format!("/proc/{pid}/ns/{name}"));
    // All are opened before any is entered: afterwards /proc may show something else.
    let user = File::open(of("user"))?;
    let rest = [
        ("mnt", Kind::Mount),
        ("uts", Kind::HostNameAndNISDomainName),
        ("net", Kind::Network),
    ];
    let mut opened = Vec::new();
    for (name, kind) in rest {
        opened.push((File::open(of(name))?, kind));
    }
    let groups = File::open(of("cgroup"))?;
    let groups = is_other(&groups, "cgroup")?.then_some(groups);
    if is_other(&user, "user")? {
        move_into_link_name_space(user.as_fd(), Some(Kind::User))?;
    }
    for (file, kind) in opened {
        move_into_link_name_space(file.as_fd(), Some(kind))?;
    }
    Ok(groups)
}

/// Whether a namespace is not the one this process is in.
fn is_other(namespace: &File, kind: &str) -> io::Result<bool> {
    let own = File::open(format!("/proc/self/ns/{kind}"))?.metadata()?;
    Ok(namespace.metadata()?.ino() != own.ino())
}

fn enter(path: &Path, kind: Kind) -> io::Result<()> {
    let file = File::open(path)?;
    move_into_link_name_space(file.as_fd(), Some(kind))?;
    Ok(())
}
