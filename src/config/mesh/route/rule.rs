//! `rules`: what becomes of the traffic that each is for (§2.2–§2.8).

use std::sync::Arc;

use super::lists::{MOST, at_most};
use super::scope::Scope;
use super::{backends, filter, grpc, matches, path, persistence, retry, timeouts};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::route::{BackendRef, Fault, Filter, Kind, Match, PathMatch, Rule};

/// Gateway API's limit on the matches of one route.
const MOST_MATCHES: usize = 128;

/// A rule, and where its parts are written.
pub(in crate::config) struct WrittenRule {
    /// Its braces, or its header.
    pub place: Place,
    /// What it says.
    pub rule: Rule<BackendRef>,
    /// Where each of its matches is written.
    pub matches: Vec<Place>,
}

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<Vec<WrittenRule>> {
    if value.is_empty_list() {
        value.reject(
            Code::NoEffect,
            "is empty: the route says nothing",
            "has no effect",
            "add a rule, or take the route out",
        );
    }
    let help = "write another route for the same parent";
    let rules = at_most(value, MOST, "rules", help, |item| rule(item, scope))?;
    let matches: usize = rules.iter().map(|rule| rule.matches.len()).sum();
    if matches > MOST_MATCHES {
        value.reject(
            Code::TooLarge,
            &format!("has {matches} matches in all, at most {MOST_MATCHES}"),
            "too many",
            help,
        );
    }
    judge_names(value, &rules);
    judge_further(value, scope, &rules);
    Some(rules)
}

fn rule(value: &Value<'_>, scope: &Scope) -> Option<WrittenRule> {
    let table = value.nested()?;
    let name = table.optional("name", scalar::name);
    let before = table.errors();
    let written = match scope.kind {
        Kind::Grpc => matches::read(&table, grpc::read),
        Kind::Tls | Kind::Tcp => Vec::new(),
        Kind::Http | Kind::VirtualService => matches::read(&table, matches::http),
    };
    let matches_known = table.errors() == before;
    let filters = match scope.is_of_requests() {
        true => filter::read(&table, scope, filter::Of::Rule),
        false => Vec::new(),
    };
    let backends = backends::read(&table, scope);
    let http = scope.kind == Kind::Http;
    let timeouts = http.then(|| table.optional("timeouts", timeouts::read));
    let retry = http.then(|| table.optional("retry", retry::read));
    let persistence = scope
        .is_of_requests()
        .then(|| table.optional("session-persistence", persistence::read));
    table.finish();
    let prefix_changes = scope.take_prefix_changes();
    if matches_known && !is_one_prefix(&written) {
        for place in prefix_changes {
            path::reject_prefix_change(&table, place);
        }
    }
    let sound = table.errors() == before;
    let (places, matches) = written.into_iter().map(|at| (at.place, at.value)).unzip();
    let written = WrittenRule {
        place: table.place().clone(),
        rule: Rule {
            name: name.map_or_else(|| Arc::from(""), |name| name.value),
            line: table.place().start().line,
            matches,
            backends,
            timeouts: timeouts.flatten().unwrap_or_default(),
            retry: retry.flatten(),
            persistence: persistence.flatten(),
            fault: Fault::default(),
            filters: values(&filters),
        },
        matches: places,
    };
    judge_redirect(&table, &filters);
    if sound {
        judge_backends(&table, scope, &written.rule);
    }
    Some(written)
}

fn values(filters: &[At<Filter<BackendRef>>]) -> Vec<Filter<BackendRef>> {
    filters.iter().map(|filter| filter.value.clone()).collect()
}

/// Whether the rule has exactly one match, of a prefix.
fn is_one_prefix(matches: &[At<Match>]) -> bool {
    matches!(matches, [one] if matches!(one.value.path, PathMatch::Prefix(_)))
}

/// What is redirected goes nowhere else.
fn judge_redirect(table: &Table<'_>, filters: &[At<Filter<BackendRef>>]) {
    let mut all = filters.iter();
    let Some(redirect) = all.find(|f| matches!(f.value, Filter::Redirect(_))) else {
        return;
    };
    let reject = |other: &Place, what: &str| {
        let message = format!("{} redirects, and has {what}", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, other.clone(), message)
                .label("never reached")
                .related(redirect.place.clone(), "the redirect")
                .help("take out one of the two"),
        );
    };
    let rewrite = filters
        .iter()
        .find(|f| matches!(f.value, Filter::Rewrite(_)));
    if let Some(rewrite) = rewrite {
        reject(&rewrite.place, "a rewrite");
    }
    let backends = table.value("backend-refs");
    if let Some(backends) = backends.filter(|value| !value.is_empty_list()) {
        reject(backends.place(), "backends");
    }
}

/// A rule that goes nowhere takes its requests all the same (§2.6).
fn judge_backends(table: &Table<'_>, scope: &Scope, rule: &Rule<BackendRef>) {
    let answers = |f: &Filter<_>| matches!(f, Filter::Redirect(_) | Filter::Unresolved(_));
    if rule.backends.iter().any(|b| b.weight > 0) || rule.filters.iter().any(answers) {
        return;
    }
    let why = match rule.backends.is_empty() {
        true => "has no backends",
        false => "has no backend with a weight above 0",
    };
    let what = match scope.is_of_requests() {
        true => "what it matches is answered 500",
        false => "its connections are closed",
    };
    let message = format!("{} {why}: {what}", table.what());
    table.report(
        Diagnostic::new(Code::BackendNotFound, table.place().clone(), message)
            .label("goes nowhere")
            .help("add where it goes, as in `backend-refs = [{ name = \"cart\", port = 80 }]`"),
    );
}

/// Names tell the rules of a route apart.
fn judge_names(value: &Value<'_>, rules: &[WrittenRule]) {
    for (at, rule) in rules.iter().enumerate() {
        let name = &rule.rule.name;
        let mut before = rules.iter().take(at);
        let Some(first) = before.find(|r| !name.is_empty() && r.rule.name == *name) else {
            continue;
        };
        let message = format!("two rules of a route are called `{name}`");
        value.report(
            Diagnostic::new(Code::DuplicateName, rule.place.clone(), message)
                .label("again")
                .related(first.place.clone(), "first here")
                .help("rename one of the two"),
        );
    }
}

/// Connections are not told apart by rules.
fn judge_further(value: &Value<'_>, scope: &Scope, rules: &[WrittenRule]) {
    if scope.is_of_requests() {
        return;
    }
    for rule in rules.iter().skip(1) {
        let message = format!(
            "a {} has further rules, and the first takes every connection",
            scope.kind.as_str()
        );
        value.report(
            Diagnostic::new(Code::NoEffect, rule.place.clone(), message)
                .label("has no effect")
                .help("list its backends in the first rule, with weights"),
        );
    }
}
