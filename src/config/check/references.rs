//! What one resource says of another by name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Context;
use super::guesses::Guesses;
use super::memory::label;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{DEFAULT_NAMESPACE, WrittenService, WrittenWorkload};
use crate::config::source::{At, Place};

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let mut guesses = Guesses::default();
    nodes(context, &mut guesses, found);
    namespaces(context, &mut guesses, found);
    // A name means something in its own namespace only, so these are not the guesses above.
    service_accounts(context, &mut Guesses::default(), found);
    selectors(context, found);
}

fn nodes(context: &Context<'_>, guesses: &mut Guesses, found: &mut Vec<Diagnostic>) {
    let workloads = context.doubtful.iter();
    let of_workloads = workloads.filter_map(|w| Some(("workload", &w.name, w.node.as_ref()?)));
    let gateways = context.written.gateways.iter();
    let of_gateways = gateways.flat_map(|g| {
        let machines = g.machines.names().iter();
        machines.map(|node| ("gateway", &g.name, node))
    });
    for (kind, name, node) in of_workloads.chain(of_gateways) {
        if context.nodes.contains_key(&*node.value) {
            continue;
        }
        let message = format!(
            "{kind} `{}` is on an unknown node: `{}`",
            name.value, node.value
        );
        let finding = Diagnostic::new(Code::UnknownNode, node.place.clone(), message);
        let guess = guesses.meant(&node.value, context.nodes.keys().copied());
        found.push(
            finding
                .label(guess.unwrap_or_else(|| "no such node".to_owned()))
                .help(format!(
                    "declare it with `[[node]]` and `name = \"{}\"`, or name one that is declared",
                    node.value
                )),
        );
    }
}

/// Reports each place once: a `default-namespace` stands for all resources of its file.
fn namespaces(context: &Context<'_>, guesses: &mut Guesses, found: &mut Vec<Diagnostic>) {
    let written = context.written;
    let workloads = context.doubtful.iter();
    let of_workloads = workloads.map(|w| ("workload", &w.name, &w.namespace));
    let services = written.services.iter();
    let of_services = services.map(|s| ("service", &s.name, &s.namespace));
    let gateways = written.gateways.iter();
    let of_gateways = gateways.map(|g| ("gateway", &g.name, &g.namespace));
    let entries = written.service_entries.iter();
    let of_entries = entries.map(|e| ("service-entry", &e.name, &e.namespace));
    // Policies of the root namespace are for the whole mesh, and often all there is in it.
    let outside_root = |(_, _, namespace): &(_, _, &At<Arc<str>>)| {
        namespace.value != context.settings.root_namespace
    };
    let authorizations = written.authorization_policies.iter();
    let of_authorizations = authorizations
        .map(|p| ("authorization-policy", &p.name, &p.namespace))
        .filter(outside_root);
    let authentications = written.peer_authentications.iter();
    let of_authentications = authentications
        .map(|p| ("peer-authentication", &p.name, &p.namespace))
        .filter(outside_root);
    let requests = written.request_authentications.iter();
    let of_requests = requests
        .map(|p| ("request-authentication", &p.name, &p.namespace))
        .filter(outside_root);
    let telemetry = written.telemetry.iter();
    let of_telemetry = telemetry
        .map(|t| ("telemetry", &t.name, &t.namespace))
        .filter(outside_root);
    let limits = written.rate_limits.iter();
    let of_limits = limits
        .map(|l| ("rate-limit", &l.name, &l.namespace))
        .filter(outside_root);
    let of_policies = of_authorizations.chain(of_authentications);
    let of_policies = of_policies.chain(of_requests);
    let of_policies = of_policies.chain(of_telemetry).chain(of_limits);
    let virtual_services = written.virtual_services.iter().map(|v| &v.route);
    let routes = written.routes.iter().copied().chain(virtual_services);
    let of_routes = routes.map(|r| (r.kind.as_str(), &r.name, &r.namespace));
    let destinations = written.destinations.iter();
    let of_destinations = destinations
        .map(|r| ("destination-rule", &r.name, &r.namespace))
        .filter(outside_root);
    let backend_tls = written.backend_tls.iter();
    let of_backend_tls = backend_tls
        .map(|p| ("backend-tls-policy", &p.name, &p.namespace))
        .filter(outside_root);
    let of_traffic = of_destinations.chain(of_backend_tls);
    let mut reported: HashSet<(usize, usize)> = HashSet::new();
    for (kind, name, namespace) in of_workloads
        .chain(of_services)
        .chain(of_entries)
        .chain(of_gateways)
        .chain(of_policies)
        .chain(of_routes)
        .chain(of_traffic)
    {
        let known = context.namespaces.contains_key(&*namespace.value);
        let place: &Place = &namespace.place;
        let at = (Arc::as_ptr(place.source()).addr(), place.span().start);
        if known || &*namespace.value == DEFAULT_NAMESPACE || !reported.insert(at) {
            continue;
        }
        let message = format!(
            "{kind} `{}` is in an unknown namespace: `{}`",
            name.value, namespace.value
        );
        let finding = Diagnostic::new(Code::UnknownNamespace, place.clone(), message);
        let declared = context
            .namespaces
            .keys()
            .copied()
            .chain([DEFAULT_NAMESPACE]);
        let guess = guesses.meant(&namespace.value, declared);
        found.push(finding.label(guess.unwrap_or_else(|| "no such namespace".to_owned())).help(format!(
            "declare it with `[[namespace]]` and `name = \"{}\"`, or name one that is declared",
            namespace.value
        )));
    }
}

