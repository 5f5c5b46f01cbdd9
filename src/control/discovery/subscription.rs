//! What one stream has asked for of one type, and what it is still owed.
//!
//! `pending` holds names whose current form the client may lack: a snapshot puts all of them in,
//! each newer revision those it changed, and a response takes out what it carries. What a name
//! stands for is looked up when it is sent, so however far a client falls behind, it costs names
//! and never old content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::control::history::Names;
use crate::control::revision::{Kind, Resource, Resources, Revision};
use crate::wire::convert::{REVISION_NAME, waypoint_of};
use crate::wire::proto::discovery::{DeltaDiscoveryRequest, Status};

use super::session::{Chunk, Outcome, Refusal};

/// Most names one subscription may hold: ten times the largest mesh that is replicated to every
/// node (§9.4).
const MOST_NAMES: usize = 1_000_000;

/// The name that stands for everything.
const WILDCARD: &str = "*";

/// What the next response of a type carries.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) removed: Vec<Arc<str>>,
    /// Nothing of the kind it was made of is left out for want of room.
    pub(super) complete: bool,
}

impl Batch {
    /// As many of `resources` as fit, and at least one.
    fn filled(resources: impl Iterator<Item = Arc<Resource>>, chunk: Chunk) -> Self {
        let mut batch = Self {
            complete: true,
            ..Self::default()
        };
        let mut bytes = 0;
        for resource in resources {
            bytes += resource.encoded.len();
            let full = bytes > chunk.bytes || batch.resources.len() >= chunk.resources;
            if full && !batch.resources.is_empty() {
                batch.complete = false;
                break;
            }
            batch.resources.push(resource);
        }
        batch
    }

    pub(super) fn append(&mut self, more: impl Iterator<Item = Arc<Resource>>) {
        self.resources.extend(more);
    }

    pub(super) fn remove(&mut self, names: impl Iterator<Item = Arc<str>>) {
        self.removed.extend(names);
    }
}

/// A response on its way.
#[derive(Debug)]
struct InFlight {
    nonce: String,
    since: Instant,
    /// The revision that the client has in full once it has this.
    completes: Option<u64>,
}

/// Whose stream it is, as far as it decides what he is offered.
#[derive(Clone, Debug)]
pub(super) struct Whose {
    /// The node.
    pub(super) node: Arc<str>,
    /// It knows that a policy may be one that is only tried.
    pub(super) rehearses: bool,
    /// The waypoints it is; none where it may be any that is placed on its node.
    pub(super) waypoints: Option<Arc<BTreeSet<String>>>,
}

impl Whose {
    fn offered<'r>(&self, revision: &'r Revision, kind: Kind) -> Offered<'r> {
        let resources = match kind {
            Kind::Authorization if !self.rehearses => revision.enforced(),
            _ => revision.resources(kind, &self.node),
        };
        Offered {
            resources,
            waypoints: self.waypoints.clone().filter(|_| kind == Kind::Waypoint),
        }
    }
}

/// The resources of a type that a client may have.
struct Offered<'r> {
    resources: &'r Resources,
    /// Only what these waypoints are told.
    waypoints: Option<Arc<BTreeSet<String>>>,
}

impl<'r> Offered<'r> {
    fn get(&self, name: &str) -> Option<&'r Arc<Resource>> {
        self.resources.get(name).filter(|_| self.is_for(name))
    }

    fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn keys(&self) -> impl Iterator<Item = &'r Arc<str>> {
        self.resources.keys().filter(|name| self.is_for(name))
    }

    fn values(&self) -> impl Iterator<Item = &'r Arc<Resource>> {
        let resources = self.resources.values();
        resources.filter(|resource| self.is_for(&resource.name))
    }

    /// Whether a name, which begins with a waypoint's where that matters, is for this client.
    fn is_for(&self, name: &str) -> bool {
        let waypoints = self.waypoints.as_ref();
        waypoints.is_none_or(|waypoints| waypoints.contains(waypoint_of(name)))
    }
}

/// The state of one type on one stream.
#[derive(Debug)]
pub(super) struct Subscription {
    kind: Kind,
    whose: Whose,
    wildcard: bool,
    /// What the client asked for or holds.
    names: Names,
    /// What came with a service it asked for: that service's workloads (§3.6).
    brought: Names,
    pending: Names,
    /// Aliases asked for: they must appear as removed in the answer, which is the only thing that
    /// wakes a stock proxy's waiter (§3.6).
    aliases: Names,
    /// An answer is owed even when there is nothing to say.
    owed: bool,
    /// What the client asked for at first has not been sent in full.
    fresh: bool,
    answered: bool,
    acked: bool,
    in_flight: Option<InFlight>,
}

