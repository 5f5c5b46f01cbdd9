//! What a node has heard of the mesh: staged until a revision is complete, then seen as a whole
//! (`spec/control-plane.md` §3.7). A pure state machine: responses in, acknowledgements and views
//! out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::compile::Placement;
use crate::model::names::{CLUSTER_DOMAIN, Names};
use crate::model::policy::{self, Policies};
use crate::model::view::View;
use crate::model::waypoint::{self, WaypointName};
use crate::wire::convert::{
    Address, REVISION_NAME, RevisionSummary, closed_policy, decode_placement, decode_policy,
    decode_revision, digest, encode_placement, encode_revision,
};
use crate::wire::proto::discovery::{DeltaDiscoveryResponse, Resource};
use crate::wire::{ADDRESS, AUTHORIZATION, PLACEMENT, REVISION, TRUST, WAYPOINT};

mod told;

use told::Told;

/// The mesh as this process sees it.
#[derive(Debug, Default)]
pub struct MeshState {
    /// Which revision it is; `None` from a server that tells none, and before the first.
    pub revision: Option<RevisionSummary>,
    /// Workloads and services, indexed.
    pub view: Arc<View>,
    /// The workloads of this node.
    pub placements: Vec<Arc<Placement>>,
    /// What the waypoints on this node are told.
    pub waypoints: BTreeMap<WaypointName, Arc<waypoint::Resources>>,
}

impl MeshState {
    /// The suffix of its service host names, where its control plane tells it.
    pub fn domain(&self) -> Option<&str> {
        let told = self.revision.as_ref().map(|revision| &*revision.domain);
        told.filter(|domain| !domain.is_empty())
    }

    /// Whether a control plane has told of it, be it that nobody is in it.
    pub fn is_heard(&self) -> bool {
        self.revision.is_some() || self.view.size() != (0, 0)
    }

    /// What names mean in it, to whoever has no word in that.
    pub fn names(&self) -> Names {
        Names::new(Arc::from(self.domain().unwrap_or(CLUSTER_DOMAIN)), None)
    }
}

/// The types subscribed to, in this order: a revision speaks of all that came before it.
pub(super) const TYPES: [&str; 6] = [TRUST, ADDRESS, AUTHORIZATION, PLACEMENT, WAYPOINT, REVISION];
/// The types that every control plane has: a view needs both.
pub(super) const ESSENTIAL: [&str; 2] = [ADDRESS, AUTHORIZATION];

/// What a response led to.
#[derive(Debug, PartialEq)]
pub(super) struct Heard {
    /// Why parts of it were refused, for the NACK.
    pub(super) refused: Option<String>,
    /// Whether the view in force is to be replaced.
    pub(super) complete: bool,
    /// Whether what we hold is not what the server means: start over without it.
    pub(super) lost: bool,
}

#[derive(Clone, Debug)]
struct Held<T> {
    version: String,
    value: T,
}

type Table<T> = BTreeMap<String, Held<T>>;

/// The staged resources.
#[derive(Clone, Debug, Default)]
pub(super) struct Mirror {
    held: Resources,
    view: Option<Arc<View>>,
    /// Those of the last view, as long as they are what is held.
    policies: Option<Arc<Policies>>,
    /// Which types have been told at all: before the policies have, nobody knows what is closed.
    told: BTreeSet<&'static str>,
}

/// A policy, and the bytes that said it: what this version cannot read a later one may.
#[derive(Clone, Debug)]
struct Policy {
    body: Arc<[u8]>,
    policy: Arc<policy::Policy>,
}

/// What is held of each type. Cloning it copies names and shares the rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Resources {
    addresses: Table<Address>,
    /// Addresses that cannot be read: the bytes that say them, which a later version may read, and the
    /// version that the server means by its revision. What was known by such a name before stays in force.
    unread: Table<Arc<[u8]>>,
    authorizations: Table<Policy>,
    placements: Table<Arc<Placement>>,
    waypoints: Told,
    revision: Option<(String, RevisionSummary)>,
}

impl Resources {
    /// Responses that lead a fresh [`Mirror`] to the same.
    pub(super) fn responses(&self) -> Vec<DeltaDiscoveryResponse> {
        let of = |type_url: &str, resources: Vec<Resource>| DeltaDiscoveryResponse {
            type_url: type_url.to_owned(),
            resources,
            ..DeltaDiscoveryResponse::default()
        };
        let revision = self.revision.iter().map(|(version, revision)| {
            let body = encode_revision(revision);
            resource(REVISION, REVISION_NAME, version, body)
        });
        let mut addresses = encoded(ADDRESS, &self.addresses, Address::encode);
        addresses.extend(encoded(ADDRESS, &self.unread, |bytes| bytes.to_vec()));
        vec![
            of(ADDRESS, addresses),
            of(
                AUTHORIZATION,
                encoded(AUTHORIZATION, &self.authorizations, |p| p.body.to_vec()),
            ),
            of(
                PLACEMENT,
                encoded(PLACEMENT, &self.placements, |p| encode_placement(p)),
            ),
            of(WAYPOINT, self.waypoints.encoded()),
            of(REVISION, revision.collect()),
        ]
    }
}

