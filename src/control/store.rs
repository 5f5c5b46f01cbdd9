//! What the control plane remembers but could find out again.
//!
//! Nothing in here is the only copy of anything that matters: keys, tokens and the last good
//! revision are fsynced files elsewhere (`spec/control-plane.md` §6.6). sled 0.34 can lose what it
//! acknowledged and can panic on what a power cut left behind, so a damaged directory is set aside
//! and begun anew, and without a usable disk the store lives in memory.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing::{error, warn};

use crate::files::set_aside;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A named part of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// What nodes last said of each workload, by uid.
    Health,
    /// When a node last had a certificate of an identity.
    Issued,
    /// One line per published revision, by number.
    RevisionIndex,
}

impl Tree {
    const ALL: [Self; 3] = [Self::Health, Self::Issued, Self::RevisionIndex];

    fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Issued => "issued",
            Self::RevisionIndex => "revision-index",
        }
    }
}

/// Ordered keys and values, in trees. Calls may touch the disk but do not wait for it.
pub trait Store: Debug + Send + Sync + 'static {
    /// Everything in a tree, in the order of keys.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it cannot be read.
    fn entries(&self, tree: Tree) -> Result<Vec<Entry>, StoreError>;

    /// Sets a key.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it cannot be written.
    fn put(&self, tree: Tree, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes a key, which need not exist.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it cannot be written.
    fn remove(&self, tree: Tree, key: &[u8]) -> Result<(), StoreError>;
}

/// Why the store did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// Where it is.
        path: PathBuf,
    },
    /// The disk or the data is at fault.
    #[error("the store could not {operation}")]
    Failed {
        /// What it should have done.
        operation: &'static str,
        /// Why it did not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database gave up in the middle.
    #[error("the database panicked trying to {operation}")]
    Panicked {
        /// What it should have done.
        operation: &'static str,
    },
}

/// Opens the store at `path`, come what may: a damaged one is renamed aside and begun anew, and if
/// that fails too, it is kept in memory until the next start.
///
/// # Errors
/// Only [`StoreError::InUse`]: two control planes on one directory would destroy more than this.
pub fn open(path: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let damaged = match Sled::open(path) {
        Ok(store) => return Ok(Arc::new(store)),
        Err(in_use @ StoreError::InUse { .. }) => return Err(in_use),
        Err(damaged) => damaged,
    };
    let anew = set_aside(path, SystemTime::now())
        .map_err(failed("set the damaged directory aside"))
        .and_then(|aside| {
            let (from, to) = (path.display(), aside.display());
            warn!(error = &damaged as &dyn Error, store.path = %from, store.aside = %to,
                "store is damaged: set aside and begun anew; what nodes report fills it again");
            Sled::open(path)
        });
    match anew {
        Ok(store) => Ok(Arc::new(store)),
        Err(again) => {
            error!(error = &again as &dyn Error, store.path = %path.display(),
                "no store on disk: what nodes report is forgotten at the next restart");
            Ok(Arc::new(Memory::default()))
        }
    }
}

fn failed<E>(operation: &'static str) -> impl FnOnce(E) -> StoreError
where
    E: Error + Send + Sync + 'static,
{
    move |source| StoreError::Failed {
        operation,
        source: Box::new(source),
    }
}

/// A store in a sled directory.
#[derive(Debug)]
struct Sled {
    trees: BTreeMap<Tree, sled::Tree>,
    /// Closes the database when the last of its trees is gone.
    _database: sled::Db,
}

impl Sled {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let open = || {
            // Small: all it ever holds is a few megabytes.
            let config = sled::Config::new().path(path).cache_capacity(8 << 20);
            let database = config.open()?;
            let tree = |tree: Tree| Ok((tree, database.open_tree(tree.name())?));
            let trees: Result<_, sled::Error> = Tree::ALL.into_iter().map(tree).collect();
            let store = Self {
                trees: trees?,
                _database: database,
            };
            // Damage shows when it is read: better now than later.
            for tree in store.trees.values() {
                tree.iter().try_for_each(|entry| entry.map(drop))?;
            }
            Ok(store)
        };
        match guarded("open", open) {
            Err(StoreError::Failed { source, .. }) if is_lock(&*source) => {
                let path = path.to_owned();
                Err(StoreError::InUse { path })
            }
            opened => opened,
        }
    }

    fn tree(&self, tree: Tree) -> Result<&sled::Tree, sled::Error> {
        let missing = || sled::Error::CollectionNotFound(tree.name().into());
        self.trees.get(&tree).ok_or_else(missing)
    }
}