impl Subscription {
    /// Rule 2 of §3.4: a first message subscribes to everything it names or already holds, and
    /// reports which versions it need not be sent.
    pub(super) fn first(
        kind: Kind,
        whose: Whose,
        revision: &Revision,
        request: DeltaDiscoveryRequest,
    ) -> Result<Self, Refusal> {
        let asked = request.resource_names_subscribe;
        let held = request.initial_resource_versions;
        let gone: BTreeSet<String> = request.resource_names_unsubscribe.into_iter().collect();
        let stays = |name: &String| !gone.contains(name);
        let wildcard = asked.is_empty() || asked.iter().any(|n| n == WILDCARD && stays(n));
        let mut subscription = Self {
            kind,
            whose,
            wildcard,
            names: Names::new(),
            brought: Names::new(),
            pending: Names::new(),
            aliases: Names::new(),
            owed: true,
            fresh: true,
            answered: false,
            acked: false,
            in_flight: None,
        };
        for name in asked.into_iter().filter(|n| n != WILDCARD).filter(stays) {
            subscription.subscribe(revision, &name);
        }
        if wildcard {
            subscription.pend_all(revision);
        }
        subscription.pend_own(revision);
        let held = held.into_iter().filter(|(name, _)| stays(name)).collect();
        subscription.bring_held(revision, &held);
        subscription.report(revision, held);
        subscription.within_limit()
    }

