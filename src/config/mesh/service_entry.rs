//! `[[service-entry]]` (`spec/waypoint-l7.md` §3.7): Istio's fields, camelCase turned kebab-case.
//!
//! Which of them go together is Istio's rule: each way to find endpoints leaves no choice in how they
//! are written.

mod endpoint;
mod ports;
mod resolution;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::annotations::Annotations;
use super::labels::{self, Labels};
use super::waypoint::{self, WrittenCanary};
use super::{name_of, namespace_of};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::{Endpoint, ExportTo, Port, UseWaypoint, is_single};
use crate::model::waypoint::Resolution;

/// A `[[service-entry]]` table.
pub(in crate::config) struct WrittenServiceEntry {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `hosts`.
    pub hosts: Vec<At<Arc<str>>>,
    /// `addresses`.
    pub addresses: Vec<At<IpNet>>,
    /// `ports`.
    pub ports: Vec<Port>,
    /// `resolution`.
    pub resolution: Resolution,
    /// `endpoints`.
    pub endpoints: Vec<Endpoint>,
    /// `workload-selector`.
    pub selector: Option<At<BTreeMap<String, String>>>,
    /// `subject-alt-names`.
    pub subject_alt_names: Vec<Arc<str>>,
    /// `export-to`.
    pub export_to: ExportTo,
    /// `use-waypoint`, or the label that means the same.
    pub use_waypoint: Option<At<UseWaypoint>>,
    /// `use-waypoint-canary` and what goes with it.
    pub canary: WrittenCanary,
    /// `ingress-use-waypoint`, or the label that means the same.
    pub ingress_use_waypoint: Option<bool>,
    /// `labels`, the meaningful ones taken out.
    pub labels: BTreeMap<String, String>,
}

impl WrittenServiceEntry {
    /// The addresses that are one, and not a range.
    pub(in crate::config) fn single_addresses(&self) -> impl Iterator<Item = At<std::net::IpAddr>> {
        let single = self.addresses.iter().filter(|a| is_single(&a.value));
        single.map(|a| At::new(a.value.addr(), a.place.clone()))
    }

    /// The ranges.
    pub(in crate::config) fn ranges(&self) -> impl Iterator<Item = &At<IpNet>> {
        self.addresses.iter().filter(|a| !is_single(&a.value))
    }
}

pub(super) fn read(value: &Value<'_>, home: Option<&At<Arc<str>>>) -> Option<WrittenServiceEntry> {
    let table = value.resource("service-entry")?;
    let mut labels = Labels::read(&table);
    let name = name_of(&table, "service-entry", scalar::name);
    let namespace = namespace_of(&table, home);
    let hosts = table.required("hosts", "hosts = [\"api.example.com\"]", hosts);
    let addresses = table.optional("addresses", |value| value.list(address));
    let ports = table.required(
        "ports",
        "ports = [{ number = 443, name = \"tls\", protocol = \"TLS\" }]",
        ports::read,
    );
    let ports = ports.unwrap_or_default();
    let external = table.optional("location", location).unwrap_or(true);
    let resolution = table.optional("resolution", |value| {
        Some(At::new(resolution::read(value)?, value.place().clone()))
    });
    let resolution = resolution.unwrap_or_else(|| At::new(Resolution::None, table.place().clone()));
    let endpoints = table.value("endpoints");
    let written = endpoints.as_ref().and_then(|value| {
        let endpoints = endpoint::read(value, &ports, resolution.value)?;
        Some(At::new(endpoints, value.place().clone()))
    });
    let selecting = table.value("workload-selector");
    let selector = selecting
        .as_ref()
        .and_then(|value| Some(At::new(selector(value)?, value.place().clone())));
    let subject_alt_names = table.optional("subject-alt-names", |value| {
        value.list(|value| scalar::plain(value).map(Arc::from))
    });
    let export_to = table.optional("export-to", |value| export_to(value, &namespace.value));
    let use_waypoint = waypoint::read(&table, &mut labels, &namespace.value);
    let mut annotations = Annotations::read(&table);
    let canary = waypoint::canary(&table, &mut labels, &mut annotations, &namespace.value);
    annotations.finish();
    let ingress_use_waypoint = waypoint::ingress(&table, &mut labels);
    let labels = labels.finish(&table);
    let shape = resolution::Shape {
        hosts: hosts.as_deref().unwrap_or_default(),
        addresses: addresses.as_deref(),
        external,
        resolution: &resolution,
        endpoints: written.as_ref(),
        selector: selecting.as_ref().map(Value::place),
    };
    shape.judge(&table);
    table.finish();
    Some(WrittenServiceEntry {
        place: table.place().clone(),
        name: name?,
        namespace,
        hosts: hosts?,
        addresses: addresses.unwrap_or_default(),
        ports,
        resolution: resolution.value,
        endpoints: written.map(|written| written.value).unwrap_or_default(),
        selector,
        subject_alt_names: subject_alt_names.unwrap_or_default(),
        export_to: export_to.unwrap_or_default(),
        use_waypoint,
        canary,
        ingress_use_waypoint,
        labels,
    })
}

