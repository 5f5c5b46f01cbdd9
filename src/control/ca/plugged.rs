//! An authority that is brought along: a directory with the files that Istio's users know as
//! `cacerts` (`spec/control-plane.md` §4.7). Nothing of it is copied; it is read where it is. Of one that
//! was replaced, the revocation list that it signed last is kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::ring::{Intermediate, Root, RootState};
use crate::files::{self, FileError};
use crate::hex::hex;
use crate::tls::{Bundle, SvidError, certificates_from_pem, spki_sha256, validity_of};

/// What stands in the manifest for its intermediate, whichever it is, and begins the name of each.
pub(super) const NAME: &str = "plugged-in";

/// The four files, by either set of names.
const ISTIO: [&str; 4] = [
    "ca-cert.pem",
    "ca-key.pem",
    "cert-chain.pem",
    "root-cert.pem",
];
/// What cert-manager and Kubernetes call them; the chain is in the certificate's file.
const SECRET: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];
/// Revocations by the authority above; optional.
const CRL: &str = "ca-crl.pem";

/// Why a plugged-in authority is not used.
#[derive(Debug, thiserror::Error)]
pub enum PluggedError {
    /// A file did not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Some of the files are there and some are not.
    #[error("{} has no {missing}; a plugged-in authority takes all of {} (or tls.crt, tls.key, ca.crt)", directory.display(), ISTIO.join(", "))]
    Missing {
        /// The directory.
        directory: PathBuf,
        /// What is not there.
        missing: String,
    },
    /// All roots are others than before.
    #[error("the roots in {} are others than the mesh believes; put the new root beside the old one first, and take the old one out once every node has the new one", directory.display())]
    Roots {
        /// The directory.
        directory: PathBuf,
    },
    /// A file has other content than it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate does not parse.
    #[error("a certificate of the plugged-in authority is unusable")]
    Certificate(#[from] SvidError),
}

/// What is in the directory, checked.
#[derive(Clone)]
pub(super) struct Brought {
    issuing: Arc<Intermediate>,
    /// Those that signed before it while this process ran, so that their keys are at hand.
    former: Vec<Arc<Intermediate>>,
    roots: Vec<Root>,
    crls: Vec<Vec<u8>>,
}

impl Brought {
    /// Its intermediate, its roots, and what the authorities above have revoked.
    pub(super) fn parts(&self) -> (Arc<Intermediate>, Vec<Root>, Vec<Vec<u8>>) {
        let issuing = Arc::clone(&self.issuing);
        (issuing, self.roots.clone(), self.crls.clone())
    }

    /// What its intermediate is called.
    pub(super) fn name(&self) -> &str {
        &self.issuing.name
    }

    /// One that signed before, where its key is still at hand.
    pub(super) fn former(&self, name: &str) -> Option<&Arc<Intermediate>> {
        self.former.iter().find(|f| f.name == name)
    }

    /// Takes the place of another.
    pub(super) fn follow(&mut self, before: &Self) {
        let former = before.former.iter().chain([&before.issuing]);
        let others = former.filter(|f| f.name != self.issuing.name);
        self.former = others.map(Arc::clone).collect();
    }

    /// SHA-256 of the keys of its roots, in hex.
    pub(super) fn root_keys(&self) -> Vec<String> {
        self.roots.iter().map(|root| hex(&root.spki)).collect()
    }

    /// Whether peers are to be told the same of both.
    pub(super) fn is_told_like(&self, other: &Self) -> bool {
        self.issuing.certificate == other.issuing.certificate
            && self.issuing.above == other.issuing.above
            && self.root_keys() == other.root_keys()
            && self.crls == other.crls
    }

