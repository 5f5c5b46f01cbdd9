//! How long requests may take, and when they are asked again: rows 30 to 32.

use super::case::{Case, try_all, unless};
use super::written::route;
use super::{Bench, fresh};
use crate::programs::client::Order;

/// Asks with a key of its own; complains unless the facts hold.
fn keyed(bench: &Bench, asked: &str, facts: &[&str]) -> Vec<String> {
    let asked = format!("{asked} | x-echo-key: {}", fresh("attempts"));
    let answer = bench.ask(&asked);
    let wrong: Vec<&&str> = facts.iter().filter(|fact| !answer.is(fact)).collect();
    unless(wrong.is_empty(), || {
        format!("{asked:?}: not {wrong:?} but {answer:?}")
    })
}

fn timeouts() -> Vec<Case> {
    vec![
        Case::new(
            "30, HTTPRouteTimeoutRequest: request 500ms",
            route(&["-> v1 ; timeouts = { request = \"500ms\" }"]),
        )
        .ask(
            "/ | x-echo-sleep: 1000",
            &[
                "504",
                "text upstream request timeout",
                "over 450",
                "under 950",
            ],
        )
        .ask("/", &["v1"]),
        Case::new(
            "30: request 0s",
            route(&["-> v1 ; timeouts = { request = \"0s\" }"]),
        )
        .ask("/ | x-echo-sleep: 1000", &["v1", "over 1000"]),
        Case::new(
            "30, HTTPRouteRetryWithTimeouts: backend-request 500ms + attempts 2",
            route(&[
                "-> v1 ; timeouts = { backend-request = \"500ms\" }, retry = { attempts = 2 }",
            ]),
        )
        .also(|bench| {
            keyed(
                bench,
                "/ | x-echo-sleep: 1000 | x-echo-times: 1",
                &["v1", "over 450"],
            )
        }),
        Case::new(
            "HTTPRouteTimeoutBackendRequest: backend-request 500ms",
            route(&["-> v1 ; timeouts = { backend-request = \"500ms\" }"]),
        )
        .ask(
            "/ | x-echo-sleep: 1000",
            &["504", "text upstream request timeout"],
        )
        .ask("/", &["v1"]),
    ]
}

fn retries() -> Vec<Case> {
    vec![
        Case::new(
            "31, HTTPRouteRetry: retry codes [500] attempts 3",
            route(&["-> v1 ; retry = { codes = [500], attempts = 3 }"]),
        )
        .also(|bench| keyed(bench, "/ | x-echo-status: 500 | x-echo-times: 2", &["v1"]))
        .also(|bench| keyed(bench, "/ | x-echo-status: 500 | x-echo-times: 4", &["500"]))
        .also(|bench| keyed(bench, "/ | x-echo-status: 503 | x-echo-times: 1", &["503"]))
        .also(|bench| {
            let key = fresh("attempts");
            let asked = format!("/ | x-echo-status: 500 | x-echo-times: 9 | x-echo-key: {key}");
            let status = bench.ask(&asked).status;
            let attempts = bench.received("v1", &key).len();
            unless(status == 500 && attempts == 4, || {
                format!("{status} after {attempts}")
            })
        }),
        Case::new(
            "32, HTTPRouteRetryConnectionError: no retry configured",
            route(&["P/half -> half", "-> v1"]),
        )
        .also(|bench| {
            let tally = bench.many("10.96.0.31:80", 200, &[]);
            unless(tally.get("200 v1") == Some(&200), || format!("{tally:?}"))
        })
        .ask("/half", &["v1"])
        .ask("/half", &["v1"])
        .ask("/half", &["v1"])
        .also(|bench| keyed(bench, "/ | x-echo-status: 503 | x-echo-times: 1", &["503"]))
        .also(|bench| {
            let key = fresh("unavailable");
            let headers = [
                ("x-echo-grpc-status", "14"),
                ("x-echo-times", "1"),
                ("x-echo-key", &key),
            ];
            let headers = headers.map(|(n, v)| (n.to_owned(), v.to_owned()));
            let told: serde_json::Value = bench.order(&Order::Call {
                to: "10.96.0.21:81".to_owned(),
                path: "/S/M".to_owned(),
                headers: headers.into(),
                messages: 1,
            });
            let attempts = bench.received("v1", &key).len();
            let fine = told["grpc-status"] == "0" && attempts == 2;
            unless(fine, || format!("after {attempts} attempts {told}"))
        }),
        Case::new(
            "32: the same with retries.attempts 0, one endpoint refuses",
            route(&["-> half ; retry = { attempts = 0 }"]),
        )
        .also(|bench| {
            let tally = bench.many(super::ECHO, 60, &[]);
            let failed = tally
                .iter()
                .filter(|(outcome, _)| outcome.starts_with("503 "));
            let failed: usize = failed.map(|(_, count)| count).sum();
            let well = tally.get("200 v1").copied().unwrap_or_default();
            unless(failed > 0 && well > 0 && failed + well == 60, || {
                format!("{tally:?}")
            })
        }),
    ]
}

#[test]
fn requests_end_in_time_and_are_asked_again_where_that_helps() {
    let mut cases = timeouts();
    cases.extend(retries());
    try_all(&cases);
}
