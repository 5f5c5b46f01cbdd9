//! What a node has heard of the mesh: staged until a revision is complete, then seen as a whole
//! (`spec/control-plane.md` §3.7). A pure state machine: responses in, acknowledgements and views
//! out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::compile::Placement;
use crate::model::view::View;
use crate::wire::convert::{Address, RevisionSummary, decode_placement, decode_revision, digest};
use crate::wire::proto::discovery::{DeltaDiscoveryResponse, Resource};
use crate::wire::{ADDRESS, AUTHORIZATION, PLACEMENT, REVISION};

/// The mesh as this process sees it.
#[derive(Debug, Default)]
pub struct MeshState {
    /// Which revision it is; `None` from a server that tells none, and before the first.
    pub revision: Option<RevisionSummary>,
    /// Workloads and services, indexed.
    pub view: Arc<View>,
    /// The workloads of this node.
    pub placements: Vec<Arc<Placement>>,
}

/// The types subscribed to, in this order: a revision speaks of all that came before it.
pub(super) const TYPES: [&str; 4] = [ADDRESS, AUTHORIZATION, PLACEMENT, REVISION];

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

#[derive(Debug)]
struct Held<T> {
    version: String,
    value: T,
}

type Table<T> = BTreeMap<String, Held<T>>;

/// The staged resources.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    addresses: Table<Address>,
    /// Policies are held by version only until they can be evaluated; the workloads they are
    /// listed on are closed meanwhile.
    authorizations: Table<()>,
    placements: Table<Arc<Placement>>,
    revision: Option<(String, RevisionSummary)>,
    view: Option<Arc<View>>,
}

impl Mirror {
    /// The versions held of a type, for the first request of a stream.
    pub(super) fn versions(&self, type_url: &str) -> BTreeMap<String, String> {
        fn of<T>(table: &Table<T>) -> BTreeMap<String, String> {
            let version = |(name, held): (&String, &Held<T>)| (name.clone(), held.version.clone());
            table.iter().map(version).collect()
        }
        match type_url {
            ADDRESS => of(&self.addresses),
            AUTHORIZATION => of(&self.authorizations),
            PLACEMENT => of(&self.placements),
            // Always wanted anew: its arrival is what completes a stream's first answers.
            _ => BTreeMap::new(),
        }
    }

