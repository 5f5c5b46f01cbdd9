//! The verdict on a connection to a workload (`spec/labels-and-policy.md` §6).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::rule::{Effect, Policy, Request, Scope};
use crate::model::workload::Workload;

/// The policies of a mesh, indexed by whom they hold for.
#[derive(Debug, Default)]
pub struct Policies {
    by_key: HashMap<Arc<str>, Arc<Policy>>,
    mesh: Vec<Arc<Policy>>,
    namespaces: HashMap<Arc<str>, Vec<Arc<Policy>>>,
}

impl Policies {
    /// Indexes policies; of two with one key the later stays.
    pub fn new(policies: impl IntoIterator<Item = Arc<Policy>>) -> Self {
        let keyed = policies.into_iter().map(|p| (Arc::clone(&p.key), p));
        let mut policies = Self {
            by_key: keyed.collect(),
            ..Self::default()
        };
        let mut all: Vec<_> = policies.by_key.values().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        for policy in all {
            match policy.scope {
                Scope::Mesh => policies.mesh.push(Arc::clone(policy)),
                Scope::Namespace => {
                    let namespace = Arc::clone(&policy.namespace);
                    let all = policies.namespaces.entry(namespace).or_default();
                    all.push(Arc::clone(policy));
                }
                Scope::Listed => {}
            }
        }
        policies
    }

    /// The policy with this key.
    pub fn get(&self, key: &str) -> Option<&Arc<Policy>> {
        self.by_key.get(key)
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_key.values()
    }

    /// What holds for a workload.
    pub fn guard(&self, workload: &Workload) -> Guard {
        let wide = self.namespaces.get(&workload.namespace);
        let wide = self.mesh.iter().chain(wide.into_iter().flatten());
        let mut guard = Guard::default();
        wide.for_each(|policy| guard.file(policy));
        for key in &workload.authorization_policies {
            match self.by_key.get(key) {
                // One that holds for more than whom it is listed on is in already.
                Some(policy) if policy.scope == Scope::Listed => guard.file(policy),
                Some(_) => {}
                None => guard.missing = guard.missing.take().or_else(|| Some(Arc::clone(key))),
            }
        }
        for policies in [&mut guard.deny, &mut guard.allow, &mut guard.dry_run] {
            policies.sort_by(|a, b| a.key.cmp(&b.key));
            policies.dedup_by(|a, b| a.key == b.key);
        }
        guard
    }
}

/// The policies that hold for one workload, each kind in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    deny: Vec<Arc<Policy>>,
    allow: Vec<Arc<Policy>>,
    dry_run: Vec<Arc<Policy>>,
    /// One that the workload lists and nobody has told of.
    missing: Option<Arc<str>>,
}

/// A policy and the rule of it that made a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The place of the rule in it; none when the verdict is that none matched.
    pub rule: Option<usize>,
}

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in: by this rule, or because nothing asks for a rule that allows.
    Allowed(Option<Cause>),
    /// It is kept out.
    Denied(Denial),
}

/// Why policies keep a connection out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// This rule denies it.
    Rule(Cause),
    /// Policies allow some connections, and not this one; one of them, and how many there are.
    NotAllowed {
        /// The first by key.
        first: Arc<Policy>,
        /// How many there are.
        count: usize,
    },
    /// The workload lists a policy that nobody has told of.
    Missing(Arc<str>),
}

/// What a policy that is only tried would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rehearsal {
    /// It would have denied.
    Deny(Cause),
    /// It would have allowed.
    Allow(Cause),
    /// None of these would have allowed it, and nothing else would; the first by key.
    NoAllow(Arc<Policy>),
}

/// A policy that holds for the workload, and the rule of it that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The place of the first rule that matches.
    pub matched: Option<usize>,
}

impl Guard {
    fn file(&mut self, policy: &Arc<Policy>) {
        let of_its_kind = match (policy.dry_run, policy.effect) {
            (true, _) => &mut self.dry_run,
            (false, Effect::Deny) => &mut self.deny,
            (false, Effect::Allow) => &mut self.allow,
        };
        of_its_kind.push(Arc::clone(policy));
    }

    /// Whether a policy is listed that nobody has told of, so that nothing is let in.
    pub fn waits(&self) -> bool {
        self.missing.is_some()
    }

