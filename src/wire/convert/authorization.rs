//! `istio.security.Authorization` (`spec/control-plane.md` §2.2, §2.5).

use std::sync::Arc;

use ipnet::IpNet;
use prost::Message as _;

use super::extension::{self, Extends};
use super::{ConvertError, Fault, Reason, enumeration, ip, ip_bytes, port, required};
use crate::model::declaration::Origin;
use crate::model::policy::{
    Clause, Effect, Match, Pattern, Policy, Rule, Scope, ServiceAccount, Values,
};
use crate::wire::proto::lateen::PolicyOrigin;
use crate::wire::proto::security::{self as proto, string_match::MatchType};
use crate::wire::proto::workload::Extension;

/// Tells where a policy is written.
impl Extends for PolicyOrigin {
    const NAME: &'static str = "lateen/origin";
    const MESSAGE: &'static str = "PolicyOrigin";
}

/// The `istio.security.Authorization` that says a policy.
pub fn encode_policy(policy: &Policy) -> Vec<u8> {
    let authorization = proto::Authorization {
        name: policy.name.to_string(),
        namespace: policy.namespace.to_string(),
        scope: match policy.scope {
            Scope::Mesh => proto::Scope::Global,
            Scope::Namespace => proto::Scope::Namespace,
            Scope::Listed => proto::Scope::WorkloadSelector,
        }
        .into(),
        action: match policy.effect {
            Effect::Allow => proto::Action::Allow,
            Effect::Deny => proto::Action::Deny,
        }
        .into(),
        rules: policy.rules.iter().map(encode_rule).collect(),
        dry_run: policy.dry_run,
        extensions: encode_origin(policy).into_iter().collect(),
    };
    authorization.encode_to_vec()
}

fn encode_origin(policy: &Policy) -> Option<Extension> {
    let origin = policy.origin.as_ref()?;
    let origin = PolicyOrigin {
        file: origin.file.to_string(),
        line: origin.line,
        rules: policy.rules.iter().map(|rule| rule.line).collect(),
    };
    Some(extension::encode(&origin))
}

fn encode_rule(rule: &Rule) -> proto::Rule {
    let clause = |clause: &Clause| proto::Clause {
        matches: clause.matches.iter().map(encode_match).collect(),
    };
    proto::Rule {
        clauses: rule.clauses.iter().map(clause).collect(),
    }
}

fn encode_match(given: &Match) -> proto::Match {
    fn all<T, P>(values: &[T], encode: fn(&T) -> P) -> Vec<P> {
        values.iter().map(encode).collect()
    }
    proto::Match {
        namespaces: all(&given.namespaces.any, encode_pattern),
        not_namespaces: all(&given.namespaces.not, encode_pattern),
        principals: all(&given.principals.any, encode_pattern),
        not_principals: all(&given.principals.not, encode_pattern),
        source_ips: all(&given.source_ips.any, encode_net),
        not_source_ips: all(&given.source_ips.not, encode_net),
        destination_ips: all(&given.destination_ips.any, encode_net),
        not_destination_ips: all(&given.destination_ips.not, encode_net),
        destination_ports: all(&given.destination_ports.any, |p| u32::from(*p)),
        not_destination_ports: all(&given.destination_ports.not, |p| u32::from(*p)),
        service_accounts: all(&given.service_accounts.any, encode_account),
        not_service_accounts: all(&given.service_accounts.not, encode_account),
        extensions: Vec::new(),
    }
}

fn encode_pattern(pattern: &Pattern) -> proto::StringMatch {
    let match_type = match pattern {
        Pattern::Exact(text) => MatchType::Exact(text.to_string()),
        Pattern::Prefix(text) => MatchType::Prefix(text.to_string()),
        Pattern::Suffix(text) => MatchType::Suffix(text.to_string()),
        Pattern::Present => MatchType::Presence(()),
    };
    proto::StringMatch {
        match_type: Some(match_type),
    }
}

fn encode_net(net: &IpNet) -> proto::Address {
    proto::Address {
        address: ip_bytes(net.addr()),
        length: net.prefix_len().into(),
    }
}

fn encode_account(account: &ServiceAccount) -> proto::ServiceAccountMatch {
    proto::ServiceAccountMatch {
        namespace: account.namespace.to_string(),
        service_account: account.name.to_string(),
    }
}

/// Reads an `istio.security.Authorization` sent under `name`.
///
/// # Errors
/// [`ConvertError`] for a value that is not understood: left out, it makes a match wider, or one that
/// never matches (§2.5). Fields that this version does not know are ignored, as everywhere (§2).
pub fn decode_policy(name: &str, bytes: &[u8]) -> Result<Policy, ConvertError> {
    let read = || {
        let policy = proto::Authorization::decode(bytes)
            .map_err(|e| Fault::new("authorization", Reason::Undecodable(e)))?;
        decode(name, policy)
    };
    read().map_err(|fault: Fault| fault.of(name))
}

