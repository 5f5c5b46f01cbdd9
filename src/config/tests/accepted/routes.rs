//! Routes become what they mean.

use std::sync::Arc;
use std::time::Duration;

use super::super::loaded;
use super::super::routes::MESH;
use crate::config::diagnose::Style;
use crate::config::report;
use crate::model::declaration::{Origin, ParentKind, ParentRef, Route};
use crate::model::route::{
    Backend, BackendKind, BackendRef, Cors, Fault, Filter, Fraction, HeaderChange, Kind, Match,
    Mirror, OriginPattern, PathChange, PathMatch, PersistBy, Persistence, Redirect, Regex, Retry,
    RetryOn, Rewrite, RouteKey, Rule, TextMatch, Timeouts, UnmatchedPreflights,
};

/// The routes of a file beside [`MESH`]; warnings are of no matter here.
fn routes(text: &str) -> Vec<Route> {
    let files = [("a.toml", MESH.to_owned()), ("b.toml", text.to_owned())];
    let loaded = loaded(&files);
    assert_eq!(loaded.report.errors(), 0, "{}", loaded.report);
    loaded.mesh.unwrap().routes
}

fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn at(line: u32) -> Origin {
    Origin {
        file: text("b.toml"),
        line,
    }
}

fn regex(source: &str) -> Regex {
    Regex::new(source).unwrap()
}

const EVERY_FIELD: &str = r#"
[[http-route]]
name = "every.field"
namespace = "shop"
labels = { team = "a" }
parent-refs = [{ name = "cart" }, { kind = "Service", group = "core", name = "v1", namespace = "shop", port = 80 }]
hostnames = ["cart.example"]

[[http-route.rules]]
name = "first"
matches = [
  { path = { type = "Exact", value = "/a" }, method = "GET", headers = [{ name = "X-A", value = "1" }, { type = "RegularExpression", name = "x-b", value = "a|b" }] },
  { path = { type = "RegularExpression", value = "/b/.*" }, query-params = [{ name = "Q", value = "1" }, { type = "RegularExpression", name = "q", value = ".+" }] },
]
backend-refs = [
  { name = "v1", port = 80, weight = 0 },
  { kind = "Hostname", group = "networking.istio.io", name = "v2.shop.mesh.internal", port = 80, weight = 1000000, filters = [{ type = "URLRewrite", url-rewrite = { hostname = "v2.example", path = { type = "ReplaceFullPath", replace-full-path = "/c" } } }] },
  { kind = "Bucket", name = "Any Thing" },
]
timeouts = { request = "1h30m", backend-request = "500ms" }
retry = { codes = [500, 503, 500], attempts = 5, backoff = "100ms" }
session-persistence = { type = "Cookie", cookie = { name = "Session", path = "/shop", lifetime-type = "Permanent" }, absolute-timeout = "24h" }

[[http-route.rules]]
matches = [{ path = { value = "/d/" } }]
filters = [
  { type = "RequestHeaderModifier", request-header-modifier = { set = [{ name = "Host", value = "a.example" }, { name = "X-A", value = "ä b" }], add = [{ name = "x-b", value = "" }], remove = ["X-C"] } },
  { type = "ResponseHeaderModifier", response-header-modifier = { remove = ["server"] } },
  { type = "URLRewrite", url-rewrite = { path = { type = "ReplacePrefixMatch", replace-prefix-match = "" } } },
  { type = "RequestMirror", request-mirror = { backend-ref = { name = "v2", port = 80 }, percent = 5 } },
  { type = "RequestMirror", request-mirror = { backend-ref = { name = "v1", port = 80 }, fraction = { numerator = 1, denominator = 1000 } } },
  { type = "CORS", cors = { allow-origins = ["https://Shop.example:443", "http://*.b:81"], allow-methods = ["GET"], allow-headers = ["X-A"], expose-headers = ["*"], allow-credentials = true, max-age = 60 } },
  { type = "ExtensionRef", extension-ref = { group = "extensions.istio.io", kind = "WasmPlugin", name = "p" } },
]
backend-refs = [{ name = "v1", port = 80 }]

