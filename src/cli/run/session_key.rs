//! The secret that instances of a waypoint share, so that they read each other's session tokens.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// How many bytes make a secret.
const LENGTH: RangeInclusive<usize> = 32..=4096;

/// Why a file is no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSecret {
    #[error(
        "it cannot be read; beside a node role lateen runs as the `user` of lateen.toml, who must own it"
    )]
    Unreadable(#[from] io::Error),
    #[error("it has {0} bytes; write 32 to 4096 random ones, as `openssl rand 32` makes them")]
    Length(usize),
    #[error("everybody on this host may read or write it (mode {0:03o}); make it `chmod 0600`")]
    Open(u32),
}

/// Reads a file that holds a secret. Blocks on the file system.
///
/// # Errors
/// [`NoSecret`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, NoSecret> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(NoSecret::Open(mode));
    }
    let mut secret = Vec::new();
    let most = *LENGTH.end() as u64;
    file.take(most + 1).read_to_end(&mut secret)?;
    match LENGTH.contains(&secret.len()) {
        true => Ok(secret),
        false => Err(NoSecret::Length(secret.len())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_long_enough_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(matches!(read(&path), Err(NoSecret::Unreadable(_))));
        for (bytes, mode, want) in [
            (32, 0o600, "32"),
            (4096, 0o640, "4096"),
            (
                31,
                0o600,
                "it has 31 bytes; write 32 to 4096 random ones, as `openssl rand 32` makes them",
            ),
            (
                4097,
                0o600,
                "it has 4097 bytes; write 32 to 4096 random ones, as `openssl rand 32` makes them",
            ),
            (
                32,
                0o644,
                "everybody on this host may read or write it (mode 644); make it `chmod 0600`",
            ),
        ] {
            fs::write(&path, vec![7; bytes]).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let told = match read(&path) {
                Ok(secret) => secret.len().to_string(),
                Err(fault) => fault.to_string(),
            };
            assert_eq!(told, want);
        }
    }
}
