//! Which files of a directory are mesh files.
//!
//! All `*.toml` below it, following symlinks. Names that begin with `.`, `~` or `#` are those of
//! version control, editors' temporary files and locks, and are passed over.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Directories inside each other below the mesh directory; the same bound as for tables
/// (`spec/reliability.md` §2b).
const DEEPEST: usize = 32;
/// Files and directories, far above any mesh: someone has pointed at `/`.
const MOST_ENTRIES: usize = 10_000;

/// What was found below a directory. Two of them are equal when nothing was edited in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    /// Mesh files, in the bytewise order of their paths.
    pub files: Vec<File>,
    /// Every directory walked, the root among them.
    pub directories: Vec<PathBuf>,
    /// Every symlink walked through or read.
    pub links: Vec<PathBuf>,
    /// What could not be walked.
    pub problems: Vec<Problem>,
}

/// A mesh file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Below the root.
    pub relative: PathBuf,
    stamp: Stamp,
}

/// What changes when a file does: device, inode, length, and its times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    id: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a part of the directory is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Below the root; empty for the root itself.
    pub relative: PathBuf,
    /// Why.
    pub fault: Fault,
}

/// See [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The system's word for it.
    Unreadable(String),
    /// The root is no directory.
    NotADirectory,
    /// Something named like a mesh file is no file.
    NotAFile,
    /// More than [`DEEPEST`] directories.
    TooDeep,
    /// More than [`MOST_ENTRIES`] files and directories.
    TooMany,
}

impl Tree {
    /// Walks `root`.
    pub(super) fn walk(root: &Path) -> Self {
        let mut walk = Walk {
            root,
            tree: Self::default(),
            seen: HashSet::new(),
        };
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => {
                walk.seen.insert(id(&metadata));
                walk.directory(Path::new(""), 0);
            }
            Ok(_) => walk.problem(Path::new(""), Fault::NotADirectory),
            Err(e) => walk.unreadable(Path::new(""), &e),
        }
        let mut tree = walk.tree;
        tree.files
            .sort_by(|a, b| bytes(&a.relative).cmp(bytes(&b.relative)));
        tree
    }
}

/// Whether an entry of that name is passed over.
pub(super) fn is_passed_over(name: &OsStr) -> bool {
    matches!(name.as_bytes().first(), None | Some(b'.' | b'~' | b'#'))
}

/// Whether an entry of that name, if it is a file, is a mesh file.
pub(super) fn is_mesh_file(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".toml") && !is_passed_over(name)
}

struct Walk<'a> {
    root: &'a Path,
    tree: Tree,
    /// Directories and files met. A symlink may lead to one again, even to one it is in: it is
    /// read once, under the first of its names.
    seen: HashSet<(u64, u64)>,
}

