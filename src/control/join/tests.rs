//! A node that was off for longer than its certificate lasts comes back by its key, or does not.

use super::*;
use crate::identity::TrustDomain;
use crate::tls::{Request as CsrRequest, sign_with};
use crate::wire::proto::lateen::TrustBundle;

const DAY: Duration = Duration::from_secs(86_400);

struct Declared;

impl Mesh for Declared {
    fn has_node(&self, _name: &str) -> bool {
        true
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::new(crate::model::compile::sample::mesh().settings)
    }
}

/// A control plane, and a node that joined it at a time.
struct Desk {
    service: Service,
    joined: SystemTime,
    key: Vec<u8>,
    answer: Enrolled,
    _dir: tempfile::TempDir,
}

fn node_csr() -> CsrRequest {
    CsrRequest::new(&"spiffe://cluster.local/node/edge-1".parse().unwrap()).unwrap()
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let joined = SystemTime::now();
        let td = TrustDomain::default();
        let authority = Authority::open(dir.path(), None, &td, joined).unwrap();
        let enrolment = Arc::new(Enrolment::open(dir.path()).unwrap());
        let ttl = Duration::from_secs(3600);
        let token = enrolment.create("edge-1", ttl, false, authority.pin(), joined);
        let token = token.unwrap();
        let ends: Ends = Arc::new(|_node, _status| {});
        let service = Service::new(Arc::new(authority), enrolment, Arc::new(Declared), ends);
        let request = node_csr();
        let ask = JoinRequest {
            token_id: token.id.clone(),
            secret: token.secret.to_vec(),
            node: "edge-1".to_owned(),
            csr: request.csr.to_vec(),
            host: None,
            roles: Vec::new(),
        };
        let answer = service.enrol(&ask, joined).unwrap();
        Self {
            service,
            joined,
            key: request.key.secret_pkcs8_der().to_vec(),
            answer,
            _dir: dir,
        }
    }

    /// What the node asks at a time, signing with a key.
    fn ask(&self, key: &[u8], now: SystemTime) -> ReenrollRequest {
        let (nonce, _ends) = self.service.challenges.make("edge-1", true, now);
        let csr = node_csr().csr.to_vec();
        let payload = reenrol_payload(&nonce, "edge-1", &csr);
        ReenrollRequest {
            expired_chain: self.answer.chain.clone(),
            signature: sign_with(key, &payload).unwrap(),
            csr,
            nonce: nonce.to_vec(),
            host: None,
        }
    }

    fn reason(&self, ask: &ReenrollRequest, now: SystemTime) -> String {
        match self.service.reenrol(ask, now) {
            Ok((node, enrolled)) => format!("{node} {}", enrolled.generation),
            Err(status) => {
                let reason = status.metadata().get(REASON).unwrap();
                reason.to_str().unwrap().to_owned()
            }
        }
    }
}

#[test]
fn a_node_that_was_off_comes_back_by_its_key() {
    let desk = Desk::new();
    let now = desk.joined + 40 * DAY;
    let ask = desk.ask(&desk.key, now);
    let (_node, back) = desk.service.reenrol(&ask, now).unwrap();
    assert_eq!(back.generation, 2);
    let trust: TrustBundle = back.trust.unwrap();
    assert_eq!(trust.epoch, desk.service.authority.epoch());
    assert_eq!(
        desk.reason(&ask, now),
        "CHALLENGE_UNKNOWN",
        "a number is good once"
    );
}

#[test]
fn who_may_not_come_back_is_told_why() {
    let stranger = node_csr().key.secret_pkcs8_der().to_vec();
    let other = Desk::new();
    type Spoil<'a> = &'a dyn Fn(&Desk, &mut ReenrollRequest);
    let nothing = |_: &Desk, _: &mut ReenrollRequest| {};
    let foreign =
        |_: &Desk, ask: &mut ReenrollRequest| ask.expired_chain.clone_from(&other.answer.chain);
    let no_chain = |_: &Desk, ask: &mut ReenrollRequest| ask.expired_chain.clear();
    let revoked = |desk: &Desk, _: &mut ReenrollRequest| {
        desk.service.enrolment.revoke_node("edge-1").unwrap();
    };
    let taken_back = |desk: &Desk, ask: &mut ReenrollRequest| {
        let leaf = CertificateDer::from(ask.expired_chain[0].clone());
        let serial = CertificateKey::of(&leaf).unwrap().serial();
        desk.service.authority.revoke(&serial, desk.joined).unwrap();
    };
    let replaced = |desk: &Desk, _: &mut ReenrollRequest| {
        let e = &desk.service.enrolment;
        let at = desk.joined + 35 * DAY;
        let token = e.create("edge-1", DAY, true, [0; 32], at).unwrap();
        let joining = Joining {
            token: &token.id,
            secret: &token.secret,
            node: "edge-1",
            spki: [9; 32],
            declared: true,
        };
        e.join(&joining, at).unwrap();
    };
    // A name, days after joining, the key to sign with, what happens in between, the outcome.
    type Case<'a> = (&'a str, u32, Option<&'a [u8]>, Spoil<'a>, &'a str);
    let cases: [Case<'_>; 8] = [
        ("as it should be", 40, None, &nothing, "edge-1 2"),
        (
            "another key",
            40,
            Some(&stranger),
            &nothing,
            "PROOF_INVALID",
        ),
        (
            "another mesh's certificate",
            40,
            None,
            &foreign,
            "PROOF_INVALID",
        ),
        ("no certificate", 40, None, &no_chain, "PROOF_INVALID"),
        ("revoked", 40, None, &revoked, "NODE_REVOKED"),
        (
            "its certificate revoked",
            40,
            None,
            &taken_back,
            "NODE_REVOKED",
        ),
        ("replaced", 40, None, &replaced, "SUPERSEDED"),
        ("off for too long", 121, None, &nothing, "EXPIRED_TOO_LONG"),
    ];
    for (name, days, key, spoil, want) in cases {
        let desk = Desk::new();
        let now = desk.joined + days * DAY;
        let mut ask = desk.ask(key.unwrap_or(&desk.key), now);
        spoil(&desk, &mut ask);
        assert_eq!(desk.reason(&ask, now), want, "{name}");
    }
}
