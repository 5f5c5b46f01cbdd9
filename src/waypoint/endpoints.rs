//! What a waypoint instance remembers of endpoints: what is under way at each, which have failed too
//! often, and since when they are there (`spec/waypoint-l7.md` §3.4).
//!
//! It is kept by service, port and subset, for as long as the endpoints stay, whatever revision the mesh
//! is at. [`picker`] picks by it, [`outlier`] says who is left alone, [`limits`] what is too much.

mod limits;
mod outlier;
mod picker;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::routing::Untold;
use crate::model::balance::{RoundRobin, Table};
use crate::model::service::ServiceKey;
use crate::model::traffic::{
    Balance, HashKey, HashTable, LocalityPolicy, OutlierDetection, Settings, TlsOrigination,
    UpstreamTls,
};
use crate::model::view::View;
use crate::model::waypoint::{GatewayConfig, NamedTraffic, Resources, ServiceBinding, Subset};
use crate::telemetry::Metrics;
use limits::Load;
pub(super) use limits::{Overflow, Place};
pub(super) use outlier::Outcome;
use outlier::Outliers;
pub(super) use picker::Picker;

/// Groups that are kept; beyond it those in which nothing is under way are forgotten.
const MOST_GROUPS: usize = 16_384;
/// How long a group is kept that nobody asks for: as long as its endpoints may be out, and longer than
/// most pauses between requests.
const UNUSED: Duration = Duration::from_secs(3600);

/// What names a group of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub(super) service: ServiceKey,
    pub(super) port: u16,
    /// The subset; empty for all.
    pub(super) subset: Arc<str>,
}

/// All groups of a waypoint.
pub(super) struct Endpoints {
    groups: Mutex<HashMap<GroupKey, Arc<Group>>>,
    metrics: Arc<Metrics>,
}

/// The traffic policy that holds for a group.
#[derive(Clone, Default)]
pub(super) struct Ruled {
    named: Option<Arc<NamedTraffic>>,
    binding: Option<Arc<ServiceBinding>>,
    gateway: Option<Arc<GatewayConfig>>,
    port: u16,
}

impl Ruled {
    /// What is told of a service port, or of a subset of it.
    ///
    /// # Errors
    /// [`Untold`] where the service is not told of, or not the policy that it names: it may ask for TLS,
    /// and is never taken for none.
    pub(super) fn new(
        resources: &Resources,
        service: &ServiceKey,
        port: u16,
        subset: Option<&Subset>,
    ) -> Result<Self, Untold> {
        let binding = resources.services.get(service);
        let binding = binding.ok_or_else(|| Untold::Service(service.clone()))?;
        let own = subset.and_then(|subset| subset.traffic.as_ref());
        let named = match own.or(binding.traffic.as_ref()) {
            None => None,
            Some(key) => {
                let untold = || Untold::Traffic {
                    service: service.clone(),
                    rule: Arc::clone(&key.name),
                };
                Some(resources.traffic.get(key).ok_or_else(untold)?)
            }
        };
        Ok(Self {
            named: named.cloned(),
            binding: Some(Arc::clone(binding)),
            gateway: resources.gateway.clone(),
            port,
        })
    }

    /// The name of the service, where something is told of it.
    pub(super) fn hostname(&self) -> Option<&str> {
        self.binding.as_ref().map(|binding| &*binding.key.hostname)
    }

    /// Whether connections from one address go to the same endpoint.
    pub(super) fn hashes_source(&self) -> bool {
        let key = HashKey::SourceIp;
        let policy = &self.settings().load_balancer.policy;
        matches!(policy, Balance::Hash { key: by, .. } if *by == key)
    }

    /// How TLS is begun, if it is. Names that a rule leaves open are those of the service-entry (§3.5).
    pub(super) fn origination(&self) -> Option<TlsOrigination> {
        let UpstreamTls::Originate(tls) = &self.settings().tls else {
            return None;
        };
        let mut tls = tls.clone();
        let external = self.binding.as_ref().and_then(|b| b.external.as_ref());
        if let Some(external) = external.filter(|_| tls.subject_alt_names.is_empty()) {
            tls.subject_alt_names
                .clone_from(&external.subject_alt_names);
        }
        Some(tls)
    }

