//! Small files that survive a power cut: write aside, fsync, rename, fsync the directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Replaces the file at `path`, readable by its owner only. After a crash it holds either what it
/// held before or all of `bytes`.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    create(Path::new(&aside), bytes)?;
    std::fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), sync)
}

/// Writes a file and waits for the disk. The name is durable once its directory is [synced](sync).
pub(super) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits for the disk to have the names in a directory.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
