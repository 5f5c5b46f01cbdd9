//! Keys on disk, so that they count after a restart while their source cannot be reached.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::source::Known;
use crate::clock::seconds;
use crate::files::{self, FileError};
use crate::hex::hex;
use crate::model::authentication::Keys;
use crate::model::declaration::RemoteAt;

/// What is kept of a source.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Whose it is, as it is written.
    from: String,
    /// When it was last got, in seconds since 1970.
    at: u64,
    /// The key set as it was sent.
    keys: String,
}

/// The directory of a waypoint's keys.
#[derive(Clone)]
pub(super) struct Store(PathBuf);

impl Store {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where the keys of a source are; none for one whose file is its own memory.
    fn path(&self, of: &RemoteAt) -> Option<PathBuf> {
        match of {
            RemoteAt::Uri(uri) if uri.starts_with("file:") => None,
            RemoteAt::Uri(_) | RemoteAt::Discovery(_) => {
                let digest = Sha256::digest(of.to_string());
                Some(self.0.join(format!("{}.json", hex(&digest))))
            }
        }
    }

    /// What is kept of a source. What does not read is as good as nothing.
    pub(super) async fn load(&self, of: &RemoteAt) -> Option<Known> {
        let path = self.path(of)?;
        let from = of.to_string();
        let read = move || read(&path, &from);
        tokio::task::spawn_blocking(read).await.ok()?
    }

    /// Keeps what a source said.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub(super) async fn keep(
        &self,
        of: &RemoteAt,
        keys: &[u8],
        at: SystemTime,
    ) -> Result<(), FileError> {
        let Some(path) = self.path(of) else {
            return Ok(());
        };
        let kept = Kept {
            from: of.to_string(),
            at: seconds(at),
            keys: String::from_utf8_lossy(keys).into_owned(),
        };
        let directory = self.0.clone();
        let write = move || {
            files::directory(&directory)?;
            let text = serde_json::to_vec(&kept).unwrap_or_default();
            files::write(&path, &text)
        };
        tokio::task::spawn_blocking(write).await.unwrap_or(Ok(()))
    }

    /// Forgets a source that is named no more.
    pub(super) async fn forget(&self, of: &RemoteAt) {
        let Some(path) = self.path(of) else {
            return;
        };
        // What is left over is judged by its age.
        let _left = tokio::task::spawn_blocking(move || files::remove(&path)).await;
    }
}

fn read(path: &Path, from: &str) -> Option<Known> {
    let text = files::read(path).ok()??;
    let kept: Kept = serde_json::from_slice(&text).ok()?;
    let keys = Keys::read(kept.keys.as_bytes()).ok()?;
    (kept.from == from).then(|| Known {
        keys,
        at: UNIX_EPOCH + Duration::from_secs(kept.at),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn keys_are_kept_by_their_source() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("shop.wp"));
        let of = |uri: &str| RemoteAt::Uri(Arc::from(uri));
        let (web, file) = (of("https://keys/"), of("file:///keys"));
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert!(store.load(&web).await.is_none(), "nothing yet");
        for of in [&web, &file] {
            store.keep(of, b"{\"keys\": []}", at).await.unwrap();
        }
        assert_eq!(store.load(&web).await.map(|known| known.at), Some(at));
        assert!(store.load(&file).await.is_none(), "a file is its own");
        let discovered = RemoteAt::Discovery(Arc::from("https://keys/"));
        assert!(store.load(&discovered).await.is_none(), "another source");
        store.forget(&web).await;
        assert!(store.load(&web).await.is_none(), "forgotten");
        store.keep(&web, b"no keys", at).await.unwrap();
        assert!(store.load(&web).await.is_none(), "damaged");
    }
}
