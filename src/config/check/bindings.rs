//! Which waypoint stands before what, and what has none that asks for one
//! (`spec/labels-and-policy.md` §1.10): a `use-waypoint` that comes to nothing would send traffic
//! past the policy it is meant for, so it is an error. What is merely not as written is a warning.
//!
//! What is wrong with a reference is told once, where it is written; what comes of it for one
//! service or workload is told there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Context;
use super::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenCanary, WrittenGateway, WrittenNamespace};
use crate::config::source::{At, Place};
use crate::model::binding::{
    Bindable, Binding, CanaryFault, CanaryOutcome, Level, Named, Reason, Unbound, Waypoints,
    hbone_ports, named,
};
use crate::model::declaration::{Mesh, UseWaypoint};

/// Judges every binding of `mesh`, which was declared from `context`.
pub(super) fn check<'a>(
    context: &'a Context<'a>,
    (mesh, waypoints): (&'a Mesh, &'a Waypoints<'a>),
    found: &'a mut Vec<Diagnostic>,
) {
    let mut judged = Judged {
        context,
        waypoints,
        known: waypoints.names().map(|n| n.to_string()).collect(),
        guesses: Guesses::default(),
        canaries: HashSet::new(),
        found,
    };
    for gateway in &context.written.gateways {
        judged.gateway(gateway);
    }
    judged.ports(&hbone_ports(mesh));
    judged.references();
    judged.objects(mesh);
}

struct Judged<'a> {
    context: &'a Context<'a>,
    waypoints: &'a Waypoints<'a>,
    /// The names there are.
    known: Vec<String>,
    guesses: Guesses,
    /// Where canaries are named that have been told of.
    canaries: HashSet<(usize, usize)>,
    found: &'a mut Vec<Diagnostic>,
}

/// What asks for a waypoint.
struct Asking<'a> {
    /// Such as ``service `cart` ``.
    what: String,
    namespace: &'a str,
    /// Its own `use-waypoint`.
    own: Option<&'a At<UseWaypoint>>,
    /// Its table.
    place: &'a Place,
}

impl<'a> Judged<'a> {
    fn gateway(&mut self, gateway: &WrittenGateway) {
        for machine in gateway.machines.names() {
            let node = self.context.nodes.get(&*machine.value);
            let Some(node) = node.filter(|node| node.addresses.is_empty()) else {
                continue;
            };
            let (name, on) = (&gateway.name.value, &node.name.value);
            let message = format!("gateway `{name}` is on node `{on}`, which has no addresses");
            self.found.push(
                Diagnostic::new(Code::MissingKey, machine.place.clone(), message)
                    .label("reached by nobody")
                    .related(node.place.clone(), "`addresses` is missing here")
                    .help(format!(
                        "add `addresses` to node `{on}`: a waypoint is reached at those of its node"
                    )),
            );
        }
    }

    /// Each listens at the addresses of its machine.
    fn ports(&mut self, ports: &[u16]) {
        let mut taken = HashMap::new();
        let gateways = self.context.written.gateways.iter().zip(ports);
        let instances = gateways.flat_map(|(gateway, port)| {
            let machines = gateway.machines.names().iter();
            machines.map(move |node| (*gateway, node, *port))
        });
        for (gateway, node, port) in instances {
            let Some((first, at)) = taken.get(&(&node.value, port)) else {
                taken.insert((&node.value, port), (gateway, node));
                continue;
            };
            let (name, on) = (&gateway.name.value, &node.value);
            let (code, message, help) = match std::ptr::eq(*first, gateway) {
                true => (
                    Code::DuplicateName,
                    format!("gateway `{name}` names node `{on}` twice"),
                    "take one of the two out: a node runs one instance of a waypoint",
                ),
                false => (
                    Code::DuplicateAddress,
                    format!(
                        "gateways `{}` and `{name}` are both on node `{on}`, at port {port}",
                        first.name.value
                    ),
                    "put it on another node",
                ),
            };
            self.found.push(
                Diagnostic::new(code, node.place.clone(), message)
                    .label("taken")
                    .related(at.place.clone(), "the other")
                    .help(help),
            );
        }
    }

    /// What is wrong with a name wherever it is written.
    fn references(&mut self) {
        let written = self.context.written;
        for n in &written.namespaces {
            let name = &*n.name.value;
            self.reference(
                &format!("namespace `{name}`"),
                name,
                n.use_waypoint.as_ref(),
            );
        }
        for s in &written.services {
            let what = format!("service `{}`", s.name.value);
            self.reference(&what, &s.namespace.value, s.use_waypoint.as_ref());
        }
        for e in &written.service_entries {
            let what = format!("service-entry `{}`", e.name.value);
            self.reference(&what, &e.namespace.value, e.use_waypoint.as_ref());
        }
        for w in written
            .workloads
            .iter()
            .filter(|w| w.use_waypoint.is_some())
        {
            let what = format!("workload `{}`", w.name.value);
            self.reference(&what, &w.namespace.value, w.use_waypoint.as_ref());
        }
    }

