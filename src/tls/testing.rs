//! A throw-away certificate authority for tests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Roots, Svid, Trust};

/// A root that signs whatever it is asked to.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
}

/// What a test leaf is to hold.
pub(crate) struct Leaf<'a> {
    pub(crate) uris: &'a [&'a str],
    pub(crate) dns: &'a [&'a str],
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl<'a> Leaf<'a> {
    /// In date for an hour, with these URI names.
    pub(crate) fn uris(uris: &'a [&'a str]) -> Self {
        let now = SystemTime::now();
        Self {
            uris,
            dns: &[],
            not_before: now - Duration::from_secs(60),
            not_after: now + Duration::from_secs(3600),
        }
    }
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = format!("test root {:016x}", rand::random::<u64>());
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// A revocation list in DER.
    pub(crate) fn crl(&self, number: u64, revoked: &[&CertificateDer<'_>]) -> Vec<u8> {
        let now = SystemTime::now();
        let entry = |c: &&CertificateDer<'_>| RevokedCertParams {
            serial_number: SerialNumber::from(raw_serial(c)),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::of_roots(self.roots()).unwrap()
    }

    pub(crate) fn roots(&self) -> Arc<Roots> {
        Arc::new(Roots::new(vec![self.root.clone()]).unwrap())
    }

    /// A leaf certificate and its key.
    pub(crate) fn leaf(
        &self,
        leaf: &Leaf<'_>,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = |u: &&str| SanType::URI((*u).try_into().unwrap());
        let dns = |d: &&str| SanType::DnsName((*d).try_into().unwrap());
        params.subject_alt_names = leaf.uris.iter().map(uri).collect();
        params.subject_alt_names.extend(leaf.dns.iter().map(dns));
        params.not_before = leaf.not_before.into();
        params.not_after = leaf.not_after.into();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate.der().clone(), key.into())
    }

    /// An SVID with one URI name, in date for an hour.
    pub(crate) fn svid(&self, uri: &str) -> Arc<Svid> {
        self.svid_of(&Leaf::uris(&[uri]))
    }

    /// An SVID of the given leaf.
    pub(crate) fn svid_of(&self, leaf: &Leaf<'_>) -> Arc<Svid> {
        let (certificate, key) = self.leaf(leaf);
        Arc::new(Svid::new(vec![certificate], key, self.trust()).unwrap())
    }
}

fn raw_serial(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let (_rest, parsed) = X509Certificate::from_der(certificate).unwrap();
    parsed.raw_serial().to_vec()
}
