//! `[[peer-authentication]]` (`spec/labels-and-policy.md` §4).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attachment;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::labels::Labels;
use crate::config::mesh::{name_of, namespace_of};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::MtlsMode;

/// A `[[peer-authentication]]` table.
pub(in crate::config) struct WrittenAuthentication {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `selector`, where it has labels: an empty one is none.
    pub selector: Option<At<BTreeMap<String, String>>>,
    /// `mtls.mode`.
    pub mode: MtlsMode,
    /// `port-level-mtls`.
    pub ports: BTreeMap<u16, MtlsMode>,
}

const MODES: [(&str, MtlsMode); 4] = [
    ("UNSET", MtlsMode::Unset),
    ("DISABLE", MtlsMode::Disable),
    ("PERMISSIVE", MtlsMode::Permissive),
    ("STRICT", MtlsMode::Strict),
];

pub(in crate::config::mesh) fn read(
    value: &Value<'_>,
    home: Option<&At<Arc<str>>>,
) -> Option<WrittenAuthentication> {
    let table = value.resource("peer-authentication")?;
    Labels::read(&table).finish(&table);
    let name = name_of(&table, "peer-authentication", scalar::name);
    let namespace = namespace_of(&table, home);
    let written = table.value("selector");
    let selector = written.as_ref().and_then(attachment::selector);
    let unread = written.is_some() && selector.is_none();
    let selector = selector.filter(|selector| !selector.value.is_empty());
    let mode = table.optional("mtls", mode);
    let ports = ports(&table, selector.is_some() || unread);
    table.finish();
    Some(WrittenAuthentication {
        place: table.place().clone(),
        name: name?,
        namespace,
        selector,
        mode: mode.unwrap_or_default(),
        ports,
    })
}

/// `{ mode = "STRICT" }`.
fn mode(value: &Value<'_>) -> Option<MtlsMode> {
    let table = value.nested()?;
    let choice = |value: &Value<'_>| scalar::choice(value, &MODES);
    let mode = table.required("mode", "mode = \"STRICT\"", choice);
    table.finish();
    mode
}

/// `{ 8080 = { mode = "STRICT" } }`. Istio takes it with a selector only (§4).
fn ports(table: &Table<'_>, selected: bool) -> BTreeMap<u16, MtlsMode> {
    let Some(value) = table.value("port-level-mtls") else {
        return BTreeMap::new();
    };
    if !selected {
        value.reject(
            Code::ConflictingKeys,
            "is given without a selector",
            "ports of whom?",
            "add a selector, as in `selector = { match-labels = { app = \"cart\" } }`: ports are those of certain workloads",
        );
    }
    let Some(ports) = value.nested() else {
        return BTreeMap::new();
    };
    let entries = ports.entries();
    let read = entries.filter_map(|(key, value)| Some((port(&ports, &key)?, mode(&value)?)));
    read.collect()
}

fn port(table: &Table<'_>, key: &At<&str>) -> Option<u16> {
    let digits = key.value.bytes().all(|b| b.is_ascii_digit());
    let port = key.value.parse().ok().filter(|port| digits && *port > 0);
    if port.is_none() {
        let message = format!("{}: not a port: `{}`", table.what(), key.value);
        let finding = Diagnostic::new(Code::BadValue, key.place.clone(), message);
        let help = "write a number from 1 to 65535, as in `8080 = { mode = \"STRICT\" }`";
        table.report(finding.label("not a port").help(help));
    }
    port
}
