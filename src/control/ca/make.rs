//! Makes the certificates that sign others.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SerialNumber,
};

use super::keep::{Home, OpenError};
use super::manifest::Manifest;
use super::revoke::Revoked;
use super::{plugged, seconds};
use crate::files;
use crate::identity::TrustDomain;

/// Life of an intermediate (`spec/control-plane.md` §4.5).
pub(super) const ISSUING_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// Life of a root.
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far a certificate's start lies back, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(120);

/// Makes an authority. The epoch is written last: until then nothing says that there is one, and
/// an interrupted start begins anew.
pub(super) fn authority(
    home: &Home,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<(), OpenError> {
    files::directory(&home.directory)?;
    let mut manifest = Manifest::first(seconds(now));
    let epoch = match &home.plugged {
        Some(directory) => {
            let brought = plugged::load(directory, now)?;
            manifest.issuing = plugged::NAME.to_owned();
            manifest.roots = brought.root_keys();
            brought.epoch()
        }
        None => {
            let root = root(home, &manifest.root, 1, trust_domain, now)?;
            issuing(home, &manifest.issuing, 1, &root, trust_domain, now)?;
            rand::random()
        }
    };
    Revoked::default().save(&home.directory)?;
    home.write_manifest(&manifest)?;
    files::write(&home.epoch, &epoch)?;
    Ok(())
}

/// Makes a root with its key, kept under `name`.
pub(super) fn root(
    home: &Home,
    name: &str,
    number: u32,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Issuer<'static, KeyPair>, OpenError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
    let params = root_params(number, trust_domain, now);
    let root = params.self_signed(&key)?;
    home.write(name, root.der(), Some(&key))?;
    Ok(Issuer::new(params, key))
}

/// The name and key of one root, certified by another: a chain with it leads to either.
pub(super) fn bridge(
    home: &Home,
    name: &str,
    number: u32,
    added: &Issuer<'static, KeyPair>,
    former: &Issuer<'static, KeyPair>,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<(), OpenError> {
    let mut params = root_params(number, trust_domain, now);
    params.use_authority_key_identifier_extension = true;
    let bridge = params.signed_by(added.key(), former)?;
    home.write(name, bridge.der(), None)?;
    Ok(())
}

/// Makes an intermediate with its key, kept under `name`.
pub(super) fn issuing(
    home: &Home,
    name: &str,
    number: u32,
    root: &Issuer<'static, KeyPair>,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<(), OpenError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    // Another control plane of the mesh may number its own alike.
    let unique: u32 = rand::random();
    let title = format!("Lateen issuer {number} {unique:08x} of {trust_domain}");
    let mut params = params(&title, now, ISSUING_TTL);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    let issuing = params.signed_by(&key, root)?;
    home.write(name, issuing.der(), Some(&key))?;
    Ok(())
}

fn root_params(number: u32, trust_domain: &TrustDomain, now: SystemTime) -> CertificateParams {
    let title = format!("Lateen root {number} of {trust_domain}");
    let mut params = params(&title, now, ROOT_TTL);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn params(title: &str, now: SystemTime, ttl: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, title);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + ttl).into();
    // cRLSign as well: without it no revocation by this certificate would ever be believed (§4.7).
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let serial: [u8; 16] = rand::random();
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    params
}
