//! Names: unique, and short enough together to be host names.

use std::collections::HashMap;
use std::sync::Arc;

use super::Context;
use super::memory::namesakes;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::scalar::LONGEST_NAME;
use crate::config::source::At;
use crate::model::route::Kind;

type Name = At<Arc<str>>;

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let written = context.written;
    unique("node", written.nodes.iter().map(|n| (None, &n.name)), found);
    unique(
        "namespace",
        written.namespaces.iter().map(|n| (None, &n.name)),
        found,
    );
    let workloads = namesakes(&context.files).into_iter();
    unique(
        "workload",
        workloads.map(|w| (Some(&w.namespace), &w.name)),
        found,
    );
    let services = written.services.iter();
    unique(
        "service",
        services.map(|s| (Some(&s.namespace), &s.name)),
        found,
    );
    let entries = written.service_entries.iter();
    unique(
        "service-entry",
        entries.map(|e| (Some(&e.namespace), &e.name)),
        found,
    );
    let gateways = written.gateways.iter();
    unique(
        "gateway",
        gateways.map(|g| (Some(&g.namespace), &g.name)),
        found,
    );
    hosts(context, found);
    let policies = written.authorization_policies.iter();
    unique(
        "authorization-policy",
        policies.map(|p| (Some(&p.namespace), &p.name)),
        found,
    );
    let authentications = written.peer_authentications.iter();
    unique(
        "peer-authentication",
        authentications.map(|p| (Some(&p.namespace), &p.name)),
        found,
    );
    let authentications = written.request_authentications.iter();
    unique(
        "request-authentication",
        authentications.map(|p| (Some(&p.namespace), &p.name)),
        found,
    );
    let telemetry = written.telemetry.iter();
    unique(
        "telemetry",
        telemetry.map(|t| (Some(&t.namespace), &t.name)),
        found,
    );
    let limits = written.rate_limits.iter();
    unique(
        "rate-limit",
        limits.map(|l| (Some(&l.namespace), &l.name)),
        found,
    );
    for kind in [Kind::Grpc, Kind::Http, Kind::Tls, Kind::Tcp] {
        let routes = written.routes.iter().filter(|r| r.kind == kind);
        let names = routes.map(|r| (Some(&r.namespace), &r.name));
        unique(kind.as_str(), names, found);
    }
    let virtual_services = written.virtual_services.iter().map(|v| &v.route);
    unique(
        Kind::VirtualService.as_str(),
        virtual_services.map(|r| (Some(&r.namespace), &r.name)),
        found,
    );
    let rules = written.destinations.iter();
    unique(
        "destination-rule",
        rules.map(|r| (Some(&r.namespace), &r.name)),
        found,
    );
    let policies = written.backend_tls.iter();
    unique(
        "backend-tls-policy",
        policies.map(|p| (Some(&p.namespace), &p.name)),
        found,
    );
    host_names(context, found);
}

/// One resource of a kind to a name, in each namespace for the kinds that have one.
fn unique<'a>(
    kind: &str,
    names: impl Iterator<Item = (Option<&'a Name>, &'a Name)>,
    found: &mut Vec<Diagnostic>,
) {
    let mut seen: HashMap<(Option<&str>, &str), &Name> = HashMap::new();
    for (namespace, name) in names {
        let key = (namespace.map(|n| &*n.value), &*name.value);
        let Some(first) = seen.get(&key) else {
            seen.insert(key, name);
            continue;
        };
        let whole = match namespace {
            Some(namespace) => format!("{}/{}", namespace.value, name.value),
            None => name.value.to_string(),
        };
        let message = format!("{kind} `{whole}` is declared twice");
        found.push(
            Diagnostic::new(Code::DuplicateName, name.place.clone(), message)
                .label("again")
                .related(first.place.clone(), "first here")
                .help("rename one of the two, or take it out"),
        );
    }
}

/// A waypoint is reached by a host name, as a service is, so it cannot have a service's.
fn hosts(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let written = context.written;
    if written.gateways.is_empty() {
        return;
    }
    let services = written.services.iter();
    let services = services.map(|s| ((&*s.namespace.value, &*s.name.value), &s.name));
    let services: HashMap<_, _> = services.collect();
    for gateway in &written.gateways {
        let (namespace, name) = (&gateway.namespace.value, &gateway.name);
        let Some(service) = services.get(&(&**namespace, &*name.value)) else {
            continue;
        };
        let message = format!(
            "gateway `{namespace}/{}` has the name of a service, and so its host name",
            name.value
        );
        found.push(
            Diagnostic::new(Code::DuplicateName, name.place.clone(), message)
                .label("a service's")
                .related(service.place.clone(), "the service")
                .help("rename one of the two"),
        );
    }
}

/// `cart.shop.mesh.internal`, which DNS limits. It never reads as an address: the mesh domain ends
/// in a part that is no number.
fn host_names(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let domain = &context.settings.domain;
    let written = context.written;
    let services = written.services.iter();
    let services = services.map(|s| ("service", &s.name, &s.namespace.value));
    let gateways = written.gateways.iter();
    let gateways = gateways.map(|g| ("gateway", &g.name, &g.namespace.value));
    for (kind, name, namespace) in services.chain(gateways) {
        let length = name.value.len() + namespace.len() + domain.len() + 2;
        if length > LONGEST_NAME {
            let message = format!(
                "host name of {kind} `{namespace}/{}` has {length} characters",
                name.value
            );
            let help = format!(
                "shorten the {kind}, the namespace or the mesh domain `{domain}`: DNS allows {LONGEST_NAME}"
            );
            let finding = Diagnostic::new(Code::BadName, name.place.clone(), message);
            found.push(finding.label("too long").help(help));
        }
    }
}
