//! Judges a peer's certificate: the chain by webpki, the name by us.
//!
//! webpki proves that a chain leads to a root and is in date; it says nothing of SPIFFE ids, so
//! the checks here are the control (`spec/reliability.md` §2 row 15). A certificate with two URI
//! names is refused: which of them a peer meant must never be a matter of order.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tracing::debug;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::provider;
use super::grace::Grace;
use super::svid::{not_after, spki_sha256};
use super::trust::{Bundle, Trust};
use crate::hex::hex;
use crate::identity::{SpiffeId, TrustDomain};

/// Why a peer whose chain is sound is refused all the same. Found inside
/// [`rustls::CertificateError::Other`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// No single URI name that is a mesh identity of the kind wanted here.
    #[error("the peer's certificate names no {wanted} identity")]
    NoIdentity {
        /// Which kind was wanted: workload, node, control.
        wanted: &'static str,
    },
    /// An identity of another mesh.
    #[error("the peer is {peer}, of another trust domain than {expected}")]
    TrustDomain {
        /// Who it is.
        peer: SpiffeId,
        /// Which trust domain was expected.
        expected: TrustDomain,
    },
    /// Not one of those expected at this address.
    #[error("the peer is {peer}, expected {expected}")]
    Unexpected {
        /// Who it is.
        peer: SpiffeId,
        /// Who was expected, comma-separated.
        expected: String,
    },
    /// None of the certificates presented has the pinned key.
    #[error("the server's root has another key than the join token pins; presented: {presented}")]
    Pin {
        /// SHA-256 of each presented key in hex, comma-separated.
        presented: String,
    },
}

impl From<PeerRefused> for Error {
    fn from(refused: PeerRefused) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
    }
}

impl PeerRefused {
    /// The refusal inside a TLS error, when that is what it was.
    pub fn of(error: &Error) -> Option<&Self> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
            _ => None,
        }
    }
}

/// The first URI name of a certificate that is a mesh identity.
pub fn peer_identity(leaf: &CertificateDer<'_>) -> Option<SpiffeId> {
    uris(leaf)?.iter().find_map(|uri| uri.parse().ok())
}

/// The identity of a certificate that has exactly one URI name.
pub(super) fn sole_identity(leaf: &CertificateDer<'_>) -> Option<SpiffeId> {
    match uris(leaf)?.as_slice() {
        [uri] => uri.parse().ok(),
        _ => None,
    }
}

fn uris(leaf: &CertificateDer<'_>) -> Option<Vec<String>> {
    let (_rest, certificate) = X509Certificate::from_der(leaf).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    Some(names.value.general_names.iter().filter_map(uri).collect())
}

/// What a server demands of the identity in a client's certificate.
#[derive(Debug)]
pub(super) enum ClientRule {
    /// A workload of this trust domain, or of another that the bundle names: HBONE.
    Workload(TrustDomain),
    /// A node or control plane of this trust domain: 15012, where no certificate is legal too, and
    /// what is revoked is refused by each call.
    NodeOrControl(TrustDomain),
}

impl ClientRule {
    fn check(&self, leaf: &CertificateDer<'_>, bundle: &Bundle) -> Result<(), PeerRefused> {
        let (expected, wanted) = match self {
            Self::Workload(td) => (td, "workload"),
            Self::NodeOrControl(td) => (td, "node"),
        };
        let peer = sole_identity(leaf).ok_or(PeerRefused::NoIdentity { wanted })?;
        let believed = match self {
            Self::Workload(own) => bundle.knows(peer.trust_domain(), own),
            Self::NodeOrControl(own) => peer.trust_domain() == own,
        };
        if !believed {
            let expected = expected.clone();
            return Err(PeerRefused::TrustDomain { peer, expected });
        }
        let kind_fits = match self {
            Self::Workload(_) => matches!(peer, SpiffeId::Workload { .. }),
            Self::NodeOrControl(_) => !matches!(peer, SpiffeId::Workload { .. }),
        };
        if kind_fits {
            Ok(())
        } else {
            Err(PeerRefused::NoIdentity { wanted })
        }
    }
}

/// Chain by webpki, then what is revoked, then the rule.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) trust: Trust,
    pub(super) rule: ClientRule,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        matches!(self.rule, ClientRule::Workload(_))
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Stock peers hold one certificate; hints would only tell strangers about our roots.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bundle = self.trust.bundle();
        let chain = bundle.clients();
        let check = |now| chain.verify_client_cert(end_entity, intermediates, now);
        let verified = match self.rule {
            ClientRule::Workload(_) => {
                with_grace(end_entity, intermediates, &self.trust, now, check)?
            }
            ClientRule::NodeOrControl(_) => check(now)?,
        };
        // A control plane tells a revoked node so in words, which no alert of the handshake can: with
        // TLS 1.3 it would come after the client's half is over, and be lost.
        match self.rule {
            ClientRule::Workload(_) => bundle.check(end_entity, intermediates)?,
            ClientRule::NodeOrControl(_) => bundle.check_above(intermediates)?,
        }
        self.rule.check(end_entity, &bundle)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.2 is not offered, so no such signature can be asked about.
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Whom a client believes.
pub(super) enum ServerRule {
    /// One of these workloads, whatever the name dialled: HBONE.
    Workload {
        trust: Trust,
        accepted: Arc<BTreeSet<SpiffeId>>,
    },
    /// A control plane that also holds the name dialled.
    Control { trust: Trust },
    /// Whoever holds the name dialled: another's control plane.
    Named { roots: Arc<RootCertStore> },
    /// As [`ServerRule::Control`], trusting the one presented root with this key.
    Pinned {
        pin: [u8; 32],
        chain: Arc<OnceLock<Vec<CertificateDer<'static>>>>,
    },
}

