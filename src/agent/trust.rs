//! Whom this node believes, as its control plane tells it, kept so that a start with no control
//! plane in reach knows what is revoked (`spec/control-plane.md` §2.6, §6.5).
//!
//! A bundle takes effect as soon as it arrives, before the revision it comes with: it may be that
//! somebody is believed no more. It never goes back to an earlier one, nor to another mesh's.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prost::Message as _;
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::keep::set_aside;
use crate::causes::chain;
use crate::clock;
use crate::files::{self, FileError};
use crate::tls::{Bundle, Svid, Trust, pem};
use crate::wire::convert::{BundleError, bundle, decode_bundle};
use crate::wire::proto::lateen::TrustBundle;

const HASH: usize = 32;
/// How far a control plane's clock may be ahead of ours to be heeded.
const AHEAD: Duration = Duration::from_secs(300);
/// Over how long certificates that are all to be replaced are.
const SPREAD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Keeps the bundle in force current.
#[derive(Clone, Debug)]
pub struct Believed {
    /// One bundle at a time: two streams may bring one each.
    taking: Arc<Mutex<()>>,
    trust: Trust,
    epoch: Vec<u8>,
    path: PathBuf,
    exports: Option<PathBuf>,
}

impl Believed {
    /// Goes on with `trust`, for the mesh of this epoch; what is heard is kept in the directory
    /// `state`, and in `exports` for stock proxies on this host.
    pub fn new(trust: Trust, epoch: &[u8], state: &Path, exports: Option<PathBuf>) -> Self {
        Self {
            taking: Arc::default(),
            trust,
            epoch: epoch.to_vec(),
            path: path(state),
            exports,
        }
    }

    /// Puts a bundle in force. Blocks on the disk.
    ///
    /// # Errors
    /// [`BundleError`]; the bundle in force stays.
    pub fn take(&self, encoded: &[u8]) -> Result<(), BundleError> {
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.trust.bundle();
        let (told, bundle) = decode_bundle(encoded, &self.epoch, &held)?;
        // The same again after a restart: stock proxies' files may be gone with the last boot.
        self.export(&told);
        if bundle.sequence() == held.sequence() && bundle.knows_as(&held) {
            return Ok(());
        }
        let (sequence, revoked) = (bundle.sequence(), bundle.revocations());
        let roots = bundle.roots().certificates().len();
        self.trust.replace(bundle);
        info!(sequence, roots, revoked, "trust bundle in force");
        if let Err(e) = keep(&self.path, encoded) {
            warn!(
                error = chain(&e),
                "the trust bundle is not kept: a start without control plane would believe an older one"
            );
        }
        Ok(())
    }

    /// Writes for stock proxies what is kept, where there is anything. Blocks on the disk.
    pub fn export_kept(&self) {
        if let Ok(Some(bytes)) = files::read(&self.path)
            && let Ok(told) = read(&bytes)
            && told.epoch == self.epoch
        {
            self.export(&told);
        }
    }

    /// Writes roots and lists as stock proxies read them.
    fn export(&self, told: &TrustBundle) {
        let Some(directory) = &self.exports else {
            return;
        };
        let roots = told.roots.iter().map(|r| pem("CERTIFICATE", &r.der));
        let lists = told.crls.iter().map(|l| pem("X509 CRL", l));
        let write = || {
            files::directory(directory)?;
            files::publish(
                &directory.join("root.pem"),
                roots.collect::<String>().as_bytes(),
            )?;
            files::publish(
                &directory.join("crl.pem"),
                lists.collect::<String>().as_bytes(),
            )
        };
        if let Err(e) = write() {
            warn!(
                error = chain(&e),
                "roots and revocation lists are not written for stock proxies"
            );
        }
    }
}

/// The bundle kept in a state directory for the mesh of this epoch; nothing when there is none, or
/// only another mesh's or a damaged one. Blocks on the disk.
pub fn kept(state: &Path, epoch: &[u8]) -> Option<Bundle> {
    let path = path(state);
    let bytes = match files::read(&path) {
        Ok(bytes) => bytes?,
        Err(e) => {
            warn!(error = chain(&e), "the trust bundle kept cannot be read");
            return None;
        }
    };
    match read(&bytes) {
        Ok(told) if told.epoch == epoch => match bundle(&told) {
            Ok(bundle) => Some(bundle),
            Err(e) => {
                set_aside(&path, &chain(&e));
                None
            }
        },
        Ok(_another_mesh) => None,
        Err(reason) => {
            set_aside(&path, reason);
            None
        }
    }
}

/// Keeps an encoded bundle. Blocks on the disk.
///
/// # Errors
/// When it cannot be written; what was kept before still is.
pub fn keep(path: &Path, encoded: &[u8]) -> Result<(), FileError> {
    if let Some(directory) = path.parent() {
        files::directory(directory)?;
    }
    let mut bytes = encoded.to_vec();
    bytes.extend(Sha256::digest(encoded));
    files::write(path, &bytes)
}

/// Where a state directory keeps it.
pub fn path(state: &Path) -> PathBuf {
    state.join("agent/trust")
}

fn read(bytes: &[u8]) -> Result<TrustBundle, &'static str> {
    let body = bytes.len().checked_sub(HASH).ok_or("it is too short")?;
    let (body, hash) = bytes.split_at(body);
    if Sha256::digest(body)[..] != *hash {
        return Err("its checksum does not fit");
    }
    TrustBundle::decode(body).map_err(|_malformed| "it does not parse")
}

/// When a certificate was made: its start, without what our authorities date it back by
/// (`spec/control-plane.md` §4.2).
pub fn made_at(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    not_before + (life / 11).min(Duration::from_secs(120))
}

