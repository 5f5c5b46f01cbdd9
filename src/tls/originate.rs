//! TLS that a waypoint begins towards a program, inside the tunnel to it or beyond the mesh
//! (`spec/waypoint-l7.md` §3.5). Unlike everywhere else the peer is no part of the mesh: it is believed by
//! the roots and names that the operator gives, and may speak TLS 1.2.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::config::{Clock, TlsError};

/// Whom a program's certificate is believed by, and what it is shown.
#[derive(Clone, Default)]
pub struct Origination {
    /// Whose word is believed; nothing is verified where absent.
    pub roots: Option<Arc<RootCertStore>>,
    /// Names of which the certificate must have one: DNS names, addresses, URIs. The name asked for
    /// where there are none.
    pub names: Vec<Arc<str>>,
    /// What the program is shown, if it asks.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// What is to be spoken.
    pub alpn: Vec<Vec<u8>>,
}

/// Why files that the operator names are of no use.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// It is no PEM.
    #[error("the PEM text does not read: {reason}")]
    Pem {
        /// The reader's word.
        reason: String,
    },
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    Empty,
    /// The key is unusable or belongs to another certificate.
    #[error("the private key does not fit the certificate")]
    Key {
        /// What the TLS stack said.
        #[source]
        source: Error,
    },
}

fn pem_error(error: &rustls_pki_types::pem::Error) -> MaterialError {
    MaterialError::Pem {
        reason: error.to_string(),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|e| pem_error(&e))?;
    match all.is_empty() {
        true => Err(MaterialError::Empty),
        false => Ok(all),
    }
}

/// Roots from a file. One that cannot be used is as good as not there, as long as another is.
///
/// # Errors
/// [`MaterialError`].
pub fn roots_from_pem(pem: &[u8]) -> Result<Arc<RootCertStore>, MaterialError> {
    let mut store = RootCertStore::empty();
    let (usable, _unusable) = store.add_parsable_certificates(certificates(pem)?);
    match usable {
        0 => Err(MaterialError::Empty),
        _ => Ok(Arc::new(store)),
    }
}

