//! What a waypoint makes of a request: which rule takes it, and where that leads, asked of the tables
//! that waypoints go by ([`Table`], [`TlsTable`]).

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};

use super::name::QuestionError;
use super::{Step, step};
use crate::model::authentication::Changes;
use crate::model::route::{
    Asked, Filter, PathMatch, Route, Rule, Selection, Table, Target, TextMatch, TlsSelection,
    TlsTable, well_formed,
};
use crate::model::service::AppProtocol;
use crate::model::waypoint::{Bound, BoundPort, Resources};

/// A request that is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RequestAsked {
    /// Its method.
    pub method: String,
    /// Its path, with a query perhaps.
    pub path: String,
    /// Its `Host`; what was connected to where absent.
    pub host: Option<String>,
    /// Its fields.
    pub headers: Vec<(String, String)>,
}

/// The same, as waypoints read it.
#[derive(Clone)]
pub(super) struct Read {
    pub(super) method: Method,
    pub(super) path: String,
    /// The path with its query.
    pub(super) target: String,
    query: Option<String>,
    pub(super) authority: String,
    pub(super) headers: HeaderMap,
}

impl Read {
    pub(super) fn new(asked: &RequestAsked, to: &str) -> Result<Self, QuestionError> {
        let bad = |what: &str| QuestionError::Request(what.to_owned());
        let method = asked.method.parse();
        let method = method.map_err(|_none| bad(&asked.method))?;
        let (path, query) = match asked.path.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (&*asked.path, None),
        };
        if !path.starts_with('/') || !well_formed(path) {
            return Err(bad(&asked.path));
        }
        let authority = asked.host.clone().unwrap_or_else(|| to.to_owned());
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(&authority);
        headers.insert(HOST, host.map_err(|_none| bad(&authority))?);
        for (name, value) in &asked.headers {
            let name: HeaderName = name.parse().map_err(|_none| bad(name))?;
            let value = HeaderValue::from_str(value).map_err(|_none| bad(value))?;
            headers.append(name, value);
        }
        Ok(Self {
            method,
            path: path.to_owned(),
            target: asked.path.clone(),
            query,
            authority,
            headers,
        })
    }
}

impl Read {
    /// The same as a waypoint brings it into the form that it goes by.
    pub(super) fn at(&self, told: &Resources) -> Self {
        let form = told.gateway.as_ref().map(|g| g.options.paths);
        let form = form.unwrap_or_default();
        let path = form.apply(&self.path).unwrap_or_else(|| self.path.clone());
        let query = self.query.as_ref().map(|query| format!("?{query}"));
        Self {
            target: format!("{path}{}", query.unwrap_or_default()),
            path,
            ..self.clone()
        }
    }
}

impl Read {
    /// Changes it as a waypoint does that has judged its tokens.
    pub(super) fn change(&mut self, changes: &Changes) {
        let Ok(uri) = self.target.parse() else {
            return;
        };
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.uri = uri;
        parts.headers = std::mem::take(&mut self.headers);
        changes.apply(&mut parts);
        self.headers = parts.headers;
        self.query = parts.uri.query().map(str::to_owned);
        let query = self.query.as_ref().map(|query| format!("?{query}"));
        self.target = format!("{}{}", self.path, query.unwrap_or_default());
    }

    /// What of it counts where it is asked `to` by somebody of a namespace.
    pub(super) fn asked<'a>(&'a self, to: SocketAddr, namespace: &'a str) -> Asked<'a> {
        Asked {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            authority: &self.authority,
            scheme: "http",
            headers: &self.headers,
            port: to.port(),
            source_namespace: namespace,
        }
    }
}

/// Where a request or a connection goes from a waypoint.
pub(super) enum Leads {
    /// To the service that was asked for.
    Itself,
    /// To these, each with its share.
    To(Vec<Target>),
    /// Nowhere: this is the answer, and why.
    Answered(u16, String),
    /// Nowhere: the connection is closed, and why.
    Closed(String),
}

/// Asks the tables of the port that a connection is for.
pub(super) fn lead(
    told: &Resources,
    bound: &Bound,
    request: &Read,
    namespace: &str,
    steps: &mut Vec<Step>,
) -> Leads {
    let (Some(port), Some(service)) = (port(told, bound), bound.service()) else {
        return Leads::Answered(
            503,
            "the waypoint was not told of the service or its port".to_owned(),
        );
    };
    match bound.app_protocol() {
        AppProtocol::Tcp | AppProtocol::Tls => connection(told, &service.key.hostname, port, steps),
        AppProtocol::Unknown | AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => {
            requested(told, port, bound.asked(), request, namespace, steps)
        }
    }
}

fn port<'a>(told: &'a Resources, bound: &Bound) -> Option<&'a BoundPort> {
    let binding = told.services.get(&bound.service()?.key)?;
    let mut ports = binding.ports.iter();
    ports.find(|port| port.port == bound.asked().port())
}

