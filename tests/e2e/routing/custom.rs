//! Providers that the waypoint asks: rows 59 and 60, and what else may become of a question. Over HTTP it
//! is asked of `v1`, which does as the request's own `x-echo-` fields say.

use serde_json::Value;

use super::Bench;
use super::authorization::{on_echo, to};
use super::case::{Case, try_all, unless};
use crate::programs::client::Order;

/// The provider over HTTP.
const HTTP: &str = "extension-providers = [{ name = \"p\", envoy-ext-authz-http = { service = \"shop/v1\", port = 80, timeout = \"500ms\", path-prefix = \"/check\", include-request-headers-in-check = [\"x-echo-*\"], headers-to-upstream-on-allow = [\"x-ext\"] } }]";

fn asks(rules: &str) -> String {
    on_echo("c", "CUSTOM", rules) + "provider.name = \"p\"\n"
}

fn over_http() -> Vec<Case> {
    vec![
        Case::new("59: CUSTOM HTTP", asks("{}"))
            .mesh(HTTP)
            .ask(
                "/x?y=1 | x-ext: evil | x-echo-answer: x-ext: a",
                &["echo", "> x-ext: a", "> :path /x?y=1"],
            )
            .ask("h2 / | x-ext: evil | x-echo-answer: x-ext: a", &["echo", "> x-ext: a"])
            .ask("/ | x-ext: evil", &["echo", "> !x-ext"])
            .ask("/ | x-echo-only: v1 | x-echo-status: 503", &["403", "empty"])
            .ask(
                "/ | x-echo-only: v1 | x-echo-sleep: 3000",
                &["403", "empty", "under 2500"],
            )
            .also(|bench| {
                let asked = "/x?y=1 | x-echo-only: v1 | x-echo-status: 401 | x-echo-answer: location: /login";
                let before = bench.logged_by("gate-1");
                let answer = bench.ask(asked);
                let fine = ["401", "< location: /login", "> :path /check/x?y=1", "> :host echo"];
                let fine = fine.iter().all(|fact| answer.is(fact)) && answer.name() == "v1";
                let mut complaints = unless(fine, || format!("{answer:?}"));
                let why = "ext_authz_denied: by provider p, asked by policy shop/c";
                let lines = bench.logs_since("gate-1", before, why, 1);
                complaints.extend(unless(lines == 1, || format!("{lines} lines say {why:?}")));
                complaints
            }),
        Case::new("59: down", asks("{}"))
            .mesh("extension-providers = [{ name = \"p\", envoy-ext-authz-http = { service = \"shop/empty\", port = 80 } }]")
            .ask("/", &["403", "empty"]),
        Case::new("59: fail-open and down", asks("{}"))
            .mesh("extension-providers = [{ name = \"p\", envoy-ext-authz-http = { service = \"shop/empty\", port = 80, fail-open = true, headers-to-upstream-on-allow = [\"x-ext\"] } }]")
            .ask("/ | x-ext: evil", &["echo", "> !x-ext"]),
        Case::new("4.4: one of its two instances is not there", asks("{}"))
            .mesh("extension-providers = [{ name = \"p\", envoy-ext-authz-http = { service = \"half.shop.mesh.internal\", port = 80, status-on-error = \"503\" } }]")
            .also(|bench| {
                let tally = bench.many(super::ECHO, 20, &[]);
                let well = tally.keys().all(|said| said.starts_with("200 echo-"));
                unless(well, || format!("{tally:?}"))
            }),
        Case::new("60: CUSTOM with unknown provider on `/a*`", asks(&to("paths = [\"/a*\"]")))
            .ask("/a", &["403", "empty"])
            .ask("/b", &["echo"]),
        Case::new(
            "4.1: CUSTOM before DENY",
            asks(&to("paths = [\"/a*\"]")) + &on_echo("d", "DENY", "{}"),
        )
        .mesh(HTTP)
        .ask("/a | x-echo-only: v1 | x-echo-status: 418", &["418"])
        .ask("/a", &["403", "text RBAC: access denied"]),
    ]
}

fn over_grpc() -> Vec<Case> {
    let open = |bench: &Bench, want: bool| {
        let told: Value = bench.order(&Order::Banner {
            to: "10.96.0.20:90".to_owned(),
            count: 3,
        });
        let by = told["by"].as_object().cloned().unwrap_or_default();
        let open = by.keys().all(|name| name.starts_with("echo-"));
        unless(open == want, || format!("open is not {want}: {told}"))
    };
    vec![
        Case::new("4.4: CUSTOM gRPC", asks("{}"))
            .mesh("extension-providers = [{ name = \"p\", envoy-ext-authz-grpc = { service = \"shop/v2\", port = 81, timeout = \"500ms\" } }]")
            .ask(
                "/ | x-check: allow | x-ext: evil | authorization: Bearer t",
                &[
                    "echo",
                    "> x-ext: spiffe://cluster.local/ns/shop/sa/web",
                    "> !authorization",
                    "< x-checked: yes",
                ],
            )
            .ask("other / | x-check: allow", &["> x-ext: spiffe://cluster.local/ns/other/sa/other"])
            .ask("/", &["401", "< location: /login", "text who are you?"])
            .ask("/ | x-check: lie", &["403", "empty"])
            .ask("/ | x-check: late", &["403", "empty", "under 2500"])
            .ask("/ | x-check: fail", &["403", "empty"])
            .also(move |bench| open(bench, true)),
        Case::new("4.4: a server of another kind", asks("{}"))
            .mesh("extension-providers = [{ name = \"p\", envoy-ext-authz-grpc = { service = \"shop/v1\", port = 90 } }]")
            .ask("/ | x-check: allow", &["403", "empty"]),
        Case::new("4.4: connections are not asked about over HTTP", asks("{}"))
            .mesh(HTTP)
            .also(move |bench| open(bench, false)),
    ]
}

#[test]
fn providers_decide() {
    let cases = [over_http(), over_grpc()];
    try_all(&cases.into_iter().flatten().collect::<Vec<_>>());
}
