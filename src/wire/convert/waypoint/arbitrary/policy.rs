//! Arbitrary authorization policies.

use std::fmt::Debug;
use std::sync::Arc;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{list, origin, word};
use crate::model::attached::PolicyKey;
use crate::model::authorization::Authorization;
use crate::model::declaration::{
    Action, Condition, Operation, PathPattern, Rule, ServiceAccount, Source, Values,
};
use crate::model::policy::Pattern;
use crate::model::waypoint::AttachedSet;

pub(super) fn policy() -> impl Strategy<Value = Authorization> {
    let action = prop_oneof![
        Just(Action::Allow),
        Just(Action::Deny),
        Just(Action::Audit),
        word().prop_map(Action::Custom),
    ];
    (key(), origin(), action, any::<bool>(), list(rule())).prop_map(
        |(key, origin, action, dry_run, rules)| Authorization {
            key,
            origin,
            action,
            dry_run,
            rules,
        },
    )
}

pub(super) fn set() -> impl Strategy<Value = AttachedSet> {
    let keys = || list(key());
    (keys(), keys(), keys(), keys()).prop_map(|(policies, authentications, telemetry, limits)| {
        AttachedSet {
            policies,
            authentications,
            telemetry,
            limits,
        }
    })
}

pub(super) fn key() -> impl Strategy<Value = PolicyKey> {
    (word(), word()).prop_map(|(namespace, name)| PolicyKey { namespace, name })
}

fn rule() -> impl Strategy<Value = Rule> {
    let lists = (list(source()), list(operation()), list(condition()));
    (any::<u32>(), lists).prop_map(|(line, (from, to, when))| Rule {
        line,
        from,
        to,
        when,
    })
}

/// Some of these, to be and not to be.
fn values<T: Clone + Debug + 'static>(
    pool: &[&str],
    read: impl Fn(&str) -> T,
) -> impl Strategy<Value = Values<T>> {
    let pool: Vec<T> = pool.iter().map(|text| read(text)).collect();
    let some = || subsequence(pool.clone(), 0..=pool.len());
    (some(), some()).prop_map(|(any, not)| Values { any, not })
}

pub(super) fn patterns() -> impl Strategy<Value = Values<Pattern>> {
    values(&["*", "a", "a*", "*a", "/b/"], |text| {
        Pattern::parse(text).unwrap()
    })
}

fn nets() -> impl Strategy<Value = Values<ipnet::IpNet>> {
    values(&["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"], |text| {
        text.parse().unwrap()
    })
}

fn ports() -> impl Strategy<Value = Values<u16>> {
    values(&["0", "80", "65535"], |text| text.parse().unwrap())
}

fn accounts() -> impl Strategy<Value = Values<ServiceAccount>> {
    values(&["web", "api"], |text| ServiceAccount {
        namespace: Arc::from("shop"),
        name: Arc::from(text),
    })
}

fn source() -> impl Strategy<Value = Source> {
    let who = (patterns(), patterns(), accounts(), patterns());
    (who, nets(), nets(), patterns()).prop_map(|(who, ip_blocks, remote, request)| Source {
        principals: who.0,
        namespaces: who.1,
        service_accounts: who.2,
        trust_domains: who.3,
        ip_blocks,
        remote_ip_blocks: remote,
        request_principals: request,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let path = |text: &str| match text.contains('{') {
        true => PathPattern::Template(Arc::from(text)),
        false => PathPattern::Text(Pattern::parse(text).unwrap()),
    };
    let paths = values(&["/a", "/a*", "*", "/{*}/b/{**}"], path);
    (ports(), patterns(), patterns(), paths).prop_map(|(ports, hosts, methods, paths)| Operation {
        ports,
        hosts,
        methods,
        paths,
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let key = select(vec![
        "connection.sni",
        "request.headers[:path]",
        "request.headers[x-token]",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "request.auth.claims[a][b]",
    ]);
    let of_source = prop_oneof![
        nets().prop_map(Condition::SourceIp),
        patterns().prop_map(Condition::SourceNamespace),
        patterns().prop_map(Condition::SourcePrincipal),
        accounts().prop_map(Condition::SourceServiceAccount),
        patterns().prop_map(Condition::SourceTrustDomain),
    ];
    let of_rest = prop_oneof![
        nets().prop_map(Condition::DestinationIp),
        ports().prop_map(Condition::DestinationPort),
        nets().prop_map(Condition::RemoteIp),
        (key, patterns()).prop_map(|(key, values)| Condition::Waypoint {
            key: key.parse().unwrap(),
            values,
        }),
    ];
    let none_or_one = option::of(of_source);
    (none_or_one, of_rest).prop_map(|(one, other)| one.unwrap_or(other))
}
