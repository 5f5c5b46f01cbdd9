//! The mesh of these cases, and a short way to write routes.

use std::path::Path;

/// The whole of it; `number` marks it.
pub(super) fn mesh(rules: &str, gateway: &str, number: usize) -> String {
    format!(
        r#"{AROUND}
[[gateway]]
name = "wp"
namespace = "shop"
class = "waypoint"
{gateway}

[[authorization-policy]]
name = "mark-{number}"
namespace = "other"
action = "DENY"
dry-run = true
rules = [{{}}]
{rules}
"#
    )
}

const AROUND: &str = r#"
[mesh]
service-range = ["10.96.0.0/16", "fd96::/112"]

[[node]]
name = "control"
addresses = ["10.77.0.1"]
[[node]]
name = "client"
addresses = ["10.77.0.11"]
[[node]]
name = "server-1"
addresses = ["10.77.0.12"]
locality = "eu/a"
[[node]]
name = "server-2"
addresses = ["10.77.0.13"]
locality = "eu/b"
[[node]]
name = "gate-1"
addresses = ["10.77.0.21"]
locality = "eu/a"
[[node]]
name = "gate-2"
addresses = ["10.77.0.22"]
locality = "eu/a"

[[namespace]]
name = "other"
dataplane-mode = "ambient"
[[namespace]]
name = "shop"
dataplane-mode = "ambient"
use-waypoint = "wp"

[[workload]]
name = "web"
namespace = "shop"
service-account = "web"
node = "client"
addresses = ["10.77.1.11"]
capture = { netns = "web" }
[[workload]]
name = "other"
namespace = "other"
service-account = "other"
node = "client"
addresses = ["10.77.1.12"]
capture = { netns = "other" }

[[workload]]
name = "echo-1"
namespace = "shop"
service-account = "echo"
node = "server-1"
addresses = ["10.77.2.11"]
capture = { netns = "echo-1" }
labels = { app = "echo" }
[[workload]]
name = "echo-2"
namespace = "shop"
service-account = "echo"
node = "server-1"
addresses = ["10.77.2.12"]
capture = { netns = "echo-2" }
labels = { app = "echo" }
[[workload]]
name = "v1"
namespace = "shop"
service-account = "v1"
node = "server-1"
addresses = ["10.77.2.21"]
capture = { netns = "v1" }
labels = { app = "v1", tier = "v", half = "yes", zoned = "yes" }
[[workload]]
name = "v2"
namespace = "shop"
service-account = "v2"
node = "server-1"
addresses = ["10.77.2.22"]
capture = { netns = "v2" }
labels = { app = "v2", tier = "v", half = "yes" }
[[workload]]
name = "v3"
namespace = "shop"
service-account = "v3"
node = "server-1"
addresses = ["10.77.2.23"]
capture = { netns = "v3" }
labels = { app = "v3", tier = "v" }
[[workload]]
name = "far"
namespace = "shop"
service-account = "far"
node = "server-2"
addresses = ["10.77.3.11"]
capture = { netns = "far" }
labels = { zoned = "yes" }
[[workload]]
name = "plain"
namespace = "shop"
addresses = ["10.77.0.99"]
dataplane-mode = "none"
labels = { app = "plain" }

[[service]]
name = "echo"
namespace = "shop"
addresses = ["10.96.0.20"]
selector = { app = "echo" }
ports = [{ port = 80, target-port = 8080, app-protocol = "http" },
         { port = 9000, target-port = 8080, app-protocol = "http" },
         { port = 81, target-port = 8080, app-protocol = "grpc" },
         { port = 82, target-port = 8080, app-protocol = "kubernetes.io/h2c" },
         { port = 83, target-port = 8080, app-protocol = "kubernetes.io/ws" },
         { port = 90, target-port = 9090, app-protocol = "tcp" },
         { port = 70, target-port = 9090 },
         { port = 71, target-port = 8080 },
         { port = 8443, target-port = 8443, app-protocol = "tls" }]
[[service]]
name = "v1"
namespace = "shop"
addresses = ["10.96.0.21"]
selector = { app = "v1" }
ports = [{ port = 80, target-port = 8080, app-protocol = "http" },
         { port = 81, target-port = 8080, app-protocol = "grpc" },
         { port = 90, target-port = 9090, app-protocol = "tcp" },
         { port = 8443, target-port = 8443, app-protocol = "tls" }]
[[service]]
name = "v2"
namespace = "shop"
addresses = ["10.96.0.22"]
selector = { app = "v2" }
ports = [{ port = 80, target-port = 8080, app-protocol = "http" },
         { port = 81, target-port = 8080, app-protocol = "grpc" },
         { port = 90, target-port = 9090, app-protocol = "tcp" },
         { port = 8443, target-port = 8443, app-protocol = "tls" }]
[[service]]
name = "v3"
namespace = "shop"
addresses = ["10.96.0.23"]
selector = { app = "v3" }
ports = [{ port = 80, target-port = 8080, app-protocol = "http" },
         { port = 81, target-port = 8080, app-protocol = "grpc" },
         { port = 90, target-port = 9090, app-protocol = "tcp" }]
[[service]]
name = "unbound"
namespace = "shop"
addresses = ["10.96.0.30"]
use-waypoint = "none"
selector = { app = "v1" }
ports = [{ port = 80, target-port = 8080, app-protocol = "http" }]
[[service]]
name = "half"
namespace = "shop"
addresses = ["10.96.0.31"]
selector = { half = "yes" }
ports = [{ port = 80, target-port = 8085, app-protocol = "http" }]
[[service]]
name = "trio"
namespace = "shop"
addresses = ["10.96.0.32"]
selector = { tier = "v" }
ports = [{ port = 80, target-port = 8080, app-protocol = "http" }]
[[service]]
name = "empty"
namespace = "shop"
addresses = ["10.96.0.33"]
selector = { app = "nobody" }
ports = [{ port = 80, target-port = 8080, app-protocol = "http" }]
[[service]]
name = "zoned"
namespace = "shop"
addresses = ["10.96.0.34"]
selector = { zoned = "yes" }
ports = [{ port = 80, target-port = 8080, app-protocol = "http" },
         { port = 86, target-port = 8086, app-protocol = "http" }]
