//! `[[virtual-service]]` (`spec/waypoint-l7.md` §3.1–§3.3): Istio's fields, camelCase turned
//! kebab-case. What of them is for ingress gateways or sidecars is an error that says what to write
//! instead.

mod cors;
mod destination;
mod fault;
mod headers;
mod matches;
mod outcome;
mod retries;
mod rule;
mod share;
mod text;

use std::sync::Arc;

use super::super::labels::Labels;
use super::super::{name_of, namespace_of};
use super::scope::Scope;
use super::{WrittenRoute, WrittenRule};
use crate::config::diagnose::Code;
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::declaration::Delegate;
use crate::model::route::Kind;

pub(in crate::config::mesh) use retries::read as read_retries;

/// A `[[virtual-service]]` table.
pub(in crate::config) struct WrittenVirtualService {
    /// Its rules, and whom they ask. It has no parents, and its hosts are beside it.
    pub route: WrittenRoute,
    /// `hosts` as they are written: a name without dots is a service of its namespace. None where
    /// others delegate to it.
    pub hosts: Vec<At<Arc<str>>>,
    /// Rules of others in the place of its own.
    pub delegates: Vec<At<Delegate>>,
    /// Whether it is shown to its own namespace alone.
    pub own: bool,
}

pub(in crate::config::mesh) fn read(
    value: &Value<'_>,
    home: Option<&At<Arc<str>>>,
) -> Option<WrittenVirtualService> {
    let table = value.resource(Kind::VirtualService.as_str())?;
    Labels::read(&table).finish(&table);
    let name = name_of(&table, Kind::VirtualService.as_str(), scalar::name);
    let namespace = namespace_of(&table, home);
    let scope = Scope::new(Kind::VirtualService, &namespace.value);
    let hosts = table.optional("hosts", hosts).unwrap_or_default();
    let own = table.optional("export-to", export_to).unwrap_or(false);
    gateways(&table);
    table.unsupported(
        "tcp",
        "write a `[[tcp-route]]` for the service: its backends have weights too",
    );
    table.unsupported(
        "tls",
        "write a `[[tls-route]]` for the service, with these names as `hostnames`",
    );
    let example = "http = [{ route = [{ destination = { host = \"cart-v2\" } }] }]";
    let ruled = table.required("http", example, |value| rule::read(value, &scope));
    table.finish();
    let (rules, delegates) = in_order(ruled.unwrap_or_default());
    Some(WrittenVirtualService {
        route: WrittenRoute {
            place: table.place().clone(),
            kind: Kind::VirtualService,
            name: name?,
            namespace,
            parents: Vec::new(),
            hosts: Vec::new(),
            rules,
            asked: scope.into_asked(),
        },
        hosts,
        delegates,
        own,
    })
}

/// Rules by themselves, and which of them are others'.
fn in_order(ruled: Vec<rule::Ruled>) -> (Vec<WrittenRule>, Vec<At<Delegate>>) {
    let mut delegates = Vec::new();
    let mut rules = Vec::new();
    for rule::Ruled { rule, delegate } in ruled {
        let number = rules.len();
        delegates.extend(delegate.map(|to| {
            let (namespace, name) = to.value;
            let delegate = Delegate {
                rule: number,
                namespace,
                name,
            };
            At::new(delegate, to.place)
        }));
        rules.push(rule);
    }
    (rules, delegates)
}

/// Names, short or in full, and wildcards.
fn hosts(value: &Value<'_>) -> Option<Vec<At<Arc<str>>>> {
    if value.is_empty_list() {
        value.bad(
            "is empty",
            "for nobody",
            "name the service whose requests it is for, as in `[\"cart\"]`; leave the key out where others delegate to it",
        );
    }
    let mut seen = super::lists::Seen::default();
    value.list(|item| {
        let host = host(item)?;
        seen.is_new(item, &host).then_some(host)
    })
}

fn host(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let text = value.text_at()?;
    let bare = text.value.strip_prefix("*.").unwrap_or(text.value);
    if text.value != "*"
        && let Some(fault) = scalar::name_fault(bare)
    {
        value.reject(
            Code::BadName,
            &format!("{fault}: {:?}", text.value),
            "not a host",
            "write a service of the same namespace, as in `\"cart\"`, a host name in full, or a wildcard as in `\"*.example.com\"`",
        );
        return None;
    }
    Some(At::new(Arc::from(text.value), text.place))
}

/// Whom it is shown to: whether to its own namespace alone. For whose requests it holds is a matter
/// of its namespace, whatever it says (§2.1).
fn export_to(value: &Value<'_>) -> Option<bool> {
    let known = |value: &Value<'_>| match value.text()? {
        "*" => Some(false),
        "." => Some(true),
        _ => {
            value.unsupported("write `\"*\"`, `\".\"` or leave it out: it holds for services of its own namespace, and of others at waypoints of its own");
            None
        }
    };
    Some(value.list(known)?.into_iter().any(|own| own))
}

/// Which proxies it is for: those of the mesh.
fn gateways(table: &Table<'_>) {
    if let Some(value) = table.value("gateways") {
        mesh_alone(&value);
    }
}

/// A list of gateways, of which there is but the mesh.
fn mesh_alone(value: &Value<'_>) {
    let known = |value: &Value<'_>| {
        if value.text()? != "mesh" {
            value.unsupported(
                "write `\"mesh\"` or leave it out: there are no ingress gateways, and waypoints have it by its `hosts`",
            );
        }
        Some(())
    };
    let _judged = value.list(known);
}
