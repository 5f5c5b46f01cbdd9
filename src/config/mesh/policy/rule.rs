//! `rules`: what a policy matches (`spec/labels-and-policy.md` §3.1).

use super::scope::Scope;
use super::{condition, operation, source, values};
use crate::config::diagnose::Code;
use crate::config::read::{Table, Value};
use crate::config::source::At;
use crate::model::declaration::Rule;

/// Istio's limit on the rules of one policy.
const MOST_RULES: usize = 512;

const SOURCE: &str = "source = { principals = [\"cluster.local/ns/shop/sa/web\"] }";
const OPERATION: &str = "operation = { ports = [\"8080\"] }";

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<Vec<At<Rule>>> {
    let mut count = 0;
    let rules = value.list(|value| {
        count += 1;
        rule(value, scope)
    })?;
    if count > MOST_RULES {
        value.reject(
            Code::TooLarge,
            &format!("has {count} rules, at most {MOST_RULES}"),
            "too many",
            "split the policy into several: each of them counts",
        );
    }
    Some(rules)
}

fn rule(value: &Value<'_>, scope: &Scope) -> Option<At<Rule>> {
    let table = value.nested()?;
    let from = table.optional("from", |value| {
        values::some(value, |value| {
            part(value, "source", SOURCE, |value| source::read(value, scope))
        })
    });
    let to = table.optional("to", |value| {
        values::some(value, |value| {
            part(value, "operation", OPERATION, operation::read)
        })
    });
    let when = table.optional("when", |value| {
        value.list(|value| condition::read(value, scope))
    });
    table.finish();
    let place = table.place().clone();
    let rule = Rule {
        line: place.start().line,
        from: from.unwrap_or_default(),
        to: to.unwrap_or_default(),
        when: when.unwrap_or_default(),
    };
    Some(At::new(rule, place))
}

/// The one key of an item of `from` and `to`.
fn part<'a, T>(
    value: &Value<'a>,
    key: &'static str,
    example: &str,
    read: impl FnOnce(&Value<'a>) -> Option<T>,
) -> Option<T> {
    let table = value.nested()?;
    let part = table.required(key, example, read);
    table.finish();
    part
}

/// Reports a source or operation that asks for nothing: Istio refuses it, since it reads like the
/// start of one that was to be narrower.
pub(super) fn judge_empty(value: &Value<'_>, table: &Table<'_>, example: &str) {
    if table.entries().next().is_none() {
        value.bad(
            "is empty",
            "asks for nothing",
            format!("say what it must have, as in `{example}`; a rule `{{}}` matches everything"),
        );
    }
}