fn service_accounts(context: &Context<'_>, guesses: &mut Guesses, found: &mut Vec<Diagnostic>) {
    let listed = context.written.namespaces.iter().filter_map(|namespace| {
        let names = namespace.service_accounts.as_ref()?;
        let names: HashSet<&str> = names.iter().map(|name| &**name).collect();
        Some((&*namespace.name.value, names))
    });
    let listed: HashMap<_, _> = listed.collect();
    let workloads = context.doubtful.iter();
    let of_workloads =
        workloads.map(|w| ("workload", &w.name, &w.namespace.value, &w.service_account));
    let gateways = context.written.gateways.iter();
    let of_gateways =
        gateways.map(|g| ("gateway", &g.name, &g.namespace.value, &g.service_account));
    for (kind, name, namespace, account) in of_workloads.chain(of_gateways) {
        let At {
            value: account,
            place,
        } = account;
        let Some(accounts) = listed.get(&**namespace) else {
            continue;
        };
        if accounts.contains(&**account) {
            continue;
        }
        let message = format!(
            "{kind} `{}` has a service account that namespace `{namespace}` does not: `{account}`",
            name.value
        );
        let whole = Arc::from(format!("{namespace}/{account}"));
        let guess = guesses.meant_as(&whole, account, accounts.iter().copied());
        found.push(
            Diagnostic::new(Code::UnknownServiceAccount, place.clone(), message)
                .label(guess.unwrap_or_else(|| "no such service account".to_owned()))
                .help(format!(
                    "name one of its `service-accounts`, or add `\"{account}\"` to them"
                )),
        );
    }
}

/// A selector of one label matches if anybody carries it, and that the files' censuses say.
fn selectors(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let wanted = |service: &WrittenService| {
        let mut labels = service.selector.iter();
        let (key, value) = labels.next()?;
        let alone = labels.next().is_none();
        alone.then(|| label(&service.namespace.value, key, value))
    };
    let services = context.written.services.iter().copied();
    let labels: HashSet<u64> = services.clone().filter_map(wanted).collect();
    let carried = context.files.iter().flat_map(|file| &file.census.labels);
    let carried: HashSet<u64> = carried
        .filter(|label| labels.contains(label))
        .copied()
        .collect();
    let matched = |service: &&WrittenService| wanted(service).is_some_and(|l| carried.contains(&l));
    let services: Vec<_> = services.filter(|service| !matched(service)).collect();
    if !services.is_empty() {
        among_all(context, &services, found);
    }
}

/// Of the labels of a selector the rarest is looked up, and only its workloads are compared.
fn among_all(context: &Context<'_>, services: &[&WrittenService], found: &mut Vec<Diagnostic>) {
    let mut carrying: HashMap<(&str, &str, &str), Vec<&WrittenWorkload>> = HashMap::new();
    for service in services {
        for (key, value) in &service.selector {
            let label = (&*service.namespace.value, key.as_str(), value.as_str());
            carrying.insert(label, Vec::new());
        }
    }
    for workload in &context.written.workloads {
        for (key, value) in &workload.labels {
            let label = (&*workload.namespace.value, key.as_str(), value.as_str());
            if let Some(carrying) = carrying.get_mut(&label) {
                carrying.push(workload);
            }
        }
    }
    for service in services {
        let rarest = service.selector.iter().map(|(key, value)| {
            let label = (&*service.namespace.value, key.as_str(), value.as_str());
            carrying.get(&label).map_or(&[][..], Vec::as_slice)
        });
        let Some(rarest) = rarest.min_by_key(|workloads| workloads.len()) else {
            continue;
        };
        let carries_all = |w: &&WrittenWorkload| subset(&service.selector, &w.labels);
        if !rarest.iter().any(carries_all) {
            found.push(matches_nothing(service));
        }
    }
}

fn subset(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn matches_nothing(service: &WrittenService) -> Diagnostic {
    let namespace = &service.namespace.value;
    let message = format!(
        "service `{}` selects no workload of namespace `{namespace}`: it has no endpoints",
        service.name.value
    );
    Diagnostic::new(
        Code::SelectorMatchesNothing,
        service.selector_place.clone(),
        message,
    )
    .label("matches nothing")
    .help("give a workload of the same namespace all of these `labels`")
}