[[http-route.rules]]
filters = [{ type = "RequestRedirect", request-redirect = { scheme = "https", hostname = "a.example", port = 8443, path = { type = "ReplaceFullPath", replace-full-path = "/x" }, status-code = 308 } }]
"#;

#[test]
fn every_field_of_an_http_route_is_taken() {
    let routes = routes(EVERY_FIELD);
    let [route] = routes.as_slice() else { panic!() };
    let parent = |name, port| ParentRef {
        kind: ParentKind::Service,
        namespace: text("shop"),
        name: text(name),
        port,
        origin: at(6),
    };
    let key = RouteKey {
        kind: Kind::Http,
        namespace: text("shop"),
        name: text("every.field"),
    };
    assert_eq!(route.key, key);
    assert_eq!(route.origin, at(2));
    assert_eq!(
        route.parents,
        [parent("cart", None), parent("v1", Some(80))]
    );
    assert_eq!(route.hosts, [text("cart.example")]);
    assert_eq!(route.rules, [first(), second(), third()]);
}

fn service(name: &str, line: u32) -> BackendRef {
    BackendRef {
        kind: BackendKind::Service,
        name: text(name),
        namespace: text("shop"),
        port: Some(80),
        subset: None,
        origin: at(line),
    }
}

fn plain(line: u32) -> Rule<BackendRef> {
    Rule {
        name: text(""),
        line,
        matches: vec![Match::default()],
        filters: vec![],
        backends: vec![],
        timeouts: Timeouts::default(),
        retry: None,
        persistence: None,
        fault: Fault::default(),
    }
}

fn first() -> Rule<BackendRef> {
    let exact = |t: &str| TextMatch::Exact(text(t));
    let matches = |t: &str| TextMatch::Regex(regex(t));
    let usual = Retry::usual();
    let mut on = usual.on.clone();
    on.extend([RetryOn::Reset, RetryOn::AttemptTimeout]);
    Rule {
        name: text("first"),
        matches: vec![
            Match {
                path: PathMatch::Exact(text("/a")),
                method: Some(exact("GET")),
                headers: vec![(text("x-a"), exact("1")), (text("x-b"), matches("a|b"))],
                ..Match::default()
            },
            Match {
                path: PathMatch::Regex(regex("/b/.*")),
                query: vec![(text("Q"), exact("1")), (text("q"), matches(".+"))],
                ..Match::default()
            },
        ],
        backends: first_backends(),
        timeouts: Timeouts {
            request: Some(Duration::from_secs(5400)),
            backend_request: Some(Duration::from_millis(500)),
        },
        retry: Some(Retry {
            attempts: 5,
            on,
            codes: [500, 503].into(),
            backoff: Some(Duration::from_millis(100)),
            ..usual
        }),
        persistence: Some(Persistence {
            by: PersistBy::Cookie {
                name: text("Session"),
                path: text("/shop"),
                permanent: true,
            },
            absolute_timeout: Some(Duration::from_secs(86400)),
        }),
        ..plain(9)
    }
}

fn first_backends() -> Vec<Backend<BackendRef>> {
    let backend = |to, weight, filters| Backend {
        to,
        weight,
        filters,
    };
    let host = BackendRef {
        kind: BackendKind::Hostname,
        name: text("v2.shop.mesh.internal"),
        ..service("", 17)
    };
    let nobody = BackendRef {
        kind: BackendKind::Unknown(text("Bucket")),
        name: text("Any Thing"),
        port: None,
        ..service("", 18)
    };
    let rewrite = Filter::Rewrite(Rewrite {
        host: Some(text("v2.example")),
        path: Some(PathChange::Full(text("/c"))),
    });
    vec![
        backend(service("v1", 16), 0, vec![]),
        backend(host, 1_000_000, vec![rewrite]),
        backend(nobody, 1, vec![]),
    ]
}

