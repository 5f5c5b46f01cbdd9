//! Tokens and nodes over time, with the clock handed in.

use super::*;
use std::time::UNIX_EPOCH;

const A: [u8; 32] = [1; 32];
const B: [u8; 32] = [2; 32];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

/// A certificate over this key that was made when the node joined.
fn shown(spki: [u8; 32]) -> Presented {
    Presented { spki, made: at(1) }
}

fn ask<'a>(token: &'a Token, node: &'a str, spki: [u8; 32]) -> Joining<'a> {
    Joining {
        token: &token.id,
        secret: &token.secret,
        node,
        spki,
        declared: true,
    }
}

#[test]
fn every_misuse_of_a_token_has_its_answer() {
    let wrong = [9; 32];
    for (name, act, want) in [
        ("as it should be", "join", "ok 1"),
        ("unknown id", "unknown", "TOKEN_UNKNOWN"),
        ("wrong secret", "secret", "TOKEN_UNKNOWN"),
        ("expired", "late", "TOKEN_EXPIRED"),
        ("same key again soon", "repeat", "ok 1"),
        ("same key again late", "repeat late", "TOKEN_USED"),
        ("another key", "other key", "TOKEN_USED"),
        ("another node", "other node", "TOKEN_WRONG_NODE"),
        ("revoked", "revoke", "TOKEN_REVOKED"),
        ("not in the mesh files", "undeclared", "NODE_UNKNOWN"),
        ("joined already", "enrolled", "NODE_ENROLLED"),
        ("joined already, to be replaced", "replace", "ok 2 replaces"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let enrolment = Enrolment::open(dir.path()).unwrap();
        let token = enrolment
            .create("edge-1", DEFAULT_TTL, false, A, at(0))
            .unwrap();
        let again = |spki, when| {
            enrolment.join(&ask(&token, "edge-1", A), at(1)).unwrap();
            enrolment.join(&ask(&token, "edge-1", spki), at(when))
        };
        let second = |replace| {
            enrolment.join(&ask(&token, "edge-1", A), at(1)).unwrap();
            let token = enrolment
                .create("edge-1", DEFAULT_TTL, replace, A, at(2))
                .unwrap();
            enrolment.join(&ask(&token, "edge-1", B), at(3))
        };
        let outcome = match act {
            "unknown" => enrolment.join(
                &Joining {
                    token: "aaaaaaaaaa",
                    ..ask(&token, "edge-1", A)
                },
                at(1),
            ),
            "secret" => enrolment.join(
                &Joining {
                    secret: &wrong,
                    ..ask(&token, "edge-1", A)
                },
                at(1),
            ),
            "late" => enrolment.join(&ask(&token, "edge-1", A), at(3600)),
            "repeat" => again(A, 500),
            "repeat late" => again(A, 700),
            "other key" => again(B, 2),
            "other node" => enrolment.join(&ask(&token, "edge-2", A), at(1)),
            "revoke" => {
                assert!(enrolment.revoke(&token.id).unwrap());
                enrolment.join(&ask(&token, "edge-1", A), at(1))
            }
            "undeclared" => enrolment.join(
                &Joining {
                    declared: false,
                    ..ask(&token, "edge-1", A)
                },
                at(1),
            ),
            "enrolled" => second(false),
            "replace" => second(true),
            _ => enrolment.join(&ask(&token, "edge-1", A), at(1)),
        };
        let got = match &outcome {
            Ok(joined) if joined.replaces => format!("ok {} replaces", joined.generation),
            Ok(joined) => format!("ok {}", joined.generation),
            Err(e) => e.reason().to_owned(),
        };
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn a_spent_token_stays_spent_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = Enrolment::open(dir.path()).unwrap();
    let token = enrolment
        .create("edge-1", DEFAULT_TTL, false, A, at(0))
        .unwrap();
    enrolment.join(&ask(&token, "edge-1", A), at(1)).unwrap();
    let enrolment = Enrolment::open(dir.path()).unwrap();
    let again = enrolment.join(&ask(&token, "edge-1", B), at(2));
    assert!(matches!(again, Err(EnrolError::TokenUsed { .. })));
    assert_eq!(enrolment.nodes().len(), 1);
}

#[test]
fn renewal_tells_a_lost_answer_from_a_clone() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = Enrolment::open(dir.path()).unwrap();
    let token = enrolment
        .create("edge-1", DEFAULT_TTL, false, A, at(0))
        .unwrap();
    enrolment.join(&ask(&token, "edge-1", A), at(1)).unwrap();
    assert!(enrolment.admit("edge-1", A).is_ok());
    assert_eq!(enrolment.renew("edge-1", shown(A), B, at(2)).unwrap(), 2);
    // The answer was lost: the old key asks once more.
    let c = [3; 32];
    assert_eq!(enrolment.renew("edge-1", shown(A), c, at(3)).unwrap(), 3);
    assert!(
        enrolment.admit("edge-1", c).is_ok(),
        "the new key is in use now"
    );
    let clone = enrolment.renew("edge-1", shown(A), [4; 32], at(4));
    assert!(matches!(clone, Err(EnrolError::CloneSuspected { .. })));
    assert!(
        enrolment.admit("edge-1", c).is_err(),
        "frozen until a person has looked"
    );
}

#[test]
fn a_damaged_record_does_not_take_the_others_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = Enrolment::open(dir.path()).unwrap();
    let token = enrolment
        .create("edge-1", DEFAULT_TTL, false, A, at(0))
        .unwrap();
    std::fs::write(dir.path().join("control/tokens/torn"), "{\"id\":").unwrap();
    let enrolment = Enrolment::open(dir.path()).unwrap();
    assert_eq!(enrolment.tokens().len(), 1);
    assert!(enrolment.join(&ask(&token, "edge-1", A), at(1)).is_ok());
}

