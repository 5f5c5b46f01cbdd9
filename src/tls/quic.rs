//! TLS as QUIC carries it: the same proofs, another application protocol, and the library's verdict on a
//! peer kept, of which QUIC passes on no more than a text.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::config::{ServerSide, TlsError, client, provider, server};
use super::svid::Svid;
use super::verify::{ClientRule, ClientVerifier, ServerRule, ServerVerifier};
use crate::identity::SpiffeId;

/// HTTP/3 over QUIC.
const ALPN: &[u8] = b"h3";

/// Why the peer of one handshake was refused, if it was.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Arc<OnceLock<Error>>);

impl Verdict {
    /// What was wrong with its certificate.
    pub fn refusal(&self) -> Option<&Error> {
        self.0.get()
    }

    fn note<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &outcome {
            // The first is the cause of the others.
            let _known = self.0.set(error.clone());
        }
        outcome
    }
}

impl ServerSide {
    /// The same over QUIC, for one handshake.
    ///
    /// # Errors
    /// [`TlsError`] when the TLS stack refuses the settings.
    pub fn quic(&self) -> Result<(ServerConfig, Verdict), TlsError> {
        let verdict = Verdict::default();
        let verifier = Noted {
            verdict: verdict.clone(),
            inner: ClientVerifier {
                trust: self.trust.clone(),
                rule: ClientRule::Workload(self.trust_domain.clone()),
            },
        };
        let keys = Arc::clone(&self.config.cert_resolver);
        let mut config = server(Arc::new(verifier), keys)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok((config, verdict))
    }
}

/// For handshakes of which it is not known yet whom they are for: presents no certificate, so that none
/// succeeds.
///
/// # Errors
/// [`TlsError`] when the TLS stack refuses the settings.
pub fn quic_nobody() -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nobody));
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Outbound HBONE over QUIC, for one handshake: as [`super::hbone_client`].
///
/// # Errors
/// [`TlsError`] when the certificate cannot be presented.
pub fn quic_client(
    svid: &Svid,
    accepted: Arc<BTreeSet<SpiffeId>>,
) -> Result<(ClientConfig, Verdict), TlsError> {
    let verdict = Verdict::default();
    let trust = svid.trust().clone();
    let verifier = Noted {
        verdict: verdict.clone(),
        inner: ServerVerifier {
            rule: ServerRule::Workload { trust, accepted },
        },
    };
    let mut config = client(Arc::new(verifier), Some(svid))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok((config, verdict))
}

/// A verifier whose verdict is kept.
#[derive(Debug)]
struct Noted<V> {
    inner: V,
    verdict: Verdict,
}

impl<V: ClientCertVerifier> ClientCertVerifier for Noted<V> {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now);
        self.verdict.note(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.inner.verify_tls13_signature(message, cert, dss);
        self.verdict.note(verified)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl<V: ServerCertVerifier> ServerCertVerifier for Noted<V> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        self.verdict.note(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.inner.verify_tls13_signature(message, cert, dss);
        self.verdict.note(verified)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
