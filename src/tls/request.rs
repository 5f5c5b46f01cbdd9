//! A fresh key and the request for a certificate over it (`spec/hbone-dataplane.md` §9).

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::{CertificateSigningRequestDer, PrivatePkcs8KeyDer};

use crate::identity::SpiffeId;

/// Why a request could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate request for {id}")]
pub struct RequestError {
    /// Whom it was for.
    pub id: SpiffeId,
    /// What the library said.
    #[source]
    pub source: rcgen::Error,
}

/// A P-256 key that was never used before, and the PKCS#10 request that proves it: empty subject,
/// one critical URI SAN.
pub struct Request {
    /// The key, which stays here.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// What goes to the certificate authority.
    pub csr: CertificateSigningRequestDer<'static>,
    csr_pem: String,
}

impl Request {
    /// Makes a key and a request for `id`.
    ///
    /// # Errors
    /// [`RequestError`] when the crypto library fails, which it has no input to do by.
    pub fn new(id: &SpiffeId) -> Result<Self, RequestError> {
        let failed = |source| RequestError {
            id: id.clone(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        Self::over(id, &key)
    }

    /// Makes a request for `id` over a P-256 key in PKCS#8 that was made for it before.
    ///
    /// # Errors
    /// [`RequestError`] when it is no such key.
    pub fn again(id: &SpiffeId, key: &PrivatePkcs8KeyDer<'_>) -> Result<Self, RequestError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256);
        let key = key.map_err(|source| RequestError {
            id: id.clone(),
            source,
        })?;
        Self::over(id, &key)
    }

    fn over(id: &SpiffeId, key: &KeyPair) -> Result<Self, RequestError> {
        let failed = |source| RequestError {
            id: id.clone(),
            source,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = id.to_string().try_into().map_err(failed)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let csr = params.serialize_request(key).map_err(failed)?;
        let csr_pem = csr.pem().map_err(failed)?;
        Ok(Self {
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            csr: csr.der().clone(),
            csr_pem,
        })
    }

    /// The same request over another key, for tests whose authority makes the keys.
    #[cfg(test)]
    pub(crate) fn with_key(&self, key: PrivatePkcs8KeyDer<'static>) -> Self {
        Self {
            key,
            csr: self.csr.clone(),
            csr_pem: self.csr_pem.clone(),
        }
    }

    /// The request as PEM, the form Istio's certificate service takes.
    pub fn csr_pem(&self) -> String {
        self.csr_pem.clone()
    }
}
