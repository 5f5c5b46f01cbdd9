//! Routes and requests in a few words, for the tables of this room.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::model::service::AppProtocol;
use crate::model::testing::key;
use crate::model::waypoint::{BoundPort, Resources};

pub(super) fn exact(path: &str) -> Match {
    Match {
        path: PathMatch::Exact(Arc::from(path)),
        ..Match::default()
    }
}

pub(super) fn prefix(path: &str) -> Match {
    Match {
        path: PathMatch::Prefix(Arc::from(path)),
        ..Match::default()
    }
}

pub(super) fn text_prefix(path: &str) -> Match {
    Match {
        path: PathMatch::TextPrefix(Arc::from(path)),
        ..Match::default()
    }
}

pub(super) fn pattern(path: &str) -> Match {
    Match {
        path: PathMatch::Regex(Regex::new(path).unwrap()),
        ..Match::default()
    }
}

pub(super) fn is(text: &str) -> TextMatch {
    TextMatch::Exact(Arc::from(text))
}

pub(super) fn like(text: &str) -> TextMatch {
    TextMatch::Regex(Regex::new(text).unwrap())
}

impl Match {
    pub(super) fn method(mut self, method: &str) -> Self {
        self.method = Some(is(method));
        self
    }

    pub(super) fn header(mut self, name: &str, want: TextMatch) -> Self {
        self.headers.push((Arc::from(name), want));
        self
    }

    pub(super) fn query(mut self, name: &str, want: TextMatch) -> Self {
        self.query.push((Arc::from(name), want));
        self
    }
}

/// A port of a service in namespace `shop`.
pub(super) fn target(name: &str) -> Target {
    Target::Service {
        key: key(name),
        port: 80,
        subset: None,
    }
}

/// A rule that leads to services of these names and weights.
pub(super) fn weighted(matches: Vec<Match>, backends: &[(&str, u32)]) -> Rule<Target> {
    let backend = |(name, weight): &(&str, u32)| Backend {
        to: target(name),
        weight: *weight,
        filters: Vec::new(),
    };
    Rule {
        name: Arc::from(""),
        line: 1,
        matches,
        filters: Vec::new(),
        backends: backends.iter().map(backend).collect(),
        timeouts: Timeouts::default(),
        retry: None,
        persistence: None,
        fault: Fault::default(),
    }
}

pub(super) fn rule(matches: Vec<Match>, backend: &str) -> Rule<Target> {
    weighted(matches, &[(backend, 1)])
}

/// A route of namespace `shop`.
pub(super) fn route(kind: Kind, name: &str, rules: Vec<Rule<Target>>) -> Route {
    Route {
        key: RouteKey {
            kind,
            namespace: Arc::from("shop"),
            name: Arc::from(name),
        },
        origin: Origin {
            file: Arc::from("shop.toml"),
            line: 1,
        },
        server_names: Vec::new(),
        rules,
    }
}

/// A port with routes that name it and others, and the resources that have them all.
pub(super) fn port(own: Vec<Route>, general: Vec<Route>) -> (Resources, BoundPort) {
    let keys = |routes: &[Route]| routes.iter().map(|route| route.key.clone()).collect();
    let port = BoundPort {
        port: 80,
        name: Arc::from("http"),
        protocol: AppProtocol::Http11,
        routes: keys(&own),
        general: keys(&general),
    };
    let routes = own.into_iter().chain(general);
    let resources = Resources {
        routes: routes.map(|r| (r.key.clone(), Arc::new(r))).collect(),
        ..Resources::default()
    };
    (resources, port)
}

pub(super) fn table(own: Vec<Route>, general: Vec<Route>) -> Table {
    let (resources, port) = port(own, general);
    Table::new(&resources, &port).unwrap()
}

pub(super) fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        let name: HeaderName = name.parse().unwrap();
        (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        headers.append(name, value);
    }
    headers
}

/// A request of `web` in namespace `shop` for port 80, written as in `POST /path?query`; without a
/// method it is `GET`.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: HeaderMap,
}

impl<'a> Request<'a> {
    pub(super) fn new(line: &'a str, fields: &[(&str, &str)]) -> Self {
        let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Self {
            method: method.parse().unwrap(),
            path,
            query,
            headers: headers(fields),
        }
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            method: &self.method,
            path: self.path,
            query: self.query,
            authority: "echo",
            scheme: "http",
            headers: &self.headers,
            port: 80,
            source_namespace: "shop",
        }
    }
}

/// The service a request is sent to, or what becomes of it instead.
pub(super) fn outcome(table: &Table, asked: &Asked<'_>) -> String {
    match table.select(asked) {
        Selection::Default => "default".to_owned(),
        Selection::NoMatch => "404".to_owned(),
        Selection::Rule(chosen) => name(&chosen.rule.backends[0]),
    }
}

/// The short name of a backend.
pub(super) fn name(backend: &Backend<Target>) -> String {
    let Target::Service { key, .. } = &backend.to else {
        return "invalid".to_owned();
    };
    let name = key.hostname.split('.').next();
    name.unwrap_or_default().to_owned()
}
