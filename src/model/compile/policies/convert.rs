//! An authorization policy in the form that node proxies evaluate (`spec/labels-and-policy.md`
//! §3.5).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::aliases::Bundle;
use crate::model::declaration::{
    Action, Attachment, AuthorizationPolicy, Condition, Operation, Rule as Written, Settings,
    Source,
};
use crate::model::policy::{Clause, Effect, Match, Pattern, Policy, Rule, Scope, Values};

/// What became of a policy at node proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// What they evaluate; none when they cannot.
    pub policy: Option<Policy>,
    /// How that differs from what is written.
    pub difference: Difference,
    /// The fields that node proxies cannot know, by their names, each once.
    pub http: BTreeSet<Arc<str>>,
}

/// How a policy at node proxies differs from what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Not at all.
    None,
    /// Rules that allow are left out: stricter than asked.
    RulesLeftOut,
    /// It denies without looking at the fields of HTTP: stricter than asked.
    Widened,
    /// A source or an operation of a rule that denies was known by fields of HTTP alone, and is left
    /// out beside its siblings: laxer than asked.
    Narrowed,
    /// A rule that denies has nothing left that could match: laxer than asked.
    Disarmed,
    /// Node proxies do not have this action.
    Action,
    /// It is for waypoints.
    ForWaypoints,
}

/// Converts a policy. A value of a field can become several, a rule several rules; the verdict on
/// every connection stays the same.
pub fn convert(policy: &AuthorizationPolicy, settings: &Settings) -> Converted {
    let http = http_of(&policy.rules);
    let effect = match (&policy.attachment, &policy.action) {
        (Attachment::Targets(_), _) => return refused(Difference::ForWaypoints, http),
        (_, Action::Audit | Action::Custom(_)) => return refused(Difference::Action, http),
        (_, Action::Allow) => Effect::Allow,
        (_, Action::Deny) => Effect::Deny,
    };
    let bundle = Bundle::new(settings);
    let convert = Convert { bundle: &bundle };
    let mut rules = Vec::with_capacity(policy.rules.len());
    let mut difference = Difference::None;
    for written in &policy.rules {
        let converted = convert.rule(written);
        if !http_of(std::slice::from_ref(written)).is_empty() {
            difference = difference.max(match effect {
                Effect::Allow => Difference::RulesLeftOut,
                Effect::Deny if converted.iter().all(never) => Difference::Disarmed,
                Effect::Deny if converted.iter().any(misses) => Difference::Narrowed,
                Effect::Deny => Difference::Widened,
            });
            if effect == Effect::Allow {
                continue;
            }
        }
        rules.extend(converted);
    }
    let scope = match policy.attachment {
        Attachment::Selector(_) => Scope::Listed,
        _ if policy.namespace == settings.root_namespace => Scope::Mesh,
        _ => Scope::Namespace,
    };
    let policy = Policy {
        key: Policy::key_of(&policy.namespace, &policy.name),
        namespace: Arc::clone(&policy.namespace),
        name: Arc::clone(&policy.name),
        scope,
        effect,
        dry_run: policy.dry_run,
        rules,
        origin: Some(policy.origin.clone()),
        unreadable: None,
    };
    Converted {
        policy: Some(policy),
        difference,
        http,
    }
}

fn refused(difference: Difference, http: BTreeSet<Arc<str>>) -> Converted {
    Converted {
        policy: None,
        difference,
        http,
    }
}

/// Whether nothing can match it.
fn never(rule: &Rule) -> bool {
    let nothing =
        |clause: &Clause| !clause.matches.is_empty() && clause.matches.iter().all(Match::is_empty);
    rule.clauses.iter().any(nothing)
}

/// Whether an alternative of it can match nothing.
fn misses(rule: &Rule) -> bool {
    let mut alternatives = rule.clauses.iter().flat_map(|clause| &clause.matches);
    alternatives.any(Match::is_empty)
}