[[service]]
name = "plain"
namespace = "shop"
addresses = ["10.96.0.35"]
selector = { app = "plain" }
ports = [{ port = 80, target-port = 8088, app-protocol = "http" }]
[[service]]
name = "pair"
namespace = "shop"
addresses = ["10.96.0.36"]
selector = { app = "echo" }
ports = [{ port = 80, target-port = 8080, app-protocol = "http" }]
[[service]]
name = "headless"
namespace = "shop"
headless = true
selector = { app = "v3" }
ports = [{ port = 8080, app-protocol = "http" }]
"#;

/// A plain server that knows nothing of this, in clear text and behind the certificate `ext` of its directory.
pub(super) fn nginx(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n\
         server {{ listen 8088; location /keys/ {{ alias {directory}/keys/; }} location / {{ default_type application/json;\n\
         return 200 '{{\"name\":\"nginx\",\"host\":\"$http_host\",\"path\":\"$request_uri\",\"headers\":[]}}'; }} }}\n\
         server {{ listen 8444 ssl; ssl_certificate {directory}/ext.pem; ssl_certificate_key {directory}/ext.key;\n\
         location / {{ default_type application/json;\n\
         return 200 '{{\"name\":\"ext\",\"host\":\"$http_host\",\"sni\":\"$ssl_server_name\",\"alpn\":\"$ssl_alpn_protocol\",\"headers\":[]}}'; }} }} }}\n"
    )
}

/// An `http-route` on the echo with these rules.
pub(super) fn route(rules: &[&str]) -> String {
    named(
        "http-route",
        "r",
        "parent-refs = [{ name = \"echo\" }]",
        rules,
    )
}

/// Any route. A rule is written `MATCHES -> BACKENDS ; MORE`: matches by ` | `, of the conditions
/// `E/exact`, `P/prefix`, `X/regex`, `H:name=value`, `Q:name=value`, `METHOD`, `S:service`, `M:method`; backends as
/// `name@port:weight`; and more of the rule's own keys.
pub(super) fn named(kind: &str, name: &str, more: &str, rules: &[&str]) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| written(rule, kind)).collect();
    let namespace = match more.contains("namespace = \"other\"") {
        true => "",
        false => "namespace = \"shop\"\n",
    };
    format!(
        "[[{kind}]]\nname = \"{name}\"\n{namespace}{more}\nrules = [\n{}\n]\n",
        rules.join(",\n")
    )
}

fn written(rule: &str, kind: &str) -> String {
    let (said, more) = rule.split_once(" ; ").unwrap_or((rule, ""));
    let (matches, backends) = said.split_once("->").unwrap_or((said, ""));
    let mut parts = Vec::new();
    let matches = matches.trim();
    if !matches.is_empty() {
        let matches: Vec<String> = matches.split(" | ").map(matched).collect();
        parts.push(format!("matches = [{}]", matches.join(", ")));
    }
    let port = match kind {
        "grpc-route" => 81,
        "tcp-route" => 90,
        "tls-route" => 8443,
        _ => 80,
    };
    let backends: Vec<String> = backends
        .split_whitespace()
        .map(|b| backend(b, port))
        .collect();
    if !backends.is_empty() {
        parts.push(format!("backend-refs = [{}]", backends.join(", ")));
    }
    if !more.is_empty() {
        parts.push(more.to_owned());
    }
    format!("  {{ {} }}", parts.join(", "))
}

fn matched(conditions: &str) -> String {
    let mut keys = Vec::new();
    let mut grpc = Vec::new();
    let (mut headers, mut queries) = (Vec::new(), Vec::new());
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap();
        format!("{{ name = \"{name}\", value = \"{value}\" }}")
    };
    for word in conditions.split_whitespace() {
        let path = |kind: &str| {
            let value = &word[1..];
            format!("path = {{ type = \"{kind}\", value = '{value}' }}")
        };
        match word.split_at(2.min(word.len())) {
            ("E/", _) => keys.push(path("Exact")),
            ("P/", _) => keys.push(path("PathPrefix")),
            ("X/", _) => keys.push(path("RegularExpression")),
            ("H:", rest) => headers.push(pair(rest)),
            ("Q:", rest) => queries.push(pair(rest)),
            ("S:", rest) => grpc.push(format!("service = \"{rest}\"")),
            ("M:", rest) => grpc.push(format!("method = \"{rest}\"")),
            _ => keys.push(format!("method = \"{word}\"")),
        }
    }
    for (key, list) in [("headers", headers), ("query-params", queries)] {
        if !list.is_empty() {
            keys.push(format!("{key} = [{}]", list.join(", ")));
        }
    }
    if !grpc.is_empty() {
        keys.push(format!("method = {{ {} }}", grpc.join(", ")));
    }
    format!("{{ {} }}", keys.join(", "))
}

fn backend(text: &str, port: u16) -> String {
    let (text, weight) = match text.split_once(':') {
        Some((text, weight)) => (text, format!(", weight = {weight}")),
        None => (text, String::new()),
    };
    let (name, port) = match text.split_once('@') {
        Some((name, port)) => (name, port.to_owned()),
        None => (text, port.to_string()),
    };
    format!("{{ name = \"{name}\", port = {port}{weight} }}")
}
