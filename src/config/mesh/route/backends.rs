//! `backend-refs`: where requests go, and in which shares (§2.6).

use std::sync::Arc;

use super::filter;
use super::lists::{MOST, at_most};
use super::scope::{Role, Scope};
use crate::config::diagnose::Code;
use crate::config::read::{Table, Value, scalar};
use crate::model::route::{Backend, BackendKind, BackendRef};

/// Gateway API's limit on a share.
const GREATEST_WEIGHT: u32 = 1_000_000;

/// The kinds, with the API groups that Kubernetes has them in.
const KINDS: [(&str, BackendKind, &[&str]); 3] = [
    ("Service", BackendKind::Service, &["", "core"]),
    (
        "ServiceImport",
        BackendKind::Service,
        &["multicluster.x-k8s.io"],
    ),
    ("Hostname", BackendKind::Hostname, &["networking.istio.io"]),
];

pub(super) fn read(table: &Table<'_>, scope: &Scope) -> Vec<Backend<BackendRef>> {
    let backends = table.optional("backend-refs", |value| {
        let help = "a rule can have no more";
        at_most(value, MOST, "backends", help, |item| backend(item, scope))
    });
    backends.unwrap_or_default()
}

fn backend(value: &Value<'_>, scope: &Scope) -> Option<Backend<BackendRef>> {
    let table = value.nested()?;
    let to = reference(&table, scope, Role::Share);
    let weight = table.optional("weight", |value| value.count(0..=GREATEST_WEIGHT));
    let filters = match scope.is_of_requests() {
        true => filter::read(&table, scope, filter::Of::Backend),
        false => Vec::new(),
    };
    table.finish();
    Some(Backend {
        to: to?,
        weight: weight.unwrap_or(1),
        filters: filters.into_iter().map(|filter| filter.value).collect(),
    })
}

/// The keys of a table that name a backend. Whether it is there is asked once all files are read:
/// only its own share is lost where it is not.
pub(super) fn reference(table: &Table<'_>, scope: &Scope, role: Role) -> Option<BackendRef> {
    let kind = kind(table);
    let name = table.required("name", "name = \"cart\"", |value| match &kind {
        Some(BackendKind::Unknown(_)) => scalar::plain(value).map(Arc::from),
        _ => scalar::name(value).map(|name| name.value),
    });
    let namespace = namespace(table, kind.as_ref());
    let port = match &kind {
        Some(BackendKind::Unknown(_)) => table.optional("port", scalar::port),
        _ => table.required("port", "port = 80", scalar::port),
    };
    let known = !matches!(kind, Some(BackendKind::Unknown(_)));
    if known && port.is_none() {
        return None;
    }
    let backend = BackendRef {
        kind: kind?,
        name: name?,
        namespace: namespace.unwrap_or_else(|| Arc::clone(&scope.namespace)),
        port,
        subset: None,
        origin: table.place().origin(),
    };
    scope.ask(table.place(), &backend, role);
    Some(backend)
}

/// What it is said to be, by `kind` and `group` together.
fn kind(table: &Table<'_>) -> Option<BackendKind> {
    let kind = match table.value("kind") {
        Some(value) => scalar::plain(&value)?,
        None => "Service",
    };
    let group = match table.value("group") {
        Some(value) => Some(value.text()?),
        None => None,
    };
    let known = KINDS.into_iter().find(|(word, _, groups)| {
        *word == kind && group.is_none_or(|group| groups.contains(&group))
    });
    Some(match (known, group) {
        (Some((_, known, _)), _) => known,
        (None, Some(group)) if !group.is_empty() => {
            BackendKind::Unknown(format!("{group}/{kind}").into())
        }
        (None, _) => BackendKind::Unknown(Arc::from(kind)),
    })
}

fn namespace(table: &Table<'_>, kind: Option<&BackendKind>) -> Option<Arc<str>> {
    let value = table.value("namespace")?;
    if kind == Some(&BackendKind::Hostname) {
        value.reject(
            Code::ConflictingKeys,
            "is given, and a host name is one of the whole mesh",
            "not with `Hostname`",
            "take it out",
        );
        return None;
    }
    scalar::label(&value).map(|namespace| namespace.value)
}