/// Returns when a certificate is to be replaced before its time, as the bundle in force says. Not at
/// once: nodes are not to come all together.
///
/// # Cancel safety
/// Safe: it holds nothing.
pub(super) async fn superseded(svid: &Svid) {
    let made = made_at(svid.not_before(), svid.not_after());
    let key = svid.certificate();
    let mut bundles = svid.trust().subscribe();
    let revoked = |b: &Bundle| key.as_ref().is_some_and(|key| b.revokes(key));
    // A moment to come is of a clock that is wrong: to heed it would be to ask for ever.
    let asked = |b: &Bundle| {
        let before = b.reissue_before();
        made < before && before <= clock::now() + AHEAD
    };
    let due = bundles.wait_for(|b| asked(b) || revoked(b));
    if due.await.is_err() {
        std::future::pending::<()>().await;
    }
    let spread = rand::rng().random_range(SPREAD.0..SPREAD.1);
    tokio::time::sleep(spread).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::TestCa;
    use crate::wire::proto::lateen::TrustRoot;
    use std::time::UNIX_EPOCH;

    const EPOCH: [u8; 16] = [7; 16];

    fn told(ca: &TestCa, sequence: u64) -> TrustBundle {
        let root = TrustRoot {
            der: ca.root.to_vec(),
            ..TrustRoot::default()
        };
        TrustBundle {
            epoch: EPOCH.to_vec(),
            sequence,
            roots: vec![root],
            crls: vec![ca.crl(sequence, &[])],
            ..TrustBundle::default()
        }
    }

    #[test]
    fn a_bundle_is_believed_kept_and_told_to_stock_proxies() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, next) = (TestCa::new(), TestCa::new());
        let trust = ca.trust();
        let exports = dir.path().join("run/trust");
        let believed = Believed::new(trust.clone(), &EPOCH, dir.path(), Some(exports.clone()));
        believed.take(&told(&next, 5).encode_to_vec()).unwrap();
        assert_eq!(trust.bundle().sequence(), 5);
        assert_eq!(kept(dir.path(), &EPOCH).unwrap().sequence(), 5);
        assert!(kept(dir.path(), &[8; 16]).is_none(), "another mesh");
        let roots = std::fs::read(exports.join("root.pem")).unwrap();
        let roots = crate::tls::certificates_from_pem(&roots).unwrap();
        assert_eq!(roots, std::slice::from_ref(&next.root));
        let list = std::fs::read_to_string(exports.join("crl.pem")).unwrap();
        assert!(list.starts_with("-----BEGIN X509 CRL-----\n"), "{list}");
        let mut torn = std::fs::read(path(dir.path())).unwrap();
        torn[3] ^= 1;
        std::fs::write(path(dir.path()), torn).unwrap();
        assert!(kept(dir.path(), &EPOCH).is_none(), "damaged");
    }

    /// Which trust domains are believed is the mesh files' to say, and not counted by the authority.
    #[test]
    fn other_trust_domains_under_the_same_number_are_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let ca = TestCa::new();
        let trust = ca.trust();
        let believed = Believed::new(trust.clone(), &EPOCH, dir.path(), None);
        let own = "cluster.local".parse().unwrap();
        let old = "old.example".parse().unwrap();
        for (aliases, want) in [(&[][..], false), (&["old.example"], true), (&[], false)] {
            let domains = ["cluster.local"].iter().chain(aliases);
            let bundle = TrustBundle {
                trust_domains: domains.map(|td| (*td).to_owned()).collect(),
                ..told(&ca, 5)
            };
            believed.take(&bundle.encode_to_vec()).unwrap();
            let knows = |bundle: &Bundle| bundle.knows(&old, &own);
            assert_eq!(knows(&trust.bundle()), want, "{aliases:?}");
            assert_eq!(knows(&kept(dir.path(), &EPOCH).unwrap()), want, "kept");
        }
    }

    #[test]
    fn what_must_not_be_believed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let ca = TestCa::new();
        let trust = ca.trust();
        let believed = Believed::new(trust.clone(), &EPOCH, dir.path(), None);
        believed.take(&told(&ca, 5).encode_to_vec()).unwrap();
        let foreign = TrustBundle {
            epoch: vec![8; 16],
            ..told(&ca, 6)
        };
        let rootless = TrustBundle {
            roots: Vec::new(),
            ..told(&ca, 6)
        };
        let lower_list = TrustBundle {
            crls: vec![ca.crl(2, &[])],
            ..told(&ca, 6)
        };
        for (name, bytes, want) in [
            (
                "older",
                told(&ca, 4).encode_to_vec(),
                "its sequence 4 is below 5",
            ),
            (
                "a lower list",
                lower_list.encode_to_vec(),
                "the number of a revocation list",
            ),
            ("another mesh", foreign.encode_to_vec(), "another mesh"),
            ("without roots", rootless.encode_to_vec(), "no root"),
            ("garbage", vec![0xff; 9], "does not decode"),
        ] {
            let error = chain(&believed.take(&bytes).unwrap_err());
            assert!(error.contains(want), "{name}: {error}");
        }
        assert_eq!(trust.bundle().sequence(), 5);
    }

    #[test]
    fn when_a_certificate_was_made_shows_in_it() {
        let made = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for ttl in [600, 3600, 86_400] {
            let back = Duration::from_secs(120).min(Duration::from_secs(ttl) / 10);
            let ends = made + Duration::from_secs(ttl);
            assert_eq!(made_at(made - back, ends), made, "{ttl}");
        }
    }
}
