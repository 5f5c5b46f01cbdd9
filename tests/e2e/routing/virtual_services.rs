//! Virtual services: rows 38 and 39, and what else they say that routes cannot.

use super::case::{Case, try_all, unless};
use super::shares::shared;
use super::{Bench, ECHO, fresh};

/// A virtual service of `shop` for the echo.
fn service(http: &[&str]) -> String {
    named("r", "hosts = [\"echo\"]", http)
}

fn named(name: &str, hosts: &str, http: &[&str]) -> String {
    format!(
        "[[virtual-service]]\nname = \"{name}\"\nnamespace = \"shop\"\n{hosts}\nhttp = [\n{}\n]\n",
        http.join(",\n")
    )
}

/// Two subsets of the trio.
const SUBSETS: &str = "[[destination-rule]]\nname = \"d\"\nnamespace = \"shop\"\nhost = \"trio\"\nsubsets = [{ name = \"one\", labels = { app = \"v1\" } }, { name = \"three\", labels = { app = \"v3\" } }]\n";

/// A rule for what begins so, to one of the servers.
fn prefix(path: &str, to: &str) -> String {
    format!(
        "{{ match = [{{ uri = {{ prefix = \"{path}\" }} }}], {} }}",
        all(to)
    )
}

fn all(to: &str) -> String {
    format!("route = [{{ destination = {{ host = \"{to}\" }} }}]")
}

/// How often the servers of the echo have received a key.
fn received(bench: &Bench, key: &str) -> usize {
    let servers = ["echo-1", "echo-2", "v1"];
    servers
        .map(|server| bench.received(server, key).len())
        .iter()
        .sum()
}

fn faults() -> Vec<Case> {
    let broken = "fault = { delay = { fixed-delay = \"200ms\", percentage = { value = 100 } }, abort = { http-status = 418, percentage = { value = 100 } } }";
    let nobody = "fault = { delay = { fixed-delay = \"3s\" }, abort = { http-status = 418 } }";
    let some = "fault = { abort = { http-status = 503, percentage = { value = 33.5 } } }";
    let grpc =
        "fault = { abort = { grpc-status = \"UNAVAILABLE\", percentage = { value = 100 } } }";
    let with = |fault: &str| service(&[&format!("{{ {fault}, {} }}", all("echo"))]);
    vec![
        Case::new("38: delay 200 ms 100 %, abort 418 100 %", with(broken))
            .ask(
                "/",
                &["418", "text fault filter abort", "over 200", "under 1000"],
            )
            .also(|bench| {
                let key = fresh("aborted");
                let answer = bench.ask(&format!("/ | x-echo-key: {key}"));
                let touched = received(bench, &key);
                unless(answer.status == 418 && touched == 0, || {
                    format!("{touched} received {answer:?}")
                })
            }),
        Case::new("38: abort without percentage", with(nobody)).ask("/", &["echo", "under 1000"]),
        Case::new("a share of the requests is aborted", with(some)).also(|bench| {
            let tally = bench.many(ECHO, 2000, &[]);
            let well = |server: &str| tally.get(server).copied().unwrap_or_default();
            let failed = tally
                .get("503 fault filter abort")
                .copied()
                .unwrap_or_default();
            let all = failed + well("200 echo-1") + well("200 echo-2");
            let near = (570..=770).contains(&failed);
            unless(near && all == 2000, || format!("{tally:?}"))
        }),
        Case::new("gRPC is aborted in its own words", with(grpc)).ask(
            "POST / | content-type: application/grpc",
            &["200", "< grpc-status: 14"],
        ),
    ]
}

fn matching() -> Vec<Case> {
    let labelled = format!(
        "{{ match = [{{ source-labels = {{ app = \"web\" }} }}, {{ source-namespace = \"other\" }}], {} }}",
        all("v1")
    );
    let present = format!(
        "{{ match = [{{ headers = {{ x-a = {{}} }}, without-headers = {{ x-b = {{}} }}, ignore-uri-case = true, uri = {{ exact = \"/ABC\" }} }}], {} }}",
        all("v1")
    );
    let port = "{ match = [{ port = 9000 }], route = [{ destination = { host = \"v1\", port = { number = 80 } } }] }";
    vec![
        Case::new(
            "39: prefix `/abc` to v1, then to v2",
            service(&[&prefix("/abc", "v1"), &format!("{{ {} }}", all("v2"))]),
        )
        .ask("/abcd", &["v1"])
        .ask("/x", &["v2"]),
        Case::new(
            "39: only prefix `/abc` to v1",
            service(&[&prefix("/abc", "v1")]),
        )
        .ask("/x", &["404"])
        .ask(":9000 /x", &["404"]),
        Case::new(
            "who asks is known by namespace, not by labels",
            service(&[&labelled, &format!("{{ {} }}", all("v2"))]),
        )
        .ask("/", &["v2"])
        .ask("other /", &["v1"]),
        Case::new(
            "fields that are there or not, and any case",
            service(&[&present, port, &format!("{{ {} }}", all("v2"))]),
        )
        .ask("/aBc | x-a: ", &["v2"])
        .ask("/aBc | x-a: 1", &["v1"])
        .ask("/aBc | x-a: 1 | x-b: 1", &["v2"])
        .ask(":9000 /", &["v1"]),
    ]
}

