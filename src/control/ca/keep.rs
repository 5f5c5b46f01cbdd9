//! The authority's files: made once, then only read. A damaged or incomplete authority stops the
//! control plane; a new one beside it would split the mesh in two (`spec/control-plane.md` §6.6).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
};
use rustls_pki_types::CertificateDer;

use super::{Authority, pin_of, serial};
use crate::files::{self, FileError};
use crate::identity::TrustDomain;
use crate::tls::{Roots, SvidError, certificates_from_pem, not_after, to_pem};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Life of a root (§4.5).
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file of it could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The mesh has an authority and part of it is gone.
    #[error("{} says that this mesh has a certificate authority, but {} is missing; restore the backup of {}, or, to start an entirely new mesh, move {} away first", epoch.display(), missing.display(), directory.display(), epoch.display())]
    Missing {
        /// The file that says so.
        epoch: PathBuf,
        /// The file that is gone.
        missing: PathBuf,
        /// Where it should be.
        directory: PathBuf,
    },
    /// A file of it does not read.
    #[error("{} is damaged; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A certificate of it is unusable.
    #[error("a certificate of the authority is unusable")]
    Certificate(#[from] SvidError),
    /// The library failed.
    #[error("cannot make a certificate authority")]
    Make(#[from] rcgen::Error),
}

struct Paths {
    epoch: PathBuf,
    directory: PathBuf,
    root: PathBuf,
    root_key: PathBuf,
    issuing: PathBuf,
    issuing_key: PathBuf,
}

impl Paths {
    fn new(state: &Path) -> Self {
        let directory = state.join("control/ca");
        Self {
            epoch: state.join("control/epoch"),
            root: directory.join("root.pem"),
            root_key: directory.join("root.key"),
            issuing: directory.join("issuing-1.pem"),
            issuing_key: directory.join("issuing-1.key"),
            directory,
        }
    }
}

pub(super) fn open(
    state: &Path,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Authority, OpenError> {
    let paths = Paths::new(state);
    match files::read(&paths.epoch)? {
        Some(epoch) => {
            let epoch = epoch.try_into();
            let epoch = epoch.map_err(|_length| damaged(&paths.epoch))?;
            load(&paths, epoch, trust_domain)
        }
        None => {
            make(&paths, trust_domain, now)?;
            open(state, trust_domain, now)
        }
    }
}

fn damaged(path: &Path) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
    }
}

fn load(
    paths: &Paths,
    epoch: [u8; 16],
    trust_domain: &TrustDomain,
) -> Result<Authority, OpenError> {
    let there = |content: Option<Vec<u8>>, path: &Path| {
        content.ok_or_else(|| OpenError::Missing {
            epoch: paths.epoch.clone(),
            missing: path.to_owned(),
            directory: paths.directory.clone(),
        })
    };
    let root = there(files::read(&paths.root)?, &paths.root)?;
    let issuing = there(files::read(&paths.issuing)?, &paths.issuing)?;
    let key = there(files::read_secret(&paths.issuing_key)?, &paths.issuing_key)?;
    // The root's key may be kept elsewhere; where it is here, it must be private.
    if let Some(key) = files::read_secret(&paths.root_key)? {
        let text = String::from_utf8(key).map_err(|_text| damaged(&paths.root_key))?;
        KeyPair::from_pem(&text).map_err(|_key| damaged(&paths.root_key))?;
    }
    let key = String::from_utf8(key).map_err(|_text| damaged(&paths.issuing_key))?;
    let key = KeyPair::from_pem(&key).map_err(|_key| damaged(&paths.issuing_key))?;
    let root = sole(&root).ok_or_else(|| damaged(&paths.root))?;
    let issuing = sole(&issuing).ok_or_else(|| damaged(&paths.issuing))?;
    let issuing_ends = not_after(&issuing).ok_or_else(|| damaged(&paths.issuing))?;
    let pin = pin_of(&root)?;
    let issuer = Issuer::from_ca_cert_der(&issuing, key);
    let issuer = issuer.map_err(|_cert| damaged(&paths.issuing))?;
    Ok(Authority {
        trust_domain: trust_domain.clone(),
        epoch,
        roots: Arc::new(Roots::new(vec![root])?),
        pin,
        issuing,
        issuing_ends,
        issuer,
    })
}

