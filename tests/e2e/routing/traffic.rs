//! Which endpoint a request gets, and which gets none: rows 40 to 44.

use super::case::{Case, try_all, unless};
use super::shares::shared;
use super::{Bench, fresh, listens};
use crate::programs::Program;
use crate::programs::client::{Many, Order, Tally};
use crate::programs::echo::Echo;
use crate::support::{Session, eventually};

const TRIO: &str = "10.96.0.32:80";
const ZONED: &str = "10.96.0.34:86";

fn rule(host: &str, policy: &str) -> String {
    format!(
        "[[destination-rule]]\nname = \"d\"\nnamespace = \"shop\"\nhost = \"{host}\"\ntraffic-policy = {{ {policy} }}\n"
    )
}

fn hashes() -> Vec<Case> {
    let hash = |key: &str| {
        rule(
            "trio",
            &format!("load-balancer = {{ consistent-hash = {{ {key} }} }}"),
        )
    };
    vec![
        Case::new(
            "40: hash on header x-user; 3 endpoints",
            hash("http-header-name = \"x-user\""),
        )
        .also(|bench| {
            let tally = bench.many(TRIO, 100, &[("x-user", "ann")]);
            unless(
                tally.len() == 1 && tally.values().all(|n| *n == 100),
                || format!("one user: {tally:?}"),
            )
        })
        .also(|bench| {
            let tally = bench.many(TRIO, 100, &[]);
            let third = 100.0 / 3.0;
            shared(
                &tally,
                &[("200 v1", third), ("200 v2", third), ("200 v3", third)],
                20.0,
            )
        }),
        Case::new(
            "41: hash on cookie ttl 60s",
            hash("http-cookie = { name = \"user\", ttl = \"60s\" }"),
        )
        .also(|bench| {
            let mut complaints = Vec::new();
            for _ in 0..4 {
                let first = bench.ask(&format!("{TRIO} /"));
                let cookie = first.header("set-cookie").unwrap_or_default();
                let dated = cookie.to_ascii_lowercase().contains("max-age=60");
                complaints.extend(unless(dated, || format!("{first:?}")));
                let pair = cookie.split(';').next().unwrap_or_default();
                let tally = bench.many(TRIO, 20, &[("cookie", pair)]);
                let same = tally.get(&format!("200 {}", first.name())) == Some(&20);
                complaints.extend(unless(same, || {
                    format!("{pair} of {}: {tally:?}", first.name())
                }));
            }
            complaints
        }),
    ]
}

/// One after the other.
fn in_sequence(bench: &Bench, to: &str, count: usize, headers: &[(&str, &str)]) -> Tally {
    let headers = headers.iter();
    bench.order(&Order::Many(Many {
        to: to.to_owned(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        headers: headers
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        body: String::new(),
        count,
        connections: 1,
    }))
}

fn limits() -> Vec<Case> {
    vec![
        Case::new(
            "42: max-connections 1, http1-max-pending-requests 1",
            rule(
                "v1",
                "connection-pool = { tcp = { max-connections = 1 }, http = { http1-max-pending-requests = 1 } }",
            ),
        )
        .also(|bench| {
            let before = bench.logged_by("gate-1");
            let headers = [("x-echo-sleep".to_owned(), "1000".to_owned())];
            let tally: Tally = bench.order(&Order::Many(Many {
                to: "10.96.0.21:80".to_owned(),
                method: "GET".to_owned(),
                path: "/".to_owned(),
                headers: headers.into(),
                body: String::new(),
                count: 10,
                connections: 10,
            }));
            let overflow = "503 upstream connect error or disconnect/reset before headers. reset reason: overflow";
            let fine = tally.get("200 v1") == Some(&2) && tally.get(overflow) == Some(&8);
            let mut complaints = unless(fine, || format!("{tally:?}"));
            let flagged = bench.logs_since("gate-1", before, "response_flags=\"UO", 8);
            complaints.extend(unless(flagged == 8, || format!("{flagged} lines with UO")));
            complaints
        }),
        Case::new(
            "43: consecutive-5xx-errors 5, one of two endpoints answers 500",
            rule("pair", "outlier-detection = { consecutive-5xx-errors = 5 }"),
        )
        .also(|bench| {
            let key = fresh("outlier");
            let bad = [("x-echo-only", "echo-2"), ("x-echo-status", "500"), ("x-echo-key", &key)];
            let tally = in_sequence(bench, "10.96.0.36:80", 100, &bad);
            let fine = tally.get("500 echo-2") == Some(&5) && tally.get("200 echo-1") == Some(&95);
            let mut complaints = unless(fine, || format!("{tally:?}"));
            let again = in_sequence(bench, "10.96.0.36:80", 100, &bad);
            complaints.extend(unless(again.get("200 echo-1") == Some(&100), || {
                format!("afterwards {again:?}")
            }));
            complaints
        }),
    ]
}

/// A server that a case can end.
fn zone(bench: &Bench, host: &str, namespace: &str, name: &str) -> Session {
    let echo = Echo {
        name: name.to_owned(),
        http: vec![8086],
        banner: Vec::new(),
        tls: Vec::new(),
        log: Vec::new(),
    };
    let command = Program::Echo(echo).command();
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let session = bench.turn.session(host, Some(namespace), &command);
    listens(&bench.turn, host, Some(namespace), 8086);
    session
}

fn zones() -> Vec<Case> {
    vec![
        Case::new(
            "44: two zones, outlier-detection",
            rule("zoned", "outlier-detection = {}"),
        )
        .also(|bench| {
            let near = zone(bench, "server-1", "v1", "near");
            let _far = zone(bench, "server-2", "far", "distant");
            let before = in_sequence(bench, ZONED, 40, &[]);
            let mut complaints = unless(before.get("200 near") == Some(&40), || {
                format!("before: {before:?}")
            });
            drop(near);
            eventually("the other zone serves", || {
                let after = in_sequence(bench, ZONED, 20, &[]);
                match after.get("200 distant") {
                    Some(20) => Ok(()),
                    _ => Err(after),
                }
            });
            let after = in_sequence(bench, ZONED, 40, &[]);
            complaints.extend(unless(after.get("200 distant") == Some(&40), || {
                format!("after: {after:?}")
            }));
            complaints
        }),
        Case::new("44: two zones, without it", "").also(|bench| {
            let near = zone(bench, "server-1", "v1", "near");
            let _far = zone(bench, "server-2", "far", "distant");
            let before = in_sequence(bench, ZONED, 40, &[]);
            let both = before.contains_key("200 near") && before.contains_key("200 distant");
            let mut complaints =
                unless(both && before.len() == 2, || format!("before: {before:?}"));
            drop(near);
            let after = in_sequence(bench, ZONED, 40, &[]);
            complaints.extend(unless(after.get("200 distant") == Some(&40), || {
                format!("after: {after:?}")
            }));
            complaints
        }),
    ]
}

#[test]
fn endpoints_are_treated_as_destination_rules_say() {
    let mut cases = hashes();
    cases.extend(limits());
    cases.extend(zones());
    try_all(&cases);
}
