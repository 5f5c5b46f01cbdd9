//! Cgroups of a host's own, so that its programs can be systemd units: below a group that belongs to the
//! rig, seen from inside as if it were the root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::getpid;
use rustix::thread::UnshareFlags;

use crate::sys;

/// Where everybody looks for cgroups.
const ROOT: &str = "/sys/fs/cgroup";
/// Where systemd puts services.
const SERVICES: &str = "/sys/fs/cgroup/system.slice";
/// Between looks at whether killed programs have ended, and how often that is looked at.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS: usize = 100;
/// What all rigs' groups begin with; the holder's process id follows.
const RIGS: &str = "lateen-rig-";

/// Moves this process, which has a mount namespace of its own, into a group `host` of the rig held by
/// `holder`, and makes that group the root for it and for all who enter its namespaces.
pub(super) fn own(holder: u32, host: &str) -> io::Result<()> {
    mount_all()?;
    let group = Path::new(ROOT).join(format!("{RIGS}{holder}")).join(host);
    fs::create_dir_all(&group)?;
    enter(&group)?;
    sys::unshare(UnshareFlags::NEWCGROUP)?;
    // Mounted anew it shows what is below the group alone.
    unmount(ROOT, UnmountFlags::DETACH)?;
    mount_all()
}

fn mount_all() -> io::Result<()> {
    mount("cgroup2", ROOT, "cgroup2", MountFlags::NOSUID, c"")?;
    Ok(())
}

/// Becomes a program of a unit, on the host whose namespaces this process is in. A unit that does not
/// run yet does then.
pub(super) fn join(unit: &str) -> io::Result<()> {
    let group = Path::new(SERVICES).join(unit);
    fs::create_dir_all(&group)?;
    enter(&group)
}

fn enter(group: &Path) -> io::Result<()> {
    let pid = getpid().as_raw_nonzero().to_string();
    fs::write(group.join("cgroup.procs"), pid)
}

/// Removes what rigs have left behind whose holders are gone. Called in a mount namespace of one's own.
pub(super) fn sweep() -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount_all()?;
    for group in below(Path::new(ROOT))? {
        let name = group.file_name().and_then(|name| name.to_str());
        let holder = name.and_then(|name| name.strip_prefix(RIGS));
        if holder.is_some_and(|holder| !Path::new("/proc").join(holder).exists()) {
            remove(&group);
        }
    }
    Ok(unmount(ROOT, UnmountFlags::DETACH)?)
}

/// Removes the groups of the rig held by `holder`, whose programs have been killed: some may not have
/// ended yet. Called where [`sweep`] was.
pub(super) fn end(holder: u32) -> io::Result<()> {
    mount_all()?;
    let group = Path::new(ROOT).join(format!("{RIGS}{holder}"));
    for _ in 0..LOOKS {
        remove(&group);
        if !group.exists() {
            break;
        }
        sleep(LOOK);
    }
    Ok(unmount(ROOT, UnmountFlags::DETACH)?)
}

/// Removes a group and those in it; whoever still runs in one keeps it.
fn remove(group: &Path) {
    for inner in below(group).unwrap_or_default() {
        remove(&inner);
    }
    let _in_use = fs::remove_dir(group);
}

fn below(group: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(group)?.flatten();
    let directories = entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.map(|entry| entry.path()).collect())
}