/// Host names, each once.
fn hosts(value: &Value<'_>) -> Option<Vec<At<Arc<str>>>> {
    if value.is_empty_list() {
        value.bad(
            "is empty",
            "no host",
            "name at least one, as in `[\"api.example.com\"]`",
        );
    }
    let mut seen: Vec<At<Arc<str>>> = Vec::new();
    value.list(|value| {
        let host = host(value)?;
        if let Some(first) = seen.iter().find(|known| known.value == host.value) {
            let message = format!("host `{}` is listed twice", host.value);
            value.report(
                Diagnostic::new(Code::DuplicateName, host.place.clone(), message)
                    .label("again")
                    .related(first.place.clone(), "first here")
                    .help("keep one of the two"),
            );
            return None;
        }
        seen.push(host.clone());
        Some(host)
    })
}

/// A host name in full, or a wildcard.
fn host(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let text = value.text_at()?;
    let bare = text.value.strip_prefix("*.").unwrap_or(text.value);
    if let Some(fault) = scalar::name_fault(bare) {
        value.reject(
            Code::BadName,
            &format!("{fault}: {:?}", text.value),
            "not a host",
            "write a host name in full, as in `\"api.example.com\"`, or a wildcard as in `\"*.example.com\"`",
        );
        return None;
    }
    Some(At::new(Arc::from(text.value), text.place))
}

/// An address, or a range of them.
fn address(value: &Value<'_>) -> Option<At<IpNet>> {
    if value.text()?.contains('/') {
        return scalar::range(value);
    }
    let address = scalar::address(value)?;
    Some(At::new(IpNet::from(address.value), address.place))
}

/// Whether it is outside the mesh.
fn location(value: &Value<'_>) -> Option<bool> {
    let words = [("MESH_EXTERNAL", true), ("MESH_INTERNAL", false)];
    scalar::choice(value, &words)
}

/// `{ labels = { … } }`, which must select something.
fn selector(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let table = value.nested()?;
    let labels = table.required("labels", "labels = { app = \"cart\" }", labels::selector);
    table.finish();
    let labels = labels?;
    if labels.is_empty() {
        value.bad(
            "is empty",
            "matches nothing in particular",
            "name the labels its workloads carry, as in `{ labels = { app = \"cart\" } }`",
        );
        return None;
    }
    let labels = labels.into_iter();
    Some(labels.map(|(key, text)| (key, text.value)).collect())
}

/// Whom it is shown to. Everyone is among them if everyone is named.
fn export_to(value: &Value<'_>, namespace: &str) -> Option<ExportTo> {
    let known = |value: &Value<'_>| match value.text()? {
        "*" => Some(ExportTo::Everyone),
        "." => Some(ExportTo::Own),
        own if own == namespace => Some(ExportTo::Own),
        _ => {
            value.unsupported("write `[\"*\"]` for everyone, or `[\".\"]` for its own namespace");
            None
        }
    };
    let named = value.list(known)?;
    match named.contains(&ExportTo::Everyone) || named.is_empty() {
        true => Some(ExportTo::Everyone),
        false => Some(ExportTo::Own),
    }
}

/// Reports two keys of which there can be one.
fn not_beside(table: &Table<'_>, place: Place, message: String, other: &Place, help: &str) {
    let message = format!("{}: {message}", table.what());
    table.report(
        Diagnostic::new(Code::ConflictingKeys, place, message)
            .label("not with the other")
            .related(other.clone(), "the other")
            .help(help),
    );
}
