//! The kinds of resource in a mesh directory, each read from its tables into what was *written*:
//! values beside their places, defaults not yet filled in, other resources not yet looked at.
//!
//! What it all means together is [`super::check`]'s business.

mod annotations;
mod destination;
mod gateway;
mod labels;
mod limit;
mod namespace;
mod node;
mod policy;
mod protocol;
mod provider;
mod route;
mod service;
mod service_entry;
mod settings;
mod telemetry;
mod transport;
mod waypoint;
mod workload;

use std::sync::Arc;

use super::diagnose::{Code, Diagnostic};
use super::read::{Table, Value, scalar};
use super::source::{At, Place};
use super::suggest;

pub(super) use destination::{WrittenBackendTls, WrittenDestination, WrittenSubset, WrittenTarget};
pub(super) use gateway::{WrittenGateway, WrittenMachines};
pub(super) use limit::WrittenLimit;
pub(super) use namespace::WrittenNamespace;
pub(super) use node::WrittenNode;
pub(super) use policy::{
    Mention, WrittenAttachment, WrittenAuthentication, WrittenAuthorization,
    WrittenRequestAuthentication,
};
pub(super) use route::{Asked, Role, WrittenRoute, WrittenRule, WrittenVirtualService};
pub(super) use service::WrittenService;
pub(super) use service_entry::WrittenServiceEntry;
pub(super) use settings::{WrittenSettings, defaults as default_settings};
pub(super) use telemetry::{NamedProvider, Use, WrittenTelemetry};
pub(super) use waypoint::WrittenCanary;
pub(super) use workload::{WrittenWorkload, read_capture};

/// The namespace of what names none, in a file without `default-namespace`. It exists undeclared.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Everything the files of a mesh directory say.
#[derive(Default)]
pub(super) struct Written {
    /// `[mesh]` tables; one is allowed.
    pub settings: Vec<WrittenSettings>,
    /// `[[node]]`.
    pub nodes: Vec<WrittenNode>,
    /// `[[namespace]]`.
    pub namespaces: Vec<WrittenNamespace>,
    /// `[[workload]]`.
    pub workloads: Vec<WrittenWorkload>,
    /// `[[service]]`.
    pub services: Vec<WrittenService>,
    /// `[[service-entry]]`.
    pub service_entries: Vec<WrittenServiceEntry>,
    /// `[[gateway]]`.
    pub gateways: Vec<WrittenGateway>,
    /// `[[authorization-policy]]`.
    pub authorization_policies: Vec<WrittenAuthorization>,
    /// `[[peer-authentication]]`.
    pub peer_authentications: Vec<WrittenAuthentication>,
    /// `[[request-authentication]]`.
    pub request_authentications: Vec<WrittenRequestAuthentication>,
    /// `[[telemetry]]`.
    pub telemetry: Vec<WrittenTelemetry>,
    /// `[[rate-limit]]`.
    pub rate_limits: Vec<WrittenLimit>,
    /// `[[http-route]]`, `[[grpc-route]]`, `[[tls-route]]`, `[[tcp-route]]`, in the order they were written.
    pub routes: Vec<WrittenRoute>,
    /// `[[virtual-service]]`.
    pub virtual_services: Vec<WrittenVirtualService>,
    /// `[[destination-rule]]`.
    pub destinations: Vec<WrittenDestination>,
    /// `[[backend-tls-policy]]`.
    pub backend_tls: Vec<WrittenBackendTls>,
    /// Names of resources that are written but could not be read, by kind: what refers to them
    /// is not wrong for that.
    pub unread: bool,
}

/// Kinds that DESIGN §5 names and this version does not enforce. Reading on without them would
/// leave open what the operator meant to close.
const LATER: [&str; 1] = ["wasm-plugin"];

/// Tables of `lateen.toml`, which people put here by mistake.
const OF_THE_HOST: [&str; 3] = ["control", "log", "listen"];

