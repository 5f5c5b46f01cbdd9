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
use super::seconds;
use super::serial::Serial;
use crate::files::{self, FileError};

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
pub struct Entry {
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
    pub(super) fn load(directory: &Path) -> Result<Self, OpenError> {
        let path = path(directory);
        match files::read(&path)? {
            None => Ok(Self::default()),
            Some(text) => serde_json::from_slice(&text).map_err(|_json| damaged(&path)),
        }
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

    /// Forgets what has expired, and counts on.
    pub(super) fn advance(&mut self, now: SystemTime) {
        self.entries.retain(|e| e.until > seconds(now));
        self.number += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
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
            revoked_certs: self.entries.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&intermediate.issuer)?.der().to_vec())
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("revoked.json")
}

fn hex(serial: &[u8]) -> String {
    serial.iter().map(|b| format!("{b:02x}")).collect()
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
        revoked.advance(now);
        assert_eq!((revoked.len(), revoked.number), (2, 1));
        revoked.advance(now + Duration::from_secs(1000));
        assert_eq!((revoked.len(), revoked.number), (1, 2));
    }
}