    fn reference(&mut self, what: &str, namespace: &str, wanted: Option<&At<UseWaypoint>>) {
        let Some(wanted) = wanted else {
            return;
        };
        let Some(to) = named(&wanted.value) else {
            return;
        };
        match self.waypoints.admitting(to, namespace) {
            Ok(_) => {}
            Err(Reason::AttachmentDenied) => self.denied(what, namespace, to, &wanted.place),
            Err(_missing) => self.missing(what, to, &wanted.place),
        }
    }

    fn missing(&mut self, what: &str, to: Named<'_>, place: &Place) {
        let message = format!("{what} names a waypoint that is not declared: `{to}`");
        let finding = Diagnostic::new(Code::WaypointIsNotReady, place.clone(), message);
        let whole = to.to_string();
        let known = self.known.iter().map(String::as_str);
        let guess = self.guesses.meant(&whole.into(), known);
        let help = format!(
            "declare it with `[[gateway]]` and `name = \"{}\"` in namespace `{}`, or write `\"none\"`",
            to.name, to.namespace
        );
        let label = guess.unwrap_or_else(|| "no such waypoint".to_owned());
        self.found.push(finding.label(label).help(help));
    }

    fn denied(&mut self, what: &str, namespace: &str, to: Named<'_>, place: &Place) {
        let message =
            format!("{what} names a waypoint that does not admit namespace `{namespace}`: `{to}`");
        let finding = Diagnostic::new(Code::AttachmentDenied, place.clone(), message);
        self.found.push(
            self.beside(finding, to)
                .label("not admitted")
                .help("write `listeners = [{ allowed-routes = { namespaces = { from = \"All\" } } }]` there, or name a waypoint of its own namespace"),
        );
    }

    /// Shows where the waypoint is declared.
    fn beside(&self, finding: Diagnostic, to: Named<'_>) -> Diagnostic {
        let mut gateways = self.context.written.gateways.iter();
        let declared =
            gateways.find(|g| *g.name.value == *to.name && *g.namespace.value == *to.namespace);
        match declared {
            Some(gateway) => finding.related(gateway.name.place.clone(), "the waypoint"),
            None => finding,
        }
    }

    /// What comes of the names for each service and workload.
    fn objects(&mut self, mesh: &'a Mesh) {
        let written = self.context.written;
        let mut inherited = Inherited::default();
        for (service, declared) in written.services.iter().zip(&mesh.services) {
            let asking = Asking {
                what: format!("service `{}`", service.name.value),
                namespace: &service.namespace.value,
                own: service.use_waypoint.as_ref(),
                place: &service.name.place,
            };
            let binding = self.waypoints.bind(Bindable::from(declared));
            if let Binding::Bound(bound) = &binding {
                self.canary(&asking, &service.canary, &bound.canary);
            }
            self.outcome(&asking, &binding, &mut inherited);
        }
        let entries = written.service_entries.iter().zip(&mesh.service_entries);
        for (entry, declared) in entries {
            let asking = Asking {
                what: format!("service-entry `{}`", entry.name.value),
                namespace: &entry.namespace.value,
                own: entry.use_waypoint.as_ref(),
                place: &entry.name.place,
            };
            let binding = self.waypoints.bind(Bindable::from(declared));
            if let Binding::Bound(bound) = &binding {
                self.canary(&asking, &entry.canary, &bound.canary);
            }
            self.outcome(&asking, &binding, &mut inherited);
        }
        let workloads = written.workloads.iter().zip(&mesh.workloads);
        for (workload, declared) in workloads.filter(|(w, _)| w.use_waypoint.is_some()) {
            let asking = Asking {
                what: format!("workload `{}`", workload.name.value),
                namespace: &workload.namespace.value,
                own: workload.use_waypoint.as_ref(),
                place: &workload.name.place,
            };
            let binding = self.waypoints.bind(Bindable::from(&**declared));
            self.outcome(&asking, &binding, &mut inherited);
        }
        self.found.extend(inherited.told(self.context));
    }

