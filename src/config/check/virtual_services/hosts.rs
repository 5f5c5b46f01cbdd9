//! For whom virtual services are, and whether they hold there (§2.1).

use std::sync::Arc;

use super::{Judged, title};
use crate::config::check::destinations::in_full;
use crate::config::check::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::source::At;
use crate::model::compile::waypoints::{Routed, covers};
use crate::model::declaration::Mesh;
use crate::model::route::Kind;

pub(super) fn check(judged: &[Judged<'_>], mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let mut guesses = Guesses::default();
    for one in judged {
        for (host, parent) in one.written.hosts.iter().zip(&one.state.parents) {
            if parent.accepted.status {
                continue;
            }
            let (code, label, help) = match parent.accepted.reason {
                "NoMatchingParent" => (
                    Code::NoMatchingParent,
                    meant(one, host, mesh, &mut guesses),
                    "name a service of the same namespace, or one of another in full",
                ),
                "AncestorNotBound" => (
                    Code::NoEffect,
                    "nobody routes this".to_owned(),
                    "give it, or its namespace, a `use-waypoint`: node proxies do not look at requests",
                ),
                "NotAllowedByListeners" => (
                    Code::NoEffect,
                    "of another namespace".to_owned(),
                    "write it in the namespace of the service or of its waypoint; rules for the clients of one namespace alone are not served",
                ),
                _ => (
                    Code::NoEffect,
                    "another protocol".to_owned(),
                    "write `app-protocol = \"http\"` at the port if it is HTTP, or a `[[tcp-route]]`",
                ),
            };
            let message = format!(
                "{} has no effect on host `{}`: {}",
                title(one.written),
                host.value,
                parent.accepted.message
            );
            let finding = Diagnostic::new(code, host.place.clone(), message);
            found.push(finding.label(label).help(help));
        }
    }
}

fn meant(one: &Judged<'_>, host: &At<Arc<str>>, mesh: &Mesh, guesses: &mut Guesses) -> String {
    let namespace = &one.written.route.namespace.value;
    let key = in_full(&mesh.settings.domain, namespace, &host.value);
    let guess = match host.value.contains('.') {
        false => {
            let here = mesh.services.iter();
            let here = here.filter(|service| service.namespace == *namespace);
            guesses.meant_as(&key, &host.value, here.map(|service| &*service.name))
        }
        true => {
            let entries = mesh.service_entries.iter().flat_map(|entry| &entry.hosts);
            let services = mesh.services.iter();
            let services: Vec<_> = services
                .map(|s| in_full(&mesh.settings.domain, &s.namespace, &s.name))
                .collect();
            let all = entries.chain(&services).map(|host| &**host);
            guesses.meant(&key, all)
        }
    };
    guess.unwrap_or_else(|| "no such host".to_owned())
}

/// Of virtual services and routes for the same port the routes are tried first (§2.1).
pub(super) fn beside_routes(
    judged: &[Judged<'_>],
    (mesh, services): (&Mesh, &[Routed]),
    found: &mut Vec<Diagnostic>,
) {
    for one in judged {
        let namespace = &one.written.route.namespace.value;
        for host in &one.written.hosts {
            let full = in_full(&mesh.settings.domain, namespace, &host.value);
            let here = services
                .iter()
                .filter(|s| covers(&full, &s.service.hostname));
            let ports = here.flat_map(|s| s.ports.iter().map(move |port| (&s.service, port)));
            let first = ports.into_iter().find_map(|(service, port)| {
                let all = || port.routes.iter().chain(&port.general);
                let mine = all().any(|key| *key == one.state.key);
                let other = all().find(|key| key.kind != Kind::VirtualService);
                other
                    .filter(|_| mine)
                    .map(|other| (service, port.port, other))
            });
            let Some((service, port, other)) = first else {
                continue;
            };
            let message = format!(
                "{} is tried only after {other}, which is for port {port} of {service} too",
                title(one.written)
            );
            found.push(
                Diagnostic::new(Code::Superseded, host.place.clone(), message)
                    .label("not the first there")
                    .help("write all that is for one port as one kind of route"),
            );
        }
    }
}