fn sole(pem: &[u8]) -> Option<CertificateDer<'static>> {
    let mut all = certificates_from_pem(pem).ok()?;
    let only = all.pop()?;
    all.is_empty().then_some(only)
}

/// Makes an authority. The epoch is written last: until then nothing says that there is one, and
/// an interrupted start begins anew.
fn make(paths: &Paths, trust_domain: &TrustDomain, now: SystemTime) -> Result<(), OpenError> {
    files::directory(&paths.directory)?;
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
    let name = format!("Lateen root of {trust_domain}");
    let root_params = ca_params(&name, now, ROOT_TTL, None);
    let root = root_params.self_signed(&root_key)?;
    let key_text = root_key.serialize_pem();
    let issuer = Issuer::new(root_params, root_key);
    let issuing_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let name = format!("Lateen issuer 1 of {trust_domain}");
    let params = ca_params(&name, now, YEAR, Some(0));
    let issuing = params.signed_by(&issuing_key, &issuer)?;
    files::write(&paths.root_key, key_text.as_bytes())?;
    files::write(&paths.root, to_pem(root.der()).as_bytes())?;
    files::write(&paths.issuing_key, issuing_key.serialize_pem().as_bytes())?;
    files::write(&paths.issuing, to_pem(issuing.der()).as_bytes())?;
    let epoch: [u8; 16] = rand::random();
    files::write(&paths.epoch, &epoch)?;
    Ok(())
}

fn ca_params(name: &str, now: SystemTime, ttl: Duration, below: Option<u8>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - Duration::from_secs(120)).into();
    params.not_after = (now + ttl).into();
    params.is_ca = IsCa::Ca(match below {
        Some(below) => BasicConstraints::Constrained(below),
        None => BasicConstraints::Unconstrained,
    });
    // cRLSign as well: without it no revocation by this certificate would ever be believed (§4.7).
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = below.is_some();
    params.serial_number = Some(serial());
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn try_open(state: &Path) -> Result<Authority, OpenError> {
        open(state, &TrustDomain::default(), SystemTime::now())
    }

    #[test]
    fn an_authority_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = try_open(dir.path()).unwrap();
        let again = try_open(dir.path()).unwrap();
        assert_eq!(first.pin(), again.pin());
        assert_eq!(first.epoch(), again.epoch());
        let key = dir.path().join("control/ca/root.key");
        let mode = fs::metadata(key).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn what_is_missing_or_damaged_stops_it_and_nothing_is_made() {
        for (file, spoil, want) in [
            ("ca/root.pem", "remove", "is missing"),
            ("ca/issuing-1.pem", "remove", "is missing"),
            ("ca/issuing-1.key", "remove", "is missing"),
            ("ca/issuing-1.key", "truncate", "is damaged"),
            ("ca/root.pem", "truncate", "is damaged"),
            ("ca/root.key", "truncate", "is damaged"),
            ("epoch", "truncate", "is damaged"),
            ("ca/issuing-1.key", "expose", "chmod 600"),
            ("ca/root.key", "expose", "chmod 600"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            try_open(dir.path()).unwrap();
            let path = dir.path().join("control").join(file);
            match spoil {
                "remove" => fs::remove_file(&path).unwrap(),
                "truncate" => fs::write(&path, "-----").unwrap(),
                _ => fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap(),
            }
            let error = try_open(dir.path()).unwrap_err().to_string();
            assert!(
                error.contains(want) && error.contains(path.to_str().unwrap()),
                "{file} {spoil}: {error}"
            );
            assert_eq!(path.exists(), spoil != "remove", "{file} is not made anew");
        }
    }
}
