//! From the mesh as declared to the mesh as every process sees it.
//!
//! [`compile`] is a pure function of three values: the declaration, what nodes have [`Reported`]
//! about their workloads, and the service addresses [assigned](Assignments) before. Equal inputs
//! give equal outputs on every control plane. What a resource looks like on the wire is
//! `wire::convert`'s business; numbering and publishing are `control`'s.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;

use super::binding::Bindable;
use super::declaration::{self, Capture, DataplaneMode, HealthCheck, Mesh, Proxy};
use super::policy::Policy;
use super::service::{LoadBalancing, NetworkAddress, Service, ServiceKey, ServicePort, Visibility};
use super::shared::Shared;
use super::sharing::shares;
use super::workload::{Health, Locality, NetworkMode, Transport, TunnelProtocol, Workload};

pub mod addresses;
mod distribution;
mod endpoints;
mod gateways;
mod membership;
mod outcome;
mod placements;
pub mod policies;
mod presented;
mod reuse;
mod selectors;
mod service_entries;
pub mod waypoints;

pub use addresses::Assignments;
pub use endpoints::{ByService, Endpoints};
use gateways::Gateways;
pub use gateways::{Instance, Served};
use membership::Membership;
pub use outcome::{CompileError, Warning};
use policies::Attached;
use presented::{Presented, presented};
use reuse::{Change, Entry, Former, Made, Surroundings};
use service_entries::Entries;
pub use waypoints::Waypoints;

/// What is known of one workload beyond its declaration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its node has confirmed that its traffic is captured, and has not taken that back.
    pub captured: bool,
    /// Whether it should be given traffic.
    pub health: Health,
    /// It has gone up and down too often of late to be given traffic while there are others.
    pub held: bool,
}

/// What nodes have said about their workloads, by uid. A workload not in it is healthy and not
/// captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported(Arc<HashMap<Arc<str>, Observed>>);

impl Reported {
    /// What is known of the workload `uid`.
    pub fn of(&self, uid: &str) -> Observed {
        self.0.get(uid).copied().unwrap_or_default()
    }

    /// All of it, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Observed)> {
        self.0.iter()
    }

    /// The workloads of which the other knows something else. Of what is shared nothing is looked at.
    fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let shared = Arc::ptr_eq(&self.0, &other.0);
        let either = [self, other].into_iter().filter(move |_| !shared);
        let uids = either.flat_map(|reported| reported.0.keys());
        let differs = |uid: &&Arc<str>| self.of(uid) != other.of(uid);
        uids.filter(differs).map(|uid| &**uid)
    }

    /// Forgets a workload.
    pub fn forget(&mut self, uid: &str) {
        Arc::make_mut(&mut self.0).remove(uid);
    }

    /// Replaces what is known of a workload; says whether that changed anything.
    pub fn set(&mut self, uid: Arc<str>, observed: Observed) -> bool {
        let all = Arc::make_mut(&mut self.0);
        all.insert(uid, observed).unwrap_or_default() != observed
    }
}

impl FromIterator<(Arc<str>, Observed)> for Reported {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Observed)>>(entries: I) -> Self {
        Self(Arc::new(entries.into_iter().collect()))
    }
}

/// How one workload is captured and probed on its node: what the node must know and nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The workload's uid.
    pub uid: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Whether its traffic is to be captured. Only ever true when `capture` is given.
    pub enrolled: bool,
    /// How, when the mesh files say.
    pub capture: Option<Capture>,
    /// How it is probed; none means it passes while it exists.
    pub health: Option<HealthCheck>,
    /// Whether its questions for names are captured too; none means as its node's settings say.
    pub dns_capture: Option<bool>,
}

impl Placement {
    /// Whether both are captured as the same workload in the same way, however they are probed.
    pub fn captured_like(&self, other: &Self) -> bool {
        let names = |p: &Self| [&p.uid, &p.name, &p.namespace, &p.service_account].map(Arc::clone);
        let how = |p: &Self| (p.enrolled, p.capture.clone(), p.dns_capture);
        how(self) == how(other) && names(self) == names(other)
    }
}

