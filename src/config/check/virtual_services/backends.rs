//! Whom virtual services ask, and who is not there (§2.6, §3.4).

use std::sync::Arc;

use super::{Judged, title};
use crate::config::check::destinations::in_full;
use crate::config::check::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{Asked, Role};
use crate::config::source::At;
use crate::model::compile::waypoints::{Missing, covers};
use crate::model::declaration::Mesh;

pub(super) fn check(judged: &[Judged<'_>], mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let mut guesses = Guesses::default();
    for one in judged.iter().filter(|one| !one.state.missing.is_empty()) {
        for asked in &one.written.route.asked {
            let mut all = one.state.missing.iter();
            let missing = all.find(|(backend, _)| *backend == asked.value.backend);
            if let Some((_, missing)) = missing {
                found.push(finding(one, (asked, missing), mesh, &mut guesses));
            }
        }
    }
}

fn finding(
    one: &Judged<'_>,
    (asked, missing): (&At<Asked>, &Missing),
    mesh: &Mesh,
    guesses: &mut Guesses,
) -> Diagnostic {
    let backend = &asked.value.backend;
    let (code, label, help) = match missing {
        Missing::Subset(service, subset) => {
            let rules = mesh.destination_rules.iter();
            let rules = rules.filter(|rule| covers(&rule.host, &service.hostname));
            let known = rules.flat_map(|rule| rule.subsets.iter().map(|s| &*s.name));
            let key = format!("{service} {subset}").into();
            let guess = guesses.meant_as(&key, subset, known);
            (
                Code::BadValue,
                guess.unwrap_or_else(|| "no such subset".to_owned()),
                "declare it under `subsets` of a `[[destination-rule]]` for the host, in the namespace of the waypoint or else of the service",
            )
        }
        Missing::Port(..) => (
            Code::BackendNotFound,
            "no such port".to_owned(),
            "name a port of the service, not of its workloads",
        ),
        Missing::Kind(_) | Missing::Service(_) | Missing::Host(_) => (
            Code::BackendNotFound,
            meant(&backend.name, &backend.namespace, mesh, guesses),
            "name a service of the same namespace, or a host that is declared, in full",
        ),
    };
    let outcome = match (code, asked.value.role) {
        (Code::BadValue, _) => "",
        (_, Role::Mirror) => ": nothing is copied there",
        (_, Role::Share) => ": its share is answered 500",
    };
    let message = format!(
        "{} has host `{}` as a destination, and {missing}{outcome}",
        title(one.written),
        backend.name
    );
    let finding = Diagnostic::new(code, asked.place.clone(), message);
    finding.label(label).help(help)
}

fn meant(name: &Arc<str>, namespace: &Arc<str>, mesh: &Mesh, guesses: &mut Guesses) -> String {
    let domain = &mesh.settings.domain;
    let services = mesh.services.iter();
    let names: Vec<Arc<str>> = match name.contains('.') {
        false => {
            let here = services.filter(|s| s.namespace == *namespace);
            here.map(|s| Arc::clone(&s.name)).collect()
        }
        true => {
            let entries = mesh.service_entries.iter().flat_map(|entry| &entry.hosts);
            let services = services.map(|s| in_full(domain, &s.namespace, &s.name));
            services.chain(entries.cloned()).collect()
        }
    };
    let key = format!("{namespace} {name}").into();
    let guess = guesses.meant_as(&key, name, names.iter().map(|name| &**name));
    guess.unwrap_or_else(|| "no such host".to_owned())
}