pub(super) struct ServerVerifier {
    pub(super) rule: ServerRule,
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.rule {
            ServerRule::Workload { .. } => "workload",
            ServerRule::Control { .. } => "control",
            ServerRule::Named { .. } => "named",
            ServerRule::Pinned { .. } => "pinned",
        };
        write!(f, "ServerVerifier({kind})")
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.rule {
            ServerRule::Workload { trust, accepted } => {
                let check = |now| believe(end_entity, intermediates, trust, now);
                with_grace(end_entity, intermediates, trust, now, check)?;
                check_accepted(end_entity, accepted)?;
            }
            ServerRule::Control { trust } => {
                believe(end_entity, intermediates, trust, now)?;
                check_control(end_entity, server_name)?;
            }
            ServerRule::Named { roots } => {
                verify_chain(end_entity, intermediates, roots, now)?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            ServerRule::Pinned { pin, chain } => {
                let root = pinned_root(*pin, end_entity, intermediates)?;
                verify_chain(end_entity, intermediates, &root, now)?;
                check_control(end_entity, server_name)?;
                let presented = std::iter::once(end_entity)
                    .chain(intermediates)
                    .map(|c| c.clone().into_owned())
                    .collect();
                // A second handshake with the same settings presents the same server.
                let _already_known = chain.set(presented);
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.2 is not offered, so no such signature can be asked about.
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Checks a workload's chain by the clock; where its leaf has expired and the grace lasts, as it was
/// when the leaf was good, under issuers that still are (`spec/control-plane.md` §6.7).
fn with_grace<T>(
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
    trust: &Trust,
    now: UnixTime,
    check: impl Fn(UnixTime) -> Result<T, Error>,
) -> Result<T, Error> {
    let refused = match check(now) {
        Err(refused) if is_expired(&refused) => refused,
        other => return other,
    };
    let Some(good) = graced(leaf, above, trust.grace(), now) else {
        return Err(refused);
    };
    let taken = check(good)?;
    if let Some(peer) = sole_identity(leaf) {
        debug!(src.identity = %peer, "an expired certificate is taken: no control plane is there to renew it");
    }
    Ok(taken)
}

fn is_expired(refused: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext};
    matches!(
        refused,
        Error::InvalidCertificate(Expired | ExpiredContext { .. })
    )
}

/// A moment at which a leaf that has expired was good, if it is to be taken `now`.
fn graced(
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
    grace: Grace,
    now: UnixTime,
) -> Option<UnixTime> {
    let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
    let ended = not_after(leaf)?;
    let good = ended.checked_sub(Duration::from_secs(1))?;
    let issuers = above
        .iter()
        .all(|c| not_after(c).is_some_and(|end| moment < end));
    let taken = issuers && ended <= moment && moment < grace.extends(ended);
    let since = good.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    taken.then(|| UnixTime::since_unix_epoch(since))
}

/// Chain to a root of the bundle in force, nothing of it revoked.
fn believe(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &Trust,
    now: UnixTime,
) -> Result<(), Error> {
    let bundle = trust.bundle();
    verify_chain(end_entity, intermediates, &bundle.roots().store(), now)?;
    bundle.check(end_entity, intermediates)
}

fn verify_chain(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(end_entity)?;
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
}

fn check_accepted(
    leaf: &CertificateDer<'_>,
    accepted: &BTreeSet<SpiffeId>,
) -> Result<(), PeerRefused> {
    let wanted = "workload";
    let peer = sole_identity(leaf).ok_or(PeerRefused::NoIdentity { wanted })?;
    if accepted.contains(&peer) {
        return Ok(());
    }
    let expected: Vec<String> = accepted.iter().map(ToString::to_string).collect();
    Err(PeerRefused::Unexpected {
        peer,
        expected: expected.join(", "),
    })
}

fn check_control(leaf: &CertificateDer<'_>, server_name: &ServerName<'_>) -> Result<(), Error> {
    let wanted = "control plane";
    verify_server_name(&ParsedCertificate::try_from(leaf)?, server_name)?;
    match sole_identity(leaf) {
        Some(SpiffeId::Control { .. }) => Ok(()),
        _ => Err(PeerRefused::NoIdentity { wanted }.into()),
    }
}

/// The presented CA certificate whose key is pinned, as the only root (§6.2). webpki takes an
/// anchor's word for being a CA, so that is asked here.
fn pinned_root(
    pin: [u8; 32],
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<RootCertStore, Error> {
    let mut presented = Vec::new();
    for certificate in intermediates.iter().chain(std::iter::once(end_entity)) {
        let Ok(hash) = spki_sha256(certificate) else {
            continue;
        };
        if hash == pin && is_ca(certificate) {
            let mut store = RootCertStore::empty();
            store.add(certificate.clone().into_owned())?;
            return Ok(store);
        }
        presented.push(hex(&hash));
    }
    Err(PeerRefused::Pin {
        presented: presented.join(", "),
    }
    .into())
}

fn is_ca(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_rest, c)| c.is_ca())
}
