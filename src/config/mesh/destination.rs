//! `[[destination-rule]]` and `[[backend-tls-policy]]`, which means the same (`spec/waypoint-l7.md`
//! §3.4–§3.6): Istio's fields, camelCase turned kebab-case.

mod backend_tls;
mod balancer;
mod groups;
mod locality;
mod outlier;
mod pool;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::labels::{self, Labels};
use super::{name_of, namespace_of};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};

pub(super) use backend_tls::read as read_backend_tls;
pub(in crate::config) use backend_tls::{WrittenBackendTls, WrittenTarget};
pub(in crate::config) use groups::WrittenPolicy;
pub(super) use locality::read as read_locality;

/// A `[[destination-rule]]` table.
pub(in crate::config) struct WrittenDestination {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `host` as it was written: a name without dots is a service of its namespace.
    pub host: At<Arc<str>>,
    /// `traffic-policy`.
    pub policy: WrittenPolicy,
    /// `subsets`.
    pub subsets: Vec<WrittenSubset>,
}

/// One of `subsets`.
pub(in crate::config) struct WrittenSubset {
    /// `name`.
    pub name: At<Arc<str>>,
    /// `labels`.
    pub labels: BTreeMap<String, String>,
    /// Where they are written; the subset, where it has none.
    pub labels_place: Place,
    /// `traffic-policy`.
    pub policy: Option<WrittenPolicy>,
}

pub(super) fn read(value: &Value<'_>, home: Option<&At<Arc<str>>>) -> Option<WrittenDestination> {
    let table = value.resource("destination-rule")?;
    let name = name_of(&table, "destination-rule", scalar::name);
    let namespace = namespace_of(&table, home);
    Labels::read(&table).finish(&table);
    let host = table.required("host", "host = \"cart\"", host);
    let policy = table.optional("traffic-policy", groups::read);
    let subsets = table.optional("subsets", subsets).unwrap_or_default();
    if let Some(value) = table.value("export-to") {
        export_to(&value);
    }
    table.unsupported(
        "workload-selector",
        "take it out: a destination-rule is for whole waypoints",
    );
    table.finish();
    Some(WrittenDestination {
        place: table.place().clone(),
        name: name?,
        namespace,
        host: host?,
        policy: policy.unwrap_or_default(),
        subsets,
    })
}

/// A host name, short or in full, or a wildcard.
fn host(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let text = value.text_at()?;
    let bare = text.value.strip_prefix("*.").unwrap_or(text.value);
    if text.value == "*" {
        return Some(At::new(Arc::from("*"), text.place));
    }
    if let Some(fault) = scalar::name_fault(bare) {
        value.reject(
            Code::BadName,
            &format!("{fault}: {:?}", text.value),
            "not a host",
            "write a service of the rule's namespace, as in `\"cart\"`, a host name in full, or a wildcard as in `\"*.example.com\"`",
        );
        return None;
    }
    Some(At::new(Arc::from(text.value), text.place))
}

/// Whom the rule is shown to. Rules are looked for in three namespaces whatever it says (§3.4).
fn export_to(value: &Value<'_>) {
    let known = |value: &Value<'_>| {
        let text = value.text()?;
        if !matches!(text, "*" | ".") {
            value.unsupported("write `\"*\"` or leave it out: a rule holds in its own namespace, that of the service's waypoint or the root namespace");
        }
        Some(())
    };
    let _judged = value.list(known);
}

fn subsets(value: &Value<'_>) -> Option<Vec<WrittenSubset>> {
    let mut seen: BTreeMap<Arc<str>, Place> = BTreeMap::new();
    value.list(|value| {
        let table = value.nested()?;
        let subset = subset(&table);
        table.finish();
        let subset = subset?;
        let At { value: name, place } = subset.name.clone();
        if let Some(first) = seen.get(&name) {
            let message = format!("{}: subset `{name}` is declared twice", table.what());
            table.report(
                Diagnostic::new(Code::DuplicateName, place, message)
                    .label("again")
                    .related(first.clone(), "first here")
                    .help("rename one of the two, or take it out"),
            );
        } else {
            seen.insert(name, place);
        }
        Some(subset)
    })
}

fn subset(table: &Table<'_>) -> Option<WrittenSubset> {
    let name = table.required("name", "name = \"v1\"", scalar::label);
    let labels = table.optional("labels", |value| {
        Some(At::new(labels::selector(value)?, value.place().clone()))
    });
    let policy = table.optional("traffic-policy", groups::read);
    let labels = labels.unwrap_or_else(|| At::new(BTreeMap::new(), table.place().clone()));
    let own = labels.value.into_iter();
    Some(WrittenSubset {
        name: name?,
        labels: own.map(|(key, text)| (key, text.value)).collect(),
        labels_place: labels.place,
        policy,
    })
}