/// The mesh as every process sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// Workloads in the order of their uids.
    pub workloads: Vec<Arc<Workload>>,
    /// Services in the order of their keys.
    pub services: Vec<Arc<Service>>,
    /// The policies that node proxies evaluate, in the order of their keys.
    pub policies: Vec<Arc<Policy>>,
    /// Placements by node, each in the order of their uids. Every declared node has an entry.
    pub placements: Placements,
    /// The instances of waypoints that run on each node.
    pub served: Served,
    /// Declared nodes that run another proxy, which reports nothing.
    pub mute: BTreeSet<Arc<str>>,
    /// How many endpoints each service has that has any.
    pub endpoints: ByService,
    /// Addresses of the services that declare none; to be handed to the next compilation.
    pub assignments: Assignments,
    /// What each waypoint is told beside all that.
    pub waypoints: Waypoints,
    /// What works, but perhaps not as meant.
    pub warnings: Vec<Warning>,
    made: Made,
}

/// Placements by node.
pub type Placements = BTreeMap<Arc<str>, Arc<Vec<Placement>>>;

/// The uid of a declared workload (`spec/control-plane.md` §3.2).
pub fn workload_uid(cluster_id: &str, namespace: &str, name: &str) -> Arc<str> {
    Arc::from(format!("{cluster_id}/lateen/Workload/{namespace}/{name}"))
}

/// The key of a declared service: `namespace` and `name.namespace.domain`.
pub fn service_key(name: &str, namespace: &Arc<str>, domain: &str) -> ServiceKey {
    ServiceKey {
        namespace: namespace.clone(),
        hostname: Arc::from(format!("{name}.{namespace}.{domain}")),
    }
}

/// Compiles a mesh.
///
/// # Errors
/// [`CompileError`]; the revision in force stays as it is.
pub fn compile(
    mesh: &Mesh,
    reported: &Reported,
    previous: &Assignments,
) -> Result<Compiled, CompileError> {
    recompile(mesh, reported, previous, &Compiled::default())
}

/// The same as [`compile`], at the cost of what has changed since `before` was compiled: every
/// workload that is as it was is the same memory.
///
/// # Errors
/// Those of [`compile`].
pub fn recompile(
    mesh: &Mesh,
    reported: &Reported,
    previous: &Assignments,
    before: &Compiled,
) -> Result<Compiled, CompileError> {
    let mut warnings = Vec::new();
    let keys = service_keys(mesh)?;
    let gateways = Gateways::new(mesh)?;
    let outside = Entries::new(mesh, &gateways);
    let former = Former::new(&before.made, mesh, reported, gateways.ports());
    let stays = former.same_world();
    let attached = LazyCell::new(|| Attached::new(mesh));
    let around = (&gateways, &attached);
    let (change, uncaptured) = entries(mesh, (&keys, &outside), reported, &former, around)?;
    let assignments = match stays && keeps_addresses(before, previous, &change) {
        true => previous.clone(),
        false => addresses::assign(
            mesh,
            &wanting(mesh, &keys, &gateways, &outside),
            previous,
            &mut warnings,
        )?,
    };
    warnings.extend(uncaptured);
    let entries = &change.entries;
    let workloads: Vec<_> = entries.iter().map(|e| Arc::clone(&e.workload)).collect();
    let instances = gateways.instances(reported, &before.workloads);
    let mut held = instances.held;
    let elsewhere = |e: &Entry| e.workload.network != mesh.settings.network;
    let same_networks = !change.gone().chain(change.come()).any(elsewhere);
    let external = if stays && same_networks {
        former.outside().to_vec()
    } else if outside.all.is_empty() {
        Vec::new()
    } else {
        let networks = networks(mesh, workloads.iter().chain(&instances.all));
        outside.workloads(&networks, &before.workloads)
    };
    let same_outside = former.has_outside(&external);
    let others = instances.all.into_iter().chain(external.iter().cloned());
    let mut workloads = merged(workloads, others.collect())?;
    let flapping = entries.iter().filter(|e| e.held);
    held.extend(flapping.map(|e| Arc::clone(e.uid())));
    let steady = instances.same && held.is_empty() && !before.made.holds();
    let endpoints = match stays && steady && same_outside {
        true => endpoints::recount(&before.endpoints, &change),
        false => endpoints::settle(&mut workloads, &held),
    };
    let placements = match stays {
        true => placements::replaced(&before.placements, &change),
        false => placements::of(mesh, entries),
    };
    let same = endpoints == before.endpoints && assignments == before.assignments;
    let same = same && presented::same(&change);
    let services = match stays && same && same_networks {
        true => before.services.clone(),
        false => services(
            mesh,
            (&keys, &gateways, &outside),
            &assignments,
            (&endpoints, &presented(entries)),
            &workloads,
        )?,
    };
    let lists = |e: &Entry| !e.workload.authorization_policies.is_empty();
    let policies = match stays && !change.gone().chain(change.come()).any(lists) {
        true => before.policies.clone(),
        false => unique(attached.policies(&workloads))?,
    };
    let waypoints = match stays
        && former.same_routes()
        && waypoints::same_addresses(&before.services, &services)
        && same_outside
        && !waypoints::concerns(&before.waypoints, &change)
    {
        true => before.waypoints.clone(),
        false => {
            let known = waypoints::Known {
                mesh,
                keys: &keys,
                gateways: &gateways,
                services: &services,
                entries,
                hosts: &outside.all,
                outside: &external,
            };
            waypoints::of(&known, &before.waypoints)
        }
    };
    Ok(Compiled {
        policies,
        made: former.next(mesh, reported, change.entries, external),
        placements,
        served: gateways.by_node(),
        workloads,
        services,
        mute: mute(mesh),
        waypoints,
        endpoints,
        assignments,
        warnings,
    })
}

