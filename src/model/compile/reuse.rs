//! What a compilation takes over from the one before.
//!
//! A compiled workload follows from its declaration and from its [`Surroundings`], and from nothing
//! else: whoever makes one is given no more than these. Where both are as they were, so is the
//! workload, and it is the same memory. That makes a change cost what it changes, here and for all
//! who compare one compilation with the next; it never makes a difference to the result.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Reported;
use crate::identity::TrustDomain;
use crate::model::declaration::{self, Mesh};
use crate::model::service::ServiceKey;
use crate::model::shared::Shared;
use crate::model::workload::{
    GatewayAddress, Health, Locality, Transport, TunnelProtocol, Workload,
};

/// All that a compiled workload is made of besides its own declaration.
#[derive(Clone, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) cluster_id: &'a Arc<str>,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) network: &'a Arc<str>,
    pub(super) locality: &'a Locality,
    pub(super) tunnel: TunnelProtocol,
    pub(super) transport: Transport,
    pub(super) udp: bool,
    pub(super) health: Health,
    /// In the order of their keys, each once.
    pub(super) services: &'a [&'a ServiceKey],
    pub(super) waypoint: Option<&'a GatewayAddress>,
    pub(super) authorization_policies: &'a [Arc<str>],
}

impl Surroundings<'_> {
    /// Whether they are those that `had` was made in.
    fn are_of(&self, had: &Workload) -> bool {
        // Each of them is compared, or the compiler complains.
        let Self {
            cluster_id,
            trust_domain,
            network,
            locality,
            tunnel,
            transport,
            udp,
            health,
            services,
            waypoint,
            authorization_policies,
        } = self;
        had.tunnel == *tunnel
            && had.transport == *transport
            && had.udp == *udp
            && had.health == *health
            && had.network == **network
            && had.locality == **locality
            && had.cluster_id == **cluster_id
            && had.trust_domain == **trust_domain
            && had.services.keys().eq(services.iter().copied())
            && had.waypoint.as_ref() == *waypoint
            && had.authorization_policies == *authorization_policies
    }
}

/// A workload beside what it was made of.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) declared: Shared<declaration::Workload>,
    /// As it is before endpoints are held back.
    pub(super) workload: Arc<Workload>,
    /// The key for want of which it is not captured, though it is enrolled.
    pub(super) missing: Option<&'static str>,
    /// Its node is to capture it.
    pub(super) enrolled: bool,
    /// It is held back for flapping.
    pub(super) held: bool,
}

impl Entry {
    pub(super) fn uid(&self) -> &Arc<str> {
        &self.workload.uid
    }
}

/// What a compilation was made of, for the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    /// The mesh without its workloads.
    world: Option<Arc<Mesh>>,
    /// What waypoints alone are told of.
    routed: Option<Arc<Routed>>,
    reported: Reported,
    /// The HBONE ports of waypoints: besides these, nothing of the world follows from workloads.
    ports: Vec<u16>,
    /// In the order of uids.
    entries: Vec<Entry>,
    /// Workloads outside the mesh, in the order of uids.
    outside: Vec<Arc<Workload>>,
}

/// The parts of a mesh from which nothing but waypoints' resources follow.
#[derive(Clone, Debug, PartialEq)]
struct Routed {
    routes: Vec<declaration::Route>,
    request_authentications: Vec<declaration::RequestAuthentication>,
    destination_rules: Vec<declaration::DestinationRule>,
    telemetry: Vec<declaration::Telemetry>,
}

impl Routed {
    fn are_of(&self, mesh: &Mesh) -> bool {
        self.routes == mesh.routes
            && self.destination_rules == mesh.destination_rules
            && self.request_authentications == mesh.request_authentications
            && self.telemetry == mesh.telemetry
    }
}

impl Made {
    /// Whether an endpoint was held back.
    pub(super) fn holds(&self) -> bool {
        self.entries.iter().any(|entry| entry.held)
    }
}

