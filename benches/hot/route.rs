//! Which rule a request gets, and its path on the way there.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lateen::model::declaration::Origin;
use lateen::model::route::{
    Asked, Fault, Kind, Match, PathMatch, PathNormalization, Regex, Route, RouteKey, Rule,
    Selection, Table, Target, TextMatch, Timeouts,
};
use lateen::model::service::AppProtocol;
use lateen::model::waypoint::{BoundPort, Resources};

use crate::clock::Clock;

/// How the path of the rule with a number is written.
type Written = fn(usize) -> PathMatch;

/// Name, kind of route, and how its rules are written.
const TABLES: [(&str, Kind, Written); 4] = [
    ("exact", Kind::Http, |n| PathMatch::Exact(path(n))),
    ("prefix", Kind::Http, |n| PathMatch::Prefix(path(n))),
    ("pattern", Kind::Http, |n| {
        let pattern = Regex::new(&format!("/api/v1/item-{n:04}(/.*)?"));
        PathMatch::Regex(pattern.expect("it is a regular expression"))
    }),
    ("virtual-service", Kind::VirtualService, |n| {
        PathMatch::TextPrefix(path(n))
    }),
];

pub(crate) fn benches(c: &mut Criterion<Clock>) {
    for (name, kind, written) in TABLES {
        for rules in [1, 100, 1_000] {
            select(c, name, &table(kind, rules, written), rules);
        }
    }
    normalise(c);
}

fn select(c: &mut Criterion<Clock>, name: &str, table: &Table, rules: usize) {
    let headers = headers();
    let paths: Vec<Arc<str>> = (0..rules).map(path).collect();
    let mut paths = paths.iter().cycle();
    let mut next = || {
        let path = paths.next()?;
        let asked = Asked {
            method: &Method::GET,
            path: black_box(path),
            query: Some("q=1&animal=whale"),
            authority: "echo.shop.mesh.internal",
            scheme: "http",
            headers: &headers,
            port: 80,
            source_namespace: "shop",
        };
        Some(table.select(&asked))
    };
    // What no rule takes would not be what is to be measured.
    assert!(matches!(next(), Some(Selection::Rule(_))));
    let mut group = c.benchmark_group(format!("select-{name}"));
    group.bench_function(BenchmarkId::from_parameter(rules), |b| {
        b.iter(|| black_box(next()).is_some());
    });
    group.finish();
}

fn normalise(c: &mut Criterion<Clock>) {
    let mut group = c.benchmark_group("normalised");
    for (name, path) in [
        ("as-it-is", "/api/v1/item-17/parts/4711"),
        ("changed", "/api/./v1/%69tem-17/../parts\\4711"),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| PathNormalization::Base.apply(black_box(path)));
        });
    }
    group.finish();
}

/// None of them begins with another.
fn path(n: usize) -> Arc<str> {
    Arc::from(format!("/api/v1/item-{n:04}"))
}

/// As many fields as a browser sends.
fn headers() -> HeaderMap {
    let names = (0..12).map(|n| format!("x-field-{n}"));
    let names = names.chain(["version".to_owned()]);
    let field = |name: String| {
        let name = HeaderName::try_from(name).expect("it is a name");
        (name, HeaderValue::from_static("two"))
    };
    names.map(field).collect()
}

/// A table of so many rules, each with a header and a parameter to meet.
fn table(kind: Kind, rules: usize, written: Written) -> Table {
    let key = RouteKey {
        kind,
        namespace: Arc::from("shop"),
        name: Arc::from("echo"),
    };
    let route = Route {
        key: key.clone(),
        origin: Origin {
            file: Arc::from("shop.toml"),
            line: 1,
        },
        server_names: Vec::new(),
        rules: (0..rules).map(|n| rule(written(n))).collect(),
    };
    let resources = Resources {
        routes: [(key.clone(), Arc::new(route))].into(),
        ..Resources::default()
    };
    let port = BoundPort {
        port: 80,
        name: Arc::from("http"),
        protocol: AppProtocol::Http11,
        routes: vec![key],
        general: Vec::new(),
    };
    Table::new(&resources, &port).expect("its route is there")
}

fn rule(path: PathMatch) -> Rule<Target> {
    let is = |text: &str| TextMatch::Exact(Arc::from(text));
    let matched = Match {
        path,
        headers: vec![(Arc::from("version"), is("two"))],
        query: vec![(Arc::from("animal"), is("whale"))],
        ..Match::default()
    };
    Rule {
        name: Arc::from(""),
        line: 1,
        matches: vec![matched],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        persistence: None,
        fault: Fault::default(),
    }
}
