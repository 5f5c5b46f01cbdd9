//! What became of the policies of the other kinds that only waypoints enforce, for people
//! (`spec/labels-and-policy.md` §1.9, §5).

use std::collections::HashMap;
use std::sync::Arc;

use super::Surveyed;
use crate::model::binding::Attachments;
use crate::model::condition::Condition;
use crate::model::declaration::{Attachment, Mesh, Origin};
use crate::model::policy::Policy;

/// One of them.
struct One<'a> {
    kind: &'static str,
    origin: &'a Origin,
    namespace: &'a Arc<str>,
    name: &'a Arc<str>,
    attachment: &'a Attachment,
    rules: usize,
}

/// All of a mesh, each kind in the order it was written.
pub(super) fn surveyed(mesh: &Mesh, attachments: &Attachments<'_>) -> Vec<Surveyed> {
    let tokens = mesh.request_authentications.iter().map(|policy| One {
        kind: "request-authentication",
        origin: &policy.origin,
        namespace: &policy.namespace,
        name: &policy.name,
        attachment: &policy.attachment,
        rules: policy.rules.len(),
    });
    let limits = mesh.rate_limits.iter().map(|limit| One {
        kind: "rate-limit",
        origin: &limit.origin,
        namespace: &limit.namespace,
        name: &limit.name,
        attachment: &limit.attachment,
        rules: limit.rules.len(),
    });
    let telemetry = mesh.telemetry.iter().map(|telemetry| {
        let says = &telemetry.says;
        One {
            kind: TELEMETRY,
            origin: &telemetry.origin,
            namespace: &telemetry.namespace,
            name: &telemetry.name,
            attachment: &telemetry.attachment,
            rules: says.tracing.len() + says.metrics.len() + says.logging.len(),
        }
    });
    let mut oldest: HashMap<&str, &Origin> = HashMap::new();
    for telemetry in &mesh.telemetry {
        if telemetry.attachment == Attachment::Namespace {
            let first = oldest
                .entry(&telemetry.namespace)
                .or_insert(&telemetry.origin);
            *first = (*first).min(&telemetry.origin);
        }
    }
    let all = tokens.chain(limits).chain(telemetry);
    let surveyed = all.map(|one| {
        let condition = match one.attachment {
            Attachment::Targets(refs) => attachments.condition(one.namespace, refs),
            Attachment::Namespace if one.kind == TELEMETRY => {
                of_namespace(oldest.get(&**one.namespace) == Some(&one.origin))
            }
            Attachment::Namespace | Attachment::Selector(_) => invalid(
                "not in force: waypoints look at `target-refs` alone, and nobody else at this kind",
            ),
        };
        Surveyed {
            key: Policy::key_of(one.namespace, one.name),
            action: one.kind,
            dry_run: false,
            scope: None,
            workloads: 0,
            rules: one.rules,
            origin: Some(one.origin.clone()),
            condition: Some(condition),
        }
    });
    surveyed.collect()
}

const TELEMETRY: &str = "telemetry";

/// Of several for one namespace the first one counts (§5.2).
fn of_namespace(first: bool) -> Condition {
    match first {
        true => Condition {
            status: true,
            reason: "Accepted",
            ..invalid("")
        },
        false => invalid("not in force: another one for the same namespace is written before it"),
    }
}

fn invalid(message: &str) -> Condition {
    Condition {
        kind: "WaypointAccepted",
        status: false,
        reason: "Invalid",
        message: message.to_owned(),
    }
}