/// Two compilations are equal or not, whatever there was to take over.
impl PartialEq for Made {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// What there was, seen from the compilation that follows.
pub(super) struct Former<'a> {
    made: &'a Made,
    /// By what tells declarations apart.
    ranks: HashMap<usize, usize>,
    /// All of the mesh but its workloads, when it is as it was.
    world: Option<&'a Arc<Mesh>>,
    /// Routes and destination rules, when they are as they were.
    routed: Option<&'a Arc<Routed>>,
    /// Workloads of which something else is reported now.
    told: HashSet<&'a str>,
    /// The HBONE ports of waypoints now.
    ports: Vec<u16>,
}

impl<'a> Former<'a> {
    pub(super) fn new(
        made: &'a Made,
        mesh: &Mesh,
        reported: &'a Reported,
        ports: Vec<u16>,
    ) -> Self {
        let ranks = made.entries.iter().enumerate();
        let world = made.world.as_ref().filter(|world| is_world(world, mesh));
        let world = world.filter(|_| made.ports == ports);
        Self {
            ranks: ranks
                .map(|(rank, entry)| (entry.declared.id(), rank))
                .collect(),
            told: match world {
                Some(_) => made.reported.differing(reported).collect(),
                None => HashSet::new(),
            },
            routed: made.routed.as_ref().filter(|routed| routed.are_of(mesh)),
            made,
            world,
            ports,
        }
    }

    /// How many workloads there were.
    pub(super) fn len(&self) -> usize {
        self.made.entries.len()
    }

    /// Whether everything but workloads is as it was.
    pub(super) fn same_world(&self) -> bool {
        self.world.is_some()
    }

    /// Whether routes, destination rules and request authentications are as they were.
    pub(super) fn same_routes(&self) -> bool {
        self.routed.is_some()
    }

    /// Workloads outside the mesh. They follow from the world and the networks that workloads are on.
    pub(super) fn outside(&self) -> &'a [Arc<Workload>] {
        &self.made.outside
    }

    /// Whether there are none but these, in the same memory.
    pub(super) fn has_outside(&self, outside: &[Arc<Workload>]) -> bool {
        let had = &self.made.outside;
        let mut both = had.iter().zip(outside);
        had.len() == outside.len() && both.all(|(had, has)| Arc::ptr_eq(had, has))
    }

    /// Where among the uids the workload of a declaration was; past all others when it is new.
    pub(super) fn rank(&self, declared: &Shared<declaration::Workload>) -> usize {
        let rank = self.ranks.get(&declared.id());
        rank.copied().unwrap_or(usize::MAX)
    }

    /// The entry of that rank, when nothing that it follows from has changed.
    pub(super) fn entry(&self, rank: usize) -> Option<&'a Entry> {
        self.world?;
        let entry = self.made.entries.get(rank)?;
        (self.told.is_empty() || !self.told.contains(&**entry.uid())).then_some(entry)
    }

    /// The uid of that rank's workload, if it is of that cluster.
    pub(super) fn uid(&self, rank: usize, cluster_id: &Arc<str>) -> Option<Arc<str>> {
        let entry = self.made.entries.get(rank)?;
        let same = entry.workload.cluster_id == *cluster_id;
        same.then(|| Arc::clone(entry.uid()))
    }

    /// The workload of that rank, if it was made in the same surroundings.
    pub(super) fn same(
        &self,
        rank: usize,
        surroundings: &Surroundings<'_>,
    ) -> Option<&'a Arc<Workload>> {
        let had = &self.made.entries.get(rank)?.workload;
        surroundings.are_of(had).then_some(had)
    }

    /// What has become of its entries, now that those in `kept`, by rank, are left, and `new` ones
    /// have come, in no particular order, each with its rank.
    ///
    /// # Errors
    /// The uid that two of them have.
    pub(super) fn followed_by(
        &self,
        kept: &[bool],
        mut new: Vec<(usize, Entry)>,
    ) -> Result<Change<'a>, Arc<str>> {
        // First the order that those had who were there, which makes the other sort a short one.
        new.sort_by_key(|(rank, _)| *rank);
        new.sort_by(|(_, a), (_, b)| a.uid().cmp(b.uid()));
        let stays = |(_, kept): &(&Entry, &bool)| **kept;
        let both = || self.made.entries.iter().zip(kept);
        let left: Vec<Entry> = both()
            .filter(stays)
            .map(|(entry, _)| entry.clone())
            .collect();
        let gone = both().filter(|both| !stays(both)).map(|(entry, _)| entry);
        let mut entries: Vec<Entry> = Vec::with_capacity(left.len() + new.len());
        let mut come = Vec::with_capacity(new.len());
        let mut left = left.into_iter();
        for (_, entry) in new {
            let rest = left.as_slice();
            let before = rest.partition_point(|other| other.uid() < entry.uid());
            entries.extend(left.by_ref().take(before));
            let mut beside = entries.last().into_iter().chain(left.as_slice().first());
            if beside.any(|other| other.uid() == entry.uid()) {
                return Err(Arc::clone(entry.uid()));
            }
            come.push(entries.len());
            entries.push(entry);
        }
        entries.extend(left);
        Ok(Change {
            gone: gone.collect(),
            entries,
            come,
        })
    }

    /// What the next compilation is to know of this one.
    pub(super) fn next(
        &self,
        mesh: &Mesh,
        reported: &Reported,
        entries: Vec<Entry>,
        outside: Vec<Arc<Workload>>,
    ) -> Made {
        let world = self.world.cloned();
        Made {
            world: Some(world.unwrap_or_else(|| Arc::new(world_of(mesh)))),
            routed: Some(self.routed.cloned().unwrap_or_else(|| {
                Arc::new(Routed {
                    routes: mesh.routes.clone(),
                    request_authentications: mesh.request_authentications.clone(),
                    destination_rules: mesh.destination_rules.clone(),
                    telemetry: mesh.telemetry.clone(),
                })
            })),
            reported: reported.clone(),
            ports: self.ports.clone(),
            entries,
            outside,
        }
    }
}