/// A chain and its key from files.
///
/// # Errors
/// [`MaterialError`].
pub fn certificate_from_pem(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, MaterialError> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| pem_error(&e))?;
    let certified = CertifiedKey::from_der(chain, key, &provider());
    let certified = certified.map_err(|source| MaterialError::Key { source })?;
    Ok(Arc::new(certified))
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// The settings of such handshakes.
///
/// # Errors
/// [`TlsError`] when the TLS stack refuses them.
pub fn originate(terms: &Origination) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = ProgramVerifier {
        roots: terms.roots.clone(),
        names: terms.names.clone(),
        provider: provider(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &terms.certificate {
        Some(key) => {
            let key = SingleCertAndKey::from(Arc::clone(key));
            builder.with_client_cert_resolver(Arc::new(key))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols.clone_from(&terms.alpn);
    config.time_provider = Arc::new(Clock);
    // A resumed session is not verified again, and files may have changed.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

struct ProgramVerifier {
    roots: Option<Arc<RootCertStore>>,
    names: Vec<Arc<str>>,
    provider: CryptoProvider,
}

impl fmt::Debug for ProgramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProgramVerifier({:?})", self.names)
    }
}

impl ServerCertVerifier for ProgramVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else {
            return Ok(ServerCertVerified::assertion());
        };
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, above, now, algorithms)?;
        if self.names.is_empty() {
            verify_server_name(&parsed, asked)?;
        } else if !self.names.iter().any(|name| has(leaf, &parsed, name)) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Whether a certificate has a name. A wildcard is no name of a host: the certificate must have it
/// literally.
fn has(leaf: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>, name: &str) -> bool {
    if !name.contains("://") && !name.starts_with("*.") {
        let name = ServerName::try_from(name);
        return name.is_ok_and(|name| verify_server_name(parsed, &name).is_ok());
    }
    let Ok((_rest, certificate)) = X509Certificate::from_der(leaf) else {
        return false;
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let mut names = names.into_iter().flat_map(|n| &n.value.general_names);
    names.any(|own| match own {
        GeneralName::URI(own) => *own == name,
        GeneralName::DNSName(own) => own.eq_ignore_ascii_case(name),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use rustls::{ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion};

    use super::*;
    use crate::tls::testing::{Leaf, TestCa};
    use crate::tls::to_pem;

    fn roots(ca: &TestCa) -> Option<Arc<RootCertStore>> {
        let pem = to_pem(&ca.root);
        Some(roots_from_pem(pem.as_bytes()).unwrap())
    }

    fn server(
        ca: &TestCa,
        leaf: &Leaf<'_>,
        version: &'static SupportedProtocolVersion,
    ) -> ServerConfig {
        let (certificate, key) = ca.leaf(leaf);
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let mut config = builder
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// Runs a handshake in memory: what is spoken then, or who refused why.
    fn handshake(terms: &Origination, name: &str, server: ServerConfig) -> Result<String, Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(originate(terms).unwrap(), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut Cursor::new(wire)).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut Cursor::new(wire)).unwrap();
            client.process_new_packets()?;
        }
        let spoken = client.alpn_protocol().unwrap_or_default();
        Ok(String::from_utf8_lossy(spoken).into_owned())
    }

    #[test]
    fn a_program_is_believed_by_roots_and_names() {
        let (ca, other) = (TestCa::new(), TestCa::new());
        let now = std::time::SystemTime::now();
        let minute = std::time::Duration::from_secs(60);
        let leaf = Leaf {
            uris: &["spiffe://other/cart"],
            dns: &["cart.example", "*.wild.example"],
            not_before: now - minute,
            not_after: now + minute,
        };
        for (name, believed, names, asked, want) in [
            (
                "the name asked for",
                roots(&ca),
                &[][..],
                "cart.example",
                true,
            ),
            ("another name", roots(&ca), &[], "web.example", false),
            ("under a wildcard", roots(&ca), &[], "a.wild.example", true),
            ("another root", roots(&other), &[], "cart.example", false),
            ("nobody is verified", None, &[], "web.example", true),
            (
                "one of the names given",
                roots(&ca),
                &["x.example", "cart.example"],
                "web.example",
                true,
            ),
            (
                "none of the names given",
                roots(&ca),
                &["x.example"],
                "cart.example",
                false,
            ),
            (
                "a URI",
                roots(&ca),
                &["spiffe://other/cart"],
                "web.example",
                true,
            ),
            (
                "another URI",
                roots(&ca),
                &["spiffe://other/web"],
                "cart.example",
                false,
            ),
            (
                "a wildcard as it is",
                roots(&ca),
                &["*.wild.example"],
                "web.example",
                true,
            ),
            (
                "another wildcard",
                roots(&ca),
                &["*.example"],
                "cart.example",
                false,
            ),
        ] {
            let terms = Origination {
                roots: believed,
                names: names.iter().map(|n| Arc::from(*n)).collect(),
                ..Origination::default()
            };
            let server = server(&ca, &leaf, &rustls::version::TLS13);
            assert_eq!(handshake(&terms, asked, server).is_ok(), want, "{name}");
        }
    }

    #[test]
    fn old_programs_are_spoken_to_and_told_what_is_spoken() {
        let ca = TestCa::new();
        let leaf = Leaf {
            dns: &["cart.example"],
            ..Leaf::uris(&[])
        };
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let terms = Origination {
                roots: roots(&ca),
                alpn: vec![b"http/1.1".to_vec()],
                ..Origination::default()
            };
            let spoken = handshake(&terms, "cart.example", server(&ca, &leaf, version));
            assert_eq!(spoken.unwrap(), "http/1.1", "{version:?}");
        }
    }

    #[test]
    fn material_that_is_of_no_use_is_told() {
        let ca = TestCa::new();
        let (certificate, _key) = ca.leaf(&Leaf::uris(&[]));
        let (_other, key) = ca.leaf(&Leaf::uris(&[]));
        let key = PrivateKeyDer::clone_key(&key);
        let body =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key.secret_der());
        let key = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let chain = to_pem(&certificate);
        let fits = certificate_from_pem(chain.as_bytes(), key.as_bytes());
        assert!(
            matches!(fits, Err(MaterialError::Key { .. })),
            "another's key"
        );
        let none = certificate_from_pem(chain.as_bytes(), b"");
        assert!(matches!(none, Err(MaterialError::Pem { .. })), "no key");
        let empty = roots_from_pem(b"nothing");
        assert!(matches!(empty, Err(MaterialError::Empty)), "no root");
    }
}
