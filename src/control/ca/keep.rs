//! The authority's files. A damaged or incomplete authority stops the control plane; a new one
//! beside it would split the mesh in two (`spec/control-plane.md` §6.6).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;

use super::make;
use super::manifest::Manifest;
use super::plugged::{self, Brought, PluggedError};
use super::revoke::Revoked;
use super::ring::{Intermediate, Ring, Root, RootState};
use super::seconds;
use super::serial::{SerialError, Serials};
use crate::files::{self, FileError};
use crate::identity::TrustDomain;
use crate::tls::{
    Bundle, Roots, SvidError, certificates_from_pem, spki_sha256, to_pem, validity_of,
};

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file of it could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The mesh has an authority and part of it is gone.
    #[error("{} says that this mesh has a certificate authority, but {} is missing; restore the backup of {} with it, or, to start an entirely new mesh, move both away first", epoch.display(), missing.display(), directory.display())]
    Missing {
        /// The file that says so.
        epoch: PathBuf,
        /// The file that is gone.
        missing: PathBuf,
        /// Where it should be.
        directory: PathBuf,
    },
    /// There is an authority, and nothing that says which mesh's.
    #[error("{} holds a certificate authority, but {} is missing; restore it from the same backup, or, to start an entirely new mesh, move {} away first", directory.display(), epoch.display(), directory.display())]
    NoEpoch {
        /// The file that is gone.
        epoch: PathBuf,
        /// Where the authority is.
        directory: PathBuf,
    },
    /// The key that a rotation which is due needs is somewhere else.
    #[error("the intermediate is past half of its life, and cannot be replaced: {reason}")]
    Due {
        /// Why.
        reason: String,
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
    /// Serial numbers cannot be had.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// The plugged-in authority is unusable.
    #[error(transparent)]
    Plugged(#[from] PluggedError),
    /// The settings and the state directory mean different authorities.
    #[error("this mesh began with {began}, but the settings say {told}; its certificates would all be void: to start an entirely new mesh, move {} away first", epoch.display())]
    Origin {
        /// What the state directory has.
        began: &'static str,
        /// What the settings say.
        told: &'static str,
        /// The file that stands for the mesh.
        epoch: PathBuf,
    },
}

/// Where the authority's files are.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) epoch: PathBuf,
    pub(super) directory: PathBuf,
    /// The directory of a plugged-in authority.
    pub(super) plugged: Option<PathBuf>,
}

/// An authority as it was found, or made.
pub(super) struct Opened {
    pub(super) home: Home,
    pub(super) epoch: [u8; 16],
    pub(super) manifest: Manifest,
    pub(super) revoked: Revoked,
    pub(super) serials: Serials,
    pub(super) ring: Ring,
    pub(super) brought: Option<Brought>,
}

impl Home {
    pub(super) fn new(state: &Path, plugged: Option<&Path>) -> Self {
        Self {
            epoch: state.join("control/epoch"),
            directory: state.join("control/ca"),
            plugged: plugged.map(Path::to_owned),
        }
    }