fn outcomes() -> Vec<Case> {
    let answers = "{ match = [{ uri = { exact = \"/well\" } }], direct-response = { status = 299, body = { string = \"well\" } } }";
    let redirects = "{ match = [{ uri = { prefix = \"/old\" } }], redirect = { uri-prefix = \"/new\", authority = \"a.example\" } }";
    let rewrites = format!(
        "{{ match = [{{ uri = {{ prefix = \"/api/\" }} }}], rewrite = {{ uri = \"/\", authority = \"v1.example\" }}, headers = {{ response = {{ set = {{ x-by = \"r\" }} }} }}, {} }}",
        all("v1")
    );
    let subsets = "{ route = [{ destination = { host = \"trio\", subset = \"one\" }, weight = 75 }, { destination = { host = \"trio\", subset = \"three\" }, weight = 25 }] }";
    let cors = |more: &str| {
        format!(
            "{{ cors-policy = {{ allow-origins = [{{ exact = \"https://a.example\" }}] {more} }}, {} }}",
            all("v1")
        )
    };
    vec![
        Case::new(
            "answers, redirects and rewrites",
            service(&[answers, redirects, &rewrites]),
        )
        .ask("/well", &["299", "text well"])
        .ask(
            "/old/x?y=1",
            &["301", "< location: http://a.example/new/x?y=1"],
        )
        .ask(
            "/api/x?y=1",
            &["v1", "> :path /x?y=1", "> :host v1.example", "< x-by: r"],
        ),
        Case::new("subsets have their shares", service(&[subsets]) + SUBSETS).also(|bench| {
            let tally = bench.many(ECHO, 1000, &[]);
            shared(&tally, &[("200 v1", 75.0), ("200 v3", 25.0)], 6.0)
        }),
        Case::new("preflights of others go on", service(&[&cors("")])).ask(
            "OPTIONS / | Origin: https://b.example | Access-Control-Request-Method: PUT",
            &["v1", "< !access-control-allow-origin"],
        ),
        Case::new(
            "or are ignored",
            service(&[&cors(", unmatched-preflights = \"IGNORE\"")]),
        )
        .ask(
            "OPTIONS / | Origin: https://b.example | Access-Control-Request-Method: PUT",
            &["200", "empty"],
        ),
    ]
}

fn retries() -> Vec<Case> {
    let retries = |how: &str| service(&[&format!("{{ retries = {{ {how} }}, {} }}", all("v1"))]);
    let asks = |asked: &'static str, want: u16, attempts: usize| {
        move |bench: &Bench| {
            let key = fresh("retried");
            let answer = bench.ask(&format!("{asked} | x-echo-key: {key}"));
            let had = received(bench, &key);
            unless(answer.status == want && had == attempts, || {
                format!("{asked:?}: {had} attempts, {answer:?}")
            })
        }
    };
    vec![
        Case::new(
            "5xx is asked again",
            retries("attempts = 2, retry-on = \"5xx\""),
        )
        .also(asks("/ | x-echo-status: 500 | x-echo-times: 2", 200, 3))
        .also(asks("/ | x-echo-status: 500 | x-echo-times: 9", 500, 3)),
        Case::new(
            "a status by its number",
            retries("attempts = 1, retry-on = \"503\""),
        )
        .also(asks("/ | x-echo-status: 503 | x-echo-times: 1", 200, 2))
        .also(asks("/ | x-echo-status: 500 | x-echo-times: 1", 500, 1)),
        Case::new("none", retries("attempts = 0, retry-on = \"5xx\"")).also(asks(
            "/ | x-echo-status: 500 | x-echo-times: 1",
            500,
            1,
        )),
        Case::new(
            "an attempt that takes too long",
            retries("attempts = 1, retry-on = \"5xx\", per-try-timeout = \"300ms\""),
        )
        .also(asks("/ | x-echo-sleep: 2000 | x-echo-times: 1", 200, 2)),
    ]
}

fn delegates() -> Vec<Case> {
    let root = |name: &str| {
        let delegating = format!(
            "{{ match = [{{ uri = {{ prefix = \"/abc\" }} }}], headers = {{ request = {{ set = {{ x-by = \"root\" }} }} }}, delegate = {{ name = \"{name}\" }} }}"
        );
        service(&[&delegating, &format!("{{ {} }}", all("v3"))])
    };
    let delegate = named(
        "d",
        "",
        &[
            &prefix("/abc/1", "v1"),
            &prefix("/abc/2", "v2"),
            &prefix("/x", "v2"),
        ],
    );
    vec![
        Case::new("delegated rules", root("d") + &delegate)
            .ask("/abc/1", &["v1", "> x-by: root"])
            .ask("/abc/23", &["v2"])
            .ask("/abc", &["v3", "> !x-by"])
            .ask("/x", &["v3"]),
        Case::new("nobody to delegate to", root("e"))
            .ask("/abc", &["500", "empty"])
            .ask("/x", &["v3"]),
    ]
}

#[test]
fn virtual_services_are_carried_out() {
    let mut cases = faults();
    cases.extend(matching());
    cases.extend(outcomes());
    cases.extend(retries());
    cases.extend(delegates());
    try_all(&cases);
}
