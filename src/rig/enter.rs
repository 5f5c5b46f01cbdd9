//! Enters a host of a running rig and becomes a program there. Only for a process of one thread.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType as Kind, move_into_link_name_space};

use super::{RigError, record};

/// Becomes `command` inside `place`, which is `HOST` or `HOST/NAMESPACE`. Only returns when that
/// fails.
///
/// # Errors
/// [`RigError`].
pub fn exec(state: &Path, place: &str, command: &[String]) -> Result<(), RigError> {
    into(state, place)?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(RigError::Unknown {
            what: "no command to run; write it after --".to_owned(),
        });
    };
    let source = Command::new(program).args(arguments).exec();
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
    join(known.pid).map_err(RigError::system("cannot enter the host"))?;
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

fn join(pid: u32) -> io::Result<()> {
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
    let own = File::open("/proc/self/ns/user")?.metadata()?;
    if user.metadata()?.ino() != own.ino() {
        move_into_link_name_space(user.as_fd(), Some(Kind::User))?;
    }
    for (file, kind) in opened {
        move_into_link_name_space(file.as_fd(), Some(kind))?;
    }
    Ok(())
}

fn enter(path: &Path, kind: Kind) -> io::Result<()> {
    let file = File::open(path)?;
    move_into_link_name_space(file.as_fd(), Some(kind))?;
    Ok(())
}
