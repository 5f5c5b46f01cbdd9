//! Service-entries beside the rest of the mesh: whose hosts and ranges are whose, and what nothing comes
//! of (`spec/waypoint-l7.md` §3.7).

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::Context;
use super::carriers::Carriers;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::WrittenServiceEntry;
use crate::config::source::{At, Place};
use crate::model::binding::{Bindable, Binding, Waypoints};
use crate::model::declaration::Mesh;
use crate::model::waypoint::Resolution;

/// Judges the service-entries of a mesh that is known as a whole.
pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    if context.written.service_entries.is_empty() {
        return;
    }
    hosts(context, found);
    ranges(context, found);
    selectors(context, found);
}

/// Wildcards that are behind no waypoint: nobody else looks up the names that requests ask for.
pub(super) fn inactive(context: &Context<'_>, mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let written = context.written.service_entries.iter();
    let waypoints = Waypoints::new(mesh);
    for (entry, declared) in written.zip(&mesh.service_entries) {
        let bound = waypoints.bind(Bindable::from(declared));
        let (Resolution::DynamicDns, Binding::None) = (entry.resolution, bound) else {
            continue;
        };
        let message = format!(
            "service-entry `{}` is behind no waypoint, and is not in force",
            entry.name.value
        );
        found.push(
            Diagnostic::new(
                Code::NoWaypointForWildcardService,
                entry.name.place.clone(),
                message,
            )
            .label("reached by nobody")
            .help("add `use-waypoint`: a waypoint looks up the names that requests ask for"),
        );
    }
}

/// A host is one resource's in a namespace; one that is a service's or a waypoint's is nobody else's
/// anywhere, or connections to it could be led away.
fn hosts(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let (written, domain) = (context.written, &context.settings.domain);
    let services = written.services.iter();
    let services = services.map(|s| ("service", &s.namespace.value, &s.name));
    let gateways = written.gateways.iter();
    let gateways = gateways.map(|g| ("gateway", &g.namespace.value, &g.name));
    let own: HashMap<String, (&str, &Place)> = services
        .chain(gateways)
        .map(|(kind, namespace, name)| {
            let host = format!("{}.{namespace}.{domain}", name.value);
            (host, (kind, &name.place))
        })
        .collect();
    let mut seen: HashMap<(&str, &str), &At<Arc<str>>> = HashMap::new();
    for entry in &written.service_entries {
        for host in &entry.hosts {
            if let Some((kind, place)) = own.get(&*host.value) {
                let whose = format!("is a {kind}'s");
                let help = "name another host";
                found.push(taken(entry, host, &whose, place, help));
                continue;
            }
            let key = (&*entry.namespace.value, &*host.value);
            match seen.get(&key) {
                Some(first) => {
                    let help = "write everything for one host in one service-entry";
                    found.push(taken(entry, host, "is another's", &first.place, help));
                }
                None => {
                    seen.insert(key, host);
                }
            }
        }
    }
}

fn taken(
    entry: &WrittenServiceEntry,
    host: &At<Arc<str>>,
    whose: &str,
    first: &Place,
    help: &str,
) -> Diagnostic {
    let (name, written) = (&entry.name.value, &host.value);
    let message = format!("service-entry `{name}` has a host that {whose}: `{written}`");
    Diagnostic::new(Code::DuplicateName, host.place.clone(), message)
        .label("taken")
        .related(first.clone(), "declared here")
        .help(help)
}

/// A range says who is meant as an address does, but to waypoints alone.
fn ranges(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let mut seen: HashMap<IpNet, &Place> = HashMap::new();
    for entry in &context.written.service_entries {
        let name = &entry.name.value;
        let mut first = true;
        for range in entry.ranges() {
            if let Some(other) = seen.get(&range.value) {
                let message = format!(
                    "service-entry `{name}` has a range of another one: {}",
                    range.value
                );
                found.push(
                    Diagnostic::new(Code::DuplicateAddress, range.place.clone(), message)
                        .label("taken")
                        .related((*other).clone(), "first here")
                        .help("an address says who is meant: give each its own"),
                );
                continue;
            }
            seen.insert(range.value, &range.place);
            if std::mem::take(&mut first) {
                found.push(unknown_to_nodes(entry, range));
            }
        }
    }
}

fn unknown_to_nodes(entry: &WrittenServiceEntry, range: &At<IpNet>) -> Diagnostic {
    let message = format!(
        "service-entry `{}`: node proxies do not know ranges: connections to {} go there as they are, past every waypoint",
        entry.name.value, range.value
    );
    Diagnostic::new(Code::NoEffect, range.place.clone(), message)
        .label("has no effect at nodes")
        .help("list single addresses, or have clients ask for the host's own address")
}

fn selectors(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let entries = context.written.service_entries.iter();
    let selecting: Vec<_> = entries
        .filter_map(|entry| Some((entry, entry.selector.as_ref()?)))
        .collect();
    if selecting.is_empty() {
        return;
    }
    let carriers = Carriers::new(&context.written.workloads);
    for (entry, selector) in selecting {
        let namespace = &entry.namespace.value;
        let mut selected = carriers.of(Some(namespace), &selector.value);
        if selected.next().is_some() {
            continue;
        }
        let message = format!(
            "service-entry `{}` selects no workload of namespace `{namespace}`: it has no endpoints",
            entry.name.value
        );
        found.push(
            Diagnostic::new(
                Code::SelectorMatchesNothing,
                selector.place.clone(),
                message,
            )
            .label("matches nothing")
            .help("give a workload of the same namespace all of these `labels`"),
        );
    }
}
