//! Certificates taken back, and the lists that say so (`spec/control-plane.md` §4.7).
//!
//! What is revoked is on disk first; lists are signed from it. Each intermediate that certificates
//! may be about of signs one, with everything revoked in it: a serial is unique whoever issued it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use serde::{Deserialize, Serialize};

use super::keep::{Home, OpenError, damaged};
use super::ring::{Intermediate, Ring};
use super::serial::Serial;
use super::{REMEMBERED, seconds};
use crate::files::{self, FileError};
use crate::hex::hex;

/// How long a list says that it is good for.
const GOOD_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Lists are signed anew when they are this old.
pub(super) const RESIGN: Duration = Duration::from_secs(24 * 3600);

/// What has been revoked and not expired since.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Revoked {
    /// Of the lists that are to say so.
    pub(super) number: u64,
    entries: Vec<Entry>,
}

/// A certificate that is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Entry {
    /// Its serial number in hex.
    pub serial: String,
    /// The node it was given to.
    pub node: Arc<str>,
    /// When it was revoked, in seconds since 1970.
    pub at: u64,
    /// When it expires at the latest, in seconds since 1970.
    pub until: u64,
}

impl Revoked {
    pub(super) fn load(home: &Home) -> Result<Self, OpenError> {
        let path = path(&home.directory);
        let text = home.there(files::read(&path)?, &path)?;
        serde_json::from_slice(&text).map_err(|_json| damaged(&path))
    }

    pub(super) fn save(&self, directory: &Path) -> Result<(), FileError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        files::write(&path(directory), &text)
    }

    /// Takes certificates of a node back; tells how many had not been before.
    pub(super) fn add(
        &mut self,
        node: &Arc<str>,
        serials: &[(Serial, u64)],
        now: SystemTime,
    ) -> usize {
        let mut known: std::collections::BTreeSet<String> =
            self.entries.iter().map(|e| e.serial.clone()).collect();
        let before = self.entries.len();
        for (serial, until) in serials {
            let serial = hex(serial);
            if known.insert(serial.clone()) {
                self.entries.push(Entry {
                    serial,
                    node: Arc::clone(node),
                    at: seconds(now),
                    until: *until,
                });
            }
        }
        self.entries.len() - before
    }

    /// Forgets what can matter no more, and counts on from whichever number is higher.
    pub(super) fn advance(&mut self, listed: u64, now: SystemTime) {
        let ends = |e: &Entry| e.until + REMEMBERED.as_secs();
        self.entries.retain(|e| ends(e) > seconds(now));
        self.number = self.number.max(listed) + 1;
    }

    /// Whether a certificate has been taken back, though it may have expired since.
    pub(super) fn has(&self, serial: &Serial) -> bool {
        let serial = hex(serial);
        self.entries.iter().any(|e| e.serial == serial)
    }

    /// What lists say at a time: what has not expired.
    pub(super) fn listed(&self, now: SystemTime) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |e| e.until > seconds(now))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }

    /// Signs the lists of all intermediates and keeps them.
    pub(super) fn sign(&self, home: &Home, ring: &Ring, now: SystemTime) -> Result<(), OpenError> {
        for intermediate in ring.retired.iter().chain([&ring.issuing]) {
            let list = self.list(intermediate, now)?;
            files::write(&home.crl(&intermediate.name), &list)?;
        }
        Ok(())
    }

    fn list(&self, intermediate: &Intermediate, now: SystemTime) -> Result<Vec<u8>, rcgen::Error> {
        let at = |seconds: u64| (UNIX_EPOCH + Duration::from_secs(seconds)).into();
        let entry = |e: &Entry| RevokedCertParams {
            serial_number: SerialNumber::from(bytes(&e.serial)),
            revocation_time: at(e.at),
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: (now - Duration::from_secs(120)).into(),
            next_update: (now + GOOD_FOR).into(),
            crl_number: SerialNumber::from(self.number),
            issuing_distribution_point: None,
            revoked_certs: self.listed(now).map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&intermediate.issuer)?.der().to_vec())
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("revoked.json")
}

/// The serial that a text means, however it is written: with colons, in capitals, without leading
/// zeros.
pub(super) fn serial(text: &str) -> Option<Serial> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let padded = format!("{digits:0>32}");
    bytes(&padded).try_into().ok()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_read_however_it_is_written() {
        let want = {
            let mut s = [0; 16];
            s[1] = 0xab;
            s[15] = 1;
            s
        };
        let plain = hex(&want);
        for (name, text, good) in [
            ("plain", plain.as_str(), true),
            ("without zeros", plain.trim_start_matches('0'), true),
            ("capitals", &plain.to_uppercase(), true),
            ("a zero more", &format!("00{plain}"), true),
            (
                "colons",
                "00:ab:00:00:00:00:00:00:00:00:00:00:00:00:00:01",
                true,
            ),
            ("too long", &format!("11{plain}"), false),
            ("no number", "xyz", false),
            ("empty", "", false),
        ] {
            assert_eq!(serial(text).is_some_and(|s| s == want), good, "{name}");
        }
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let node = Arc::from("edge-1");
        let mut revoked = Revoked::default();
        assert_eq!(
            revoked.add(&node, &[([1; 16], 1500), ([2; 16], 3000)], now),
            2
        );
        assert_eq!(revoked.add(&node, &[([1; 16], 1500)], now), 0, "known");
        revoked.advance(0, now);
        let listed = |revoked: &Revoked, at| revoked.listed(at).count();
        assert_eq!((listed(&revoked, now), revoked.number), (2, 1));
        let later = now + Duration::from_secs(1000);
        assert_eq!(listed(&revoked, later), 1, "expired, so no list needs it");
        assert!(revoked.has(&[1; 16]), "and it still lets nobody back in");
        revoked.advance(9, later + REMEMBERED);
        assert_eq!((revoked.len(), revoked.number), (1, 10));
        assert!(!revoked.has(&[1; 16]));
    }
}
