//! Each way a directory can be wrong, made from one that is right.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose};
use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::control::ca::Authority;
use crate::identity::{SpiffeId, TrustDomain};
use crate::tls::{Bundle, CertificateKey, Request, Roots, to_pem};

const DAY: Duration = Duration::from_secs(86_400);

/// A root with its key.
struct TestRoot {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

fn ca_params(title: &str, usages: Vec<KeyUsagePurpose>, ends: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::CommonName, title);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = usages;
    params.not_before = (ends - 30 * DAY).into();
    params.not_after = ends.into();
    params
}

fn signing() -> Vec<KeyUsagePurpose> {
    vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]
}

fn root(title: &str) -> TestRoot {
    let key = KeyPair::generate().unwrap();
    let params = ca_params(title, signing(), SystemTime::now() + DAY);
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    TestRoot {
        issuer,
        certificate,
    }
}

/// Puts an intermediate under `root` into a directory by Istio's names.
fn plug(directory: &Path, root: &TestRoot, usages: Vec<KeyUsagePurpose>, ends: SystemTime) {
    let key = KeyPair::generate().unwrap();
    let title = format!("intermediate {}", rand::random::<u32>());
    let params = ca_params(&title, usages, ends);
    let certificate = params.signed_by(&key, &root.issuer).unwrap();
    let certificate = to_pem(certificate.der());
    let root = to_pem(&root.certificate);
    fs::write(directory.join("ca-cert.pem"), &certificate).unwrap();
    fs::write(
        directory.join("cert-chain.pem"),
        format!("{certificate}{root}"),
    )
    .unwrap();
    fs::write(directory.join("root-cert.pem"), root).unwrap();
    let path = directory.join("ca-key.pem");
    fs::write(&path, key.serialize_pem()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn good(directory: &Path) -> TestRoot {
    let root = root("corporate root");
    plug(directory, &root, signing(), SystemTime::now() + DAY);
    root
}

#[test]
fn a_good_directory_signs_and_its_root_is_not_sent() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let corporate = good(dir.path());
    let now = SystemTime::now();
    let td = TrustDomain::default();
    let ca = Authority::open(state.path(), Some(dir.path()), &td, now).unwrap();
    let id = SpiffeId::workload(&td, "shop", "cart").unwrap();
    let request = Request::new(&id).unwrap();
    let csr = crate::control::ca::Csr::from_der(&request.csr).unwrap();
    let signed = ca.sign(&csr, &id, "edge-1", DAY / 2, now).unwrap();
    assert_eq!(signed.chain.len(), 2, "leaf and intermediate");
    let roots = Arc::new(Roots::new(vec![corporate.certificate.clone()]).unwrap());
    assert!(Bundle::of_roots(roots).unwrap().believes(&signed.chain));
    assert_eq!(ca.pin(), spki_sha256(&corporate.certificate).unwrap());
    // A second control plane under the same root is of the same mesh.
    let other = tempfile::tempdir().unwrap();
    let second = tempfile::tempdir().unwrap();
    plug(other.path(), &corporate, signing(), now + DAY);
    let peer = Authority::open(second.path(), Some(other.path()), &td, now).unwrap();
    assert_eq!(peer.epoch(), ca.epoch());
    assert!(
        ca.rotate_issuing(now)
            .unwrap_err()
            .to_string()
            .contains("replace the files")
    );
}

#[test]
fn what_does_not_fit_is_refused_by_its_reason() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &str); 10] = [
        (
            "three of four",
            |d| fs::remove_file(d.join("cert-chain.pem")).unwrap(),
            "has no cert-chain.pem",
        ),
        (
            "none",
            |d| {
                for name in ISTIO {
                    fs::remove_file(d.join(name)).unwrap();
                }
            },
            "has no ca-cert.pem, ca-key.pem",
        ),
        (
            "another's key",
            |d| {
                let key = KeyPair::generate().unwrap();
                fs::write(d.join("ca-key.pem"), key.serialize_pem()).unwrap();
            },
            "it is not the key of",
        ),
        (
            "expired",
            |d| plug(d, &root("r"), signing(), SystemTime::now() - DAY),
            "has expired",
        ),
        (
            "cannot revoke",
            |d| {
                let usages = vec![KeyUsagePurpose::KeyCertSign];
                plug(d, &root("r"), usages, SystemTime::now() + DAY);
            },
            "cRLSign",
        ),
        (
            "another root",
            |d| {
                let stranger = to_pem(&root("stranger").certificate);
                fs::write(d.join("root-cert.pem"), stranger).unwrap();
            },
            "does not lead to any certificate",
        ),
        (
            "key open to others",
            |d| {
                let open = fs::Permissions::from_mode(0o644);
                fs::set_permissions(d.join("ca-key.pem"), open).unwrap();
            },
            "chmod 600",
        ),
        (
            "empty root file",
            |d| fs::write(d.join("root-cert.pem"), "").unwrap(),
            "there is no certificate in it",
        ),
        (
            "a key that is none",
            |d| fs::write(d.join("ca-key.pem"), "hello").unwrap(),
            "no private key in PKCS#8",
        ),
        (
            "a revocation list that is none",
            |d| fs::write(d.join("ca-crl.pem"), "-----BEGIN X509 CRL-----\n!\n").unwrap(),
            "ca-crl.pem",
        ),
    ];
    for (name, spoil, want) in cases {
        let dir = tempfile::tempdir().unwrap();
        good(dir.path());
        spoil(dir.path());
        let error = load(dir.path(), SystemTime::now()).err().unwrap();
        let error = crate::causes::chain(&error);
        assert!(error.contains(want), "{name}: {error}");
    }
}

