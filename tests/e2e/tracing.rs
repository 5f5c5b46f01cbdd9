//! Traces through a waypoint, to collectors of each kind that are services of the mesh
//! (`spec/waypoint-l7.md` §6.4, vector 70).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::programs::Program;
use crate::programs::collector::Collector;
use crate::programs::echo::Echo;
use crate::support::{Roles, Testbed, Turn, eventually, text};

const RIG: &str = r#"
[[host]]
name = "control"
addresses = ["10.77.0.1/16"]

[[host]]
name = "client"
addresses = ["10.77.0.11/16"]
[[host.namespace]]
name = "web"
addresses = ["10.77.1.11/16"]

[[host]]
name = "server"
addresses = ["10.77.0.12/16"]
[[host.namespace]]
name = "echo"
addresses = ["10.77.2.11/16"]
[[host.namespace]]
name = "collector"
addresses = ["10.77.2.12/16"]

[[host]]
name = "gate"
addresses = ["10.77.0.21/16"]
"#;

const ROLES: Roles = &[
    ("control", &["--control"]),
    ("client", &["--node"]),
    ("server", &["--node"]),
    ("gate", &["--waypoint", "shop/wp"]),
];

/// The services, all of one program; each is traced otherwise.
const SERVICES: [(&str, &str); 7] = [
    ("all", "10.96.0.21"),
    ("none", "10.96.0.22"),
    ("posted", "10.96.0.23"),
    ("zipkin", "10.96.0.24"),
    ("both", "10.96.0.25"),
    ("quiet", "10.96.0.26"),
    ("off", "10.96.0.27"),
];

/// The mesh, but for its services.
const MESH: &str = r#"
[mesh]
service-range = ["10.96.0.0/16", "fd96::/112"]

[[mesh.extension-providers]]
name = "otlp"
opentelemetry = { service = "ops/collector", port = 4317 }
[[mesh.extension-providers]]
name = "otlp-http"
[mesh.extension-providers.opentelemetry]
service = "ops/collector"
port = 4318
max-tag-length = 12
http = { path = "/v1/traces", headers = [{ name = "x-api-key", value = "secret" }] }
[[mesh.extension-providers]]
name = "zipkin"
zipkin = { service = "collector.ops.mesh.internal", port = 4318 }
[[mesh.extension-providers]]
name = "zipkin-w3c"
[mesh.extension-providers.zipkin]
service = "ops/collector"
port = 4318
trace-context-option = "USE_B3_WITH_W3C_PROPAGATION"

[[node]]
name = "control"
addresses = ["10.77.0.1"]
[[node]]
name = "client"
addresses = ["10.77.0.11"]
[[node]]
name = "server"
addresses = ["10.77.0.12"]
[[node]]
name = "gate"
addresses = ["10.77.0.21"]

[[namespace]]
name = "shop"
dataplane-mode = "ambient"
use-waypoint = "wp"
[[namespace]]
name = "ops"
dataplane-mode = "ambient"

[[gateway]]
name = "wp"
namespace = "shop"
class = "waypoint"
node = "gate"

[[workload]]
name = "web"
namespace = "shop"
service-account = "web"
node = "client"
addresses = ["10.77.1.11"]
capture = { netns = "web" }
[[workload]]
name = "echo"
namespace = "shop"
service-account = "echo"
node = "server"
addresses = ["10.77.2.11"]
capture = { netns = "echo" }
labels = { app = "echo" }
[[workload]]
name = "collector"
namespace = "ops"
service-account = "collector"
node = "server"
addresses = ["10.77.2.12"]
capture = { netns = "collector" }
labels = { app = "collector" }

[[service]]
name = "collector"
namespace = "ops"
addresses = ["10.96.0.10"]
selector = { app = "collector" }
ports = [{ port = 4317, target-port = 4317, app-protocol = "grpc" },
         { port = 4318, target-port = 4317, app-protocol = "http" }]

# Only the waypoint may tell it anything, and proves that it is the one.
[[authorization-policy]]
name = "collector"
namespace = "ops"
action = "ALLOW"
rules = [{ from = [{ source = { principals = ["cluster.local/ns/shop/sa/wp"] } }] }]

[[telemetry]]
name = "mesh"
namespace = "istio-system"
[[telemetry.tracing]]
providers = [{ name = "otlp" }]
random-sampling-percentage = 100.0

[[telemetry]]
name = "none"
namespace = "shop"
target-refs = [{ kind = "Service", name = "none" }]
[[telemetry.tracing]]
random-sampling-percentage = 0.0