impl Walk<'_> {
    fn directory(&mut self, relative: &Path, depth: usize) {
        if depth > DEEPEST {
            return self.problem(relative, Fault::TooDeep);
        }
        let path = self.path(relative);
        self.tree.directories.push(path.clone());
        let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(e) => return self.unreadable(relative, &e),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if is_passed_over(&entry.file_name()) {
                continue;
            }
            if self.tree.files.len() + self.tree.directories.len() >= MOST_ENTRIES {
                return self.problem(Path::new(""), Fault::TooMany);
            }
            self.entry(&entry, &relative.join(entry.file_name()), depth);
        }
    }

    fn entry(&mut self, entry: &fs::DirEntry, relative: &Path, depth: usize) {
        let named_so = is_mesh_file(&entry.file_name());
        let path = self.path(relative);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // Gone between listing and looking; or a dangling link, which matters if it is one of ours.
            Err(e) if named_so && fs::symlink_metadata(&path).is_ok() => {
                self.tree.links.push(path);
                return self.unreadable(relative, &e);
            }
            Err(_gone) => return,
        };
        if !metadata.is_dir() && !named_so {
            return;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            self.tree.links.push(path);
        }
        if !self.seen.insert(id(&metadata)) {
            return;
        }
        if metadata.is_dir() {
            self.directory(relative, depth + 1);
        } else if metadata.is_file() {
            self.tree.files.push(File {
                relative: relative.to_owned(),
                stamp: stamp(&metadata),
            });
        } else {
            self.problem(relative, Fault::NotAFile);
        }
    }

    fn path(&self, relative: &Path) -> PathBuf {
        match relative.as_os_str().is_empty() {
            true => self.root.to_owned(),
            false => self.root.join(relative),
        }
    }

    fn unreadable(&mut self, relative: &Path, error: &io::Error) {
        self.problem(relative, Fault::Unreadable(error.to_string()));
    }

    fn problem(&mut self, relative: &Path, fault: Fault) {
        let problem = Problem {
            relative: relative.to_owned(),
            fault,
        };
        // Running out of files is noticed in each directory above.
        if self.tree.problems.last() != Some(&problem) {
            self.tree.problems.push(problem);
        }
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp {
        id: id(metadata),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(tree: &Tree) -> Vec<&str> {
        tree.files
            .iter()
            .map(|f| f.relative.to_str().unwrap())
            .collect()
    }

    #[test]
    fn mesh_files_are_found_and_others_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for sub in ["a", "a/b", ".git", "z"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        for file in [
            "a.toml",
            "a/1.toml",
            "a/b/2.toml",
            "z/3.toml",
            ".git/config.toml",
            ".hidden.toml",
            "~lock.toml",
            "#auto.toml",
            "a.toml~",
            "a.toml.swp",
            "a.txt",
            "a-b.toml",
        ] {
            fs::write(root.join(file), "").unwrap();
        }
        let tree = Tree::walk(root);
        assert_eq!(
            names(&tree),
            ["a-b.toml", "a.toml", "a/1.toml", "a/b/2.toml", "z/3.toml"]
        );
        assert_eq!(tree.directories.len(), 4);
        assert_eq!(tree.problems, []);
    }

    #[test]
    fn symlinks_are_followed_once_and_never_in_circles() {
        let dir = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (dir.path().join("mesh"), dir.path().join("elsewhere"));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("x.toml"), "").unwrap();
        symlink("..", root.join("sub/up")).unwrap();
        symlink(&root, root.join("again")).unwrap();
        symlink(&elsewhere, root.join("linked")).unwrap();
        symlink(&elsewhere, root.join("linked-twice")).unwrap();
        symlink(elsewhere.join("x.toml"), root.join("y.toml")).unwrap();
        let tree = Tree::walk(&root);
        assert_eq!(names(&tree), ["linked/x.toml"]);
        assert_eq!(tree.links.len(), 5);
        assert_eq!(tree.problems, []);
    }

    #[test]
    fn what_cannot_be_walked_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        symlink("nowhere", root.join("dangling.toml")).unwrap();
        symlink("nowhere", root.join(".#lock.toml")).unwrap();
        symlink("/dev/null", root.join("device.toml")).unwrap();
        let deep = (0..=DEEPEST).fold(root.to_owned(), |path, _| path.join("d"));
        fs::create_dir_all(&deep).unwrap();
        let tree = Tree::walk(root);
        let faults: Vec<_> = tree.problems.iter().map(|p| &p.fault).collect();
        assert!(
            matches!(
                faults.as_slice(),
                [Fault::TooDeep, Fault::Unreadable(_), Fault::NotAFile]
            ),
            "{faults:?}"
        );
        for (path, fault) in [
            (root.join("missing"), None),
            (root.join("device.toml"), Some(Fault::NotADirectory)),
        ] {
            let tree = Tree::walk(&path);
            let [problem] = tree.problems.as_slice() else {
                panic!("{tree:?}")
            };
            assert!(fault.is_none_or(|fault| problem.fault == fault));
        }
    }

    #[test]
    fn an_edit_makes_another_tree() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        fs::write(&file, "a").unwrap();
        let before = Tree::walk(dir.path());
        assert_eq!(Tree::walk(dir.path()), before);
        fs::write(&file, "ab").unwrap();
        assert_ne!(Tree::walk(dir.path()), before);
    }
}