fn decode(resource: &str, policy: proto::Authorization) -> Result<Policy, Fault> {
    let origin = decode_origin(&policy.extensions);
    let name = required("name", policy.name)?;
    let scope = match enumeration("scope", policy.scope)? {
        proto::Scope::Global => Scope::Mesh,
        proto::Scope::Namespace => Scope::Namespace,
        proto::Scope::WorkloadSelector => Scope::Listed,
    };
    let namespace = required("namespace", policy.namespace)?;
    let key = Policy::key_of(&namespace, &name);
    if &*key != resource {
        return Err(Fault::new("name", Reason::OtherName(key.to_string())));
    }
    let lines = origin.iter().flat_map(|o| o.rules.iter().copied());
    let lines = lines.chain(std::iter::repeat(0));
    let rules = policy.rules.into_iter().zip(lines);
    let rule = |(rule, line)| decode_rule(rule, line).map_err(|f| f.within("rules"));
    Ok(Policy {
        key,
        namespace,
        name,
        scope,
        effect: match enumeration("action", policy.action)? {
            proto::Action::Allow => Effect::Allow,
            proto::Action::Deny => Effect::Deny,
        },
        dry_run: policy.dry_run,
        rules: rules.map(rule).collect::<Result<_, _>>()?,
        origin: origin.map(|origin| Origin {
            file: Arc::from(origin.file),
            line: origin.line,
        }),
        unreadable: None,
    })
}

/// It only informs, so one that does not read is as good as none.
fn decode_origin(extensions: &[Extension]) -> Option<PolicyOrigin> {
    extension::decode(extensions)?.ok()
}

fn decode_rule(rule: proto::Rule, line: u32) -> Result<Rule, Fault> {
    let clause = |clause: proto::Clause| {
        let matches = clause.matches.into_iter().map(decode_match);
        let matches = matches.collect::<Result<_, Fault>>()?;
        Ok(Clause { matches })
    };
    let clauses = rule.clauses.into_iter().map(clause);
    Ok(Rule {
        line,
        clauses: clauses.collect::<Result<_, Fault>>()?,
    })
}

fn decode_match(given: proto::Match) -> Result<Match, Fault> {
    Ok(Match {
        namespaces: values(
            "namespaces",
            given.namespaces,
            given.not_namespaces,
            decode_pattern,
        )?,
        principals: values(
            "principals",
            given.principals,
            given.not_principals,
            decode_pattern,
        )?,
        service_accounts: values(
            "service_accounts",
            given.service_accounts,
            given.not_service_accounts,
            decode_account,
        )?,
        source_ips: values(
            "source_ips",
            given.source_ips,
            given.not_source_ips,
            decode_net,
        )?,
        destination_ips: values(
            "destination_ips",
            given.destination_ips,
            given.not_destination_ips,
            decode_net,
        )?,
        destination_ports: values(
            "destination_ports",
            given.destination_ports,
            given.not_destination_ports,
            port,
        )?,
    })
}

fn values<P, T>(
    field: &str,
    any: Vec<P>,
    not: Vec<P>,
    decode: impl Fn(&str, P) -> Result<T, Fault>,
) -> Result<Values<T>, Fault> {
    let all = |given: Vec<P>| -> Result<Vec<T>, Fault> {
        given.into_iter().map(|v| decode(field, v)).collect()
    };
    Ok(Values {
        any: all(any)?,
        not: all(not)?,
    })
}

fn decode_pattern(field: &str, given: proto::StringMatch) -> Result<Pattern, Fault> {
    match given.match_type {
        Some(MatchType::Exact(text)) => Ok(Pattern::Exact(Arc::from(text))),
        Some(MatchType::Prefix(text)) => Ok(Pattern::Prefix(Arc::from(text))),
        Some(MatchType::Suffix(text)) => Ok(Pattern::Suffix(Arc::from(text))),
        Some(MatchType::Presence(())) => Ok(Pattern::Present),
        None => Err(Fault::new(field, Reason::Missing)),
    }
}

fn decode_net(field: &str, given: proto::Address) -> Result<IpNet, Fault> {
    let address = ip(field, &given.address)?;
    let length = u8::try_from(given.length).ok();
    let net = length.and_then(|length| IpNet::new(address, length).ok());
    net.ok_or_else(|| Fault::new(field, Reason::Prefix(given.length)))
}

fn decode_account(field: &str, given: proto::ServiceAccountMatch) -> Result<ServiceAccount, Fault> {
    Ok(ServiceAccount {
        namespace: required(field, given.namespace)?,
        name: required(field, given.service_account)?,
    })
}

/// What stands for a policy that could not be read: it denies everything, as far as it is seen to
/// reach. A policy nobody can read must not read as one that allows.
pub fn closed_policy(name: &str, bytes: &[u8], why: &ConvertError) -> Policy {
    let seen = proto::Authorization::decode(bytes).ok();
    let scope = seen
        .as_ref()
        .and_then(|p| proto::Scope::try_from(p.scope).ok());
    let namespace = seen.as_ref().map_or("", |p| &p.namespace);
    let short = name.rsplit_once('/').map_or(name, |(_, short)| short);
    Policy {
        key: Arc::from(name),
        namespace: Arc::from(namespace),
        name: Arc::from(short),
        scope: match scope {
            Some(proto::Scope::WorkloadSelector) => Scope::Listed,
            Some(proto::Scope::Namespace) if !namespace.is_empty() => Scope::Namespace,
            _ => Scope::Mesh,
        },
        effect: Effect::Deny,
        dry_run: seen.as_ref().is_some_and(|p| p.dry_run),
        rules: vec![Rule::default()],
        origin: None,
        unreadable: Some(Arc::from(why.fault.to_string())),
    }
}

#[cfg(test)]
mod tests;
