//! The values of a policy's fields: texts with stars, identities, addresses, ports
//! (`spec/labels-and-policy.md` §3.2).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::scope::{Mention, Scope};
use crate::config::diagnose::Code;
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::{ServiceAccount, Values};
use crate::model::policy::{Pattern, PatternError};

/// Istio's limits on service accounts: in one list, and characters of one.
const MOST_ACCOUNTS: usize = 16;
const LONGEST_ACCOUNT: usize = 320;

/// A prefix of SPIFFE IDs that policies leave out.
const SCHEME: &str = "spiffe://";

/// The trust domain that stands for the mesh's own, whatever that is called (§3.9).
const OWN_TRUST_DOMAIN: &str = "cluster.local";

/// A field and its twin that begins with `not-`.
pub(super) fn values<'a, T>(
    table: &Table<'a>,
    key: &'static str,
    not_key: &'static str,
    read: impl Fn(&Value<'a>) -> Option<T>,
) -> Values<T> {
    let list = |key| table.optional(key, |value| some(value, &read));
    Values {
        any: list(key).unwrap_or_default(),
        not: list(not_key).unwrap_or_default(),
    }
}

/// A list with something in it. Istio reads an empty one as no restriction, who writes it as the
/// strictest there is.
pub(super) fn some<'a, T>(
    value: &Value<'a>,
    read: impl FnMut(&Value<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    if value.is_empty_list() {
        value.bad(
            "is empty, which could be read as everything or as nothing",
            "nothing named",
            "name at least one, or leave the key out to ask for nothing",
        );
    }
    value.list(read)
}

/// A text, with a star at one end.
pub(super) fn pattern(value: &Value<'_>) -> Option<Pattern> {
    let text = value.text()?;
    match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(fault) => {
            let help = match fault {
                PatternError::Empty => "write what is to match, or `\"*\"` for whatever is there",
                PatternError::Star => "write one `*`, first or last, or list the values",
            };
            value.bad(&format!("{fault}: {text:?}"), "not a pattern", help);
            None
        }
    }
}

/// An identity: a SPIFFE ID without its scheme.
pub(super) fn principal(value: &Value<'_>, scope: &Scope) -> Option<Pattern> {
    let pattern = identity(value)?;
    let domain = literal_trust_domain(value.text()?).filter(|_| !is_nobody(&pattern));
    if let Some(domain) = domain {
        scope.mention(value, Mention::TrustDomain(Arc::from(domain)));
    }
    Some(pattern)
}

/// The same where it is no policy's.
pub(in crate::config::mesh) fn identity(value: &Value<'_>) -> Option<Pattern> {
    let text = value.text()?;
    if text.contains(SCHEME) {
        value.bad(
            &format!("is written with `{SCHEME}` and so would match nobody: {text:?}"),
            "with its scheme",
            format!("write `\"{}\"`", text.replacen(SCHEME, "", 1)),
        );
        return None;
    }
    let pattern = pattern(value)?;
    if is_nobody(&pattern) {
        value.reject(
            Code::NeverMatches,
            &format!("is no workload's identity: {text:?}"),
            "matches nobody",
            "write `\"TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT\"`",
        );
    }
    Some(pattern)
}

/// Whether it is one identity, and no workload's.
fn is_nobody(pattern: &Pattern) -> bool {
    matches!(pattern, Pattern::Exact(text) if !is_workload(text))
}

/// Whether it has the five parts of a workload's identity.
fn is_workload(text: &str) -> bool {
    let parts: Vec<_> = text.split('/').collect();
    matches!(parts.as_slice(), [td, "ns", ns, "sa", sa] if ![td, ns, sa].iter().any(|p| p.is_empty()))
}

/// The trust domain that a principal must be of, unless it is the one that stands for the mesh's
/// own: that holds for what has five parts, others are compared as they are (§3.9).
fn literal_trust_domain(text: &str) -> Option<&str> {
    let (domain, rest) = text.split_once('/')?;
    let stands_for_own = domain == OWN_TRUST_DOMAIN && rest.split('/').count() == 4;
    (!stands_for_own && !domain.contains('*')).then_some(domain)
}

/// A namespace of the peer.
pub(super) fn namespace(value: &Value<'_>, scope: &Scope) -> Option<Pattern> {
    let pattern = pattern(value)?;
    if let Pattern::Exact(name) = &pattern {
        scope.mention(value, Mention::Namespace(Arc::clone(name)));
    }
    Some(pattern)
}