    /// Which localities are preferred where neither it nor the service says so.
    pub(super) fn locality(&self) -> &LocalityPolicy {
        static USUAL: LazyLock<LocalityPolicy> = LazyLock::new(LocalityPolicy::usual);
        let gateway = self.gateway.as_ref();
        gateway.map_or(&USUAL, |gateway| &gateway.options.locality)
    }

    /// What it says.
    pub(super) fn settings(&self) -> &Settings {
        static USUAL: LazyLock<Settings> = LazyLock::new(Settings::default);
        let named = self.named.as_ref();
        named.map_or(&USUAL, |named| named.policy.on(self.port))
    }
}

/// The endpoints of a service port, or of a subset of it.
pub(super) struct Group {
    key: GroupKey,
    state: Mutex<State>,
    load: Arc<Load>,
    metrics: Arc<Metrics>,
}

struct State {
    hosts: HashMap<Arc<str>, Host>,
    /// Whether the first of them are known: those are not new.
    met: bool,
    /// Where they were seen last, and how many. Held, no other view has its address.
    seen: (Weak<View>, usize),
    outliers: Outliers,
    /// What detects them, as last seen.
    detection: Option<OutlierDetection>,
    turns: RoundRobin,
    table: Option<Spread>,
    used: Instant,
}

/// One endpoint.
struct Host {
    under_way: u32,
    /// Since when it is there; absent for one that was there from the beginning.
    since: Option<Instant>,
    /// Where it was last reached.
    address: Option<SocketAddr>,
}

/// Keys spread over endpoints, and whom it was made of.
struct Spread {
    kind: HashTable,
    of: Vec<(Arc<str>, u32)>,
    table: Table,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoints {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            groups: Mutex::default(),
            metrics,
        }
    }

    /// A group, new where it is asked for the first time.
    pub(super) fn group(&self, key: GroupKey, now: Instant) -> Arc<Group> {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.get(&key) {
            return Arc::clone(group);
        }
        if groups.len() >= MOST_GROUPS {
            groups.retain(|_, group| Arc::strong_count(group) > 1);
        }
        let group = Arc::new(Group::new(key.clone(), Arc::clone(&self.metrics), now));
        groups.insert(key, Arc::clone(&group));
        group
    }

    /// Lets in whose time is over, forgets what nobody asks for, and tells how many are out.
    pub(super) fn look(&self, now: Instant) {
        let mut out: HashMap<ServiceKey, usize> = HashMap::new();
        lock(&self.groups).retain(|key, group| {
            let mut state = lock(&group.state);
            state.look(now);
            *out.entry(key.service.clone()).or_default() += state.outliers.out();
            Arc::strong_count(group) > 1 || now.duration_since(state.used) < UNUSED
        });
        self.metrics.ejected(&out);
    }
}

impl Group {
    fn new(key: GroupKey, metrics: Arc<Metrics>, now: Instant) -> Self {
        // Begins anywhere, so that instances that start together do not all begin with one endpoint.
        let start = rand::random::<u32>() as usize;
        Self {
            key,
            state: Mutex::new(State {
                hosts: HashMap::new(),
                met: false,
                seen: (Weak::new(), 0),
                outliers: Outliers::default(),
                detection: None,
                turns: RoundRobin::starting_after(start),
                table: None,
                used: now,
            }),
            load: Arc::default(),
            metrics,
        }
    }

    /// Whether the endpoint last reached there is out.
    pub(super) fn is_out(&self, address: SocketAddr, now: Instant) -> bool {
        let mut state = lock(&self.state);
        state.look(now);
        let mut hosts = state.hosts.iter();
        let host = hosts.find(|(_, host)| host.address == Some(address));
        host.is_some_and(|(uid, _)| state.outliers.is_out(uid))
    }

