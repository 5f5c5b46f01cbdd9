//! Whom a policy is for: `selector`, `target-refs`, or all (`spec/labels-and-policy.md` §2.1).

use std::collections::BTreeMap;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{labels, no_effect};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::declaration::{TargetKind, TargetRef};

/// Istio's limit on the targets of one policy.
const MOST_TARGETS: usize = 16;

/// Whom a policy is for, and where that is written.
pub(in crate::config) enum WrittenAttachment {
    /// Every workload of its namespace.
    Namespace,
    /// Workloads that carry all these labels.
    Selector(At<BTreeMap<String, String>>),
    /// What waypoints serve.
    Targets(At<Vec<At<TargetRef>>>),
}

/// That of a kind which an empty selector would attach to nothing.
pub(in crate::config::mesh) fn read(table: &Table<'_>) -> WrittenAttachment {
    let attachment = read_any(table);
    if let WrittenAttachment::Selector(selector) = &attachment {
        judge_selector(table, selector);
    }
    attachment
}

pub(in crate::config::mesh) fn read_any(table: &Table<'_>) -> WrittenAttachment {
    let selector = table.optional("selector", selector);
    let targets = targets(table);
    match (selector, targets) {
        (Some(selector), Some(targets)) => {
            let message = format!("{} has both a selector and target-refs", table.what());
            table.report(
                Diagnostic::new(Code::ConflictingKeys, selector.place, message)
                    .label("one of the two")
                    .related(targets.place.clone(), "the other")
                    .help("keep `selector` for node proxies, `target-refs` for waypoints; both take two policies"),
            );
            WrittenAttachment::Targets(targets)
        }
        (None, Some(targets)) => WrittenAttachment::Targets(targets),
        (Some(selector), None) => WrittenAttachment::Selector(selector),
        (None, None) => WrittenAttachment::Namespace,
    }
}

/// Whom something is for that waypoints alone do.
pub(in crate::config::mesh) fn required_targets(table: &Table<'_>) -> Vec<At<TargetRef>> {
    if let Some(selector) = table.value_unlisted("selector") {
        selector.bad(
            "is given, and selects workloads, whose nodes do not look at requests",
            "nobody would enforce this",
            "name what waypoints serve, as in `target-refs = [{ kind = \"Service\", name = \"cart\" }]`",
        );
    }
    if let Some(targets) = targets(table) {
        return targets.value;
    }
    let keys = ["target-refs", "target-ref"];
    if keys.iter().all(|key| table.value(key).is_none()) {
        let message = format!("{} has no `target-refs`", table.what());
        let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message)
            .label("for whom?")
            .help("add it, as in `target-refs = [{ kind = \"Service\", name = \"cart\" }]`");
        table.missing(keys.to_vec(), finding);
    }
    Vec::new()
}

/// `{ match-labels = { … } }`, as far as it can be read.
pub(super) fn selector(value: &Value<'_>) -> Option<At<BTreeMap<String, String>>> {
    let table = value.nested()?;
    let labels = table.optional("match-labels", labels::selector);
    table.finish();
    // What stands there under another key has been reported.
    let misplaced = labels.is_none() && table.entries().next().is_some();
    let labels = labels.unwrap_or_default().into_iter();
    let labels = labels.map(|(key, text)| (key, text.value)).collect();
    (!misplaced).then(|| At::new(labels, value.place().clone()))
}

/// Istio attaches an authorization-policy with an empty selector to nothing, other kinds to
/// everything (§2.3).
fn judge_selector(table: &Table<'_>, selector: &At<BTreeMap<String, String>>) {
    if selector.value.is_empty() {
        let message = format!("{}: `selector` is empty", table.what());
        table.report(
            Diagnostic::new(Code::BadValue, selector.place.clone(), message)
                .label("selects nothing in particular")
                .help("name labels, as in `{ match-labels = { app = \"cart\" } }`, or leave it out for every workload of the namespace"),
        );
    }
}

/// `target-refs`, or else `target-ref`, its predecessor.
fn targets(table: &Table<'_>) -> Option<At<Vec<At<TargetRef>>>> {
    let refs = table.optional("target-refs", |value| {
        let refs = value.list(target)?;
        if refs.len() > MOST_TARGETS {
            value.reject(
                Code::TooLarge,
                &format!("names {} targets, at most {MOST_TARGETS}", refs.len()),
                "too many",
                "split the policy into several, or target the gateway",
            );
        }
        (!value.is_empty_list()).then(|| At::new(refs, value.place().clone()))
    });
    let Some(single) = table.value("target-ref") else {
        return refs;
    };
    if refs.is_some() {
        let message = format!("{}: `target-ref` stands beside `target-refs`", table.what());
        no_effect(
            table,
            single.place().clone(),
            message,
            "keep `target-refs` alone",
        );
        return refs;
    }
    Some(At::new(vec![target(&single)?], single.place().clone()))
}

/// The kinds, with the API groups that Kubernetes has them in.
const KINDS: [(&str, TargetKind, &[&str]); 4] = [
    ("Service", TargetKind::Service, &["", "core"]),
    (
        "ServiceEntry",
        TargetKind::ServiceEntry,
        &["networking.istio.io"],
    ),
    (
        "Gateway",
        TargetKind::Gateway,
        &["gateway.networking.k8s.io"],
    ),
    (
        "GatewayClass",
        TargetKind::GatewayClass,
        &["gateway.networking.k8s.io"],
    ),
];

fn target(value: &Value<'_>) -> Option<At<TargetRef>> {
    let table = value.nested()?;
    let kind = table.required("kind", "kind = \"Service\"", |value| {
        scalar::choice(value, &KINDS.map(|(word, kind, _)| (word, kind)))
    });
    let name = table.required("name", "name = \"cart\"", scalar::name);
    if let Some(group) = table.value("group") {
        judge_group(&group, kind);
    }
    if let Some(namespace) = table.value("namespace") {
        judge_namespace(&namespace);
    }
    table.finish();
    let target = TargetRef {
        kind: kind?,
        name: name?.value,
    };
    Some(At::new(target, table.place().clone()))
}

fn judge_group(value: &Value<'_>, kind: Option<TargetKind>) {
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

/// A policy is for things of its own namespace.
fn judge_namespace(value: &Value<'_>) {
    if value.text().is_some_and(|text| !text.is_empty()) {
        value.bad(
            "is given, and a target is always in the policy's own namespace",
            "another namespace",
            "leave it out, and write the policy in the namespace of its target",
        );
    }
}
