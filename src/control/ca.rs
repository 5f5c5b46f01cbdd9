//! The certificate authority: roots and intermediates, the leaves they sign, and what is taken back
//! (`spec/control-plane.md` §4.2, §4.5, §4.7, §6.6).
//!
//! Its state at one moment is a [`Ring`]; every change makes another, durable before anyone sees it.

mod change;
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
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tracing::warn;

pub use keep::OpenError;
pub use manifest::Phase;
pub use plugged::PluggedError;
pub use request::{Csr, CsrError};
pub use ring::{Intermediate, Ring, Root, RootState};
pub use rotate::RotateError;
pub use serial::SerialError;

use crate::causes::chain;
use crate::clock::seconds;
use crate::identity::{SpiffeId, TrustDomain};
use crate::tls::{Bundle, Request, RequestError, Roots, Svid, SvidError, Trust};
use keep::{Home, Opened};
use manifest::Manifest;
use plugged::Brought;
use revoke::Revoked;
use serial::Serials;

/// Shortest life of a certificate that is asked for (§4.1).
pub const MIN_TTL: Duration = Duration::from_secs(600);
/// Longest life of a certificate that is asked for (§4.1).
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// Life where none is asked for (§4.1).
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Life of a node's certificate (§4.5).
pub const NODE_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a revocation is remembered after its certificate has expired: for as long as that
/// certificate would let its node back in (§6.3).
pub const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3600);
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
    /// What is plugged in, as it was last found good.
    brought: Option<Brought>,
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
            brought,
        } = opened;
        let authority = Self {
            trust_domain: trust_domain.clone(),
            epoch,
            home,
            serials,
            books: Mutex::new(Books {
                manifest,
                revoked,
                brought,
            }),
            trust: Trust::new(bundle(&ring)?),
            ring: watch::Sender::new(Arc::new(ring)),
        };
        if let Err(e) = authority.maintain(now) {
            // A full disk, perhaps: what there is can serve.
            warn!(error = chain(&e), "revocation lists are not signed anew");
        }
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
        let not_after = ends(&ring.issuing, ttl, now)?;
        let serial = self.serials.take(node, not_after, now)?;
        let params = leaf_params(names, serial, now - BACKDATE.min(ttl / 10), not_after);
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
        let not_after = ends(&ring.issuing, NODE_TTL, now)?;
        // With a disk that takes nothing it must be able to start: this one is never revoked as a
        // node's would be.
        let serial = self.serials.take(SELF, not_after, now);
        let serial = serial.unwrap_or_else(|_full| rand::random());
        let params = leaf_params(sans, serial, now - BACKDATE, not_after);
        let key = KeyPair::try_from(request.key.secret_pkcs8_der())?;
        let leaf = params.signed_by(&key, &ring.issuing.issuer)?;
        let signed = signed(&ring.issuing, leaf.der().clone(), not_after);
        let trust = self.trust.clone();
        Ok(Svid::new(signed.chain, request.key.into(), trust)?)
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

/// When a leaf of this life expires: before its issuer does.
fn ends(issuing: &Intermediate, ttl: Duration, now: SystemTime) -> Result<SystemTime, SignError> {
    match signs(issuing, now) {
        true => Ok((now + ttl).min(issuing.ends - Duration::from_secs(60))),
        false => Err(SignError::IssuerExpiring),
    }
}

fn leaf_params(
    names: Vec<SanType>,
    serial: serial::Serial,
    not_before: SystemTime,
    not_after: SystemTime,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    // No subject makes the names critical (RFC 5280 §4.2.1.6).
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    params.not_before = not_before.into();
    params.not_after = not_after.into();
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
        let names = vec![SanType::URI(id.try_into().ok()?)];
        let params = leaf_params(names, rand::random(), now - BACKDATE, now + ISSUER_LEFT);
        let key = KeyPair::generate().ok()?;
        let leaf = params.signed_by(&key, &issuing.issuer).ok()?;
        let signed = signed(issuing, leaf.der().clone(), now);
        let roots = Arc::new(Roots::new(vec![root.clone()]).ok()?);
        Some(Bundle::of_roots(roots).ok()?.believes(&signed.chain))
    };
    attempt().unwrap_or(false)
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