    /// What tells meshes under this root from others: the same for every control plane of one.
    pub(super) fn epoch(&self) -> [u8; 16] {
        let root = self.roots.first().map(|r| r.spki).unwrap_or_default();
        let hash: [u8; 32] = Sha256::digest([b"lateen epoch ".as_slice(), &root].concat()).into();
        let mut epoch = [0; 16];
        epoch.copy_from_slice(hash.split_at(16).0);
        epoch
    }
}

/// The files as they are.
struct Found {
    certificate: PathBuf,
    key: PathBuf,
    chain: Option<PathBuf>,
    roots: PathBuf,
}

/// Reads and checks a directory.
pub(super) fn load(directory: &Path, now: SystemTime) -> Result<Brought, PluggedError> {
    let found = find(directory)?;
    let mut given = certificates(&found.certificate)?;
    if given.is_empty() {
        return Err(content(&found.certificate, "there is no certificate in it"));
    }
    let certificate = given.remove(0);
    if let Some(chain) = &found.chain {
        given.extend(certificates(chain)?);
    }
    let root_certificates = certificates(&found.roots)?;
    if root_certificates.is_empty() {
        return Err(content(&found.roots, "there is no certificate in it"));
    }
    // The chain may begin with the certificate itself and end with the root: neither is sent.
    given.retain(|c| *c != certificate && !root_certificates.contains(c) && !self_signed(c));
    let key = key(&found.key)?;
    fits(&found, &certificate, &key, now)?;
    let (starts, ends) = validity_of(&certificate).unwrap_or((now, now));
    let issuer = Issuer::from_ca_cert_der(&certificate, key);
    let issuing = Intermediate {
        name: name(&certificate),
        issuer: issuer.map_err(|e| content(&found.certificate, e.to_string()))?,
        certificate,
        above: given,
        starts,
        ends,
    };
    let roots = leads_to(&found, &issuing, root_certificates, now)?;
    Ok(Brought {
        issuing: Arc::new(issuing),
        former: Vec::new(),
        roots,
        crls: crls(&directory.join(CRL))?,
    })
}

/// A name of its own for each intermediate, so that no list takes the place of another's.
fn name(certificate: &CertificateDer<'_>) -> String {
    let hash = hex(&Sha256::digest(certificate));
    let (short, _rest) = hash.split_at(16);
    format!("{NAME}-{short}")
}

/// Whether an intermediate of that name was plugged in.
pub(super) fn is_one(name: &str) -> bool {
    name.starts_with(NAME)
}

fn find(directory: &Path) -> Result<Found, PluggedError> {
    let at = |name: &str| directory.join(name);
    let there = |names: &[&str]| names.iter().filter(|n| at(n).exists()).count();
    let (istio, secret) = (there(&ISTIO), there(&SECRET));
    if secret == SECRET.len() && istio < ISTIO.len() {
        let [certificate, key, roots] = SECRET.map(at);
        return Ok(Found {
            certificate,
            key,
            chain: None,
            roots,
        });
    }
    let missing: Vec<&str> = ISTIO.into_iter().filter(|n| !at(n).exists()).collect();
    if !missing.is_empty() {
        return Err(PluggedError::Missing {
            directory: directory.to_owned(),
            missing: missing.join(", "),
        });
    }
    let [certificate, key, chain, roots] = ISTIO.map(at);
    Ok(Found {
        certificate,
        key,
        chain: Some(chain),
        roots,
    })
}

fn key(path: &Path) -> Result<KeyPair, PluggedError> {
    let text = files::read_secret(path)?.unwrap_or_default();
    let text = String::from_utf8(text).map_err(|_bytes| content(path, "it is no PEM"))?;
    let no_key = "it is no private key in PKCS#8; convert it: openssl pkcs8 -topk8 -nocrypt";
    KeyPair::from_pem(&text).map_err(|_key| content(path, no_key))
}

/// Whether the certificate may sign, now, and its key is this one.
fn fits(
    found: &Found,
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    now: SystemTime,
) -> Result<(), PluggedError> {
    let fault = |reason: &str| Err(content(&found.certificate, reason));
    let Ok((_rest, parsed)) = X509Certificate::from_der(certificate) else {
        return fault("the certificate does not parse");
    };
    if parsed.public_key().raw != key.subject_public_key_info() {
        let reason = format!("it is not the key of {}", found.certificate.display());
        return Err(content(&found.key, reason));
    }
    if !parsed.is_ca() {
        return fault("the certificate is no authority's: it lacks CA:true");
    }
    let usage = parsed.key_usage().ok().flatten();
    if !usage.is_some_and(|u| u.value.key_cert_sign() && u.value.crl_sign()) {
        return fault(
            "its key usage must have keyCertSign and cRLSign, or nothing could be revoked",
        );
    }
    match validity_of(certificate) {
        Some((_, ends)) if ends <= now => fault("the certificate has expired"),
        Some((starts, _)) if starts > now => fault("the certificate is not valid yet"),
        _ => Ok(()),
    }
}

/// The roots, the one the chain leads to first.
fn leads_to(
    found: &Found,
    issuing: &Intermediate,
    certificates: Vec<CertificateDer<'static>>,
    now: SystemTime,
) -> Result<Vec<Root>, PluggedError> {
    let mut roots = Vec::new();
    for certificate in certificates {
        roots.push(Root {
            spki: spki_sha256(&certificate)?,
            certificate,
            state: RootState::Added,
        });
    }
    let leads = |root: &Root| super::proves(issuing, &root.certificate, now);
    let Some(at) = roots.iter().position(leads) else {
        let reason = format!(
            "{} does not lead to any certificate in it",
            found.certificate.display()
        );
        return Err(content(&found.roots, reason));
    };
    let mut first = roots.remove(at);
    first.state = RootState::Active;
    roots.insert(0, first);
    Ok(roots)
}

fn crls(path: &Path) -> Result<Vec<Vec<u8>>, PluggedError> {
    use rustls_pki_types::CertificateRevocationListDer;
    use rustls_pki_types::pem::PemObject as _;
    let Some(pem) = files::read(path)? else {
        return Ok(Vec::new());
    };
    let lists = CertificateRevocationListDer::pem_slice_iter(&pem);
    let lists: Result<Vec<_>, _> = lists.map(|l| l.map(|l| l.to_vec())).collect();
    let lists = lists.map_err(|e| content(path, e.to_string()))?;
    match lists.iter().all(|der| Bundle::is_list(der)) {
        true => Ok(lists),
        false => Err(content(path, "a revocation list in it does not parse")),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PluggedError> {
    let pem = files::read(path)?.unwrap_or_default();
    certificates_from_pem(&pem).map_err(|e| content(path, e.to_string()))
}

fn self_signed(certificate: &CertificateDer<'_>) -> bool {
    let parsed = X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_rest, c)| c.issuer().as_raw() == c.subject().as_raw())
}

fn content(path: &Path, reason: impl Into<String>) -> PluggedError {
    PluggedError::Content {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