/// sled says so only in words.
fn is_lock(error: &(dyn Error + 'static)) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Damage makes sled panic where one would expect an error.
fn guarded<T>(
    operation: &'static str,
    run: impl FnOnce() -> Result<T, sled::Error>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => done.map_err(failed(operation)),
        Err(_panic) => Err(StoreError::Panicked { operation }),
    }
}

impl Store for Sled {
    fn entries(&self, tree: Tree) -> Result<Vec<Entry>, StoreError> {
        let pair = |entry: Result<(sled::IVec, sled::IVec), _>| {
            entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
        };
        guarded("read", || self.tree(tree)?.iter().map(pair).collect())
    }

    fn put(&self, tree: Tree, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        guarded("write", || self.tree(tree)?.insert(key, value).map(drop))
    }

    fn remove(&self, tree: Tree, key: &[u8]) -> Result<(), StoreError> {
        guarded("remove", || self.tree(tree)?.remove(key).map(drop))
    }
}

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that lasts as long as the process.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<Tree, Entries>>);

impl Store for Memory {
    fn entries(&self, tree: Tree) -> Result<Vec<Entry>, StoreError> {
        let trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = trees.get(&tree).into_iter().flatten();
        Ok(all.map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn put(&self, tree: Tree, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tree = trees.entry(tree).or_default();
        tree.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn remove(&self, tree: Tree, key: &[u8]) -> Result<(), StoreError> {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = trees.get_mut(&tree) {
            tree.remove(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io;
    use std::time::{Duration, Instant};

    fn names(dir: &Path) -> Vec<String> {
        let name = |e: io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    fn exercise(store: &dyn Store) {
        store.put(Tree::Health, b"b", b"2").unwrap();
        store.put(Tree::Health, b"a", b"1").unwrap();
        store.put(Tree::RevisionIndex, b"c", b"3").unwrap();
        store.remove(Tree::Health, b"b").unwrap();
        store.remove(Tree::Health, b"never").unwrap();
        let want = vec![(b"a".to_vec(), b"1".to_vec())];
        assert_eq!(store.entries(Tree::Health).unwrap(), want);
    }

    /// The database lets go of its directory a moment after it was dropped, by a thread of its own.
    fn opened_again(path: &Path) -> Arc<dyn Store> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match open(path) {
                Err(StoreError::InUse { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                outcome => return outcome.unwrap(),
            }
        }
    }

    #[test]
    fn keeps_entries_over_a_restart() {
        exercise(&Memory::default());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        exercise(&*open(&path).unwrap());
        let again = opened_again(&path);
        assert_eq!(again.entries(Tree::Health).unwrap().len(), 1);
        assert_eq!(names(dir.path()), ["store"]);
    }

    #[test]
    fn refuses_a_directory_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let first = open(&path).unwrap();
        assert!(matches!(open(&path), Err(StoreError::InUse { .. })));
        drop(first);
        assert_eq!(names(dir.path()), ["store"], "and leaves it alone");
    }

    #[test]
    fn sets_damage_aside() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 2] = [
            ("configuration overwritten", |store| {
                fs::write(store.join("conf"), [0xff; 100]).unwrap();
            }),
            ("a file in its place", |store| {
                fs::remove_dir_all(store).unwrap();
                fs::write(store, "x").unwrap();
            }),
        ];
        for (name, damage) in cases {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            exercise(&*open(&path).unwrap());
            damage(&path);
            let store = open(&path).unwrap();
            exercise(&*store);
            let found = names(dir.path());
            assert_eq!(found.len(), 2, "{name}: {found:?}");
            assert!(found[1].starts_with("store.damaged-"), "{name}: {found:?}");
        }
    }

    #[test]
    fn a_panic_inside_the_database_is_an_error() {
        let panics = || -> Result<(), sled::Error> { panic!("as sled does") };
        let error = guarded("open", panics).unwrap_err();
        assert!(matches!(error, StoreError::Panicked { operation: "open" }));
    }

    #[test]
    fn lives_in_memory_where_there_is_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let store = open(&dir.path().join("file/store")).unwrap();
        exercise(&*store);
    }
}
