//! Virtual services become what they mean.

use std::sync::Arc;
use std::time::Duration;

use super::super::loaded;
use super::super::virtual_services::mesh;
use crate::model::declaration::{Delegate, Origin, Route};
use crate::model::route::{
    Abort, Backend, BackendKind, BackendRef, Cors, DirectResponse, Fault, Filter, Fraction,
    HeaderChange, Kind, Match, Mirror, OriginPattern, PathChange, PathMatch, Redirect, Regex,
    Retry, RetryOn, Rewrite, Rule, TextMatch, Timeouts, UnmatchedPreflights,
};

/// The routes of a file beside [`mesh`]; warnings are of no matter here.
fn routes(text: &str) -> Vec<Route> {
    let files = [("a.toml", mesh()), ("b.toml", text.to_owned())];
    let loaded = loaded(&files);
    assert_eq!(loaded.report.errors(), 0, "{}", loaded.report);
    loaded.mesh.unwrap().routes
}

fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn regex(source: &str) -> Regex {
    Regex::new(source).unwrap()
}

fn exact(t: &str) -> TextMatch {
    TextMatch::Exact(text(t))
}

fn millionths(numerator: u32) -> Fraction {
    Fraction {
        numerator,
        denominator: 1_000_000,
    }
}

const EVERY_FIELD: &str = r#"
[[virtual-service]]
name = "every.field"
namespace = "shop"
labels = { team = "a" }
hosts = ["cart", "v1.shop.mesh.internal", "*.example.com", "*"]
gateways = ["mesh"]
export-to = ["*"]

[[virtual-service.http]]
name = "first"
match = [
  { uri = { exact = "/a" }, ignore-uri-case = true, scheme = { exact = "http" }, method = { exact = "GET" }, authority = { prefix = "cart" }, port = 80, source-namespace = "web", gateways = ["mesh"] },
  { uri = { prefix = "/b" }, headers = { X-A = { exact = "1" }, x-b = {}, x-c = { exact = "" }, x-d = { regex = "*" }, x-e = { regex = "e+" }, x-f = { prefix = "f" } }, without-headers = { X-G = {} }, query-params = { Q = { exact = "1" }, r = {} } },
  { uri = { regex = "/c/.*" }, method = { regex = "GET|PUT" } },
]
route = [
  { destination = { host = "v1", subset = "one", port = { number = 80 } }, weight = 25, headers = { request = { set = { x-a = "b" } } } },
  { destination = { host = "v2.shop.mesh.internal" }, weight = 75 },
]
timeout = "1h30m"
retries = { attempts = 3, per-try-timeout = "2s", retry-on = "5xx, gateway-error,503,retriable-status-codes", retry-remote-localities = true, retry-ignore-previous-hosts = false, backoff = "10ms" }
fault = { delay = { fixed-delay = "200ms", percentage = { value = 0.1 } }, abort = { grpc-status = "UNAVAILABLE", percentage = { value = 100 } } }
mirrors = [{ destination = { host = "v2" }, percentage = { value = 12.5 } }, { destination = { host = "v1" } }]
cors-policy = { allow-origins = [{ exact = "https://Shop.example:443" }, { prefix = "https://a" }, { regex = "https://.*" }, { exact = "*" }], allow-methods = ["GET"], allow-headers = ["X-A"], expose-headers = ["*"], allow-credentials = true, max-age = "1h", unmatched-preflights = "IGNORE" }
headers = { request = { set = { ":authority" = "a.example" }, add = { X-B = "1" }, remove = ["X-C"] }, response = { remove = ["server"] } }
rewrite = { uri = "/d", authority = "d.example:81" }
"#;

#[test]
fn every_field_of_a_virtual_service_is_taken() {
    let routes = routes(EVERY_FIELD);
    let [route] = routes.as_slice() else { panic!() };
    assert_eq!(route.key.kind, Kind::VirtualService);
    assert_eq!(
        (&*route.key.namespace, &*route.key.name),
        ("shop", "every.field")
    );
    let origin = Origin {
        file: text("b.toml"),
        line: 2,
    };
    assert_eq!(route.origin, origin);
    assert_eq!((route.parents.len(), route.delegates.len()), (0, 0));
    let hosts = [
        "cart.shop.mesh.internal",
        "v1.shop.mesh.internal",
        "*.example.com",
        "*",
    ];
    assert_eq!(route.hosts, hosts.map(text));
    let [rule] = route.rules.as_slice() else {
        panic!()
    };
    assert_eq!(rule.matches, matches());
    assert_eq!(rule.backends, backends());
    assert_eq!(rule.filters, filters());
    let timeouts = Timeouts {
        request: Some(Duration::from_secs(5400)),
        backend_request: None,
    };
    assert_eq!(
        (&*rule.name, rule.line, rule.timeouts),
        ("first", 10, timeouts)
    );
    let retry = Retry {
        attempts: 3,
        on: [RetryOn::ServerError, RetryOn::GatewayError].into(),
        codes: [503].into(),
        backoff: Some(Duration::from_millis(10)),
        per_try_timeout: Some(Duration::from_secs(2)),
        ignore_previous_hosts: false,
        remote_localities: true,
    };
    assert_eq!(rule.retry, Some(retry));
    let fault = Fault {
        delay: Some((Duration::from_millis(200), millionths(1_000))),
        abort: Some((Abort::Grpc(14), millionths(1_000_000))),
    };
    assert_eq!(rule.fault, fault);
}