fn http_of(rules: &[Written]) -> BTreeSet<Arc<str>> {
    let mut fields: BTreeSet<Arc<str>> = BTreeSet::new();
    for rule in rules {
        fields.extend(
            rule.from
                .iter()
                .flat_map(Source::http_fields)
                .map(Arc::from),
        );
        fields.extend(
            rule.to
                .iter()
                .flat_map(Operation::http_fields)
                .map(Arc::from),
        );
        fields.extend(
            rule.when
                .iter()
                .filter_map(Condition::http_field)
                .map(Arc::from),
        );
    }
    fields
}

struct Convert<'a> {
    bundle: &'a Bundle,
}

impl Convert<'_> {
    /// Rules of which one matches exactly when the written one does, the fields of HTTP left out.
    fn rule(&self, written: &Written) -> Vec<Rule> {
        let operations = (!written.to.is_empty()).then(|| Clause {
            matches: written.to.iter().map(operation).collect(),
        });
        let conditions = written.when.iter().map(|condition| Clause {
            matches: vec![self.condition(condition)],
        });
        let common: Vec<Clause> = operations.into_iter().chain(conditions).collect();
        let with = |sources: Vec<Clause>| Rule {
            line: written.line,
            clauses: sources.into_iter().chain(common.iter().cloned()).collect(),
        };
        self.sources(&written.from).into_iter().map(with).collect()
    }

    /// The sources as clauses: alternatives, each a list of what must hold. A source that asks for
    /// principals and for trust domains asks twice for the same field, and so stands alone.
    fn sources(&self, written: &[Source]) -> Vec<Vec<Clause>> {
        let twice = |s: &&Source| !s.principals.any.is_empty() && !s.trust_domains.any.is_empty();
        let (apart, together): (Vec<&Source>, Vec<&Source>) = written.iter().partition(twice);
        let together = Clause {
            matches: together.into_iter().map(|s| self.source(s)).collect(),
        };
        let mut alternatives = Vec::new();
        if written.is_empty() {
            alternatives.push(Vec::new());
        }
        if !together.matches.is_empty() {
            alternatives.push(vec![together]);
        }
        alternatives.extend(apart.into_iter().map(|source| {
            let domains = Match {
                principals: Values {
                    any: self.bundle.of_domains(&source.trust_domains.any),
                    not: Vec::new(),
                },
                ..Match::default()
            };
            let mut rest = source.clone();
            rest.trust_domains.any.clear();
            let clause = |m: Match| Clause { matches: vec![m] };
            vec![clause(self.source(&rest)), clause(domains)]
        }));
        alternatives
    }

    fn source(&self, source: &Source) -> Match {
        let mut principals = self.principals(&source.principals);
        let domains = self.domains(&source.trust_domains);
        principals.any.extend(domains.any);
        principals.not.extend(domains.not);
        Match {
            principals,
            namespaces: source.namespaces.clone(),
            service_accounts: source.service_accounts.clone(),
            source_ips: source.ip_blocks.clone(),
            ..Match::default()
        }
    }

    fn principals(&self, written: &Values<Pattern>) -> Values<Pattern> {
        Values {
            any: self.bundle.principals(&written.any),
            not: self.bundle.principals(&written.not),
        }
    }

    fn domains(&self, written: &Values<Pattern>) -> Values<Pattern> {
        Values {
            any: self.bundle.of_domains(&written.any),
            not: self.bundle.of_domains(&written.not),
        }
    }

    fn condition(&self, condition: &Condition) -> Match {
        let mut only = Match::default();
        match condition {
            Condition::SourceIp(nets) => only.source_ips = nets.clone(),
            Condition::SourceNamespace(names) => only.namespaces = names.clone(),
            Condition::SourcePrincipal(names) => only.principals = self.principals(names),
            Condition::SourceServiceAccount(accounts) => only.service_accounts = accounts.clone(),
            Condition::SourceTrustDomain(names) => only.principals = self.domains(names),
            Condition::DestinationIp(nets) => only.destination_ips = nets.clone(),
            Condition::DestinationPort(ports) => only.destination_ports = ports.clone(),
            Condition::RemoteIp(_) | Condition::Waypoint { .. } => {}
        }
        only
    }
}

fn operation(operation: &Operation) -> Match {
    Match {
        destination_ports: operation.ports.clone(),
        ..Match::default()
    }
}
