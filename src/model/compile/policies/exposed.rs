//! What is behind a waypoint and is reached past it all the same (`spec/labels-and-policy.md` §1.10): a
//! service's waypoint is no guard of its workloads' own addresses.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Attached;
use crate::model::binding::{Bindable, Binding, Waypoints};
use crate::model::compile::gateways::Gateways;
use crate::model::compile::membership::Membership;
use crate::model::compile::service_entries::Entries;
use crate::model::compile::{enrolled, service_key};
use crate::model::declaration::{Mesh, Workload};
use crate::model::policy::{Effect, Match, Policy, Rule, Scope};
use crate::model::service::ServiceKey;

/// The services and hosts of service entries that are behind a waypoint while a captured workload of theirs
/// takes what passed none: neither does the mesh let waypoints alone through (§3.8), nor do policies name
/// whom it lets in.
pub fn exposed(mesh: &Mesh) -> BTreeSet<ServiceKey> {
    let Ok(gateways) = Gateways::new(mesh) else {
        return BTreeSet::new();
    };
    if mesh.settings.auto_allow_waypoint || mesh.gateways.is_empty() {
        return BTreeSet::new();
    }
    let waypoints = Waypoints::new(mesh);
    let bound = |object| matches!(waypoints.bind(object), Binding::Bound(_));
    let domain = &mesh.settings.domain;
    let keys = mesh.services.iter();
    let keys: Vec<_> = keys
        .map(|s| service_key(&s.name, &s.namespace, domain))
        .collect();
    let outside = Entries::new(mesh, &gateways);
    let services = mesh.services.iter().zip(&keys);
    let services = services.filter(|(service, _)| bound(Bindable::from(*service)));
    let hosts = outside.all.iter();
    let hosts = hosts.filter(|host| bound(Bindable::from(host.declared)));
    let behind = services.map(|(_, key)| key);
    let behind: HashSet<_> = behind.chain(hosts.map(|host| &host.key)).collect();
    if behind.is_empty() {
        return BTreeSet::new();
    }
    let attached = Attached::new(mesh);
    let allows = Allows::new(&attached);
    let membership = Membership::new(mesh, &keys, &outside, false);
    let captured = mesh.workloads.iter().filter(|w| enrolled(mesh, w));
    let open = captured.filter(|w| !allows.name_all(w));
    let exposed = open.flat_map(|w| membership.of(w));
    exposed
        .filter(|key| behind.contains(key))
        .cloned()
        .collect()
}

/// Whom policies let in where they select nobody.
struct Allows<'a> {
    attached: &'a Attached<'a>,
    mesh: Named,
    namespaces: HashMap<&'a str, Named>,
}

/// What some policies that allow come to.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    /// There are some, so everybody whom none of them lets in is denied.
    some: bool,
    /// One lets in somebody who has proven nothing.
    anybody: bool,
}

impl Named {
    fn and(self, policy: &Policy) -> Self {
        if policy.effect != Effect::Allow || policy.dry_run {
            return self;
        }
        Self {
            some: true,
            anybody: self.anybody || !policy.rules.iter().all(proves),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            some: self.some || other.some,
            anybody: self.anybody || other.anybody,
        }
    }
}

impl<'a> Allows<'a> {
    fn new(attached: &'a Attached<'a>) -> Self {
        let mut all = Self {
            attached,
            mesh: Named::default(),
            namespaces: HashMap::new(),
        };
        for policy in &attached.policies {
            let named = match policy.scope {
                Scope::Mesh => &mut all.mesh,
                Scope::Namespace => all.namespaces.entry(&policy.namespace).or_default(),
                Scope::Listed => continue,
            };
            *named = named.and(policy);
        }
        all
    }

    /// Whether a workload lets in those alone whom policies name.
    fn name_all(&self, workload: &Workload) -> bool {
        let selecting = self.attached.selecting.of(workload);
        let selecting = selecting.filter_map(|at| self.attached.policies.get(at));
        let wide = self.namespaces.get(&*workload.namespace).copied();
        let wide = self.mesh.or(wide.unwrap_or_default());
        let named = selecting.fold(wide, |named, policy| named.and(policy));
        let strict = || self.attached.strictness.over(workload).is_some();
        named.some && (!named.anybody || strict())
    }
}

/// Whether only somebody with an identity meets a rule.
fn proves(rule: &Rule) -> bool {
    let who = |m: &Match| {
        let named = [m.principals.any.len(), m.namespaces.any.len()];
        named.iter().any(|n| *n > 0) || !m.service_accounts.any.is_empty()
    };
    let mut clauses = rule.clauses.iter();
    clauses.any(|c| !c.matches.is_empty() && c.matches.iter().all(who))
}
