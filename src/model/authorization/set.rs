//! The policies that hold for what was asked for, and their verdict (`spec/waypoint-l7.md` §4.1).

use std::fmt;
use std::sync::Arc;

use super::index::Index;
use super::rule::Judge;
use super::{Asked, Authorization};
use crate::model::attached::PolicyKey;
use crate::model::declaration::Action;

/// The policies of a service behind a waypoint, or of what is addressed to workloads; each kind in the
/// order they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    custom: Vec<Arc<Authorization>>,
    audit: Vec<Arc<Authorization>>,
    deny: Indexed,
    allow: Indexed,
    dry_run: Vec<Arc<Authorization>>,
    /// One that holds and that nobody has told of.
    missing: Option<PolicyKey>,
}

/// Policies of which the first rule that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Indexed {
    policies: Vec<Arc<Authorization>>,
    index: Index,
}

/// A policy and the rule of it that made a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The policy.
    pub policy: Arc<Authorization>,
    /// The place of the rule in it.
    pub rule: usize,
}

/// Somebody else who is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The provider.
    pub provider: Arc<str>,
    /// What makes it so.
    pub cause: Cause,
}

/// What becomes of a request or a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes: by this rule, or because nothing asks for a rule that allows.
    Allowed(Option<Cause>),
    /// It does not.
    Denied(Denial),
}

/// Why it does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// This rule denies it.
    Rule(Cause),
    /// Policies allow some, and not this one; one of them, and how many there are.
    NotAllowed {
        /// The first.
        first: Arc<Authorization>,
        /// How many there are.
        count: usize,
    },
    /// A policy holds that nobody has told of.
    Missing(PolicyKey),
}

/// What a policy has to say that decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is to be audited.
    Audit(Cause),
    /// A policy that is only tried would have denied it.
    WouldDeny(Cause),
    /// A policy that is only tried would have allowed it.
    WouldAllow(Cause),
    /// Policies that are only tried would allow others, and nothing else allows anything; the first.
    WouldNotAllow(Arc<Authorization>),
}

impl Set {
    /// Those policies, in the order they were written; one that holds may be `missing`.
    pub fn new(
        policies: impl IntoIterator<Item = Arc<Authorization>>,
        missing: Option<PolicyKey>,
    ) -> Self {
        let mut set = Self {
            missing,
            ..Self::default()
        };
        let (mut allow, mut deny) = (Vec::new(), Vec::new());
        for policy in policies {
            let of_its_kind = match (&policy.action, policy.dry_run) {
                (_, true) => &mut set.dry_run,
                (Action::Allow, false) => &mut allow,
                (Action::Deny, false) => &mut deny,
                (Action::Audit, false) => &mut set.audit,
                (Action::Custom(_), false) => &mut set.custom,
            };
            of_its_kind.push(policy);
        }
        set.allow = Indexed::new(allow);
        set.deny = Indexed::new(deny);
        set
    }

    /// Whether it has nothing to say to anybody.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whom to ask before anything else: each provider once, in order.
    pub fn questions(&self, asked: &Asked<'_>) -> Vec<Question> {
        let mut questions: Vec<Question> = Vec::new();
        for policy in &self.custom {
            let Action::Custom(provider) = &policy.action else {
                continue;
            };
            let known = questions.iter().any(|q| q.provider == *provider);
            let cause = (!known).then(|| matched(policy, asked)).flatten();
            questions.extend(cause.map(|cause| Question {
                provider: Arc::clone(provider),
                cause,
            }));
        }
        questions
    }

    /// Judges what was asked, all providers apart. Of several reasons to deny the first written is named.
    pub fn judge(&self, asked: &Asked<'_>) -> Verdict {
        if let Some(key) = &self.missing {
            return Verdict::Denied(Denial::Missing(key.clone()));
        }
        if let Some(cause) = self.deny.first(asked) {
            return Verdict::Denied(Denial::Rule(cause));
        }
        let Some(allowing) = self.allow.policies.first() else {
            return Verdict::Allowed(None);
        };
        match self.allow.first(asked) {
            Some(cause) => Verdict::Allowed(Some(cause)),
            None => Verdict::Denied(Denial::NotAllowed {
                first: Arc::clone(allowing),
                count: self.allow.policies.len(),
            }),
        }
    }

