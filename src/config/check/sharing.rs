//! Workloads on their machine's own network: its addresses are theirs, and each port of an address is
//! one workload's (DESIGN §7).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use super::Context;
use super::carriers::Carriers;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenNode, WrittenWorkload};
use crate::config::source::At;
use crate::model::binding::hbone_ports;
use crate::model::declaration::{Mesh, Port};
use crate::model::outbound::HBONE_PORT;
use crate::model::service::UdpPort;
use crate::model::sharing::{probed, shares};

/// Judges each workload by its machine's addresses.
pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    for workload in &context.doubtful {
        let Some(node) = machine(context, workload) else {
            continue;
        };
        if workload.addresses.is_empty() && node.addresses.is_empty() {
            found.push(without(workload, node));
        }
        let foreign = |address: &&At<IpAddr>| !has(node, address.value);
        let foreign = workload.addresses.iter().filter(foreign);
        found.extend(foreign.map(|address| elsewhere(workload, node, address)));
    }
}

/// The machine whose addresses a workload shares.
pub(super) fn machine<'a>(
    context: &Context<'a>,
    workload: &WrittenWorkload,
) -> Option<&'a WrittenNode> {
    let capture = workload.capture.as_ref()?.value.as_ref()?;
    shares(capture).then(|| context.node_of(workload)).flatten()
}

/// A port of one of the two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Numbered {
    Tcp(u16),
    Udp(u16),
}

impl Numbered {
    fn port(self) -> u16 {
        match self {
            Self::Tcp(port) | Self::Udp(port) => port,
        }
    }

    /// Whether a node's proxy listens there at the addresses of its machine once a workload shares them.
    fn is_of_proxy(self) -> bool {
        match self {
            Self::Tcp(port) => [15001, 15006, HBONE_PORT].contains(&port),
            Self::Udp(port) => port == HBONE_PORT,
        }
    }
}

impl fmt::Display for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "port {port}"),
            Self::Udp(port) => write!(f, "UDP port {port}"),
        }
    }
}

/// Judges who declares the same port of the same address, or one where lateen itself listens.
pub(super) fn ports(context: &Context<'_>, mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let all = context.written.workloads.iter().copied();
    let sharers: Vec<_> = all
        .filter_map(|workload| Some((workload, machine(context, workload)?)))
        .collect();
    if sharers.is_empty() {
        return;
    }
    let waypoints = waypoints(mesh);
    let declared = declared(context, &sharers);
    let mut taken: HashMap<(&str, IpAddr, Numbered), &WrittenWorkload> = HashMap::new();
    let mut told = BTreeSet::new();
    for ((number, port), by) in declared {
        let Some((workload, node)) = sharers.get(number) else {
            continue;
        };
        // Over QUIC a waypoint listens on the UDP port of the same number.
        let waypoint = waypoints.get(&(&*node.name.value, port.port()));
        if port.is_of_proxy() || waypoint.is_some() {
            found.push(reserved(workload, node, (port, waypoint), &by));
            continue;
        }
        let own = match workload.addresses.is_empty() {
            true => &node.addresses,
            false => &workload.addresses,
        };
        for address in own {
            let at = (&*node.name.value, address.value, port);
            let first = *taken.entry(at).or_insert(workload);
            if !std::ptr::eq(first, *workload) && told.insert((number, port)) {
                found.push(twice(first, workload, (address.value, port), &by));
            }
        }
    }
}

/// The waypoints that listen on each machine, by its name and their port.
fn waypoints(mesh: &Mesh) -> HashMap<(&str, u16), String> {
    let gateways = mesh.gateways.iter().zip(hbone_ports(mesh));
    let instances = gateways.flat_map(|(gateway, port)| {
        let name = format!("{}/{}", gateway.namespace, gateway.name);
        let machines = gateway.machines.names().iter();
        machines.map(move |machine| ((&**machine, port), name.clone()))
    });
    instances.collect()
}