    /// Takes a response in. `staged` says that the server sends revisions, so that nothing is
    /// complete before one has come.
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
        let revision = type_url == REVISION && self.revision.is_some();
        let agrees = !revision || !bad.is_empty() || self.agrees();
        if !agrees {
            bad.push("what is held does not add up to this revision".to_owned());
        }
        Heard {
            complete: agrees
                && if staged {
                    revision
                } else {
                    type_url != REVISION
                },
            lost: !agrees,
            refused: (!bad.is_empty()).then(|| bad.join("; ")),
        }
    }

    /// Forgets versions, so that everything is sent again; the view in force stays.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
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
        let placements = self.placements.values();
        MeshState {
            revision: self.revision.as_ref().map(|(_, r)| r.clone()),
            view,
            placements: placements.map(|held| Arc::clone(&held.value)).collect(),
        }
    }

    fn index(&self) -> View {
        let mut workloads = Vec::new();
        let mut services = Vec::new();
        for held in self.addresses.values() {
            match &held.value {
                Address::Workload(workload) => workloads.push(Arc::clone(workload)),
                Address::Service(service) => services.push(Arc::clone(service)),
            }
        }
        View::new(workloads, services)
    }

    fn put(&mut self, type_url: &str, resource: Resource) -> Result<(), String> {
        let name = resource.name;
        let version = resource.version;
        let body = resource
            .resource
            .ok_or_else(|| format!("{name}: no body"))?;
        let bytes = &body.value;
        match type_url {
            ADDRESS => {
                let value = Address::decode(&name, bytes).map_err(|e| e.to_string())?;
                self.addresses.insert(name, Held { version, value });
                self.view = None;
            }
            AUTHORIZATION => {
                let value = ();
                self.authorizations.insert(name, Held { version, value });
            }
            PLACEMENT => {
                let value = decode_placement(&name, bytes).map_err(|e| e.to_string())?;
                let value = Arc::new(value);
                self.placements.insert(name, Held { version, value });
            }
            REVISION => {
                let value = decode_revision(&name, bytes).map_err(|e| e.to_string())?;
                self.revision = Some((version, value));
            }
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, type_url: &str, name: &str) {
        match type_url {
            ADDRESS => {
                self.addresses.remove(name);
                self.view = None;
            }
            AUTHORIZATION => {
                self.authorizations.remove(name);
            }
            PLACEMENT => {
                self.placements.remove(name);
            }
            _ => {}
        }
    }

    /// Whether what is held is what the revision counts and hashes (§2.6).
    fn agrees(&self) -> bool {
        let Some((_version, revision)) = &self.revision else {
            return true;
        };
        let addresses = self.addresses.iter();
        let addresses = addresses.map(|(n, h)| (ADDRESS, n.as_str(), h.version.as_str()));
        let policies = self.authorizations.iter();
        let policies = policies.map(|(n, h)| (AUTHORIZATION, n.as_str(), h.version.as_str()));
        digest(addresses.chain(policies)) == revision.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::{Service, ServiceKey};
    use crate::wire::convert::{REVISION_NAME, encode_revision};
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    fn service(name: &str) -> Vec<u8> {
        let key = ServiceKey {
            namespace: Arc::from("shop"),
            hostname: Arc::from(format!("{name}.shop.mesh.internal")),
        };
        let service = Service {
            key,
            name: Arc::from(name),
            vips: Vec::new(),
            ports: Vec::new(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            load_balancing: Default::default(),
            ip_families: Default::default(),
            canonical: false,
            visibility: Default::default(),
        };
        Address::Service(Arc::new(service)).encode()
    }

    fn resource(name: &str, version: &str, bytes: Vec<u8>) -> Resource {
        Resource {
            name: name.to_owned(),
            version: version.to_owned(),
            resource: Some(prost_types::Any {
                type_url: String::new(),
                value: bytes,
            }),
            ..Resource::default()
        }
    }

    fn addresses(names: &[&str], removed: &[&str]) -> DeltaDiscoveryResponse {
        let full = |n: &&str| format!("shop/{n}.shop.mesh.internal");
        DeltaDiscoveryResponse {
            type_url: ADDRESS.to_owned(),
            resources: names
                .iter()
                .map(|n| resource(&full(n), "v1", service(n)))
                .collect(),
            removed_resources: removed.iter().map(full).collect(),
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn revision(names: &[&str]) -> DeltaDiscoveryResponse {
        let names: Vec<String> = names
            .iter()
            .map(|n| format!("shop/{n}.shop.mesh.internal"))
            .collect();
        let summary = RevisionSummary {
            epoch: [0; 16],
            serial: 0,
            number: 7,
            digest: digest(names.iter().map(|n| (ADDRESS, n.as_str(), "v1"))),
            source: String::new(),
            compiled_at: SystemTime::UNIX_EPOCH,
            totals: BTreeMap::default(),
            warnings: 0,
        };
        DeltaDiscoveryResponse {
            type_url: REVISION.to_owned(),
            resources: vec![resource(REVISION_NAME, "7", encode_revision(&summary))],
            ..DeltaDiscoveryResponse::default()
        }
    }

    #[test]
    fn nothing_is_seen_before_its_revision() {
        let mut mirror = Mirror::default();
        let heard = mirror.take(addresses(&["cart", "web"], &[]), true);
        assert!(!heard.complete && heard.refused.is_none());
        let heard = mirror.take(revision(&["cart", "web"]), true);
        assert!(heard.complete && !heard.lost);
        let state = mirror.state();
        assert_eq!(state.view.size(), (0, 2));
        assert_eq!(state.revision.unwrap().number, 7);
        assert_eq!(mirror.versions(ADDRESS).len(), 2);
    }

    #[test]
    fn a_server_without_revisions_is_followed_response_by_response() {
        let mut mirror = Mirror::default();
        assert!(mirror.take(addresses(&["cart"], &[]), false).complete);
        assert!(mirror.take(addresses(&[], &["cart"]), false).complete);
        assert_eq!(mirror.state().view.size(), (0, 0));
    }

    #[test]
    fn what_does_not_add_up_is_refused_and_asked_for_again() {
        let mut mirror = Mirror::default();
        mirror.take(addresses(&["cart"], &[]), true);
        let heard = mirror.take(revision(&["cart", "web"]), true);
        assert!(heard.lost && !heard.complete && heard.refused.is_some());
        mirror.forget();
        assert!(mirror.versions(ADDRESS).is_empty());
    }

    #[test]
    fn a_bad_resource_is_named_and_its_last_good_form_kept() {
        let mut mirror = Mirror::default();
        mirror.take(addresses(&["cart"], &[]), false);
        let name = "shop/cart.shop.mesh.internal";
        let mut response = addresses(&["web"], &[]);
        response
            .resources
            .push(resource(name, "v2", vec![0xff, 0xff]));
        let heard = mirror.take(response, false);
        assert!(heard.refused.unwrap().contains(name));
        assert_eq!(
            mirror.state().view.size(),
            (0, 2),
            "the good one applied, the old one kept"
        );
        assert_eq!(mirror.versions(ADDRESS)[name], "v1");
    }
}
