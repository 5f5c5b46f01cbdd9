//! Finds the cgroups of units and tells when they come and go.
//!
//! A unit's cgroup is made when it starts and removed when it stops, and is another one each time,
//! whatever its path. Units of the system's manager are in slices, and slices in slices; what is
//! below a service or a scope belongs to whoever runs there, and could be named like any unit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::statfs;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ruleset::Cgroup;
use crate::sys;

/// Where `nft` looks for cgroups.
pub const ROOT: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` (linux/magic.h).
const UNIFIED: u64 = 0x6367_7270;
/// The slice below which users run managers of their own.
const USERS: &str = "user.slice";

/// Why cgroups cannot be told apart here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CgroupError {
    /// The old kind, or both kinds beside each other.
    #[error(
        "{ROOT} is not cgroup v2 (the host mounts v1, or both): nft finds no unit there; boot with \
         systemd.unified_cgroup_hierarchy=1, or capture by `user`"
    )]
    NotUnified,
    /// They do not read, or cannot be watched.
    #[error("cannot read and watch {ROOT}")]
    Read(#[source] Arc<io::Error>),
}

/// The cgroups of this host, watched where they have been looked for.
#[derive(Debug)]
pub struct Cgroups {
    root: PathBuf,
    events: AsyncFd<OwnedFd>,
}

impl Cgroups {
    /// Those under [`ROOT`].
    ///
    /// # Errors
    /// When there are no notices to be had of the file system.
    pub fn new() -> io::Result<Self> {
        Self::under(PathBuf::from(ROOT))
    }

    fn under(root: PathBuf) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let events = sys::async_fd(events)?;
        Ok(Self { root, events })
    }

    /// Whether units can be told apart here.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn check(&self) -> Result<(), CgroupError> {
        let found = statfs(&*self.root).map_err(|e| CgroupError::Read(Arc::new(e.into())))?;
        // The field's type differs between machines; a file system's number fits in all.
        #[allow(
            clippy::unnecessary_cast,
            reason = "needed on machines where it is another type"
        )]
        match found.f_type as u64 {
            UNIFIED => Ok(()),
            _ => Err(CgroupError::NotUnified),
        }
    }

    /// The cgroups of those of these units that run now, by the unit's name. From here on
    /// [`Self::changed`] tells of any that start and stop.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn units(
        &self,
        wanted: &BTreeSet<Arc<str>>,
    ) -> Result<BTreeMap<Arc<str>, Cgroup>, CgroupError> {
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        self.check()?;
        self.search(&self.root, wanted, &mut found)
            .map_err(|e| CgroupError::Read(Arc::new(e)))?;
        Ok(found)
    }

    /// The cgroup at a path, if it is there now. From here on [`Self::changed`] tells of it.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn at(&self, path: &Arc<str>) -> Result<Option<Cgroup>, CgroupError> {
        self.check()?;
        let mut above = self.root.clone();
        for part in Path::new(&**path) {
            let there = self.watch(&above);
            if !there.map_err(|e| CgroupError::Read(Arc::new(e)))? {
                return Ok(None);
            }
            above.push(part);
        }
        Ok(self.cgroup(&above))
    }

    /// Returns when some cgroup may have come or gone.
    ///
    /// # Cancel safety
    /// What was not told of stays in its queue.
    pub async fn changed(&self) {
        if let Err(_stopping) = self.events.readable().await.map(drop) {
            return std::future::pending().await;
        }
        let mut buffer = [0; 4096];
        // One event or a hundred, what follows is one look.
        while let Ok(1..) = self.events.try_io(Interest::READABLE, |fd| {
            Ok(rustix::io::read(fd, &mut buffer)?)
        }) {}
    }

    fn search(
        &self,
        slice: &Path,
        wanted: &BTreeSet<Arc<str>>,
        found: &mut BTreeMap<Arc<str>, Cgroup>,
    ) -> io::Result<()> {
        // Before it is read, or what starts meanwhile goes unnoticed.
        if !self.watch(slice)? {
            return Ok(());
        }
        let entries = match fs::read_dir(slice) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            // It may be removed while it is read.
            let Ok(entry) = entry else { break };
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(unit) = wanted.get(name)
                && let Some(cgroup) = self.cgroup(&entry.path())
            {
                found.entry(Arc::clone(unit)).or_insert(cgroup);
            }
            if name.ends_with(".slice") && name != USERS {
                self.search(&entry.path(), wanted, found)?;
            }
        }
        Ok(())
    }

    /// Whether it is there to be watched. Where it cannot be, for want of watches say, nobody knows who
    /// is there: that is not to be absent.
    fn watch(&self, directory: &Path) -> io::Result<bool> {
        let what = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.events, directory, what) {
            Ok(_watch) => Ok(true),
            Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn cgroup(&self, directory: &Path) -> Option<Cgroup> {
        let meta = fs::metadata(directory).ok().filter(fs::Metadata::is_dir)?;
        let path = directory.strip_prefix(&self.root).ok()?.to_str()?;
        Some(Cgroup {
            path: Arc::from(path),
            id: meta.ino(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tree(paths: &[&str]) -> (tempfile::TempDir, Cgroups) {
        let directory = tempfile::tempdir().unwrap();
        for path in paths {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        let cgroups = Cgroups::under(directory.path().to_owned()).unwrap();
        (directory, cgroups)
    }

    fn search(cgroups: &Cgroups, units: &[&str]) -> BTreeMap<String, String> {
        let wanted = units.iter().map(|u| Arc::from(*u)).collect();
        let mut found = BTreeMap::new();
        cgroups.search(&cgroups.root, &wanted, &mut found).unwrap();
        let text = |(unit, cgroup): (Arc<str>, Cgroup)| (unit.to_string(), cgroup.path.to_string());
        found.into_iter().map(text).collect()
    }

    #[tokio::test]
    async fn units_are_found_in_whichever_slice_and_nowhere_else() {
        let (_directory, cgroups) = tree(&[
            "system.slice/cart.service",
            "system.slice/system-a.slice/a@1.service",
            "shop.slice/shop-front.slice/web.service",
            "user.slice/user-1.slice/user@1.service/app.slice/cart.service",
            "user.slice/false.service",
            "system.slice/false.service/nested.service",
            "init.scope",
        ]);
        for (unit, want) in [
            ("cart.service", Some("system.slice/cart.service")),
            (
                "a@1.service",
                Some("system.slice/system-a.slice/a@1.service"),
            ),
            (
                "web.service",
                Some("shop.slice/shop-front.slice/web.service"),
            ),
            ("shop.slice", Some("shop.slice")),
            ("init.scope", Some("init.scope")),
            ("false.service", Some("system.slice/false.service")),
            ("nested.service", None),
            ("absent.service", None),
        ] {
            let found = search(&cgroups, &[unit]);
            assert_eq!(found.get(unit).map(|p| &**p), want, "{unit}");
        }
    }

    #[tokio::test]
    async fn a_unit_that_comes_goes_or_comes_again_is_told_of() {
        let (directory, cgroups) = tree(&["system.slice"]);
        let unit = directory.path().join("system.slice/cart.service");
        let nested = directory.path().join("system.slice/system-b.slice");
        let soon = || tokio::time::timeout(Duration::from_secs(10), cgroups.changed());
        assert!(search(&cgroups, &["cart.service"]).is_empty());
        fs::create_dir(&unit).unwrap();
        soon().await.unwrap();
        assert_eq!(search(&cgroups, &["cart.service"]).len(), 1);
        fs::remove_dir(&unit).unwrap();
        soon().await.unwrap();
        assert!(search(&cgroups, &["cart.service"]).is_empty());
        fs::create_dir(&nested).unwrap();
        soon().await.unwrap();
        search(&cgroups, &["cart.service"]);
        fs::create_dir(nested.join("cart.service")).unwrap();
        soon().await.unwrap();
        assert_eq!(search(&cgroups, &["cart.service"]).len(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_watched_is_not_taken_for_absent() {
        let long = PathBuf::from(format!("/{}", "x".repeat(300)));
        let cgroups = Cgroups::under(long.clone()).unwrap();
        let wanted = BTreeSet::from([Arc::from("cart.service")]);
        let searched = cgroups.search(&long, &wanted, &mut BTreeMap::new());
        assert!(searched.is_err(), "{searched:?}");
        let gone = Path::new("/nonexistent");
        assert!(cgroups.search(gone, &wanted, &mut BTreeMap::new()).is_ok());
    }

    #[tokio::test]
    async fn what_is_not_cgroup_v2_is_named_with_a_way_out() {
        let (_directory, cgroups) = tree(&["system.slice/cart.service"]);
        let wanted = BTreeSet::from([Arc::from("cart.service")]);
        for error in [
            cgroups.units(&wanted).unwrap_err(),
            cgroups.at(&Arc::from("system.slice")).unwrap_err(),
        ] {
            assert!(matches!(error, CgroupError::NotUnified), "{error:?}");
            assert!(error.to_string().contains("capture by `user`"), "{error}");
        }
        assert!(cgroups.units(&BTreeSet::new()).unwrap().is_empty());
    }
}
