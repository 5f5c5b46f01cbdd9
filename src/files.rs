//! Small files that must survive a power cut: written to a temporary name, fsynced, renamed, and
//! their directory fsynced (`spec/control-plane.md` §6.6).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be written, and is as it was before.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Others than its owner can read a secret.
    #[error("{} may be read by others (mode {mode:04o}); make it private: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
}

/// Makes a directory, and those above it, for its owner only.
///
/// # Errors
/// [`FileError::Write`].
pub fn directory(path: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file as a whole, for its owner only; it is durable when this returns.
///
/// # Errors
/// [`FileError::Write`]; what was there before is then untouched.
pub fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    put(path, content, 0o600)
}

/// As [`write`], but for everyone to read: nothing secret, for other programs on this host.
///
/// # Errors
/// As [`write`].
pub fn publish(path: &Path, content: &[u8]) -> Result<(), FileError> {
    put(path, content, 0o644)
}

fn put(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = temporary(path);
    let written = write_beside(path, &temporary, content, mode);
    written.map_err(|source| {
        // A leftover of a failed attempt helps nobody; the attempt's own error is what counts.
        let _gone = fs::remove_file(&temporary);
        FileError::Write {
            path: path.to_owned(),
            source,
        }
    })
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let unique: u64 = rand::random();
    path.with_file_name(format!(".{}.{unique:016x}", name.unwrap_or_default()))
}

fn write_beside(path: &Path, temporary: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    create(temporary, content)?;
    fs::set_permissions(temporary, fs::Permissions::from_mode(mode))?;
    fs::rename(temporary, path)?;
    sync_directory(path)
}

/// Writes a file that is not there yet, for its owner only, and waits for the disk. Its name is
/// durable once its directory is [synced](sync).
///
/// # Errors
/// As the kernel has them.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a rename in the directory of `path` durable.
///
/// # Errors
/// As the kernel has them.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    sync(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// Waits for the disk to have the names in a directory.
///
/// # Errors
/// As the kernel has them.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Reads a file that may not exist.
///
/// # Errors
/// [`FileError::Read`] for anything but its absence.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Reads a secret that may not exist, refusing one that others can read.
///
/// # Errors
/// [`FileError::Exposed`], and as [`read`].
pub fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let Some(content) = read(path)? else {
        return Ok(None);
    };
    let meta = fs::metadata(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    match meta.mode() & 0o777 {
        mode if exposes(path, mode) => Err(FileError::Exposed {
            path: path.to_owned(),
            mode,
        }),
        _ => Ok(Some(content)),
    }
}

/// Whether others than its owner can read a file. Of a credential a list says who may, and the group's
/// bits are that list's mask; where it is nobody but the service gets to (systemd.exec(5)).
fn exposes(path: &Path, mode: u32) -> bool {
    let others = match path.starts_with("/run/credentials") {
        true => 0o037,
        false => 0o077,
    };
    mode & others != 0
}

/// Removes a file durably; one that is not there is no error.
///
/// # Errors
/// [`FileError::Write`].
pub fn remove(path: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed(source)),
    }
}

/// Renames a damaged file or directory so that it can be looked at later.
///
/// # Errors
/// What renaming fails with; a path that does not exist is none.
pub fn set_aside(path: &Path, now: SystemTime) -> io::Result<PathBuf> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{}", since.as_millis()));
    let aside = PathBuf::from(name);
    match fs::rename(path, &aside) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(aside),
        renamed => renamed.map(|()| aside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/key");
        directory(path.parent().unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read_secret(&path).unwrap().as_deref(), Some(&b"two"[..]));
        let entries = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(entries, 1, "no temporary file is left");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (name, mode, refused) in [
            ("private", 0o600, false),
            ("group", 0o640, true),
            ("all", 0o644, true),
        ] {
            write(&path, b"secret").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let outcome = read_secret(&path);
            assert_eq!(
                matches!(outcome, Err(FileError::Exposed { .. })),
                refused,
                "{name}"
            );
        }
    }

    #[test]
    fn a_credential_may_be_read_by_whom_its_list_names() {
        let credential = Path::new("/run/credentials/lateen-control.service/ca-key.pem");
        for (name, path, mode, want) in [
            ("a file", Path::new("/etc/lateen/ca-key.pem"), 0o440, true),
            ("with a list", credential, 0o440, false),
            ("without one", credential, 0o400, false),
            ("for everybody", credential, 0o444, true),
        ] {
            assert_eq!(exposes(path, mode), want, "{name}");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent/file");
        assert!(matches!(write(&path, b"x"), Err(FileError::Write { .. })));
        assert_eq!(read(&path).unwrap(), None);
    }
}
