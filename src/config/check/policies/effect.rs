//! What is left of a policy at node proxies, which know nothing of HTTP
//! (`spec/labels-and-policy.md` §3.5).

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::WrittenAuthorization;
use crate::config::source::At;
use crate::config::suggest;
use crate::model::declaration::{Action, Condition, Operation, Rule, Source};

pub(super) fn check(policy: &WrittenAuthorization, found: &mut Vec<Diagnostic>) {
    match policy.action.value {
        Action::Deny => deny(policy, found),
        _ => allow(policy, found),
    }
}

/// A rule that needs HTTP is left out, and the policy stays. One that is only tried closes nothing.
fn allow(policy: &WrittenAuthorization, found: &mut Vec<Diagnostic>) {
    let rules = &policy.rules;
    let omitted: Vec<_> = rules
        .list
        .iter()
        .map(|rule| (rule, http_fields(&rule.value)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    if rules.list.is_empty() {
        // Written down, it is meant: Istio's way to close everything that no other policy opens.
        if rules.place.is_none() && !policy.dry_run {
            found.push(without_rules(policy));
        }
    } else if omitted.len() == rules.list.len() && !policy.dry_run {
        let fields: Fields<'_> = omitted.into_iter().flat_map(|(_, fields)| fields).collect();
        found.push(allows_nothing(policy, &fields));
    } else {
        let omitted = omitted.into_iter();
        found.extend(omitted.map(|(rule, fields)| allows_less(policy, rule, &fields)));
    }
}

/// The fields of a rule go that need HTTP, and what has no other never matches.
fn deny(policy: &WrittenAuthorization, found: &mut Vec<Diagnostic>) {
    for rule in &policy.rules.list {
        let fields = http_fields(&rule.value);
        if fields.is_empty() {
            continue;
        }
        let Rule { from, to, when, .. } = &rule.value;
        let dead = |parts: usize, alive: usize| parts > 0 && alive == 0;
        let sources = from.iter().filter(|source| is_known(source)).count();
        let operations = to.iter().filter(|o| is_known_operation(o)).count();
        let conditions_dead = when.iter().any(|c| c.http_field().is_some());
        if conditions_dead || dead(from.len(), sources) || dead(to.len(), operations) {
            found.push(denies_nothing(policy, rule, &fields));
            continue;
        }
        if sources < from.len() || operations < to.len() {
            found.push(denies_in_part(policy, rule, &fields));
        }
        let widened = widened_fields(&rule.value);
        if !widened.is_empty() {
            found.push(denies_more(policy, rule, &widened));
        }
    }
}

type Fields<'a> = BTreeSet<Cow<'a, str>>;

fn http_fields(rule: &Rule) -> Fields<'_> {
    let from = rule.from.iter().flat_map(Source::http_fields);
    let to = rule.to.iter().flat_map(Operation::http_fields);
    let mut fields: Fields<'_> = from.chain(to).map(Cow::Borrowed).collect();
    fields.extend(rule.when.iter().filter_map(Condition::http_field));
    fields
}

/// Fields that go from a source or operation of which something is left.
fn widened_fields(rule: &Rule) -> Fields<'_> {
    let from = rule.from.iter().filter(|source| is_known(source));
    let to = rule.to.iter().filter(|o| is_known_operation(o));
    let from = from.flat_map(Source::http_fields);
    let fields = from.chain(to.flat_map(Operation::http_fields));
    fields.map(Cow::Borrowed).collect()
}

/// Whether it asks something that a node proxy knows.
fn is_known(source: &Source) -> bool {
    let Source {
        principals,
        namespaces,
        service_accounts,
        trust_domains,
        ip_blocks,
        remote_ip_blocks: _,
        request_principals: _,
    } = source;
    let unknown = principals.is_empty()
        && namespaces.is_empty()
        && service_accounts.is_empty()
        && trust_domains.is_empty()
        && ip_blocks.is_empty();
    !unknown
}

fn is_known_operation(operation: &Operation) -> bool {
    !operation.ports.is_empty()
}

fn without_rules(policy: &WrittenAuthorization) -> Diagnostic {
    let name = &policy.name;
    let message = format!(
        "authorization-policy `{}` allows nothing: it has no rules",
        name.value
    );
    Diagnostic::new(Code::AllowsNothing, name.place.clone(), message)
        .label("lets nobody in")
        .help("if that is meant, write `rules = []`; `rules = [{}]` lets everybody in")
}

fn allows_nothing(policy: &WrittenAuthorization, fields: &Fields<'_>) -> Diagnostic {
    let name = &policy.name;
    let message = format!(
        "authorization-policy `{}` allows nothing: node proxies leave out all its rules, which need {}",
        name.value,
        listed(fields)
    );
    Diagnostic::new(Code::AllowsNothing, name.place.clone(), message)
        .label("lets nobody in")
        .help("add a rule by identity, address or port, or give the policy `target-refs`: waypoints know of HTTP")
}

fn allows_less(policy: &WrittenAuthorization, rule: &At<Rule>, fields: &Fields<'_>) -> Diagnostic {
    let message = format!(
        "authorization-policy `{}`: node proxies leave out this rule, which needs {}",
        policy.name.value,
        listed(fields)
    );
    Diagnostic::new(Code::AllowsLess, rule.place.clone(), message)
        .label("lets nobody in")
        .help("write it by identity, address or port, or in a policy with `target-refs`: waypoints know of HTTP")
}

fn denies_nothing(
    policy: &WrittenAuthorization,
    rule: &At<Rule>,
    fields: &Fields<'_>,
) -> Diagnostic {
    let message = format!(
        "authorization-policy `{}`: node proxies never match this rule, which needs {}",
        policy.name.value,
        listed(fields)
    );
    Diagnostic::new(Code::DeniesNothing, rule.place.clone(), message)
        .label("keeps nobody out")
        .help("write it by identity, address or port, or in a policy with `target-refs`: waypoints know of HTTP")
}

fn denies_in_part(
    policy: &WrittenAuthorization,
    rule: &At<Rule>,
    fields: &Fields<'_>,
) -> Diagnostic {
    let message = format!(
        "authorization-policy `{}`: node proxies never match the part of this rule that has nothing but {}",
        policy.name.value,
        listed(fields)
    );
    Diagnostic::new(Code::DeniesNothing, rule.place.clone(), message)
        .label("keeps fewer out than it says")
        .help("write each source and operation by identity, address or port")
}

fn denies_more(policy: &WrittenAuthorization, rule: &At<Rule>, fields: &Fields<'_>) -> Diagnostic {
    let message = format!(
        "authorization-policy `{}`: node proxies enforce this rule without {}, so it denies more than it says",
        policy.name.value,
        listed(fields)
    );
    Diagnostic::new(Code::DeniesMore, rule.place.clone(), message)
        .label("keeps more out than it says")
        .help("take what needs HTTP out, so that it reads as it is enforced")
}

fn listed(fields: &Fields<'_>) -> String {
    suggest::listed(fields.iter().map(AsRef::as_ref))
}
