//! `http`: the rules, the first of which that takes a request has it (§3.1).

use std::sync::Arc;

use super::matches::{self, Matched};
use super::{cors, destination, fault, headers, outcome, retries};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::route::scope::Scope;
use crate::config::mesh::route::{WrittenRule, timeouts};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::route::{BackendRef, Filter, Rule, Timeouts};

/// A rule, and whose rules take its place.
pub(super) struct Ruled {
    pub(super) rule: WrittenRule,
    /// Namespace and name.
    pub(super) delegate: Option<At<(Arc<str>, Arc<str>)>>,
}

/// What a rule has exactly one of.
const OUTCOMES: [&str; 4] = ["route", "redirect", "direct-response", "delegate"];

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<Vec<Ruled>> {
    if value.is_empty_list() {
        value.reject(
            Code::NoEffect,
            "is empty: the virtual service says nothing",
            "has no effect",
            "add a rule, or take the virtual service out",
        );
    }
    let rules = value.list(|item| rule(item, scope))?;
    Some(rules.into_iter().flatten().collect())
}

fn rule(value: &Value<'_>, scope: &Scope) -> Option<Vec<Ruled>> {
    let table = value.nested()?;
    let name = table.optional("name", scalar::name).map(|name| name.value);
    let matches = matches::read(&table);
    let backends = table.optional("route", |value| destination::shares(value, scope));
    let delegate = table.optional("delegate", |value| outcome::delegate(value, scope));
    let filters = filters(&table, scope);
    let fault = table.optional("fault", fault::read);
    let timeout = table.optional("timeout", |value| scalar::duration(value, timeouts::ANY));
    let retry = table.optional("retries", retries::read);
    judge(&table);
    table.finish();
    let whole = Rule {
        name: name.unwrap_or_default(),
        line: table.place().start().line,
        matches: Vec::new(),
        filters,
        backends: backends.unwrap_or_default(),
        timeouts: Timeouts {
            // 0 is no limit.
            request: timeout.filter(|limit| !limit.is_zero()),
            backend_request: None,
        },
        retry,
        persistence: None,
        fault: fault.unwrap_or_default(),
    };
    let ruled = |rule: WrittenRule| Ruled {
        rule,
        delegate: delegate.clone(),
    };
    let rules = by_name(&table, &whole, matches);
    Some(rules.into_iter().map(ruled).collect())
}

/// The rule. Where matches have names of their own, by which logs tell them apart, it is as many rules
/// with the same outcome.
fn by_name(table: &Table<'_>, whole: &Rule<BackendRef>, matches: Vec<Matched>) -> Vec<WrittenRule> {
    let written = |name: Arc<str>, matches: Vec<Matched>| {
        let (places, matches) = matches.into_iter().map(|m| (m.place, m.is)).unzip();
        WrittenRule {
            place: table.place().clone(),
            rule: Rule {
                name,
                matches,
                ..whole.clone()
            },
            matches: places,
        }
    };
    if matches.iter().all(|matched| matched.name.is_none()) {
        return vec![written(Arc::clone(&whole.name), matches)];
    }
    let alone = |matched: Matched| {
        let name = joined(&whole.name, matched.name.as_deref());
        written(name, vec![matched])
    };
    matches.into_iter().map(alone).collect()
}

/// What logs call a match of a rule.
fn joined(rule: &Arc<str>, matched: Option<&str>) -> Arc<str> {
    match matched {
        None => Arc::clone(rule),
        Some(matched) if rule.is_empty() => Arc::from(matched),
        Some(matched) => Arc::from(format!("{rule}.{matched}")),
    }
}

/// What is done on the way, in the order it is done.
fn filters(table: &Table<'_>, scope: &Scope) -> Vec<Filter<BackendRef>> {
    let cors = table.optional("cors-policy", cors::read);
    let redirect = table.optional("redirect", outcome::redirect);
    let direct = table.optional("direct-response", outcome::direct);
    let rewrite = table.optional("rewrite", outcome::rewrite);
    let headers = table.optional("headers", headers::read);
    let mut filters: Vec<_> = cors.map(Filter::Cors).into_iter().collect();
    filters.extend(redirect.map(Filter::Redirect));
    filters.extend(direct.map(Filter::Direct));
    filters.extend(rewrite.map(Filter::Rewrite));
    filters.extend(headers.unwrap_or_default());
    filters.extend(destination::mirrors(table, scope));
    filters
}

fn judge(table: &Table<'_>) {
    let given = OUTCOMES.map(|key| table.value(key));
    let mut given = given.into_iter().zip(OUTCOMES);
    let mut given = given
        .by_ref()
        .filter_map(|(value, key)| Some((value?, key)));
    let Some((first, outcome)) = given.next() else {
        let message = format!("{} does not say what becomes of requests", table.what());
        let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message)
            .label("goes nowhere")
            .help("add `route`, as in `route = [{ destination = { host = \"cart-v2\" } }]`, `redirect`, `direct-response` or `delegate`");
        table.missing(OUTCOMES.to_vec(), finding);
        return;
    };
    let conflict = |other: &Value<'_>, key: &str| {
        let message = format!("{} has `{key}` beside `{outcome}`", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, other.place().clone(), message)
                .label("never reached")
                .related(first.place().clone(), "this one is")
                .help("keep one of the two, or write two rules"),
        );
    };
    for (other, key) in given {
        conflict(&other, key);
    }
    let answers = matches!(outcome, "redirect" | "direct-response");
    if let Some(rewrite) = table.value("rewrite").filter(|_| answers) {
        conflict(&rewrite, "rewrite");
    }
}
