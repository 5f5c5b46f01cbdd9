//! Identities on disk.

use super::*;
use crate::tls::testing::{Leaf, TestCa};
use crate::wire::proto::lateen::{MeshInfo, TrustBundle, TrustRoot};

const NODE: &str = "spiffe://cluster.local/node/edge-1";

fn answer(ca: &TestCa, request: &Request, generation: u64) -> (Enrolled, Request) {
    // The test authority makes its own keys, so the request takes over the one it made.
    let (leaf, key) = ca.leaf(&Leaf::uris(&[NODE]));
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.secret_der().to_vec());
    let enrolled = Enrolled {
        chain: vec![leaf.to_vec()],
        trust: Some(TrustBundle {
            roots: vec![TrustRoot {
                der: ca.root.to_vec(),
                ..TrustRoot::default()
            }],
            ..TrustBundle::default()
        }),
        mesh: Some(MeshInfo {
            trust_domain: "cluster.local".into(),
            ..MeshInfo::default()
        }),
        generation,
        ..Enrolled::default()
    };
    (enrolled, request.with_key(key))
}

#[test]
fn an_identity_survives_on_disk_and_the_newest_is_current() {
    let state = tempfile::tempdir().unwrap();
    assert!(NodeIdentity::load(state.path()).unwrap().is_none());
    let ca = TestCa::new();
    let id: SpiffeId = NODE.parse().unwrap();
    for generation in [1, 2] {
        let request = Request::new(&id).unwrap();
        let (enrolled, request) = answer(&ca, &request, generation);
        let identity = NodeIdentity::of(enrolled, &request, &id, None).unwrap();
        identity
            .keep(state.path(), request.key.secret_pkcs8_der())
            .unwrap();
        let loaded = NodeIdentity::load(state.path()).unwrap().unwrap();
        assert_eq!(loaded.mesh.generation, generation);
        assert_eq!(loaded.svid.id(), &id);
    }
    let kept = fs::read_dir(home(state.path())).unwrap().count();
    assert_eq!(kept, 2, "the current generation and the link to it");
}

#[test]
fn an_answer_for_somebody_else_is_refused() {
    let ca = TestCa::new();
    let id: SpiffeId = "spiffe://cluster.local/node/edge-2".parse().unwrap();
    let request = Request::new(&id).unwrap();
    let (enrolled, request) = answer(&ca, &request, 1);
    let outcome = NodeIdentity::of(enrolled, &request, &id, None);
    assert!(matches!(outcome, Err(NodeIdentityError::Answer { .. })));
}
