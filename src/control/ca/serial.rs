//! Serial numbers that nobody can guess and we can enumerate (`spec/control-plane.md` §4.2).
//!
//! A serial is a node's random index and a counter of its own, under one block of AES with a key of
//! the authority. So nothing has to be kept of a certificate to take it back later: the serials of a
//! node are the counters it has used. Only how far these may have come is on disk, in steps of
//! [`BLOCK`], before any of the step is used; a crash loses numbers and never uses one twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::cipher::{
    AES_128, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey,
};
use serde::{Deserialize, Serialize};

use super::{MAX_TTL, seconds};
use crate::files::{self, FileError};

/// Bytes of a serial: one block of AES.
pub(super) const LENGTH: usize = 16;
/// Counters reserved at once.
const BLOCK: u64 = 64;

/// A serial number as it stands in the certificate.
pub(super) type Serial = [u8; LENGTH];

/// Why there is no serial to be had.
#[derive(Debug, thiserror::Error)]
pub enum SerialError {
    /// The reservation could not be made durable.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of reservations does not read.
    #[error("{} is damaged; restore it from a backup: without it, serial numbers could be used twice", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The crypto library failed.
    #[error("cannot encrypt a serial number")]
    Cipher,
}

/// Gives out serials.
pub(super) struct Serials {
    key: [u8; 16],
    directory: PathBuf,
    nodes: Mutex<BTreeMap<Arc<str>, Counter>>,
}

/// What is kept of one node's numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Kept {
    node: Arc<str>,
    /// Random, so that a node whose file is lost starts among fresh numbers.
    index: u64,
    /// Counters below this may be used.
    reserved: u64,
    /// Blocks of counters that are used up, oldest first.
    blocks: Vec<Block>,
}

/// Counters of which the last certificate expires at `until`, in seconds since 1970.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Block {
    from: u64,
    to: u64,
    until: u64,
}

struct Counter {
    kept: Kept,
    /// The block in use.
    current: Block,
    /// The next counter.
    next: u64,
}

