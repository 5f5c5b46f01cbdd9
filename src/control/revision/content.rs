//! What a revision is made of, and how two of them differ.

use std::collections::{HashMap, HashSet};

use super::{
    Arc, BTreeMap, BTreeSet, Changes, Compiled, Kind, Names, Resource, Resources, Version, convert,
    resource,
};
use crate::model::service::{HealthPolicy, Service, ServiceKey};
use crate::model::workload::{NetworkMode, Workload};
use crate::wire::convert::Address;

mod beside;
mod placed;
mod told;

use beside::beside;
pub(super) use placed::Placed;
pub(super) use told::Told;

/// The encoded resources of a mesh.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// What addresses and placements were encoded from.
    compiled: Arc<Compiled>,
    pub(super) addresses: Resources,
    pub(super) authorizations: Resources,
    /// Those that are enforced, where some are only tried.
    pub(super) enforced: Option<Resources>,
    /// Whom to believe; one resource, or none where nobody says.
    pub(super) trust: Resources,
    /// By node; every declared node has an entry.
    pub(super) placements: BTreeMap<Arc<str>, Arc<Placed>>,
    /// What waypoints are told.
    pub(super) told: Told,
    /// Nodes of which nothing is to be heard.
    pub(super) mute: BTreeSet<Arc<str>>,
}

/// What a node is to report of a workload, or of a waypoint that it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// It is to be captured.
    pub capture: bool,
    /// It has a health check, or serves or not.
    pub probe: bool,
}

impl Content {
    /// Encodes a compiled mesh. What is as `previous` has it is taken over, and of what was
    /// compiled to the same, that is found without being encoded.
    pub fn encode(compiled: &Arc<Compiled>, previous: Option<&Self>) -> Self {
        let none = Self::default();
        let previous = previous.unwrap_or(&none);
        let placed = |(node, placements): (&Arc<str>, &Arc<Vec<_>>)| {
            let served = compiled.served.get(node);
            let before = &previous.compiled;
            let unchanged = before.placements.get(node) == Some(placements)
                && before.served.get(node) == served;
            let had = previous.placements.get(node);
            let same = had.filter(|_| unchanged).cloned();
            let served = served.map_or(&[][..], Vec::as_slice);
            let encode = || Arc::new(Placed::encode(placements, served, had.map(|had| &**had)));
            (node.clone(), same.unwrap_or_else(encode))
        };
        let authorizations = previous.policies_of(compiled);
        let enforced = compiled.policies.iter().any(|p| p.dry_run).then(|| {
            let enforced = compiled.policies.iter().filter(|p| !p.dry_run);
            let kept = enforced.filter_map(|p| authorizations.get(&p.key).cloned());
            kept.map(named).collect()
        });
        Self {
            addresses: previous.addresses_of(compiled),
            authorizations,
            enforced,
            trust: Resources::new(),
            told: Told::encode(compiled, &previous.told, &previous.compiled),
            placements: compiled.placements.iter().map(placed).collect(),
            mute: compiled.mute.clone(),
            compiled: Arc::clone(compiled),
        }
    }

    /// What it was encoded from.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// The addresses of another compilation.
    fn addresses_of(&self, next: &Compiled) -> Resources {
        let before = &self.compiled;
        let mut addresses = self.addresses.clone();
        let mut told = HashSet::new();
        for (had, has) in beside(&before.services, &next.services, |s| &s.key) {
            if had == has {
                continue;
            }
            if had.map(|s| state(s)) != has.map(|s| state(s)) {
                told.extend(had.or(has).map(|s| &s.key));
            }
            change(&mut addresses, had, has, Address::Service, &[]);
        }
        let by_key: HashMap<_, _> = next.services.iter().map(|s| (&s.key, &**s)).collect();
        for (had, has) in beside(&before.workloads, &next.workloads, |w| &w.uid) {
            let derives = |w: &Arc<Workload>| w.services.keys().any(|key| told.contains(key));
            let derived_anew = !told.is_empty() && has.is_some_and(derives);
            if had == has && !derived_anew {
                continue;
            }
            let derived = has.map(|w| derived(w, &by_key)).unwrap_or_default();
            change(&mut addresses, had, has, Address::Workload, &derived);
        }
        addresses
    }

