//! The users that the parts of a node run as, and the directories they share.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use super::Failure;
use super::output::NO;
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

/// Gives what root has written in a directory to the user the directory belongs to.
pub(super) fn give_to_owner(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path)?.uid() {
        uid if uid != 0 && rustix::process::geteuid().is_root() => give(path, uid),
        _ => Ok(()),
    }
}

fn give(path: &Path, uid: u32) -> io::Result<()> {
    give_alone(path, uid)?;
    if std::fs::symlink_metadata(path)?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), uid)?;
        }
    }
    Ok(())
}

fn give_alone(path: &Path, uid: u32) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.uid() == uid {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).or_else(|e| {
        // A user namespace that maps a single user has nobody to give it to, and needs not.
        let single = e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error());
        if single { Ok(()) } else { Err(e) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
