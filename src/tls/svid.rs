//! A certificate with its key, and the roots it trusts.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::provider;
use super::grace;
use super::trust::{Bundle, CertificateKey, Trust};
use super::verify::sole_identity;
use crate::clock;
use crate::hex::hex;
use crate::identity::SpiffeId;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// No certificate was given.
    #[error("the certificate chain is empty")]
    Empty,
    /// No root was given.
    #[error("no root certificate is present")]
    NoRoots,
    /// A certificate does not parse.
    #[error("certificate {index} of the chain does not parse: {reason}")]
    Parse {
        /// Position in the chain, from 0.
        index: usize,
        /// The parser's word.
        reason: String,
    },
    /// PEM that does not read.
    #[error("the PEM text does not read: {reason}")]
    Pem {
        /// The reader's word.
        reason: String,
    },
    /// The leaf names no mesh identity, or more than one URI.
    #[error("the certificate names no single mesh identity")]
    NoIdentity,
    /// The key is unusable or belongs to another certificate.
    #[error("the private key does not fit the certificate")]
    Key {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// A revocation list that does not parse.
    #[error("a revocation list does not parse: {reason}")]
    Revocations {
        /// The parser's word.
        reason: String,
    },
    /// Roots by which no client could ever be believed.
    #[error("cannot build the check of client certificates")]
    Verifier {
        /// What the builder said.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    /// A root the TLS stack cannot use.
    #[error("a root certificate is unusable")]
    Root {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
}

/// The certificates one mesh believes; at least one.
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
}

impl Roots {
    /// Roots from DER certificates.
    ///
    /// # Errors
    /// [`SvidError::NoRoots`] for none, [`SvidError::Root`] for one that cannot be an anchor.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, SvidError> {
        if certificates.is_empty() {
            return Err(SvidError::NoRoots);
        }
        let mut store = RootCertStore::empty();
        for root in &certificates {
            store
                .add(root.clone())
                .map_err(|source| SvidError::Root { source })?;
        }
        Ok(Self {
            certificates,
            store: Arc::new(store),
        })
    }

    /// Roots from PEM text; anything in it but certificates is an error.
    ///
    /// # Errors
    /// As [`Roots::new`], and [`SvidError::Pem`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, SvidError> {
        Self::new(certificates_from_pem(pem)?)
    }

    /// The certificates, in the order given.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// All of them as PEM, in one text.
    pub fn to_pem(&self) -> String {
        self.certificates.iter().map(|c| to_pem(c)).collect()
    }

    /// SHA-256 of each root's SubjectPublicKeyInfo: what a join token pins.
    ///
    /// # Errors
    /// [`SvidError::Parse`] for a root that is no X.509.
    pub fn spki_sha256(&self) -> Result<Vec<[u8; 32]>, SvidError> {
        self.certificates.iter().map(|c| spki_sha256(c)).collect()
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.store)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.certificates.len())
    }
}

/// A SPIFFE certificate with its key and what it trusts (an X.509-SVID).
pub struct Svid {
    id: SpiffeId,
    key: Arc<CertifiedKey>,
    trust: Trust,
    not_before: SystemTime,
    not_after: SystemTime,
    /// When the first of the certificates above it expires; never where there is none.
    issuers_end: Option<SystemTime>,
    serial: String,
    certificate: Option<CertificateKey>,
    /// Whether the chain was sound by the bundle that was last asked: proving it costs too much to
    /// be done for every connection.
    judged: Mutex<Option<(Arc<Bundle>, bool)>>,
}