[[telemetry]]
name = "posted"
namespace = "shop"
target-refs = [{ kind = "Service", name = "posted" }]
[[telemetry.tracing]]
providers = [{ name = "otlp-http" }]
enable-istio-tags = false
[telemetry.tracing.custom-tags]
site = { literal = { value = "north" } }
home = { environment = { name = "LATEEN_E2E_NO_SUCH", default-value = "nowhere" } }
tenant = { header = { name = "x-tenant" } }
plan = { header = { name = "x-plan", default-value = "free" } }

[[telemetry]]
name = "zipkin"
namespace = "shop"
target-refs = [{ kind = "Service", name = "zipkin" }]
[[telemetry.tracing]]
providers = [{ name = "zipkin" }]

[[telemetry]]
name = "both"
namespace = "shop"
target-refs = [{ kind = "Service", name = "both" }]
[[telemetry.tracing]]
providers = [{ name = "zipkin-w3c" }]

[[telemetry]]
name = "quiet"
namespace = "shop"
target-refs = [{ kind = "Service", name = "quiet" }]
[[telemetry.tracing]]
disable-span-reporting = true

[[telemetry]]
name = "off"
namespace = "shop"
target-refs = [{ kind = "Service", name = "off" }]
[[telemetry.tracing]]
disable-context-propagation = true

[[http-route]]
name = "again"
namespace = "shop"
parent-refs = [{ kind = "Service", name = "all" }]
[[http-route.rules]]
retry = { codes = [503], attempts = 2, backoff = "10ms" }
backend-refs = [{ name = "all", port = 80 }]
"#;

/// Where the server tells what it has received, and the collector what it has taken.
const LOG: u16 = 8099;
const TAKEN: u16 = 4317;

struct Bench(Turn);

/// What one request was, to whoever it came.
struct Asked {
    /// The heads that the server has received.
    received: Vec<BTreeMap<String, String>>,
}

fn start() -> Testbed {
    let mut testbed = Testbed::up("e2e-tracing", RIG, ROLES);
    std::fs::create_dir_all(testbed.mesh_dir()).unwrap();
    let services = SERVICES.map(|(name, address)| {
        format!(
            "[[service]]\nname = \"{name}\"\nnamespace = \"shop\"\naddresses = [\"{address}\"]\n\
             selector = {{ app = \"echo\" }}\n\
             ports = [{{ port = 80, target-port = 8080, app-protocol = \"http\" }}]\n"
        )
    });
    testbed.write_mesh_file("mesh.toml", &format!("{MESH}\n{}", services.concat()));
    testbed.run();
    let echo = Program::Echo(Echo {
        name: "echo".to_owned(),
        http: vec![8080],
        banner: Vec::new(),
        tls: Vec::new(),
        log: vec![LOG],
    });
    let collector = Program::Collector(Collector { port: TAKEN });
    for (namespace, program) in [("echo", echo), ("collector", collector)] {
        let command = program.command();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        testbed.program("server", Some(namespace), &command);
    }
    let bench = |testbed: &Testbed| {
        let asked = curl(testbed, "client", "web", "http://10.96.0.27/", &[]);
        let control = testbed.status("control").and_then(|s| s.control);
        match asked.contains("\"name\":\"echo\"") {
            true => Ok(()),
            false => Err((asked, control.map(|c| c.problems))),
        }
    };
    eventually("a request passes the waypoint", || bench(&testbed));
    testbed
}

fn curl(testbed: &Testbed, host: &str, namespace: &str, url: &str, headers: &[&str]) -> String {
    let mut words = vec!["curl", "-s", "--max-time", "5", url];
    for header in headers {
        words.extend(["-H", header]);
    }
    text(&testbed.exec(host, Some(namespace), &words).stdout)
}

impl Bench {
    fn new() -> Self {
        static TESTBED: OnceLock<Mutex<Testbed>> = OnceLock::new();
        Self(Turn::on(&TESTBED, start))
    }

