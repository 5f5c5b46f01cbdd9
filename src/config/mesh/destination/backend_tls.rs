//! `[[backend-tls-policy]]`, Gateway API's way to say that endpoints speak TLS (§3.5).

use std::sync::Arc;

use super::groups::{Groups, WrittenPolicy};
use super::tls::{alt_name, path};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::labels::Labels;
use crate::config::mesh::{name_of, namespace_of};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::traffic::{TlsOrigination, UpstreamTls};

/// A `[[backend-tls-policy]]` table.
pub(in crate::config) struct WrittenBackendTls {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// The services it is for.
    pub targets: Vec<WrittenTarget>,
    tls: TlsOrigination,
}

/// One of `target-refs`.
pub(in crate::config) struct WrittenTarget {
    /// The service.
    pub name: At<Arc<str>>,
    /// The one port of it, by name.
    pub section: Option<At<Arc<str>>>,
}

impl WrittenBackendTls {
    /// What it means for a service: for one port, or for all.
    pub(in crate::config) fn policy(&self, port: Option<u16>) -> WrittenPolicy {
        let groups = Groups {
            tls: Some(UpstreamTls::Originate(self.tls.clone())),
            ..Groups::default()
        };
        let mut policy = WrittenPolicy::default();
        match port {
            Some(port) => {
                policy.ports.insert(port, groups);
            }
            None => policy.usual = groups,
        }
        policy
    }
}

pub(in crate::config::mesh) fn read(
    value: &Value<'_>,
    home: Option<&At<Arc<str>>>,
) -> Option<WrittenBackendTls> {
    let table = value.resource("backend-tls-policy")?;
    let name = name_of(&table, "backend-tls-policy", scalar::name);
    let namespace = namespace_of(&table, home);
    Labels::read(&table).finish(&table);
    let example = "target-refs = [{ kind = \"Service\", name = \"cart\" }]";
    let targets = table.required("target-refs", example, |value| value.list(target));
    let example =
        "validation = { hostname = \"cart.example.com\", well-known-ca-certificates = \"System\" }";
    let tls = table.required("validation", example, validation);
    table.unsupported("options", "take them out");
    table.finish();
    Some(WrittenBackendTls {
        place: table.place().clone(),
        name: name?,
        namespace,
        targets: targets?,
        tls: tls?,
    })
}

fn target(value: &Value<'_>) -> Option<WrittenTarget> {
    let table = value.nested()?;
    let kind = table.required("kind", "kind = \"Service\"", |value| {
        scalar::choice(value, &[("Service", true), ("ServiceEntry", false)])
    });
    if let (Some(false), Some(kind)) = (kind, table.value("kind")) {
        kind.unsupported("write a `[[destination-rule]]` for the host of the service-entry");
    }
    table.optional("group", |value| {
        scalar::choice(
            value,
            &[("", ()), ("core", ()), ("networking.istio.io", ())],
        )
    });
    let name = table.required("name", "name = \"cart\"", scalar::label);
    let section = table.optional("section-name", scalar::label);
    table.finish();
    kind.filter(|service| *service)?;
    Some(WrittenTarget {
        name: name?,
        section,
    })
}

fn validation(value: &Value<'_>) -> Option<TlsOrigination> {
    let table = value.nested()?;
    let hostname = table.required("hostname", "hostname = \"cart.example.com\"", scalar::name);
    let names = table.optional("subject-alt-names", |value| value.list(subject));
    let ca_certificates = authorities(&table, value);
    table.finish();
    Some(TlsOrigination {
        sni: Some(hostname?.value),
        subject_alt_names: names.unwrap_or_default(),
        ca_certificates,
        ..TlsOrigination::default()
    })
}

/// The file of roots, or none for the system's. Exactly one way must be given.
fn authorities(table: &Table<'_>, whole: &Value<'_>) -> Option<Arc<str>> {
    let refs = table.value("ca-certificate-refs");
    let known = table.value("well-known-ca-certificates");
    if let (Some(_), Some(known)) = (&refs, &known) {
        known.reject(
            Code::ConflictingKeys,
            "stands beside `ca-certificate-refs`",
            "one of the two",
            "believe the system's roots, or those of a file",
        );
    }
    if refs.is_none() && known.is_none() {
        let message = format!("{} does not say whom to believe", table.what());
        let finding = Diagnostic::new(Code::MissingKey, whole.place().clone(), message);
        let help = "add `well-known-ca-certificates = \"System\"`, or `ca-certificate-refs = [{ name = \"/etc/lateen/tls/ca.pem\" }]`";
        let keys = vec!["ca-certificate-refs", "well-known-ca-certificates"];
        table.missing(keys, finding.label("no roots").help(help));
    }
    known.and_then(|known| scalar::choice(&known, &[("System", ())]));
    let refs = refs?;
    if refs.is_empty_list() {
        // An empty list must not come to believe whom nobody named.
        refs.bad(
            "is empty",
            "no roots",
            "name a file, as in `[{ name = \"/etc/lateen/tls/ca.pem\" }]`, or write `well-known-ca-certificates = \"System\"` instead",
        );
    }
    let mut files = refs.list(file)?;
    if files.len() > 1 {
        refs.unsupported("write the roots into one file");
    }
    files.pop()
}

/// Where Gateway API names a ConfigMap, this mesh has files.
fn file(value: &Value<'_>) -> Option<Arc<str>> {
    let table = value.nested()?;
    for key in ["kind", "group"] {
        let why = "write `{ name = \"/etc/lateen/tls/ca.pem\" }`: roots are a file on the waypoint's host";
        table.unsupported(key, why);
    }
    let file = table.required("name", "name = \"/etc/lateen/tls/ca.pem\"", path);
    table.finish();
    file
}

fn subject(value: &Value<'_>) -> Option<Arc<str>> {
    let table = value.nested()?;
    let hostname = table.required("type", "type = \"Hostname\"", |value| {
        scalar::choice(value, &[("Hostname", true), ("URI", false)])
    });
    let name = match hostname {
        Some(false) => table.required("uri", "uri = \"spiffe://example.com/cart\"", alt_name),
        Some(true) | None => {
            table.required("hostname", "hostname = \"cart.example.com\"", alt_name)
        }
    };
    table.finish();
    name
}
