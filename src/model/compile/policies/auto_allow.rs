//! What lets waypoints through, and so shuts out everybody whom no other policy lets in
//! (`spec/labels-and-policy.md` §3.8).

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity::SpiffeId;
use crate::model::binding::{Bindable, Binding, CanaryOutcome, Named, Waypoints};
use crate::model::compile::service_key;
use crate::model::declaration::{self, Gateway, Mesh};
use crate::model::policy::{Clause, Effect, Match, Pattern, Policy, Rule, Scope};
use crate::model::service::ServiceKey;

/// What begins the name of such a policy.
const PREFIX: &str = "istio_allow_waypoint_";

/// The policies of a mesh that asks for them, one to a waypoint.
pub(super) struct AutoAllow<'a> {
    waypoints: Waypoints<'a>,
    policies: HashMap<Named<'a>, Arc<Policy>>,
    services: HashMap<ServiceKey, Vec<Arc<str>>>,
}

impl<'a> AutoAllow<'a> {
    /// None, if the mesh does not ask for them.
    pub(super) fn new(mesh: &'a Mesh) -> Option<Self> {
        if !mesh.settings.auto_allow_waypoint {
            return None;
        }
        let gateways = mesh.gateways.iter();
        let policy = |g: &'a Gateway| Some((Named::from(g), Arc::new(policy(mesh, g)?)));
        let mut all = Self {
            waypoints: Waypoints::new(mesh),
            policies: gateways.filter_map(policy).collect(),
            services: HashMap::new(),
        };
        for service in &mesh.services {
            let domain = &mesh.settings.domain;
            let key = service_key(&service.name, &service.namespace, domain);
            all.file(key, Bindable::from(service));
        }
        for entry in &mesh.service_entries {
            for host in &entry.hosts {
                let key = ServiceKey {
                    namespace: Arc::clone(&entry.namespace),
                    hostname: Arc::clone(host),
                };
                all.file(key, Bindable::from(entry));
            }
        }
        Some(all)
    }

    fn file(&mut self, key: ServiceKey, object: Bindable<'a>) {
        let keys = self.of(object);
        if !keys.is_empty() {
            self.services.entry(key).or_default().extend(keys);
        }
    }

    /// All of them.
    pub(super) fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// The keys of those that hold for a workload: of its own waypoint, and of those of the services
    /// it belongs to.
    pub(super) fn over<'k>(
        &self,
        workload: &'a declaration::Workload,
        services: impl Iterator<Item = &'k ServiceKey>,
    ) -> Vec<Arc<str>> {
        let mut keys = self.of(Bindable::from(workload));
        let of_services = services.filter_map(|key| self.services.get(key));
        keys.extend(of_services.flatten().cloned());
        keys.sort();
        keys.dedup();
        keys
    }

    fn of(&self, object: Bindable<'a>) -> Vec<Arc<str>> {
        let Binding::Bound(bound) = self.waypoints.bind(object) else {
            return Vec::new();
        };
        let canary = match bound.canary {
            CanaryOutcome::Shares(canary, _) => Some(canary),
            CanaryOutcome::None | CanaryOutcome::LeftOut { .. } => None,
        };
        let both = [Some(bound.waypoint), canary].into_iter().flatten();
        let policies = both.filter_map(|g| self.policies.get(&Named::from(g)));
        policies.map(|policy| Arc::clone(&policy.key)).collect()
    }
}

/// Lets in who is exactly the waypoint.
fn policy(mesh: &Mesh, gateway: &Gateway) -> Option<Policy> {
    let (domain, namespace) = (&mesh.settings.trust_domain, &gateway.namespace);
    // A checked mesh has no illegal name.
    SpiffeId::workload(domain, namespace, &gateway.service_account).ok()?;
    let principal = format!("{domain}/ns/{namespace}/sa/{}", gateway.service_account);
    let mut only = Match::default();
    only.principals
        .any
        .push(Pattern::Exact(Arc::from(principal)));
    let name = format!("{PREFIX}{namespace}_{}", gateway.name);
    Some(Policy {
        key: Policy::key_of(namespace, &name),
        namespace: Arc::clone(namespace),
        name: Arc::from(name),
        scope: Scope::Listed,
        effect: Effect::Allow,
        dry_run: false,
        rules: vec![Rule {
            line: gateway.origin.line,
            clauses: vec![Clause {
                matches: vec![only],
            }],
        }],
        origin: Some(gateway.origin.clone()),
        unreadable: None,
    })
}
