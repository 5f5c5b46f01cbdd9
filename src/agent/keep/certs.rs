//! Workloads' certificates with their keys, a file for each identity.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::set_aside;
use crate::causes::chain;
use crate::clock;
use crate::files::{self, FileError};
use crate::hex::hex;
use crate::identity::SpiffeId;
use crate::tls::{Roots, Svid, Trust, certificates_from_pem, to_pem};

/// Where certificates are kept.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Shelf {
    directory: PathBuf,
    epoch: String,
    trust: Option<Trust>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Kept {
    id: String,
    epoch: String,
    /// PKCS#8, base64.
    key: String,
    /// PEM, leaf first.
    chain: String,
    /// PEM.
    roots: String,
}

impl Shelf {
    /// The certificates of a state directory, for the mesh of this epoch, whose peers are judged by
    /// `trust`, or else by the roots that came with each.
    pub(in crate::agent) fn of(state: &Path, epoch: &[u8], trust: Option<Trust>) -> Self {
        Self {
            trust,
            directory: state.join("agent/certs"),
            epoch: STANDARD.encode(epoch),
        }
    }

    /// What peers are judged by; none when that comes with each certificate.
    pub(in crate::agent) fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// Keeps a certificate; `key` is its key as PKCS#8. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be written; what was kept before then still is.
    pub(in crate::agent) fn put(&self, svid: &Svid, key: &[u8]) -> Result<(), FileError> {
        let kept = Kept {
            id: svid.id().to_string(),
            epoch: self.epoch.clone(),
            key: STANDARD.encode(key),
            chain: svid.chain().iter().map(|c| to_pem(c)).collect(),
            roots: svid.trust().bundle().roots().to_pem(),
        };
        let path = self.path(svid.id());
        if let Some(directory) = path.parent() {
            files::directory(directory)?;
        }
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        files::write(&path, &text)
    }

    /// The certificate kept for an identity, unless nobody would believe it or it is another mesh's. What is
    /// damaged or readable by others is not used, and said so. Blocks on the disk.
    pub(in crate::agent) fn get(&self, id: &SpiffeId) -> Option<Svid> {
        let path = self.path(id);
        let text = match files::read_secret(&path) {
            Ok(text) => text?,
            Err(e) => {
                warn!(identity = %id, error = chain(&e), "a kept certificate is not used");
                return None;
            }
        };
        match self.read(id, &text) {
            // Expired long ago, revoked, or under a root that is believed no more: no use to anyone.
            Ok(svid) => {
                // It was made once, so it is at least that time.
                let made = svid.as_ref().map(Svid::not_before);
                made.into_iter().for_each(clock::at_least);
                svid.filter(Svid::keeps)
            }
            Err(reason) => {
                set_aside(&path, &reason);
                None
            }
        }
    }

    fn read(&self, id: &SpiffeId, text: &[u8]) -> Result<Option<Svid>, String> {
        let kept: Kept = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if kept.epoch != self.epoch {
            return Ok(None);
        }
        let key = STANDARD.decode(&kept.key).map_err(|e| e.to_string())?;
        let key = PrivateKeyDer::try_from(key).map_err(str::to_owned)?;
        let certificates = certificates_from_pem(kept.chain.as_bytes());
        let certificates = certificates.map_err(|e| chain(&e))?;
        let trust = match &self.trust {
            Some(trust) => trust.clone(),
            None => {
                let roots = Roots::from_pem(kept.roots.as_bytes()).map_err(|e| chain(&e))?;
                Trust::of_roots(Arc::new(roots)).map_err(|e| chain(&e))?
            }
        };
        let svid = Svid::new(certificates, key, trust).map_err(|e| chain(&e))?;
        if svid.id() != id {
            return Err(format!("it is for {}", svid.id()));
        }
        Ok(Some(svid))
    }

    /// Forgets an identity's certificate. Blocks on the disk.
    pub(in crate::agent) fn forget(&self, id: &SpiffeId) {
        let path = self.path(id);
        if let Err(e) = fs::remove_dir_all(path.parent().unwrap_or(&path))
            && path.exists()
        {
            warn!(identity = %id, error = %e, "a certificate nobody needs is not removed");
        }
    }