    /// Whether both give the same verdict on everything, wherever their policies are written.
    pub fn means(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Policy>], b: &[Arc<Policy>]| {
            let pair = |(a, b): (&Arc<Policy>, &Arc<Policy>)| Arc::ptr_eq(a, b) || a.means(b);
            a.len() == b.len() && a.iter().zip(b).all(pair)
        };
        self.missing == other.missing
            && same(&self.deny, &other.deny)
            && same(&self.allow, &other.allow)
    }

    /// Whether there are policies that are only tried.
    pub fn rehearses(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// Judges a connection. Of several reasons to keep it out the one with the smallest key is
    /// named, so that the answer does not change from one time to the next.
    pub fn judge(&self, request: &Request) -> Verdict {
        if let Some(key) = &self.missing {
            return Verdict::Denied(Denial::Missing(Arc::clone(key)));
        }
        if let Some(cause) = first(&self.deny, request) {
            return Verdict::Denied(Denial::Rule(cause));
        }
        let Some(allowing) = self.allow.first() else {
            return Verdict::Allowed(None);
        };
        match first(&self.allow, request) {
            Some(cause) => Verdict::Allowed(Some(cause)),
            None => Verdict::Denied(Denial::NotAllowed {
                first: Arc::clone(allowing),
                count: self.allow.len(),
            }),
        }
    }

    /// What the policies that are only tried would have done (§3.7).
    pub fn rehearse(&self, request: &Request) -> Vec<Rehearsal> {
        let matching = self.dry_run.iter().filter_map(|policy| {
            let cause = matched(policy, request)?;
            Some(match policy.effect {
                Effect::Deny => Rehearsal::Deny(cause),
                Effect::Allow => Rehearsal::Allow(cause),
            })
        });
        let mut all: Vec<_> = matching.collect();
        let mut allowing = self.dry_run.iter();
        let allowing = allowing.find(|policy| policy.effect == Effect::Allow);
        let allowed = all.iter().any(|r| matches!(r, Rehearsal::Allow(_)));
        if let (Some(policy), false, true) = (allowing, allowed, self.allow.is_empty()) {
            all.push(Rehearsal::NoAllow(Arc::clone(policy)));
        }
        all
    }

    /// Every policy that holds, and whether it matches, in the order in which they count.
    pub fn consider(&self, request: &Request) -> Vec<Considered> {
        let all = self.deny.iter().chain(&self.allow).chain(&self.dry_run);
        let considered = all.map(|policy| Considered {
            policy: Arc::clone(policy),
            matched: policy.matching(request),
        });
        considered.collect()
    }
}

fn matched(policy: &Arc<Policy>, request: &Request) -> Option<Cause> {
    let rule = policy.matching(request)?;
    Some(Cause {
        policy: Arc::clone(policy),
        rule: Some(rule),
    })
}

fn first(policies: &[Arc<Policy>], request: &Request) -> Option<Cause> {
    policies.iter().find_map(|policy| matched(policy, request))
}

impl Cause {
    /// The file and the line that made it so, as `file:line`, where they are known.
    pub fn place(&self) -> Option<String> {
        let origin = self.policy.origin.as_ref()?;
        let rule = self.rule.and_then(|at| self.policy.rules.get(at));
        let line = rule.map_or(0, |rule| rule.line);
        let line = if line == 0 { origin.line } else { line };
        Some(format!("{}:{line}", origin.file))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {}", self.policy.key)?;
        match self.place() {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

impl Denial {
    /// The key of the policy to be named.
    #[cfg(test)]
    pub(crate) fn policy(&self) -> &Arc<str> {
        match self {
            Self::Rule(cause) => &cause.policy.key,
            Self::NotAllowed { first, .. } => &first.key,
            Self::Missing(key) => key,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(cause) => match &cause.policy.unreadable {
                Some(why) => write!(
                    f,
                    "{cause} holds for this workload and cannot be read: {why}"
                ),
                None => write!(f, "denied by {cause}"),
            },
            Self::NotAllowed { first, count } => {
                let first = Cause {
                    policy: Arc::clone(first),
                    rule: None,
                };
                match count {
                    1 => write!(f, "not allowed by {first}, which allows others"),
                    _ => write!(
                        f,
                        "allowed by none of {count} policies that allow others, such as {first}"
                    ),
                }
            }
            Self::Missing(key) => write!(
                f,
                "policy {key} holds for this workload and has not been told of yet"
            ),
        }
    }
}

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny(cause) => write!(f, "would be denied by {cause}"),
            Self::Allow(cause) => write!(f, "would be allowed by {cause}"),
            Self::NoAllow(policy) => write!(
                f,
                "would be denied: no policy would allow it, such as policy {}",
                policy.key
            ),
        }
    }
}

#[cfg(test)]
mod tests;