    pub(super) fn manifest(&self) -> PathBuf {
        self.directory.join("authority.json")
    }

    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.pem"))
    }

    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.key"))
    }

    pub(super) fn crl(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.crl"))
    }

    /// Opens what is there, making an authority where there has never been one.
    pub(super) fn open(
        self,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Opened, OpenError> {
        if files::read(&self.epoch)?.is_none() {
            if self.manifest().exists() {
                // Restored without it, perhaps: to begin anew here would destroy what is there.
                return Err(OpenError::NoEpoch {
                    epoch: self.epoch,
                    directory: self.directory,
                });
            }
            make::authority(&self, trust_domain, now)?;
        }
        let epoch = self.there(files::read(&self.epoch)?, &self.epoch)?;
        let epoch = epoch.try_into();
        let epoch = epoch.map_err(|_length| damaged(&self.epoch))?;
        let path = self.manifest();
        let text = self.there(files::read(&path)?, &path)?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|_json| damaged(&path))?;
        self.same_origin(&manifest)?;
        let revoked = Revoked::load(&self)?;
        let key = manifest.serial_key().ok_or_else(|| damaged(&path))?;
        let serials = Serials::open(&self.directory.join("serials"), key, now)?;
        let brought = match &self.plugged {
            Some(directory) => Some(self.brought(directory, &manifest, now)?),
            None => None,
        };
        let ring = self.ring(&manifest, &revoked, brought.as_ref(), now)?;
        Ok(Opened {
            brought,
            home: self,
            epoch,
            manifest,
            revoked,
            serials,
            ring,
        })
    }

    fn same_origin(&self, manifest: &Manifest) -> Result<(), OpenError> {
        let (own, plugged) = ("an authority of its own", "a plugged-in authority");
        let (began, told) = match (manifest.issuing == plugged::NAME, &self.plugged) {
            (false, Some(_)) => (own, plugged),
            (true, None) => (plugged, own),
            _ => return Ok(()),
        };
        let epoch = self.epoch.clone();
        Err(OpenError::Origin { began, told, epoch })
    }

    /// What is plugged in, if its roots may follow those the mesh was last told of.
    pub(super) fn brought(
        &self,
        directory: &Path,
        manifest: &Manifest,
        now: SystemTime,
    ) -> Result<Brought, OpenError> {
        let brought = plugged::load(directory, now)?;
        match manifest.may_be_followed_by(&brought.root_keys()) {
            true => Ok(brought),
            false => Err(OpenError::Plugged(PluggedError::Roots {
                directory: directory.to_owned(),
            })),
        }
    }

    /// What a manifest stands for.
    pub(super) fn ring(
        &self,
        manifest: &Manifest,
        revoked: &Revoked,
        brought: Option<&Brought>,
        now: SystemTime,
    ) -> Result<Ring, OpenError> {
        let (issuing, roots, mut crls) = match brought {
            Some(brought) => brought.parts(),
            None => (
                Arc::new(self.issuing(manifest)?),
                self.roots(manifest)?,
                Vec::new(),
            ),
        };
        let mut retired = Vec::new();
        for former in manifest.retired.iter().filter(|r| r.until > seconds(now)) {
            match (plugged::is_one(&former.name), brought) {
                (false, _) => {
                    retired.push(Arc::new(self.intermediate(&former.name, Vec::new())?));
                }
                // With its key gone, the list that it signed last is all there is.
                (true, brought) => match brought.and_then(|b| b.former(&former.name)) {
                    Some(former) => retired.push(Arc::clone(former)),
                    None => crls.extend(self.list(&former.name)?),
                },
            }
        }
        let mut listed = true;
        for name in retired.iter().chain([&issuing]).map(|i| &i.name) {
            let list = self.list(name)?;
            listed &= list.is_some();
            crls.extend(list);
        }
        let certificates = roots.iter().map(|r| r.certificate.clone()).collect();
        Ok(Ring {
            sequence: manifest.sequence,
            phase: manifest.phase,
            since: UNIX_EPOCH + Duration::from_secs(manifest.since),
            believed: Arc::new(Roots::new(certificates)?),
            roots,
            issuing,
            retired,
            crls,
            listed,
            crl_number: manifest.crl_number,
            revoked: revoked.listed(now).count(),
            reissue_before: UNIX_EPOCH + Duration::from_millis(manifest.reissue_before_ms),
        })
    }

    /// The list of an intermediate. One that does not parse is none, and is signed anew.
    fn list(&self, name: &str) -> Result<Option<Vec<u8>>, FileError> {
        let list = files::read(&self.crl(name))?;
        Ok(list.filter(|der| Bundle::is_list(der)))
    }

    fn issuing(&self, manifest: &Manifest) -> Result<Intermediate, OpenError> {
        use super::Phase;
        // Before the switch nothing needs it: the chain leads to the former root by itself.
        let bridge = manifest.bridge.as_ref();
        let above = match bridge.filter(|_| manifest.phase == Phase::Switch) {
            Some(bridge) => vec![self.read_certificate(bridge)?],
            None => Vec::new(),
        };
        self.intermediate(&manifest.issuing, above)
    }

    fn roots(&self, manifest: &Manifest) -> Result<Vec<Root>, OpenError> {
        use super::Phase;
        let other = match manifest.phase {
            Phase::Switch => RootState::Retiring,
            Phase::Steady | Phase::Add => RootState::Added,
        };
        let mut roots = vec![self.root(&manifest.root, RootState::Active)?];
        if let Some(name) = &manifest.other {
            roots.push(self.root(name, other)?);
        }
        Ok(roots)
    }

    fn root(&self, name: &str, state: RootState) -> Result<Root, OpenError> {
        // Its key may be kept elsewhere; where it is here, it must be private and whole.
        if files::read_secret(&self.key(name))?.is_some() {
            self.read_key(name)?;
        }
        let certificate = self.read_certificate(name)?;
        Ok(Root {
            spki: spki_sha256(&certificate)?,
            certificate,
            state,
        })
    }

    fn intermediate(
        &self,
        name: &str,
        above: Vec<CertificateDer<'static>>,
    ) -> Result<Intermediate, OpenError> {
        let certificate = self.read_certificate(name)?;
        let path = self.certificate(name);
        let (starts, ends) = validity_of(&certificate).ok_or_else(|| damaged(&path))?;
        let key = self.read_key(name)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key);
        Ok(Intermediate {
            name: name.to_owned(),
            issuer: issuer.map_err(|_cert| damaged(&path))?,
            certificate,
            above,
            starts,
            ends,
        })
    }

    pub(super) fn read_certificate(
        &self,
        name: &str,
    ) -> Result<CertificateDer<'static>, OpenError> {
        let path = self.certificate(name);
        let pem = self.there(files::read(&path)?, &path)?;
        let all = certificates_from_pem(&pem).ok().and_then(sole);
        all.ok_or_else(|| damaged(&path))
    }

    pub(super) fn read_key(&self, name: &str) -> Result<KeyPair, OpenError> {
        let path = self.key(name);
        let key = self.there(files::read_secret(&path)?, &path)?;
        let key = String::from_utf8(key).map_err(|_text| damaged(&path))?;
        KeyPair::from_pem(&key).map_err(|_key| damaged(&path))
    }

    /// Keeps a certificate and its key, key first.
    pub(super) fn write(
        &self,
        name: &str,
        certificate: &CertificateDer<'_>,
        key: Option<&KeyPair>,
    ) -> Result<(), FileError> {
        if let Some(key) = key {
            files::write(&self.key(name), key.serialize_pem().as_bytes())?;
        }
        files::write(&self.certificate(name), to_pem(certificate).as_bytes())
    }

    /// Puts a manifest in force.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(manifest).unwrap_or_default();
        files::write(&self.manifest(), &text)
    }

    pub(super) fn there(
        &self,
        content: Option<Vec<u8>>,
        path: &Path,
    ) -> Result<Vec<u8>, OpenError> {
        content.ok_or_else(|| OpenError::Missing {
            epoch: self.epoch.clone(),
            missing: path.to_owned(),
            directory: self.directory.clone(),
        })
    }
}

