//! The certificate authority: a root and an issuing intermediate made on first start, and the
//! leaves it signs (`spec/control-plane.md` §4.2, §4.5, §6.6).

mod keep;
mod request;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

pub use keep::OpenError;
pub use request::{Csr, CsrError};

use crate::identity::{SpiffeId, TrustDomain};
use crate::tls::{self, Request, RequestError, Roots, Svid, SvidError};

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

/// Why a certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The issuing certificate is about to expire.
    #[error("the issuing certificate expires within the hour; renew it first")]
    IssuerExpiring,
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

/// Signs for one mesh.
pub struct Authority {
    trust_domain: TrustDomain,
    epoch: [u8; 16],
    roots: Arc<Roots>,
    pin: [u8; 32],
    issuing: CertificateDer<'static>,
    issuing_ends: SystemTime,
    issuer: Issuer<'static, KeyPair>,
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
    /// Opens the authority kept in `state`, making one where there has never been any.
    ///
    /// # Errors
    /// [`OpenError`]: what was there and is damaged or incomplete is never replaced.
    pub fn open(
        state: &Path,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        keep::open(state, trust_domain, now)
    }

    /// Where its identities are rooted.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What tells this mesh from another of the same name: 16 random bytes made with the CA.
    pub fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    /// What everyone trusts.
    pub fn roots(&self) -> &Arc<Roots> {
        &self.roots
    }

    /// SHA-256 of the root's key: what a join token pins.
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// Whether it can sign: its issuing certificate is not about to expire.
    pub fn signs(&self, now: SystemTime) -> bool {
        let left = self.issuing_ends.duration_since(now).unwrap_or_default();
        left >= ISSUER_LEFT
    }

    /// Signs a workload's or node's certificate over a checked request, naming `id` and nothing
    /// else.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(
        &self,
        csr: &Csr,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Signed, SignError> {
        let names = vec![SanType::URI(id.to_string().try_into()?)];
        let (params, not_after) = self.leaf(names, ttl, now)?;
        let leaf = params.signed_by(csr.public_key(), &self.issuer)?;
        Ok(self.signed(leaf.der().clone(), not_after))
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
        let request = Request::new(id)?;
        let (params, not_after) = self.leaf(sans, NODE_TTL, now)?;
        let key = KeyPair::try_from(request.key.secret_pkcs8_der())?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let signed = self.signed(leaf.der().clone(), not_after);
        Ok(Svid::new(
            signed.chain,
            request.key.into(),
            Arc::clone(&self.roots),
        )?)
    }

    fn signed(&self, leaf: CertificateDer<'static>, not_after: SystemTime) -> Signed {
        Signed {
            chain: vec![leaf, self.issuing.clone()],
            not_after,
        }
    }

    fn leaf(
        &self,
        names: Vec<SanType>,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<(CertificateParams, SystemTime), SignError> {
        if !self.signs(now) {
            return Err(SignError::IssuerExpiring);
        }
        let last = self.issuing_ends - Duration::from_secs(60);
        let not_after = (now + ttl).min(last);
        let mut params = CertificateParams::default();
        // No subject makes the names critical (RFC 5280 §4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.not_before = (now - BACKDATE.min(ttl / 10)).into();
        params.not_after = not_after.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial());
        Ok((params, not_after))
    }
}

/// An unpredictable serial of 16 bytes, positive as RFC 5280 §4.1.2.2 wants it.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    SerialNumber::from(bytes.to_vec())
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

/// SHA-256 of a root's key.
fn pin_of(root: &CertificateDer<'_>) -> Result<[u8; 32], SvidError> {
    tls::spki_sha256(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    fn authority(dir: &Path) -> Authority {
        Authority::open(dir, &TrustDomain::default(), SystemTime::now()).unwrap()
    }

    #[test]
    fn a_leaf_says_what_it_must_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(dir.path());
        let now = SystemTime::now();
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let request = Request::new(&id).unwrap();
        let csr = Csr::from_der(&request.csr).unwrap();
        let day = Duration::from_secs(86_400);
        let signed = ca.sign(&csr, &id, day, now).unwrap();
        let (_rest, leaf) = X509Certificate::from_der(&signed.chain[0]).unwrap();
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(san.critical);
        assert_eq!(san.value.general_names.len(), 1);
        assert_eq!(tls::peer_identity(&signed.chain[0]), Some(id));
        assert_eq!(leaf.subject().iter().count(), 0, "empty subject");
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth);
        assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
        assert!(!leaf.is_ca());
        assert_eq!(leaf.raw_serial().len(), 16);
        let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert_eq!(life, 86_400 + 120);
        let svid = Svid::new(signed.chain, request.key.into(), Arc::clone(ca.roots()));
        assert!(svid.is_ok(), "{svid:?}");
    }

    #[test]
    fn lives_are_granted_within_bounds() {
        for (name, asked, want) in [
            ("none", 0, 86_400),
            ("negative", -5, 86_400),
            ("a minute", 60, 600),
            ("a day", 86_400, 86_400),
            ("a year", 31_536_000, 90 * 86_400),
        ] {
            assert_eq!(granted_ttl(asked).as_secs(), want, "{name}");
        }
    }

    #[test]
    fn an_issuer_near_its_end_signs_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(dir.path());
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let csr = Csr::from_der(&Request::new(&id).unwrap().csr).unwrap();
        let late = ca.issuing_ends - Duration::from_secs(1800);
        let refused = ca.sign(&csr, &id, DEFAULT_TTL, late);
        assert!(matches!(refused, Err(SignError::IssuerExpiring)));
        let before = ca.issuing_ends - Duration::from_secs(7200);
        let signed = ca.sign(&csr, &id, DEFAULT_TTL, before).unwrap();
        assert!(
            signed.not_after < ca.issuing_ends,
            "never outlives its issuer"
        );
    }
}