/// A trust domain of the peer.
pub(super) fn trust_domain(value: &Value<'_>, scope: &Scope) -> Option<Pattern> {
    let text = value.text()?;
    let bare = text.strip_prefix(SCHEME).unwrap_or(text);
    if text.contains('/') {
        let bare = bare.split('/').next().unwrap_or_default();
        value.bad(
            &format!("is more than a trust domain: {text:?}"),
            "has a `/`",
            format!("write `\"{bare}\"`"),
        );
        return None;
    }
    let pattern = pattern(value)?;
    if let Pattern::Exact(name) = &pattern {
        scope.mention(value, Mention::TrustDomain(Arc::clone(name)));
    }
    Some(pattern)
}

/// The two lists of service accounts.
pub(super) fn service_accounts(
    table: &Table<'_>,
    key: &'static str,
    not_key: &'static str,
    scope: &Scope,
) -> Values<ServiceAccount> {
    let list = |key| {
        table.optional(key, |value| {
            let accounts = some(value, |value| service_account(value, scope))?;
            if accounts.len() > MOST_ACCOUNTS {
                value.reject(
                    Code::TooLarge,
                    &format!(
                        "has {} service accounts, at most {MOST_ACCOUNTS}",
                        accounts.len()
                    ),
                    "too many",
                    "split it over several `source`s, of which one has to match",
                );
            }
            Some(accounts)
        })
    };
    Values {
        any: list(key).unwrap_or_default(),
        not: list(not_key).unwrap_or_default(),
    }
}

/// `NAMESPACE/ACCOUNT`, or an account of the policy's own namespace.
fn service_account(value: &Value<'_>, scope: &Scope) -> Option<ServiceAccount> {
    let text = value.text()?;
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    if let Some(fault) = account_fault(text, namespace, name) {
        value.bad(
            &format!("{fault}: {text:?}"),
            "not a service account",
            "write `\"ACCOUNT\"`, of this policy's namespace, or `\"NAMESPACE/ACCOUNT\"`",
        );
        return None;
    }
    let namespace = namespace.map_or_else(|| Arc::clone(&scope.namespace), Arc::from);
    let account = ServiceAccount {
        namespace,
        name: Arc::from(name),
    };
    scope.mention(value, Mention::ServiceAccount(account.clone()));
    Some(account)
}

fn account_fault(text: &str, namespace: Option<&str>, name: &str) -> Option<&'static str> {
    if text.len() > LONGEST_ACCOUNT {
        return Some("is longer than 320 characters");
    }
    if text.contains('*') {
        return Some("has a `*`, and service accounts are compared as they are");
    }
    let dotted = namespace.filter(|namespace| namespace.contains('.'));
    dotted
        .map(|_| "has a dot in its namespace")
        .or_else(|| namespace.and_then(scalar::name_fault))
        .or_else(|| scalar::name_fault(name))
}

/// An address or a range of them.
pub(super) fn ip_block(value: &Value<'_>) -> Option<IpNet> {
    let text = value.text()?;
    let host = text.parse::<IpAddr>().map(IpNet::from);
    let Ok(block) = host.or_else(|_| text.parse::<IpNet>()) else {
        value.bad(
            &format!("is no address and no range of addresses: {text:?}"),
            "not an address",
            "write an address or a range, as in `\"10.1.0.11\"` or `\"10.1.0.0/16\"`",
        );
        return None;
    };
    if let IpAddr::V6(v6) = block.addr()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let length = block.prefix_len().saturating_sub(96);
        value.bad(
            &format!("is an IPv4 address in IPv6 form and so would match nobody: {text:?}"),
            "in IPv6 form",
            format!("write `\"{v4}/{length}\"`"),
        );
        return None;
    }
    if block.addr() != block.network() {
        value.bad(
            &format!("has bits set beyond its length: {text:?}"),
            "not the first address",
            format!("write `\"{}\"`, or the address alone", block.trunc()),
        );
        return None;
    }
    Some(block)
}

/// A port in quotes, as Istio has it, or without.
pub(super) fn port(value: &Value<'_>) -> Option<u16> {
    if value.is_integer() {
        return u16::try_from(value.integer(0..=65535)?).ok();
    }
    let text = value.text()?;
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|_| digits);
    if port.is_none() {
        value.bad(
            &format!("is not a port: {text:?}"),
            "not a port",
            "write one number from 0 to 65535; ports are compared as they are",
        );
    }
    port
}
