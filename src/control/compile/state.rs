//! What numbering and compiling must remember: `control/revision/state`.
//!
//! One small file: the SHA-256 of the rest on the first line, then JSON. Numbers are reserved in
//! blocks, so that a revision seldom waits for the disk; a restart skips the rest of a block.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::files::set_aside;
use crate::hex::hex;
use crate::model::compile::Assignments;
use crate::model::service::ServiceKey;

/// How many numbers one write of the file is good for.
const BLOCK: u64 = 64;

/// Uids of workloads that are captured.
pub(super) type Captured = BTreeSet<Arc<str>>;

#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    last: u64,
    reserved: u64,
    assignments: Assignments,
    captured: Captured,
    changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    reserved: u64,
    assignments: BTreeMap<String, Vec<IpAddr>>,
    captured: Vec<String>,
}

const FORMAT: u32 = 1;

impl State {
    /// Reads the state of `dir`. Numbers go on above `floor` and above all reserved before.
    ///
    /// # Errors
    /// When the file is there and cannot be read. A damaged one is set aside: addresses are then
    /// assigned anew, which gives most services the address they had.
    pub(super) fn load(dir: &Path, floor: u64) -> io::Result<Self> {
        let path = dir.join("state");
        let mut state = Self {
            path,
            last: floor,
            reserved: floor,
            assignments: Assignments::default(),
            captured: Captured::new(),
            changed: false,
        };
        let bytes = match fs::read(&state.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(state),
            read => read?,
        };
        match parse(&bytes) {
            Some(written) => {
                state.last = floor.max(written.reserved);
                state.reserved = state.last;
                state.assignments = assignments(written.assignments);
                state.captured = written.captured.into_iter().map(Arc::from).collect();
            }
            None => {
                let aside = set_aside(&state.path, SystemTime::now())?;
                warn!(path = %state.path.display(), aside = %aside.display(),
                    "the revision state is damaged and was set aside: service addresses are assigned anew");
            }
        }
        Ok(state)
    }

    pub(super) fn assignments(&self) -> &Assignments {
        &self.assignments
    }

    pub(super) fn captured(&self) -> &Captured {
        &self.captured
    }

    /// A number higher than any before.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        if self.last > self.reserved {
            self.reserved = self.last + BLOCK - 1;
            self.changed = true;
        }
        self.last
    }

    /// Takes over what a compilation decided.
    pub(super) fn adopt(&mut self, assignments: Assignments, captured: Captured) {
        self.changed |= self.assignments != assignments || self.captured != captured;
        self.assignments = assignments;
        self.captured = captured;
    }

    /// Where to write what, when something has changed since it was last asked.
    pub(super) fn unsaved(&mut self) -> Option<(PathBuf, Vec<u8>)> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let assigned = self.assignments.iter();
        let written = Written {
            format: FORMAT,
            reserved: self.reserved,
            assignments: assigned.map(|(k, a)| (k.to_string(), a.to_vec())).collect(),
            captured: self.captured.iter().map(ToString::to_string).collect(),
        };
        // Maps with string keys and plain values always have a JSON form.
        let json = serde_json::to_vec(&written).ok()?;
        let mut bytes = sum(&json).into_bytes();
        bytes.push(b'\n');
        bytes.extend(json);
        Some((self.path.clone(), bytes))
    }

    /// Notes that writing failed: it is to be tried again.
    pub(super) fn not_saved(&mut self) {
        self.changed = true;
    }
}

fn sum(json: &[u8]) -> String {
    hex(&Sha256::digest(json))
}

fn parse(bytes: &[u8]) -> Option<Written> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (claimed, json) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    if claimed != sum(json).as_bytes() {
        return None;
    }
    let written: Written = serde_json::from_slice(json).ok()?;
    (written.format == FORMAT).then_some(written)
}

fn assignments(written: BTreeMap<String, Vec<IpAddr>>) -> Assignments {
    let key = |(key, addresses): (String, Vec<IpAddr>)| {
        let (namespace, hostname) = key.split_once('/')?;
        let (namespace, hostname) = (Arc::from(namespace), Arc::from(hostname));
        Some((
            ServiceKey {
                namespace,
                hostname,
            },
            addresses,
        ))
    };
    written.into_iter().filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(address: &str) -> Assignments {
        let key = ServiceKey {
            namespace: Arc::from("shop"),
            hostname: Arc::from("cart.shop.mesh.internal"),
        };
        [(key, vec![address.parse().unwrap()])]
            .into_iter()
            .collect()
    }

    fn save(state: &mut State) -> bool {
        let unsaved = state.unsaved();
        if let Some((path, bytes)) = &unsaved {
            crate::files::write(path, bytes).unwrap();
        }
        unsaved.is_some()
    }

    #[test]
    fn numbers_always_rise() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = 0;
        for _ in 0..3 {
            let mut state = State::load(dir.path(), 0).unwrap();
            let numbers: Vec<u64> = (0..100).map(|_| state.next()).collect();
            assert!(numbers[0] > last && numbers.is_sorted());
            last = numbers[99];
            assert!(save(&mut state));
        }
        assert_eq!(State::load(dir.path(), 100_000).unwrap().next(), 100_001);
    }

    #[test]
    fn saves_seldom_and_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::load(dir.path(), 0).unwrap();
        let captured: Captured = [Arc::from("uid")].into();
        state.next();
        state.adopt(assigned("240.240.0.9"), captured.clone());
        assert!(save(&mut state));
        state.next();
        state.adopt(assigned("240.240.0.9"), captured.clone());
        assert!(!save(&mut state), "nothing to remember");
        state.not_saved();
        assert!(save(&mut state));
        let again = State::load(dir.path(), 0).unwrap();
        assert_eq!(*again.assignments(), assigned("240.240.0.9"));
        assert_eq!(*again.captured(), captured);
    }

    #[test]
    fn damage_is_set_aside() {
        type Damage = fn(&mut Vec<u8>);
        let cases: [(&str, Damage); 4] = [
            ("flipped", |bytes| bytes[80] ^= 1),
            ("torn", |bytes| bytes.truncate(90)),
            ("empty", Vec::clear),
            ("zeros", |bytes| bytes.fill(0)),
        ];
        for (name, damage) in cases {
            let dir = tempfile::tempdir().unwrap();
            let mut state = State::load(dir.path(), 0).unwrap();
            state.next();
            state.adopt(assigned("240.240.0.9"), Captured::new());
            save(&mut state);
            let path = dir.path().join("state");
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let mut fresh = State::load(dir.path(), 7).unwrap();
            assert_eq!(*fresh.assignments(), Assignments::default(), "{name}");
            assert_eq!(fresh.next(), 8, "{name}");
            assert!(!path.exists(), "{name}: renamed");
        }
    }
}
