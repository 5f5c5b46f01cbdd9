//! Addresses: each belongs to one resource, services' lie in the service ranges, others' do not, and
//! those of service-entries lie where they are.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Context;
use super::memory::neighbours;
use super::sharing;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{
    WrittenGateway, WrittenNode, WrittenService, WrittenServiceEntry, WrittenWorkload,
};
use crate::config::source::{At, Place};
use crate::model::sharing::shares;

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let hosts = hosts(context, found);
    let entries = single(context);
    let mut taken: HashMap<IpAddr, (Owner<'_>, &Place)> = HashMap::new();
    let services = context.written.services.iter().copied();
    let services = services.map(|s| (Owner::Service(s), &s.addresses));
    let gateways = context.written.gateways.iter().copied();
    let gateways = gateways.map(|g| (Owner::Gateway(g), &g.addresses));
    let entries = entries
        .iter()
        .map(|(e, addresses)| (Owner::Entry(e), addresses));
    for (service, addresses) in services.chain(gateways).chain(entries) {
        for address in addresses {
            let owner = || service.words();
            if let Some((other, place)) = taken.get(&address.value) {
                found.push(duplicate(address, &owner(), place, &other.words()));
                continue;
            }
            taken.insert(address.value, (service, &address.place));
            if let Some((holder, place)) = hosts.by_address.get(&address.value) {
                found.push(duplicate(address, &owner(), place, &holder.words()));
            } else if !matches!(service, Owner::Entry(_)) && !in_range(context, address.value) {
                found.push(outside(context, &hosts, address, &owner()));
            }
        }
    }
}

/// The service-entries, with those of their addresses that are no ranges.
fn single<'a>(context: &Context<'a>) -> Vec<(&'a WrittenServiceEntry, Vec<At<IpAddr>>)> {
    let entries = context.written.service_entries.iter();
    entries
        .map(|entry| (*entry, entry.single_addresses().collect()))
        .collect()
}

/// Who has an address that connections to a service are known by.
#[derive(Clone, Copy)]
enum Owner<'a> {
    Service(&'a WrittenService),
    Entry(&'a WrittenServiceEntry),
    Gateway(&'a WrittenGateway),
}

impl Owner<'_> {
    fn words(self) -> String {
        let (kind, namespace, name) = match self {
            Self::Service(s) => ("service", &s.namespace.value, &s.name.value),
            Self::Entry(e) => ("service-entry", &e.namespace.value, &e.name.value),
            Self::Gateway(g) => ("gateway", &g.namespace.value, &g.name.value),
        };
        format!("{kind} `{namespace}/{name}`")
    }
}

/// Who has an address that packets are really sent to.
#[derive(Clone, Copy)]
enum Host<'a> {
    Node(&'a WrittenNode),
    Workload(&'a WrittenWorkload),
}

impl Host<'_> {
    fn words(self) -> String {
        match self {
            Self::Node(node) => format!("node `{}`", node.name.value),
            Self::Workload(w) => format!("workload `{}/{}`", w.namespace.value, w.name.value),
        }
    }

    /// Whether a workload runs on this machine's own network, where it shares its addresses.
    fn shares_with(self, workload: &WrittenWorkload) -> bool {
        let Self::Node(node) = self else {
            return false;
        };
        let here = workload
            .node
            .as_ref()
            .is_some_and(|name| name.value == node.name.value);
        let capture = workload.capture.as_ref().map(|capture| &capture.value);
        // How one is captured that cannot be read is not known.
        here && capture.is_some_and(|capture| capture.as_ref().is_none_or(shares))
    }
}

#[derive(Default)]
struct Hosts<'a> {
    by_address: HashMap<IpAddr, (Host<'a>, &'a Place)>,
    /// All addresses, in their order, for who asks: nobody does while all is well.
    ordered: OnceCell<BTreeSet<IpAddr>>,
}

impl Hosts<'_> {
    fn ordered(&self, context: &Context<'_>) -> &BTreeSet<IpAddr> {
        self.ordered.get_or_init(|| {
            let of_nodes = context.written.nodes.iter().flat_map(|n| &n.addresses);
            let of_workloads = context.written.workloads.iter().flat_map(|w| &w.addresses);
            let all = of_nodes.chain(of_workloads);
            all.map(|address| address.value).collect()
        })
    }
}

