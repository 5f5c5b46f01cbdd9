//! `parent-refs`: what a route is attached to (§2.1).

use std::sync::Arc;

use super::lists::at_most;
use super::scope::Scope;
use crate::config::diagnose::Code;
use crate::config::read::{Value, scalar};
use crate::config::source::At;
use crate::model::declaration::{ParentKind, ParentRef};

/// Gateway API's limit on the parents of one route.
const MOST_PARENTS: usize = 32;

/// The kinds, with the API groups that Kubernetes has them in.
const KINDS: [(&str, ParentKind, &[&str]); 2] = [
    ("Service", ParentKind::Service, &["", "core"]),
    (
        "ServiceEntry",
        ParentKind::ServiceEntry,
        &["networking.istio.io"],
    ),
];

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<Vec<At<ParentRef>>> {
    if value.is_empty_list() {
        value.bad(
            "is empty",
            "attached to nothing",
            "name the service whose requests it is for, as in `[{ name = \"cart\" }]`",
        );
    }
    let mut known: Vec<ParentRef> = Vec::new();
    let help = "write another route for them";
    at_most(value, MOST_PARENTS, "parents", help, |item| {
        let parent = parent(item, scope)?;
        let key = |p: &ParentRef| (p.kind, p.namespace.clone(), p.name.clone(), p.port);
        if known.iter().any(|other| key(other) == key(&parent.value)) {
            item.reject(
                Code::NoEffect,
                "names a parent twice",
                "has no effect",
                "take out one of the two",
            );
            return None;
        }
        known.push(parent.value.clone());
        Some(parent)
    })
}

fn parent(value: &Value<'_>, scope: &Scope) -> Option<At<ParentRef>> {
    let table = value.nested()?;
    let kind = match table.value("kind") {
        Some(kind) => kind_of(&kind),
        None => Some(ParentKind::Service),
    };
    if let Some(group) = table.value("group") {
        judge_group(&group, kind);
    }
    let name = table.required("name", "name = \"cart\"", scalar::name);
    let namespace = table.optional("namespace", scalar::label);
    let port = table.optional("port", scalar::port);
    table.unsupported(
        "section-name",
        "name the service port by its number, with `port`",
    );
    table.finish();
    let parent = ParentRef {
        kind: kind?,
        namespace: namespace.map_or_else(|| Arc::clone(&scope.namespace), |n| n.value),
        name: name?.value,
        port,
        origin: table.place().origin(),
    };
    Some(At::new(parent, table.place().clone()))
}

fn kind_of(value: &Value<'_>) -> Option<ParentKind> {
    if value.text()? == "Gateway" {
        value.unsupported(
            "name the services behind the waypoint instead: routes are attached to those, and there are no ingress gateways",
        );
        return None;
    }
    scalar::choice(value, &KINDS.map(|(word, kind, _)| (word, kind)))
}

fn judge_group(value: &Value<'_>, kind: Option<ParentKind>) {
    let (Some(text), Some(kind)) = (value.text(), kind) else {
        return;
    };
    let of_kind = KINDS.iter().find(|(_, other, _)| *other == kind);
    let Some((word, _, groups)) = of_kind.filter(|(_, _, groups)| !groups.contains(&text)) else {
        return;
    };
    let group = groups.first().copied().unwrap_or_default();
    value.bad(
        &format!("is not the group of {word}: {text:?}"),
        "no such kind in this group",
        format!("write `\"{group}\"`, or leave it out"),
    );
}
