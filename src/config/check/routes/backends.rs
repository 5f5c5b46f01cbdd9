//! Whom routes ask, and who is not there (§2.6).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{ports, title};
use crate::config::check::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{Asked, Role, WrittenRoute};
use crate::config::source::At;
use crate::model::declaration::{Mesh, Port};
use crate::model::route::{BackendKind, BackendRef, Kind};

/// Who can be asked.
struct Known<'a> {
    /// By namespace and name.
    services: HashMap<&'a str, BTreeMap<&'a str, &'a [Port]>>,
    /// By host name.
    hosts: BTreeMap<Arc<str>, &'a [Port]>,
    guesses: Guesses,
}

pub(super) fn check(routes: &[&WrittenRoute], mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let mut known = Known::new(mesh);
    for route in routes {
        for asked in &route.asked {
            found.extend(known.judge(route, asked));
        }
    }
}

impl<'a> Known<'a> {
    fn new(mesh: &'a Mesh) -> Self {
        let mut services: HashMap<&str, BTreeMap<&str, &[Port]>> = HashMap::new();
        let mut hosts: BTreeMap<Arc<str>, &[Port]> = BTreeMap::new();
        for service in &mesh.services {
            let of_namespace = services.entry(&service.namespace).or_default();
            of_namespace.insert(&service.name, &service.ports);
            let (name, namespace) = (&service.name, &service.namespace);
            let host = format!("{name}.{namespace}.{}", mesh.settings.domain);
            hosts.insert(host.into(), &service.ports);
        }
        for entry in &mesh.service_entries {
            let of_entry = entry.hosts.iter().map(Arc::clone);
            hosts.extend(of_entry.map(|host| (host, &*entry.ports)));
        }
        Self {
            services,
            hosts,
            guesses: Guesses::default(),
        }
    }

    fn judge(&mut self, route: &WrittenRoute, asked: &At<Asked>) -> Option<Diagnostic> {
        let backend = &asked.value.backend;
        let ports_of = match &backend.kind {
            BackendKind::Service => {
                let of_namespace = self.services.get(&*backend.namespace);
                of_namespace.and_then(|known| known.get(&*backend.name))
            }
            BackendKind::Hostname => self.hosts.get(&backend.name),
            BackendKind::Unknown(kind) => {
                let why = format!("a backend of a kind that is none here: `{kind}`");
                let help = "name a backend of kind `Service` or `Hostname`".to_owned();
                return Some(not_found(route, asked, &why, "no such kind", help));
            }
        };
        let Some(ports_of) = ports_of else {
            return Some(self.missing(route, asked));
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

    fn missing(&mut self, route: &WrittenRoute, asked: &At<Asked>) -> Diagnostic {
        let backend = &asked.value.backend;
        let what = named(backend);
        let key: Arc<str> = what.as_str().into();
        let guess = match backend.kind {
            BackendKind::Service => {
                let beside = self.services.get(&*backend.namespace);
                let beside = beside.into_iter().flat_map(BTreeMap::keys).copied();
                self.guesses.meant_as(&key, &backend.name, beside)
            }
            BackendKind::Hostname | BackendKind::Unknown(_) => {
                let hosts = self.hosts.keys().map(|host| &**host);
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