/// Nodes, and workloads that may not be alone with theirs, by address. On different networks one address may be two hosts'.
fn hosts<'a>(context: &Context<'a>, found: &mut Vec<Diagnostic>) -> Hosts<'a> {
    let mut on_network: HashMap<(&str, IpAddr), (Host<'a>, &'a Place)> = HashMap::new();
    let mut hosts = Hosts::default();
    let nodes = context.written.nodes.iter().map(|node| {
        let network = &**context.network_of_node(node);
        (Host::Node(node), network, &node.addresses)
    });
    let of_nodes = context.written.nodes.iter().flat_map(|n| &n.addresses);
    let of_services = context.written.services.iter().flat_map(|s| &s.addresses);
    let of_gateways = context.written.gateways.iter().flat_map(|g| &g.addresses);
    let others = of_nodes.chain(of_services).chain(of_gateways);
    let of_entries = context.written.service_entries.iter();
    let of_entries = of_entries.flat_map(|e| e.single_addresses().map(|a| a.value));
    let others = others.map(|address| address.value).chain(of_entries);
    let workloads = neighbours(&context.files, others).into_iter();
    let workloads = workloads.map(|workload| {
        let network = &**context.network_of(workload);
        (Host::Workload(workload), network, &workload.addresses)
    });
    for (host, network, addresses) in nodes.chain(workloads) {
        for address in addresses {
            if in_range(context, address.value) {
                found.push(inside(context, address, host));
            }
            let key = (network, address.value);
            let Some((other, place)) = on_network.get(&key) else {
                on_network.insert(key, (host, &address.place));
                let by_address = hosts.by_address.entry(address.value);
                by_address.or_insert((host, &address.place));
                continue;
            };
            // One on its machine's own network is judged by that machine's addresses.
            let shared = matches!(host, Host::Workload(workload)
                if sharing::machine(context, workload).is_some() || other.shares_with(workload));
            if !shared {
                found.push(duplicate(address, &host.words(), place, &other.words()));
            }
        }
    }
    hosts
}

fn duplicate(address: &At<IpAddr>, owner: &str, first: &Place, other: &str) -> Diagnostic {
    let message = match owner == other {
        true => format!("{owner} has the address {} twice", address.value),
        false => format!("{owner} has the address of {other}: {}", address.value),
    };
    Diagnostic::new(Code::DuplicateAddress, address.place.clone(), message)
        .label("taken")
        .related(first.clone(), format!("{other} has it"))
        .help("an address says who is meant: give each its own")
}

fn in_range(context: &Context<'_>, address: IpAddr) -> bool {
    context
        .settings
        .service_range
        .iter()
        .any(|range| range.contains(&address))
}

fn inside(context: &Context<'_>, address: &At<IpAddr>, host: Host<'_>) -> Diagnostic {
    let range = context
        .settings
        .service_range
        .iter()
        .find(|range| range.contains(&address.value));
    let range = range.map_or_else(String::new, ToString::to_string);
    let message = format!(
        "{} has an address of the service range {range}: {}",
        host.words(),
        address.value
    );
    let finding = Diagnostic::new(Code::InsideServiceRange, address.place.clone(), message);
    let finding = finding.label("for services only").help(
        "addresses of that range are handed to services; set another `service-range` in `[mesh]`, or another address here",
    );
    with_range(context, finding, "the range is set here")
}

fn outside(
    context: &Context<'_>,
    hosts: &Hosts<'_>,
    address: &At<IpAddr>,
    owner: &str,
) -> Diagnostic {
    let message = format!(
        "{owner} has an address outside every service range: {}",
        address.value
    );
    let ranges = &context.settings.service_range;
    let wider: Vec<_> = ranges
        .iter()
        .copied()
        .chain([free_range(context, hosts, address.value)])
        .collect();
    let wider: Vec<_> = wider.iter().map(|range| format!("\"{range}\"")).collect();
    let help = format!(
        "drop the address to have one assigned, or write `service-range = [{}]` in `[mesh]`",
        wider.join(", ")
    );
    let finding = Diagnostic::new(Code::OutsideServiceRange, address.place.clone(), message);
    with_range(
        context,
        finding.label("in no service range").help(help),
        "the ranges are set here",
    )
}

fn with_range(context: &Context<'_>, finding: Diagnostic, label: &str) -> Diagnostic {
    let settings = context.written.settings.first();
    match settings.and_then(|settings| settings.range.clone()) {
        Some(place) => finding.related(place, label),
        None => finding,
    }
}

/// The widest range around an address that no host is in.
fn free_range(context: &Context<'_>, hosts: &Hosts<'_>, address: IpAddr) -> IpNet {
    let lengths = match address {
        IpAddr::V4(_) => [16, 20, 24, 28, 32],
        IpAddr::V6(_) => [48, 64, 96, 112, 128],
    };
    let around = lengths.into_iter().filter_map(|length| match address {
        IpAddr::V4(v4) => Ipv4Net::new(v4, length)
            .ok()
            .map(|net| IpNet::V4(net.trunc())),
        IpAddr::V6(v6) => Ipv6Net::new(v6, length)
            .ok()
            .map(|net| IpNet::V6(net.trunc())),
    });
    let free = |net: &IpNet| {
        hosts
            .ordered(context)
            .range(net.network()..=net.broadcast())
            .next()
            .is_none()
    };
    let mut around = around.filter(free);
    around.next().unwrap_or_else(|| IpNet::from(address))
}