    fn outcome<'o>(
        &mut self,
        asking: &Asking<'o>,
        binding: &Binding<'_>,
        inherited: &mut Inherited<'o>,
    ) {
        match binding {
            Binding::Bound(bound) => {
                if let Some(own) = bound.passed_over {
                    self.fell_through(asking, Named::from(own), Named::from(bound.waypoint));
                }
            }
            Binding::Unbound(unbound) if unbound.is_direct() => inherited.add(asking),
            Binding::Unbound(unbound) => self.unbound(asking, unbound),
            Binding::None => {}
        }
    }

    /// Reasons that lie in the reference have been told where that is.
    fn unbound(&mut self, asking: &Asking<'_>, unbound: &Unbound<'_>) {
        let (code, why, help) = match unbound.reason {
            Reason::WaypointIsNotReady | Reason::AttachmentDenied => return,
            Reason::UnsupportedTrafficType => (
                Code::UnsupportedTrafficType,
                format!("does not take traffic to a {}", unbound.traffic.as_str()),
                format!(
                    "write `waypoint-for = \"{}\"` or `\"all\"` there, or name another waypoint",
                    unbound.traffic.as_str()
                ),
            ),
            Reason::CrossNamespaceWaypointForbidden => (
                Code::CrossNamespaceWaypointForbidden,
                "is of another namespace than it is shown to".to_owned(),
                "name a waypoint of its own namespace".to_owned(),
            ),
        };
        let message = format!(
            "{} names a waypoint that {why}: `{}`",
            asking.what, unbound.named
        );
        let place = asking.own.map_or(asking.place, |own| &own.place);
        let finding = Diagnostic::new(code, place.clone(), message);
        let finding = self.beside(finding, unbound.named);
        self.found.push(finding.label("not for this").help(help));
    }

    fn fell_through(&mut self, asking: &Asking<'_>, own: Named<'_>, instead: Named<'_>) {
        let message = format!(
            "{} is behind `{instead}`, its namespace's waypoint: its own, `{own}`, is for other traffic",
            asking.what
        );
        let place = asking.own.map_or(asking.place, |own| &own.place);
        let mut finding = Diagnostic::new(Code::WaypointFallThrough, place.clone(), message)
            .label("yields to the namespace's");
        let namespace = self.context.namespaces.get(asking.namespace);
        if let Some(theirs) = namespace.and_then(|n| n.use_waypoint.as_ref()) {
            finding = finding.related(theirs.place.clone(), "the namespace's");
        }
        self.found.push(finding.help(
            "name a waypoint that takes this traffic, or leave `use-waypoint` to the namespace",
        ));
    }

    /// Tells once of a canary, though all services of a namespace may inherit it.
    fn canary(&mut self, asking: &Asking<'_>, own: &WrittenCanary, outcome: &CanaryOutcome<'_>) {
        let CanaryOutcome::LeftOut {
            named,
            level,
            fault,
        } = outcome
        else {
            return;
        };
        let namespace = self.context.namespaces.get(asking.namespace);
        let written = match level {
            Level::Own => own.place.as_ref(),
            Level::Namespace => namespace.and_then(|n| n.canary.place.as_ref()),
        };
        let place = written.unwrap_or(asking.place);
        let at = (Arc::as_ptr(place.source()).addr(), place.span().start);
        if !self.canaries.insert(at) {
            return;
        }
        let why = match fault {
            CanaryFault::SameAsPrimary => "it is the first waypoint again".to_owned(),
            CanaryFault::InvalidWeight(text) => {
                format!("its weight is {text:?}, not a whole number from 0 to 100")
            }
            CanaryFault::Unbound(Reason::WaypointIsNotReady) => "it is not declared".to_owned(),
            CanaryFault::Unbound(Reason::AttachmentDenied) => {
                "it does not admit this namespace".to_owned()
            }
            CanaryFault::Unbound(Reason::UnsupportedTrafficType) => {
                "it does not take traffic to services".to_owned()
            }
            CanaryFault::Unbound(Reason::CrossNamespaceWaypointForbidden) => {
                "it is of another namespace".to_owned()
            }
        };
        let message = format!("canary `{named}` is not used: {why} ({})", fault.as_str());
        self.found.push(
            Diagnostic::new(Code::CanaryNotUsed, place.clone(), message)
                .label("takes no traffic")
                .help("the first waypoint takes everything; mend the canary, or take it out"),
        );
    }
}

/// Services whose namespace has a waypoint that is for workloads: a default that is not for them.
#[derive(Default)]
struct Inherited<'a> {
    /// By namespace, in the order in which they come up: the first, and how many there are.
    namespaces: Vec<(&'a str, String, usize)>,
}

impl<'a> Inherited<'a> {
    fn add(&mut self, asking: &Asking<'a>) {
        let mut known = self.namespaces.iter_mut();
        match known.find(|(namespace, ..)| *namespace == asking.namespace) {
            Some((.., count)) => *count += 1,
            None => self
                .namespaces
                .push((asking.namespace, asking.what.clone(), 1)),
        }
    }

    fn told(self, context: &Context<'_>) -> Vec<Diagnostic> {
        let told = |(namespace, first, count): (&str, String, usize)| {
            let written: &WrittenNamespace = context.namespaces.get(namespace)?;
            let wanted = written.use_waypoint.as_ref()?;
            let to = named(&wanted.value)?;
            let whom = match count {
                1 => first,
                _ => format!("{first} and {} more", count - 1),
            };
            let message = format!(
                "{whom} of namespace `{namespace}` go direct: its waypoint `{to}` takes no traffic to services"
            );
            Some(
                Diagnostic::new(Code::UnsupportedTrafficTypeInherited, wanted.place.clone(), message)
                    .label("not for services")
                    .help("write `waypoint-for = \"all\"` there, or `use-waypoint = \"none\"` on what is meant to go direct"),
            )
        };
        self.namespaces.into_iter().filter_map(told).collect()
    }
}