/// The entries of a mesh, and how they differ from those of the one before.
pub(super) struct Change<'a> {
    /// In the order of uids.
    pub(super) entries: Vec<Entry>,
    gone: Vec<&'a Entry>,
    come: Vec<usize>,
}

impl Change<'_> {
    /// Those that are no more, or no more what they were.
    pub(super) fn gone(&self) -> impl Iterator<Item = &Entry> {
        self.gone.iter().copied()
    }

    /// Those that are new, or are something else than they were.
    pub(super) fn come(&self) -> impl Iterator<Item = &Entry> {
        self.come.iter().filter_map(|at| self.entries.get(*at))
    }
}

/// Whether a mesh has all of this world, and no more of it.
fn is_world(world: &Mesh, mesh: &Mesh) -> bool {
    // Each part is compared, or the compiler complains.
    let Mesh {
        settings,
        nodes,
        namespaces,
        workloads: _,
        services,
        gateways,
        authorization_policies,
        peer_authentications,
        // Nothing but what waypoints are told follows from these.
        request_authentications: _,
        telemetry: _,
        rate_limits: _,
        routes: _,
        destination_rules: _,
        service_entries,
    } = mesh;
    *settings == world.settings
        && *nodes == world.nodes
        && *namespaces == world.namespaces
        && *services == world.services
        && *gateways == world.gateways
        && *authorization_policies == world.authorization_policies
        && *peer_authentications == world.peer_authentications
        && *service_entries == world.service_entries
}

fn world_of(mesh: &Mesh) -> Mesh {
    Mesh {
        settings: mesh.settings.clone(),
        nodes: mesh.nodes.clone(),
        namespaces: mesh.namespaces.clone(),
        workloads: Vec::new(),
        services: mesh.services.clone(),
        gateways: mesh.gateways.clone(),
        authorization_policies: mesh.authorization_policies.clone(),
        peer_authentications: mesh.peer_authentications.clone(),
        request_authentications: Vec::new(),
        telemetry: Vec::new(),
        rate_limits: Vec::new(),
        routes: Vec::new(),
        destination_rules: Vec::new(),
        service_entries: mesh.service_entries.clone(),
    }
}

#[cfg(test)]
mod tests;
