//! What routes are attached to, and whether they are accepted there (§2.1).

use std::collections::BTreeMap;
use std::fmt;

use super::{ports, title};
use crate::config::check::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::WrittenRoute;
use crate::config::source::At;
use crate::model::binding::{Bindable, Waypoints};
use crate::model::declaration::{Mesh, ParentKind, ParentRef, Port};
use crate::model::route::Kind;

/// A route at one of its parents, where it is accepted.
pub(super) struct Attached<'a> {
    pub(super) route: &'a WrittenRoute,
    pub(super) parent: &'a At<ParentRef>,
    pub(super) to: Name<'a>,
    /// The service ports that it is for.
    pub(super) ports: Vec<u16>,
}

/// What can be a parent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name<'a> {
    service_entry: bool,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Name<'a> {
    fn of(parent: &'a ParentRef) -> Self {
        Self {
            service_entry: parent.kind == ParentKind::ServiceEntry,
            namespace: &parent.namespace,
            name: &parent.name,
        }
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.service_entry {
            true => "service-entry",
            false => "service",
        };
        write!(f, "{kind} `{}/{}`", self.namespace, self.name)
    }
}

/// What there is to be attached to.
struct Parents<'a, 'w> {
    known: BTreeMap<Name<'a>, (Bindable<'a>, &'a [Port])>,
    waypoints: &'w Waypoints<'a>,
    guesses: Guesses,
}

/// Every route at every parent that takes it; why others do not is said.
pub(super) fn accepted<'a>(
    routes: &[&'a WrittenRoute],
    (mesh, waypoints): (&'a Mesh, &Waypoints<'a>),
    found: &mut Vec<Diagnostic>,
) -> Vec<Attached<'a>> {
    let mut parents = Parents::new(mesh, waypoints);
    let mut accepted = Vec::new();
    for route in routes {
        for parent in &route.parents {
            match parents.accept(route, parent) {
                Ok(attached) => accepted.push(attached),
                Err(finding) => found.push(*finding),
            }
        }
    }
    accepted
}

impl<'a, 'w> Parents<'a, 'w> {
    fn new(mesh: &'a Mesh, waypoints: &'w Waypoints<'a>) -> Self {
        let services = mesh.services.iter().map(|service| {
            let name = Name {
                service_entry: false,
                namespace: &service.namespace,
                name: &service.name,
            };
            (name, (Bindable::from(service), &*service.ports))
        });
        let entries = mesh.service_entries.iter().map(|entry| {
            let name = Name {
                service_entry: true,
                namespace: &entry.namespace,
                name: &entry.name,
            };
            (name, (Bindable::from(entry), &*entry.ports))
        });
        Self {
            known: services.chain(entries).collect(),
            waypoints,
            guesses: Guesses::default(),
        }
    }

    fn accept(
        &mut self,
        route: &'a WrittenRoute,
        parent: &'a At<ParentRef>,
    ) -> Result<Attached<'a>, Box<Diagnostic>> {
        let to = Name::of(&parent.value);
        let Some((bindable, all)) = self.known.get(&to) else {
            return Err(Box::new(self.missing(route, parent, to)));
        };
        let meant = |port: &&Port| parent.value.port.is_none_or(|wanted| port.port == wanted);
        let meant: Vec<&Port> = all.iter().filter(meant).collect();
        if meant.is_empty() {
            return Err(Box::new(no_such_port(route, parent, to, all)));
        }
        let namespace = &*route.namespace.value;
        // A waypoint that cannot be had is told of where it is named.
        if !self.waypoints.leads_somewhere(*bindable) {
            return Err(Box::new(behind_none(route, parent, to)));
        }
        let mut before = self.waypoints.before(*bindable);
        let of_waypoint = before.any(|waypoint| *waypoint.namespace == *namespace);
        if namespace != to.namespace && !of_waypoint {
            return Err(Box::new(consumer(route, parent, to)));
        }
        let fitting = meant.iter().filter(|p| route.kind.fits(p.app_protocol));
        let fitting: Vec<u16> = fitting.map(|port| port.port).collect();
        if fitting.is_empty() {
            return Err(Box::new(other_protocol(route, parent, to, &meant)));
        }
        Ok(Attached {
            route,
            parent,
            to,
            ports: fitting,
        })
    }

    fn missing(
        &mut self,
        route: &WrittenRoute,
        parent: &At<ParentRef>,
        to: Name<'_>,
    ) -> Diagnostic {
        let beside = self.known.keys();
        let beside = beside.filter(|known| {
            (known.service_entry, known.namespace) == (to.service_entry, to.namespace)
        });
        let key = to.to_string().into();
        let guess = self.guesses.meant_as(&key, to.name, beside.map(|n| n.name));
        let message = format!("{} has an unknown parent: {to}", title(route));
        let finding = Diagnostic::new(Code::NoMatchingParent, parent.place.clone(), message);
        finding
            .label(guess.unwrap_or_else(|| "no such parent".to_owned()))
            .help("name a service that is declared; one of another namespace with `namespace`")
    }
}

fn no_such_port(
    route: &WrittenRoute,
    parent: &At<ParentRef>,
    to: Name<'_>,
    all: &[Port],
) -> Diagnostic {
    let wanted = parent.value.port.unwrap_or_default();
    let message = format!(
        "{} is for port {wanted} of {to}, which has no such port",
        title(route)
    );
    let all: Vec<u16> = all.iter().map(|port| port.port).collect();
    Diagnostic::new(Code::NoMatchingParent, parent.place.clone(), message)
        .label("no such port")
        .help(format!(
            "it has {}; leave `port` out to mean every one",
            ports(&all)
        ))
}

fn behind_none(route: &WrittenRoute, parent: &At<ParentRef>, to: Name<'_>) -> Diagnostic {
    let message = format!(
        "{} has no effect on {to}, which is behind no waypoint",
        title(route)
    );
    Diagnostic::new(Code::NoEffect, parent.place.clone(), message)
        .label("nobody routes this")
        .help("give it, or its namespace, a `use-waypoint`: node proxies do not look at requests")
}

fn consumer(route: &WrittenRoute, parent: &At<ParentRef>, to: Name<'_>) -> Diagnostic {
    let message = format!(
        "{} is not accepted for {to}: it is in neither the parent's namespace nor its waypoint's",
        title(route)
    );
    Diagnostic::new(Code::NoEffect, parent.place.clone(), message)
        .label("of another namespace")
        .help(format!(
            "write it with `namespace = \"{}\"`; routes for the clients of one namespace alone are not served",
            to.namespace
        ))
}

fn other_protocol(
    route: &WrittenRoute,
    parent: &At<ParentRef>,
    to: Name<'_>,
    meant: &[&Port],
) -> Diagnostic {
    let numbers: Vec<u16> = meant.iter().map(|port| port.port).collect();
    let (what, help) = match route.kind {
        Kind::Tls => (
            "does not speak TLS",
            "write `app-protocol = \"tls\"` at the port if it does, or a `tcp-route`",
        ),
        Kind::Tcp => (
            "is HTTP",
            "write an `http-route`, or another `app-protocol`",
        ),
        Kind::Grpc | Kind::Http | Kind::VirtualService => (
            "is not HTTP",
            "write `app-protocol = \"http\"` at the port if it is, or a `tcp-route`",
        ),
    };
    let message = format!(
        "{} has no effect on {} of {to}, which {what}",
        title(route),
        ports(&numbers)
    );
    Diagnostic::new(Code::NoEffect, parent.place.clone(), message)
        .label("another protocol")
        .help(help)
}
