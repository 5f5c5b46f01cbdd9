//! What a waypoint tells of requests and connections: rows 68 and 69, and what else access logs and
//! metrics say, read back from a real file and from what is scraped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use prometheus_parse::{Scrape, Value};
use serde_json::Value as Json;

use super::authorization::{on_echo, to};
use super::written::route;
use super::{Bench, fresh};
use crate::support::{quic, text};

/// Telemetry for the echo.
fn on_service(says: &str) -> String {
    format!(
        "[[telemetry]]\nname = \"t\"\nnamespace = \"shop\"\n\
         target-refs = [{{ kind = \"Service\", name = \"echo\" }}]\n{says}\n"
    )
}

/// A file of the mesh's own, and the settings that have it written by provider `file`.
fn file(bench: &Bench, format: &str) -> (PathBuf, String) {
    let path = bench.turn.state().join(fresh("access.log"));
    let settings = format!(
        "extension-providers = [{{ name = \"file\", envoy-file-access-log = {{ path = {path:?}, log-format = {format} }} }}]"
    );
    (path, settings)
}

/// The lines of a file, once there are so many.
fn lines(path: &PathBuf, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count || Instant::now() > deadline {
            return lines;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The counters that the waypoint shows, each with its labels.
struct Scraped(Vec<(String, BTreeMap<String, String>, f64)>);

impl Scraped {
    fn now(bench: &Bench) -> Self {
        let page = ["curl", "-s", "http://127.0.0.1:15020/metrics"];
        let page = text(&bench.turn.exec("gate-1", None, &page).stdout);
        let scrape = Scrape::parse(page.lines().map(|l| Ok(l.to_owned()))).unwrap();
        let samples = scrape.samples.into_iter().filter_map(|sample| {
            let (Value::Untyped(value) | Value::Counter(value)) = sample.value else {
                return None;
            };
            let labels = sample.labels.iter();
            let labels = labels.map(|(name, value)| (name.clone(), value.clone()));
            Some((sample.metric, labels.collect(), value))
        });
        Self(samples.collect())
    }

    /// What a metric has counted for these labels; an empty value is a label that is not there.
    fn count(&self, metric: &str, wanted: &[(&str, &str)]) -> f64 {
        let fits = |labels: &BTreeMap<String, String>| {
            wanted
                .iter()
                .all(|(name, value)| labels.get(*name).map_or("", String::as_str) == *value)
        };
        let counted = self.0.iter();
        let counted = counted.filter(|(name, labels, _)| name == metric && fits(labels));
        counted.map(|(_, _, value)| value).sum()
    }

    /// The same once it is as wanted, or what it is.
    fn comes_to(bench: &Bench, metric: &str, wanted: &[(&str, &str)], value: f64) -> f64 {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let count = Self::now(bench).count(metric, wanted);
            if (count - value).abs() < 0.5 || Instant::now() > deadline {
                return count;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_log_has_what_its_filter_takes_and_metrics_the_labels_they_are_told() {
    let bench = Bench::new();
    let (path, settings) = file(
        &bench,
        "{ labels = { code = \"%RESPONSE_CODE%\", how = \"%RESPONSE_FLAGS% %ROUTE_NAME%\", details = \"%RESPONSE_CODE_DETAILS%\", agent = \"%REQ(USER-AGENT)%\", path = \"%REQ(:PATH)%\" } }",
    );
    let telemetry = on_service(
        "access-logging = [{ providers = [{ name = \"file\" }], filter = { expression = \"response.code >= 400\" } }]\n\
         metrics = [{ overrides = [{ match = { metric = \"REQUEST_COUNT\" }, tag-overrides = { source_app = { operation = \"REMOVE\" }, host = { value = \"request.host\" } } }] }]",
    );
    let rules = format!("{telemetry}{}", route(&["E/ok -> v1"]));
    let gateway = "nodes = [\"gate-1\"]";
    bench.enforce(&rules, gateway, &settings).unwrap();
    let host = fresh("host");
    let asked = |path: &str| {
        bench.ask(&format!(
            "{path} | Host: {host} | User-Agent: a\" b\\\u{2028}"
        ))
    };
    assert_eq!(asked("/ok").status, 200);
    assert_eq!(asked("/missing").status, 404);
    let lines = lines(&path, 1);
    let [line] = &*lines else {
        panic!("{lines:?}");
    };
    let line: Json = serde_json::from_str(line).unwrap();
    let want = serde_json::json!({
        "code": 404,
        "how": "NR -",
        "details": "route_not_found",
        "agent": "a\" b\\\u{2028}",
        "path": "/missing",
    });
    assert_eq!(line, want);
    for code in ["200", "404"] {
        let labels = [
            ("reporter", "waypoint"),
            ("response_code", code),
            ("host", &*host),
            ("source_app", ""),
        ];
        let count = Scraped::comes_to(&bench, "istio_requests_total", &labels, 1.0);
        assert!((count - 1.0).abs() < 0.5, "{code}: {count}");
    }
    let scraped = Scraped::now(&bench);
    let usual = scraped.count("istio_request_bytes_count", &[("host", &host)]);
    assert!(usual < 0.5, "another metric has the label: {usual}");
}

#[test]
fn what_nobody_answers_is_told_as_what_it_is() {
    let bench = Bench::new();
    let path = bench.turn.state().join(fresh("access.log"));
    let settings = format!("access-log-file = {path:?}");
    let rules = on_echo("p", "DENY", &to("paths = [\"/denied\"]"));
    let gateway = "nodes = [\"gate-1\"]";
    bench.enforce(&rules, gateway, &settings).unwrap();
    let denied = [
        ("reporter", "waypoint"),
        ("response_code", "403"),
        ("destination_workload", "unknown"),
        ("destination_principal", "unknown"),
        ("destination_service_name", "echo"),
        ("destination_service", "echo.shop.mesh.internal"),
        ("source_workload", "web"),
        ("source_principal", "spiffe://cluster.local/ns/shop/sa/web"),
        ("connection_security_policy", "mutual_tls"),
        ("request_protocol", "http"),
        ("response_flags", "-"),
        ("grpc_response_status", ""),
        ("transport", if quic() { "quic" } else { "tcp" }),
    ];
    let gone = [
        ("response_code", "0"),
        ("response_flags", "DC"),
        ("destination_service_name", "echo"),
    ];
    let before = Scraped::now(&bench);
    assert_eq!(bench.ask("/denied").status, 403);
    let slow = [
        "curl",
        "-s",
        "-m",
        "0.3",
        "-H",
        "Host: echo",
        "-H",
        "x-echo-sleep: 3000",
        "http://10.96.0.20/slow",
    ];
    bench.turn.exec("client", Some("web"), &slow);
    for (name, labels) in [("denied", &denied[..]), ("gone", &gone[..])] {
        let metric = "istio_requests_total";
        let want = before.count(metric, labels) + 1.0;
        let count = Scraped::comes_to(&bench, metric, labels, want);
        assert!((count - want).abs() < 0.5, "{name}: {count}, not {want}");
    }
    let lines = lines(&path, 2);
    let [denied, gone] = &*lines else {
        panic!("{lines:?}");
    };
    let said = denied.split_once("] ").unwrap().1;
    let begins = "\"GET /denied HTTP/1.1\" 403 - rbac_access_denied_matched_policy[ns[shop]-policy[p]-rule[0]] - \"-\" 0 19 ";
    assert!(said.starts_with(begins), "{denied}");
    assert!(
        said.contains(" \"echo\" \"-\" - - 10.96.0.20:80 10.77.1.11:"),
        "{denied}"
    );
    assert!(said.ends_with(" - -"), "{denied}");
    let said = gone.split_once("] ").unwrap().1;
    let begins = "\"GET /slow HTTP/1.1\" 0 DC downstream_remote_disconnect - ";
    assert!(said.starts_with(begins), "{gone}");
    assert!(
        said.contains(" outbound|80||echo.shop.mesh.internal ") || said.contains("\"10.77.2."),
        "{gone}"
    );
}
