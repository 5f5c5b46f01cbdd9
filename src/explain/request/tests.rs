//! What becomes of requests in a mesh directory.

use std::fs;

use super::*;
use crate::config;
use crate::explain::{Explanation, Intended, Question, explain, intended};

const MESH: &str = r#"
default-namespace = "shop"

[[node]]
name = "edge-1"
addresses = ["192.0.2.1"]
[[node]]
name = "edge-2"
addresses = ["192.0.2.2"]

[[namespace]]
name = "shop"
dataplane-mode = "ambient"

[[workload]]
name = "web-1"
node = "edge-1"
addresses = ["10.1.0.21"]
capture = { netns = "web-1" }
[[workload]]
name = "v1"
node = "edge-1"
addresses = ["10.1.0.31"]
labels = { app = "v1" }
capture = { netns = "v1" }
[[workload]]
name = "v2"
node = "edge-1"
addresses = ["10.1.0.32"]
labels = { app = "v2" }
capture = { netns = "v2" }

[[gateway]]
name = "wp"
class = "waypoint"
node = "edge-2"

[[service]]
name = "v1"
selector = { app = "v1" }
ports = [{ port = 80, app-protocol = "http" }, { port = 90, app-protocol = "tcp" }]
use-waypoint = "wp"
[[service]]
name = "v2"
selector = { app = "v2" }
ports = [{ port = 80, app-protocol = "http" }, { port = 90, app-protocol = "tcp" }]
[[service]]
name = "empty"
selector = { app = "nobody" }
ports = [{ port = 80, app-protocol = "http" }]
[[service]]
name = "plain"
selector = { app = "v2" }
ports = [{ port = 80, app-protocol = "http" }, { port = 90, app-protocol = "tcp" }]
use-waypoint = "wp"

[[tcp-route]]
name = "bytes"
parent-refs = [{ name = "v1", port = 90 }]
rules = [{ backend-refs = [{ name = "v2", port = 90 }] }]

[[http-route]]
name = "cart"
parent-refs = [{ name = "v1", port = 80 }]

[[http-route.rules]]
name = "canary"
matches = [{ path = { value = "/a" }, headers = [{ name = "x-user", value = "ann" }] }]
filters = [{ type = "RequestHeaderModifier", request-header-modifier = { remove = ["x-user"] } }]
backend-refs = [{ name = "v1", port = 80, weight = 9 }, { name = "v2", port = 80 }]
[[http-route.rules]]
matches = [{ path = { value = "/old" } }]
filters = [{ type = "RequestRedirect", request-redirect = { hostname = "new.example" } }]
[[http-route.rules]]
matches = [{ path = { value = "/none" } }]
[[http-route.rules]]
matches = [{ path = { value = "/missing" } }]
backend-refs = [{ name = "missing", port = 80 }]
[[http-route.rules]]
matches = [{ path = { value = "/empty" }, query-params = [{ name = "q", value = "1" }] }]
backend-refs = [{ name = "empty", port = 80 }]
[[http-route.rules]]
matches = [{ headers = [{ name = "host", value = "other" }] }]
backend-refs = [{ name = "v2", port = 80 }]

[[rate-limit]]
name = "few"
target-refs = [{ kind = "Service", name = "plain" }]
[[rate-limit.rules]]
match = [{ path = { value = "/few" }, method = "GET" }]
key = { header = "x-user" }
requests = 5
per = "1m"
burst = 2
"#;

fn mesh() -> Intended {
    with("")
}

/// The mesh with another file.
fn with(more: &str) -> Intended {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mesh.toml"), MESH).unwrap();
    fs::write(dir.path().join("more.toml"), more).unwrap();
    let loaded = config::load(dir.path());
    let report = loaded.report.to_string();
    intended(&loaded.mesh.expect(&report)).unwrap()
}

fn asked(mesh: &Intended, to: &str, request: RequestAsked) -> Result<Explanation, QuestionError> {
    let question = Question {
        from: "shop/web-1".to_owned(),
        to: to.to_owned(),
        request: Some(request),
        udp: false,
    };
    explain(&mesh.view, &mesh.names, &mesh.waypoints, &question)
}