    /// Asks a service, as a client that sends these fields.
    fn ask(&self, service: &str, headers: &[&str]) -> Asked {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let key = format!("trace-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (_, address) = SERVICES.iter().find(|(name, _)| *name == service).unwrap();
        let field = format!("x-echo-key: {key}");
        let headers: Vec<&str> = headers.iter().copied().chain([&*field]).collect();
        let url = format!("http://{address}/a/long/path?of=it");
        let answer = curl(&self.0, "client", "web", &url, &headers);
        assert!(answer.contains("\"name\":\"echo\""), "{service}: {answer}");
        let url = format!("http://127.0.0.1:{LOG}/{key}");
        let log: Vec<Value> =
            serde_json::from_str(&curl(&self.0, "server", "echo", &url, &[])).unwrap();
        let head = |entry: &Value| serde_json::from_value(entry["headers"].clone()).unwrap();
        let fields = |entry| {
            let fields: Vec<(String, String)> = head(entry);
            fields.into_iter().collect()
        };
        Asked {
            received: log.iter().map(fields).collect(),
        }
    }

    /// The spans of traces of which all have come, the one that was asked for last among them.
    fn taken(&self, last: &str, count: usize) -> Vec<Value> {
        let url = format!("http://127.0.0.1:{TAKEN}/");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let taken = curl(&self.0, "server", "collector", &url, &[]);
            let taken: Vec<Value> = serde_json::from_str(&taken).unwrap();
            let of_last = taken.iter().filter(|span| span["trace"] == last).count();
            if of_last >= count {
                return taken;
            }
            assert!(Instant::now() < deadline, "{last} is not among {taken:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Asked {
    /// The trace and span that the server was told last, by W3C's header.
    fn w3c(&self) -> (String, String, String) {
        let told = &self.received.last().unwrap()["traceparent"];
        let mut parts = told.split('-').skip(1).map(str::to_owned);
        (
            parts.next().unwrap(),
            parts.next().unwrap(),
            parts.next().unwrap(),
        )
    }
}

fn parent(trace: &str, flags: &str) -> String {
    format!("traceparent: 00-{trace}-00f067aa0ba902b7-{flags}")
}

fn of<'a>(taken: &'a [Value], trace: &str) -> Vec<&'a Value> {
    taken.iter().filter(|span| span["trace"] == trace).collect()
}

fn kind<'a>(spans: &[&'a Value], kind: &str) -> Vec<&'a Value> {
    spans
        .iter()
        .copied()
        .filter(|span| span["kind"] == kind)
        .collect()
}

