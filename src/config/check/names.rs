//! Names: unique, and short enough together to be host names.

use std::collections::HashMap;
use std::sync::Arc;

use super::Context;
use super::memory::namesakes;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::scalar::LONGEST_NAME;
use crate::config::source::At;

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

/// `cart.shop.mesh.internal`, which DNS limits. It never reads as an address: the mesh domain ends
/// in a part that is no number.
fn host_names(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let domain = &context.settings.domain;
    for service in &context.written.services {
        let (name, namespace) = (&service.name, &service.namespace.value);
        let length = name.value.len() + namespace.len() + domain.len() + 2;
        if length > LONGEST_NAME {
            let message = format!(
                "host name of service `{namespace}/{}` has {length} characters",
                name.value
            );
            let help = format!(
                "shorten the service, the namespace or the mesh domain `{domain}`: DNS allows {LONGEST_NAME}"
            );
            let finding = Diagnostic::new(Code::BadName, name.place.clone(), message);
            found.push(finding.label("too long").help(help));
        }
    }
}
