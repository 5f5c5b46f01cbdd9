//! The mesh files of the revision in force, as they were.
//!
//! They are kept as a directory that reads like the mesh directory itself, so that a control plane
//! that starts beside a broken one loads the last good one instead. The directory's name is the
//! hash of its content; the link `input` points at the current one and is renamed into place.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use tracing::warn;

use crate::files::{self, set_aside};
use crate::hex::hex;

/// A mesh file: its path relative to the mesh directory, and its text.
pub type MeshFile = (String, Arc<str>);

/// Keeps the last good mesh files under one directory.
#[derive(Clone, Debug)]
pub struct LastGood {
    dir: PathBuf,
}

impl LastGood {
    /// Keeps them in `dir`, which must exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Replaces what is kept. After a crash, what was kept before or all of `files` is there.
    /// `before` is what this process last kept, if anything: of a large mesh with one edit, one
    /// file is written and the others are linked.
    ///
    /// # Errors
    /// What writing fails with, or [`io::ErrorKind::InvalidInput`] for a path that is not a plain
    /// relative one.
    pub fn save(&self, files: &[MeshFile], before: &[MeshFile]) -> io::Result<()> {
        let name = format!("input-{}", hash(files));
        let link = self.dir.join("input");
        let current = fs::read_link(&link).ok();
        let named = current.as_deref() == Some(Path::new(&name));
        // What another process left is believed once it has been read.
        if named && (files == before || self.load().is_some()) {
            return Ok(());
        }
        let staged = self.dir.join("input.new");
        remove(&staged)?;
        fs::create_dir(&staged)?;
        let old = current.as_ref().map(|name| self.dir.join(name));
        let known: HashMap<&str, &str> = before.iter().map(|(p, t)| (&**p, &**t)).collect();
        for (path, text) in files {
            let same = known.get(&**path) == Some(&&**text);
            let linked = same
                && old
                    .as_ref()
                    .is_some_and(|old| take_over(old, &staged, path).is_ok());
            if !linked {
                write(&staged, path, text)?;
            }
        }
        sync_all(&staged)?;
        remove(&self.dir.join(&name))?;
        fs::rename(&staged, self.dir.join(&name))?;
        let staged = self.dir.join("input.link");
        remove(&staged)?;
        symlink(&name, &staged)?;
        fs::rename(&staged, &link)?;
        files::sync(&self.dir)?;
        match current {
            Some(old) if old != Path::new(&name) => remove(&self.dir.join(old)),
            _ => Ok(()),
        }
    }

    /// What is kept, and the directory that holds it; none when nothing is, or when it is damaged,
    /// in which case it is renamed aside.
    pub fn load(&self) -> Option<(PathBuf, Vec<MeshFile>)> {
        let name = fs::read_link(self.dir.join("input")).ok()?;
        let path = self.dir.join(&name);
        let mut files = Vec::new();
        let damage = match read(&path, &path, &mut files) {
            Ok(()) if name == Path::new(&format!("input-{}", hash(&files))) => {
                return Some((path, files));
            }
            Ok(()) => "its content does not match its name".to_owned(),
            Err(e) => e.to_string(),
        };
        let aside = set_aside(&path, SystemTime::now());
        warn!(path = %path.display(), aside = ?aside, reason = damage,
            "the last good mesh files are damaged and were set aside: only the mesh directory itself can be loaded");
        None
    }
}

/// Over path and text of every file, in the order of paths.
fn hash(files: &[MeshFile]) -> String {
    let mut sorted: Vec<&MeshFile> = files.iter().collect();
    sorted.sort();
    let mut sum = Sha256::new();
    for text in sorted
        .into_iter()
        .flat_map(|(path, text)| [&**path, &**text])
    {
        sum.update((text.len() as u64).to_be_bytes());
        sum.update(text);
    }
    hex(&sum.finalize())
}

/// Takes a file over from a directory that was kept; its content is on disk already.
fn take_over(from: &Path, to: &Path, path: &str) -> io::Result<()> {
    let linked = to.join(path);
    linked.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::hard_link(from.join(path), linked)
}

fn write(dir: &Path, path: &str, text: &str) -> io::Result<()> {
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    if path.is_empty() || !Path::new(path).components().all(plain) {
        let text = format!("`{path}` is not a plain relative path");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let path = dir.join(path);
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    files::create(&path, text.as_bytes())
}

fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        }
    }
    files::sync(dir)
}

