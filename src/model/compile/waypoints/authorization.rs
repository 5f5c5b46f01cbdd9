//! Authorization policies in the form that waypoints evaluate.

use super::targets::Attachable as _;
use crate::model::authorization::Authorization;
use crate::model::compile::policies::Bundle;
use crate::model::declaration::{AuthorizationPolicy, Condition, Rule, Source, Values};
use crate::model::policy::Pattern;

/// A policy with all trust domains that stand for one another named (`spec/labels-and-policy.md` §3.9).
pub(super) fn of(policy: &AuthorizationPolicy, bundle: &Bundle) -> Authorization {
    let principals = |values: &mut Values<Pattern>| {
        values.any = bundle.principals(&values.any);
        values.not = bundle.principals(&values.not);
    };
    let domains = |values: &mut Values<Pattern>| {
        values.any = bundle.domains(&values.any);
        values.not = bundle.domains(&values.not);
    };
    let source = |source: &mut Source| {
        principals(&mut source.principals);
        domains(&mut source.trust_domains);
    };
    let rule = |rule: &Rule| {
        let mut rule = rule.clone();
        rule.from.iter_mut().for_each(source);
        for condition in &mut rule.when {
            match condition {
                Condition::SourcePrincipal(values) => principals(values),
                Condition::SourceTrustDomain(values) => domains(values),
                _ => {}
            }
        }
        rule
    };
    Authorization {
        key: policy.key(),
        origin: policy.origin.clone(),
        action: policy.action.clone(),
        dry_run: policy.dry_run,
        rules: policy.rules.iter().map(rule).collect(),
    }
}
