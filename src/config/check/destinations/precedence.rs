//! What destination rules and backend-tls-policies for one host take from each other (`spec/waypoint-l7.md`
//! §3.4, §3.5). Only one holds, as a whole. Where that leaves a service in plain text for which a policy
//! asks for TLS, it is an error; all else is a warning.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Rule, Ruled, Services, port_named, winners};
use crate::config::check::Context;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenBackendTls, WrittenDestination, WrittenService, WrittenTarget};
use crate::model::binding::{Bindable, Named, Waypoints};
use crate::model::compile::waypoints::covers;
use crate::model::declaration::{Mesh, Service};

/// Judges every rule beside the others that are for the same host.
pub(super) fn check<'a>(
    context: &Context<'a>,
    (mesh, waypoints): (&'a Mesh, &Waypoints<'a>),
    services: &Services<'a>,
    found: &mut Vec<Diagnostic>,
) {
    let winners = winners(context, |ruled, winner| {
        let service = services.get(&*ruled.host).copied();
        found.push(match (ruled.rule, winner) {
            (Rule::BackendTls(_, target), Rule::Destination(rule))
                if !speaks_of_tls(rule, target, service) =>
            {
                plain(ruled, rule, "")
            }
            _ => superseded(ruled, winner),
        });
    });
    if context.written.backend_tls.is_empty() {
        return;
    }
    let named = mesh.services.iter();
    let declared = named.map(|s| ((&*s.namespace, &*s.name), s)).collect();
    let mut beside = Beside {
        root: &context.settings.root_namespace,
        rules: HashMap::new(),
        declared,
        waypoints,
        told: HashSet::new(),
    };
    for ruled in &winners {
        if let Rule::Destination(rule) = ruled.rule {
            let of_namespace = beside.rules.entry(&rule.namespace.value).or_default();
            of_namespace.push((Arc::clone(&ruled.host), rule));
        }
    }
    for ruled in &winners {
        if let Rule::BackendTls(policy, target) = ruled.rule
            && let Some(service) = services.get(&*ruled.host)
        {
            beside.judge(ruled, (policy, target), service, found);
        }
    }
}

/// Whether a rule says, one way or the other, what a policy is about: for each port that this is for.
fn speaks_of_tls(
    rule: &WrittenDestination,
    target: &WrittenTarget,
    service: Option<&WrittenService>,
) -> bool {
    let section = target.section.as_ref();
    let mut ports = service.into_iter().flat_map(|service| {
        let one = section.map(|section| port_named(service, &section.value));
        let each = service.ports.iter().map(|port| port.port);
        each.filter(move |port| one.is_none_or(|one| one == Some(*port)))
    });
    let of_subsets: Vec<_> = rule
        .subsets
        .iter()
        .filter_map(|s| s.policy.as_ref())
        .collect();
    ports.all(|port| {
        let silent = of_subsets.iter().any(|policy| policy.leaves_out_tls(port));
        rule.policy.speaks_of_tls(port) && !silent
    })
}

/// What policies that hold in their namespace have to do with rules for other hosts or of other namespaces.
struct Beside<'a, 'w> {
    root: &'a str,
    /// Destination rules by namespace, with their hosts in full.
    rules: HashMap<&'a str, Vec<(Arc<str>, &'a WrittenDestination)>>,
    /// By namespace and name.
    declared: HashMap<(&'a str, &'a str), &'a Service>,
    waypoints: &'w Waypoints<'a>,
    /// The hosts for which it has been said which rule does not hold for them.
    told: HashSet<Arc<str>>,
}