fn matches() -> Vec<Match> {
    let starts = |t: &str| TextMatch::Prefix(text(t));
    vec![
        Match {
            path: PathMatch::Exact(text("/a")),
            ignore_case: true,
            method: Some(exact("GET")),
            scheme: Some(exact("http")),
            authority: Some(starts("cart")),
            port: Some(80),
            source_namespace: Some(text("web")),
            ..Match::default()
        },
        Match {
            path: PathMatch::TextPrefix(text("/b")),
            headers: vec![
                (text("x-a"), exact("1")),
                (text("x-b"), TextMatch::Present),
                (text("x-c"), TextMatch::Present),
                (text("x-d"), TextMatch::Present),
                (text("x-e"), TextMatch::Regex(regex("e+"))),
                (text("x-f"), starts("f")),
            ],
            without_headers: vec![(text("x-g"), TextMatch::Present)],
            query: vec![(text("Q"), exact("1")), (text("r"), TextMatch::Present)],
            ..Match::default()
        },
        Match {
            path: PathMatch::Regex(regex("/c/.*")),
            method: Some(TextMatch::Regex(regex("GET|PUT"))),
            ..Match::default()
        },
    ]
}

fn to(host: &str, line: u32) -> BackendRef {
    BackendRef {
        kind: BackendKind::Hostname,
        name: text(host),
        namespace: text("shop"),
        port: None,
        subset: None,
        origin: Origin {
            file: text("b.toml"),
            line,
        },
    }
}

fn backends() -> Vec<Backend<BackendRef>> {
    let first = BackendRef {
        port: Some(80),
        subset: Some(text("one")),
        ..to("v1", 18)
    };
    let change = HeaderChange {
        set: vec![(text("x-a"), text("b"))],
        ..HeaderChange::default()
    };
    vec![
        Backend {
            to: first,
            weight: 25,
            filters: vec![Filter::RequestHeaders(change)],
        },
        Backend {
            to: to("v2.shop.mesh.internal", 19),
            weight: 75,
            filters: vec![],
        },
    ]
}

fn filters() -> Vec<Filter<BackendRef>> {
    vec![
        Filter::Cors(Cors {
            allow_origins: vec![
                OriginPattern::Exact(text("https://shop.example")),
                OriginPattern::Prefix(text("https://a")),
                OriginPattern::Regex(regex("https://.*")),
                OriginPattern::Any,
            ],
            allow_methods: vec![text("GET")],
            allow_headers: vec![text("x-a")],
            expose_headers: vec![text("*")],
            allow_credentials: true,
            max_age: Some(Duration::from_secs(3600)),
            unmatched_preflights: UnmatchedPreflights::Ignore,
        }),
        Filter::Rewrite(Rewrite {
            host: Some(text("d.example:81")),
            path: Some(PathChange::Text(text("/d"))),
        }),
        Filter::RequestHeaders(HeaderChange {
            remove: vec![text("x-c")],
            set: vec![(text("host"), text("a.example"))],
            add: vec![(text("x-b"), text("1"))],
        }),
        Filter::ResponseHeaders(HeaderChange {
            remove: vec![text("server")],
            ..HeaderChange::default()
        }),
        Filter::Mirror(Mirror {
            to: to("v2", 24),
            share: millionths(125_000),
        }),
        Filter::Mirror(Mirror {
            to: to("v1", 24),
            share: Fraction::ALL,
        }),
    ]
}

/// The rules of a virtual service of these.
fn rules(http: &str) -> Vec<Rule<BackendRef>> {
    let head = "[[virtual-service]]\nname = \"r\"\nnamespace = \"shop\"\nhosts = [\"cart\"]\n";
    let mut routes = routes(&format!("{head}http = [{http}]\n"));
    routes.remove(0).rules
}

const TO: &str = "route = [{ destination = { host = \"v1\" } }]";