impl Serials {
    /// Opens what is kept in `directory`; `key` never changes in a mesh's life.
    pub(super) fn open(
        directory: &Path,
        key: [u8; 16],
        now: SystemTime,
    ) -> Result<Self, SerialError> {
        files::directory(directory)?;
        let failed = |source| FileError::Read {
            path: directory.to_owned(),
            source,
        };
        let mut nodes = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let text = files::read(&path)?.unwrap_or_default();
            let kept: Kept =
                serde_json::from_slice(&text).map_err(|_json| SerialError::Damaged { path })?;
            nodes.insert(Arc::clone(&kept.node), Counter::resumed(kept, now));
        }
        Ok(Self {
            key,
            directory: directory.to_owned(),
            nodes: Mutex::new(nodes),
        })
    }

    /// A serial for a certificate of `node` that expires at `until`.
    pub(super) fn take(
        &self,
        node: &str,
        until: SystemTime,
        now: SystemTime,
    ) -> Result<Serial, SerialError> {
        let mut nodes = self.lock();
        let counter = match nodes.get_mut(node) {
            Some(counter) => counter,
            None => nodes
                .entry(Arc::from(node))
                .or_insert_with(|| Counter::new(node)),
        };
        if counter.next >= counter.kept.reserved {
            let (kept, current) = counter.reserve(now);
            let path = self.directory.join(format!("{node}.json"));
            let text = serde_json::to_vec(&kept).unwrap_or_default();
            files::write(&path, &text)?;
            counter.kept = kept;
            counter.current = current;
        }
        let (index, number) = (counter.kept.index, counter.next);
        counter.next += 1;
        counter.current.until = counter.current.until.max(seconds(until));
        drop(nodes);
        self.encrypt(index, number)
    }

    /// Every serial of a node whose certificate may still be valid, and until when.
    pub(super) fn live(
        &self,
        node: &str,
        now: SystemTime,
    ) -> Result<Vec<(Serial, u64)>, SerialError> {
        let nodes = self.lock();
        let Some(counter) = nodes.get(node) else {
            return Ok(Vec::new());
        };
        let current = Block {
            to: counter.next,
            ..counter.current
        };
        let index = counter.kept.index;
        let blocks = counter.kept.blocks.iter().chain([&current]);
        let live: Vec<Block> = blocks.filter(|b| b.until > seconds(now)).copied().collect();
        drop(nodes);
        let serials = live
            .into_iter()
            .flat_map(|b| (b.from..b.to).map(move |n| (n, b.until)));
        serials
            .map(|(number, until)| Ok((self.encrypt(index, number)?, until)))
            .collect()
    }

    /// The node a serial was given to, and until when its certificate may be valid.
    pub(super) fn owner(&self, serial: &Serial) -> Option<(Arc<str>, u64)> {
        let (index, number) = self.decrypt(serial)?;
        let nodes = self.lock();
        let counter = nodes.values().find(|c| c.kept.index == index)?;
        let blocks = counter.kept.blocks.iter().chain([&counter.current]);
        let block = blocks
            .filter(|b| b.from <= number && number < b.to)
            .find(|_| number < counter.next)?;
        Some((Arc::clone(&counter.kept.node), block.until))
    }

    fn encrypt(&self, index: u64, number: u64) -> Result<Serial, SerialError> {
        let mut block = [0; LENGTH];
        let (high, low) = block.split_at_mut(8);
        high.copy_from_slice(&index.to_be_bytes());
        low.copy_from_slice(&number.to_be_bytes());
        let mut cipher = || {
            let key = UnboundCipherKey::new(&AES_128, &self.key)?;
            EncryptingKey::ecb(key)?.encrypt(&mut block)
        };
        cipher().map_err(|_unspecified| SerialError::Cipher)?;
        Ok(block)
    }

    fn decrypt(&self, serial: &Serial) -> Option<(u64, u64)> {
        let mut block = *serial;
        let key = UnboundCipherKey::new(&AES_128, &self.key).ok()?;
        let key = DecryptingKey::ecb(key).ok()?;
        key.decrypt(&mut block, DecryptionContext::None).ok()?;
        let (index, number) = block.split_at(8);
        let read = |half: &[u8]| Some(u64::from_be_bytes(half.try_into().ok()?));
        Some((read(index)?, read(number)?))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Counter>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counter {
    fn new(node: &str) -> Self {
        Self {
            kept: Kept {
                node: Arc::from(node),
                index: rand::random(),
                reserved: 0,
                blocks: Vec::new(),
            },
            current: Block {
                from: 0,
                to: 0,
                until: 0,
            },
            next: 0,
        }
    }

    /// Goes on behind everything that was reserved. How long the last certificates of the block
    /// that was in use live is not known any more: as long as any may.
    fn resumed(mut kept: Kept, now: SystemTime) -> Self {
        let used = kept.reserved.saturating_sub(BLOCK);
        let until = seconds(now + MAX_TTL + Duration::from_secs(60));
        kept.blocks.push(Block {
            from: used,
            to: kept.reserved,
            until,
        });
        let next = kept.reserved;
        Self {
            kept,
            current: Block {
                from: next,
                to: next,
                until: 0,
            },
            next,
        }
    }

    /// What is kept, and the block in use, after another block is reserved.
    fn reserve(&self, now: SystemTime) -> (Kept, Block) {
        let mut kept = self.kept.clone();
        if self.next > self.current.from {
            kept.blocks.push(Block {
                to: self.next,
                ..self.current
            });
        }
        kept.blocks.retain(|b| b.until > seconds(now));
        kept.reserved += BLOCK;
        let current = Block {
            from: self.next,
            to: kept.reserved,
            until: 0,
        };
        (kept, current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const HOUR: Duration = Duration::from_secs(3600);

    fn open(dir: &Path) -> Serials {
        Serials::open(dir, [7; 16], SystemTime::now()).unwrap()
    }

    #[test]
    fn no_serial_is_given_twice_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let mut seen = BTreeSet::new();
        for _restart in 0..5 {
            let serials = open(dir.path());
            for node in ["edge-1", "edge-2"] {
                for _ in 0..100 {
                    assert!(seen.insert(serials.take(node, now + HOUR, now).unwrap()));
                }
            }
        }
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn a_nodes_serials_are_found_again_while_they_live() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let serials = open(dir.path());
        let take = |s: &Serials, node, life| s.take(node, now + life, now).unwrap();
        let given: BTreeSet<Serial> = (0..130).map(|_| take(&serials, "edge-1", HOUR)).collect();
        let other = take(&serials, "edge-2", HOUR);
        let live = |s: &Serials, node, at| -> BTreeSet<Serial> {
            s.live(node, at)
                .unwrap()
                .into_iter()
                .map(|(s, _)| s)
                .collect()
        };
        assert_eq!(live(&serials, "edge-1", now), given);
        assert_eq!(live(&serials, "edge-1", now + HOUR), BTreeSet::new());
        assert_eq!(live(&serials, "nobody", now), BTreeSet::new());
        // A restart may think more of them alive, never fewer.
        let again = live(&open(dir.path()), "edge-1", now);
        assert!(
            again.is_superset(&given),
            "{} of {}",
            again.len(),
            given.len()
        );
        assert!(!again.contains(&other));
    }

    #[test]
    fn a_serial_tells_us_and_nobody_else_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let serials = open(dir.path());
        let serial = serials.take("edge-1", now + HOUR, now).unwrap();
        let (node, until) = serials.owner(&serial).unwrap();
        assert_eq!((&*node, until), ("edge-1", seconds(now + HOUR)));
        let mut other = serial;
        other[3] ^= 1;
        assert!(serials.owner(&other).is_none());
        let unused = serials
            .encrypt(serials.lock()["edge-1"].kept.index, 5)
            .unwrap();
        assert!(
            serials.owner(&unused).is_none(),
            "reserved and not given out"
        );
        let stranger = Serials::open(dir.path(), [8; 16], now).unwrap();
        assert!(stranger.owner(&serial).is_none());
    }

    #[test]
    fn a_disk_that_takes_nothing_stops_only_what_is_not_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let serials = open(dir.path());
        serials.take("edge-1", now, now).unwrap();
        fs::remove_dir_all(dir.path()).unwrap();
        for _ in 1..BLOCK {
            serials.take("edge-1", now, now).unwrap();
        }
        assert!(matches!(
            serials.take("edge-1", now, now),
            Err(SerialError::File(_))
        ));
    }

    #[test]
    fn a_damaged_file_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge-1.json");
        fs::write(&path, "{").unwrap();
        let refused = Serials::open(dir.path(), [7; 16], SystemTime::now());
        assert!(matches!(refused.err(), Some(SerialError::Damaged { path: p }) if p == path));
    }
}
