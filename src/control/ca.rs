//! The certificate authority: roots and intermediates, the leaves they sign, and what is taken back
//! (`spec/control-plane.md` §4.2, §4.5, §4.7, §6.6).
//!
//! Its state at one moment is a [`Ring`]; every change makes another, durable before anyone sees it.

mod keep;
mod make;
mod manifest;
mod plugged;
mod request;
mod revoke;
mod ring;
mod rotate;
mod serial;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

pub use keep::OpenError;
pub use manifest::Phase;
pub use plugged::PluggedError;
pub use request::{Csr, CsrError};
pub use revoke::Entry as RevokedEntry;
pub use ring::{Intermediate, Ring, Root, RootState};
pub use rotate::RotateError;
pub use serial::SerialError;

use crate::identity::{SpiffeId, TrustDomain};
use crate::tls::{Bundle, Request, RequestError, Roots, Svid, SvidError, Trust};
use keep::{Home, Opened};
use manifest::Manifest;
use revoke::Revoked;
use rotate::Rotation;
use serial::Serials;

/// Shortest life of a certificate that is asked for (§4.1).
pub const MIN_TTL: Duration = Duration::from_secs(600);
/// Longest life of a certificate that is asked for (§4.1).
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// Life where none is asked for (§4.1).
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Life of a node's certificate (§4.5).
pub const NODE_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far a certificate's start lies back, for clocks that are behind (§4.2).
const BACKDATE: Duration = Duration::from_secs(120);
/// An issuer this close to its end signs nothing more (§4.2).
const ISSUER_LEFT: Duration = Duration::from_secs(3600);
/// Whose serials this control plane's own certificates have; no node can be called so.
const SELF: &str = "~control";

