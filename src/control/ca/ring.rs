//! The authority at one moment: what is believed, and who signs.

use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;

use super::manifest::Phase;
use crate::tls::Roots;

/// How a root is used (`spec/control-plane.md` §2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootState {
    /// Intermediates are signed by it.
    Active,
    /// It will sign next.
    Added,
    /// It has signed.
    Retiring,
}

/// A root that is believed.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// SHA-256 of its key.
    pub spki: [u8; 32],
    /// How it is used.
    pub state: RootState,
}

/// A certificate that signs others.
pub struct Intermediate {
    /// What its files are called.
    pub name: String,
    /// Itself.
    pub certificate: CertificateDer<'static>,
    /// What leads from it towards a root, nearest first, without roots.
    pub above: Vec<CertificateDer<'static>>,
    /// When it began.
    pub starts: SystemTime,
    /// When it expires.
    pub ends: SystemTime,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

/// What is believed and who signs, at one moment. Replaced as a whole.
pub struct Ring {
    /// Grows with every change that peers must know.
    pub sequence: u64,
    /// Where a change of the root stands.
    pub phase: Phase,
    /// Since when.
    pub since: SystemTime,
    /// What is believed; the one that signs first.
    pub roots: Vec<Root>,
    /// The same, for those who judge.
    pub believed: Arc<Roots>,
    /// Who signs.
    pub issuing: Arc<Intermediate>,
    /// Who signed, and revokes.
    pub retired: Vec<Arc<Intermediate>>,
    /// Revocation lists in DER, one of each intermediate.
    pub crls: Vec<Vec<u8>>,
    /// Whether each that can sign one has.
    pub(super) listed: bool,
    /// Their number.
    pub crl_number: u64,
    /// How many certificates they list.
    pub revoked: usize,
    /// Certificates made before this are to be replaced.
    pub reissue_before: SystemTime,
}

impl Ring {
    /// SHA-256 of the key of the root that signs: what a join token pins.
    pub fn pin(&self) -> [u8; 32] {
        self.roots.first().map(|r| r.spki).unwrap_or_default()
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("sequence", &self.sequence)
            .field("phase", &self.phase)
            .field("issuing", &self.issuing.name)
            .finish_non_exhaustive()
    }
}