/// A policy of the operator's must not pass for one that a peer authentication came to.
fn unique(policies: Vec<Arc<Policy>>) -> Result<Vec<Arc<Policy>>, CompileError> {
    match policies.windows(2).find(|pair| pair[0].key == pair[1].key) {
        Some(pair) => Err(CompileError::Duplicate {
            name: pair[0].key.to_string(),
        }),
        None => Ok(policies),
    }
}

/// Whether nobody who has come claims an address that is assigned, in a world that is as it was.
fn keeps_addresses(before: &Compiled, previous: &Assignments, change: &Change<'_>) -> bool {
    let claimed = change.come().flat_map(|entry| &entry.declared.addresses);
    before.assignments == *previous && !previous.meets(claimed)
}

/// One key per service, in the order they were written.
fn service_keys(mesh: &Mesh) -> Result<Vec<ServiceKey>, CompileError> {
    let domain = &mesh.settings.domain;
    let services = mesh.services.iter();
    services
        .map(|s| keyed(&s.name, &s.namespace, domain))
        .collect()
}

/// The key of what has a host name.
fn keyed(name: &str, namespace: &Arc<str>, domain: &str) -> Result<ServiceKey, CompileError> {
    let key = service_key(name, namespace, domain);
    match key.hostname.parse::<IpAddr>() {
        Ok(_address) => Err(CompileError::HostnameIsAddress {
            hostname: key.hostname,
        }),
        Err(_name) => Ok(key),
    }
}

/// Services, waypoints and hosts outside that declare no address and are to have one.
fn wanting<'a>(
    mesh: &Mesh,
    keys: &'a [ServiceKey],
    gateways: &'a Gateways<'_>,
    outside: &'a Entries<'_>,
) -> Vec<&'a ServiceKey> {
    let services = mesh.services.iter().zip(keys);
    let services = services.filter(|(s, _)| s.addresses.is_empty() && !s.headless);
    let waypoints = gateways.all.iter();
    let waypoints = waypoints.filter(|c| c.declared.addresses.is_empty());
    let services = services.map(|(_, key)| key);
    let hosts = outside.all.iter().filter(|host| host.wants_address());
    let hosts = hosts.map(|host| &host.key);
    let waypoints = waypoints.map(|c| &c.key);
    services.chain(waypoints).chain(hosts).collect()
}

