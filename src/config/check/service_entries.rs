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
use crate::model::binding::{Bindable, Waypoints};
use crate::model::compile::service_key;
use crate::model::declaration::Mesh;
use crate::model::waypoint::Resolution;

/// Judges the service-entries of a mesh that is known as a whole.
pub(super) fn check(context: &Context<'_>, carriers: &Carriers<'_>, found: &mut Vec<Diagnostic>) {
    if context.written.service_entries.is_empty() {
        return;
    }
    hosts(context, found);
    ranges(context, found);
    selectors(context, carriers, found);
}

/// What comes of how each is bound.
pub(super) fn bindings<'a>(
    context: &Context<'_>,
    (mesh, waypoints): (&'a Mesh, &Waypoints<'a>),
    found: &mut Vec<Diagnostic>,
) {
    let written = context.written.service_entries.iter();
    for (entry, declared) in written.zip(&mesh.service_entries) {
        let direct = !waypoints.leads_somewhere(Bindable::from(declared));
        if direct && entry.resolution == Resolution::DynamicDns {
            found.push(not_in_force(entry));
        }
        let ranges = entry.ranges();
        found.extend(ranges.map(|range| match direct {
            true => unknown_to_nodes(entry, range),
            false => past_the_waypoint(entry, range),
        }));
    }
}

/// A wildcard behind no waypoint: nobody else looks up the names that requests ask for.
fn not_in_force(entry: &WrittenServiceEntry) -> Diagnostic {
    let (name, place) = (&entry.name.value, &entry.name.place);
    let message = format!("service-entry `{name}` is behind no waypoint, and is not in force");
    Diagnostic::new(Code::NoWaypointForWildcardService, place.clone(), message)
        .label("reached by nobody")
        .help("add `use-waypoint`: a waypoint looks up the names that requests ask for")
}

/// A host is one resource's in a namespace; one that is a service's or a waypoint's is nobody else's
/// anywhere, or connections to it could be led away.
fn hosts(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let (written, domain) = (context.written, &context.settings.domain);
    let services = written.services.iter();
    let services = services.map(|s| ("service", &s.namespace.value, &s.name));
    let gateways = written.gateways.iter();
    let gateways = gateways.map(|g| ("gateway", &g.namespace.value, &g.name));
    let own: HashMap<Arc<str>, (&str, &Place)> = services
        .chain(gateways)
        .map(|(kind, namespace, name)| {
            let host = service_key(&name.value, namespace, domain).hostname;
            (host, (kind, &name.place))
        })
        .collect();
    let mut seen: HashMap<(&str, &str), &At<Arc<str>>> = HashMap::new();
    for entry in &written.service_entries {
        for host in &entry.hosts {
            if let Some((kind, place)) = own.get(&host.value) {
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

/// A range says who is meant as an address does.
fn ranges(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let mut seen: HashMap<IpNet, &Place> = HashMap::new();
    for entry in &context.written.service_entries {
        let name = &entry.name.value;
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
        }
    }
}

/// Waypoints alone know ranges. Here none is asked for, so nothing is missed on the way.
fn unknown_to_nodes(entry: &WrittenServiceEntry, range: &At<IpNet>) -> Diagnostic {
    let message = format!(
        "service-entry `{}`: node proxies do not know ranges: connections to {} go there as they are",
        entry.name.value, range.value
    );
    Diagnostic::new(Code::NoEffect, range.place.clone(), message)
        .label("has no effect at nodes")
        .help("list single addresses, or have clients ask for the host's own address")
}

/// Where one is asked for, nodes would lead connections past the policy that it is there to enforce.
fn past_the_waypoint(entry: &WrittenServiceEntry, range: &At<IpNet>) -> Diagnostic {
    let message = format!(
        "service-entry `{}` is behind a waypoint, which connections to {} would go past: node proxies do not know ranges",
        entry.name.value, range.value
    );
    Diagnostic::new(Code::Unsupported, range.place.clone(), message)
        .label("past the waypoint")
        .help("list single addresses, or write `use-waypoint = \"none\"`, if connections may go there as they are")
}

fn selectors(context: &Context<'_>, carriers: &Carriers<'_>, found: &mut Vec<Diagnostic>) {
    let entries = context.written.service_entries.iter();
    let selecting = entries.filter_map(|entry| Some((entry, entry.selector.as_ref()?)));
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
