//! `when`: conditions on an attribute (`spec/labels-and-policy.md` §3.1).

use std::sync::Arc;

use super::scope::{Scope, reject_custom};
use super::values;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::did_you_mean;
use crate::config::read::{Table, Value};
use crate::config::suggest;
use crate::model::declaration::{Condition, Values};
use crate::model::policy::Pattern;

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

const HEADERS: &str = "request.headers";
const CLAIMS: &str = "request.auth.claims";

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
        Some(key) => Some(condition(&table, key, scope)),
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

fn condition(table: &Table<'_>, key: &str, scope: &Scope) -> Condition {
    let patterns = || both(table, values::pattern);
    match key {
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
        _ => Condition::Waypoint {
            key: Arc::from(key),
            values: match key {
                "remote.ip" => both(table, remote_ip),
                _ => patterns(),
            },
        },
    }
}

fn both<'a, T>(table: &Table<'a>, read: impl Fn(&Value<'a>) -> Option<T>) -> Values<T> {
    values::values(table, "values", "not-values", read)
}

fn remote_ip(value: &Value<'_>) -> Option<Pattern> {
    let block = values::ip_block(value)?;
    Some(Pattern::Exact(Arc::from(block.to_string())))
}

/// Whether there is such a key; otherwise it is reported.
fn judge_key(value: &Value<'_>, key: &str) -> bool {
    if key.starts_with("experimental.envoy.filters.") {
        value.unsupported("take it out: there is no Envoy whose filters it could ask");
        return false;
    }
    let (name, brackets) = match key.find('[') {
        Some(at) => key.split_at(at),
        None => (key, ""),
    };
    let good = match name {
        HEADERS => inside(brackets).is_some_and(is_header),
        CLAIMS => are_claims(brackets),
        _ => KEYS.contains(&key),
    };
    if good {
        return true;
    }
    let help = match name {
        HEADERS => "name one header, as in `request.headers[x-token]`".to_owned(),
        CLAIMS => "name a claim, as in `request.auth.claims[groups]`, or a nested one, as in `request.auth.claims[realm][roles]`".to_owned(),
        _ => did_you_mean(name, KEYS)
            .unwrap_or_else(|| format!("write one of {}", suggest::listed(KEYS))),
    };
    value.bad(
        &format!("is nothing that a policy can ask for: {key:?}"),
        "no such attribute",
        help,
    );
    false
}

/// What is in the only brackets.
fn inside(brackets: &str) -> Option<&str> {
    brackets.strip_prefix('[')?.strip_suffix(']')
}

/// The name of a header (RFC 9110 §5.1), or of an HTTP/2 pseudo-header.
fn is_header(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let name = name.strip_prefix(':').unwrap_or(name);
    !name.is_empty() && name.bytes().all(token)
}

/// `[a]`, `[a][b]` and so on.
fn are_claims(brackets: &str) -> bool {
    inside(brackets).is_some_and(|inside| {
        let mut claims = inside.split("][");
        claims.all(|claim| !claim.is_empty() && !claim.contains(['[', ']']))
    })
}
