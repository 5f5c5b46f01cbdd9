//! `[[http-route]]`, `[[grpc-route]]`, `[[tcp-route]]` and `[[tls-route]]` (`spec/waypoint-l7.md` §2):
//! Gateway API's fields, camelCase turned kebab-case. What it would accept and a waypoint could not
//! do is an error here; what is merely in vain is a warning.

mod backends;
mod fields;
mod filter;
mod grpc;
mod host;
mod lists;
mod matches;
mod parents;
mod path;
mod pattern;
mod persistence;
mod retry;
mod rule;
mod scope;
mod timeouts;
mod virtual_service;

use std::sync::Arc;

use self::scope::Scope;
use super::labels::Labels;
use super::{name_of, namespace_of};
use crate::config::diagnose::Code;
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::ParentRef;
use crate::model::route::Kind;

pub(super) use fields::{field_value, header_name, is_token};
pub(super) use filter::header_change::fault as header_fault;
pub(super) use lists::at_most;
pub(super) use matches::http as read_match;
pub(in crate::config) use rule::WrittenRule;
pub(in crate::config) use scope::{Asked, Role};
pub(in crate::config) use virtual_service::WrittenVirtualService;
pub(super) use virtual_service::{read as read_virtual_service, read_retries};

/// The kinds that are read here.
pub(super) const KINDS: [Kind; 4] = [Kind::Grpc, Kind::Http, Kind::Tls, Kind::Tcp];

/// A route of one of these kinds, or what a virtual service says.
pub(in crate::config) struct WrittenRoute {
    /// Its header.
    pub place: Place,
    /// Which kind.
    pub kind: Kind,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `parent-refs`.
    pub parents: Vec<At<ParentRef>>,
    /// `hostnames`.
    pub hosts: Vec<Arc<str>>,
    /// `rules`.
    pub rules: Vec<WrittenRule>,
    /// Whom its rules ask, mirrors included.
    pub asked: Vec<At<Asked>>,
}

pub(super) fn read(
    kind: Kind,
    value: &Value<'_>,
    home: Option<&At<Arc<str>>>,
) -> Option<WrittenRoute> {
    let table = value.resource(kind.as_str())?;
    Labels::read(&table).finish(&table);
    let name = name_of(&table, kind.as_str(), scalar::name);
    let namespace = namespace_of(&table, home);
    let scope = Scope::new(kind, &namespace.value);
    let parents = table.required(
        "parent-refs",
        "parent-refs = [{ name = \"cart\" }]",
        |value| parents::read(value, &scope),
    );
    let hosts = hosts(&table, kind);
    let example = "rules = [{ backend-refs = [{ name = \"cart-v2\", port = 80 }] }]";
    let rules = table.required("rules", example, |value| rule::read(value, &scope));
    table.finish();
    Some(WrittenRoute {
        place: table.place().clone(),
        kind,
        name: name?,
        namespace,
        parents: parents.unwrap_or_default(),
        hosts,
        rules: rules.unwrap_or_default(),
        asked: scope.into_asked(),
    })
}

/// Server names of a `tls-route`. Services have routes of HTTP by their address, never by `Host`.
fn hosts(table: &Table<'_>, kind: Kind) -> Vec<Arc<str>> {
    if kind == Kind::Tcp {
        return Vec::new();
    }
    let Some(value) = table.value("hostnames") else {
        return Vec::new();
    };
    let hosts = host::read(&value).unwrap_or_default();
    if kind != Kind::Tls && !hosts.is_empty() {
        value.reject(
            Code::NoEffect,
            "is ignored: what is asked of a service's address is routed whatever `Host` says",
            "has no effect",
            "take it out; to tell hosts apart, match the header `host`",
        );
    }
    hosts
}