/// Both in the order of their uids.
fn merged(
    workloads: Vec<Arc<Workload>>,
    others: Vec<Arc<Workload>>,
) -> Result<Vec<Arc<Workload>>, CompileError> {
    if others.is_empty() {
        return Ok(workloads);
    }
    let mut all = workloads;
    all.extend(others);
    // Runs that are in order, which this sort makes one of at the cost of a merge.
    all.sort_by(|a, b| a.uid.cmp(&b.uid));
    match all.windows(2).find(|pair| pair[0].uid == pair[1].uid) {
        Some(pair) => Err(CompileError::Duplicate {
            name: pair[0].uid.to_string(),
        }),
        None => Ok(all),
    }
}

fn services(
    mesh: &Mesh,
    (keys, gateways, outside): (&[ServiceKey], &Gateways<'_>, &Entries<'_>),
    assignments: &Assignments,
    (endpoints, presented): (&ByService, &Presented),
    workloads: &[Arc<Workload>],
) -> Result<Vec<Arc<Service>>, CompileError> {
    let networks = networks(mesh, workloads.iter());
    let vips = |key: &ServiceKey, declared: &[IpAddr]| match declared {
        [] => on_each(&networks, assignments.of(key)),
        declared => on_each(&networks, declared),
    };
    let names = |key: &ServiceKey| {
        let names = presented.get(key);
        names.into_iter().flatten().map(Arc::clone).collect()
    };
    let build = |(declared, key): (&declaration::Service, &ServiceKey)| {
        let mut service = Service {
            key: key.clone(),
            name: declared.name.clone(),
            vips: vips(key, &declared.addresses),
            ports: declared.ports.iter().map(port).collect(),
            udp_ports: declared.udp_ports.clone(),
            subject_alt_names: names(key),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            load_balancing: LoadBalancing {
                health_policy: endpoints.get(key).copied().unwrap_or_default().policy(),
                ..distribution::preferred(declared.traffic_distribution)
            },
            ip_families: super::service::IpFamilies::Automatic,
            canonical: false,
            ingress_use_waypoint: false,
            visibility: Visibility::Public,
        };
        let object = Bindable::from(declared);
        gateways.bind(object, declared.ingress_use_waypoint, &mut service);
        Arc::new(service)
    };
    let mut services: Vec<_> = mesh.services.iter().zip(keys).map(build).collect();
    services.extend(gateways.services(&vips, endpoints).map(Arc::new));
    services.extend(outside.services(gateways, &vips, endpoints).map(Arc::new));
    services.sort_by(|a, b| a.key.cmp(&b.key));
    match services.windows(2).find(|pair| pair[0].key == pair[1].key) {
        Some(pair) => Err(CompileError::Duplicate {
            name: pair[0].key.to_string(),
        }),
        None => Ok(services),
    }
}

/// A service is reached at its address from every network of the mesh, so it is known by that
/// address on each of them.
fn networks<'a>(
    mesh: &'a Mesh,
    workloads: impl Iterator<Item = &'a Arc<Workload>>,
) -> BTreeSet<&'a Arc<str>> {
    let used = workloads.map(|w| &w.network);
    used.chain([&mesh.settings.network]).collect()
}

fn on_each(networks: &BTreeSet<&Arc<str>>, addresses: &[IpAddr]) -> Vec<NetworkAddress> {
    let on = |network: &&Arc<str>| {
        let network = Arc::clone(network);
        addresses.iter().map(move |address| NetworkAddress {
            network: Arc::clone(&network),
            address: *address,
        })
    };
    networks.iter().flat_map(on).collect()
}

fn port(declared: &declaration::Port) -> ServicePort {
    ServicePort {
        service_port: declared.port,
        target_port: declared.target_port,
        app_protocol: declared.app_protocol,
    }
}