fn second() -> Rule<BackendRef> {
    let share = |numerator, denominator| Fraction {
        numerator,
        denominator,
    };
    let mirror = |to, share| Filter::Mirror(Mirror { to, share });
    Rule {
        matches: vec![Match {
            path: PathMatch::Prefix(text("/d/")),
            ..Match::default()
        }],
        filters: vec![
            Filter::RequestHeaders(HeaderChange {
                remove: vec![text("x-c")],
                set: vec![
                    (text("host"), text("a.example")),
                    (text("x-a"), text("ä b")),
                ],
                add: vec![(text("x-b"), text(""))],
            }),
            Filter::ResponseHeaders(HeaderChange {
                remove: vec![text("server")],
                ..HeaderChange::default()
            }),
            Filter::Rewrite(Rewrite {
                host: None,
                path: Some(PathChange::Prefix(text(""))),
            }),
            mirror(service("v2", 30), share(5, 100)),
            mirror(service("v1", 31), share(1, 1000)),
            Filter::Cors(cors()),
            Filter::Unresolved(text("WasmPlugin p is not there")),
        ],
        backends: vec![Backend {
            to: service("v1", 35),
            weight: 1,
            filters: vec![],
        }],
        ..plain(24)
    }
}

fn cors() -> Cors {
    Cors {
        allow_origins: vec![
            OriginPattern::Exact(text("https://shop.example")),
            OriginPattern::Wildcard(text("http://"), text(".b:81")),
        ],
        allow_methods: vec![text("GET")],
        allow_headers: vec![text("x-a")],
        expose_headers: vec![text("*")],
        allow_credentials: true,
        max_age: Some(Duration::from_secs(60)),
        unmatched_preflights: UnmatchedPreflights::Refuse,
    }
}

fn third() -> Rule<BackendRef> {
    Rule {
        filters: vec![Filter::Redirect(Redirect {
            scheme: Some(text("https")),
            host: Some(text("a.example")),
            port: Some(8443),
            path: Some(PathChange::Full(text("/x"))),
            status: 308,
        })],
        ..plain(37)
    }
}

/// One rule of a route of that kind, inline.
fn one(kind: &str, rule: &str) -> Rule<BackendRef> {
    let parents = "parent-refs = [{ name = \"cart\" }]";
    let text = format!(
        "[[{kind}]]\nname = \"r\"\nnamespace = \"shop\"\n{parents}\nrules = [{{ {rule} }}]\n"
    );
    let [route] = routes(&text).try_into().unwrap();
    let [rule] = route.rules.try_into().unwrap();
    rule
}

#[test]
fn what_a_route_leaves_out_is_filled_in() {
    let redirect = "filters = [{ type = \"RequestRedirect\", request-redirect = {} }]";
    let rule = one("http-route", redirect);
    assert_eq!(rule.matches, [Match::default()]);
    let want = Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: 302,
    };
    assert_eq!(rule.filters, [Filter::Redirect(want)]);
    let rule = one(
        "http-route",
        "matches = [{}, { path = {} }], timeouts = { request = \"0s\", backend-request = \"2s\" }, retry = {}, \
         session-persistence = { session-name = \"s\" }, filters = [{ type = \"CORS\", cors = { allow-origins = [\"*\"] } }]",
    );
    assert_eq!(rule.matches, [Match::default(), Match::default()]);
    assert_eq!(rule.timeouts.request, None);
    assert_eq!(rule.timeouts.backend_request, Some(Duration::from_secs(2)));
    let retry = rule.retry.unwrap();
    assert_eq!(
        (retry.attempts, retry.codes.len(), retry.backoff),
        (2, 0, None)
    );
    let by = PersistBy::Cookie {
        name: text("s"),
        path: text("/"),
        permanent: false,
    };
    assert_eq!(rule.persistence.unwrap().by, by);
    let [Filter::Cors(cors)] = rule.filters.as_slice() else {
        panic!()
    };
    assert_eq!(cors.allow_origins, [OriginPattern::Any]);
    assert_eq!(cors.max_age, Some(Duration::from_secs(5)));
    let header = "session-persistence = { type = \"Header\", header = { name = \"X-S\" } }";
    let by = PersistBy::Header { name: text("x-s") };
    assert_eq!(one("http-route", header).persistence.unwrap().by, by);
}

