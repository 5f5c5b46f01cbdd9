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

#[tokio::test]
async fn the_control_plane_that_renews_is_found() {
    use crate::agent::scripted::{Script, Scripted, joined};
    use tonic::Code::{FailedPrecondition, PermissionDenied, Unavailable};
    let ca = TestCa::new();
    for (name, first, second, want, asked) in [
        ("the first", None, None, Ok(2), [1, 0]),
        (
            "not the primary",
            Some(FailedPrecondition),
            None,
            Ok(2),
            [1, 1],
        ),
        ("stopping", Some(Unavailable), None, Ok(2), [1, 1]),
        (
            "a no is a no",
            Some(PermissionDenied),
            None,
            Err(PermissionDenied),
            [1, 0],
        ),
        (
            "neither",
            Some(FailedPrecondition),
            Some(Unavailable),
            Err(Unavailable),
            [1, 1],
        ),
    ] {
        let script = |refuses| Script {
            refuses,
            ..Script::default()
        };
        let a = Scripted::lateen(&ca, script(first)).await;
        let b = Scripted::lateen(&ca, script(second)).await;
        let controls = joined(&ca, 1, &[&a.url, &b.url]);
        let got = match ask(&controls, Vec::new()).await {
            Ok((_control, answer)) => Ok(answer.generation),
            Err(NodeIdentityError::Refused { status }) => Err(status.code()),
            Err(other) => panic!("{name}: {other}"),
        };
        assert_eq!(got, want, "{name}");
        assert_eq!([&a, &b].map(|c| c.heard().requests), asked, "{name}");
    }
}

#[tokio::test]
async fn one_that_cannot_be_reached_is_passed_over() {
    use crate::agent::scripted::{Script, Scripted, joined};
    let ca = TestCa::new();
    let mut a = Scripted::lateen(&ca, Script::default()).await;
    let b = Scripted::lateen(&ca, Script::default()).await;
    a.stop().await;
    let controls = joined(&ca, 1, &[&a.url, &b.url]);
    let (control, answer) = ask(&controls, Vec::new()).await.unwrap();
    assert_eq!((control, answer.generation), (1, 2));
    b.rewrite(|script| script.refuses = Some(tonic::Code::Unavailable));
    let nobody = ask(&controls, Vec::new()).await.unwrap_err();
    assert!(matches!(nobody, NodeIdentityError::Refused { .. }));
}