fn get(path: &str, headers: &[(&str, &str)]) -> RequestAsked {
    let headers = headers.iter();
    RequestAsked {
        method: "GET".to_owned(),
        path: path.to_owned(),
        host: None,
        headers: headers
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

#[test]
fn each_request_has_its_rule_or_its_answer() {
    let mesh = mesh();
    let ann = &[("x-user", "ann")][..];
    let other = RequestAsked {
        host: Some("other".to_owned()),
        ..get("/", &[])
    };
    for (name, to, request, status, said, ways) in [
        (
            "a rule",
            "v1:80",
            get("/a/b", ann),
            None,
            "rule canary (mesh.toml:",
            &["v1", "v2"][..],
        ),
        (
            "its match",
            "v1:80",
            get("/a", ann),
            None,
            "path /a and below, x-user: ann",
            &["v1", "v2"],
        ),
        (
            "its filter",
            "v1:80",
            get("/a", ann),
            None,
            "changes fields of the request",
            &["v1", "v2"],
        ),
        (
            "a share",
            "v1:80",
            get("/a", ann),
            None,
            "v1.shop.mesh.internal:80, 9 of 10",
            &["v1", "v2"],
        ),
        ("by its host", "v1:80", other, None, "host: other", &["v2"]),
        (
            "no rule",
            "v1:80",
            get("/a", &[]),
            Some(404),
            "no rule",
            &[],
        ),
        (
            "a redirect",
            "v1:80",
            get("/old?x=1", &[]),
            Some(302),
            "http://new.example/old?x=1",
            &[],
        ),
        (
            "no backend",
            "v1:80",
            get("/none", &[]),
            Some(500),
            "no backend with a weight",
            &[],
        ),
        (
            "nobody",
            "v1:80",
            get("/missing", &[]),
            Some(500),
            "missing",
            &[],
        ),
        (
            "no endpoint",
            "v1:80",
            get("/empty?q=1", &[]),
            Some(503),
            "no healthy endpoint",
            &[],
        ),
        (
            "another query",
            "v1:80",
            get("/empty?q=2", &[]),
            Some(404),
            "no rule",
            &[],
        ),
        (
            "no route",
            "plain:80",
            get("/", &[]),
            None,
            "no route is for this port",
            &["v2"],
        ),
        (
            "a rate limit",
            "plain:80",
            get("/few/a", &[]),
            None,
            ": 5 in 60s of each value of `x-user`, 2 at once",
            &["v2"],
        ),
        (
            "no HTTP",
            "v1:90",
            get("/", &[]),
            None,
            "carried as bytes",
            &["v2"],
        ),
    ] {
        let told = asked(&mesh, to, request).unwrap();
        let all: Vec<_> = told.steps.iter().map(|s| &*s.text).collect();
        assert_eq!(told.status, status, "{name}: {}", told.reason);
        let allowed = status.is_none_or(|status| status < 400);
        assert_eq!(told.allowed, allowed, "{name}: {}", told.reason);
        assert!(
            all.iter().any(|text| text.contains(said)),
            "{name}: {all:#?}"
        );
        let to: Vec<_> = told
            .ways
            .iter()
            .map(|way| way.workload.replace("shop/", ""))
            .collect();
        assert_eq!(to, ways, "{name}");
    }
}

#[test]
fn only_limits_that_are_for_a_request_are_told_of() {
    let mesh = mesh();
    for (to, path, want) in [
        ("plain:80", "/few", 1),
        ("plain:80", "/fewer", 0),
        ("v1:80", "/few", 0),
        ("plain:90", "/few", 0),
    ] {
        let told = asked(&mesh, to, get(path, &[])).unwrap();
        let limits = told.steps.iter().filter(|s| s.stage == "limit");
        let limits: Vec<_> = limits.map(|s| &*s.text).collect();
        assert_eq!(limits.len(), want, "{to}{path}: {limits:?}");
        let named = |text: &&str| text.contains("rate-limit shop/few (mesh.toml:");
        assert!(limits.iter().all(named), "{limits:?}");
    }
}

#[test]
fn what_is_no_request_is_told() {
    let mesh = mesh();
    let shouted = RequestAsked {
        method: "G T".to_owned(),
        ..get("/", &[])
    };
    for request in [
        shouted,
        get("a", &[]),
        get("/%zz", &[]),
        get("/", &[("a b", "c")]),
    ] {
        let refused = asked(&mesh, "v1:80", request).unwrap_err();
        assert!(matches!(refused, QuestionError::Request(_)), "{refused}");
    }
}

#[test]
fn who_is_to_allow_it_is_told() {
    let custom = |provider: &str| {
        format!(
            "default-namespace = \"shop\"\n[mesh]\nextension-providers = [{provider}]\n\
             [[authorization-policy]]\nname = \"ask\"\naction = \"CUSTOM\"\nprovider.name = \"opa\"\n\
             target-refs = [{{ kind = \"Service\", name = \"v1\" }}]\n\
             rules = [{{ to = [{{ operation = {{ paths = [\"/a*\"] }} }}] }}]\n"
        )
    };
    let grpc = |of: &str| {
        custom(&format!(
            "{{ name = \"opa\", envoy-ext-authz-grpc = {{ {of} }} }}"
        ))
    };
    let there = "service = \"shop/v2\", port = 90";
    let gone = "service = \"shop/gone\", port = 90";
    let open = "service = \"shop/gone\", port = 90, fail-open = true";
    for (name, more, path, allowed, said) in [
        (
            "one that is there",
            grpc(there),
            "/a",
            true,
            "provider opa (more.toml:3) at v2.shop.mesh.internal:90 has to allow it, by policy shop/ask (more.toml:9); what it cannot be asked about is answered with 403",
        ),
        ("one that is not asked", grpc(there), "/old", true, "302"),
        (
            "one that is no service",
            grpc(gone),
            "/a",
            false,
            "asks provider opa (more.toml:3), which cannot be asked: no service has the host name gone",
        ),
        (
            "the same, open",
            grpc(open),
            "/a",
            true,
            "cannot be asked, by policy shop/ask",
        ),
        (
            "nobody",
            custom(""),
            "/a",
            false,
            "asks provider opa, which is none that could be asked",
        ),
    ] {
        let told = asked(&with(&more), "v1:80", get(path, &[("x-user", "ann")])).unwrap();
        let steps: Vec<_> = told.steps.iter().map(|step| &*step.text).collect();
        let all = format!("{}\n{}", steps.join("\n"), told.reason);
        assert_eq!(told.allowed, allowed, "{name}: {all}");
        assert!(all.contains(said), "{name}: {all}");
    }
}