impl Svid {
    /// Joins a chain (leaf first, then its intermediates, no root) with the leaf's key and what
    /// peers are judged by.
    ///
    /// # Errors
    /// When the chain does not parse, names no single mesh identity, or the key is another's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        trust: Trust,
    ) -> Result<Self, SvidError> {
        let leaf = chain.first().ok_or(SvidError::Empty)?;
        let id = sole_identity(leaf).ok_or(SvidError::NoIdentity)?;
        let parsed = parse(leaf, 0)?;
        let (not_before, not_after) = validity(&parsed);
        let serial = hex(parsed.raw_serial());
        let certificate = CertificateKey::of(leaf);
        let issuers_end = chain.iter().skip(1);
        let issuers_end = issuers_end.filter_map(|c| Some(validity_of(c)?.1)).min();
        let signing = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|source| SvidError::Key { source })?;
        let key = CertifiedKey::new(chain, signing);
        key.keys_match()
            .map_err(|source| SvidError::Key { source })?;
        Ok(Self {
            id,
            key: Arc::new(key),
            trust,
            not_before,
            not_after,
            issuers_end,
            serial,
            certificate,
            judged: Mutex::new(None),
        })
    }

    /// Who the certificate says we are.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Leaf first, then its intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// Names the leaf among all certificates.
    pub fn certificate(&self) -> Option<CertificateKey> {
        self.certificate.clone()
    }

    /// What peers are judged by.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Start of the leaf's validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of the leaf's validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Until when peers of ours take it: its end, and the grace there is after that.
    pub fn good_until(&self) -> SystemTime {
        let extended = self.trust.grace().extends(self.not_after);
        match self.issuers_end {
            Some(end) => extended.min(end.max(self.not_after)),
            None => extended,
        }
    }

    /// The leaf's serial number in lower-case hex.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Whether we would believe it ourselves now: its chain leads to a root of the bundle in force,
    /// it is in date or in grace, and nothing of it is revoked.
    pub fn stands(&self) -> bool {
        let bundle = self.trust.bundle();
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let known = judged.as_ref().filter(|(by, _)| Arc::ptr_eq(by, &bundle));
        let sound = match known {
            Some((_by, sound)) => *sound,
            None => {
                // As it was when it was made: whether it is in date is asked below, each time.
                let then = self.not_before + Duration::from_secs(1);
                let sound = bundle.believed_at(self.chain(), then);
                *judged = Some((bundle, sound));
                sound
            }
        };
        drop(judged);
        let now = clock::now();
        sound && self.not_before <= now && now < self.good_until()
    }

    /// Whether it will stand as soon as clocks agree that it has begun, and may yet be given grace: a
    /// machine that boots with a clock that is behind, or without control plane, still has it.
    pub fn keeps(&self) -> bool {
        let bundle = self.trust.bundle();
        let then = self.not_before + Duration::from_secs(1);
        bundle.believed_at(self.chain(), then) && clock::now() < self.not_after + grace::MOST
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// When a certificate expires; `None` for bytes that are no X.509.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let parsed = parse(certificate, 0).ok()?;
    Some(validity(&parsed).1)
}

/// When a certificate begins and when it expires; `None` for bytes that are no X.509.
pub fn validity_of(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let parsed = parse(certificate, 0).ok()?;
    Some(validity(&parsed))
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
///
/// # Errors
/// [`SvidError::Parse`] for bytes that are no X.509.
pub fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<[u8; 32], SvidError> {
    let parsed = parse(certificate, 0)?;
    Ok(Sha256::digest(parsed.public_key().raw).into())
}

/// Certificates of a PEM text, in order.
///
/// # Errors
/// [`SvidError::Pem`] for text that is no PEM of certificates.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SvidError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| SvidError::Pem {
            reason: e.to_string(),
        })
}

/// One certificate as PEM.
pub fn to_pem(certificate: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", certificate)
}

/// DER of a kind, such as `X509 CRL`, as PEM (RFC 7468).
pub fn pem(kind: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 64);
    text.push_str(&format!("-----BEGIN {kind}-----\n"));
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|b| char::from(*b)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {kind}-----\n"));
    text
}

pub(super) fn parse<'a>(
    der: &'a CertificateDer<'_>,
    index: usize,
) -> Result<X509Certificate<'a>, SvidError> {
    match X509Certificate::from_der(der) {
        Ok((_rest, certificate)) => Ok(certificate),
        Err(e) => Err(SvidError::Parse {
            index,
            reason: e.to_string(),
        }),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let at = |seconds: i64| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    let validity = certificate.validity();
    (
        at(validity.not_before.timestamp()),
        at(validity.not_after.timestamp()),
    )
}