#[test]
fn what_is_left_out_is_as_istio_has_it() {
    let rule = &rules(&format!("{{ {TO} }}"))[0];
    assert_eq!(rule.matches, [Match::default()]);
    let alone = Backend {
        to: to("v1", 5),
        weight: 1,
        filters: vec![],
    };
    assert_eq!(rule.backends, [alone]);
    assert_eq!((rule.timeouts, &rule.retry), (Timeouts::default(), &None));
    assert_eq!((&rule.fault, rule.filters.len()), (&Fault::default(), 0));

    // A single destination has it all.
    let rule = &rules("{ route = [{ destination = { host = \"v1\" }, weight = 0 }] }")[0];
    assert_eq!(rule.backends[0].weight, 1);
    let rule = &rules(&format!(
        "{{ timeout = \"0s\", retries = {{ attempts = 0 }}, {TO} }}"
    ))[0];
    assert_eq!(rule.timeouts, Timeouts::default());
    let retry = rule.retry.clone().unwrap();
    assert_eq!((retry.attempts, retry.on), (0, Retry::usual().on));
    let rule = &rules(&format!(
        "{{ fault = {{ abort = {{ http-status = 418 }} }}, {TO} }}"
    ))[0];
    let (abort, share) = rule.fault.abort.unwrap();
    assert_eq!((abort, share.takes(0.0)), (Abort::Http(418), false));
    let cors = "cors-policy = { allow-origins = [{ exact = \"*\" }] }";
    let rule = &rules(&format!("{{ {cors}, {TO} }}"))[0];
    let Filter::Cors(cors) = &rule.filters[0] else {
        panic!()
    };
    assert_eq!(
        (cors.max_age, cors.unmatched_preflights),
        (None, UnmatchedPreflights::Forward)
    );
}

#[test]
fn answers_of_a_virtual_service_are_taken() {
    let redirect = Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: 301,
    };
    let direct = |status, body| DirectResponse {
        status,
        body: text(body),
    };
    for (written, want) in [
        ("redirect = {}", Filter::Redirect(redirect.clone())),
        (
            "redirect = { uri = \"/x\", authority = \"a.example:81\", scheme = \"https\", redirect-code = 307 }",
            Filter::Redirect(Redirect {
                scheme: Some(text("https")),
                host: Some(text("a.example")),
                port: Some(81),
                path: Some(PathChange::Full(text("/x"))),
                status: 307,
            }),
        ),
        (
            "redirect = { uri-prefix = \"/x\", port = 81 }",
            Filter::Redirect(Redirect {
                port: Some(81),
                path: Some(PathChange::Text(text("/x"))),
                ..redirect.clone()
            }),
        ),
        (
            "redirect = { derive-port = \"FROM_PROTOCOL_DEFAULT\" }",
            Filter::Redirect(Redirect {
                port: Some(80),
                ..redirect.clone()
            }),
        ),
        (
            "redirect = { derive-port = \"FROM_REQUEST_PORT\" }",
            Filter::Redirect(redirect),
        ),
        (
            "direct-response = { status = 503 }",
            Filter::Direct(direct(503, "")),
        ),
        (
            "direct-response = { status = 200, body = { string = \"well\" } }",
            Filter::Direct(direct(200, "well")),
        ),
    ] {
        let rules = rules(&format!("{{ {written} }}"));
        assert_eq!(rules[0].filters, [want], "{written}");
        assert_eq!(rules[0].backends, [], "{written}");
    }
    let rewrite = "rewrite = { uri-regex-rewrite = { match = '^/v(\\d)', rewrite = '/\\1' } }";
    let rules = rules(&format!("{{ {rewrite}, {TO} }}"));
    let path = Some(PathChange::Regex(regex("^/v(\\d)"), text("/\\1")));
    assert_eq!(
        rules[0].filters,
        [Filter::Rewrite(Rewrite { host: None, path })]
    );
}

#[test]
fn matches_with_names_are_told_apart() {
    let matches =
        "match = [{ name = \"a\", uri = { prefix = \"/a\" } }, { uri = { prefix = \"/b\" } }]";
    let named = rules(&format!("{{ name = \"r\", {matches}, {TO} }}, {{ {TO} }}"));
    let names: Vec<(&str, usize)> = named
        .iter()
        .map(|rule| (&*rule.name, rule.matches.len()))
        .collect();
    assert_eq!(names, [("r.a", 1), ("r", 1), ("", 1)]);
    assert_eq!(&*rules(&format!("{{ {matches}, {TO} }}"))[0].name, "a");
}

#[test]
fn a_match_by_labels_takes_nothing() {
    let labelled = "match = [{ source-labels = { app = \"web\" } }]";
    let labelled = rules(&format!("{{ {labelled}, {TO} }}"));
    assert_eq!(labelled[0].matches, []);
}

#[test]
fn delegates_are_named_by_rule() {
    let routes = routes(
        r#"
[[virtual-service]]
name = "root"
namespace = "shop"
hosts = ["cart"]
http = [{ match = [{ name = "a", uri = { prefix = "/a" } }, { uri = { prefix = "/b" } }], delegate = { name = "d" } },
        { delegate = { name = "d", namespace = "other" } }]
[[virtual-service]]
name = "d"
namespace = "shop"
http = [{ route = [{ destination = { host = "v1" } }] }]
"#,
    );
    let delegate = |rule, namespace| Delegate {
        rule,
        namespace: text(namespace),
        name: text("d"),
    };
    let want = [
        delegate(0, "shop"),
        delegate(1, "shop"),
        delegate(2, "other"),
    ];
    assert_eq!(routes[0].delegates, want);
    assert_eq!(routes[1].hosts, []);
}
