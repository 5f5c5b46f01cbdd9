//! `source`: where a request comes from (`spec/labels-and-policy.md` §3.1).

use super::scope::Scope;
use super::values;
use crate::config::diagnose::Code;
use crate::config::read::{Table, Value};
use crate::model::declaration::Source;

/// The fields that say who the peer is.
const IDENTITY: [&str; 5] = [
    "principals",
    "namespaces",
    "service-accounts",
    "trust-domains",
    "request-principals",
];

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<Source> {
    let table = value.nested()?;
    let source = Source {
        principals: values::values(&table, "principals", "not-principals", |value| {
            values::principal(value, scope)
        }),
        namespaces: values::values(&table, "namespaces", "not-namespaces", |value| {
            values::namespace(value, scope)
        }),
        service_accounts: values::service_accounts(
            &table,
            "service-accounts",
            "not-service-accounts",
            scope,
        ),
        trust_domains: values::values(&table, "trust-domains", "not-trust-domains", |value| {
            values::trust_domain(value, scope)
        }),
        ip_blocks: values::values(&table, "ip-blocks", "not-ip-blocks", values::ip_block),
        remote_ip_blocks: values::values(
            &table,
            "remote-ip-blocks",
            "not-remote-ip-blocks",
            values::ip_block,
        ),
        request_principals: values::values(
            &table,
            "request-principals",
            "not-request-principals",
            values::pattern,
        ),
    };
    table.finish();
    scope.judge_custom(&table, &IDENTITY);
    judge_accounts(&table);
    super::rule::judge_empty(
        value,
        &table,
        "principals = [\"cluster.local/ns/shop/sa/web\"]",
    );
    Some(source)
}

/// Service accounts say what principals and namespaces say, so both together is a mistake (§3.1).
fn judge_accounts(table: &Table<'_>) {
    let is = |key: &str, fields: &[&str]| fields.contains(&key.strip_prefix("not-").unwrap_or(key));
    let mut entries = table.entries();
    let Some((accounts, _)) = entries.find(|(key, _)| is(key.value, &["service-accounts"])) else {
        return;
    };
    for (key, value) in table.entries() {
        if is(key.value, &["principals", "namespaces"]) {
            value.reject(
                Code::ConflictingKeys,
                &format!("cannot stand beside `{}`", accounts.value),
                "one of the two",
                "say who it is by `service-accounts` alone, or by `principals` and `namespaces`",
            );
        }
    }
}
