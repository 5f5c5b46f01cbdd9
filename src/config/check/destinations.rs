//! Destination rules and backend-tls-policies: for which host each is, which of several holds, and
//! what is written for nobody (`spec/waypoint-l7.md` §3.4). A rule may be written before its service, so
//! most of this is no error; what would leave connections in plain text that are to be in TLS is one.

mod precedence;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Context;
use super::carriers::Carriers;
use super::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{
    WrittenBackendTls, WrittenDestination, WrittenService, WrittenSubset, WrittenTarget,
};
use crate::config::source::{At, Place};
use crate::model::binding::Waypoints;
use crate::model::compile::service_key;
use crate::model::compile::waypoints::covers;
use crate::model::declaration::{DestinationRule, Mesh, SubsetLabels};
use crate::model::traffic::{Settings, TrafficPolicy};

type Name = At<Arc<str>>;

/// A rule of either kind for one host.
pub(super) struct Ruled<'a> {
    /// The host in full.
    pub(super) host: Arc<str>,
    pub(super) rule: Rule<'a>,
}

/// Where a rule comes from.
#[derive(Clone, Copy)]
pub(super) enum Rule<'a> {
    Destination(&'a WrittenDestination),
    BackendTls(&'a WrittenBackendTls, &'a WrittenTarget),
}

impl<'a> Rule<'a> {
    fn what(self) -> String {
        match self {
            Self::Destination(rule) => format!("destination-rule `{}`", rule.name.value),
            Self::BackendTls(policy, _) => format!("backend-tls-policy `{}`", policy.name.value),
        }
    }

    fn namespace(self) -> &'a Arc<str> {
        match self {
            Self::Destination(rule) => &rule.namespace.value,
            Self::BackendTls(policy, _) => &policy.namespace.value,
        }
    }

    /// Where it says for whom it is.
    fn host(self) -> &'a Name {
        match self {
            Self::Destination(rule) => &rule.host,
            Self::BackendTls(_, target) => &target.name,
        }
    }
}

/// Every rule with its host, those that count first: destination rules in their order, then
/// backend-tls-policies, to which they do not give way (§3.5).
pub(super) fn all<'a>(context: &Context<'a>) -> impl Iterator<Item = Ruled<'a>> {
    let domain = Arc::clone(&context.settings.domain);
    let written = context.written;
    let destinations = written
        .destinations
        .iter()
        .map(|rule| Rule::Destination(rule));
    let policies = written.backend_tls.iter().flat_map(|policy| {
        let targets = policy.targets.iter();
        targets.map(|target| Rule::BackendTls(policy, target))
    });
    destinations.chain(policies).map(move |rule| Ruled {
        host: in_full(&domain, rule.namespace(), &rule.host().value),
        rule,
    })
}

/// A name without dots is that of a service of the rule's namespace, as in Istio.
pub(super) fn in_full(domain: &str, namespace: &Arc<str>, host: &Arc<str>) -> Arc<str> {
    match host.contains(['.', '*']) {
        true => Arc::clone(host),
        false => service_key(host, namespace, domain).hostname,
    }
}

/// A namespace, a host in full, and perhaps one port by name.
type Scope = (Arc<str>, Arc<str>, Option<Arc<str>>);

/// The rules that hold: of several for one host in one namespace the first, but one
/// backend-tls-policy for each port.
pub(super) fn winners<'a>(
    context: &Context<'a>,
    mut superseded: impl FnMut(&Ruled<'a>, Rule<'a>),
) -> Vec<Ruled<'a>> {
    let mut first: HashMap<Scope, Rule<'a>> = HashMap::new();
    let mut winners = Vec::new();
    for ruled in all(context) {
        let place = |section: Option<&Name>| {
            let section = section.map(|section| Arc::clone(&section.value));
            let namespace = Arc::clone(ruled.rule.namespace());
            (namespace, Arc::clone(&ruled.host), section)
        };
        let own = match ruled.rule {
            Rule::Destination(_) => place(None),
            Rule::BackendTls(_, target) => place(target.section.as_ref()),
        };
        let whole = first.get(&place(None)).copied();
        let whole = whole.filter(|rule| matches!(rule, Rule::Destination(_)));
        match whole.or_else(|| first.get(&own).copied()) {
            Some(winner) => superseded(&ruled, winner),
            None => {
                first.insert(own, ruled.rule);
                winners.push(ruled);
            }
        }
    }
    winners
}