fn read(root: &Path, dir: &Path, files: &mut Vec<MeshFile>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            read(root, &path, files)?;
            continue;
        }
        let name = path.strip_prefix(root).unwrap_or(&path);
        files.push((
            name.to_string_lossy().into_owned(),
            Arc::from(fs::read_to_string(&path)?),
        ));
    }
    files.sort();
    Ok(())
}

/// Removes what a crash may have left behind, whatever it is.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn files(pairs: &[(&str, &str)]) -> Vec<MeshFile> {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), Arc::from(*text));
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn keeps_the_last_ones_saved() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path());
        assert!(kept.load().is_none(), "nothing yet");
        let first = files(&[("a.toml", "1"), ("sub/b.toml", "2")]);
        let second = files(&[("a.toml", "other")]);
        for (name, saved) in [
            ("first", &first),
            ("again", &first),
            ("second", &second),
            ("back", &first),
        ] {
            kept.save(saved, &[]).unwrap();
            let (path, loaded) = kept.load().unwrap();
            assert_eq!(&loaded, saved, "{name}");
            assert_eq!(
                fs::read_to_string(path.join("a.toml")).unwrap(),
                *saved[0].1,
                "{name}"
            );
        }
        let entries = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(entries, 2, "one directory and the link");
    }

    #[test]
    fn a_crash_while_saving_leaves_nothing_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path());
        let saved = files(&[("a.toml", "1")]);
        fs::create_dir(dir.path().join("input.new")).unwrap();
        fs::write(dir.path().join("input.new/half.toml"), "x").unwrap();
        symlink("nowhere", dir.path().join("input.link")).unwrap();
        kept.save(&saved, &[]).unwrap();
        assert_eq!(kept.load().unwrap().1, saved);
    }

    #[test]
    fn what_stays_is_linked() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path());
        let first = files(&[("a.toml", "1"), ("sub/b.toml", "2"), ("c.toml", "3")]);
        let second = files(&[("a.toml", "1"), ("sub/b.toml", "2"), ("c.toml", "other")]);
        kept.save(&first, &[]).unwrap();
        let inode = |name: &str| {
            let (path, _) = kept.load().unwrap();
            fs::metadata(path.join(name)).unwrap().ino()
        };
        let before = ["a.toml", "sub/b.toml"].map(inode);
        kept.save(&second, &first).unwrap();
        assert_eq!(["a.toml", "sub/b.toml"].map(inode), before);
        assert_eq!(kept.load().unwrap().1, {
            let mut sorted = second.clone();
            sorted.sort();
            sorted
        });
        // A link that cannot be made is a file that is written.
        let third = files(&[("a.toml", "1"), ("d.toml", "4")]);
        let wrong = files(&[("d.toml", "4")]);
        kept.save(&third, &wrong).unwrap();
        assert_eq!(kept.load().unwrap().1, third);
    }

    #[test]
    fn what_an_earlier_process_left_damaged_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path());
        let saved = files(&[("a.toml", "1")]);
        kept.save(&saved, &[]).unwrap();
        fs::write(kept.load().unwrap().0.join("a.toml"), "").unwrap();
        kept.save(&saved, &[]).unwrap();
        assert_eq!(kept.load().unwrap().1, saved);
    }

    #[test]
    fn damage_is_set_aside() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 4] = [
            ("changed", |dir| fs::write(dir.join("a.toml"), "2").unwrap()),
            ("one gone", |dir| {
                fs::remove_file(dir.join("a.toml")).unwrap()
            }),
            ("one more", |dir| fs::write(dir.join("b.toml"), "").unwrap()),
            ("not text", |dir| {
                fs::write(dir.join("a.toml"), [0xff]).unwrap()
            }),
        ];
        for (name, damage) in cases {
            let dir = tempfile::tempdir().unwrap();
            let kept = LastGood::new(dir.path());
            kept.save(&files(&[("a.toml", "1")]), &[]).unwrap();
            damage(&kept.load().unwrap().0);
            assert!(kept.load().is_none(), "{name}");
            kept.save(&files(&[("a.toml", "1")]), &[]).unwrap();
            assert!(kept.load().is_some(), "{name}: and saved anew");
        }
    }

    #[test]
    fn only_plain_paths() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path());
        for path in ["", "/etc/passwd", "../x", "a/../b", "."] {
            let error = kept.save(&files(&[(path, "x")]), &[]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }
}