#[test]
fn methods_of_grpc_are_paths() {
    let exact = |t: &str| PathMatch::Exact(text(t));
    let prefix = |t: &str| PathMatch::Prefix(text(t));
    let pattern = |t: &str| PathMatch::Regex(regex(t));
    let by_pattern = "type = \"RegularExpression\", ";
    for (kind, method, want) in [
        (
            "",
            "service = \"shop.Cart\", method = \"Add\"",
            exact("/shop.Cart/Add"),
        ),
        (
            "type = \"Exact\", ",
            "service = \"shop.Cart\"",
            prefix("/shop.Cart/"),
        ),
        ("", "method = \"Add\"", pattern("/[^/]+/Add")),
        (
            by_pattern,
            "service = \"s.*\", method = \"A.+\"",
            pattern("/s.*/A.+"),
        ),
        (by_pattern, "service = \"s.*\"", pattern("/s.*/.+")),
        (by_pattern, "method = \"A.+\"", pattern("/[^/]+/A.+")),
        (
            by_pattern,
            "service = \"a|b\", method = \"c|d\"",
            pattern("/(?:a|b)/(?:c|d)"),
        ),
    ] {
        let rule = one(
            "grpc-route",
            &format!("matches = [{{ method = {{ {kind}{method} }} }}]"),
        );
        assert_eq!(rule.matches[0].path, want, "{kind}{method}");
    }
    let rule = one(
        "grpc-route",
        "matches = [{ headers = [{ name = \"a\", value = \"b\" }] }]",
    );
    assert_eq!(rule.matches[0].path, prefix("/"));
    assert_eq!(rule.matches[0].headers.len(), 1);
    assert_eq!(one("grpc-route", "").matches, [Match::default()]);
}

#[test]
fn routes_of_all_kinds_are_in_the_order_they_were_written() {
    let route = |kind: &str, name: &str, port: u16| {
        format!(
            "[[{kind}]]\nname = \"{name}\"\nnamespace = \"shop\"\nparent-refs = [{{ name = \"cart\", port = {port} }}]\n\
             hostnames = [\"*.a.example\"]\nrules = [{{ backend-refs = [{{ name = \"v1\", port = 80 }}] }}]\n"
        )
    };
    let tcp = route("tcp-route", "1", 90).replace("hostnames = [\"*.a.example\"]\n", "");
    let text = tcp + &route("tls-route", "2", 443) + &route("grpc-route", "3", 80);
    let routes = routes(&(text + &route("http-route", "4", 9000)));
    let names: Vec<_> = routes
        .iter()
        .map(|route| (&*route.key.name, route.key.kind))
        .collect();
    let want = [
        ("1", Kind::Tcp),
        ("2", Kind::Tls),
        ("3", Kind::Grpc),
        ("4", Kind::Http),
    ];
    assert_eq!(names, want);
    // Connections are not matched by anything that a rule says.
    assert_eq!(routes[0].rules[0].matches, []);
    assert_eq!(routes[1].rules[0].matches, []);
    assert_eq!(routes[1].hosts, [Arc::from("*.a.example")]);
}

#[test]
fn routes_are_counted() {
    let files = [
        ("a.toml", MESH.to_owned()),
        ("b.toml", EVERY_FIELD.to_owned()),
    ];
    let loaded = loaded(&files);
    let said = report::text(&loaded, &Style::for_stream(false, false, 80));
    assert!(
        said.ends_with("4 services, 2 gateways, 1 http route\n"),
        "{said}"
    );
    assert_eq!(report::json(&loaded)["resources"]["http-route"], 1);
    assert_eq!(report::json(&loaded)["resources"]["tcp-route"], 0);
}