/// Reads one file's tables into `written`.
pub(super) fn read(root: &Table<'_>, written: &mut Written) {
    let home = root.optional("default-namespace", scalar::label);
    if let Some(mesh) = root.value("mesh") {
        written.settings.extend(settings::read(&mesh));
    }
    read_kind(
        root,
        "node",
        &mut written.nodes,
        &mut written.unread,
        node::read,
    );
    read_kind(
        root,
        "namespace",
        &mut written.namespaces,
        &mut written.unread,
        namespace::read,
    );
    let home = home.as_ref();
    read_kind(
        root,
        "workload",
        &mut written.workloads,
        &mut written.unread,
        |value| workload::read(value, home),
    );
    read_kind(
        root,
        "service",
        &mut written.services,
        &mut written.unread,
        |value| service::read(value, home),
    );
    read_kind(
        root,
        "service-entry",
        &mut written.service_entries,
        &mut written.unread,
        |value| service_entry::read(value, home),
    );
    read_kind(
        root,
        "gateway",
        &mut written.gateways,
        &mut written.unread,
        |value| gateway::read(value, home),
    );
    read_kind(
        root,
        "authorization-policy",
        &mut written.authorization_policies,
        &mut written.unread,
        |value| policy::read_authorization(value, home),
    );
    read_kind(
        root,
        "peer-authentication",
        &mut written.peer_authentications,
        &mut written.unread,
        |value| policy::read_authentication(value, home),
    );
    read_kind(
        root,
        "request-authentication",
        &mut written.request_authentications,
        &mut written.unread,
        |value| policy::read_request_authentication(value, home),
    );
    read_kind(
        root,
        "telemetry",
        &mut written.telemetry,
        &mut written.unread,
        |value| telemetry::read(value, home),
    );
    read_kind(
        root,
        "rate-limit",
        &mut written.rate_limits,
        &mut written.unread,
        |value| limit::read(value, home),
    );
    for kind in route::KINDS {
        read_kind(
            root,
            kind.as_str(),
            &mut written.routes,
            &mut written.unread,
            |value| route::read(kind, value, home),
        );
    }
    written.routes.sort_by_key(|r| r.place.span().start);
    read_kind(
        root,
        "virtual-service",
        &mut written.virtual_services,
        &mut written.unread,
        |value| route::read_virtual_service(value, home),
    );
    read_kind(
        root,
        "destination-rule",
        &mut written.destinations,
        &mut written.unread,
        |value| destination::read(value, home),
    );
    read_kind(
        root,
        "backend-tls-policy",
        &mut written.backend_tls,
        &mut written.unread,
        |value| destination::read_backend_tls(value, home),
    );
    refuse_later_kinds(root);
    for table in OF_THE_HOST {
        if let Some(value) = root.value_unlisted(table) {
            value.reject(
                Code::UnknownKey,
                "is no kind of mesh resource",
                "belongs in lateen.toml",
                "settings of one host belong in /etc/lateen/lateen.toml, outside the mesh directory",
            );
        }
    }
}

fn read_kind<'a, T>(
    root: &Table<'a>,
    kind: &'static str,
    into: &mut Vec<T>,
    unread: &mut bool,
    read: impl Fn(&Value<'a>) -> Option<T>,
) {
    let Some(value) = root.value(kind) else {
        return;
    };
    for item in value.array_of_tables(kind) {
        match read(&item) {
            Some(resource) => into.push(resource),
            None => *unread = true,
        }
    }
}

fn refuse_later_kinds(root: &Table<'_>) {
    for kind in LATER {
        let Some(value) = root.value_unlisted(kind) else {
            continue;
        };
        for place in value.places() {
            let message = format!("this version does not enforce `{kind}`");
            root.report(
                Diagnostic::new(Code::Unsupported, place, message)
                    .label("not enforced")
                    .help("take it out: a mesh that ignored it would be more open than it reads"),
            );
        }
    }
}

/// The name every resource must have.
fn name_of(
    table: &Table<'_>,
    kind: &str,
    read: fn(&Value<'_>) -> Option<At<Arc<str>>>,
) -> Option<At<Arc<str>>> {
    table.required("name", &format!("name = \"{kind}-1\""), read)
}

/// The namespace a resource is in. Where that was not written, the place is the resource's own.
fn namespace_of(table: &Table<'_>, home: Option<&At<Arc<str>>>) -> At<Arc<str>> {
    let written = table.optional("namespace", scalar::label);
    written
        .or_else(|| home.cloned())
        .unwrap_or_else(|| At::new(Arc::from(DEFAULT_NAMESPACE), table.place().clone()))
}

/// What a key says, or the label that means the same; saying two things is an error.
fn either<'a, T: PartialEq>(
    table: &Table<'a>,
    key: &'static str,
    labels: &mut labels::Labels<'a>,
    label: &str,
    read: impl Fn(&Value<'a>) -> Option<T>,
) -> Option<At<T>> {
    let read = |value: Value<'a>| Some(At::new(read(&value)?, value.place().clone()));
    let from_key = table.value(key).and_then(read);
    let from_label = labels.take(label).and_then(read);
    match (from_key, from_label) {
        (Some(key_says), Some(label_says)) => {
            if key_says.value != label_says.value {
                let message = format!("{}: key `{key}` and label `{label}` disagree", table.what());
                table.report(
                    Diagnostic::new(Code::ConflictingKeys, label_says.place, message)
                        .label("the label says this")
                        .related(key_says.place.clone(), "the key says this")
                        .help(format!(
                            "they mean the same; keep `{key}` and drop the label"
                        )),
                );
            }
            Some(key_says)
        }
        (key_says, label_says) => key_says.or(label_says),
    }
}

/// Says that something was written in vain.
fn no_effect(table: &Table<'_>, place: Place, message: String, help: &str) {
    let finding = Diagnostic::new(Code::NoEffect, place, message);
    table.report(finding.label("has no effect").help(help));
}

/// A name of the operator's own: of a network, a cluster.
pub(super) fn identifier(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    if text.is_empty() || text.len() > 63 || !text.bytes().all(legal) {
        value.reject(
            Code::BadName,
            &format!("cannot be a name: {text:?}"),
            "not a name",
            "use 1 to 63 letters, digits, hyphens, dots and underscores",
        );
        return None;
    }
    Some(Arc::from(text))
}

/// A name that is `known` and like `given`, as help.
pub(crate) fn did_you_mean<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    suggest::closest(given, known).map(|name| format!("did you mean `{name}`?"))
}
