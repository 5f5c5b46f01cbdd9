//! `[capture]`: what this host's capture rules let alone, and which workloads run here where the
//! control plane is another's and does not say.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::{ProxyUser, user};
use crate::config::diagnose::Code;
use crate::config::mesh::read_capture;
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::Capture;

/// A workload that runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCapture {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name, as the control plane has it.
    pub name: Arc<str>,
    /// How it is captured.
    pub capture: Capture,
}

/// How capture goes about on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureSettings {
    /// Ports whose connections are let alone; on the host's network SSH's unless set.
    pub exclude_ports: Option<BTreeSet<u16>>,
    /// Destinations that are let alone; none unless set.
    pub exclude_cidrs: BTreeSet<IpNet>,
    /// Users whose connections are let alone; none unless set.
    pub exclude_users: Vec<ProxyUser>,
    /// Who may probe workloads beside the proxy; nobody unless set.
    pub probe_sources: BTreeSet<IpNet>,
    /// Whether namespaces are filtered on the host's side of their links too; not unless set.
    pub strict: bool,
}

/// Reads `capture`; `guest` says that the control plane does not place workloads.
pub(super) fn read(root: &Table<'_>, guest: bool) -> (CaptureSettings, Vec<LocalCapture>) {
    let Some(value) = root.value("capture") else {
        return (CaptureSettings::default(), Vec::new());
    };
    if !value.is_table() {
        return (CaptureSettings::default(), workloads(&value, guest));
    }
    let Some(table) = value.titled("`[capture]`") else {
        return (CaptureSettings::default(), Vec::new());
    };
    let settings = settings(&table);
    let placed = table.value("workload");
    let placed = placed.map_or_else(Vec::new, |value| workloads(&value, guest));
    table.finish();
    (settings, placed)
}

fn settings(table: &Table<'_>) -> CaptureSettings {
    let ports = table.optional("exclude-ports", |value| value.list(scalar::port));
    let ranges = |key| {
        let ranges = table.optional(key, |value| value.list(scalar::range));
        let ranges = ranges.into_iter().flatten();
        ranges.map(|range| range.value).collect()
    };
    let users = table.optional("exclude-users", |value| value.list(user));
    CaptureSettings {
        exclude_ports: ports.map(BTreeSet::from_iter),
        exclude_cidrs: ranges("exclude-cidrs"),
        exclude_users: users.unwrap_or_default(),
        probe_sources: ranges("probe-sources"),
        strict: table.optional("strict", Value::boolean).unwrap_or(false),
    }
}

/// Reads every workload, in `[[capture]]` or `[[capture.workload]]`.
fn workloads(entries: &Value<'_>, guest: bool) -> Vec<LocalCapture> {
    let entries = entries.array_of_tables("capture");
    if let Some(first) = entries.first().filter(|_| !guest) {
        first.reject(
            Code::ConflictingKeys,
            "is for nodes whose control plane is not one of Lateen",
            "no use here",
            "write `capture` in the `[[workload]]` of the mesh files, or set `token-file` and `root-file` in `[control]`",
        );
    }
    let mut captures = Vec::new();
    let mut named = BTreeSet::new();
    for value in entries {
        let Some((namespace, name, capture)) = entry(&value) else {
            continue;
        };
        if !named.insert((Arc::clone(&namespace), Arc::clone(&name))) {
            value.reject(
                Code::DuplicateName,
                &format!("names `{namespace}/{name}` a second time"),
                "twice",
                "keep one of them",
            );
        }
        captures.extend(capture.map(|capture| LocalCapture {
            namespace,
            name,
            capture,
        }));
    }
    captures
}

/// Namespace and name of a workload, and how it is captured where that is right.
fn entry(value: &Value<'_>) -> Option<(Arc<str>, Arc<str>, Option<Capture>)> {
    let table = value.resource("capture")?;
    let namespace = table.required("namespace", "namespace = \"shop\"", scalar::label);
    let name = table.required("name", "name = \"cart-1\"", scalar::name);
    let capture = table.required("capture", "capture = { netns = \"cart-1\" }", read_capture);
    table.finish();
    Some((namespace?.value, name?.value, capture))
}
