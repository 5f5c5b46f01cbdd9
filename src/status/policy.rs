//! The admin pages of policies: which there are, and what they come to for a connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::admin::Answer;
use crate::agent::MeshState;
use crate::causes::chain;
use crate::explain::{Question, explain};
use crate::model::attached::PolicyKey;
use crate::model::compile::policies::{Surveyed, survey};
use crate::model::condition::Condition;
use crate::model::declaration::{Mesh, Origin};
use crate::model::policy::{Effect, Policy, Scope};
use crate::model::view::View;
use crate::model::waypoint::{Resources, WaypointName};

/// A line of `lateen policies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyLine {
    /// `namespace/name`.
    pub policy: String,
    /// `ALLOW`, `DENY`, `AUDIT` or `CUSTOM`; of another kind than authorization policies, the kind.
    pub action: String,
    /// It is only tried.
    pub dry_run: bool,
    /// `mesh`, `namespace` or `workloads`; `waypoints`, or the waypoint on this node; `-` where nobody is told of
    /// it.
    pub scope: String,
    /// How many workloads it holds for.
    pub workloads: usize,
    /// How many rules are evaluated.
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
            Ok(mesh) => {
                let mut lines = lines(&mesh.view);
                lines.extend(told(&mesh.waypoints));
                Answer::json(&lines)
            }
            Err(refusal) => refusal,
        }
    }

    pub(super) fn explain(&self, body: &[u8]) -> Answer {
        let question: Question = match serde_json::from_slice(body) {
            Ok(question) => question,
            Err(e) => return Answer::error(StatusCode::BAD_REQUEST, chain(&e)),
        };
        match self.mesh() {
            Ok(mesh) => match explain(&mesh.view, &mesh.names(), &mesh.waypoints, &question) {
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
        scope: match (surveyed.scope, &surveyed.condition) {
            (Some(scope), _) => word(scope).to_owned(),
            (None, Some(c)) if c.kind == "WaypointAccepted" && c.status => "waypoints".to_owned(),
            (None, _) => "-".to_owned(),
        },
        workloads: surveyed.workloads,
        rules: surveyed.rules,
        place: place(surveyed.origin.as_ref()),
        unreadable: None,
        condition: surveyed.condition.map(ConditionLine::from),
    };
    survey(mesh).into_iter().map(line).collect()
}

/// The policies that waypoints on this node enforce, by waypoint, kind and key.
fn told(waypoints: &BTreeMap<WaypointName, Arc<Resources>>) -> Vec<PolicyLine> {
    let line = |waypoint: &WaypointName, action: &str, key: &PolicyKey, rules, origin: &Origin| {
        PolicyLine {
            policy: key.to_string(),
            action: action.to_owned(),
            dry_run: false,
            scope: waypoint.to_string(),
            workloads: 0,
            rules,
            place: place(Some(origin)),
            unreadable: None,
            condition: None,
        }
    };
    let mut lines = Vec::new();
    for (name, told) in waypoints {
        lines.extend(told.policies.values().map(|p| PolicyLine {
            dry_run: p.dry_run,
            ..line(name, p.action.as_str(), &p.key, p.rules.len(), &p.origin)
        }));
        lines.extend(told.authentications.values().map(|p| {
            line(
                name,
                "request-authentication",
                &p.key,
                p.rules.len(),
                &p.origin,
            )
        }));
        let limits = told.limits.values();
        lines.extend(limits.map(|l| line(name, "rate-limit", &l.key, l.rules.len(), &l.origin)));
        lines.extend(told.telemetry.values().map(|t| {
            let says = &t.says;
            let parts = says.tracing.len() + says.metrics.len() + says.logging.len();
            line(name, "telemetry", &t.key, parts, &t.origin)
        }));
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::explain::intended;

    const MESH: &str = r#"
default-namespace = "shop"
[[namespace]]
name = "shop"
[[node]]
name = "edge-1"
addresses = ["192.0.2.1"]
[[gateway]]
name = "wp"
class = "waypoint"
node = "edge-1"
[[workload]]
name = "cart-1"
addresses = ["10.1.0.11"]
labels = { app = "cart" }
[[service]]
name = "cart"
selector = { app = "cart" }
ports = [{ port = 80, app-protocol = "http" }]
use-waypoint = "wp"

[[authorization-policy]]
name = "a"
target-refs = [{ kind = "Service", name = "cart" }]
rules = [{}, {}]
[[authorization-policy]]
name = "b"
target-refs = [{ kind = "Service", name = "gone" }]
rules = [{}]
[[request-authentication]]
name = "c"
target-refs = [{ kind = "Gateway", name = "wp" }]
jwt-rules = [{ issuer = "i", jwks = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}' }]
[[request-authentication]]
name = "d"
jwt-rules = [{ issuer = "i", jwks = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}' }]
[[rate-limit]]
name = "e"
target-refs = [{ kind = "Service", name = "cart" }]
rules = [{ requests = 1, per = "1s" }]
[[telemetry]]
name = "f"
access-logging = [{ disabled = true }]
[[telemetry]]
name = "g"
access-logging = [{ disabled = true }]
"#;

    #[test]
    fn what_waypoints_enforce_is_listed_as_it_is_written_and_as_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mesh.toml"), MESH).unwrap();
        let loaded = config::load(dir.path());
        let mesh = loaded.mesh.unwrap_or_else(|| panic!("{}", loaded.report));
        let short = |line: &PolicyLine| {
            let reason = line.condition.as_ref().map_or("", |c| &c.reason).to_owned();
            let of = (line.policy.clone(), line.action.clone());
            (of.0, of.1, line.scope.clone(), line.rules, reason)
        };
        let owned = |(policy, action, scope, rules, reason): (&str, &str, &str, usize, &str)| {
            let [policy, action, scope, reason] =
                [policy, action, scope, reason].map(str::to_owned);
            (policy, action, scope, rules, reason)
        };
        let declared: Vec<_> = declared_lines(&mesh).iter().map(short).collect();
        let want = [
            ("shop/a", "ALLOW", "waypoints", 2, "Accepted"),
            ("shop/b", "ALLOW", "-", 1, "TargetNotFound"),
            (
                "shop/c",
                "request-authentication",
                "waypoints",
                1,
                "Accepted",
            ),
            ("shop/d", "request-authentication", "-", 1, "Invalid"),
            ("shop/e", "rate-limit", "waypoints", 1, "Accepted"),
            ("shop/f", "telemetry", "waypoints", 1, "Accepted"),
            ("shop/g", "telemetry", "-", 1, "Invalid"),
        ];
        assert_eq!(declared, want.map(owned));
        let waypoints = intended(&mesh).unwrap().waypoints;
        let told: Vec<_> = told(&waypoints).iter().map(short).collect();
        let want = [
            ("shop/a", "ALLOW", "shop/wp", 2, ""),
            ("shop/c", "request-authentication", "shop/wp", 1, ""),
            ("shop/e", "rate-limit", "shop/wp", 1, ""),
            ("shop/f", "telemetry", "shop/wp", 1, ""),
        ];
        assert_eq!(told, want.map(owned));
    }
}