/// The entries of all workloads, and warnings about those that are enrolled in vain.
fn entries<'a, 'm>(
    mesh: &'m Mesh,
    (keys, outside): (&[ServiceKey], &Entries<'_>),
    reported: &Reported,
    former: &Former<'a>,
    (gateways, attached): (&Gateways<'m>, &impl Deref<Target = Attached<'m>>),
) -> Result<(Change<'a>, Vec<Warning>), CompileError> {
    let membership = LazyCell::new(|| Membership::new(mesh, keys, outside, former.same_world()));
    let (mut warnings, mut new) = (Vec::new(), Vec::new());
    let mut kept = vec![false; former.len()];
    for declared in &mesh.workloads {
        let rank = former.rank(declared);
        let same = former.entry(rank).zip(kept.get_mut(rank));
        let missing = match same {
            Some((entry, kept @ false)) => {
                *kept = true;
                entry.missing
            }
            _ => {
                let around = (&*membership, gateways, &**attached);
                let entry = entry(mesh, around, reported, former, declared, rank);
                let missing = entry.missing;
                new.push((rank, entry));
                missing
            }
        };
        warnings.extend(missing.map(|missing| Warning::NotCaptured {
            workload: format!("{}/{}", declared.namespace, declared.name),
            missing,
        }));
    }
    match former.followed_by(&kept, new) {
        Ok(change) => Ok((change, warnings)),
        Err(uid) => Err(CompileError::Duplicate {
            name: uid.to_string(),
        }),
    }
}

fn entry<'m>(
    mesh: &'m Mesh,
    (membership, gateways, attached): (&Membership<'_>, &Gateways<'m>, &Attached<'m>),
    reported: &Reported,
    former: &Former<'_>,
    declared: &'m Shared<declaration::Workload>,
    rank: usize,
) -> Entry {
    let settings = &mesh.settings;
    let node = node_of(mesh, declared);
    let foreign = node.is_some_and(|node| node.proxy == Proxy::Ztunnel);
    let enrolled = enrolled(mesh, declared);
    let missing = match (&declared.node, &declared.capture) {
        _ if !enrolled => None,
        (None, _) => Some("node"),
        (_, None) if !foreign => Some("capture"),
        _ => None,
    };
    let captured = enrolled && missing.is_none();
    let named = || workload_uid(&settings.cluster_id, &declared.namespace, &declared.name);
    let uid = former.uid(rank, &settings.cluster_id).unwrap_or_else(named);
    let observed = match foreign || declared.node.is_none() {
        // What was last heard would hold for ever where nobody reports.
        true => Observed::default(),
        false => reported.of(&uid),
    };
    let mut services: Vec<_> = membership.of(declared).collect();
    services.sort();
    let policies = attached.listed_on(declared, &services);
    let waypoint = gateways.of_workload(declared);
    let surroundings = Surroundings {
        cluster_id: &settings.cluster_id,
        trust_domain: &settings.trust_domain,
        network: network_of(mesh, node, declared),
        locality: locality(node, declared),
        tunnel: match captured && (foreign || observed.captured) {
            true => TunnelProtocol::Hbone,
            false => TunnelProtocol::None,
        },
        transport: transport(mesh, node, &declared.namespace, declared.transport),
        udp: {
            let ours = node.is_some_and(|node| node.proxy == Proxy::Lateen);
            let takes = ours && declared.capture.is_some();
            takes && services.iter().any(|key| membership.has_udp(key))
        },
        health: observed.health,
        services: &services,
        waypoint: waypoint.as_ref(),
        authorization_policies: &policies,
    };
    Entry {
        workload: match former.same(rank, &surroundings) {
            Some(same) => Arc::clone(same),
            None => Arc::new(workload(declared, uid, &surroundings)),
        },
        declared: declared.clone(),
        missing,
        enrolled: captured && !foreign,
        held: observed.held,
    }
}

/// Given no more than the two it follows from: see [`reuse`].
fn workload(
    declared: &declaration::Workload,
    uid: Arc<str>,
    surroundings: &Surroundings<'_>,
) -> Workload {
    let label = |keys: &[&str]| {
        let named = keys.iter().find_map(|key| declared.labels.get(*key));
        named.map(|value| Arc::from(value.as_str()))
    };
    let services = surroundings.services.iter();
    Workload {
        uid,
        name: declared.name.clone(),
        namespace: declared.namespace.clone(),
        service_account: declared.service_account.clone(),
        trust_domain: surroundings.trust_domain.clone(),
        addresses: declared.addresses.clone(),
        hostname: Arc::default(),
        network: surroundings.network.clone(),
        tunnel: surroundings.tunnel,
        transport: surroundings.transport,
        udp: surroundings.udp,
        node: declared.node.clone().unwrap_or_default(),
        network_mode: network_mode(declared.capture.as_ref()),
        health: surroundings.health,
        capacity: declared.capacity,
        locality: surroundings.locality.clone(),
        services: services.map(|key| ((*key).clone(), Vec::new())).collect(),
        waypoint: surroundings.waypoint.cloned(),
        network_gateway: None,
        authorization_policies: surroundings.authorization_policies.to_vec(),
        canonical_name: label(&CANONICAL_NAME).unwrap_or_else(|| declared.name.clone()),
        canonical_revision: label(&CANONICAL_REVISION).unwrap_or_else(|| Arc::from("latest")),
        workload_name: label(&WORKLOAD_NAME).unwrap_or_else(|| declared.name.clone()),
        cluster_id: surroundings.cluster_id.clone(),
    }
}

/// Labels that name a workload in telemetry, the first that is set wins
/// (`spec/labels-and-policy.md` §1.1).
const CANONICAL_NAME: [&str; 3] = [
    "service.istio.io/canonical-name",
    "app.kubernetes.io/name",
    "app",
];
const CANONICAL_REVISION: [&str; 3] = [
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
];
const WORKLOAD_NAME: [&str; 1] = ["service.istio.io/workload-name"];

fn mute(mesh: &Mesh) -> BTreeSet<Arc<str>> {
    let nodes = mesh.nodes.iter();
    let mute = nodes.filter(|(_, node)| node.proxy == Proxy::Ztunnel);
    mute.map(|(name, _)| Arc::clone(name)).collect()
}

/// `spec/labels-and-policy.md` §1.3: the workload's own word, else its namespace's.
fn enrolled(mesh: &Mesh, declared: &declaration::Workload) -> bool {
    let namespace = mesh.namespaces.get(&declared.namespace);
    let mode = declared
        .dataplane_mode
        .or_else(|| namespace.and_then(|n| n.dataplane_mode));
    mode == Some(DataplaneMode::Ambient)
}

/// Programs on the host's own network share its address, so no address names one of them.
fn network_mode(capture: Option<&Capture>) -> NetworkMode {
    match capture.is_some_and(shares) {
        true => NetworkMode::HostNetwork,
        false => NetworkMode::Standard,
    }
}

fn node_of<'a>(mesh: &'a Mesh, declared: &declaration::Workload) -> Option<&'a declaration::Node> {
    mesh.nodes.get(declared.node.as_ref()?)
}