/// Why a certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The issuing certificate is about to expire.
    #[error("the issuing certificate expires within the hour; renew it first")]
    IssuerExpiring,
    /// There is no serial number for it.
    #[error("no serial number for the certificate")]
    Serial(#[from] SerialError),
    /// The library failed.
    #[error("cannot sign")]
    Sign(#[from] rcgen::Error),
    /// What was signed does not hold together.
    #[error("the certificate made is not usable")]
    Svid(#[from] SvidError),
    /// No key could be made.
    #[error("cannot make a key")]
    Key(#[from] RequestError),
}

/// Why a certificate was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// It is no number.
    #[error("`{text}` is no serial number; write it in hex, as lateen certificates shows it")]
    NoSerial {
        /// What was given.
        text: String,
    },
    /// It was not given out here, or has expired.
    #[error("no certificate with the serial number {text} was issued here, or it has expired")]
    Unknown {
        /// What was given.
        text: String,
    },
    /// The lists could not be signed or kept.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Signs for one mesh.
pub struct Authority {
    trust_domain: TrustDomain,
    epoch: [u8; 16],
    home: Home,
    serials: Serials,
    /// What is on disk; held while it changes.
    books: Mutex<Books>,
    ring: watch::Sender<Arc<Ring>>,
    /// What this control plane judges its own callers by.
    trust: Trust,
}

struct Books {
    manifest: Manifest,
    revoked: Revoked,
}

/// A signed leaf with its way to the root.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Leaf first, then intermediates, no root.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it expires.
    pub not_after: SystemTime,
}

impl Authority {
    /// Opens the authority kept in `state`, making one where there has never been any; `plugged` is
    /// the directory of one that is brought along.
    ///
    /// # Errors
    /// [`OpenError`]: what was there and is damaged or incomplete is never replaced.
    pub fn open(
        state: &Path,
        plugged: Option<&Path>,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        let home = Home::new(state, plugged);
        let opened = home.open(trust_domain, now)?;
        let Opened {
            home,
            epoch,
            manifest,
            revoked,
            serials,
            ring,
        } = opened;
        let authority = Self {
            trust_domain: trust_domain.clone(),
            epoch,
            home,
            serials,
            books: Mutex::new(Books { manifest, revoked }),
            trust: Trust::new(bundle(&ring)?),
            ring: watch::Sender::new(Arc::new(ring)),
        };
        authority.maintain(now)?;
        Ok(authority)
    }

    /// Where its identities are rooted.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What tells this mesh from another of the same name: 16 random bytes made with the CA.
    pub fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    /// What is believed and who signs now.
    pub fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.borrow())
    }

    /// The same, and each one after it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Ring>> {
        self.ring.subscribe()
    }

    /// What callers of this control plane are judged by.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// What everyone trusts.
    pub fn roots(&self) -> Arc<Roots> {
        Arc::clone(&self.ring().believed)
    }

    /// SHA-256 of the key of the root that signs: what a join token pins.
    pub fn pin(&self) -> [u8; 32] {
        self.ring().pin()
    }

    /// Whether it can sign: its issuing certificate is not about to expire.
    pub fn signs(&self, now: SystemTime) -> bool {
        signs(&self.ring().issuing, now)
    }

    /// Signs a certificate for `node` over a checked request, naming `id` and nothing else.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(
        &self,
        csr: &Csr,
        id: &SpiffeId,
        node: &str,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Signed, SignError> {
        let ring = self.ring();
        let names = vec![SanType::URI(id.to_string().try_into()?)];
        let (params, not_after) = self.leaf(&ring.issuing, names, node, ttl, now)?;
        let leaf = params.signed_by(csr.public_key(), &ring.issuing.issuer)?;
        Ok(signed(&ring.issuing, leaf.der().clone(), not_after))
    }

    /// A certificate with its key for this control plane's own port.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn serving(
        &self,
        id: &SpiffeId,
        names: &[String],
        now: SystemTime,
    ) -> Result<Svid, SignError> {
        let mut sans = vec![SanType::URI(id.to_string().try_into()?)];
        for name in names {
            sans.push(match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(name.clone().try_into()?),
            });
        }
        let ring = self.ring();
        let request = Request::new(id)?;
        let (params, not_after) = self.leaf(&ring.issuing, sans, SELF, NODE_TTL, now)?;
        let key = KeyPair::try_from(request.key.secret_pkcs8_der())?;
        let leaf = params.signed_by(&key, &ring.issuing.issuer)?;
        let signed = signed(&ring.issuing, leaf.der().clone(), not_after);
        let trust = self.trust.clone();
        Ok(Svid::new(signed.chain, request.key.into(), trust)?)
    }

    fn leaf(
        &self,
        issuing: &Intermediate,
        names: Vec<SanType>,
        node: &str,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<(CertificateParams, SystemTime), SignError> {
        if !signs(issuing, now) {
            return Err(SignError::IssuerExpiring);
        }
        let last = issuing.ends - Duration::from_secs(60);
        let not_after = (now + ttl).min(last);
        let serial = self.serials.take(node, not_after, now)?;
        let mut params = leaf_params(names);
        params.not_before = (now - BACKDATE.min(ttl / 10)).into();
        params.not_after = not_after.into();
        params.serial_number = Some(SerialNumber::from(serial.to_vec()));
        Ok((params, not_after))
    }

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
        serials: &[(serial::Serial, u64)],
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
    pub fn revocations(&self) -> Vec<RevokedEntry> {
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
                    tracing::warn!(error = %e, "the intermediate is past half of its life and is not replaced");
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

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bundle(ring: &Ring) -> Result<Bundle, SvidError> {
    Bundle::new(
        ring.sequence,
        Arc::clone(&ring.believed),
        &ring.crls,
        ring.reissue_before,
    )
}

/// Whether an intermediate is not about to expire.
fn signs(issuing: &Intermediate, now: SystemTime) -> bool {
    let left = issuing.ends.duration_since(now).unwrap_or_default();
    left >= ISSUER_LEFT
}

fn signed(issuing: &Intermediate, leaf: CertificateDer<'static>, not_after: SystemTime) -> Signed {
    let mut chain = vec![leaf, issuing.certificate.clone()];
    chain.extend_from_slice(&issuing.above);
    Signed { chain, not_after }
}

fn leaf_params(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    // No subject makes the names critical (RFC 5280 §4.2.1.6).
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Whether what an intermediate signs leads to a root: by signing something.
fn proves(issuing: &Intermediate, root: &CertificateDer<'static>, now: SystemTime) -> bool {
    let attempt = || -> Option<bool> {
        let id = "spiffe://probe/control/probe".to_owned();
        let mut params = leaf_params(vec![SanType::URI(id.try_into().ok()?)]);
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + ISSUER_LEFT).into();
        let key = KeyPair::generate().ok()?;
        let leaf = params.signed_by(&key, &issuing.issuer).ok()?;
        let signed = signed(issuing, leaf.der().clone(), now);
        let roots = Arc::new(Roots::new(vec![root.clone()]).ok()?);
        Some(Bundle::of_roots(roots).ok()?.believes(&signed.chain))
    };
    attempt().unwrap_or(false)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The life to grant: what is asked for within bounds, the default for nothing (§4.1).
pub fn granted_ttl(asked_seconds: i64) -> Duration {
    match u64::try_from(asked_seconds) {
        Ok(seconds) if seconds > 0 => Duration::from_secs(seconds).clamp(MIN_TTL, MAX_TTL),
        _ => DEFAULT_TTL,
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.trust_domain)
    }
}

#[cfg(test)]
mod tests;