pub(super) fn damaged(path: &Path) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
    }
}

fn sole(mut all: Vec<CertificateDer<'static>>) -> Option<CertificateDer<'static>> {
    let only = all.pop()?;
    all.is_empty().then_some(only)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn try_open(state: &Path) -> Result<Opened, OpenError> {
        let home = Home::new(state, None);
        home.open(&TrustDomain::default(), SystemTime::now())
    }

    #[test]
    fn an_authority_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = try_open(dir.path()).unwrap();
        let again = try_open(dir.path()).unwrap();
        assert_eq!(first.ring.pin(), again.ring.pin());
        assert_eq!(first.epoch, again.epoch);
        assert_eq!(first.manifest, again.manifest);
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
            ("ca/authority.json", "remove", "is missing"),
            ("ca/revoked.json", "remove", "is missing"),
            ("ca/revoked.json", "truncate", "is damaged"),
            ("epoch", "remove", "is missing"),
            ("ca/authority.json", "truncate", "is damaged"),
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
            let error = try_open(dir.path()).err().unwrap().to_string();
            assert!(
                error.contains(want) && error.contains(path.to_str().unwrap()),
                "{file} {spoil}: {error}"
            );
            assert_eq!(path.exists(), spoil != "remove", "{file} is not made anew");
        }
    }

    #[test]
    fn a_root_key_that_is_kept_elsewhere_is_not_missed() {
        let dir = tempfile::tempdir().unwrap();
        try_open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("control/ca/root.key")).unwrap();
        try_open(dir.path()).unwrap();
    }

    #[test]
    fn a_mesh_keeps_the_kind_of_authority_it_began_with() {
        let dir = tempfile::tempdir().unwrap();
        try_open(dir.path()).unwrap();
        let home = Home::new(dir.path(), Some(dir.path()));
        let refused = home.open(&TrustDomain::default(), SystemTime::now());
        assert!(matches!(refused.err(), Some(OpenError::Origin { .. })));
    }

    #[test]
    fn a_list_that_is_torn_or_gone_is_signed_anew() {
        for spoil in [
            |p: &Path| fs::write(p, "x").unwrap(),
            |p: &Path| {
                fs::remove_file(p).unwrap();
            },
        ] {
            let dir = tempfile::tempdir().unwrap();
            let td = TrustDomain::default();
            let open =
                || crate::control::ca::Authority::open(dir.path(), None, &td, SystemTime::now());
            let before = open().unwrap().ring().crl_number;
            spoil(&dir.path().join("control/ca/issuing-1.crl"));
            let ring = open().unwrap().ring();
            assert_eq!(ring.crls.len(), 1);
            assert!(ring.crl_number > before);
        }
    }
}
