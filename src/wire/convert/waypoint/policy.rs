//! An authorization policy at waypoints, its values as they are written.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use super::super::{Fault, Reason, enumeration, required};
use super::FORMAT;
use super::parts::{each, format};
use crate::model::attached::PolicyKey;
use crate::model::authorization::Authorization;
use crate::model::declaration::{
    Action, Attribute, Condition, Operation, Origin, PathPattern, Rule, ServiceAccount, Source,
    Values,
};
use crate::model::policy::Pattern;
use crate::wire::proto::waypoint as proto;
use proto::policy::Action as Does;

pub(super) fn encode(policy: &Authorization) -> proto::Policy {
    let provider = match &policy.action {
        Action::Custom(provider) => provider.to_string(),
        Action::Allow | Action::Deny | Action::Audit => String::new(),
    };
    proto::Policy {
        format: FORMAT,
        action: match policy.action {
            Action::Allow => Does::Allow,
            Action::Deny => Does::Deny,
            Action::Audit => Does::Audit,
            Action::Custom(_) => Does::Custom,
        }
        .into(),
        provider,
        dry_run: policy.dry_run,
        rules: policy.rules.iter().map(encode_rule).collect(),
    }
}

pub(super) fn decode(
    key: PolicyKey,
    origin: Origin,
    given: proto::Policy,
) -> Result<Authorization, Fault> {
    format(given.format)?;
    Ok(Authorization {
        key,
        origin,
        action: match enumeration("action", given.action)? {
            Does::Unspecified => return Err(Fault::new("action", Reason::Missing)),
            Does::Allow => Action::Allow,
            Does::Deny => Action::Deny,
            Does::Audit => Action::Audit,
            Does::Custom => Action::Custom(required("provider", given.provider)?),
        },
        dry_run: given.dry_run,
        rules: each("rules", given.rules, decode_rule)?,
    })
}

fn encode_rule(rule: &Rule) -> proto::PolicyRule {
    proto::PolicyRule {
        line: rule.line,
        from: rule.from.iter().map(encode_source).collect(),
        to: rule.to.iter().map(encode_operation).collect(),
        when: rule.when.iter().map(encode_condition).collect(),
    }
}

fn decode_rule(given: proto::PolicyRule) -> Result<Rule, Fault> {
    Ok(Rule {
        line: given.line,
        from: each("from", given.from, decode_source)?,
        to: each("to", given.to, decode_operation)?,
        when: each("when", given.when, decode_condition)?,
    })
}

fn encode_source(source: &Source) -> proto::PolicySource {
    proto::PolicySource {
        principals: written(&source.principals),
        namespaces: written(&source.namespaces),
        service_accounts: written(&source.service_accounts),
        trust_domains: written(&source.trust_domains),
        ip_blocks: written(&source.ip_blocks),
        remote_ip_blocks: written(&source.remote_ip_blocks),
        request_principals: written(&source.request_principals),
    }
}

fn decode_source(given: proto::PolicySource) -> Result<Source, Fault> {
    Ok(Source {
        principals: read("principals", given.principals, pattern)?,
        namespaces: read("namespaces", given.namespaces, pattern)?,
        service_accounts: read("service_accounts", given.service_accounts, account)?,
        trust_domains: read("trust_domains", given.trust_domains, pattern)?,
        ip_blocks: read("ip_blocks", given.ip_blocks, parsed)?,
        remote_ip_blocks: read("remote_ip_blocks", given.remote_ip_blocks, parsed)?,
        request_principals: read("request_principals", given.request_principals, pattern)?,
    })
}

fn encode_operation(operation: &Operation) -> proto::PolicyOperation {
    let path = |path: &PathPattern| match path {
        PathPattern::Text(pattern) => pattern.to_string(),
        PathPattern::Template(template) => template.to_string(),
    };
    let paths = &operation.paths;
    let paths = proto::Values {
        any: paths.any.iter().map(path).collect(),
        not: paths.not.iter().map(path).collect(),
    };
    proto::PolicyOperation {
        ports: written(&operation.ports),
        hosts: written(&operation.hosts),
        methods: written(&operation.methods),
        paths: Some(paths),
    }
}

