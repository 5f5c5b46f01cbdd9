//! What a revision is made of, and how two of them differ.

use super::{
    Arc, BTreeMap, BTreeSet, Changes, Compiled, Kind, Names, Placement, Resource, Resources,
    Version, convert, resource,
};
use crate::model::policy::Policy;
use crate::model::service::{HealthPolicy, Service, ServiceKey};
use crate::model::workload::{NetworkMode, Workload};
use crate::wire::convert::Address;

/// Namespace and service account.
type Account = (Arc<str>, Arc<str>);

/// The encoded resources of a mesh.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub(super) addresses: Resources,
    pub(super) authorizations: Resources,
    /// Those that are enforced, where some are only tried.
    pub(super) enforced: Option<Resources>,
    /// Whom to believe; one resource, or none where nobody says.
    pub(super) trust: Resources,
    /// By node; every declared node has an entry.
    pub(super) placements: BTreeMap<Arc<str>, Resources>,
    /// Which service accounts each node runs.
    pub(super) identities: BTreeMap<Arc<str>, BTreeSet<Account>>,
    /// What is to be heard of each workload, by node and uid.
    pub(super) expected: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Expected>>,
    /// Nodes of which nothing is to be heard.
    pub(super) mute: BTreeSet<Arc<str>>,
}

/// What a node is to report of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// It is to be captured.
    pub capture: bool,
    /// It has a health check.
    pub probe: bool,
}

impl Content {
    /// Encodes a compiled mesh. Resources that `previous` has in the same version are taken over.
    pub fn encode(compiled: &Compiled, previous: Option<&Self>) -> Self {
        let known = |resources: fn(&Self) -> &Resources, name: &str, version| {
            let had = previous.and_then(|p| resources(p).get(name));
            had.filter(|had| had.version == version).cloned()
        };
        let by_key: BTreeMap<&ServiceKey, &Service> =
            compiled.services.iter().map(|s| (&s.key, &**s)).collect();
        let workloads = compiled.workloads.iter().cloned().map(Address::Workload);
        let services = compiled.services.iter().cloned().map(Address::Service);
        let address = |address: Address| {
            let name = address.name();
            let body = address.encode();
            let version = Version::of(&body, &derived(&address, &by_key));
            let had = known(|p| &p.addresses, &name, version);
            had.unwrap_or_else(|| Arc::new(encode_address(&address, &name, version, body)))
        };
        let policy = |policy: &Arc<Policy>| {
            let body = convert::encode_policy(policy);
            let version = Version::of(&body, &[]);
            let kind = Kind::Authorization;
            let had = known(|p| &p.authorizations, &policy.key, version);
            had.unwrap_or_else(|| Arc::new(resource(kind, &policy.key, version, Vec::new(), body)))
        };
        let placement = |(node, placed): (&Arc<str>, &Vec<Placement>)| {
            let had = previous.and_then(|p| p.placements.get(node));
            let placed = placed.iter().map(|p| encode_placement(p, had));
            (node.clone(), placed.map(named).collect())
        };
        let accounts = |(node, placed): (&Arc<str>, &Vec<Placement>)| {
            let placed = placed.iter();
            let accounts = placed.map(|p| (p.namespace.clone(), p.service_account.clone()));
            (node.clone(), accounts.collect())
        };
        let expected = |(node, placed): (&Arc<str>, &Vec<Placement>)| {
            let of = |placement: &Placement| Expected {
                capture: placement.enrolled,
                probe: placement.health.is_some(),
            };
            let placed = placed.iter().map(|p| (p.uid.clone(), of(p)));
            (node.clone(), placed.collect())
        };
        let authorizations: Resources = compiled.policies.iter().map(policy).map(named).collect();
        let enforced = compiled.policies.iter().any(|p| p.dry_run).then(|| {
            let enforced = compiled.policies.iter().filter(|p| !p.dry_run);
            let kept = enforced.filter_map(|p| authorizations.get(&p.key).cloned());
            kept.map(named).collect()
        });
        Self {
            addresses: services.chain(workloads).map(address).map(named).collect(),
            authorizations,
            enforced,
            trust: Resources::new(),
            placements: compiled.placements.iter().map(placement).collect(),
            identities: compiled.placements.iter().map(accounts).collect(),
            expected: compiled.placements.iter().map(expected).collect(),
            mute: compiled.mute.clone(),
        }
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
        let versions: Vec<_> = [
            (Kind::Address, &self.addresses),
            (Kind::Authorization, &self.authorizations),
        ]
        .into_iter()
        .flat_map(|(kind, all)| all.values().map(move |r| (kind.type_url(), r)))
        .map(|(url, resource)| (url, &*resource.name, resource.version.to_string()))
        .collect();
        convert::digest(
            versions
                .iter()
                .map(|(url, name, v)| (*url, *name, v.as_str())),
        )
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
        let none = Resources::new();
        let placed = |node: &Arc<str>| {
            let before = self.placements.get(node).unwrap_or(&none);
            let after = next.placements.get(node).unwrap_or(&none);
            let changed = changed(before, after);
            (!changed.is_empty()).then(|| (node.clone(), changed))
        };
        Changes {
            addresses: changed(&self.addresses, &next.addresses),
            authorizations: changed(&self.authorizations, &next.authorizations),
            trust: changed(&self.trust, &next.trust),
            placements: nodes.into_iter().filter_map(placed).collect(),
        }
    }
}

fn named(resource: Arc<Resource>) -> (Arc<str>, Arc<Resource>) {
    (resource.name.clone(), resource)
}

/// Names that are in only one of the two, or in both with different versions.
fn changed(before: &Resources, after: &Resources) -> Names {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let differs = |resource: &&Arc<Resource>| match before.get(&resource.name) {
        Some(had) => had.version != resource.version,
        None => true,
    };
    let new = after.values().filter(differs).map(|r| &r.name);
    gone.chain(new).cloned().collect()
}

/// What a stock proxy derives for a workload beyond its content (§3.3): it forgets a service's
/// endpoints with the service, and drops unhealthy ones on arrival. Both come back only when the
/// workload is sent again, so both are part of its version.
fn derived(address: &Address, services: &BTreeMap<&ServiceKey, &Service>) -> Vec<u8> {
    let Address::Workload(workload) = address else {
        return Vec::new();
    };
    let state = |key: &ServiceKey| match services.get(key) {
        None => 0,
        Some(service) => match service.load_balancing.health_policy {
            HealthPolicy::OnlyHealthy => 1,
            HealthPolicy::AllowAll => 2,
        },
    };
    workload.services.keys().map(state).collect()
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

fn encode_placement(placement: &Placement, previous: Option<&Resources>) -> Arc<Resource> {
    let body = convert::encode_placement(placement);
    let version = Version::of(&body, &[]);
    let had = previous.and_then(|p| p.get(&placement.uid));
    let had = had.filter(|had| had.version == version).cloned();
    had.unwrap_or_else(|| {
        let kind = Kind::Placement;
        Arc::new(resource(kind, &placement.uid, version, Vec::new(), body))
    })
}