    /// The policies of another compilation.
    fn policies_of(&self, next: &Compiled) -> Resources {
        let mut policies = self.authorizations.clone();
        for (had, has) in beside(&self.compiled.policies, &next.policies, |p| &p.key) {
            if had == has {
                continue;
            }
            if let Some(gone) = had {
                policies.remove(&gone.key);
            }
            policies.extend(has.map(|policy| {
                let body = convert::encode_policy(policy);
                let version = Version::of(&body, &[]);
                let kind = Kind::Authorization;
                named(Arc::new(resource(
                    kind,
                    &policy.key,
                    version,
                    Vec::new(),
                    body,
                )))
            }));
        }
        policies
    }

    /// The same content with other L4 policies, given as name and encoded `istio.security.Authorization`.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_authorizations(
        self,
        policies: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Self {
        let encode = |(name, body): (String, Vec<u8>)| {
            let version = Version::of(&body, &[]);
            let kind = Kind::Authorization;
            named(Arc::new(resource(kind, &name, version, Vec::new(), body)))
        };
        Self {
            authorizations: policies.into_iter().map(encode).collect(),
            enforced: None,
            ..self
        }
    }

    /// The same content with an encoded `lateen.v1.TrustBundle`; an empty one is none.
    #[must_use]
    pub fn with_trust(self, bundle: &[u8]) -> Self {
        let encode = || {
            let version = Version::of(bundle, &[]);
            let name = convert::TRUST_NAME;
            let body = bundle.to_vec();
            named(Arc::new(resource(
                Kind::Trust,
                name,
                version,
                Vec::new(),
                body,
            )))
        };
        Self {
            trust: (!bundle.is_empty()).then(encode).into_iter().collect(),
            ..self
        }
    }

    /// Whether both offer the same resources to the same nodes.
    pub fn same_as(&self, other: &Self) -> bool {
        self.placements.keys().eq(other.placements.keys())
            && self.mute == other.mute
            && self.changes_to(other) == Changes::default()
    }

    pub(super) fn trust_differs(&self, other: &Self) -> bool {
        !changed(&self.trust, &other.trust).is_empty()
    }

    /// SHA-256 over the versions of what every client sees (§2.6).
    pub(super) fn digest(&self) -> [u8; 32] {
        let seen = [
            (Kind::Address, &self.addresses),
            (Kind::Authorization, &self.authorizations),
        ];
        let seen = seen
            .into_iter()
            .flat_map(|(kind, all)| all.values().map(move |r| (kind.type_url(), r)));
        convert::digest(seen.map(|(url, resource)| (url, &*resource.name, resource.version)))
    }

    pub(super) fn totals(&self) -> BTreeMap<String, u32> {
        let total = |kind: Kind, all: &Resources| {
            let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
            (kind.type_url().to_owned(), count)
        };
        [
            total(Kind::Address, &self.addresses),
            total(Kind::Authorization, &self.authorizations),
        ]
        .into()
    }

    pub(super) fn size(&self) -> usize {
        let all = self.addresses.values().chain(self.authorizations.values());
        all.map(|resource| resource.encoded.len()).sum()
    }

    pub(super) fn aliases(&self) -> BTreeMap<String, Vec<Arc<str>>> {
        let mut aliases: BTreeMap<String, Vec<Arc<str>>> = BTreeMap::new();
        for resource in self.addresses.values() {
            for alias in &resource.lookup {
                let names = aliases.entry(alias.clone()).or_default();
                names.push(resource.name.clone());
            }
        }
        aliases
    }

    pub(super) fn endpoints(&self) -> BTreeMap<Arc<str>, Vec<Arc<str>>> {
        let mut endpoints: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
        for resource in self.addresses.values() {
            for service in &resource.services {
                let names = endpoints.entry(service.clone()).or_default();
                names.push(resource.name.clone());
            }
        }
        endpoints
    }

