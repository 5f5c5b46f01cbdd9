//! What changes an authority: rotation, revocation and time. Each makes the next state durable, then
//! puts it in force as a whole.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::warn;

use super::keep::OpenError;
use super::manifest::{Manifest, Phase};
use super::revoke::{self, Revoked};
use super::rotate::{RotateError, Rotation};
use super::serial::Serial;
use super::{Authority, Books, MAX_TTL, RevokeError, bundle, plugged, seconds};

impl Authority {
    /// Has another intermediate sign. Certificates of the former one stay good.
    ///
    /// # Errors
    /// [`RotateError`]; nothing has changed then.
    pub fn rotate_issuing(&self, now: SystemTime) -> Result<(), RotateError> {
        self.change(now, |rotation, manifest| rotation.issuing(manifest))
    }

    /// Takes the next step of replacing the root: believe it, let it sign, forget the former one.
    /// Tells where that leads.
    ///
    /// # Errors
    /// [`RotateError`]; nothing has changed then.
    pub fn rotate_root(&self, now: SystemTime) -> Result<Phase, RotateError> {
        self.change(now, |rotation, manifest| {
            rotation.root_step(manifest)?;
            Ok(manifest.phase)
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
            self.tell_unlistable(&books, node);
            let manifest = books.manifest.clone();
            self.publish(&mut books, manifest, revoked, now)?;
        }
        Ok(added)
    }

    /// Says so where a list that ought to name certificates of `node` cannot be signed any more.
    fn tell_unlistable(&self, books: &Books, node: &str) {
        let brought = books.brought.as_ref();
        let at_hand = |name: &str| brought.is_some_and(|b| b.former(name).is_some());
        let retired = books.manifest.retired.iter();
        for gone in retired.filter(|r| plugged::is_one(&r.name) && !at_hand(&r.name)) {
            warn!(
                node,
                intermediate = gone.name,
                until = gone.until,
                "certificates of this node by an intermediate that was plugged in before cannot be listed: its key is gone. They are taken until they expire"
            );
        }
    }

    /// Whether a certificate was taken back, by its serial in hex; also when it has expired since.
    pub fn was_revoked(&self, serial: &str) -> bool {
        let serial = revoke::serial(serial);
        serial.is_some_and(|serial| self.lock().revoked.has(&serial))
    }

    /// Does what time asks for: lists that grow old are signed anew, an intermediate past half of
    /// its life is replaced, a plugged-in one is read again. To be called now and then. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// [`OpenError`]; what was in force still is.
    pub fn maintain(&self, now: SystemTime) -> Result<(), OpenError> {
        self.sign_lists(now)?;
        if self.home.plugged.is_some() {
            return self.reload(now);
        }
        let ring = self.ring();
        let half = ring.issuing.ends.duration_since(ring.issuing.starts);
        if ring.issuing.starts + half.unwrap_or_default() / 2 > now {
            return Ok(());
        }
        match self.rotate_issuing(now) {
            Ok(()) => Ok(()),
            Err(RotateError::Open(e)) => Err(e),
            Err(RotateError::File(e)) => Err(e.into()),
            Err(e @ (RotateError::KeyAway { .. } | RotateError::Plugged { .. })) => {
                let reason = e.to_string();
                Err(OpenError::Due { reason })
            }
        }
    }

    fn sign_lists(&self, now: SystemTime) -> Result<(), OpenError> {
        let mut books = self.lock();
        let listed = books.manifest.crl_number;
        let age = seconds(now).saturating_sub(books.manifest.crl_signed);
        let ring = self.ring();
        let unsigned = listed != books.revoked.number || listed == 0 || !ring.listed;
        if unsigned || age >= revoke::RESIGN.as_secs() {
            let (manifest, revoked) = (books.manifest.clone(), books.revoked.clone());
            self.publish(&mut books, manifest, revoked, now)?;
        }
        Ok(())
    }

    /// Takes up other files of a plugged-in authority.
    fn reload(&self, now: SystemTime) -> Result<(), OpenError> {
        let mut books = self.lock();
        let (Some(directory), Some(before)) = (&self.home.plugged, &books.brought) else {
            return Ok(());
        };
        let mut found = self.home.brought(directory, &books.manifest, now)?;
        let signed_last = books.manifest.plugged.as_deref() == Some(found.name());
        if signed_last && found.is_told_like(before) {
            return Ok(());
        }
        found.follow(before);
        let mut manifest = books.manifest.clone();
        manifest.roots = found.root_keys();
        let former = books.brought.replace(found);
        let revoked = books.revoked.clone();
        let published = self.publish(&mut books, manifest, revoked, now);
        if published.is_err() {
            books.brought = former;
        }
        published
    }

    fn change<T>(
        &self,
        now: SystemTime,
        act: impl FnOnce(&Rotation<'_>, &mut Manifest) -> Result<T, RotateError>,
    ) -> Result<T, RotateError> {
        let mut books = self.lock();
        let rotation = Rotation {
            home: &self.home,
            trust_domain: &self.trust_domain,
            now,
        };
        let mut manifest = books.manifest.clone();
        let outcome = act(&rotation, &mut manifest)?;
        let revoked = books.revoked.clone();
        self.publish(&mut books, manifest, revoked, now)?;
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
        if let Some(brought) = &books.brought {
            let until = seconds(now + MAX_TTL + Duration::from_secs(60));
            manifest.plugged_in(brought.name(), until, seconds(now));
        }
        revoked.advance(books.manifest.crl_number, now);
        revoked.save(&self.home.directory)?;
        // From here on it is so, whatever becomes of the rest: the next look goes on with it.
        books.revoked = revoked;
        let (revoked, brought) = (&books.revoked, books.brought.as_ref());
        let unlisted = self.home.ring(&manifest, revoked, brought, now)?;
        revoked.sign(&self.home, &unlisted, now)?;
        manifest.crl_number = revoked.number;
        manifest.crl_signed = seconds(now);
        manifest.sequence += 1;
        let ring = self.home.ring(&manifest, revoked, brought, now)?;
        let bundle = bundle(&ring)?;
        self.home.write_manifest(&manifest)?;
        books.manifest = manifest;
        self.trust.replace(bundle);
        self.ring.send_replace(Arc::new(ring));
        Ok(())
    }
}
