//! Whom routes ask, and who is not there (§2.6).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ports, title};
use crate::config::check::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{Asked, Role, WrittenRoute};
use crate::config::source::At;
use crate::model::compile::service_key;
use crate::model::compile::waypoints::Backends;
use crate::model::declaration::Mesh;
use crate::model::route::{BackendKind, BackendRef, Kind};

/// Who can be asked.
struct Known<'a> {
    mesh: &'a Mesh,
    backends: Backends<'a>,
    guesses: Guesses,
}

pub(super) fn check(routes: &[&WrittenRoute], mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let mut known = Known {
        mesh,
        backends: Backends::new(mesh),
        guesses: Guesses::default(),
    };
    for route in routes {
        for asked in &route.asked {
            found.extend(known.judge(route, asked));
        }
    }
}

impl Known<'_> {
    fn judge(&mut self, route: &WrittenRoute, asked: &At<Asked>) -> Option<Diagnostic> {
        let backend = &asked.value.backend;
        if let BackendKind::Unknown(kind) = &backend.kind {
            let why = format!("a backend of a kind that is none here: `{kind}`");
            let help = "name a backend of kind `Service` or `Hostname`".to_owned();
            return Some(not_found(route, asked, &why, "no such kind", help));
        }
        let Some(ports_of) = self.backends.ports(backend) else {
            let unseen = self.unseen(route, asked);
            return Some(unseen.unwrap_or_else(|| self.missing(route, asked)));
        };
        let wanted = backend.port?;
        if ports_of.iter().any(|port| port.port == wanted) {
            return None;
        }
        let why = format!(
            "{} as a backend, which has no port {wanted}",
            named(backend)
        );
        let all: Vec<u16> = ports_of.iter().map(|port| port.port).collect();
        let help = format!(
            "it has {}: those of the service, not of its workloads",
            ports(&all)
        );
        Some(not_found(route, asked, &why, "no such port", help))
    }

    /// A host that its service-entry shows to its own namespace alone.
    fn unseen(&self, route: &WrittenRoute, asked: &At<Asked>) -> Option<Diagnostic> {
        let backend = &asked.value.backend;
        let host = backend.name.to_ascii_lowercase();
        let mut entries = self.mesh.service_entries.iter();
        let entry = entries.find(|entry| {
            backend.kind == BackendKind::Hostname && entry.hosts.iter().any(|h| **h == *host)
        })?;
        let why = format!(
            "{} as a backend, which service-entry `{}/{}` shows to its own namespace alone",
            named(backend),
            entry.namespace,
            entry.name
        );
        let help = "leave out `export-to` there, or write the route in that namespace".to_owned();
        Some(not_found(route, asked, &why, "not shown to this one", help))
    }

    fn missing(&mut self, route: &WrittenRoute, asked: &At<Asked>) -> Diagnostic {
        let backend = &asked.value.backend;
        let what = named(backend);
        let key: Arc<str> = what.as_str().into();
        let guess = match backend.kind {
            BackendKind::Service => {
                let beside = self.mesh.services.iter();
                let beside = beside.filter(|s| s.namespace == backend.namespace);
                let beside = beside.map(|s| &*s.name);
                self.guesses.meant_as(&key, &backend.name, beside)
            }
            BackendKind::Hostname | BackendKind::Unknown(_) => {
                let domain = &self.mesh.settings.domain;
                let services = self.mesh.services.iter();
                let services =
                    services.map(|s| service_key(&s.name, &s.namespace, domain).hostname);
                let entries = self.mesh.service_entries.iter().flat_map(|e| &e.hosts);
                let hosts: BTreeSet<Arc<str>> = services.chain(entries.cloned()).collect();
                let hosts = hosts.iter().map(|host| &**host);
                self.guesses.meant_as(&key, &backend.name, hosts)
            }
        };
        let guess = guess.unwrap_or_else(|| "no such backend".to_owned());
        let why = format!("{what} as a backend, which is not declared");
        let help = match backend.kind {
            BackendKind::Service => {
                "name a service that is declared; one of another namespace with `namespace`"
            }
            BackendKind::Hostname | BackendKind::Unknown(_) => {
                "name a host that is declared, in full"
            }
        };
        not_found(route, asked, &why, &guess, help.to_owned())
    }
}

fn named(backend: &BackendRef) -> String {
    match backend.kind {
        BackendKind::Service => format!("service `{}/{}`", backend.namespace, backend.name),
        BackendKind::Hostname | BackendKind::Unknown(_) => format!("host `{}`", backend.name),
    }
}

fn not_found(
    route: &WrittenRoute,
    asked: &At<Asked>,
    why: &str,
    label: &str,
    help: String,
) -> Diagnostic {
    let outcome = match (asked.value.role, route.kind) {
        (Role::Mirror, _) => "nothing is copied there",
        (Role::Share, Kind::Grpc) => "its share is answered UNAVAILABLE",
        (Role::Share, Kind::Tcp | Kind::Tls) => "its share is closed",
        (Role::Share, Kind::Http | Kind::VirtualService) => "its share is answered 500",
    };
    let message = format!("{} has {why}: {outcome}", title(route));
    Diagnostic::new(Code::BackendNotFound, asked.place.clone(), message)
        .label(label)
        .help(help)
}
