//! How the holder of an expired certificate proves its key (`spec/control-plane.md` §6.3).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::svid::parse;

/// What is signed.
pub fn reenrol_payload(nonce: &[u8], node: &str, csr: &[u8]) -> Vec<u8> {
    let hash = Sha256::digest(csr);
    [b"lateen-reenroll-v1", nonce, node.as_bytes(), &hash[..]].concat()
}

/// Signs with a P-256 key in PKCS#8; `None` for anything that is no such key.
pub fn sign_with(pkcs8: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).ok()?;
    let signature = key.sign(&SystemRandom::new(), message).ok()?;
    Some(signature.as_ref().to_vec())
}

/// Whether a signature is of a certificate's key, which is to be a P-256 one: those are what nodes
/// have.
pub fn signed_by(certificate: &CertificateDer<'_>, message: &[u8], signature: &[u8]) -> bool {
    let Ok(parsed) = parse(certificate, 0) else {
        return false;
    };
    let point = &parsed.public_key().subject_public_key.data;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
    key.verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Leaf, TestCa};

    #[test]
    fn only_the_key_itself_proves_itself() {
        let ca = TestCa::new();
        let leaf = Leaf::uris(&["spiffe://cluster.local/node/edge-1"]);
        let ((certificate, key), (_, other)) = (ca.leaf(&leaf), ca.leaf(&leaf));
        let message = reenrol_payload(&[1; 32], "edge-1", b"csr");
        let good = sign_with(key.secret_der(), &message).unwrap();
        let stranger = sign_with(other.secret_der(), &message).unwrap();
        let elsewhere = reenrol_payload(&[1; 32], "edge-2", b"csr");
        for (name, message, signature, want) in [
            ("as it should be", &message, &good, true),
            ("another key", &message, &stranger, false),
            ("for another node", &elsewhere, &good, false),
            ("no signature", &message, &Vec::new(), false),
        ] {
            assert_eq!(signed_by(&certificate, message, signature), want, "{name}");
        }
        assert!(sign_with(b"no key", &message).is_none());
    }
}
