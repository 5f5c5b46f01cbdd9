//! The admin pages of policies: which there are, and what they come to for a connection.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::admin::Answer;
use crate::agent::MeshState;
use crate::explain::{Question, explain};
use crate::model::policy::{Effect, Policy, Scope};
use crate::model::view::View;
use crate::telemetry::access_log::chain;

/// A line of `lateen policies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyLine {
    /// `namespace/name`.
    pub policy: String,
    /// `ALLOW` or `DENY`.
    pub action: String,
    /// It is only tried.
    pub dry_run: bool,
    /// `mesh`, `namespace` or `workloads`.
    pub scope: String,
    /// How many workloads it holds for.
    pub workloads: usize,
    /// How many rules node proxies evaluate.
    pub rules: usize,
    /// Where it is written, as `file:line`; empty when unknown.
    pub place: String,
    /// Why it could not be read, and so denies everything.
    pub unreadable: Option<String>,
}

impl Sources {
    fn mesh(&self) -> Result<Arc<MeshState>, Answer> {
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
            Ok(mesh) => match explain(&mesh.view, &question) {
                Ok(explanation) => Answer::json(&explanation),
                Err(e) => Answer::error(StatusCode::BAD_REQUEST, e.to_string()),
            },
            Err(refusal) => refusal,
        }
    }
}

/// The policies of a view, by key.
pub fn lines(view: &View) -> Vec<PolicyLine> {
    let mut policies: Vec<_> = view.policies().iter().collect();
    policies.sort_by(|a, b| a.key.cmp(&b.key));
    policies
        .into_iter()
        .map(|policy| line(view, policy))
        .collect()
}

fn line(view: &View, policy: &Policy) -> PolicyLine {
    let holds = |w: &&Arc<crate::model::workload::Workload>| match policy.scope {
        Scope::Mesh => true,
        Scope::Namespace => w.namespace == policy.namespace,
        Scope::Listed => w.authorization_policies.contains(&policy.key),
    };
    let origin = policy.origin.as_ref();
    PolicyLine {
        policy: policy.key.to_string(),
        action: match policy.effect {
            Effect::Allow => "ALLOW".to_owned(),
            Effect::Deny => "DENY".to_owned(),
        },
        dry_run: policy.dry_run,
        scope: match policy.scope {
            Scope::Mesh => "mesh".to_owned(),
            Scope::Namespace => "namespace".to_owned(),
            Scope::Listed => "workloads".to_owned(),
        },
        workloads: view.workloads().filter(holds).count(),
        rules: policy.rules.len(),
        place: origin.map_or_else(String::new, |o| format!("{}:{}", o.file, o.line)),
        unreadable: policy.unreadable.as_ref().map(ToString::to_string),
    }
}
