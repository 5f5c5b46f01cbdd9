//! Which of several backends gets how much, and what becomes of a share that nobody can serve: rows
//! 18 to 20 and 27.

use std::time::{Duration, Instant};

use super::case::{Case, try_all, unless};
use super::written::{named, route};
use super::{Bench, ECHO, fresh};
use crate::programs::client::{Many, Order, Tally};
use crate::programs::echo::digest;

const BODY: &str = "the whole of a body";

/// Whether each outcome has its share, in percent, give or take `slack`, and no other has any.
pub(super) fn shared(tally: &Tally, shares: &[(&str, f64)], slack: f64) -> Vec<String> {
    let total: usize = tally.values().sum();
    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    let percent = |count: usize| 100.0 * count as f64 / total as f64;
    let near = |(outcome, share): &(&str, f64)| {
        let count = tally.get(*outcome).copied().unwrap_or_default();
        (percent(count) - share).abs() <= slack
    };
    let known = |outcome: &String| shares.iter().any(|(name, _)| name == outcome);
    unless(shares.iter().all(near) && tally.keys().all(known), || {
        format!("not {shares:?} but {tally:?}")
    })
}

fn weights() -> Vec<Case> {
    let kind = "-> ; backend-refs = [{ kind = \"NonExistent\", name = \"v1\", port = 80 }]";
    vec![
        Case::new(
            "18, HTTPRouteWeight: v1:70 v2:30 v3:0",
            route(&["-> v1:70 v2:30 v3:0"]),
        )
        .also(|bench| {
            let tally = bench.many(ECHO, 10_000, &[]);
            shared(&tally, &[("200 v1", 70.0), ("200 v2", 30.0)], 2.0)
        }),
        Case::new("19: only weight-0 backends", route(&["-> v1:0 v2:0"]))
            .ask("/", &["500", "empty"]),
        Case::new(
            "19, HTTPRouteNoBackendRefs: no backend-refs",
            route(&["P/ ->"]),
        )
        .ask("/", &["500", "empty"]),
        Case::new(
            "19, HTTPRouteInvalidNonExistentBackendRef: missing service",
            route(&["-> missing"]),
        )
        .ask("/", &["500", "empty"]),
        Case::new(
            "19, HTTPRouteInvalidBackendRefUnknownKind: kind `NonExistent`",
            route(&[kind]),
        )
        .ask("/", &["500", "empty"]),
        Case::new("20: v1:1, missing:1", route(&["-> v1:1 missing:1"])).also(|bench| {
            let tally = bench.many(ECHO, 1000, &[]);
            shared(&tally, &[("200 v1", 50.0), ("500 ", 50.0)], 6.0)
        }),
        Case::new(
            "20: v1:1, service without endpoints:1",
            route(&["-> v1:1 empty:1"]),
        )
        .also(|bench| {
            let tally = bench.many(ECHO, 1000, &[]);
            shared(
                &tally,
                &[("200 v1", 50.0), ("503 no healthy upstream", 50.0)],
                6.0,
            )
        }),
        Case::new(
            "MeshHTTPRouteWeight: nginx and v1",
            route(&["-> plain:50 v1:50"]),
        )
        .also(|bench| {
            let tally = bench.many(ECHO, 500, &[]);
            shared(&tally, &[("200 nginx", 50.0), ("200 v1", 50.0)], 9.0)
        }),
        Case::new(
            "HTTPRouteServiceTypes: of other kinds",
            route(&["P/plain -> plain", "P/headless -> headless@8080"]),
        )
        .ask("/plain", &["nginx"])
        .ask("/headless", &["v3"]),
    ]
}

fn mirror(backends: &[&str]) -> String {
    let filters: Vec<String> = backends
        .iter()
        .map(|backend| {
            let (name, more) = backend.split_once(' ').unwrap_or((backend, ""));
            format!(
                "{{ type = \"RequestMirror\", request-mirror = {{ backend-ref = {{ name = \"{name}\", port = 80 }} {more} }} }}"
            )
        })
        .collect();
    route(&[&format!("-> v1 ; filters = [{}]", filters.join(", "))])
}

/// Posts a body with a key so often.
fn post(bench: &Bench, count: usize, key: &str, more: &[(&str, &str)]) -> Tally {
    let headers = [&[("x-echo-key", key)], more].concat();
    bench.order(&Order::Many(Many {
        to: ECHO.to_owned(),
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        body: BODY.to_owned(),
        count,
        connections: 4,
    }))
}

/// How many copies a server has received, once it is so many and no more come.
fn settled(bench: &Bench, server: &str, key: &str, least: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut before = 0;
    loop {
        let copies = bench.received(server, key).len();
        if Instant::now() > deadline || (copies >= least && copies == before) {
            return copies;
        }
        before = copies;
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn mirrors() -> Vec<Case> {
    let only_v1 = |tally: &Tally, count: usize| {
        unless(tally.get("200 v1") == Some(&count), || format!("{tally:?}"))
    };
    vec![
        Case::new(
            "27, HTTPRouteRequestMirror, RequestMultipleMirrors: mirror v2 and v3",
            mirror(&["v2", "v3"]),
        )
        .also(move |bench| {
            let key = fresh("mirrored");
            let mut complaints = only_v1(&post(bench, 20, &key, &[]), 20);
            for server in ["v2", "v3"] {
                match bench.receives(server, &key, 20) {
                    Err(complaint) => complaints.push(complaint),
                    Ok(copies) => {
                        let whole = |copy: &serde_json::Value| {
                            copy["digest"] == digest(BODY.as_bytes())
                                && copy["host"] == "echo"
                                && copy["method"] == "POST"
                        };
                        let broken = copies.iter().filter(|copy| !whole(copy));
                        complaints.extend(broken.map(|copy| format!("{server}: {copy}")));
                    }
                }
            }
            complaints
        }),
        Case::new(
            "27, HTTPRouteRequestPercentageMirror: mirror 20 %",
            mirror(&["v2 , percent = 20"]),
        )
        .also(move |bench| {
            let key = fresh("share");
            let mut complaints = only_v1(&post(bench, 2000, &key, &[]), 2000);
            let copies = settled(bench, "v2", &key, 340);
            complaints.extend(unless((340..=460).contains(&copies), || {
                format!("{copies} copies of 2000")
            }));
            complaints
        }),
        Case::new("27: mirror to a hanging", mirror(&["v2"])).also(move |bench| {
            let begun = Instant::now();
            let hangs = [("x-echo-only", "v2"), ("x-echo-sleep", "30000")];
            let key = fresh("hangs");
            let mut complaints = only_v1(&post(bench, 1, &key, &hangs), 1);
            let took = begun.elapsed();
            complaints.extend(unless(took.as_millis() < 1000, || format!("took {took:?}")));
            complaints.extend(bench.receives("v2", &key, 1).err());
            complaints
        }),
        Case::new("27: mirror to a missing service", mirror(&["missing"]))
            .also(move |bench| only_v1(&post(bench, 1, &fresh("missing"), &[]), 1)),
        Case::new(
            "HTTPRouteSimpleSameNamespace: all to one",
            named(
                "http-route",
                "simple",
                "parent-refs = [{ name = \"echo\" }]",
                &["-> v3"],
            ),
        )
        .ask("/", &["v3"]),
    ]
}

#[test]
fn backends_get_their_shares() {
    let mut cases = weights();
    cases.extend(mirrors());
    try_all(&cases);
}
