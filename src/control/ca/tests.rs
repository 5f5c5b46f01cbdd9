//! The authority as its users see it.

use super::*;
use crate::tls::{self, CertificateKey};
use x509_parser::prelude::{FromDer as _, X509Certificate};

fn authority(dir: &Path) -> Authority {
    Authority::open(dir, None, &TrustDomain::default(), SystemTime::now()).unwrap()
}

#[test]
fn a_leaf_says_what_it_must_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let now = SystemTime::now();
    let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let request = Request::new(&id).unwrap();
    let csr = Csr::from_der(&request.csr).unwrap();
    let day = Duration::from_secs(86_400);
    let signed = ca.sign(&csr, &id, "edge-1", day, now).unwrap();
    let (_rest, leaf) = X509Certificate::from_der(&signed.chain[0]).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical);
    assert_eq!(san.value.general_names.len(), 1);
    assert_eq!(tls::peer_identity(&signed.chain[0]), Some(id));
    assert_eq!(leaf.subject().iter().count(), 0, "empty subject");
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
    assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
    assert!(!leaf.is_ca());
    // At most 16 bytes and a sign; some of them begin with zeros, which DER leaves out.
    assert!((12..=17).contains(&leaf.raw_serial().len()));
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(life, 86_400 + 120);
    let svid = Svid::new(signed.chain, request.key.into(), ca.trust().clone());
    assert!(svid.is_ok(), "{svid:?}");
}

#[test]
fn lives_are_granted_within_bounds() {
    for (name, asked, want) in [
        ("none", 0, 86_400),
        ("negative", -5, 86_400),
        ("a minute", 60, 600),
        ("a day", 86_400, 86_400),
        ("a year", 31_536_000, 90 * 86_400),
    ] {
        assert_eq!(granted_ttl(asked).as_secs(), want, "{name}");
    }
}

#[test]
fn an_issuer_near_its_end_signs_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let csr = Csr::from_der(&Request::new(&id).unwrap().csr).unwrap();
    let late = ca.ring().issuing.ends - Duration::from_secs(1800);
    let refused = ca.sign(&csr, &id, "edge-1", DEFAULT_TTL, late);
    assert!(matches!(refused, Err(SignError::IssuerExpiring)));
    let before = ca.ring().issuing.ends - Duration::from_secs(7200);
    let signed = ca.sign(&csr, &id, "edge-1", DEFAULT_TTL, before).unwrap();
    assert!(
        signed.not_after < ca.ring().issuing.ends,
        "never outlives its issuer"
    );
}

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const DAY: Duration = Duration::from_secs(86_400);

/// A leaf for `node`, as its chain.
fn issue(ca: &Authority, node: &str, now: SystemTime) -> Vec<CertificateDer<'static>> {
    let id: SpiffeId = CART.parse().unwrap();
    let csr = Csr::from_der(&Request::new(&id).unwrap().csr).unwrap();
    ca.sign(&csr, &id, node, DAY, now).unwrap().chain
}

/// Whether somebody who believes what `ring` says believes a chain.
fn believed(ring: &Ring, chain: &[CertificateDer<'_>]) -> bool {
    bundle(ring).unwrap().believes(chain)
}

#[test]
fn a_root_is_replaced_without_anyone_losing_anyone() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = authority(dir.path());
    let steady = ca.ring();
    let old_leaf = issue(&ca, "edge-1", now);
    assert_eq!(ca.rotate_root(now).unwrap(), Phase::Add);
    let add = ca.ring();
    let added_leaf = issue(&ca, "edge-1", now);
    assert_eq!(ca.rotate_root(now).unwrap(), Phase::Switch);
    let switch = ca.ring();
    let new_leaf = issue(&ca, "edge-1", now);
    assert_eq!(ca.rotate_root(now).unwrap(), Phase::Steady);
    let removed = ca.ring();
    for (name, ring, leaf, want) in [
        ("before: old", &steady, &old_leaf, true),
        // The bridge: a verifier that never heard of the new root.
        ("before: new", &steady, &new_leaf, true),
        ("add: old", &add, &old_leaf, true),
        ("add: issued meanwhile", &add, &added_leaf, true),
        ("add: new", &add, &new_leaf, true),
        ("switch: old", &switch, &old_leaf, true),
        ("switch: new", &switch, &new_leaf, true),
        ("removed: old", &removed, &old_leaf, false),
        ("removed: new", &removed, &new_leaf, true),
    ] {
        assert_eq!(believed(ring, leaf), want, "{name}");
    }
    assert_eq!(steady.pin(), add.pin(), "tokens pin the root that signs");
    assert_eq!(switch.pin(), removed.pin());
    assert_ne!(add.pin(), switch.pin());
    assert!(switch.reissue_before >= now - Duration::from_secs(1));
    assert_eq!(issue(&ca, "edge-1", now).len(), 2, "no bridge any more");
    let sequences = [&steady, &add, &switch, &removed].map(|r| r.sequence);
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    let again = authority(dir.path());
    assert_eq!(
        again.ring().pin(),
        removed.pin(),
        "a restart goes on from there"
    );
    assert_eq!(again.ring().sequence, removed.sequence);
    assert_eq!(again.epoch(), ca.epoch());
}