/// What holds, as it is declared, in the order it was written.
pub(super) fn declare(context: &Context<'_>) -> Vec<DestinationRule> {
    let services = by_host(context);
    let mut declared: Vec<DestinationRule> = Vec::new();
    for ruled in winners(context, |_, _| {}) {
        match ruled.rule {
            Rule::Destination(rule) => declared.push(declared_destination(&ruled.host, rule)),
            Rule::BackendTls(policy, target) => {
                let service = services.get(&*ruled.host).copied();
                let Some(policy) = declared_backend_tls(&ruled.host, policy, target, service)
                else {
                    continue;
                };
                let same = |known: &&mut DestinationRule| {
                    (&known.namespace, &known.host) == (&policy.namespace, &policy.host)
                };
                match declared.iter_mut().find(same) {
                    Some(known) => join(&mut known.traffic, policy.traffic),
                    None => declared.push(policy),
                }
            }
        }
    }
    declared.sort_by(|a, b| a.origin.cmp(&b.origin));
    declared
}

/// Backend-tls-policies for several ports of a service are one rule.
fn join(known: &mut TrafficPolicy, other: TrafficPolicy) {
    if known.usual == Settings::default() {
        known.usual = other.usual;
    }
    known.ports.extend(other.ports);
}

fn declared_destination(host: &Arc<str>, rule: &WrittenDestination) -> DestinationRule {
    let subset = |subset: &WrittenSubset| SubsetLabels {
        name: Arc::clone(&subset.name.value),
        labels: subset.labels.clone(),
        traffic: subset
            .policy
            .as_ref()
            .map(|p| p.settle_within(&rule.policy)),
    };
    DestinationRule {
        origin: rule.place.origin(),
        name: Arc::clone(&rule.name.value),
        namespace: Arc::clone(&rule.namespace.value),
        host: Arc::clone(host),
        traffic: rule.policy.settle(),
        subsets: rule.subsets.iter().map(subset).collect(),
    }
}

/// None where it names a port that the service does not have. Its name is none that a
/// destination rule can have.
fn declared_backend_tls(
    host: &Arc<str>,
    policy: &WrittenBackendTls,
    target: &WrittenTarget,
    service: Option<&WrittenService>,
) -> Option<DestinationRule> {
    let port = match &target.section {
        Some(section) => Some(port_named(service?, &section.value)?),
        None => None,
    };
    let name = format!(
        "backend-tls-policy/{}/{}",
        policy.name.value, target.name.value
    );
    Some(DestinationRule {
        origin: policy.place.origin(),
        name: Arc::from(name),
        namespace: Arc::clone(&policy.namespace.value),
        host: Arc::clone(host),
        traffic: policy.policy(port).settle(),
        subsets: Vec::new(),
    })
}

fn port_named(service: &WrittenService, name: &str) -> Option<u16> {
    let mut ports = service.ports.iter();
    let port = ports.find(|port| port.name.as_deref() == Some(name))?;
    Some(port.port)
}

/// Services by their host names.
type Services<'a> = HashMap<Arc<str>, &'a WrittenService>;

fn by_host<'a>(context: &Context<'a>) -> Services<'a> {
    let domain = &context.settings.domain;
    let services = context.written.services.iter().rev();
    let host = |s: &WrittenService| service_key(&s.name.value, &s.namespace.value, domain).hostname;
    services.map(|s| (host(s), *s)).collect()
}

/// Judges the rules of a mesh that is known as a whole.
pub(super) fn check<'a>(
    context: &Context<'a>,
    carriers: &Carriers<'_>,
    bound: (&'a Mesh, &Waypoints<'a>),
    found: &mut Vec<Diagnostic>,
) {
    let written = context.written;
    if written.destinations.is_empty() && written.backend_tls.is_empty() {
        return;
    }
    let services = by_host(context);
    precedence::check(context, bound, &services, found);
    let entries: HashSet<&str> = written
        .service_entries
        .iter()
        .flat_map(|entry| entry.hosts.iter().map(|host| &*host.value))
        .collect();
    let mut guesses = Guesses::default();
    for ruled in all(context) {
        match services.get(&*ruled.host) {
            None => found.extend(unknown_host(&ruled, (&services, &entries), &mut guesses)),
            Some(service) => {
                if let Rule::BackendTls(_, target) = ruled.rule {
                    found.extend(unknown_port(&ruled, target, service));
                }
            }
        }
    }
    subsets(context, carriers, &services, found);
}

