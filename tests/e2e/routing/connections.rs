//! Where connections go that are not requests: rows 35 and 37.

use serde_json::Value;

use super::Bench;
use super::case::{Case, try_all, unless};
use super::shares::shared;
use super::written::named;
use crate::programs::client::{Order, Tally};

fn tcp(rules: &[&str]) -> String {
    named(
        "tcp-route",
        "t",
        "parent-refs = [{ name = \"echo\", port = 90 }]",
        rules,
    )
}

fn tls(name: &str, host: &str, rule: &str) -> String {
    let more =
        format!("parent-refs = [{{ name = \"echo\", port = 8443 }}]\nhostnames = [\"{host}\"]");
    named("tls-route", name, &more, &[rule])
}

fn banners(bench: &Bench, count: usize) -> (Tally, u64) {
    let to = "10.96.0.20:90".to_owned();
    let told: Value = bench.order(&Order::Banner { to, count });
    let by = serde_json::from_value(told["by"].clone()).unwrap();
    (by, told["slowest"].as_u64().unwrap())
}

/// What is said to a client of this server name.
fn said(bench: &Bench, sni: Option<&str>, want: &str) -> Vec<String> {
    let to = "10.96.0.20:8443".to_owned();
    let sni = sni.map(str::to_owned);
    let told: String = bench.order(&Order::Tls {
        to,
        sni: sni.clone(),
    });
    unless(told == want, || {
        format!("{sni:?}: not {want:?} but {told:?}")
    })
}

fn cases() -> Vec<Case> {
    vec![
        Case::new("a TCP port without a route", "").also(|bench| {
            let (by, _) = banners(bench, 20);
            let fine = by.keys().all(|name| name.starts_with("echo-"));
            unless(fine, || format!("{by:?}"))
        }),
        Case::new(
            "35, TCPRouteWeightedRouting: tcp-route on 90: v1:1, v2:1, v3:0",
            tcp(&["-> v1:1 v2:1 v3:0"]),
        )
        .also(|bench| {
            let (by, slowest) = banners(bench, 500);
            let mut complaints = shared(&by, &[("v1", 50.0), ("v2", 50.0)], 9.0);
            // At once: what is said first on this port is nobody's to wait for.
            complaints.extend(unless(slowest < 1000, || format!("waited {slowest} ms")));
            complaints
        }),
        Case::new(
            "2.6: tcp-route to a missing service",
            tcp(&["-> v1:1 missing:1"]),
        )
        .also(|bench| {
            let (by, _) = banners(bench, 200);
            shared(&by, &[("v1", 50.0), ("closed", 50.0)], 14.0)
        }),
        Case::new(
            "37, TLSRouteSimpleSameNamespace: tls-route 8443 a.example→v1, `*.b.example`→v2",
            tls("a", "a.example", "-> v1") + &tls("b", "*.b.example", "-> v2"),
        )
        .also(|bench| said(bench, Some("a.example"), "v1 a.example"))
        .also(|bench| said(bench, Some("x.b.example"), "v2 x.b.example"))
        .also(|bench| said(bench, Some("c.example"), "closed"))
        .also(|bench| said(bench, None, "closed")),
    ]
}

#[test]
fn connections_go_where_routes_send_them() {
    try_all(&cases());
}
