//! Where changes to a mesh directory show: the directories to watch, and the names in them that
//! matter.
//!
//! A directory is known by a path, and any part of that path can be re-pointed: a release
//! directory behind a symlink, Kubernetes' `..data`, a parent renamed away. A watch holds on to
//! what a path meant when it was set, so each symlink and each missing part is watched for in the
//! directory that holds it.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::config::tree::{self, Tree};

/// Symlinks followed on the way to one path, as many as the kernel allows.
const MOST_LINKS: usize = 40;

/// What to watch, and what was there when that was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Directories to watch, by their real paths.
    pub directories: BTreeSet<PathBuf>,
    /// Those of them that hold mesh files.
    inside: BTreeSet<PathBuf>,
    /// Entries of the other ones that lead to a mesh file or to the mesh directory.
    on_the_way: BTreeSet<PathBuf>,
    /// Files elsewhere that are mesh files by way of a symlink.
    outside: BTreeSet<PathBuf>,
    /// What was below the mesh directory.
    pub tree: Tree,
}

/// What a change at a path may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearing {
    /// A mesh file's name: it has changed, even if its times and length are as before.
    Certain,
    /// The tree has to be looked at.
    Possible,
    /// Someone else's business.
    None,
}

impl Plan {
    /// Finds out what to watch for `root`, an absolute path.
    pub(super) fn new(root: &Path) -> Self {
        let mut plan = Self {
            tree: Tree::walk(root),
            ..Self::default()
        };
        plan.trace(root);
        let (directories, links) = (plan.tree.directories.clone(), plan.tree.links.clone());
        for link in &links {
            plan.trace(link);
        }
        for directory in &directories {
            if let Ok(real) = fs::canonicalize(directory) {
                plan.directories.insert(real.clone());
                plan.inside.insert(real);
            }
        }
        plan
    }

    /// Whether mesh files are in a directory, so that not seeing it is not seeing them.
    pub(super) fn holds_files(&self, directory: &Path) -> bool {
        self.inside.contains(directory)
    }

    /// What a change at `path`, in one of the watched directories, may mean.
    pub(super) fn bearing(&self, path: &Path) -> Bearing {
        if self.outside.contains(path) {
            return Bearing::Certain;
        }
        if self.on_the_way.contains(path) || self.directories.contains(path) {
            return Bearing::Possible;
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Bearing::Possible;
        };
        match self.inside.contains(parent) {
            false => Bearing::None,
            true if tree::is_mesh_file(name) => Bearing::Certain,
            // A directory, perhaps; or a symlink that mesh files are behind.
            true => Bearing::Possible,
        }
    }

    /// Follows a path part by part, as the kernel would, and notes where it could be led elsewhere.
    fn trace(&mut self, path: &Path) {
        let mut left: VecDeque<OsString> = parts(path).collect();
        let mut real = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                real.pop();
                continue;
            }
            let at = real.join(&part);
            match fs::symlink_metadata(&at) {
                Ok(metadata) if metadata.is_symlink() => {
                    self.hinge(&real, &part);
                    links += 1;
                    let Ok(target) = fs::read_link(&at) else {
                        return;
                    };
                    if links > MOST_LINKS {
                        return;
                    }
                    if target.is_absolute() {
                        real = PathBuf::from("/");
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        left.push_front(part);
                    }
                }
                Ok(metadata) => {
                    // A parent that is moved away says so itself. Top-level directories are never
                    // moved, and half of the machine's opens go through them.
                    let last = left.is_empty();
                    if metadata.is_dir() && !last && real != Path::new("/") {
                        self.directories.insert(at.clone());
                    }
                    if last {
                        self.hinge(&real, &part);
                    }
                    if last && metadata.is_file() {
                        self.outside.insert(at.clone());
                    }
                    real = at;
                }
                Err(e) => {
                    if e.kind() == io::ErrorKind::NotFound {
                        self.hinge(&real, &part);
                    }
                    return;
                }
            }
        }
    }

    fn hinge(&mut self, directory: &Path, name: &OsStr) {
        self.directories.insert(directory.to_owned());
        self.on_the_way.insert(directory.join(name));
    }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_hinge_of_a_path_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(base.join("releases/42/conf")).unwrap();
        fs::write(base.join("releases/42/conf/a.toml"), "").unwrap();
        fs::write(base.join("releases/b.toml"), "").unwrap();
        symlink("releases/42", base.join("current")).unwrap();
        symlink(
            base.join("releases/b.toml"),
            base.join("releases/42/conf/b.toml"),
        )
        .unwrap();
        let plan = Plan::new(&base.join("current/conf"));
        for (name, path, want) in [
            ("the symlink on the way", "current", Bearing::Possible),
            (
                "the directory itself",
                "releases/42/conf",
                Bearing::Possible,
            ),
            ("what the symlink names", "releases/42", Bearing::Possible),
            ("a mesh file", "releases/42/conf/a.toml", Bearing::Certain),
            (
                "a new mesh file",
                "releases/42/conf/c.toml",
                Bearing::Certain,
            ),
            ("a new directory", "releases/42/conf/sub", Bearing::Possible),
            (
                "the target of a linked file",
                "releases/b.toml",
                Bearing::Certain,
            ),
            ("a neighbour of the symlink", "other", Bearing::None),
            (
                "a neighbour of the directory",
                "releases/42/other",
                Bearing::None,
            ),
            (
                "a neighbour of the linked file",
                "releases/c.toml",
                Bearing::None,
            ),
        ] {
            assert_eq!(plan.bearing(&base.join(path)), want, "{name}");
        }
    }

    #[test]
    fn a_missing_directory_is_awaited_where_its_path_breaks_off() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        let plan = Plan::new(&base.join("not/there/yet"));
        assert!(plan.directories.contains(&base));
        assert_eq!(plan.bearing(&base.join("not")), Bearing::Possible);
        assert_eq!(plan.bearing(&base.join("nothing")), Bearing::None);
    }

    #[test]
    fn circles_of_symlinks_end() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let plan = Plan::new(&dir.path().join("a/mesh"));
        assert_eq!(plan.tree.files, []);
    }
}
