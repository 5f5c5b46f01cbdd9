//! Labels: the operator's own, and those with a meaning to the mesh (`spec/labels-and-policy.md` §1.1).

use std::collections::BTreeMap;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::config::suggest;

pub(super) const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
pub(super) const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
pub(super) const USE_WAYPOINT: &str = "istio.io/use-waypoint";
pub(super) const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
pub(super) const USE_WAYPOINT_CANARY: &str = "istio.io/use-waypoint-canary";
pub(super) const USE_WAYPOINT_CANARY_NAMESPACE: &str = "istio.io/use-waypoint-canary-namespace";
pub(super) const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
pub(super) const WAYPOINT_FOR: &str = "istio.io/waypoint-for";

/// Labels with a meaning, each to some kinds of resource.
const SUPPORTED: [&str; 8] = [
    DATAPLANE_MODE,
    DNS_CAPTURE,
    USE_WAYPOINT,
    USE_WAYPOINT_NAMESPACE,
    USE_WAYPOINT_CANARY,
    USE_WAYPOINT_CANARY_NAMESPACE,
    INGRESS_USE_WAYPOINT,
    WAYPOINT_FOR,
];

/// Meaningful labels that this version does nothing for, and why that matters.
const UNSUPPORTED: [(&str, &str); 3] = [
    (
        "gateway.networking.k8s.io/gateway-name",
        "take it out: the instance of a waypoint is its `[[gateway]]`, on the `node` it names",
    ),
    (
        "networking.istio.io/tunnel",
        "take it out: this version tunnels only for workloads it captures",
    ),
    (
        "topology.istio.io/network",
        "write the key `network` instead, on the node, the workload or in `[mesh]`",
    ),
];

/// Labels of Istio's own that say nothing to this mesh, so that they may stand on anything.
const HARMLESS: [&str; 1] = ["istio.io/rev"];

/// The labels of a resource while it is being read.
#[derive(Default)]
pub(super) struct Labels<'a> {
    values: BTreeMap<String, (At<&'a str>, Value<'a>)>,
}

impl<'a> Labels<'a> {
    /// Reads the `labels` table.
    pub(super) fn read(table: &Table<'a>) -> Self {
        let written = table.optional("labels", Value::nested);
        let mut values = BTreeMap::new();
        for (key, value) in written.iter().flat_map(Table::entries) {
            values.insert(key.value.to_owned(), (key, value));
        }
        Self { values }
    }

    /// Takes out a label that has a meaning to this kind of resource.
    pub(super) fn take(&mut self, label: &str) -> Option<Value<'a>> {
        self.values.remove(label).map(|(_, value)| value)
    }

    /// What is left: the operator's own. Meaningful ones among them are on the wrong kind of
    /// resource, misspelt, or not supported.
    pub(super) fn finish(self, table: &Table<'_>) -> BTreeMap<String, String> {
        let own = self.values.into_iter();
        own.filter_map(|(name, (key, value))| {
            let text = value.text()?;
            judge_meaning(table, &key, &value);
            judge_key(table, &key);
            judge_text(&value, text);
            Some((name, text.to_owned()))
        })
        .collect()
    }
}

/// Reads labels that must be matched: the same syntax, no meaning.
pub(super) fn selector(value: &Value<'_>) -> Option<BTreeMap<String, At<String>>> {
    let table = value.nested()?;
    let entries = table.entries().filter_map(|(key, value)| {
        let text = value.text()?;
        judge_key(&table, &key);
        judge_text(&value, text);
        Some((key.value.to_owned(), At::new(text.to_owned(), key.place)))
    });
    Some(entries.collect())
}

fn judge_meaning(table: &Table<'_>, key: &At<&str>, value: &Value<'_>) {
    let name = key.value;
    if let Some((_, why)) = UNSUPPORTED.iter().find(|(label, _)| *label == name) {
        value.unsupported(why);
        return;
    }
    if SUPPORTED.contains(&name) {
        let message = format!("label `{name}` means nothing on {}", table.what());
        super::no_effect(table, key.place.clone(), message, "take it out");
        return;
    }
    if !name.starts_with("istio.io/") || HARMLESS.contains(&name) {
        return;
    }
    let known = SUPPORTED.into_iter().chain(HARMLESS);
    let message = format!(
        "{} has a label that Istio does not know: `{name}`",
        table.what()
    );
    let finding = Diagnostic::new(Code::UnknownKey, key.place.clone(), message);
    table.report(match suggest::closest(name, known) {
        Some(meant) => finding
            .label(format!("did you mean `{meant}`?"))
            .help(format!("write `{meant}` instead")),
        None => finding
            .label("no such label")
            .help("labels of your own belong under another prefix, or under none"),
    });
}

/// `prefix/name`, as Kubernetes has it, so that selectors and telemetry mean the same everywhere.
fn judge_key(table: &Table<'_>, key: &At<&str>) {
    let (prefix, name) = match key.value.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key.value),
    };
    let prefix_good = prefix.is_none_or(|p| scalar::name_fault(p).is_none());
    if prefix_good && !name.is_empty() && is_label_text(name) {
        return;
    }
    let message = format!(
        "{}: {:?} cannot be the name of a label",
        table.what(),
        key.value
    );
    table.report(
        Diagnostic::new(Code::BadName, key.place.clone(), message)
            .label("not a label's name")
            .help(
                "use up to 63 letters, digits, `-`, `_` and `.`, perhaps after a domain and a `/`",
            ),
    );
}

fn judge_text(value: &Value<'_>, text: &str) {
    if !is_label_text(text) {
        value.bad(
            &format!("cannot be the value of a label: {text:?}"),
            "not a label's value",
            "use up to 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit",
        );
    }
}

fn is_label_text(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    let (first, last) = (text.bytes().next(), text.bytes().last());
    text.len() <= 63 && text.bytes().all(legal) && edge(first) && edge(last)
}