    fn offered<'r>(&self, revision: &'r Revision) -> Offered<'r> {
        self.whose.offered(revision, self.kind)
    }

    /// Services that a client on demand holds bring what became theirs while it was away.
    fn bring_held(&mut self, revision: &Revision, held: &BTreeMap<String, String>) {
        if !self.wildcard {
            held.keys().for_each(|name| self.bring(revision, name));
        }
    }

    /// Subscribes to the workloads of a service.
    fn bring(&mut self, revision: &Revision, service: &str) {
        if self.kind == Kind::Address {
            let endpoints = revision.endpoints(service);
            self.brought.extend(endpoints.iter().cloned());
            self.pending.extend(endpoints.iter().cloned());
        }
    }

    /// Takes out of what is pending whatever the client holds in its current version.
    fn report(&mut self, revision: &Revision, held: BTreeMap<String, String>) {
        let resources = self.offered(revision);
        for (name, version) in held {
            match resources.get(name.as_str()) {
                Some(current) if current.version.to_string() == version => {
                    self.pending.remove(&current.name);
                    self.names_also(current.name.clone());
                }
                Some(current) => {
                    self.pending.insert(current.name.clone());
                    self.names_also(current.name.clone());
                }
                None => {
                    let name: Arc<str> = Arc::from(name);
                    self.pending.insert(name.clone());
                    self.names_also(name);
                }
            }
        }
    }

    fn names_also(&mut self, name: Arc<str>) {
        if !self.wildcard {
            self.names.insert(name);
        }
    }

    /// Rule 3: an answer to the last response, or to one long past, which says nothing.
    pub(super) fn answered(&mut self, nonce: &str, error: Option<Status>) -> Outcome {
        let Some(sent) = self.in_flight.take_if(|sent| sent.nonce == nonce) else {
            return Outcome::Noted;
        };
        self.acked = true;
        match error {
            None => Outcome::Acked {
                kind: self.kind,
                revision: sent.completes,
            },
            Some(status) => Outcome::Nacked {
                kind: self.kind,
                message: status.message,
            },
        }
    }

    /// Rule 4: names added are answered even when current; names dropped are silent from now on.
    pub(super) fn adjust(
        &mut self,
        revision: &Revision,
        added: Vec<String>,
        dropped: &[String],
    ) -> Result<(), Refusal> {
        for name in dropped {
            self.unsubscribe(revision, name);
        }
        for name in added {
            self.owed = true;
            match name == WILDCARD {
                true if !self.wildcard => {
                    self.wildcard = true;
                    self.pend_all(revision);
                }
                true => {}
                false => self.subscribe(revision, &name),
            }
        }
        match self.is_within_limit() {
            true => Ok(()),
            false => Err(Refusal::TooManyNames { limit: MOST_NAMES }),
        }
    }

    fn subscribe(&mut self, revision: &Revision, name: &str) {
        let resources = self.offered(revision);
        let by_alias = match resources.contains_key(name) {
            true => &[],
            false => self.by_alias(revision, name),
        };
        let meant = match by_alias {
            [] => vec![Arc::from(name)],
            resolved => {
                self.aliases.insert(Arc::from(name));
                resolved.to_vec()
            }
        };
        for name in meant {
            self.bring(revision, &name);
            self.names.insert(name.clone());
            self.pending.insert(name);
        }
    }

    fn unsubscribe(&mut self, revision: &Revision, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
            let (names, brought, node) = (&self.names, &self.brought, &self.whose.node);
            let resources = self.whose.offered(revision, self.kind);
            let is_own = |n: &Arc<str>| resources.get(n).is_some_and(|r| r.node == *node);
            let stays = |n: &Arc<str>| names.contains(n) || brought.contains(n) || is_own(n);
            self.pending.retain(stays);
            return;
        }
        let resolved = self.by_alias(revision, name).to_vec();
        for name in resolved.iter().map(|n| &**n).chain([name]) {
            self.names.remove(name);
            self.forget(name);
            self.release(revision, name);
        }
    }

    /// Lets go of workloads that came with a service and with no other that is still asked for.
    fn release(&mut self, revision: &Revision, service: &str) {
        if self.kind != Kind::Address {
            return;
        }
        let resources = self.offered(revision);
        for name in revision.endpoints(service) {
            let services = resources.get(name).map_or(&[][..], |r| &r.services);
            if !services.iter().any(|s| self.names.contains(s)) {
                self.brought.remove(name);
                self.forget(name);
            }
        }
    }

    /// Owes a name no more, unless something else asks for it.
    fn forget(&mut self, name: &str) {
        if !self.wildcard && !self.names.contains(name) && !self.brought.contains(name) {
            self.pending.remove(name);
        }
    }

    fn by_alias<'r>(&self, revision: &'r Revision, alias: &str) -> &'r [Arc<str>] {
        match self.kind {
            Kind::Address => revision.by_alias(alias),
            Kind::Trust
            | Kind::Authorization
            | Kind::Placement
            | Kind::Waypoint
            | Kind::Revision => &[],
        }
    }

    fn pend_all(&mut self, revision: &Revision) {
        let resources = self.offered(revision);
        self.pending.extend(resources.keys().cloned());
    }

    /// A node's own workloads are pushed unasked: stock proxies do not look them up (§3.6).
    fn pend_own(&mut self, revision: &Revision) {
        if self.kind != Kind::Address || self.wildcard {
            return;
        }
        let resources = self.offered(revision);
        for own in resources.values().filter(|r| r.node == self.whose.node) {
            self.names.insert(own.name.clone());
            self.pending.insert(own.name.clone());
        }
    }

    fn within_limit(self) -> Result<Self, Refusal> {
        match self.is_within_limit() {
            true => Ok(self),
            false => Err(Refusal::TooManyNames { limit: MOST_NAMES }),
        }
    }

    fn is_within_limit(&self) -> bool {
        let held = self.names.len() + self.brought.len();
        held.max(self.pending.len()) <= MOST_NAMES
    }

    /// Notes names that a newer revision changed.
    pub(super) fn changed(&mut self, revision: &Revision, names: &Names) {
        if self.wildcard {
            let offered = self.whose.offered(revision, self.kind);
            let mine = names.iter().filter(|name| offered.is_for(name));
            self.pending.extend(mine.cloned());
            return;
        }
        // Services first: a workload may belong to one that is only now found by its address.
        for name in names {
            if self.concerns(revision, name) {
                self.names.insert(name.clone());
                self.pending.insert(name.clone());
            }
        }
        for name in names {
            if self.brought.contains(name) || self.belongs(revision, name) {
                self.brought.insert(name.clone());
                self.pending.insert(name.clone());
            }
        }
    }

    /// Whether a changed name was asked for, by itself or by an address that is now its own, or is
    /// a workload of this node.
    fn concerns(&self, revision: &Revision, name: &str) -> bool {
        let resource = self.offered(revision).get(name);
        let now = |r: &Arc<Resource>| {
            self.is_own(r) || r.lookup.iter().any(|a| self.names.contains(a.as_str()))
        };
        let address = self.kind == Kind::Address;
        self.names.contains(name) || (address && resource.is_some_and(now))
    }

    /// Whether it is a workload of a service that was asked for.
    fn belongs(&self, revision: &Revision, name: &str) -> bool {
        let resource = self.offered(revision).get(name);
        resource.is_some_and(|r| r.services.iter().any(|s| self.names.contains(s)))
    }

    /// Notes that the revision resource is to be sent again.
    pub(super) fn owe(&mut self) {
        self.pending.insert(Arc::from(REVISION_NAME));
    }

    /// Itself, unless a response is unacknowledged.
    pub(super) fn idle(&self) -> Option<&Self> {
        self.in_flight.is_none().then_some(self)
    }

    /// Whether an answer, perhaps a first part of one, has been given.
    pub(super) fn was_answered(&self) -> bool {
        self.answered
    }

    /// Whether what was asked for at first has yet to be sent in full.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(super) fn was_acked(&self) -> bool {
        self.acked
    }

    /// Whether everything owed has been sent, acknowledged or not.
    pub(super) fn is_sent(&self) -> bool {
        self.answered && !self.owed && self.pending.is_empty()
    }

    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|sent| sent.since)
    }

    /// The batch, if there is something in it or an empty one is owed.
    pub(super) fn due(&self, mut batch: Batch) -> Option<Batch> {
        if self.owed || !batch.resources.is_empty() || !batch.removed.is_empty() {
            batch.removed.extend(self.aliases.iter().cloned());
            return Some(batch);
        }
        None
    }

    /// Notes that a batch was sent.
    pub(super) fn sent(&mut self, nonce: &str, now: Instant, number: u64, batch: &Batch) {
        for resource in &batch.resources {
            self.pending.remove(&resource.name);
        }
        for name in &batch.removed {
            self.pending.remove(name);
        }
        self.aliases.clear();
        self.owed = false;
        self.answered = true;
        self.fresh &= !self.pending.is_empty();
        self.in_flight = Some(InFlight {
            nonce: nonce.to_owned(),
            since: now,
            completes: self.pending.is_empty().then_some(number),
        });
    }

    /// What is pending and exists, in the order of names.
    fn existing<'r>(&'r self, revision: &'r Revision) -> impl Iterator<Item = &'r Arc<Resource>> {
        let resources = self.offered(revision);
        let pending = self.pending.iter();
        pending.filter_map(move |name| resources.get(name))
    }

    fn is_own(&self, resource: &Resource) -> bool {
        resource.node == self.whose.node
    }

    /// What is pending and no longer exists.
    pub(super) fn gone<'r>(
        &'r self,
        revision: &'r Revision,
    ) -> impl Iterator<Item = Arc<str>> + 'r {
        let resources = self.offered(revision);
        let gone = move |name: &&Arc<str>| !resources.contains_key(name);
        self.pending.iter().filter(gone).cloned()
    }

    pub(super) fn upserts(&self, revision: &Revision, chunk: Chunk) -> Batch {
        Batch::filled(self.existing(revision).cloned(), chunk)
    }

    pub(super) fn owes_upserts(&self, revision: &Revision) -> bool {
        self.existing(revision).next().is_some()
    }

    pub(super) fn remote(&self, revision: &Revision, chunk: Chunk) -> Batch {
        let remote = self.existing(revision).filter(|r| !self.is_own(r));
        Batch::filled(remote.cloned(), chunk)
    }

    pub(super) fn owes_remote(&self, revision: &Revision) -> bool {
        self.existing(revision).any(|r| !self.is_own(r))
    }

    pub(super) fn own<'r>(
        &'r self,
        revision: &'r Revision,
    ) -> impl Iterator<Item = Arc<Resource>> + 'r {
        let own = self.existing(revision).filter(|r| self.is_own(r));
        own.cloned()
    }

    pub(super) fn owes_own(&self, revision: &Revision) -> bool {
        self.own(revision).next().is_some()
    }

    pub(super) fn all(&self, revision: &Revision, chunk: Chunk) -> Batch {
        let mut batch = self.upserts(revision, chunk);
        if batch.complete {
            batch.remove(self.gone(revision));
        }
        batch
    }
}