    /// What differs in `next`.
    pub(super) fn changes_to(&self, next: &Self) -> Changes {
        let nodes: BTreeSet<&Arc<str>> = self
            .placements
            .keys()
            .chain(next.placements.keys())
            .collect();
        let none = Arc::default();
        let placed = |node: &Arc<str>| {
            let before = self.placements.get(node).unwrap_or(&none);
            let after = next.placements.get(node).unwrap_or(&none);
            if Arc::ptr_eq(before, after) {
                return None;
            }
            let changed = changed(&before.resources, &after.resources);
            (!changed.is_empty()).then(|| (node.clone(), changed))
        };
        Changes {
            addresses: changed(&self.addresses, &next.addresses),
            authorizations: changed(&self.authorizations, &next.authorizations),
            trust: changed(&self.trust, &next.trust),
            placements: nodes.into_iter().filter_map(placed).collect(),
            waypoints: self.told.changes_to(&next.told),
        }
    }
}

fn named(resource: Arc<Resource>) -> (Arc<str>, Arc<Resource>) {
    (resource.name.clone(), resource)
}

/// Names that are in only one of the two, or in both with different versions.
fn changed(before: &Resources, after: &Resources) -> Names {
    let both = beside(before.values(), after.values(), |resource| &*resource.name);
    both.filter_map(|pair| match pair {
        (Some(had), Some(has)) if had.version == has.version => None,
        (had, has) => had.or(has).map(|resource| resource.name.clone()),
    })
    .collect()
}

/// Puts into `addresses` what has become of one of them. In the same version it stays what it was.
fn change<T>(
    addresses: &mut Resources,
    had: Option<&Arc<T>>,
    has: Option<&Arc<T>>,
    address: impl Fn(Arc<T>) -> Address,
    derived: &[u8],
) {
    let Some(has) = has.map(|has| address(Arc::clone(has))) else {
        let gone = had.map(|had| address(Arc::clone(had)).name());
        gone.map(|name| addresses.remove(&name));
        return;
    };
    let (name, body) = (has.name(), has.encode());
    let version = Version::of(&body, derived);
    if addresses
        .get(&name)
        .is_none_or(|had| had.version != version)
    {
        let resource = encode_address(&has, &name, version, body);
        let (name, resource) = named(Arc::new(resource));
        addresses.insert(name, resource);
    }
}

/// What a stock proxy derives for a workload beyond its content (§3.3): it forgets a service's
/// endpoints with the service, and drops unhealthy ones on arrival. Both come back only when the
/// workload is sent again, so both are part of its version.
fn derived(workload: &Workload, services: &HashMap<&ServiceKey, &Service>) -> Vec<u8> {
    let keys = workload.services.keys();
    keys.map(|key| services.get(key).map_or(0, |service| state(service)))
        .collect()
}

/// What of a service its workloads' versions tell; 0 for one that does not exist.
fn state(service: &Service) -> u8 {
    match service.load_balancing.health_policy {
        HealthPolicy::OnlyHealthy => 1,
        HealthPolicy::AllowAll => 2,
    }
}

fn encode_address(address: &Address, name: &str, version: Version, body: Vec<u8>) -> Resource {
    let aliases = address.aliases();
    let (node, lookup, services) = match address {
        Address::Workload(workload) => (
            workload.node.clone(),
            found_by(workload, &aliases),
            workload.services.keys().map(service_name).collect(),
        ),
        Address::Service(_) => (Arc::default(), aliases.clone(), Vec::new()),
    };
    Resource {
        node,
        lookup,
        services,
        ..resource(Kind::Address, name, version, aliases, body)
    }
}

fn service_name(key: &ServiceKey) -> Arc<str> {
    Arc::from(key.to_string())
}

fn found_by(workload: &Workload, aliases: &[String]) -> Vec<String> {
    match workload.network_mode {
        NetworkMode::Standard => aliases.to_vec(),
        NetworkMode::HostNetwork => Vec::new(),
    }
}
