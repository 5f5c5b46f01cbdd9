//! The table of `spec/labels-and-policy.md` §3.5: what is left of HTTP at a node, and what is said of
//! it.

use super::shorthand::{Asked, Judge, authorization, mesh};
use crate::model::compile::policies::{Difference, convert};
use crate::model::compile::sample;
use crate::model::policy::Scope;

/// Whether a rule matches what follows: what it is meant for, another peer, another port.
fn matching(policy: &str) -> [bool; 3] {
    let judge = Judge::new(mesh(&[policy]));
    let unmatched = if policy.starts_with("ALLOW") {
        "unallowed"
    } else {
        "in"
    };
    let asked = ["X port 80", "WP port 80", "X port 8080"];
    asked.map(|asked| judge.verdict(&Asked::read(asked)) != unmatched)
}

#[test]
#[rustfmt::skip]
fn rules() {
    use Difference::{Disarmed, Narrowed, None, RulesLeftOut, Widened};
    const ALL: [bool; 3] = [true; 3];
    const NEVER: [bool; 3] = [false; 3];
    const PEER: [bool; 3] = [true, false, true];
    const PORT: [bool; 3] = [true, true, false];
    const BOTH: [bool; 3] = [true, false, false];
    for (rule, http, allow, left_out, deny, widened) in [
        ("*", "", ALL, None, ALL, None),
        ("from principal=*/sa/web", "", PEER, None, PEER, None),
        ("from principal=*/sa/web to port=80", "", BOTH, None, BOTH, None),
        ("from principal=*/sa/web jwt=i/s", "request-principals", NEVER, RulesLeftOut, PEER, Widened),
        ("from principal=*/sa/web !jwt=*", "request-principals", NEVER, RulesLeftOut, PEER, Widened),
        ("from principal=*/sa/web remote-ip=10.0.0.1", "remote-ip-blocks", NEVER, RulesLeftOut, PEER, Widened),
        ("to port=80 method=GET", "methods", NEVER, RulesLeftOut, PORT, Widened),
        ("to port=80 !host=a", "hosts", NEVER, RulesLeftOut, PORT, Widened),
        ("to port=80 path=/a", "paths", NEVER, RulesLeftOut, PORT, Widened),
        ("from principal=*/sa/web to method=GET", "methods", NEVER, RulesLeftOut, NEVER, Disarmed),
        ("from principal=*/sa/web when request.headers[a]=b", "request.headers[a]", NEVER, RulesLeftOut, NEVER, Disarmed),
        ("from principal=*/sa/web when !remote.ip=10.0.0.1", "remote.ip", NEVER, RulesLeftOut, NEVER, Disarmed),
        ("to method=GET to port=80", "methods", NEVER, RulesLeftOut, PORT, Narrowed),
        ("from jwt=i/s from principal=*/sa/web", "request-principals", NEVER, RulesLeftOut, PEER, Narrowed),
        ("from jwt=i/s", "request-principals", NEVER, RulesLeftOut, NEVER, Disarmed),
        ("to host=a path=/a method=GET", "hosts,methods,paths", NEVER, RulesLeftOut, NEVER, Disarmed),
        ("when source.namespace=shop when connection.sni=a", "connection.sni", NEVER, RulesLeftOut, NEVER, Disarmed),
        ("when connection.sni=a", "connection.sni", NEVER, RulesLeftOut, NEVER, Disarmed),
    ] {
        let settings = sample::mesh().settings;
        for (action, matches, want) in [("ALLOW", allow, left_out), ("DENY", deny, widened)] {
            let policy = format!("{action}; {rule}");
            assert_eq!(matching(&policy), matches, "{policy}");
            let converted = convert(&authorization(&policy), &settings);
            assert_eq!(converted.difference, want, "{policy}");
            let named: Vec<&str> = converted.http.iter().map(|name| &**name).collect();
            assert_eq!(named.join(","), http, "{policy}");
            assert!(converted.policy.is_some(), "{policy} counts even when nothing is left of it");
        }
    }
}

/// Of several differences that which lets in more than asked is told.
#[test]
#[rustfmt::skip]
fn differences_of_several_rules() {
    use Difference::{Disarmed, None, RulesLeftOut, Widened};
    for (policy, want) in [
        ("ALLOW; from sa=a; to method=GET", RulesLeftOut),
        ("ALLOW; from sa=a; to port=80", None),
        ("ALLOW", None),
        ("DENY; from sa=a; to port=80 method=GET", Widened),
        ("DENY; from sa=a; to method=GET", Disarmed),
        ("DENY; to port=80 method=GET; to method=GET", Disarmed),
        ("DENY dry; from sa=a", None),
    ] {
        let converted = convert(&authorization(policy), &sample::mesh().settings);
        assert_eq!(converted.difference, want, "{policy}");
    }
}

#[test]
fn what_node_proxies_are_not_told() {
    for (policy, want) in [
        ("AUDIT; *", Difference::Action),
        ("CUSTOM; *", Difference::Action),
        ("AUDIT dry; *", Difference::Action),
        ("ALLOW target=cart; *", Difference::ForWaypoints),
        ("DENY target=cart; *", Difference::ForWaypoints),
    ] {
        let converted = convert(&authorization(policy), &sample::mesh().settings);
        assert_eq!(converted.difference, want, "{policy}");
        assert_eq!(converted.policy, None, "{policy}");
        let compiled = Judge::new(mesh(&[policy])).compiled;
        assert!(compiled.policies.is_empty(), "{policy}");
        let mut listed = compiled
            .workloads
            .iter()
            .flat_map(|w| &w.authorization_policies);
        assert_eq!(listed.next(), None, "{policy}");
    }
}

#[test]
#[rustfmt::skip]
fn scopes() {
    for (policy, want, listed) in [
        ("ALLOW", Scope::Namespace, &[][..]),
        ("ALLOW ns=istio-system", Scope::Mesh, &[]),
        ("ALLOW app=cart", Scope::Listed, &["cart-1"]),
        ("ALLOW app=cart dry", Scope::Listed, &["cart-1"]),
        ("ALLOW app=none", Scope::Listed, &[]),
        ("ALLOW ns=istio-system app=cart", Scope::Listed, &["cart-1", "cart-2", "root-1"]),
        ("ALLOW ns=infra app=cart", Scope::Listed, &["cart-2"]),
    ] {
        let judge = Judge::new(mesh(&[policy]));
        let [compiled] = &judge.compiled.policies[..] else { panic!("{policy}") };
        assert_eq!(compiled.scope, want, "{policy}");
        let workloads = judge.compiled.workloads.iter();
        let lists = workloads.filter(|w| w.authorization_policies.contains(&compiled.key));
        let mut lists: Vec<&str> = lists.map(|w| &*w.name).collect();
        lists.sort_unstable();
        assert_eq!(lists, listed, "{policy}");
    }
}
