//! The admin pages of policies: which there are, and what they come to for a connection.

use std::collections::HashMap;
use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::admin::Answer;
use crate::agent::MeshState;
use crate::explain::{Question, explain};
use crate::model::compile::policies::{Surveyed, survey};
use crate::model::condition::Condition;
use crate::model::declaration::{Mesh, Origin};
use crate::model::policy::{Effect, Policy, Scope};
use crate::model::view::View;
use crate::telemetry::access_log::chain;

/// A line of `lateen policies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyLine {
    /// `namespace/name`.
    pub policy: String,
    /// `ALLOW`, `DENY`, `AUDIT` or `CUSTOM`.
    pub action: String,
    /// It is only tried.
    pub dry_run: bool,
    /// `mesh`, `namespace` or `workloads`; `-` where node proxies are not told of it.
    pub scope: String,
    /// How many workloads it holds for.
    pub workloads: usize,
    /// How many rules node proxies evaluate.
    pub rules: usize,
    /// Where it is written, as `file:line`; empty when unknown.
    pub place: String,
    /// Why it could not be read, and so denies everything.
    pub unreadable: Option<String>,
    /// Whether it is in force as it was written, where that is known: on a control plane's host.
    pub condition: Option<ConditionLine>,
}

/// How far something is in force, in Istio's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConditionLine {
    /// `ZtunnelAccepted`, `WaypointAccepted` or `istio.io/WaypointBound`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is in force in some form.
    pub status: bool,
    /// Why.
    pub reason: String,
    /// How what is in force differs from what is written.
    pub message: String,
}

impl From<Condition> for ConditionLine {
    fn from(condition: Condition) -> Self {
        Self {
            kind: condition.kind.to_owned(),
            status: condition.status,
            reason: condition.reason.to_owned(),
            message: condition.message,
        }
    }
}

impl Sources {
    pub(super) fn mesh(&self) -> Result<Arc<MeshState>, Answer> {
        let missing = |reason| Answer::error(StatusCode::NOT_FOUND, reason);
        let node = self.node.as_ref().and_then(|n| n.borrow().clone());
        let node = node.ok_or_else(|| {
            missing("no node role runs in this process; name a mesh directory with --dir")
        })?;
        let viewed = node.agent.link.borrow().viewed;
        let mesh = Arc::clone(&node.agent.mesh.borrow());
        match viewed {
            true => Ok(mesh),
            false => Err(missing("this node has no view of the mesh yet")),
        }
    }

    pub(super) fn policies(&self, _body: &[u8]) -> Answer {
        let declared = self.control.as_ref().map(|c| c.inputs.borrow().clone());
        if let Some(Some(input)) = declared {
            return Answer::json(&declared_lines(&input.mesh));
        }
        match self.mesh() {
            Ok(mesh) => Answer::json(&lines(&mesh.view)),
            Err(refusal) => refusal,
        }
    }

    pub(super) fn explain(&self, body: &[u8]) -> Answer {
        let question: Question = match serde_json::from_slice(body) {
            Ok(question) => question,
            Err(e) => return Answer::error(StatusCode::BAD_REQUEST, chain(&e)),
        };
        match self.mesh() {
            Ok(mesh) => match explain(&mesh.view, &mesh.waypoints, &question) {
                Ok(explanation) => Answer::json(&explanation),
                Err(e) => Answer::error(StatusCode::BAD_REQUEST, e.to_string()),
            },
            Err(refusal) => refusal,
        }
    }
}

/// The policies of a mesh as it is declared, by key.
pub fn declared_lines(mesh: &Mesh) -> Vec<PolicyLine> {
    let line = |surveyed: Surveyed| PolicyLine {
        policy: surveyed.key.to_string(),
        action: surveyed.action.to_owned(),
        dry_run: surveyed.dry_run,
        scope: surveyed.scope.map_or("-", word).to_owned(),
        workloads: surveyed.workloads,
        rules: surveyed.rules,
        place: place(surveyed.origin.as_ref()),
        unreadable: None,
        condition: surveyed.condition.map(ConditionLine::from),
    };
    survey(mesh).into_iter().map(line).collect()
}

/// The policies of a view, by key.
fn lines(view: &View) -> Vec<PolicyLine> {
    let mut namespaces: HashMap<&str, usize> = HashMap::new();
    let mut listed: HashMap<&str, usize> = HashMap::new();
    for workload in view.workloads() {
        *namespaces.entry(&workload.namespace).or_default() += 1;
        for key in &workload.authorization_policies {
            *listed.entry(key).or_default() += 1;
        }
    }
    let holds_for = |policy: &Policy| match policy.scope {
        Scope::Mesh => view.size().0,
        Scope::Namespace => namespaces.get(&*policy.namespace).copied().unwrap_or(0),
        Scope::Listed => listed.get(&*policy.key).copied().unwrap_or(0),
    };
    let mut policies: Vec<_> = view.policies().iter().collect();
    policies.sort_by(|a, b| a.key.cmp(&b.key));
    let line = |policy: &Arc<Policy>| PolicyLine {
        policy: policy.key.to_string(),
        action: match policy.effect {
            Effect::Allow => "ALLOW".to_owned(),
            Effect::Deny => "DENY".to_owned(),
        },
        dry_run: policy.dry_run,
        scope: word(policy.scope).to_owned(),
        workloads: holds_for(policy),
        rules: policy.rules.len(),
        place: place(policy.origin.as_ref()),
        unreadable: policy.unreadable.as_ref().map(ToString::to_string),
        condition: None,
    };
    policies.into_iter().map(line).collect()
}

fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Mesh => "mesh",
        Scope::Namespace => "namespace",
        Scope::Listed => "workloads",
    }
}

pub(super) fn place(origin: Option<&Origin>) -> String {
    origin.map_or_else(String::new, |o| format!("{}:{}", o.file, o.line))
}
