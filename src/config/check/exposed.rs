//! Services behind a waypoint that are reached past it (`spec/labels-and-policy.md` §1.10), told once of a
//! namespace.

use super::Context;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::source::Place;
use crate::model::compile::policies::exposed;
use crate::model::compile::service_key;
use crate::model::declaration::Mesh;
use crate::model::service::ServiceKey;

/// What is told of a namespace.
struct Told<'a> {
    namespace: &'a str,
    /// The first, where it is declared.
    first: String,
    place: &'a Place,
    count: usize,
}

/// Judges a mesh, which was declared from `context`.
pub(super) fn check(context: &Context<'_>, mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let exposed = exposed(mesh);
    if exposed.is_empty() {
        return;
    }
    let (written, domain) = (context.written, &context.settings.domain);
    let services = written.services.iter();
    let services = services.filter(|service| {
        let key = service_key(&service.name.value, &service.namespace.value, domain);
        exposed.contains(&key)
    });
    let services = services.map(|s| ("service", &s.namespace.value, &s.name));
    let entries = written.service_entries.iter().zip(&mesh.service_entries);
    let entries = entries.filter(|(_, declared)| {
        let own = |key: &ServiceKey| {
            key.namespace == declared.namespace && declared.hosts.contains(&key.hostname)
        };
        exposed.iter().any(own)
    });
    let entries = entries.map(|(e, _)| ("service-entry", &e.namespace.value, &e.name));
    let mut told: Vec<Told<'_>> = Vec::new();
    for (kind, namespace, name) in services.chain(entries) {
        match told.iter_mut().find(|told| *told.namespace == **namespace) {
            Some(told) => told.count += 1,
            None => told.push(Told {
                namespace,
                first: format!("{kind} `{}`", name.value),
                place: &name.place,
                count: 1,
            }),
        }
    }
    found.extend(told.into_iter().map(Told::diagnostic));
}

impl Told<'_> {
    fn diagnostic(self) -> Diagnostic {
        let Self {
            namespace, first, ..
        } = &self;
        let (whom, are, their) = match self.count {
            1 => (first.clone(), "is", "its"),
            more => (format!("{first} and {} more", more - 1), "are", "their"),
        };
        let message = format!(
            "{whom} of namespace `{namespace}` {are} behind a waypoint, and {their} workloads take what passed none"
        );
        Diagnostic::new(Code::OpenPastWaypoint, self.place.clone(), message)
            .label("reached past its waypoint")
            .help("write `auto-allow-waypoint = true` in `[mesh]`, or an authorization-policy that allows the waypoint's principal")
    }
}