#[test]
fn a_root_whose_key_is_away_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    std::fs::remove_file(dir.path().join("control/ca/root.key")).unwrap();
    for outcome in [
        ca.rotate_issuing(SystemTime::now()).err(),
        ca.rotate_root(SystemTime::now()).err(),
    ] {
        assert!(matches!(outcome, Some(RotateError::KeyAway { .. })));
    }
}

#[test]
fn an_intermediate_is_replaced_at_half_of_its_life_and_still_revokes() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = authority(dir.path());
    let old = issue(&ca, "edge-1", now);
    ca.maintain(now + make::ISSUING_TTL / 2 - DAY).unwrap();
    assert_eq!(ca.ring().issuing.name, "issuing-1");
    let later = now + make::ISSUING_TTL / 2 + Duration::from_secs(1);
    ca.maintain(later).unwrap();
    let ring = ca.ring();
    assert_eq!(ring.issuing.name, "issuing-2");
    let new = issue(&ca, "edge-1", later);
    assert!(believed(&ring, &old) && bundle(&ring).unwrap().believed_at(&new, later));
    assert_eq!(ring.crls.len(), 2, "one list each");
    let key = CertificateKey::of(&old[0]).unwrap();
    ca.revoke(&key.serial(), now).unwrap();
    assert!(!believed(&ca.ring(), &old));
    ca.maintain(later + MAX_TTL + DAY).unwrap();
    assert_eq!(
        ca.ring().crls.len(),
        1,
        "nothing of it can be about any more"
    );
}

#[test]
fn what_is_revoked_stays_so_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = authority(dir.path());
    let [mine, other, elsewhere] = ["edge-1", "edge-1", "edge-2"].map(|node| issue(&ca, node, now));
    let serial = CertificateKey::of(&mine[0]).unwrap().serial();
    let before = ca.ring();
    assert_eq!(&*ca.revoke(&serial.to_uppercase(), now).unwrap(), "edge-1");
    assert!(ca.ring().crl_number > before.crl_number);
    let verdicts = |ca: &Authority| [&mine, &other, &elsewhere].map(|c| believed(&ca.ring(), c));
    assert_eq!(verdicts(&ca), [false, true, true]);
    assert_eq!(ca.revoke_node("edge-1", now).unwrap(), 1, "the other one");
    assert_eq!(verdicts(&ca), [false, false, true]);
    assert_eq!(
        verdicts(&authority(dir.path())),
        [false, false, true],
        "kept"
    );
    assert_eq!(ca.ring().revoked, 2);
    for (name, text, want) in [
        ("no number", "hello", "is no serial number"),
        (
            "not ours",
            "0102030405060708090a0b0c0d0e0f10",
            "was issued here",
        ),
    ] {
        let error = ca.revoke(text, now).unwrap_err().to_string();
        assert!(error.contains(want), "{name}: {error}");
    }
    ca.maintain(now + 2 * DAY).unwrap();
    assert_eq!(ca.ring().revoked, 0, "expired");
    assert!(ca.was_revoked(&serial), "and remembered");
}

#[test]
fn lists_are_signed_anew_daily_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = authority(dir.path());
    let first = ca.ring().crl_number;
    assert_eq!(first, 1, "there is a list from the start");
    ca.maintain(now + Duration::from_secs(3600)).unwrap();
    assert_eq!(ca.ring().crl_number, first);
    ca.maintain(now + DAY + Duration::from_secs(60)).unwrap();
    assert_eq!(ca.ring().crl_number, first + 1);
    // Revoked on disk, and dead before the lists were signed.
    let leaf = issue(&ca, "edge-1", now);
    let mut books = ca.lock();
    let serial = revoke::serial(&CertificateKey::of(&leaf[0]).unwrap().serial()).unwrap();
    books
        .revoked
        .add(&Arc::from("edge-1"), &[(serial, seconds(now + DAY))], now);
    let listed = books.manifest.crl_number;
    books.revoked.advance(listed, now);
    books.revoked.save(&ca.home.directory).unwrap();
    drop(books);
    assert!(!believed(&authority(dir.path()).ring(), &leaf));
}
