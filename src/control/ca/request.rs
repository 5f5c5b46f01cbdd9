//! Certificate requests, checked (`spec/control-plane.md` §4.1).

use rcgen::{
    CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, PKCS_RSA_SHA384, PKCS_RSA_SHA512, PublicKey, PublicKeyData as _, SanType,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;

use crate::identity::SpiffeId;

/// Bytes of a request, the most we read (`spec/reliability.md` §2b).
const LIMIT: usize = 64 << 10;
/// Bytes of an RSA public key of 2048 bits, the least we take.
const RSA_2048: usize = 256;

/// A request whose signature proves its key, and whose key is strong enough.
#[derive(Debug)]
pub struct Csr {
    key: PublicKey,
    identity: Option<SpiffeId>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than any honest one.
    #[error("the certificate request is too long")]
    TooLong,
    /// Not PKCS#10, or its signature is another key's.
    #[error("the certificate request does not parse, or its signature is not of its own key")]
    Malformed,
    /// A key that is weak or of a kind that peers refuse.
    #[error(
        "the request's key is too weak or of an unknown kind; use P-256, P-384, Ed25519 or RSA from 2048 bits"
    )]
    WeakKey,
    /// Names besides the one identity.
    #[error(
        "the certificate request names more than one URI, or something that is no mesh identity"
    )]
    Names,
}

impl Csr {
    /// Reads and checks a request in DER.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn from_der(der: &CertificateSigningRequestDer<'_>) -> Result<Self, CsrError> {
        if der.len() > LIMIT {
            return Err(CsrError::TooLong);
        }
        let request = CertificateSigningRequestParams::from_der(der);
        let request = request.map_err(|_library_says_little| CsrError::Malformed)?;
        let identity = match request.params.subject_alt_names.as_slice() {
            [] => None,
            [SanType::URI(uri)] => {
                let id = uri.as_str().parse();
                Some(id.map_err(|_no_identity| CsrError::Names)?)
            }
            _ => return Err(CsrError::Names),
        };
        if !strong(&request.public_key) {
            return Err(CsrError::WeakKey);
        }
        Ok(Self {
            key: request.public_key,
            identity,
        })
    }

    /// Reads and checks a request in PEM.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn from_pem(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > 2 * LIMIT {
            return Err(CsrError::TooLong);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
        Self::from_der(&der.map_err(|_no_pem| CsrError::Malformed)?)
    }

    /// Whom the request names, if anyone.
    pub fn identity(&self) -> Option<&SpiffeId> {
        self.identity.as_ref()
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo: what a machine is remembered by.
    pub fn spki_sha256(&self) -> [u8; 32] {
        use sha2::{Digest as _, Sha256};
        Sha256::digest(self.key.subject_public_key_info()).into()
    }

    pub(super) fn public_key(&self) -> &PublicKey {
        &self.key
    }
}

fn strong(key: &PublicKey) -> bool {
    let algorithm = key.algorithm();
    let curves = [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
    ];
    let rsa = [&PKCS_RSA_SHA256, &PKCS_RSA_SHA384, &PKCS_RSA_SHA512];
    // The DER around an RSA modulus only adds to its length.
    curves.contains(&algorithm) || (rsa.contains(&algorithm) && key.der_bytes().len() >= RSA_2048)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P521_SHA512};

    fn request(sans: &[&str], dns: &[&str]) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uris = sans.iter().map(|u| SanType::URI((*u).try_into().unwrap()));
        let names = dns
            .iter()
            .map(|d| SanType::DnsName((*d).try_into().unwrap()));
        params.subject_alt_names = uris.chain(names).collect();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn requests_are_judged() {
        let cart = "spiffe://cluster.local/ns/shop/sa/cart";
        let weak = {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
            CertificateParams::default()
                .serialize_request(&key)
                .unwrap()
                .der()
                .to_vec()
        };
        let mut forged = request(&[cart], &[]);
        *forged.last_mut().unwrap() ^= 1;
        for (name, der, want) in [
            ("one identity", request(&[cart], &[]), Ok(Some(cart))),
            ("no name", request(&[], &[]), Ok(None)),
            (
                "two identities",
                request(&[cart, cart], &[]),
                Err(CsrError::Names),
            ),
            (
                "a host name besides",
                request(&[cart], &["a.b"]),
                Err(CsrError::Names),
            ),
            (
                "no identity",
                request(&["https://a.b"], &[]),
                Err(CsrError::Names),
            ),
            ("a curve peers refuse", weak, Err(CsrError::Malformed)),
            ("broken signature", forged, Err(CsrError::Malformed)),
            ("garbage", vec![1, 2, 3], Err(CsrError::Malformed)),
            ("too long", vec![0; LIMIT + 1], Err(CsrError::TooLong)),
        ] {
            let got = Csr::from_der(&der.into()).map(|c| c.identity().map(ToString::to_string));
            assert_eq!(
                got.as_ref().map(Option::as_deref),
                want.as_ref().map(|w| *w),
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = Csr::from_der(&bytes.into());
        }
    }
}