fn unknown_host(
    ruled: &Ruled<'_>,
    (services, entries): (&Services<'_>, &HashSet<&str>),
    guesses: &mut Guesses,
) -> Option<Diagnostic> {
    let host = &*ruled.host;
    let mut known = services
        .keys()
        .map(|name| &**name)
        .chain(entries.iter().copied());
    let meant = match host.starts_with('*') {
        true => known.any(|name| covers(host, name)),
        false => entries.contains(host),
    };
    if meant {
        return None;
    }
    let written = ruled.rule.host();
    let message = format!("{} is for an unknown host: `{host}`", ruled.rule.what());
    let guess = match written.value.contains('.') {
        true => {
            let known = services.keys().map(|name| &**name);
            guesses.meant(&ruled.host, known.chain(entries.iter().copied()))
        }
        false => {
            let here = services.values();
            let here = here.filter(|s| s.namespace.value == *ruled.rule.namespace());
            guesses.meant_as(&ruled.host, &written.value, here.map(|s| &*s.name.value))
        }
    };
    let help = match written.value.contains('.') {
        true => "name a service in full, as in `cart.shop.mesh.internal`",
        false => "name a service of the same namespace, or one of another in full",
    };
    Some(
        Diagnostic::new(Code::TargetNotFound, written.place.clone(), message)
            .label(guess.unwrap_or_else(|| "no such host".to_owned()))
            .help(help),
    )
}

/// A policy for a port that is not there is for nobody, and the port that was meant is in plain text.
fn unknown_port(
    ruled: &Ruled<'_>,
    target: &WrittenTarget,
    service: &WrittenService,
) -> Option<Diagnostic> {
    let section = target.section.as_ref()?;
    if port_named(service, &section.value).is_some() {
        return None;
    }
    let message = format!(
        "{} is for an unknown port of service `{}`: `{}`",
        ruled.rule.what(),
        service.name.value,
        section.value
    );
    Some(
        Diagnostic::new(Code::BadValue, section.place.clone(), message)
            .label("no port of this name")
            .related(service.place.clone(), "the service")
            .help("write the `name` of one of its `ports`, or leave `section-name` out for all"),
    )
}

/// A subset is of the workloads that its service selects and that carry its labels besides.
fn subsets(
    context: &Context<'_>,
    carriers: &Carriers<'_>,
    services: &Services<'_>,
    found: &mut Vec<Diagnostic>,
) {
    for ruled in all(context) {
        let Rule::Destination(rule) = ruled.rule else {
            continue;
        };
        let meant: Vec<_> = match ruled.host.starts_with('*') {
            true => {
                let named = services.iter();
                let named = named.filter(|(name, _)| covers(&ruled.host, name));
                named.map(|(_, service)| *service).collect()
            }
            false => services.get(&ruled.host).copied().into_iter().collect(),
        };
        // Of an unknown host enough has been said.
        if meant.is_empty() {
            continue;
        }
        for subset in &rule.subsets {
            if !meant.iter().any(|s| selects(carriers, s, subset)) {
                found.push(selects_nothing(rule, subset));
            }
        }
    }
}

fn selects(carriers: &Carriers<'_>, service: &WrittenService, subset: &WrittenSubset) -> bool {
    let mut labels = Cow::Borrowed(&service.selector);
    for (key, value) in &subset.labels {
        let known = labels.get(key);
        if known.is_some_and(|known| known != value) {
            return false;
        }
        if known.is_none() {
            labels.to_mut().insert(key.clone(), value.clone());
        }
    }
    let namespace = Some(&*service.namespace.value);
    carriers.of(namespace, &labels).next().is_some()
}

fn selects_nothing(rule: &WrittenDestination, subset: &WrittenSubset) -> Diagnostic {
    let place: &Place = &subset.labels_place;
    let message = format!(
        "destination-rule `{}`: subset `{}` selects no endpoint of `{}`: requests for it are answered 503",
        rule.name.value, subset.name.value, rule.host.value
    );
    Diagnostic::new(Code::SelectorMatchesNothing, place.clone(), message)
        .label("matches nothing")
        .help("give a workload of the service all of these `labels`")
}
