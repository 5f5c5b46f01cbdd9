//! What changes an authority: rotation, revocation and time. Each makes the next state durable, then
//! puts it in force as a whole.

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use tracing::warn;

use super::keep::OpenError;
use super::manifest::{Manifest, Phase};
use super::plugged::PluggedError;
use super::revoke::{self, Entry, Revoked};
use super::ring::Ring;
use super::rotate::{RotateError, Rotation};
use super::serial::Serial;
use super::{Authority, Books, RevokeError, bundle, seconds};

impl Authority {
    /// Has another intermediate sign. Certificates of the former one stay good.
    ///
    /// # Errors
    /// [`RotateError`]; nothing has changed then.
    pub fn rotate_issuing(&self, now: SystemTime) -> Result<(), RotateError> {
        self.change(now, |rotation, books| rotation.issuing(&mut books.manifest))
    }

    /// Takes the next step of replacing the root: believe it, let it sign, forget the former one.
    /// Tells where that leads.
    ///
    /// # Errors
    /// [`RotateError`]; nothing has changed then.
    pub fn rotate_root(&self, now: SystemTime) -> Result<Phase, RotateError> {
        self.change(now, |rotation, books| {
            rotation.root_step(&mut books.manifest)?;
            Ok(books.manifest.phase)
        })
    }

    /// Takes one certificate back; the node it was given to.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub fn revoke(&self, text: &str, now: SystemTime) -> Result<Arc<str>, RevokeError> {
        let serial = revoke::serial(text).ok_or_else(|| RevokeError::NoSerial {
            text: text.to_owned(),
        })?;
        let owner = self.serials.owner(&serial);
        let (node, until) = owner
            .filter(|(_, until)| *until > seconds(now))
            .ok_or_else(|| RevokeError::Unknown {
                text: text.to_owned(),
            })?;
        self.take_back(&node, &[(serial, until)], now)?;
        Ok(node)
    }

    /// Takes back every certificate that a node was given; how many.
    ///
    /// # Errors
    /// [`OpenError`] when that cannot be made durable.
    pub fn revoke_node(&self, node: &str, now: SystemTime) -> Result<usize, OpenError> {
        let serials = self.serials.live(node, now)?;
        self.take_back(&Arc::from(node), &serials, now)
    }

    fn take_back(
        &self,
        node: &Arc<str>,
        serials: &[(Serial, u64)],
        now: SystemTime,
    ) -> Result<usize, OpenError> {
        let mut books = self.lock();
        let mut revoked = books.revoked.clone();
        let added = revoked.add(node, serials, now);
        if added > 0 {
            let manifest = books.manifest.clone();
            self.publish(&mut books, manifest, revoked, now)?;
        }
        Ok(added)
    }

    /// What is revoked and has not expired.
    pub fn revocations(&self) -> Vec<Entry> {
        self.lock().revoked.entries().to_vec()
    }

    /// Does what time asks for: lists that grow old are signed anew, an intermediate past half of
    /// its life is replaced, a plugged-in one is read again. To be called now and then.
    ///
    /// # Errors
    /// [`OpenError`]; what was in force still is.
    pub fn maintain(&self, now: SystemTime) -> Result<(), OpenError> {
        if self.home.plugged.is_some() {
            self.reload(now)?;
        }
        let ring = self.ring();
        let half = ring.issuing.ends.duration_since(ring.issuing.starts);
        let half = half.unwrap_or_default() / 2;
        let due = ring.issuing.starts + half <= now && self.home.plugged.is_none();
        if due {
            match self.rotate_issuing(now) {
                Ok(()) => {}
                Err(RotateError::Open(e)) => return Err(e),
                Err(RotateError::File(e)) => return Err(e.into()),
                Err(e @ (RotateError::KeyAway { .. } | RotateError::Plugged { .. })) => {
                    warn!(error = %e, "the intermediate is past half of its life and is not replaced");
                }
            }
        }
        let mut books = self.lock();
        let listed = books.manifest.crl_number;
        let age = seconds(now).saturating_sub(books.manifest.crl_signed);
        let unsigned = listed != books.revoked.number || listed == 0;
        if unsigned || age >= revoke::RESIGN.as_secs() {
            let (manifest, revoked) = (books.manifest.clone(), books.revoked.clone());
            self.publish(&mut books, manifest, revoked, now)?;
        }
        Ok(())
    }

    /// Takes up other files of a plugged-in authority.
    fn reload(&self, now: SystemTime) -> Result<(), OpenError> {
        let mut books = self.lock();
        let before = self.ring();
        let found = self.home.ring(&books.manifest, &books.revoked, now)?;
        let certificates = |r: &Ring| r.believed.certificates().to_vec();
        let (was, is) = (certificates(&before), certificates(&found));
        let replaced = found.issuing.certificate != before.issuing.certificate;
        if was == is && !replaced {
            return Ok(());
        }
        let within =
            |a: &[CertificateDer<'_>], b: &[CertificateDer<'_>]| a.iter().all(|c| b.contains(c));
        if !within(&was, &is) && !within(&is, &was) {
            return Err(OpenError::Plugged(PluggedError::Content {
                path: self.home.plugged.clone().unwrap_or_default(),
                reason: "its roots are others than before; first put the new root beside the old one in the root file, and take the old one out once every node has the new one".to_owned(),
            }));
        }
        let mut manifest = books.manifest.clone();
        manifest.sequence += 1;
        if replaced {
            manifest.reissue_before_ms = seconds(now).saturating_mul(1000);
        }
        let revoked = books.revoked.clone();
        self.publish(&mut books, manifest, revoked, now)
    }

    fn change<T>(
        &self,
        now: SystemTime,
        act: impl FnOnce(&Rotation<'_>, &mut Books) -> Result<T, RotateError>,
    ) -> Result<T, RotateError> {
        let mut books = self.lock();
        let rotation = Rotation {
            home: &self.home,
            trust_domain: &self.trust_domain,
            now,
        };
        let mut next = Books {
            manifest: books.manifest.clone(),
            revoked: books.revoked.clone(),
        };
        let outcome = act(&rotation, &mut next)?;
        self.publish(&mut books, next.manifest, next.revoked, now)?;
        Ok(outcome)
    }

    /// Makes a next state durable and puts it in force: what is revoked, then the lists, last the
    /// manifest that counts. Between any two of them, the next start signs the lists again.
    fn publish(
        &self,
        books: &mut Books,
        mut manifest: Manifest,
        mut revoked: Revoked,
        now: SystemTime,
    ) -> Result<(), OpenError> {
        manifest.retired.retain(|r| r.until > seconds(now));
        revoked.advance(now);
        revoked.save(&self.home.directory)?;
        let unlisted = self.home.ring(&manifest, &revoked, now)?;
        revoked.sign(&self.home, &unlisted, now)?;
        manifest.crl_number = revoked.number;
        manifest.crl_signed = seconds(now);
        manifest.sequence += 1;
        let ring = self.home.ring(&manifest, &revoked, now)?;
        let bundle = bundle(&ring)?;
        self.home.write_manifest(&manifest)?;
        *books = Books { manifest, revoked };
        self.trust.replace(bundle);
        self.ring.send_replace(Arc::new(ring));
        Ok(())
    }
}