    fn path(&self, id: &SpiffeId) -> PathBuf {
        let hash = Sha256::digest(id.to_string());
        self.directory.join(hex(&hash)).join("svid.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Leaf, TestCa};
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, SystemTime};

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
    const EPOCH: [u8; 16] = [7; 16];

    fn svid(life: Duration) -> (Svid, Vec<u8>) {
        until(SystemTime::now() + life)
    }

    fn until(not_after: SystemTime) -> (Svid, Vec<u8>) {
        let ca = TestCa::new();
        let leaf = Leaf {
            not_before: not_after - Duration::from_secs(3600),
            not_after,
            ..Leaf::uris(&[CART])
        };
        let (certificate, key) = ca.leaf(&leaf);
        let bytes = key.secret_der().to_vec();
        (
            Svid::new(vec![certificate], key, ca.trust()).unwrap(),
            bytes,
        )
    }

    #[test]
    fn a_certificate_is_had_again_by_whom_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let [cart, web] = [CART, WEB].map(|id| id.parse::<SpiffeId>().unwrap());
        let (svid, key) = svid(Duration::from_secs(3600));
        let trust = svid.trust();
        let shelf = Shelf::of(dir.path(), &EPOCH, Some(trust.clone()));
        shelf.put(&svid, &key).unwrap();
        let again = shelf.get(&cart).unwrap();
        assert_eq!((again.id(), again.serial()), (&cart, svid.serial()));
        assert!(shelf.get(&web).is_none());
        assert!(
            Shelf::of(dir.path(), &[8; 16], Some(trust.clone()))
                .get(&cart)
                .is_none(),
            "another mesh"
        );
        let path = shelf.path(&cart);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let guest = Shelf::of(dir.path(), &EPOCH, None);
        assert!(guest.get(&cart).is_some(), "by the roots it came with");
        let stranger = TestCa::new().trust();
        assert!(
            Shelf::of(dir.path(), &EPOCH, Some(stranger))
                .get(&cart)
                .is_none(),
            "under a root that is believed no more"
        );
        shelf.forget(&cart);
        shelf.forget(&cart);
        assert!(shelf.get(&cart).is_none());
    }

    #[test]
    fn what_is_no_use_is_not_used() {
        type Spoil = fn(&Path);
        let cases: [(&str, u64, Spoil, bool); 5] = [
            ("whole", 3600, |_| {}, true),
            ("expired, and given grace perhaps", 0, |_| {}, true),
            (
                "readable by others",
                3600,
                |p| fs::set_permissions(p, fs::Permissions::from_mode(0o644)).unwrap(),
                false,
            ),
            (
                "torn",
                3600,
                |p| {
                    let text = fs::read(p).unwrap();
                    fs::write(p, &text[..text.len() / 2]).unwrap();
                },
                false,
            ),
            (
                "another key",
                3600,
                |p| {
                    let (_, other) = svid(Duration::from_secs(9));
                    let text = fs::read(p).unwrap();
                    let mut kept: Kept = serde_json::from_slice(&text).unwrap();
                    kept.key = STANDARD.encode(other);
                    fs::write(p, serde_json::to_vec(&kept).unwrap()).unwrap();
                },
                false,
            ),
        ];
        for (name, life, spoil, used) in cases {
            let dir = tempfile::tempdir().unwrap();
            let (svid, key) = svid(Duration::from_secs(life));
            let shelf = Shelf::of(dir.path(), &EPOCH, Some(svid.trust().clone()));
            shelf.put(&svid, &key).unwrap();
            spoil(&shelf.path(svid.id()));
            assert_eq!(shelf.get(svid.id()).is_some(), used, "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        let long_ago = SystemTime::now() - crate::tls::grace::MOST - Duration::from_secs(1);
        let (svid, key) = until(long_ago);
        let shelf = Shelf::of(dir.path(), &EPOCH, Some(svid.trust().clone()));
        shelf.put(&svid, &key).unwrap();
        assert!(shelf.get(svid.id()).is_none(), "expired long ago");
    }
}