impl<'a> Beside<'a, '_> {
    fn judge(
        &mut self,
        ruled: &Ruled<'a>,
        (policy, target): (&WrittenBackendTls, &WrittenTarget),
        service: &WrittenService,
        found: &mut Vec<Diagnostic>,
    ) {
        let own = &*policy.namespace.value;
        let key = (own, &*service.name.value);
        let declared = self.declared.get(&key).copied();
        let before = declared.into_iter();
        let before = before.flat_map(|declared| self.waypoints.before(Bindable::from(declared)));
        for waypoint in before.filter(|waypoint| *waypoint.namespace != *own) {
            let Some(rule) = self.holding(&waypoint.namespace, &ruled.host) else {
                continue;
            };
            let at = format!(" at waypoint `{}`", Named::from(waypoint));
            found.push(match speaks_of_tls(rule, target, Some(service)) {
                true => elsewhere(ruled, rule, &at),
                false => plain(ruled, rule, &at),
            });
        }
        let general = [own, self.root].into_iter();
        let general = general.filter_map(|place| self.holding(place, &ruled.host));
        if let Some(rule) = general.into_iter().next()
            && self.told.insert(Arc::clone(&ruled.host))
        {
            found.push(hidden(ruled, rule));
        }
    }

    /// The rule that would hold for a host in a namespace: the one whose host says most.
    fn holding(&self, namespace: &str, host: &str) -> Option<&'a WrittenDestination> {
        let of_namespace = self.rules.get(namespace)?.iter();
        let covering = of_namespace.filter(|(known, _)| covers(known, host));
        let most = covering.max_by_key(|(known, _)| (!known.starts_with('*'), known.len()));
        most.map(|(_, rule)| *rule)
    }
}

fn superseded(ruled: &Ruled<'_>, winner: Rule<'_>) -> Diagnostic {
    let place = &ruled.rule.host().place;
    let message = format!(
        "{} is not used: {} of the same namespace is for `{}` too",
        ruled.rule.what(),
        winner.what(),
        ruled.host
    );
    Diagnostic::new(Code::Superseded, place.clone(), message)
        .label("has no effect")
        .related(winner.host().place.clone(), "this one counts")
        .help("write everything for one host in one rule")
}

/// A policy in whose place a rule holds that says nothing of TLS.
fn plain(ruled: &Ruled<'_>, winner: &WrittenDestination, at: &str) -> Diagnostic {
    let place = &ruled.rule.host().place;
    let message = format!(
        "{} is not used{at}, and endpoints of `{}` would be spoken to in plain text: destination-rule `{}` holds, and has no `tls`",
        ruled.rule.what(),
        ruled.host,
        winner.name.value
    );
    Diagnostic::new(Code::Unsupported, place.clone(), message)
        .label("not merged with the rule")
        .related(winner.host.place.clone(), "this one counts")
        .help("write `tls` in the rule's `traffic-policy`, in `port-level-settings` too where there are any, and take the policy out")
}

/// A policy that holds at no waypoint of a namespace with a rule of its own.
fn elsewhere(ruled: &Ruled<'_>, winner: &WrittenDestination, at: &str) -> Diagnostic {
    let place = &ruled.rule.host().place;
    let message = format!(
        "{} is not used{at}: destination-rule `{}` of the waypoint's namespace is for `{}` too",
        ruled.rule.what(),
        winner.name.value,
        ruled.host
    );
    Diagnostic::new(Code::Superseded, place.clone(), message)
        .label("has no effect there")
        .related(winner.host.place.clone(), "this one counts")
        .help("write everything for one host in one rule")
}

/// A rule for many hosts, for one of which a policy holds in its place.
fn hidden(ruled: &Ruled<'_>, rule: &WrittenDestination) -> Diagnostic {
    let place = &ruled.rule.host().place;
    let message = format!(
        "destination-rule `{}` does not hold for `{}`: {} is for this host alone, and takes its place as a whole",
        rule.name.value,
        ruled.host,
        ruled.rule.what()
    );
    Diagnostic::new(Code::Superseded, place.clone(), message)
        .label("in place of the rule")
        .related(rule.host.place.clone(), "has no effect there")
        .help("if more than TLS is to hold for this host, write a destination-rule for it, with `tls`, in place of the policy")
}
