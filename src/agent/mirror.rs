//! What a node has heard of the mesh: staged until a revision is complete, then seen as a whole
//! (`spec/control-plane.md` §3.7). A pure state machine: responses in, acknowledgements and views
//! out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::compile::Placement;
use crate::model::policy::{self, Policies};
use crate::model::view::View;
use crate::wire::convert::{
    Address, REVISION_NAME, RevisionSummary, closed_policy, decode_placement, decode_policy,
    decode_revision, digest, encode_placement, encode_revision,
};
use crate::wire::proto::discovery::{DeltaDiscoveryResponse, Resource};
use crate::wire::{ADDRESS, AUTHORIZATION, PLACEMENT, REVISION, TRUST};

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
pub(super) const TYPES: [&str; 5] = [TRUST, ADDRESS, AUTHORIZATION, PLACEMENT, REVISION];
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
    authorizations: Table<Policy>,
    placements: Table<Arc<Placement>>,
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
        vec![
            of(ADDRESS, encoded(ADDRESS, &self.addresses, Address::encode)),
            of(
                AUTHORIZATION,
                encoded(AUTHORIZATION, &self.authorizations, |p| p.body.to_vec()),
            ),
            of(
                PLACEMENT,
                encoded(PLACEMENT, &self.placements, |p| encode_placement(p)),
            ),
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
            ADDRESS => of(&self.held.addresses),
            AUTHORIZATION => of(&self.held.authorizations),
            PLACEMENT => of(&self.held.placements),
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
        let revision = type_url == REVISION && self.held.revision.is_some();
        let agrees = !revision || !bad.is_empty() || self.agrees();
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
            // A policy that cannot be read is held, and closes what it holds for.
            let policies = response.type_url == AUTHORIZATION;
            let heard = self.take(response, staged);
            if heard.refused.is_some() && !policies {
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
        let body = body.ok_or_else(|| format!("{name}: no body"))?;
        let bytes = &body.value;
        match type_url {
            ADDRESS => {
                let value = Address::decode(&name, bytes).map_err(|e| e.to_string())?;
                self.held.addresses.insert(name, Held { version, value });
                self.view = None;
            }
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
                self.view = None;
            }
            AUTHORIZATION => {
                self.held.authorizations.remove(name);
                (self.view, self.policies) = (None, None);
            }
            PLACEMENT => {
                self.held.placements.remove(name);
            }
            _ => {}
        }
    }

    /// Whether what is held is what the revision counts and hashes (§2.6).
    fn agrees(&self) -> bool {
        let Some((_version, revision)) = &self.held.revision else {
            return true;
        };
        let count = |type_url: &str| match type_url {
            ADDRESS => Some(self.held.addresses.len()),
            AUTHORIZATION => Some(self.held.authorizations.len()),
            _ => None,
        };
        let mut totals = revision.totals.iter();
        let counted = totals.all(|(type_url, total)| {
            count(type_url).is_none_or(|held| u32::try_from(held) == Ok(*total))
        });
        let addresses = self.held.addresses.iter();
        let addresses = addresses.map(|(n, h)| (ADDRESS, n.as_str(), h.version.as_str()));
        let policies = self.held.authorizations.iter();
        let policies = policies.map(|(n, h)| (AUTHORIZATION, n.as_str(), h.version.as_str()));
        counted && digest(addresses.chain(policies)) == revision.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::{Request, Verdict};
    use crate::model::service::{Service, ServiceKey};
    use crate::model::testing::workload;
    use crate::model::workload::Workload;
    use crate::wire::convert::encode_policy;
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
        super::resource("", name, version, bytes)
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

    fn policies(bodies: &[(&str, Option<&[u8]>)]) -> DeltaDiscoveryResponse {
        let one = |(name, body): &(&str, Option<&[u8]>)| {
            let mut one = resource(name, "", body.unwrap_or_default().to_vec());
            one.resource = one.resource.filter(|_| body.is_some());
            one
        };
        DeltaDiscoveryResponse {
            type_url: AUTHORIZATION.to_owned(),
            resources: bodies.iter().map(one).collect(),
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
            expired_grace: std::time::Duration::ZERO,
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
    fn what_was_held_is_taken_up_again() {
        let mut before = Mirror::default();
        before.take(addresses(&["cart", "web"], &[]), true);
        before.take(revision(&["cart", "web"]), true);
        let kept = before.held().responses();
        let mut after = Mirror::default();
        assert!(after.restore(kept.clone()));
        assert_eq!(after.state().view.size(), (0, 2));
        assert_eq!(after.state().revision, before.state().revision);
        assert_eq!(after.versions(ADDRESS), before.versions(ADDRESS));
        let mut torn = kept;
        torn[0].resources.pop();
        assert!(!after.restore(torn), "what does not add up is not believed");
        assert_eq!(after.state().view.size(), (0, 0));
        let mut unstaged = Mirror::default();
        unstaged.take(addresses(&["cart"], &[]), false);
        assert!(after.restore(unstaged.held().responses()));
        assert_eq!(after.state().view.size(), (0, 1));
    }

    #[test]
    fn a_server_without_revisions_is_followed_response_by_response() {
        let mut mirror = Mirror::default();
        let first = mirror.take(addresses(&["cart"], &[]), false);
        assert!(!first.complete, "nobody knows yet which policies hold");
        assert!(mirror.take(policies(&[]), false).complete);
        assert!(mirror.take(addresses(&["web"], &[]), false).complete);
        assert!(mirror.take(addresses(&[], &["web"]), false).complete);
        assert!(mirror.take(addresses(&[], &["cart"]), false).complete);
        assert_eq!(mirror.state().view.size(), (0, 0));
    }

    #[test]
    fn what_a_policy_closes_is_closed_after_a_start_from_disk_too() {
        // Field 2 is the namespace, field 3 the scope; without a name nobody can read it.
        let of_shop: &[u8] = b"\x12\x04shop\x18\x01";
        let request = Request::new(None, [10, 0, 0, 9].into(), ([10, 0, 0, 2], 80).into());
        let of = |namespace: &str| Workload {
            namespace: Arc::from(namespace),
            ..workload("me", &["10.0.0.2"])
        };
        for (name, body, shop, bank) in [
            ("a namespace's", Some(of_shop), true, false),
            ("unreadable", Some(&[0xff][..]), true, true),
            ("no body", None, true, true),
            ("listed", Some(&b"\x18\x02"[..]), false, false),
        ] {
            let closed = |mirror: &mut Mirror| {
                let view = mirror.state().view;
                let guard = |n| view.policies().guard(&of(n));
                let closed = |n| matches!(guard(n).judge(&request), Verdict::Denied(_));
                ["shop", "bank"].map(closed)
            };
            let mut before = Mirror::default();
            before.take(addresses(&["cart"], &[]), false);
            assert_eq!(closed(&mut before), [false; 2], "{name}");
            let heard = before.take(policies(&[("p", body)]), false);
            assert!(
                heard.refused.is_some(),
                "{name}: and its sender hears of it"
            );
            assert_eq!(closed(&mut before), [shop, bank], "{name}");
            let mut after = Mirror::default();
            assert!(after.restore(before.held().responses()), "{name}");
            assert_eq!(closed(&mut after), [shop, bank], "{name}, from disk");
            let mut gone = policies(&[]);
            gone.removed_resources = vec!["p".to_owned()];
            before.take(gone, false);
            assert_eq!(closed(&mut before), [false; 2], "{name}, removed");
        }
    }

    #[test]
    fn a_policy_that_no_longer_reads_holds_as_it_last_did() {
        let denies = encode_policy(&policy::Policy {
            key: Arc::from("shop/p"),
            namespace: Arc::from("shop"),
            name: Arc::from("p"),
            scope: policy::Scope::Namespace,
            effect: policy::Effect::Deny,
            dry_run: false,
            rules: Vec::new(),
            origin: None,
            unreadable: None,
        });
        let request = Request::new(None, [10, 0, 0, 9].into(), ([10, 0, 0, 2], 80).into());
        let closed = |mirror: &mut Mirror| {
            let guard = mirror.state().view.policies().guard(&workload("me", &[]));
            matches!(guard.judge(&request), Verdict::Denied(_))
        };
        let mut mirror = Mirror::default();
        mirror.take(policies(&[("shop/p", Some(&denies))]), false);
        assert!(!closed(&mut mirror), "it denies nobody");
        let heard = mirror.take(policies(&[("shop/p", Some(&[0xff]))]), false);
        assert!(heard.refused.unwrap().contains("shop/p"));
        assert!(!closed(&mut mirror), "and goes on so");
        let mut after = Mirror::default();
        assert!(after.restore(mirror.held().responses()));
        assert!(closed(&mut after), "nobody knows what it was");
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
    fn what_is_not_counted_right_is_refused() {
        for (name, type_url, total, agrees) in [
            ("as many", ADDRESS, 1, true),
            ("more", ADDRESS, 2, false),
            ("a policy too many", AUTHORIZATION, 1, false),
            ("a type of another version", "later", 9, true),
        ] {
            let mut mirror = Mirror::default();
            mirror.take(addresses(&["cart"], &[]), true);
            mirror.take(revision(&["cart"]), true);
            let (_version, held) = mirror.held.revision.as_mut().unwrap();
            held.totals.insert(type_url.to_owned(), total);
            assert_eq!(mirror.agrees(), agrees, "{name}");
        }
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
