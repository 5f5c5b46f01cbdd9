//! Whom virtual services delegate to (§3.1).

use std::collections::HashMap;

use super::title;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenRule, WrittenVirtualService};
use crate::config::source::{At, Place};
use crate::model::declaration::Delegate;
use crate::model::route::Unsayable;

type ByName<'a> = HashMap<(&'a str, &'a str), &'a WrittenVirtualService>;

/// The rules that delegate to a virtual service, by its place.
type Outer<'a> = HashMap<(usize, usize), Vec<&'a WrittenRule>>;

pub(super) fn check(written: &[&WrittenVirtualService], found: &mut Vec<Diagnostic>) {
    let by_name = written.iter().rev().map(|v| {
        let (namespace, name) = (&*v.route.namespace.value, &*v.route.name.value);
        ((namespace, name), *v)
    });
    let by_name: ByName<'_> = by_name.collect();
    let mut outer = Outer::new();
    for one in written {
        for delegate in &one.delegates {
            let (namespace, name) = (&delegate.value.namespace, &delegate.value.name);
            let to = by_name.get(&(&**namespace, &**name)).copied();
            found.extend(fault(one, delegate, to));
            let rule = one.route.rules.get(delegate.value.rule);
            if let (Some(to), Some(rule)) = (to, rule) {
                outer.entry(at(&to.route.place)).or_default().push(rule);
            }
        }
    }
    for one in written.iter().filter(|one| one.hosts.is_empty()) {
        match outer.get(&at(&one.route.place)) {
            Some(outer) => joined(one, outer, found),
            None => found.push(for_nobody(one)),
        }
    }
}

fn at(place: &Place) -> (usize, usize) {
    let source = std::sync::Arc::as_ptr(place.source());
    (source.addr(), place.span().start)
}

/// What is wrong with delegating to that one.
fn fault(
    one: &WrittenVirtualService,
    delegate: &At<Delegate>,
    to: Option<&WrittenVirtualService>,
) -> Option<Diagnostic> {
    let Delegate {
        namespace, name, ..
    } = &delegate.value;
    let (code, why, help) = match to {
        None => (
            Code::BackendNotFound,
            "is not declared: what the rule takes is answered 500",
            "name a virtual-service without `hosts`; one of another namespace with `namespace`",
        ),
        Some(to) if !to.hosts.is_empty() => (
            Code::BackendNotFound,
            "has hosts of its own: what the rule takes is answered 500",
            "take its `hosts` out, or write its rules here",
        ),
        Some(to) if !to.delegates.is_empty() => (
            Code::ConflictingKeys,
            "delegates itself, and one level is all there is",
            "write the rules of the last one in the one between",
        ),
        Some(to) if to.own && *namespace != one.route.namespace.value => (
            Code::ConflictingKeys,
            "is shown to its own namespace alone",
            "write `export-to = [\"*\"]` there",
        ),
        Some(_) => return None,
    };
    let message = format!(
        "{} delegates to virtual-service `{namespace}/{name}`, which {why}",
        title(one)
    );
    let finding = Diagnostic::new(code, delegate.place.clone(), message)
        .label("delegated to nobody")
        .help(help);
    Some(match to {
        Some(to) => finding.related(to.route.place.clone(), "this one"),
        None => finding,
    })
}

fn for_nobody(one: &WrittenVirtualService) -> Diagnostic {
    let message = format!("{} has no `hosts`, and nobody delegates to it", title(one));
    Diagnostic::new(Code::NoEffect, one.route.place.clone(), message)
        .label("has no effect")
        .help("add `hosts`, as in `hosts = [\"cart\"]`, or a `delegate` that names it")
}

/// Judges its matches together with those of the rules that delegate to it.
fn joined(one: &WrittenVirtualService, outer: &[&WrittenRule], found: &mut Vec<Diagnostic>) {
    let outer = || {
        outer
            .iter()
            .flat_map(|r| r.rule.matches.iter().zip(&r.matches))
    };
    for (inner, place) in one
        .route
        .rules
        .iter()
        .flat_map(|r| r.rule.matches.iter().zip(&r.matches))
    {
        let mut taken = false;
        let mut unsayable = None;
        for (of, around) in outer() {
            match of.and(inner) {
                Ok(both) => taken |= both.is_some(),
                Err(why) => unsayable = unsayable.or(Some((why, around))),
            }
        }
        if let Some((why, around)) = unsayable {
            found.push(not_joined(one, (place, why), around));
        } else if !taken {
            found.push(disjoint(one, place));
        }
    }
}

fn not_joined(
    one: &WrittenVirtualService,
    (place, why): (&Place, Unsayable),
    around: &Place,
) -> Diagnostic {
    let message = format!("{}: {why} in the rule that delegates to it", title(one));
    Diagnostic::new(Code::ConflictingKeys, place.clone(), message)
        .label("and this")
        .related(around.clone(), "both this")
        .help("write the pattern in one of the two, or the whole condition here")
}

fn disjoint(one: &WrittenVirtualService, place: &Place) -> Diagnostic {
    let message = format!(
        "a match of {} takes nothing of what is delegated to it",
        title(one)
    );
    Diagnostic::new(Code::NoEffect, place.clone(), message)
        .label("never meets the match around it")
        .help("match within what the delegating rule matches, as in `/cart/items` within `/cart`")
}