#[test]
fn traces_are_told_as_resources_and_requests_say() {
    let bench = Bench::new();
    let trace = |digit: &str| digit.repeat(32);
    // Vector 70.
    let mut wrong = Vec::new();
    let mut expect = Vec::new();
    for (name, service, flags, exported) in [
        ("all, dropped", "all", Some("00"), false),
        ("all", "all", None, true),
        ("none, kept", "none", Some("01"), true),
        ("none", "none", None, false),
        ("quiet, kept", "quiet", Some("01"), false),
    ] {
        let own = trace(&expect.len().to_string().replace('0', "f"));
        let header = flags.map(|flags| parent(&own, flags));
        let headers: Vec<&str> = header.iter().map(String::as_str).collect();
        let asked = bench.ask(service, &headers);
        let (told, span, decided) = asked.w3c();
        let kept = exported || service == "quiet";
        if (decided == "01") != kept || (flags.is_some() && told != own) {
            wrong.push(format!("{name}: told {told} {decided}"));
        }
        expect.push((name, told, span, exported));
    }

    let untouched = parent(&trace("a"), "01");
    let off = bench.ask("off", &[&untouched, "tracestate: a=1"]);
    assert_eq!(
        format!("traceparent: {}", off.received[0]["traceparent"]),
        untouched
    );
    assert_eq!(off.received[0]["tracestate"], "a=1");

    let failing = ["x-echo-status: 503", "x-echo-times: 1"];
    let again = bench.ask("all", &failing);
    let posted = bench.ask("posted", &["x-tenant: acme"]);
    let b3 = format!("b3: {}-e457b5a2e4d86bd1-1", trace("b"));
    let zipkin = bench.ask("zipkin", &[&b3]);
    let several = [
        format!("x-b3-traceid: {}", trace("c")),
        "x-b3-spanid: e457b5a2e4d86bd1".to_owned(),
    ];
    let several = bench.ask("both", &[&several[0], &several[1], "x-b3-flags: 1"]);
    let both = bench.ask("both", &[&parent(&trace("d"), "01")]);

    // Of what was asked before, all has come with what comes for the last of a provider.
    let taken = bench.taken(&again.w3c().0, 3);
    for (name, trace, span, exported) in &expect {
        let spans = of(&taken, trace);
        let (servers, clients) = (kind(&spans, "SERVER"), kind(&spans, "CLIENT"));
        match (exported, &*servers, &*clients) {
            (false, [], []) => {}
            (true, [server], [client])
                if client["span"] == **span && client["parent"] == server["span"] => {}
            _ => wrong.push(format!("{name}: {spans:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let spans = of(&taken, &trace("a"));
    assert_eq!(spans.len(), 2, "off propagates nothing, and reports");
    assert!(
        spans
            .iter()
            .any(|span| span["parent"] == "00f067aa0ba902b7")
    );

    // Each attempt is a span of its own, and the server is told by each of them.
    assert_eq!(again.received.len(), 2);
    let spans = of(&taken, &again.w3c().0);
    let (servers, clients) = (kind(&spans, "SERVER"), kind(&spans, "CLIENT"));
    let codes: Vec<_> = clients
        .iter()
        .map(|c| c["tags"]["http.status_code"].as_str())
        .collect();
    assert_eq!(codes, [Some("503"), Some("200")], "{spans:#?}");
    for (client, received) in clients.iter().zip(&again.received) {
        assert_eq!(client["parent"], servers[0]["span"]);
        let told = &received["traceparent"];
        assert!(told.contains(client["span"].as_str().unwrap()), "{told}");
    }
    let server = servers[0];
    assert_eq!(server["name"], "all.shop.mesh.internal:80/*");
    assert_eq!(
        (&server["how"], &server["service"]),
        (&"grpc".into(), &"wp.shop".into())
    );
    for (key, want) in [
        ("http.method", "GET"),
        ("http.url", "http://10.96.0.21/a/long/path?of=it"),
        ("http.status_code", "200"),
        ("http.protocol", "HTTP/1.1"),
        ("response_flags", "-"),
        ("request_size", "0"),
        ("peer.address", "10.77.1.11"),
        ("upstream_cluster", "outbound|80||all.shop.mesh.internal"),
        ("istio.mesh_id", "cluster.local"),
        ("istio.source_instance_name", "web"),
        ("istio.source_namespace", "shop"),
        ("istio.destination_canonical_service", "echo"),
    ] {
        assert_eq!(server["tags"][key], want, "{key}");
    }
    let id = &again.received[0]["x-request-id"];
    assert_eq!(server["tags"]["guid:x-request-id"], **id);

    let taken = bench.taken(&posted.w3c().0, 2);
    let spans = of(&taken, &posted.w3c().0);
    let server = kind(&spans, "SERVER")[0];
    assert_eq!(
        (&server["how"], &server["path"]),
        (&"http".into(), &"/v1/traces".into())
    );
    assert_eq!(server["key"], "secret");
    for (key, want) in [
        ("site", "north"),
        ("home", "nowhere"),
        ("tenant", "acme"),
        ("plan", "free"),
        ("http.url", "http://10.96.0.23/a/long/path"),
    ] {
        assert_eq!(server["tags"][key], want, "{key}");
    }
    let tags = server["tags"].as_object().unwrap();
    assert!(
        tags.keys().all(|key| !key.starts_with("istio.")),
        "{tags:?}"
    );

    let taken = bench.taken(&trace("b"), 2);
    let spans = of(&taken, &trace("b"));
    let (server, client) = (kind(&spans, "SERVER")[0], kind(&spans, "CLIENT")[0]);
    assert_eq!(
        (&server["how"], &server["path"]),
        (&"zipkin".into(), &"/api/v2/spans".into())
    );
    assert_eq!(server["parent"], "e457b5a2e4d86bd1");
    let told = &zipkin.received[0];
    let own = client["span"].as_str().unwrap();
    let within = server["span"].as_str().unwrap();
    assert_eq!(told["b3"], format!("{}-{own}-1-{within}", trace("b")));
    assert_eq!(told["x-b3-spanid"], own);
    assert!(!told.contains_key("traceparent"), "{told:?}");

    let taken = bench.taken(&trace("d"), 2);
    let told = &several.received[0];
    assert_eq!(
        (&*told["x-b3-flags"], &*told["x-b3-traceid"]),
        ("1", &*trace("c"))
    );
    assert!(told["traceparent"].contains(&trace("c")), "{told:?}");
    assert_eq!(of(&taken, &trace("c")).len(), 2);
    let told = &both.received[0];
    assert_eq!(
        (&*told["x-b3-sampled"], &*told["x-b3-traceid"]),
        ("1", &*trace("d"))
    );
    assert!(told["traceparent"].contains(&trace("d")), "{told:?}");
}

#[test]
fn what_is_there_is_told_before_the_waypoint_ends() {
    let mut bench = Bench::new();
    let asked = bench.ask("all", &[]);
    let stopped = Instant::now();
    bench.0.stop("gate");
    let (trace, ..) = asked.w3c();
    let _both = bench.taken(&trace, 2);
    let took = stopped.elapsed();
    // A batch would have waited for more for five seconds.
    assert!(took < Duration::from_secs(4), "{took:?}");
    bench.0.ended("gate");
    bench.0.daemon("gate");
    eventually("a request passes the waypoint", || {
        let answer = curl(&bench.0, "client", "web", "http://10.96.0.27/", &[]);
        match answer.contains("\"name\":\"echo\"") {
            true => Ok(()),
            false => Err(answer),
        }
    });
}
