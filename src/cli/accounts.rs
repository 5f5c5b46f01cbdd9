//! The users that the parts of a node run as, and the directories they share.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chownat, fstat, openat};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::process::{Gid, Uid};

use super::Failure;
use super::output::NO;
use crate::capture::privilege;
use crate::config::daemon::{Config, ProxyUser};

/// Whom the keeper runs as where the settings do not say and there is such a user.
const KEEPER: &str = "lateen-keeper";

/// A user, and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The account of the settings' user; one given by number is of the group of that number.
///
/// # Errors
/// When there is no such user.
pub(super) fn account(user: &ProxyUser) -> Result<Account, Failure> {
    let name = match user {
        ProxyUser::Id(uid) => {
            let (uid, gid) = (*uid, *uid);
            return Ok(Account { uid, gid });
        }
        ProxyUser::Name(name) => name,
    };
    named(name).ok_or_else(|| {
        let message = format!(
            "the node role runs as user `{name}`, which does not exist; create it: \
             useradd --system --no-create-home {name}, or set `user` in lateen.toml"
        );
        Failure::plain(NO, message)
    })
}

/// Whom the keeper runs as.
///
/// # Errors
/// When there is no such user.
pub(super) fn keeper(config: &Config) -> Result<Account, Failure> {
    match (config.keeper_user(), named(KEEPER)) {
        (Some(user), _) => account(user),
        (None, Some(account)) => Ok(account),
        (None, None) => account(config.user()),
    }
}

fn named(name: &str) -> Option<Account> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    find(&users, name)
}

fn find(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { uid, gid })
    })
}

/// Makes the directories of the settings, for their owner only: the user the proxy becomes, where
/// this is root.
///
/// # Errors
/// When one cannot be made or given away.
pub(super) fn directories(config: &Config) -> Result<(), Failure> {
    let owner = match rustix::process::getuid().is_root() {
        true => Some(account(config.user())?.uid),
        false => None,
    };
    make(config, owner)
}

/// Makes the directory of sockets, where it is not there, for the proxy alone.
///
/// # Errors
/// When it cannot be made or given away.
pub(super) fn runtime_directory(config: &Config) -> Result<(), Failure> {
    let path = config.runtime_dir();
    let made = || -> io::Result<()> {
        if path.exists() {
            return Ok(());
        }
        own(path, None)
    };
    made().map_err(|e| Failure::no(format!("cannot prepare {}", path.display()), &e))?;
    match rustix::process::getuid().is_root() {
        true => hand_over(config, path),
        false => Ok(()),
    }
}

fn hand_over(config: &Config, path: &Path) -> Result<(), Failure> {
    let owner = account(config.user())?.uid;
    let given = give_alone(path, owner);
    given.map_err(|e| Failure::no(format!("cannot give away {}", path.display()), &e))
}

/// Makes them for whoever this is.
///
/// # Errors
/// When one cannot be made.
pub(super) fn directories_of_mine(config: &Config) -> Result<(), Failure> {
    make(config, None)
}

fn make(config: &Config, owner: Option<u32>) -> Result<(), Failure> {
    for path in [config.state_dir(), config.runtime_dir()] {
        own(path, owner)
            .map_err(|e| Failure::no(format!("cannot prepare {}", path.display()), &e))?;
    }
    Ok(())
}

/// A directory for its owner only, given to the user the proxy becomes.
fn own(path: &Path, uid: Option<u32>) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    let Some(uid) = uid else {
        return Ok(());
    };
    give(path, uid)
}

/// Becomes the owner of a directory that is another's, where this is root, and gives him what root has
/// written there before: what is written from then on cannot be led elsewhere by links that he made.
/// The kernel keeps this by thread: to be called before any thread is started.
///
/// # Errors
/// When it cannot.
pub(super) fn become_owner(path: &Path) -> Result<(), Failure> {
    let Some(Account { uid, gid }) = other(path, rustix::process::geteuid().as_raw()) else {
        return Ok(());
    };
    let given = give(path, uid);
    given.map_err(|e| Failure::no(format!("cannot give away {}", path.display()), &e))?;
    privilege::become_proxy(uid, gid).map_err(|e| Failure::no(path.display().to_string(), &e))
}

