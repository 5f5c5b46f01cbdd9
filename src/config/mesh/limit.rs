//! `[[rate-limit]]`: how many requests waypoints let through (`spec/waypoint-l7.md` §9).

use std::sync::Arc;
use std::time::Duration;

use super::labels::Labels;
use super::policy::required_targets;
use super::route::{at_most, header_name, read_match};
use super::{name_of, namespace_of};
use crate::config::diagnose::Code;
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::TargetRef;
use crate::model::limit::{Key, MOST, Rate, Rule};
use crate::model::route::Match;

/// Each rule is asked of each request, and each may hold as many counts as there can be.
const MOST_RULES: usize = 16;
/// As of a rule of a route.
const MOST_MATCHES: usize = 64;

/// A `[[rate-limit]]` table.
pub(in crate::config) struct WrittenLimit {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `target-refs`.
    pub targets: Vec<At<TargetRef>>,
    /// `rules`.
    pub rules: Vec<Rule>,
    /// Whether nothing is wrong with it, so that all of it is known.
    pub sound: bool,
}

pub(super) fn read(value: &Value<'_>, home: Option<&At<Arc<str>>>) -> Option<WrittenLimit> {
    let table = value.resource("rate-limit")?;
    let errors_before = table.errors();
    Labels::read(&table).finish(&table);
    let name = name_of(&table, "rate-limit", scalar::name);
    let namespace = namespace_of(&table, home);
    let targets = required_targets(&table);
    let example = "rules = [{ requests = 100, per = \"1s\" }]";
    let rules = table.required("rules", example, rules);
    table.finish();
    Some(WrittenLimit {
        place: table.place().clone(),
        name: name?,
        namespace,
        targets,
        rules: rules.unwrap_or_default(),
        sound: table.errors() == errors_before,
    })
}

fn rules(value: &Value<'_>) -> Option<Vec<Rule>> {
    if value.is_empty_list() {
        value.reject(
            Code::NoEffect,
            "is empty: nothing is counted",
            "has no effect",
            "add a rule, as in `rules = [{ requests = 100, per = \"1s\" }]`, or take the limit out",
        );
    }
    let help = "write another rate-limit for the same targets";
    at_most(value, MOST_RULES, "rules", help, rule)
}

fn rule(value: &Value<'_>) -> Option<Rule> {
    let table = value.nested()?;
    let matches = matches(&table);
    let by = match table.value("key") {
        Some(value) => key(&value),
        None => Some(Key::None),
    };
    let count = |value: &Value<'_>| value.count(1..=MOST);
    let requests = table.required("requests", "requests = 100", count);
    let per = table.required("per", "per = \"1s\"", |value| {
        scalar::duration(value, Duration::from_secs(1)..=Duration::from_secs(86_400))
    });
    let burst = match table.value("burst") {
        Some(value) => count(&value),
        None => requests,
    };
    table.finish();
    Some(Rule {
        line: table.place().start().line,
        matches: matches?,
        by: by?,
        rate: Rate::new(requests?, per?, burst?)?,
    })
}

/// `match`: conditions as of an `http-route`, of which one takes a request; everything without them.
fn matches(table: &Table<'_>) -> Option<Vec<Match>> {
    let Some(value) = table.value("match") else {
        return Some(vec![Match::default()]);
    };
    if value.is_empty_list() {
        value.reject(
            Code::BadValue,
            "is empty, and so for no request",
            "matches nothing",
            "leave it out to count every request",
        );
        return None;
    }
    let help = "write another rule for them";
    let read = at_most(&value, MOST_MATCHES, "matches", help, |item| {
        Some(read_match(item))
    });
    // One that was left out would leave requests uncounted.
    read?.into_iter().collect()
}

const KEYS: [(&str, &Key); 3] = [
    ("none", &Key::None),
    ("identity", &Key::Identity),
    ("source-ip", &Key::SourceIp),
];

/// `key`: a word, or `{ header = "…" }`.
fn key(value: &Value<'_>) -> Option<Key> {
    if value.is_text() {
        return scalar::choice(value, &KEYS).cloned();
    }
    let table = value.nested()?;
    let name = table.required("header", "header = \"x-user\"", header_name);
    table.finish();
    Some(Key::Header(name?.value))
}