/// The ports of each workload, by its number among those that share, and what declares each.
fn declared(
    context: &Context<'_>,
    sharers: &[(&WrittenWorkload, &WrittenNode)],
) -> BTreeMap<(usize, Numbered), String> {
    let workloads: Vec<&WrittenWorkload> = sharers.iter().map(|(w, _)| *w).collect();
    let numbers = workloads.iter().enumerate();
    let numbers: HashMap<usize, usize> = numbers.map(|(n, w)| (id(w), n)).collect();
    let carriers = Carriers::new(&workloads);
    let services = context.written.services.iter().map(|service| {
        let name = ("service", &service.namespace.value, &service.name.value);
        let targets = targets(&service.ports, &service.udp_ports);
        (name, &service.selector, targets)
    });
    let entries = context.written.service_entries.iter();
    let entries = entries.filter_map(|entry| {
        let name = ("service-entry", &entry.namespace.value, &entry.name.value);
        let selector = &entry.selector.as_ref()?.value;
        Some((name, selector, targets(&entry.ports, &[])))
    });
    let mut declared = BTreeMap::new();
    for ((kind, namespace, name), selector, targets) in services.chain(entries) {
        for workload in carriers.of(Some(namespace), selector) {
            let number = numbers.get(&id(workload)).copied();
            for target in &targets {
                let by = || format!("{kind} `{namespace}/{name}` leads there");
                let port = number.map(|number| (number, *target));
                port.map(|port| declared.entry(port).or_insert_with(by));
            }
        }
    }
    for (number, workload) in workloads.iter().enumerate() {
        let probe = workload.health.as_ref().and_then(|h| probed(&h.value));
        let by = || "its health check asks there".to_owned();
        let probe = probe.map(|port| (number, Numbered::Tcp(port)));
        probe.map(|port| declared.entry(port).or_insert_with(by));
    }
    declared
}

fn targets(ports: &[Port], udp_ports: &[UdpPort]) -> Vec<Numbered> {
    let tcp = ports.iter().map(|port| Numbered::Tcp(port.target_port));
    let udp = udp_ports.iter();
    tcp.chain(udp.map(|port| Numbered::Udp(port.target_port)))
        .collect()
}

fn id(workload: &WrittenWorkload) -> usize {
    std::ptr::from_ref(workload).addr()
}

fn has(node: &WrittenNode, address: IpAddr) -> bool {
    node.addresses.iter().any(|own| own.value == address)
}

fn words(workload: &WrittenWorkload) -> String {
    format!(
        "workload `{}/{}`",
        workload.namespace.value, workload.name.value
    )
}

fn without(workload: &WrittenWorkload, node: &WrittenNode) -> Diagnostic {
    let name = &node.name.value;
    let message = format!(
        "{} is reached at the addresses of node `{name}`, which has none",
        words(workload)
    );
    Diagnostic::new(Code::NotOfNode, workload.name.place.clone(), message)
        .label("reached where?")
        .related(node.name.place.clone(), "the node")
        .help("give the node its `addresses`")
}

fn elsewhere(workload: &WrittenWorkload, node: &WrittenNode, address: &At<IpAddr>) -> Diagnostic {
    let name = &node.name.value;
    let message = format!(
        "{} runs on the network of node `{name}`, which has no address {}",
        words(workload),
        address.value
    );
    let help = match node.addresses.first() {
        Some(own) => format!(
            "leave `addresses` out to have those of the node, as {}; for an address of its own give it a network \
             namespace: `capture = {{ netns = \"NAME\" }}`",
            own.value
        ),
        None => format!(
            "give the node its `addresses`, as `[\"{}\"]`",
            address.value
        ),
    };
    Diagnostic::new(Code::NotOfNode, address.place.clone(), message)
        .label("not the node's")
        .related(node.name.place.clone(), "the node")
        .help(help)
}

fn reserved(
    workload: &WrittenWorkload,
    node: &WrittenNode,
    (port, waypoint): (Numbered, Option<&String>),
    by: &str,
) -> Diagnostic {
    let whose = match waypoint {
        Some(name) => format!("waypoint `{name}`"),
        None => "the node's proxy".to_owned(),
    };
    let message = format!(
        "{} declares {port}, where {whose} listens on node `{}`: {by}",
        words(workload),
        node.name.value
    );
    Diagnostic::new(Code::DuplicatePort, workload.name.place.clone(), message)
        .label("taken")
        .related(node.name.place.clone(), "on this machine")
        .help("let its program listen on another port, and write that for `target-port`")
}

fn twice(
    first: &WrittenWorkload,
    second: &WrittenWorkload,
    (address, port): (IpAddr, Numbered),
    by: &str,
) -> Diagnostic {
    let message = format!(
        "{} declares {port} of {address}, which is {}'s: {by}",
        words(second),
        words(first)
    );
    Diagnostic::new(Code::DuplicatePort, second.name.place.clone(), message)
        .label("taken")
        .related(first.name.place.clone(), "has it")
        .help(
            "on one address a port says who is meant: let each listen on its own, or give one a network \
             namespace: `capture = { netns = \"NAME\" }`",
        )
}