fn requested(
    told: &Resources,
    port: &BoundPort,
    to: SocketAddr,
    request: &Read,
    namespace: &str,
    steps: &mut Vec<Step>,
) -> Leads {
    let table = match Table::new(told, port) {
        Ok(table) => table,
        Err(unresolved) => return Leads::Answered(503, unresolved.to_string()),
    };
    let chosen = match table.select(&request.asked(to, namespace)) {
        Selection::Rule(chosen) => chosen,
        Selection::Default => {
            let text = "no route is for this port: to the service itself";
            steps.push(step("rule", text));
            return Leads::Itself;
        }
        Selection::NoMatch => {
            return Leads::Answered(404, "no rule of the service's routes takes it".to_owned());
        }
    };
    let (method, path) = (&request.method, &request.path);
    steps.push(step("request", format!("{method} {path}")));
    steps.push(step("rule", place(chosen.route, chosen.rule, chosen.name)));
    steps.push(step("match", matched(chosen.matched)));
    for filter in &chosen.rule.filters {
        steps.push(step("filter", words(filter)));
    }
    for filter in &chosen.rule.filters {
        match filter {
            Filter::Redirect(redirect) => {
                let (authority, target) = (&request.authority, &request.target);
                let location = redirect.location(authority, to.port(), target, chosen.matched);
                return Leads::Answered(redirect.status, format!("go to {location}"));
            }
            Filter::Direct(direct) => {
                return Leads::Answered(direct.status, "the rule answers by itself".to_owned());
            }
            Filter::Unresolved(why) => return Leads::Answered(500, why.to_string()),
            _ => {}
        }
    }
    match shared(chosen.rule, steps) {
        targets if targets.is_empty() => {
            Leads::Answered(500, "the rule has no backend with a weight".to_owned())
        }
        targets => Leads::To(targets),
    }
}

/// What does not look at requests; of a `tls-route` the one that takes no server name.
fn connection(told: &Resources, host: &Arc<str>, port: &BoundPort, steps: &mut Vec<Step>) -> Leads {
    let text = "the port is carried as bytes: no request is looked at";
    steps.push(step("request", text));
    let table = match TlsTable::new(told, host, port) {
        Ok(table) => table,
        Err(unresolved) => return Leads::Closed(unresolved.to_string()),
    };
    match table.select(None) {
        TlsSelection::Default => Leads::Itself,
        TlsSelection::Close => Leads::Closed("no route takes it without a server name".to_owned()),
        TlsSelection::Rule(chosen) => {
            steps.push(step("rule", place(chosen.route, chosen.rule, chosen.name)));
            match shared(chosen.rule, steps) {
                targets if targets.is_empty() => {
                    Leads::Closed("its route has no backend with a weight".to_owned())
                }
                targets => Leads::To(targets),
            }
        }
    }
}

/// Whom a rule sends to, told with their shares.
fn shared(rule: &Rule<Target>, steps: &mut Vec<Step>) -> Vec<Target> {
    let sum: u64 = rule.backends.iter().map(|b| u64::from(b.weight)).sum();
    let weighty = rule.backends.iter().filter(|b| b.weight > 0);
    let mut targets = Vec::new();
    for backend in weighty {
        let (to, weight) = (target(&backend.to), backend.weight);
        steps.push(step("backend", format!("{to}, {weight} of {sum}")));
        let filters = backend.filters.iter();
        steps.extend(filters.map(|filter| step("filter", format!("there: {}", words(filter)))));
        targets.push(backend.to.clone());
    }
    targets
}

/// Whom a backend stands for, in words.
pub(super) fn target(target: &Target) -> String {
    match target {
        Target::Service {
            key, port, subset, ..
        } => {
            let port = match port {
                0 => String::new(),
                port => format!(":{port}"),
            };
            let subset = subset.as_ref().map(|name| format!(", subset {name}"));
            format!("{key}{port}{}", subset.unwrap_or_default())
        }
        Target::Invalid(why) => format!("nobody ({why})"),
    }
}

fn place(route: &Arc<Route>, rule: &Rule<Target>, name: &str) -> String {
    let (key, file, line) = (&route.key, &route.origin.file, rule.line);
    format!("{key}, rule {name} ({file}:{line})")
}

fn matched(matched: &crate::model::route::Match) -> String {
    let mut words = vec![match &matched.path {
        PathMatch::Exact(path) => format!("path {path}"),
        PathMatch::Prefix(path) => format!("path {path} and below"),
        PathMatch::TextPrefix(path) => format!("path {path}…"),
        PathMatch::Regex(regex) => format!("path by {}", regex.source()),
    }];
    words.extend(
        matched
            .method
            .as_ref()
            .map(|m| format!("method {}", text(m))),
    );
    let fields = matched.headers.iter();
    words.extend(fields.map(|(name, value)| format!("{name}: {}", text(value))));
    let without = matched.without_headers.iter();
    words.extend(without.map(|(name, value)| format!("not {name}: {}", text(value))));
    let query = matched.query.iter();
    words.extend(query.map(|(name, value)| format!("?{name}={}", text(value))));
    words.join(", ")
}

fn text(wanted: &TextMatch) -> String {
    match wanted {
        TextMatch::Exact(text) => text.to_string(),
        TextMatch::Prefix(text) => format!("{text}…"),
        TextMatch::Regex(regex) => format!("by {}", regex.source()),
        TextMatch::Present => "whatever it is".to_owned(),
    }
}

fn words(filter: &Filter<Target>) -> String {
    match filter {
        Filter::RequestHeaders(_) => "changes fields of the request".to_owned(),
        Filter::ResponseHeaders(_) => "changes fields of the answer".to_owned(),
        Filter::Redirect(_) => "sends the client elsewhere".to_owned(),
        Filter::Rewrite(rewrite) => match &rewrite.host {
            Some(host) => format!("rewrites the request, for host {host}"),
            None => "rewrites the request".to_owned(),
        },
        Filter::Mirror(mirror) => format!("sends a copy to {}", target(&mirror.to)),
        Filter::Cors(_) => "says which browsers may ask".to_owned(),
        Filter::Direct(_) => "answers by itself".to_owned(),
        Filter::Unresolved(why) => format!("is not there: {why}"),
    }
}

#[cfg(test)]
mod tests;