fn encoded<T>(type_url: &str, table: &Table<T>, encode: impl Fn(&T) -> Vec<u8>) -> Vec<Resource> {
    let one = |(name, held): (&String, &Held<T>)| {
        resource(type_url, name, &held.version, encode(&held.value))
    };
    table.iter().map(one).collect()
}

fn resource(type_url: &str, name: &str, version: &str, value: Vec<u8>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(prost_types::Any {
            type_url: type_url.to_owned(),
            value,
        }),
        ..Resource::default()
    }
}

impl Mirror {
    /// The versions held of a type, for the first request of a stream.
    pub(super) fn versions(&self, type_url: &str) -> BTreeMap<String, String> {
        fn of<T>(table: &Table<T>) -> BTreeMap<String, String> {
            let version = |(name, held): (&String, &Held<T>)| (name.clone(), held.version.clone());
            table.iter().map(version).collect()
        }
        match type_url {
            ADDRESS => {
                let mut versions = of(&self.held.addresses);
                // Of no version: it is sent again, to be refused again, and its removal is told.
                for name in self.held.unread.keys() {
                    versions.entry(name.clone()).or_default();
                }
                versions
            }
            AUTHORIZATION => of(&self.held.authorizations),
            PLACEMENT => of(&self.held.placements),
            WAYPOINT => self.held.waypoints.versions(),
            // Always wanted anew: its arrival is what completes a stream's first answers.
            _ => BTreeMap::new(),
        }
    }

    /// Takes a response in. `staged` says that the server sends revisions, so that nothing is
    /// complete before one has come; else nothing is before each essential type has.
    pub(super) fn take(&mut self, response: DeltaDiscoveryResponse, staged: bool) -> Heard {
        let type_url = response.type_url;
        let mut bad: Vec<String> = Vec::new();
        for resource in response.resources {
            if let Err(reason) = self.put(&type_url, resource) {
                bad.push(reason);
            }
        }
        for name in &response.removed_resources {
            self.remove(&type_url, name);
        }
        self.told
            .extend(ESSENTIAL.iter().filter(|t| **t == type_url));
        let revision = type_url == REVISION && bad.is_empty() && self.held.revision.is_some();
        let agrees = !revision || self.agrees();
        if !agrees {
            bad.push("what is held does not add up to this revision".to_owned());
        }
        Heard {
            complete: agrees
                && if staged {
                    revision
                } else {
                    type_url != REVISION && self.told.len() == ESSENTIAL.len()
                },
            lost: !agrees,
            refused: (!bad.is_empty()).then(|| bad.join("; ")),
        }
    }

    /// Whether there is something of a type that cannot be read.
    pub(super) fn lacks(&self, type_url: &str) -> bool {
        match type_url {
            ADDRESS => !self.held.unread.is_empty(),
            AUTHORIZATION => {
                let mut held = self.held.authorizations.values();
                held.any(|held| held.value.policy.unreadable.is_some())
            }
            WAYPOINT => self.held.waypoints.lacks(),
            _ => false,
        }
    }

    /// All that is held.
    pub(super) fn held(&self) -> Resources {
        self.held.clone()
    }

    /// Takes up what was held once; tells whether it is whole.
    pub(super) fn restore(&mut self, responses: Vec<DeltaDiscoveryResponse>) -> bool {
        self.forget();
        let staged = |r: &DeltaDiscoveryResponse| r.type_url == REVISION && !r.resources.is_empty();
        let staged = responses.iter().any(staged);
        let mut whole = false;
        for response in responses {
            // A policy that cannot be read is held, and closes what it holds for. Of what a waypoint is
            // told the same goes for all that refers to it; an address is absent.
            let known = [ADDRESS, AUTHORIZATION, WAYPOINT].contains(&&*response.type_url);
            let heard = self.take(response, staged);
            if heard.refused.is_some() && (heard.lost || !known) {
                whole = false;
                break;
            }
            whole |= heard.complete;
        }
        if !whole {
            self.forget();
        }
        whole
    }

    /// Forgets versions, so that everything is sent again; the view in force stays.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The revision held, in force or not yet.
    pub(super) fn revision(&self) -> Option<&RevisionSummary> {
        self.held.revision.as_ref().map(|(_version, r)| r)
    }

    /// The view of all that is held.
    pub(super) fn state(&mut self) -> MeshState {
        let view = match &self.view {
            Some(view) => Arc::clone(view),
            None => {
                let view = Arc::new(self.index());
                self.view = Some(Arc::clone(&view));
                view
            }
        };
        let placements = self.held.placements.values();
        MeshState {
            revision: self.held.revision.as_ref().map(|(_, r)| r.clone()),
            view,
            placements: placements.map(|held| Arc::clone(&held.value)).collect(),
            waypoints: self.held.waypoints.told(),
        }
    }