/// The owner of what root finds at `path`, if that is somebody else.
fn other(path: &Path, me: u32) -> Option<Account> {
    let meta = std::fs::metadata(path).ok().filter(|_| me == 0)?;
    let (uid, gid) = (meta.uid(), meta.gid());
    (uid != 0).then_some(Account { uid, gid })
}

/// Gives a directory and what is in it. Whom it is given to may have been there before, and put there,
/// or put there meanwhile, what leads elsewhere: nothing is gone through by its path.
fn give(path: &Path, uid: u32) -> io::Result<()> {
    give_alone(path, uid)?;
    give_below(CWD, path, uid)
}

fn give_below(at: impl AsFd, name: impl Arg, uid: u32) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(at, name, flags, Mode::empty()) {
        // No directory, or gone by now.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        give_entry(&directory, name, uid)?;
        give_below(&directory, name, uid)?;
    }
    Ok(())
}

/// Gives one file, looked at and given by a descriptor of its own, unless it is somewhere else as well.
fn give_entry(directory: impl AsFd, name: &CStr, uid: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let found = fstat(&file)?;
    let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    if found.st_uid == uid || (found.st_nlink > 1 && !is_directory) {
        return Ok(());
    }
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
    let given = chownat(&file, c"", owner, group, AtFlags::EMPTY_PATH);
    given.or_else(|e| unless_single(e.into()))
}

fn give_alone(path: &Path, uid: u32) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.uid() == uid {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).or_else(unless_single)
}

/// A user namespace that maps a single user has nobody to give anything to, and needs not.
fn unless_single(error: io::Error) -> io::Result<()> {
    match Errno::from_io_error(&error) {
        Some(Errno::INVAL) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_away_is_below_the_directory_and_nowhere_else() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let [state, elsewhere] = ["state", "elsewhere"].map(|name| directory.path().join(name));
        std::fs::create_dir_all(state.join("agent")).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        for path in [state.join("agent/key"), elsewhere.join("shadow")] {
            std::fs::write(path, "").unwrap();
        }
        std::fs::hard_link(elsewhere.join("shadow"), state.join("agent/linked")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, state.join("agent/away")).unwrap();
        // Where nobody else is known, nothing can be given.
        let many = std::os::unix::fs::chown(directory.path(), Some(4711), None).is_ok();
        give(&state, 4711).unwrap();
        let owner = |path: &Path| std::fs::symlink_metadata(path).unwrap().uid();
        for (path, want) in [
            (state.clone(), 4711),
            (state.join("agent/key"), 4711),
            (elsewhere.join("shadow"), 0),
            (elsewhere, 0),
        ] {
            assert_eq!(
                owner(&path),
                if many { want } else { 0 },
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nlateen:x:998:997::/:/bin/false\nbad:x\n";
        let lateen = Account { uid: 998, gid: 997 };
        for (name, want) in [
            ("lateen", Some(lateen)),
            ("latee", None),
            ("bad", None),
            ("998", None),
        ] {
            assert_eq!(find(users, name), want, "{name}");
        }
    }

    #[test]
    fn root_becomes_whoever_owns_the_state() {
        let dir = tempfile::tempdir().unwrap();
        let meta = std::fs::metadata(dir.path()).unwrap();
        let owner = Account {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        let missing = dir.path().join("none");
        for (name, path, me, want) in [
            (
                "root's own, or another's",
                dir.path(),
                0,
                Some(owner).filter(|owner| owner.uid != 0),
            ),
            ("not there yet", &missing, 0, None),
            ("not root", dir.path(), 1000, None),
        ] {
            assert_eq!(other(path, me), want, "{name}");
        }
    }
}
