//! The mesh as last heard, in one file: a line that names the format, the mesh's epoch, a response
//! for each type, and SHA-256 over all of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::set_aside;
use crate::agent::mirror::Resources;
use crate::causes::chain;
use crate::files;
use crate::hex::hex;
use crate::wire::proto::discovery::DeltaDiscoveryResponse;

const FORMAT: &[u8] = b"lateen-view-2\n";
const HASH: usize = 32;
/// Writing takes no more than this part of the time, however large the mesh and frequent its
/// changes.
const SHARE: u32 = 20;
/// Between attempts at a disk that does not take it.
const RETRY: Duration = Duration::from_secs(10);

/// Where the view is kept.
#[derive(Clone, Debug)]
pub(in crate::agent) struct ViewFile {
    path: PathBuf,
    /// In hex.
    epoch: String,
}

impl ViewFile {
    /// The file of a state directory, for the mesh of this epoch.
    pub(in crate::agent) fn of(state: &Path, epoch: &[u8]) -> Self {
        Self {
            path: state.join("agent/view"),
            epoch: hex(epoch),
        }
    }

    /// What is kept and since when; nothing when there is none, or only another mesh's or a damaged
    /// one.
    pub(in crate::agent) fn load(&self) -> Option<(SystemTime, Vec<DeltaDiscoveryResponse>)> {
        let bytes = match files::read(&self.path) {
            Ok(bytes) => bytes?,
            Err(e) => {
                warn!(error = chain(&e), "the mesh as last heard cannot be read");
                return None;
            }
        };
        match decode(&bytes) {
            Ok((epoch, responses)) if epoch == self.epoch => {
                let written = fs::metadata(&self.path).and_then(|m| m.modified());
                Some((written.unwrap_or(SystemTime::UNIX_EPOCH), responses))
            }
            // Left from a mesh that this machine was a node of before.
            Ok(_) => None,
            Err(reason) => {
                self.damaged(reason);
                None
            }
        }
    }

    /// Notes that what was kept is no use.
    pub(in crate::agent) fn damaged(&self, reason: &str) {
        set_aside(&self.path, reason);
    }

    fn save(&self, held: &Resources) -> Result<(), files::FileError> {
        if let Some(directory) = self.path.parent() {
            files::directory(directory)?;
        }
        files::write(&self.path, &encode(&self.epoch, &held.responses()))
    }
}

/// Keeps each state it is told of, or a later one, until `shutdown`; the last one always.
pub(in crate::agent) async fn keep(
    file: ViewFile,
    mut held: watch::Receiver<Resources>,
    shutdown: CancellationToken,
) {
    let mut failed = false;
    loop {
        let last = tokio::select! {
            () = shutdown.cancelled() => !held.has_changed().unwrap_or(false),
            changed = held.changed() => changed.is_err(),
        };
        if last {
            return;
        }
        let (file, state) = (file.clone(), held.borrow_and_update().clone());
        let begun = Instant::now();
        let saved = tokio::task::spawn_blocking(move || file.save(&state)).await;
        let wait = match saved {
            Ok(Ok(())) => {
                failed = false;
                begun.elapsed() * SHARE
            }
            Ok(Err(e)) => {
                if !failed {
                    warn!(
                        error = chain(&e),
                        "the mesh as last heard is not kept: a start without control plane would not know it"
                    );
                }
                failed = true;
                held.mark_changed();
                RETRY
            }
            Err(e) => {
                warn!(error = %e, "keeping the mesh view died");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => if failed { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn encode(epoch: &str, responses: &[DeltaDiscoveryResponse]) -> Vec<u8> {
    let mut bytes = FORMAT.to_vec();
    let header = DeltaDiscoveryResponse {
        nonce: epoch.to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    for message in std::iter::once(&header).chain(responses) {
        bytes.extend(message.encode_length_delimited_to_vec());
    }
    let hash = Sha256::digest(&bytes);
    bytes.extend(hash);
    bytes
}

/// Epoch and responses, or what is wrong.
fn decode(bytes: &[u8]) -> Result<(String, Vec<DeltaDiscoveryResponse>), &'static str> {
    let body = bytes.len().checked_sub(HASH).ok_or("it is too short")?;
    let (body, hash) = bytes.split_at(body);
    if Sha256::digest(body)[..] != *hash {
        return Err("its checksum does not fit");
    }
    let mut rest = body
        .strip_prefix(FORMAT)
        .ok_or("it is of another version")?;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let message = DeltaDiscoveryResponse::decode_length_delimited(&mut rest);
        messages.push(message.map_err(|_malformed| "it does not parse")?);
    }
    let mut messages = messages.into_iter();
    let header = messages.next().ok_or("it is empty")?;
    Ok((header.nonce, messages.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: [u8; 16] = [7; 16];

    fn responses() -> Vec<DeltaDiscoveryResponse> {
        ["a", "b"]
            .map(|name| DeltaDiscoveryResponse {
                type_url: name.to_owned(),
                removed_resources: vec!["x".to_owned(); 3],
                ..DeltaDiscoveryResponse::default()
            })
            .to_vec()
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let (epoch, read) = decode(&encode("e", &responses())).unwrap();
        assert_eq!((&*epoch, read), ("e", responses()));
    }

    #[test]
    fn any_flipped_byte_or_cut_is_noticed_and_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = ViewFile::of(dir.path(), &EPOCH);
        fs::create_dir(dir.path().join("agent")).unwrap();
        let whole = encode(&file.epoch, &responses());
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert!(decode(&flipped).is_err(), "byte {at} flipped");
            assert!(decode(&whole[..at]).is_err(), "cut at {at}");
        }
        fs::write(&file.path, &whole[1..]).unwrap();
        assert!(file.load().is_none());
        let left: Vec<_> = fs::read_dir(dir.path().join("agent")).unwrap().collect();
        let name = left[0].as_ref().unwrap().file_name();
        assert!(
            name.to_string_lossy().starts_with("view.damaged-"),
            "{name:?}"
        );
        fs::write(&file.path, &whole).unwrap();
        assert_eq!(file.load().unwrap().1, responses());
    }

    #[test]
    fn another_mesh_is_not_this_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("agent")).unwrap();
        let file = ViewFile::of(dir.path(), &EPOCH);
        fs::write(&file.path, encode("other", &responses())).unwrap();
        assert!(file.load().is_none());
        assert!(file.path.exists(), "it is nobody's damage");
    }
}