fn network_of<'a>(
    mesh: &'a Mesh,
    node: Option<&'a declaration::Node>,
    declared: &'a declaration::Workload,
) -> &'a Arc<str> {
    let node = node.map(|node| &node.network);
    [Some(&declared.network), node]
        .into_iter()
        .flatten()
        .find(|network| !network.is_empty())
        .unwrap_or(&mesh.settings.network)
}

/// The workload's `own` word, else its namespace's, its node's and the mesh's, where the node runs a
/// proxy that has a choice.
fn transport(
    mesh: &Mesh,
    node: Option<&declaration::Node>,
    namespace: &str,
    own: Option<Transport>,
) -> Transport {
    let Some(node) = node.filter(|node| node.proxy == Proxy::Lateen) else {
        return Transport::Tcp;
    };
    let namespace = mesh.namespaces.get(namespace);
    own.or_else(|| namespace?.transport)
        .or(node.transport)
        .unwrap_or(mesh.settings.transport)
}

fn locality<'a>(
    node: Option<&'a declaration::Node>,
    declared: &'a declaration::Workload,
) -> &'a Locality {
    match node {
        Some(node) if declared.locality == Locality::default() => &node.locality,
        _ => &declared.locality,
    }
}

/// Whether an address can be a single host's: neither unspecified nor the IPv4 broadcast.
fn is_host(address: IpAddr) -> bool {
    !address.is_unspecified() && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