#[test]
fn kubernetes_names_are_taken_too() {
    let dir = tempfile::tempdir().unwrap();
    good(dir.path());
    for (from, to) in [
        ("cert-chain.pem", "tls.crt"),
        ("ca-key.pem", "tls.key"),
        ("root-cert.pem", "ca.crt"),
    ] {
        fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
    }
    fs::remove_file(dir.path().join("ca-cert.pem")).unwrap();
    let plugged = load(dir.path(), SystemTime::now()).unwrap();
    assert!(plugged.issuing.above.is_empty());
}

#[test]
fn replaced_files_are_taken_up_unless_they_would_strand_nodes() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let corporate = good(dir.path());
    let now = SystemTime::now();
    let ca = Authority::open(state.path(), Some(dir.path()), &TrustDomain::default(), now).unwrap();
    let before = ca.ring();
    ca.maintain(now).unwrap();
    assert_eq!(ca.ring().sequence, before.sequence, "nothing has changed");
    plug(dir.path(), &corporate, signing(), now + DAY);
    ca.maintain(now).unwrap();
    let after = ca.ring();
    assert!(after.sequence > before.sequence);
    assert_ne!(after.issuing.certificate, before.issuing.certificate);
    assert!(after.reissue_before > before.reissue_before);
    let root_file = dir.path().join("root-cert.pem");
    let old = fs::read_to_string(&root_file).unwrap();
    let stranger = root("stranger");
    plug(dir.path(), &stranger, signing(), now + DAY);
    let error = ca.maintain(now).unwrap_err().to_string();
    assert!(error.contains("beside the old one"), "{error}");
    assert_eq!(
        ca.ring().sequence,
        after.sequence,
        "what was in force still is"
    );
    let both = fs::read_to_string(&root_file).unwrap() + &old;
    fs::write(&root_file, both).unwrap();
    ca.maintain(now).unwrap();
    assert_eq!(ca.ring().roots.len(), 2);
    let first = CertificateDer::from_pem_slice(to_pem(&stranger.certificate).as_bytes()).unwrap();
    assert_eq!(ca.ring().roots[0].certificate, first, "the one it leads to");
}

/// A certificate of shop/cart for `edge-1`, and whether peers are told that it is revoked.
fn issue(ca: &Authority, now: SystemTime) -> CertificateDer<'static> {
    let id = SpiffeId::workload(ca.trust_domain(), "shop", "cart").unwrap();
    let request = Request::new(&id).unwrap();
    let csr = crate::control::ca::Csr::from_der(&request.csr).unwrap();
    let signed = ca.sign(&csr, &id, "edge-1", DAY / 2, now).unwrap();
    signed.chain[0].clone()
}

fn revoked(ca: &Authority, leaf: &CertificateDer<'_>) -> bool {
    let key = CertificateKey::of(leaf).unwrap();
    ca.trust().bundle().revokes(&key)
}

#[test]
fn what_was_revoked_under_an_intermediate_stays_so_when_it_is_replaced() {
    for while_running in [true, false] {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let corporate = good(dir.path());
        let now = SystemTime::now();
        let td = TrustDomain::default();
        let open = || Authority::open(state.path(), Some(dir.path()), &td, now).unwrap();
        let replace = || plug(dir.path(), &corporate, signing(), now + DAY);
        let ca = open();
        let [bad, good] = [issue(&ca, now), issue(&ca, now)];
        let serial = CertificateKey::of(&bad).unwrap().serial();
        ca.revoke(&serial, now).unwrap();
        let ca = match while_running {
            true => {
                replace();
                ca.maintain(now).unwrap();
                ca
            }
            false => {
                drop(ca);
                replace();
                open()
            }
        };
        let name = format!("while running: {while_running}");
        assert!(revoked(&ca, &bad) && !revoked(&ca, &good), "{name}");
        assert!(ca.ring().reissue_before > now, "{name}");
        ca.revoke_node("edge-1", now).unwrap();
        assert_eq!(
            revoked(&ca, &good),
            while_running,
            "{name}: the key is at hand"
        );
        let again = open();
        assert!(revoked(&again, &bad), "{name}: after another start");
        assert_eq!(again.ring().sequence, ca.ring().sequence, "{name}");
    }
}