/// A node that has joined as A with a token that may replace.
fn joined(enrolment: &Enrolment) -> Token {
    let token = enrolment
        .create("edge-1", DEFAULT_TTL, true, A, at(0))
        .unwrap();
    enrolment.join(&ask(&token, "edge-1", A), at(1)).unwrap();
    token
}

#[test]
fn a_spent_token_undoes_nothing_that_came_after_it() {
    let clone = [7; 32];
    type After<'a> = &'a dyn Fn(&Enrolment);
    let revoked = |e: &Enrolment| assert!(e.revoke_node("edge-1").unwrap());
    let replaced = |e: &Enrolment| {
        let token = e.create("edge-1", DEFAULT_TTL, true, A, at(2)).unwrap();
        e.join(&ask(&token, "edge-1", B), at(3)).unwrap();
    };
    let renewed = |e: &Enrolment| {
        e.renew("edge-1", shown(A), B, at(3)).unwrap();
    };
    let frozen = |e: &Enrolment| {
        e.renew("edge-1", shown(clone), B, at(3)).unwrap_err();
    };
    let cases: [(&str, After<'_>, &str); 4] = [
        ("revoked", &revoked, "TOKEN_REVOKED"),
        ("replaced", &replaced, "TOKEN_USED"),
        ("renewed", &renewed, "TOKEN_USED"),
        ("frozen", &frozen, "CLONE_SUSPECTED"),
    ];
    for (name, after, want) in cases {
        let dir = tempfile::tempdir().unwrap();
        let enrolment = Enrolment::open(dir.path()).unwrap();
        let token = joined(&enrolment);
        after(&enrolment);
        let before = enrolment.nodes();
        let again = enrolment.join(&ask(&token, "edge-1", A), at(60));
        assert_eq!(again.unwrap_err().reason(), want, "{name}");
        let now = enrolment.nodes();
        assert_eq!(format!("{now:?}"), format!("{before:?}"), "{name}");
    }
}

#[test]
fn a_join_that_was_cut_off_between_its_two_records_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = Enrolment::open(dir.path()).unwrap();
    let token = joined(&enrolment);
    drop(enrolment);
    std::fs::remove_file(dir.path().join("control/nodes/edge-1")).unwrap();
    let enrolment = Enrolment::open(dir.path()).unwrap();
    let again = enrolment.join(&ask(&token, "edge-1", A), at(60)).unwrap();
    assert_eq!(again.generation, 1);
    assert!(enrolment.admit("edge-1", A).is_ok());
}

#[test]
fn a_machine_that_was_replaced_on_purpose_freezes_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = Enrolment::open(dir.path()).unwrap();
    joined(&enrolment);
    let later = 40 * 86_400;
    let token = enrolment
        .create("edge-1", DEFAULT_TTL, true, A, at(later))
        .unwrap();
    let joined = enrolment.join(&ask(&token, "edge-1", B), at(later));
    assert!(joined.unwrap().replaces);
    let old = enrolment.renew("edge-1", shown(A), [4; 32], at(later + 60));
    assert_eq!(old.unwrap_err().reason(), "SUPERSEDED");
    assert!(enrolment.admit("edge-1", B).is_ok(), "nobody is frozen");
}

#[tokio::test]
async fn a_certificate_that_was_seen_in_use_is_so_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = Arc::new(Enrolment::open(dir.path()).unwrap());
    joined(&enrolment);
    let shutdown = CancellationToken::new();
    let saving = Arc::clone(&enrolment).run(shutdown.clone());
    enrolment.admit("edge-1", A).unwrap();
    enrolment.renew("edge-1", shown(A), B, at(2)).unwrap();
    enrolment.admit("edge-1", B).unwrap();
    shutdown.cancel();
    saving.await;
    let again = Enrolment::open(dir.path()).unwrap();
    let clone = again.renew("edge-1", shown(A), [3; 32], at(3));
    assert_eq!(clone.unwrap_err().reason(), "CLONE_SUSPECTED");
}

#[test]
fn nobody_waits_for_a_decision_on_its_way_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let enrolment = Enrolment::open(dir.path()).unwrap();
    joined(&enrolment);
    let _deciding = enrolment.decide();
    assert!(enrolment.admit("edge-1", A).is_ok());
    assert_eq!(enrolment.nodes().len(), 1);
}
