//! Where lateen keeps what must survive a reboot.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use super::Finding;
use super::account;
use super::codes::Code;
use crate::config::daemon::Config;

/// Room below which something must be done, and below which nothing can be kept.
const LOW: u64 = 100 << 20;
const FULL: u64 = 4 << 20;
/// Files that are looked at; a state directory has some dozens.
const FILES: usize = 4096;

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    path: PathBuf,
    /// Bytes free where it is or will be.
    free: Option<u64>,
    read_only: bool,
    /// Permission bits, once it is there.
    mode: Option<u32>,
    /// Something in it, and whose it is, where that is not the same for all.
    owners: Vec<(PathBuf, u32)>,
}

impl Facts {
    pub(super) fn read(config: &Config) -> Self {
        let path = config.state_dir();
        let existing = path.ancestors().find(|p| p.exists());
        let room = existing.and_then(|p| statvfs(p).ok());
        let room = room.as_ref();
        let read_only = |r: &StatVfs| r.f_flag.contains(StatVfsMountFlags::RDONLY);
        Self {
            path: path.to_owned(),
            free: room.map(|r| r.f_bavail.saturating_mul(r.f_frsize)),
            read_only: room.is_some_and(read_only),
            mode: fs::metadata(path).ok().map(|meta| meta.mode() & 0o777),
            owners: owners(path),
        }
    }

    pub(super) fn check(&self, account: &account::Facts) -> Vec<Finding> {
        let path = self.path.display();
        let mut found = Vec::new();
        if self.read_only {
            let seen = format!("{path} is on a file system that is mounted read-only");
            let remedy = format!("mount -o remount,rw $(findmnt -n -o TARGET -T {path})");
            found.push(Finding::new(Code::StateReadOnly, seen, remedy));
        }
        found.extend(self.free.and_then(|free| self.room(free)));
        if let Some(mode) = self.mode.filter(|mode| mode & 0o077 != 0) {
            let seen = format!(
                "others than its owner may look into {path} (mode {mode:03o}), where keys are"
            );
            found.push(Finding::new(
                Code::StateExposed,
                seen,
                format!("chmod 0700 {path}"),
            ));
        }
        let uid = account.uid();
        let foreign = self.owners.iter().find(|(_, owner)| Some(*owner) != uid);
        if let (Some(_), Some((file, owner))) = (uid, foreign) {
            let name = account.name();
            let seen = format!(
                "{} is user {owner}'s; the units run as `{name}`, who cannot use it",
                file.display()
            );
            found.push(Finding::new(
                Code::StateOwner,
                seen,
                format!("chown -R {name}: {path}"),
            ));
        }
        found
    }

    fn room(&self, free: u64) -> Option<Finding> {
        let code = match () {
            () if free < FULL => Code::DiskFull,
            () if free < LOW => Code::DiskLow,
            () => return None,
        };
        let seen = format!("{} has {} MiB left", self.path.display(), free >> 20);
        let remedy = format!(
            "make room: du -xh --max-depth=2 $(findmnt -n -o TARGET -T {}) | sort -h",
            self.path.display()
        );
        Some(Finding::new(code, seen, remedy))
    }
}

/// One file of each owner.
fn owners(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut owners: Vec<(PathBuf, u32)> = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    let mut looked = 0;
    while let Some(path) = waiting.pop().filter(|_| looked < FILES) {
        looked += 1;
        let meta = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(_hidden) => continue,
            Ok(meta) => meta,
        };
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.map(|entry| entry.path()));
        }
        if !owners.iter().any(|(_, owner)| *owner == meta.uid()) {
            owners.push((path, meta.uid()));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            path: PathBuf::from("/var/lib/lateen"),
            free: Some(10 << 30),
            read_only: false,
            mode: Some(0o700),
            owners: Vec::new(),
        }
    }

    #[test]
    fn each_fault_is_named() {
        for (name, facts, want) in [
            ("a good directory", facts(), vec![]),
            (
                "none yet",
                Facts {
                    mode: None,
                    ..facts()
                },
                vec![],
            ),
            (
                "little room",
                Facts {
                    free: Some(99 << 20),
                    ..facts()
                },
                vec![Code::DiskLow],
            ),
            (
                "no room",
                Facts {
                    free: Some(0),
                    ..facts()
                },
                vec![Code::DiskFull],
            ),
            (
                "read-only",
                Facts {
                    read_only: true,
                    ..facts()
                },
                vec![Code::StateReadOnly],
            ),
            (
                "open to others",
                Facts {
                    mode: Some(0o755),
                    ..facts()
                },
                vec![Code::StateExposed],
            ),
        ] {
            let found = facts.check(&account::Facts::default());
            let codes: Vec<_> = found.iter().map(|f| f.code).collect();
            assert_eq!(codes, want, "{name}");
        }
    }

    #[test]
    fn what_is_not_of_the_user_is_found_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("agent")).unwrap();
        fs::write(dir.path().join("agent/identity"), "").unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(owners(dir.path()), [(dir.path().to_owned(), me)]);
        let facts = Facts {
            owners: owners(dir.path()),
            ..facts()
        };
        for (name, uid, want) in [("mine", me, 0), ("another's", me + 1, 1)] {
            let config = Config::parse("", format!("user = {uid}"), "edge-1").unwrap();
            let account = account::Facts::read(&config);
            assert_eq!(facts.check(&account).len(), want, "{name}");
        }
    }
}
