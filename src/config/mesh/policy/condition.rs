//! `when`: conditions on an attribute (`spec/labels-and-policy.md` §3.1).

use super::scope::{Scope, reject_custom};
use super::values;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::did_you_mean;
use crate::config::read::{Table, Value};
use crate::config::suggest;
use crate::model::declaration::{Attribute, AttributeError, Condition, Values};

/// Every key, the last two with what is in the brackets.
const KEYS: [&str; 14] = [
    "source.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "remote.ip",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims",
    "request.headers",
];

/// Keys that say who the peer is; so do all that begin with [`REQUEST_IDENTITY`].
const IDENTITY: [&str; 4] = [
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
];
const REQUEST_IDENTITY: &str = "request.auth.";

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<Condition> {
    let table = value.nested()?;
    let key = table.required("key", "key = \"source.ip\"", |value| {
        let key = value.text()?;
        if scope.custom && (IDENTITY.contains(&key) || key.starts_with(REQUEST_IDENTITY)) {
            reject_custom(value);
        }
        judge_key(value, key).then_some(key)
    });
    let condition = match key {
        Some(key) => condition(&table, key, scope),
        None => {
            // Known, though not what they are compared with.
            let _known = (table.value("values"), table.value("not-values"));
            None
        }
    };
    let mut keys = table.entries().map(|(key, _)| key.value);
    if !keys.any(|key| matches!(key, "values" | "not-values")) {
        let message = format!("{} compares its key with nothing", table.what());
        let finding = Diagnostic::new(Code::MissingKey, value.place().clone(), message);
        table.missing(
            vec!["values", "not-values"],
            finding
                .label("no values")
                .help("add `values` or `not-values`, as in `values = [\"10.1.0.11\"]`"),
        );
    }
    table.finish();
    condition
}

fn condition(table: &Table<'_>, key: &str, scope: &Scope) -> Option<Condition> {
    Some(match key {
        "source.ip" => Condition::SourceIp(both(table, values::ip_block)),
        "source.namespace" => {
            Condition::SourceNamespace(both(table, |value| values::namespace(value, scope)))
        }
        "source.principal" => {
            Condition::SourcePrincipal(both(table, |value| values::principal(value, scope)))
        }
        "source.serviceAccount" => Condition::SourceServiceAccount(values::service_accounts(
            table,
            "values",
            "not-values",
            scope,
        )),
        "source.trustDomain" => {
            Condition::SourceTrustDomain(both(table, |value| values::trust_domain(value, scope)))
        }
        "destination.ip" => Condition::DestinationIp(both(table, values::ip_block)),
        "destination.port" => Condition::DestinationPort(both(table, values::port)),
        "remote.ip" => Condition::RemoteIp(both(table, values::ip_block)),
        _ => Condition::Waypoint {
            key: key.parse().ok()?,
            values: both(table, values::pattern),
        },
    })
}

fn both<'a, T>(table: &Table<'a>, read: impl Fn(&Value<'a>) -> Option<T>) -> Values<T> {
    values::values(table, "values", "not-values", read)
}

/// Whether there is such a key; otherwise it is reported.
fn judge_key(value: &Value<'_>, key: &str) -> bool {
    if key.starts_with("experimental.envoy.filters.") {
        value.unsupported("take it out: there is no Envoy whose filters it could ask");
        return false;
    }
    // Those of connections are read with their values.
    let fault = match key.parse::<Attribute>() {
        Err(fault) if !KEYS.contains(&key) || fault != AttributeError::Unknown => fault,
        _ => return true,
    };
    let help = match fault {
        AttributeError::Header => "name one header, as in `request.headers[x-token]`".to_owned(),
        AttributeError::Claim => "name a claim, as in `request.auth.claims[groups]`, or a nested one, as in `request.auth.claims[realm][roles]`".to_owned(),
        AttributeError::Unknown => {
            let name = key.split('[').next().unwrap_or(key);
            let guess = did_you_mean(name, KEYS);
            guess.unwrap_or_else(|| format!("write one of {}", suggest::listed(KEYS)))
        }
    };
    value.bad(
        &format!("is nothing that a policy can ask for: {key:?}"),
        "no such attribute",
        help,
    );
    false
}
