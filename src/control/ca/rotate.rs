//! Replaces who signs: an intermediate at once, a root in three steps (`spec/control-plane.md`
//! §4.5). Whether a step may be taken yet is for those who know the nodes; here it is taken.

use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair};

use super::keep::{Home, OpenError};
use super::manifest::{Manifest, Phase};
use super::{MAX_TTL, make, seconds};
use crate::files::{self, FileError};
use crate::identity::TrustDomain;

/// Why nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The key that must sign is somewhere else.
    #[error("the key of the root is not at {path}; bring it back for as long as this takes")]
    KeyAway {
        /// Where it should be.
        path: String,
    },
    /// The authority is not ours to change.
    #[error("the authority is plugged in from {directory}; replace the files there instead")]
    Plugged {
        /// Where it is.
        directory: String,
    },
    /// A certificate could not be made, kept or read again.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What was decided could not be made durable.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What makes an authority's next state.
pub(super) struct Rotation<'a> {
    pub(super) home: &'a Home,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) now: SystemTime,
}

impl Rotation<'_> {
    /// Another intermediate under the root that signs.
    pub(super) fn issuing(&self, manifest: &mut Manifest) -> Result<(), RotateError> {
        let root = self.root(&manifest.root.clone())?;
        let name = self.intermediate(manifest, &root)?;
        manifest.issue_by(name, self.last_expiry());
        Ok(())
    }

    /// The next step of replacing the root.
    pub(super) fn root_step(&self, manifest: &mut Manifest) -> Result<(), RotateError> {
        match (manifest.phase, manifest.other.clone()) {
            (Phase::Add, Some(added)) => self.switch(manifest, &added),
            (Phase::Switch, _) => {
                manifest.remove(seconds(self.now));
                Ok(())
            }
            (Phase::Steady | Phase::Add, _) => self.add(manifest),
        }
    }

    fn add(&self, manifest: &mut Manifest) -> Result<(), RotateError> {
        let former = self.root(&manifest.root.clone())?;
        let name = manifest.next("root");
        let number = manifest.made;
        let added = make::root(self.home, &name, number, self.trust_domain, self.now)?;
        let bridge = format!("bridge-{number}");
        make::bridge(
            self.home,
            &bridge,
            number,
            &added,
            &former,
            self.trust_domain,
            self.now,
        )?;
        manifest.add(name, bridge, seconds(self.now));
        Ok(())
    }

    fn switch(&self, manifest: &mut Manifest, added: &str) -> Result<(), RotateError> {
        let root = self.root(added)?;
        let name = self.intermediate(manifest, &root)?;
        manifest.switch(name, self.last_expiry(), seconds(self.now));
        Ok(())
    }

    fn intermediate(
        &self,
        manifest: &mut Manifest,
        root: &Issuer<'static, KeyPair>,
    ) -> Result<String, RotateError> {
        let name = manifest.next("issuing");
        let number = manifest.made;
        make::issuing(self.home, &name, number, root, self.trust_domain, self.now)?;
        Ok(name)
    }

    fn root(&self, name: &str) -> Result<Issuer<'static, KeyPair>, RotateError> {
        if let Some(directory) = &self.home.plugged {
            return Err(RotateError::Plugged {
                directory: directory.display().to_string(),
            });
        }
        let path = self.home.key(name);
        if files::read_secret(&path)?.is_none() {
            return Err(RotateError::KeyAway {
                path: path.display().to_string(),
            });
        }
        let key = self.home.read_key(name)?;
        let certificate = self.home.read_certificate(name)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key);
        Ok(issuer.map_err(OpenError::Make)?)
    }

    fn last_expiry(&self) -> u64 {
        seconds(self.now + MAX_TTL + Duration::from_secs(60))
    }
}
