//! How much the waypoint lets through: row 76, and what `spec/waypoint-l7.md` §9 says of rate limits.

use serde_json::Value;

use super::authorization::{on_echo, to};
use super::case::{Case, try_all, unless};
use super::{Bench, ECHO};
use crate::programs::client::Order;

fn on(target: &str, name: &str, rules: &[&str]) -> String {
    let rules = rules.iter().map(|rule| format!("{{ {rule} }}"));
    let rules: Vec<String> = rules.collect();
    format!(
        "[[rate-limit]]\nname = \"{name}\"\nnamespace = \"shop\"\ntarget-refs = [{target}]\nrules = [{}]\n",
        rules.join(", ")
    )
}

/// A limit on the echo.
fn limit(name: &str, rules: &[&str]) -> String {
    on("{ kind = \"Service\", name = \"echo\" }", name, rules)
}

/// Refused: one that has all to come back in a long time.
const LIMITED: &[&str] = &[
    "429",
    "text local_rate_limited",
    "< server: lateen",
    "< x-ratelimit-remaining: 0",
    "< retry-after",
];

fn keys() -> Vec<Case> {
    vec![
        Case::new(
            "76: rate-limit 5/min by identity",
            limit(
                "by-identity",
                &["requests = 5, per = \"1m\", key = \"identity\""],
            ),
        )
        .ask(
            "/",
            &[
                "echo",
                "< x-ratelimit-limit: 5",
                "< x-ratelimit-remaining: 4",
                "< x-ratelimit-reset: 12",
            ],
        )
        .ask("/", &["echo", "< x-ratelimit-remaining: 3"])
        .ask("h2 /", &["echo", "< x-ratelimit-remaining: 2"])
        .ask("/x", &["echo", "< x-ratelimit-remaining: 1"])
        .ask(
            "POST /",
            &["echo", "< x-ratelimit-remaining: 0", "< !retry-after"],
        )
        .ask("/", LIMITED)
        .ask("other /", &["echo", "< x-ratelimit-remaining: 4"])
        .ask("/", LIMITED),
        Case::new(
            "9: by source address",
            limit(
                "by-address",
                &["requests = 1, per = \"1h\", key = \"source-ip\""],
            ),
        )
        .ask("/ | X-Forwarded-For: 192.0.2.1", &["echo"])
        .ask("/ | X-Forwarded-For: 192.0.2.2", LIMITED)
        .ask("other /", &["echo"]),
        Case::new(
            "9: by a header; absent, it is one for all",
            limit(
                "by-header",
                &["requests = 1, per = \"1h\", key = { header = \"X-User\" }"],
            ),
        )
        .ask("/ | x-user: ann", &["echo"])
        .ask("/ | x-user: ann", LIMITED)
        .ask("/ | x-user: bob", &["echo"])
        .ask("/", &["echo"])
        .ask("other /", LIMITED)
        .ask("/ | x-user;", &["echo"])
        .ask("/ | x-user: ann | x-user: bob", &["echo"]),
        Case::new(
            "9: by nothing, with a burst of its own",
            limit("together", &["requests = 3600, per = \"1h\", burst = 2"]),
        )
        .ask(
            "/",
            &[
                "echo",
                "< x-ratelimit-limit: 2",
                "< x-ratelimit-remaining: 1",
                "< x-ratelimit-reset: 1",
            ],
        )
        .ask(":9000 /", &["echo"])
        .ask("10.96.0.22:80 /", &["v2", "< !x-ratelimit-limit"]),
        Case::new(
            "9: on the whole waypoint, its services count together",
            on(
                "{ kind = \"Gateway\", name = \"wp\" }",
                "gate",
                &["requests = 2, per = \"1h\""],
            ),
        )
        .ask("/", &["echo"])
        .ask("10.96.0.22:80 /", &["v2"])
        .ask("10.96.0.21:80 /", LIMITED),
    ]
}