    fn index(&mut self) -> View {
        let mut workloads = Vec::new();
        let mut services = Vec::new();
        for held in self.held.addresses.values() {
            match &held.value {
                Address::Workload(workload) => workloads.push(Arc::clone(workload)),
                Address::Service(service) => services.push(Arc::clone(service)),
            }
        }
        let held = self.held.authorizations.values();
        let policies = self.policies.get_or_insert_with(|| {
            let policies = held.map(|held| Arc::clone(&held.value.policy));
            Arc::new(Policies::new(policies))
        });
        View::new(workloads, services).under(Arc::clone(policies))
    }

    fn put(&mut self, type_url: &str, resource: Resource) -> Result<(), String> {
        let name = resource.name;
        let version = resource.version;
        let body = resource.resource;
        if type_url == AUTHORIZATION {
            let body = body.as_ref().map_or(&[][..], |b| &b.value);
            return self.put_policy(name, version, body);
        }
        if type_url == WAYPOINT {
            let body = body.map(|b| b.value).unwrap_or_default();
            return self.held.waypoints.put(name, version, &body);
        }
        if type_url == ADDRESS {
            let body = body.map(|b| b.value).unwrap_or_default();
            return self.put_address(name, version, &body);
        }
        let body = body.ok_or_else(|| format!("{name}: no body"))?;
        let bytes = &body.value;
        match type_url {
            PLACEMENT => {
                let value = decode_placement(&name, bytes).map_err(|e| e.to_string())?;
                let value = Arc::new(value);
                self.held.placements.insert(name, Held { version, value });
            }
            REVISION => {
                let value = decode_revision(&name, bytes).map_err(|e| e.to_string())?;
                self.held.revision = Some((version, value));
            }
            _ => {}
        }
        Ok(())
    }

    /// One that cannot be read is known as it last could, or absent.
    fn put_address(&mut self, name: String, version: String, body: &[u8]) -> Result<(), String> {
        match Address::decode(&name, body) {
            Ok(value) => {
                self.held.unread.remove(&name);
                self.held.addresses.insert(name, Held { version, value });
                self.view = None;
                Ok(())
            }
            Err(unreadable) => {
                let value = Arc::from(body);
                self.held.unread.insert(name, Held { version, value });
                Err(unreadable.to_string())
            }
        }
    }

    /// One that cannot be read is known as it last could; one that never could closes what it holds
    /// for. Either way it is held, or what it closes would be open.
    fn put_policy(&mut self, name: String, version: String, body: &[u8]) -> Result<(), String> {
        let read = decode_policy(&name, body);
        let policy = match &read {
            Ok(policy) => Arc::new(policy.clone()),
            Err(unreadable) => match self.held.authorizations.get(&name) {
                Some(held) => Arc::clone(&held.value.policy),
                None => Arc::new(closed_policy(&name, body, unreadable)),
            },
        };
        let value = Policy {
            body: Arc::from(body),
            policy,
        };
        self.held
            .authorizations
            .insert(name, Held { version, value });
        (self.view, self.policies) = (None, None);
        read.map(drop).map_err(|e| e.to_string())
    }

    fn remove(&mut self, type_url: &str, name: &str) {
        match type_url {
            ADDRESS => {
                self.held.addresses.remove(name);
                self.held.unread.remove(name);
                self.view = None;
            }
            AUTHORIZATION => {
                self.held.authorizations.remove(name);
                (self.view, self.policies) = (None, None);
            }
            PLACEMENT => {
                self.held.placements.remove(name);
            }
            WAYPOINT => self.held.waypoints.remove(name),
            _ => {}
        }
    }

    /// Whether what is held is what the revision counts and hashes (§2.6).
    fn agrees(&self) -> bool {
        let Some((_version, revision)) = &self.held.revision else {
            return true;
        };
        let unread = &self.held.unread;
        let read = || {
            let held = self.held.addresses.iter();
            held.filter(|(name, _)| !unread.contains_key(*name))
        };
        let count = |type_url: &str| match type_url {
            ADDRESS => Some(read().count() + unread.len()),
            AUTHORIZATION => Some(self.held.authorizations.len()),
            _ => None,
        };
        let mut totals = revision.totals.iter();
        let counted = totals.all(|(type_url, total)| {
            count(type_url).is_none_or(|held| u32::try_from(held) == Ok(*total))
        });
        let read = read().map(|(n, h)| (ADDRESS, n.as_str(), h.version.as_str()));
        let unread = unread.iter();
        let unread = unread.map(|(n, h)| (ADDRESS, n.as_str(), h.version.as_str()));
        let policies = self.held.authorizations.iter();
        let policies = policies.map(|(n, h)| (AUTHORIZATION, n.as_str(), h.version.as_str()));
        counted && digest(read.chain(unread).chain(policies)) == revision.digest
    }
}

#[cfg(test)]
mod tests;