    /// What is only told of (§3.7).
    pub fn marks(&self, asked: &Asked<'_>) -> Vec<Mark> {
        let audited = self
            .audit
            .iter()
            .filter_map(|policy| matched(policy, asked));
        let mut marks: Vec<Mark> = audited.map(Mark::Audit).collect();
        let tried = self.dry_run.iter().filter_map(|policy| {
            let cause = matched(policy, asked)?;
            match policy.action {
                Action::Deny => Some(Mark::WouldDeny(cause)),
                Action::Allow => Some(Mark::WouldAllow(cause)),
                Action::Audit | Action::Custom(_) => None,
            }
        });
        marks.extend(tried);
        let mut allowing = self.dry_run.iter();
        let allowing = allowing.find(|policy| policy.action == Action::Allow);
        let allowed = marks.iter().any(|m| matches!(m, Mark::WouldAllow(_)));
        if let (Some(policy), false, true) = (allowing, allowed, self.allow.policies.is_empty()) {
            marks.push(Mark::WouldNotAllow(Arc::clone(policy)));
        }
        marks
    }
}

impl Indexed {
    fn new(policies: Vec<Arc<Authorization>>) -> Self {
        let index = Index::new(&policies);
        Self { policies, index }
    }

    fn first(&self, asked: &Asked<'_>) -> Option<Cause> {
        let (policy, rule) = self.index.first(&self.policies, asked)?;
        let policy = Arc::clone(self.policies.get(policy)?);
        Some(Cause { policy, rule })
    }
}

fn matched(policy: &Arc<Authorization>, asked: &Asked<'_>) -> Option<Cause> {
    let judge = Judge::of(policy, asked);
    let rule = policy.rules.iter().position(|rule| judge.matches(rule))?;
    Some(Cause {
        policy: Arc::clone(policy),
        rule,
    })
}

impl Cause {
    /// The file and the line that made it so, as `file:line`.
    pub fn place(&self) -> String {
        let origin = &self.policy.origin;
        let line = self.policy.rules.get(self.rule).map_or(0, |rule| rule.line);
        let line = if line == 0 { origin.line } else { line };
        format!("{}:{line}", origin.file)
    }

    /// As Envoy's details of a response name it.
    pub fn detail(&self) -> String {
        let PolicyKey { namespace, name } = &self.policy.key;
        format!("ns[{namespace}]-policy[{name}]-rule[{}]", self.rule)
    }
}

impl Denial {
    /// As Envoy's details of a response say it (`spec/waypoint-l7.md` §1.9).
    pub fn detail(&self) -> String {
        let by = match self {
            Self::Rule(cause) => cause.detail(),
            Self::NotAllowed { .. } | Self::Missing(_) => "none".to_owned(),
        };
        format!("rbac_access_denied_matched_policy[{by}]")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {} ({})", self.policy.key, self.place())
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(cause) => write!(f, "denied by {cause}"),
            Self::NotAllowed { first, count: 1 } => write!(
                f,
                "not allowed by policy {} ({}:{}), which allows others",
                first.key, first.origin.file, first.origin.line
            ),
            Self::NotAllowed { first, count } => write!(
                f,
                "allowed by none of {count} policies that allow others, such as {} ({}:{})",
                first.key, first.origin.file, first.origin.line
            ),
            Self::Missing(key) => write!(f, "policy {key} holds here and is not known here"),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audit(cause) => write!(f, "audited by {cause}"),
            Self::WouldDeny(cause) => write!(f, "would be denied by {cause}"),
            Self::WouldAllow(cause) => write!(f, "would be allowed by {cause}"),
            Self::WouldNotAllow(policy) => write!(
                f,
                "would be denied: no policy would allow it, such as {}",
                policy.key
            ),
        }
    }
}

#[cfg(test)]
mod tests;