fn several() -> Vec<Case> {
    vec![
        Case::new(
            "9: of several rules the strictest answers",
            limit(
                "two",
                &[
                    "requests = 3, per = \"1h\"",
                    "requests = 1, per = \"1h\", match = [{ path = { value = \"/once\" }, method = \"GET\" }, { headers = [{ name = \"x-once\", value = \"yes\" }] }]",
                ],
            ) + &limit("wide", &["requests = 9, per = \"1h\""]),
        )
        .ask("/", &["echo", "< x-ratelimit-limit: 3", "< x-ratelimit-remaining: 2"])
        .ask("/once/a", &["echo", "< x-ratelimit-limit: 1", "< x-ratelimit-remaining: 0"])
        // Refused by one, it is counted by none.
        .ask("/once", LIMITED)
        .ask("/once", &["429", "< x-ratelimit-limit: 1"])
        .ask("/ | x-once: yes", LIMITED)
        .ask("POST /once", &["echo", "< x-ratelimit-limit: 3", "< x-ratelimit-remaining: 0"])
        .ask("/", &["429", "< x-ratelimit-limit: 3"]),
        Case::new(
            "1.7: what policy denies is not counted",
            limit("after", &["requests = 2, per = \"1h\""]) + &on_echo("d", "DENY", &to("paths = [\"/no\"]")),
        )
        .ask("/no", &["403", "< !x-ratelimit-limit"])
        .ask("/no", &["403"])
        .ask("/", &["echo", "< x-ratelimit-remaining: 1"]),
        Case::new("1.9: gRPC is told in its own terms", limit("grpc", &["requests = 1, per = \"1h\""]))
            .also(|bench| called(bench, "0"))
            .also(|bench| called(bench, "14")),
        Case::new("one request in many at once", limit("many", &["requests = 20, per = \"1h\""])).also(|bench| {
            let tally = bench.many(ECHO, 200, &[]);
            let refused = tally.get("429 local_rate_limited").copied();
            let passed: usize = tally.iter().filter(|(who, _)| who.starts_with("200 echo-")).map(|(_, n)| n).sum();
            unless((passed, refused) == (20, Some(180)), || format!("{tally:?}"))
        })
        .also(told_of),
        Case::new(
            "connections are not counted",
            limit("tcp", &["requests = 1, per = \"1h\""]),
        )
        .also(|bench| {
            let told: Value = bench.order(&Order::Banner { to: "10.96.0.20:90".to_owned(), count: 3 });
            let by = told["by"].as_object().cloned().unwrap_or_default();
            unless(by.keys().all(|name| name.starts_with("echo-")), || told.to_string())
        }),
    ]
}

/// Complains unless a call has this status.
fn called(bench: &Bench, status: &str) -> Vec<String> {
    let told: Value = bench.order(&Order::Call {
        to: "10.96.0.20:81".to_owned(),
        path: "/S/M".to_owned(),
        headers: Vec::new(),
        messages: 1,
    });
    let fine = told["status"] == 200 && told["grpc-status"] == status;
    unless(fine, || format!("not {status}: {told}"))
}

/// Complains unless a refusal is in the log and in the metrics.
fn told_of(bench: &Bench) -> Vec<String> {
    let before = bench.logged_by("gate-1");
    let answer = bench.ask("/");
    let mut complaints = unless(answer.is("429"), || format!("{answer:?}"));
    let lines = bench.logs_since(
        "gate-1",
        before,
        "limit=\"rate-limit shop/many (mesh.toml:",
        1,
    );
    complaints.extend(unless(lines > 0, || "no line tells the limit".to_owned()));
    let flagged = bench.logs_since("gate-1", before, "response_flags=\"RL\"", 1);
    complaints.extend(unless(flagged > 0, || "no line has the flag".to_owned()));
    let metrics = bench.metrics("gate-1");
    for part in [
        "lateen_requests_limited_total{rate_limit=\"shop/many\"} 181",
        "response_flags=\"RL\"",
    ] {
        complaints.extend(unless(metrics.contains(part), || {
            format!("{part} is not among the metrics")
        }));
    }
    complaints
}

/// One after the other, as each is another revision.
fn revisions() -> Vec<Case> {
    const RULE: &str = "requests = 3, per = \"1h\", match = [{ path = { value = \"/kept\" } }]";
    const OTHER: &str = "requests = 5, per = \"1h\", match = [{ path = { value = \"/kept\" } }]";
    vec![
        Case::new("a limit", limit("kept", &[RULE]))
            .ask("/kept", &["echo", "< x-ratelimit-remaining: 2"]),
        Case::new(
            "the same beside other things",
            on_echo("d", "DENY", &to("paths = [\"/no\"]")) + &limit("kept", &[RULE]),
        )
        .ask("/kept", &["echo", "< x-ratelimit-remaining: 1"]),
        Case::new(
            "the same beside another rule",
            limit("kept", &["requests = 9, per = \"1h\"", RULE]),
        )
        .ask("/kept", &["echo", "< x-ratelimit-remaining: 0"])
        .ask("/kept", LIMITED),
        Case::new("another", limit("kept", &[OTHER]))
            .ask("/kept", &["echo", "< x-ratelimit-remaining: 4"]),
    ]
}

#[test]
fn no_more_is_let_through_than_limits_say() {
    let cases = [keys(), several(), revisions()];
    try_all(&cases.into_iter().flatten().collect::<Vec<_>>());
}