fn decode_operation(given: proto::PolicyOperation) -> Result<Operation, Fault> {
    // Only templates have braces.
    let path = |text: &str| match text.contains('{') {
        true => Some(PathPattern::Template(Arc::from(text))),
        false => pattern(text).map(PathPattern::Text),
    };
    Ok(Operation {
        ports: read("ports", given.ports, parsed)?,
        hosts: read("hosts", given.hosts, pattern)?,
        methods: read("methods", given.methods, pattern)?,
        paths: read("paths", given.paths, path)?,
    })
}

fn encode_condition(condition: &Condition) -> proto::PolicyCondition {
    let (key, values) = match condition {
        Condition::SourceIp(values) => ("source.ip".to_owned(), written(values)),
        Condition::SourceNamespace(values) => ("source.namespace".to_owned(), written(values)),
        Condition::SourcePrincipal(values) => ("source.principal".to_owned(), written(values)),
        Condition::SourceServiceAccount(values) => {
            ("source.serviceAccount".to_owned(), written(values))
        }
        Condition::SourceTrustDomain(values) => ("source.trustDomain".to_owned(), written(values)),
        Condition::DestinationIp(values) => ("destination.ip".to_owned(), written(values)),
        Condition::DestinationPort(values) => ("destination.port".to_owned(), written(values)),
        Condition::RemoteIp(values) => ("remote.ip".to_owned(), written(values)),
        Condition::Waypoint { key, values } => (key.to_string(), written(values)),
    };
    proto::PolicyCondition { key, values }
}

fn decode_condition(given: proto::PolicyCondition) -> Result<Condition, Fault> {
    let values = given.values;
    Ok(match given.key.as_str() {
        "source.ip" => Condition::SourceIp(read("values", values, parsed)?),
        "source.namespace" => Condition::SourceNamespace(read("values", values, pattern)?),
        "source.principal" => Condition::SourcePrincipal(read("values", values, pattern)?),
        "source.serviceAccount" => {
            Condition::SourceServiceAccount(read("values", values, account)?)
        }
        "source.trustDomain" => Condition::SourceTrustDomain(read("values", values, pattern)?),
        "destination.ip" => Condition::DestinationIp(read("values", values, parsed)?),
        "destination.port" => Condition::DestinationPort(read("values", values, parsed)?),
        "remote.ip" => Condition::RemoteIp(read("values", values, parsed)?),
        key => Condition::Waypoint {
            key: key
                .parse::<Attribute>()
                .map_err(|_unknown| Fault::new("key", Reason::Unsupported(key.to_owned())))?,
            values: read("values", values, pattern)?,
        },
    })
}

fn written<T: Display>(values: &Values<T>) -> Option<proto::Values> {
    Some(proto::Values {
        any: values.any.iter().map(ToString::to_string).collect(),
        not: values.not.iter().map(ToString::to_string).collect(),
    })
}

fn read<T>(
    field: &str,
    given: Option<proto::Values>,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Values<T>, Fault> {
    let given = given.unwrap_or_default();
    let all = |texts: Vec<String>| {
        let read = texts.into_iter().map(|text| {
            let value = read(&text);
            value.ok_or_else(|| Fault::new(field, Reason::Value(text)))
        });
        read.collect::<Result<Vec<T>, Fault>>()
    };
    Ok(Values {
        any: all(given.any)?,
        not: all(given.not)?,
    })
}

fn pattern(text: &str) -> Option<Pattern> {
    Pattern::parse(text).ok()
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn account(text: &str) -> Option<ServiceAccount> {
    let (namespace, name) = text.split_once('/')?;
    Some(ServiceAccount {
        namespace: Arc::from(namespace),
        name: Arc::from(name),
    })
}