    /// Something is under way at an endpoint, until what is returned is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        uid: &Arc<str>,
        address: SocketAddr,
        ruled: Ruled,
        now: Instant,
    ) -> UnderWay {
        let mut state = lock(&self.state);
        let since = state.met.then_some(now);
        let host = state.hosts.entry(Arc::clone(uid)).or_insert(Host {
            under_way: 0,
            since,
            address: None,
        });
        host.under_way = host.under_way.saturating_add(1);
        host.address = Some(address);
        drop(state);
        UnderWay {
            group: Arc::clone(self),
            uid: Arc::clone(uid),
            ruled,
        }
    }

    fn note(&self, uid: &Arc<str>, outcome: Outcome, rule: &OutlierDetection, now: Instant) {
        let mut state = lock(&self.state);
        let all = state.hosts.len();
        let out = state.outliers.note(uid, outcome, all, rule, now);
        drop(state);
        if out {
            self.metrics.ejection(&self.key.service);
            let (service, endpoint) = (&self.key.service, &**uid);
            tracing::info!(%service, endpoint, "endpoint fails too often, left alone for a while");
        }
    }
}

impl State {
    fn look(&mut self, now: Instant) {
        match &self.detection {
            Some(rule) => self.outliers.look(rule, now),
            None => self.outliers.clear(),
        }
    }

    /// Whether these are the endpoints that it knows: so many, in the same view of the mesh.
    fn knows(&mut self, view: &Arc<View>, count: usize) -> bool {
        let now = (Arc::downgrade(view), count);
        let same = self.seen.1 == count && self.seen.0.ptr_eq(&now.0);
        self.seen = now;
        same
    }

    /// Gets to know those that are there now, and forgets the others, but for what is under way.
    fn meet<'a>(&mut self, there: impl Iterator<Item = &'a Arc<str>> + Clone, now: Instant) {
        let first = !self.met;
        self.met = true;
        let mut known = 0;
        for uid in there.clone() {
            known += usize::from(self.hosts.contains_key(uid));
            if !self.hosts.contains_key(uid) {
                let host = Host {
                    under_way: 0,
                    since: (!first).then_some(now),
                    address: None,
                };
                self.hosts.insert(Arc::clone(uid), host);
                known += 1;
            }
        }
        if known < self.hosts.len() {
            let there: std::collections::HashSet<&str> = there.map(|uid| &**uid).collect();
            self.hosts
                .retain(|uid, host| there.contains(&**uid) || host.under_way > 0);
            self.outliers.retain(|uid| there.contains(uid));
        }
    }
}

/// A request or connection that is under way at an endpoint.
pub(super) struct UnderWay {
    group: Arc<Group>,
    uid: Arc<str>,
    ruled: Ruled,
}

impl UnderWay {
    /// The traffic policy that holds for it.
    pub(super) fn settings(&self) -> &Settings {
        self.ruled.settings()
    }

    /// Tells how it went.
    pub(super) fn note(&self, outcome: Outcome) {
        if let Some(rule) = &self.settings().outlier_detection {
            self.group.note(&self.uid, outcome, rule, Instant::now());
        }
    }

    /// What names the group it is in.
    pub(super) fn group(&self) -> &GroupKey {
        &self.group.key
    }

    /// A place among the connections.
    pub(super) fn connection(&self) -> Result<Place, Overflow> {
        self.group.load.connection(self.settings())
    }

    /// Whether there are more connections than may be opened.
    pub(super) fn is_over(&self) -> bool {
        self.group.load.is_over(self.settings())
    }

    /// A place among the requests that wait for a connection.
    pub(super) fn pending(&self) -> Result<Place, Overflow> {
        self.group.load.pending(self.settings())
    }

    /// A place among the requests.
    pub(super) fn request(&self) -> Result<Place, Overflow> {
        self.group.load.request(self.settings())
    }

    /// A place among the retries; none where there are too many.
    pub(super) fn retry(&self) -> Option<Place> {
        self.group.load.retry(self.settings())
    }

    /// Returns once there may be room for a connection, or one that nobody uses.
    pub(super) fn room(&self) -> &tokio::sync::Notify {
        self.group.load.room()
    }

    /// There is a connection that nobody uses.
    pub(super) fn tell_room(&self) {
        self.group.load.tell_room();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = lock(&self.group.state);
        if let Some(host) = state.hosts.get_mut(&self.uid) {
            host.under_way = host.under_way.saturating_sub(1);
        }
        drop(state);
        // A stream of a connection that others share is free again.
        self.tell_room();
    }
}
