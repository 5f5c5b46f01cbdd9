//! What became of each policy, for people (`spec/labels-and-policy.md` §1.9).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::beside;
use super::{Attached, Converted, Difference, convert};
use crate::model::binding::{Attachments, Waypoints};
use crate::model::compile::gateways::Gateways;
use crate::model::compile::membership::Membership;
use crate::model::compile::service_entries::Entries;
use crate::model::compile::service_key;
use crate::model::condition::Condition;
use crate::model::declaration::{Attachment, AuthorizationPolicy, Mesh, Origin};
use crate::model::policy::{Effect, Policy, Scope};

/// A policy of the mesh files, or one made of something else there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Its action, as Istio writes it; of another kind than authorization policies, the kind.
    pub action: &'static str,
    /// It is only tried.
    pub dry_run: bool,
    /// For whom it holds; none where node proxies are not told of it.
    pub scope: Option<Scope>,
    /// How many workloads that is.
    pub workloads: usize,
    /// How many rules are evaluated.
    pub rules: usize,
    /// Where it was written; none of what several peer authentications share.
    pub origin: Option<Origin>,
    /// Whether it is in force as it was written; none of what was not written as such.
    pub condition: Option<Condition>,
}

/// Every policy of a mesh, in the order of their keys.
pub fn survey(mesh: &Mesh) -> Vec<Surveyed> {
    let attached = Attached::new(mesh);
    let mut listed: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let mut namespaces: BTreeMap<&str, usize> = BTreeMap::new();
    // Which services a workload belongs to matters to what lets waypoints through, and to that alone.
    let domain = &mesh.settings.domain;
    let services = mesh.services.iter();
    let keys = services.map(|s| service_key(&s.name, &s.namespace, domain));
    let keys: Vec<_> = keys.filter(|_| attached.auto_allow.is_some()).collect();
    let gateways = attached.auto_allow.as_ref().map(|_| Gateways::new(mesh));
    let outside = match &gateways {
        Some(Ok(gateways)) => Entries::new(mesh, gateways),
        // A checked mesh has no gateway of an illegal name.
        Some(Err(_)) | None => Entries::none(mesh),
    };
    let few = keys.is_empty() && outside.all.is_empty();
    let membership = Membership::new(mesh, &keys, &outside, few);
    for workload in &mesh.workloads {
        *namespaces.entry(&workload.namespace).or_default() += 1;
        let services: Vec<_> = membership.of(workload).collect();
        for key in attached.listed_on(workload, &services) {
            *listed.entry(key).or_default() += 1;
        }
    }
    let holds_for = |policy: &Policy| match policy.scope {
        Scope::Mesh => mesh.workloads.len(),
        Scope::Namespace => namespaces.get(&*policy.namespace).copied().unwrap_or(0),
        Scope::Listed => listed.get(&policy.key).copied().unwrap_or(0),
    };
    let waypoints = Waypoints::new(mesh);
    let attachments = Attachments::new(mesh, &waypoints);
    let written = mesh.authorization_policies.iter().map(|written| {
        let converted = convert(written, &mesh.settings);
        let policy = converted.policy.as_ref();
        Surveyed {
            key: Policy::key_of(&written.namespace, &written.name),
            action: written.action.as_str(),
            dry_run: written.dry_run,
            scope: policy.map(|p| p.scope),
            workloads: policy.map_or(0, holds_for),
            rules: match &written.attachment {
                Attachment::Targets(_) => written.rules.len(),
                Attachment::Namespace | Attachment::Selector(_) => {
                    policy.map_or(0, |p| p.rules.len())
                }
            },
            origin: Some(written.origin.clone()),
            condition: Some(match &written.attachment {
                Attachment::Targets(refs) => attachments.condition(&written.namespace, refs),
                Attachment::Namespace | Attachment::Selector(_) => condition(written, &converted),
            }),
        }
    });
    let mut all: Vec<_> = written.collect();
    let known: BTreeSet<Arc<str>> = all.iter().map(|s| Arc::clone(&s.key)).collect();
    let derived = attached.derived(&listed);
    let derived = derived.into_iter().filter(|p| !known.contains(&p.key));
    all.extend(derived.map(|policy| Surveyed {
        key: Arc::clone(&policy.key),
        action: match policy.effect {
            Effect::Allow => "ALLOW",
            Effect::Deny => "DENY",
        },
        dry_run: policy.dry_run,
        scope: Some(policy.scope),
        workloads: holds_for(&policy),
        rules: policy.rules.len(),
        origin: policy.origin.clone(),
        condition: None,
    }));
    all.extend(beside::surveyed(mesh, &attachments));
    all.sort_by(|a, b| a.key.cmp(&b.key));
    all
}

fn condition(written: &AuthorizationPolicy, converted: &Converted) -> Condition {
    let fields: Vec<&str> = converted.http.iter().map(|field| &**field).collect();
    let fields = fields.join(", ");
    let of_nodes = |status, message| Condition {
        kind: "ZtunnelAccepted",
        status,
        reason: "UnsupportedValue",
        message,
    };
    match converted.difference {
        Difference::None => Condition {
            reason: "Accepted",
            ..of_nodes(true, String::new())
        },
        Difference::RulesLeftOut => of_nodes(
            true,
            format!("stricter than written: rules that need {fields} are left out"),
        ),
        Difference::Widened => of_nodes(
            true,
            format!("stricter than written: denies without looking at {fields}"),
        ),
        Difference::Narrowed => of_nodes(
            true,
            format!("laxer than written: alternatives that need {fields} are left out"),
        ),
        Difference::Disarmed => of_nodes(
            true,
            format!("laxer than written: a rule that needs {fields} never matches"),
        ),
        Difference::Action => of_nodes(
            false,
            format!(
                "not in force: node proxies do not know {}",
                written.action.as_str()
            ),
        ),
        Difference::ForWaypoints => of_nodes(
            false,
            "not in force: node proxies do not know it".to_owned(),
        ),
    }
}
