//! Certificates, roots and nodes are replaced and taken back while traffic flows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{LATEEN, Session, Testbed, eventually, testbed, text, within};

/// Sends a line through a connection that stays open, for each line it is told.
const HOLD: &str = "
import socket, sys
s = socket.create_connection(('10.96.0.11', 7000))
f = s.makefile('rwb', buffering=0)
print('open', flush=True)
for line in sys.stdin:
    try:
        f.write(line.encode())
        print(f.readline().decode().strip() or 'ended', flush=True)
    except OSError as e:
        print('ended', flush=True)
";

fn ca(testbed: &Testbed, arguments: &[&str]) -> (Option<i32>, String) {
    let words = [&["ca"], arguments].concat();
    let output = testbed.lateen("control", &words);
    (
        output.status.code(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

/// What `lateen certificates` says of an identity on a host, as JSON.
fn certificate(testbed: &Testbed, host: &str, account: &str) -> Option<serde_json::Value> {
    let output = testbed.lateen(host, &["certificates", "-o", "json"]);
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).ok()?;
    let wanted = format!("/sa/{account}");
    let named =
        |l: &serde_json::Value| l["identity"].as_str().is_some_and(|i| i.ends_with(&wanted));
    lines.into_iter().find(named)
}

fn serial(testbed: &Testbed, host: &str, account: &str) -> Option<String> {
    let line = certificate(testbed, host, account)?;
    line["serial"].as_str().map(str::to_owned)
}

/// Asks for as long as `work` takes, and tells how many answers were good and which were not.
fn while_asking(testbed: &Testbed, work: impl FnOnce()) -> (usize, Vec<String>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut good, mut bad) = (0, Vec::new());
            while !done.load(Ordering::Relaxed) {
                for answer in testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 50) {
                    match answer.contains("server") {
                        true => good += 1,
                        false => bad.push(answer),
                    }
                }
            }
            (good, bad)
        });
        let stop = Stop(&done);
        work();
        drop(stop);
        asking.join().unwrap()
    })
}

/// Says stop however it ends: work that fails must not leave the asking to go on for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn rotated(testbed: &Testbed, want: &str) {
    eventually("the next step is taken", || {
        let (code, said) = ca(testbed, &["rotate", "--root"]);
        match code == Some(0) && said.contains(want) {
            true => Ok(()),
            false => Err(said),
        }
    });
}

#[test]
fn the_root_and_the_intermediate_are_replaced_under_traffic() {
    let testbed = testbed();
    let (_, before) = ca(&testbed, &["show", "-o", "json"]);
    let old = serial(&testbed, "edge-1", "web").unwrap();
    let (good, bad) = while_asking(&testbed, || {
        let (code, said) = ca(&testbed, &["rotate"]);
        assert_eq!(code, Some(0), "{said}");
        rotated(&testbed, "a new root is believed");
        rotated(&testbed, "the new root signs");
        let (code, said) = ca(&testbed, &["rotate", "--root"]);
        assert!(
            code == Some(1) && said.contains("would cut off") && said.contains("edge-"),
            "too early: {said}"
        );
        rotated(&testbed, "the old root is believed no more");
    });
    assert!(bad.is_empty() && good >= 50, "{good} good, and {bad:?}");
    let (_, after) = ca(&testbed, &["show", "-o", "json"]);
    let key = |text: &str| {
        let ca: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(ca["roots"].as_array().unwrap().len(), 1, "{text}");
        ca["roots"][0]["spki-sha256"].as_str().unwrap().to_owned()
    };
    assert_ne!(key(&before), key(&after));
    let new = certificate(&testbed, "edge-1", "web").unwrap();
    assert_ne!(new["serial"].as_str(), Some(old.as_str()));
}

/// A connection that stays. What another case took back may end one that was just opened.
fn holding(testbed: &Testbed) -> Session {
    let mut held = None;
    eventually("a connection that stays", || {
        let mut session = testbed.session("edge-1", Some("web"), &["python3", "-c", HOLD]);
        let opened = session.line();
        session.say("before");
        let said = session.line();
        match (opened.as_str(), said.as_str()) {
            ("open", "before") => {
                held = Some(session);
                Ok(())
            }
            _ => Err((opened, said)),
        }
    });
    held.unwrap()
}

#[test]
fn a_revoked_certificate_ends_its_tunnels_and_is_replaced() {
    let testbed = testbed();
    let revoked = serial(&testbed, "edge-1", "web").unwrap();
    let mut held = holding(&testbed);
    let (code, said) = ca(&testbed, &["revoke", &revoked]);
    assert!(code == Some(0) && said.contains("edge-1"), "{said}");
    let begun = Instant::now();
    loop {
        held.say("after");
        if held.line() == "ended" {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "still open");
    }
    testbed.logged("edge-2", &["has been revoked, its tunnels are cut"]);
    // The control plane ends the node's stream; after others that were short the node waits up to 15 s
    // before it asks again, and its next request for a certificate for as long.
    within(
        Duration::from_secs(60),
        "another certificate",
        || match serial(&testbed, "edge-1", "web") {
            Some(now) if now != revoked => Ok(()),
            other => Err(other),
        },
    );
    let answers = testbed.ask("edge-1", Some("web"), "10.96.0.10:80", 4);
    assert!(answers.iter().all(|a| a.contains("server")), "{answers:?}");
    let (code, said) = ca(&testbed, &["revoke", "0123"]);
    assert!(
        code == Some(1) && said.contains("was issued here"),
        "{said}"
    );
}

#[test]
fn a_revoked_node_is_nobody_until_it_joins_anew() {
    let mut testbed = testbed();
    let mut held = testbed.session("edge-1", Some("web"), &["python3", "-c", HOLD]);
    assert_eq!(held.line(), "open");
    let said = testbed.lateen("control", &["node", "revoke", "edge-2"]);
    assert!(said.status.success(), "{said:?}");
    let begun = Instant::now();
    loop {
        held.say("still there?");
        if held.line() == "ended" {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "still open");
    }
    let listed = testbed.lateen("control", &["node", "list"]);
    let listed = text(&listed.stdout);
    assert!(
        listed
            .lines()
            .any(|l| l.contains("edge-2") && l.contains("revoked")),
        "{listed}"
    );
    eventually("its node says why it is alone", || {
        let node = testbed.status("edge-2").and_then(|s| s.node);
        let reason = node.and_then(|n| n.control_error);
        match reason {
            Some(reason) if reason.to_lowercase().contains("revoked") => Ok(()),
            other => Err(other),
        }
    });
    testbed.kill("edge-2");
    let token = testbed.token("edge-2");
    let joined = testbed.join("edge-2", &token, &[]);
    assert!(joined.status.success(), "{joined:?}");
    testbed.daemon("edge-2");
    testbed.settled();
    eventually("it is served again", || {
        let words = [
            LATEEN,
            "sample",
            "http-client",
            "10.96.0.10:80",
            "--every",
            "1",
            "--count",
            "8",
        ];
        let output = testbed.exec("edge-1", Some("web"), &words);
        let answers = text(&output.stdout);
        match answers.contains("cart-2") && !answers.contains("error") {
            true => Ok(()),
            false => Err(answers),
        }
    });
}
