//! Calls, WebSockets and ports that do not say what they speak: rows 33, 34 and 36.

use serde_json::{Value, json};

use super::Bench;
use super::case::{Case, try_all, unless};
use super::shares::shared;
use super::written::named;
use crate::programs::client::{Order, Tally};

/// Calls `path` of the echo.
fn call(bench: &Bench, path: &str, headers: &[(&str, &str)], messages: usize) -> Value {
    let headers = headers.iter();
    bench.order(&Order::Call {
        to: "10.96.0.20:81".to_owned(),
        path: path.to_owned(),
        headers: headers
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        messages,
    })
}

/// Complains unless this server has answered every message of three.
fn answered(bench: &Bench, path: &str, headers: &[(&str, &str)], server: &str) -> Vec<String> {
    let told = call(bench, path, headers, 3);
    let answers = told["answers"].as_array().cloned().unwrap_or_default();
    let fine = told["grpc-status"] == "0"
        && told["trailers"] == true
        && answers.len() == 3
        && answers
            .iter()
            .all(|a| a["name"].as_str().unwrap().starts_with(server));
    unless(fine, || format!("{path}, not {server}: {told}"))
}

fn grpc(rules: &[&str]) -> String {
    named(
        "grpc-route",
        "g",
        "parent-refs = [{ name = \"echo\", port = 81 }]",
        rules,
    )
}

fn calls() -> Vec<Case> {
    let sets = "-> v1 ; filters = [{ type = \"RequestHeaderModifier\", request-header-modifier = { \
        set = [{ name = \"x-set\", value = \"set\" }], add = [{ name = \"x-add\", value = \"add\" }], remove = [\"x-remove\"] } }]";
    vec![
        Case::new("gRPC without a route, as a stream", "")
            .also(|bench| answered(bench, "/S/M", &[], "echo-")),
        Case::new(
            "33, GRPCExactMethodMatching: grpc-route S/M→v1; S→v2",
            grpc(&["S:S M:M -> v1", "S:S -> v2"]),
        )
        .also(|bench| answered(bench, "/S/M", &[], "v1"))
        .also(|bench| answered(bench, "/S/N", &[], "v2"))
        .also(|bench| {
            let told = call(bench, "/T/M", &[], 1);
            let fine =
                told["status"] == 200 && told["grpc-status"] == "12" && told["trailers"] == false;
            unless(fine, || format!("/T/M: {told}"))
        }),
        Case::new(
            "GRPCRouteHeaderMatching: H version=one→v1; version=two→v2",
            grpc(&["H:version=one -> v1", "H:version=two -> v2"]),
        )
        .also(|bench| answered(bench, "/S/M", &[("version", "one")], "v1"))
        .also(|bench| answered(bench, "/S/M", &[("version", "two")], "v2"))
        .also(|bench| {
            let told = call(bench, "/S/M", &[], 1);
            unless(told["grpc-status"] == "12", || told.to_string())
        }),
        Case::new(
            "MeshGRPCRouteRequestHeaderModifier: metadata",
            grpc(&[sets]),
        )
        .also(|bench| {
            let told = call(bench, "/S/M", &[("x-set", "a"), ("x-remove", "b")], 1);
            let headers = told["answers"][0]["headers"].to_string();
            let fine = headers.contains(r#"["x-set","set"]"#)
                && headers.contains(r#"["x-add","add"]"#)
                && !headers.contains("x-remove");
            unless(fine, || told.to_string())
        }),
        Case::new(
            "MeshGRPCRouteWeight, GRPCRouteNamedRule: v1:70 v2:30 v3:0",
            grpc(&["-> v1:70 v2:30 v3:0 ; name = \"split\""]),
        )
        .also(|bench| {
            let mut tally = Tally::new();
            for _ in 0..300 {
                let told = call(bench, "/S/M", &[], 1);
                let name = told["answers"][0]["name"].as_str().unwrap_or("nobody");
                *tally.entry(name.to_owned()).or_default() += 1;
            }
            shared(&tally, &[("v1", 70.0), ("v2", 30.0)], 10.0)
        }),
        Case::new("a missing backend of a grpc-route", grpc(&["-> missing"])).also(|bench| {
            let told = call(bench, "/S/M", &[], 1);
            let fine = told["status"] == 200 && told["grpc-status"] == "14";
            unless(fine, || told.to_string())
        }),
    ]
}

fn sockets() -> Vec<Case> {
    let talk = |bench: &Bench, port: u16, over_h2: bool, status: u16| {
        let to = format!("10.96.0.20:{port}");
        let told: Value = bench.order(&Order::WebSocket {
            to: to.clone(),
            over_h2,
        });
        let fine = told == json!({ "status": status, "echoed": "hello" });
        unless(fine, || format!("{to} over h2 {over_h2}: {told}"))
    };
    vec![
        Case::new("34, HTTPRouteBackendProtocolWebSocket: default", "")
            .also(move |bench| talk(bench, 80, false, 101))
            .also(move |bench| talk(bench, 80, true, 200))
            .also(move |bench| talk(bench, 83, false, 101))
            .also(move |bench| talk(bench, 83, true, 200)),
        Case::new("HTTPRouteBackendProtocolH2C, and client versions", "")
            .ask(":82 /", &["echo", "> :version 2"])
            .ask("h2 :82 /", &["echo", "> :version 2"])
            .ask(":80 /", &["echo", "> :version 1.1"])
            .ask("h2 :80 /", &["echo", "> :version 1.1", "> :host echo"]),
        Case::new("36: port without app-protocol", "")
            .also(|bench| {
                let told: Value = bench.order(&Order::Banner {
                    to: "10.96.0.20:70".to_owned(),
                    count: 4,
                });
                let both = told["by"]
                    .as_object()
                    .map(|by| by.keys().all(|k| k.starts_with("echo-")));
                let slowest = told["slowest"].as_u64().unwrap_or(u64::MAX);
                let after_sniffing = (95..1000).contains(&slowest);
                unless(both == Some(true) && after_sniffing, || told.to_string())
            })
            .ask(":71 /", &["echo", "> x-request-id", "> :version 1.1"])
            .ask("h2 :71 /", &["echo", "> x-request-id", "> :version 2"]),
    ]
}

#[test]
fn every_protocol_is_understood_as_its_port_says() {
    let mut cases = calls();
    cases.extend(sockets());
    try_all(&cases);
}
