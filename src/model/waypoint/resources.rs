//! What a waypoint is told beyond the mesh view: which routes and traffic policies hold for the
//! services behind it, decided once by the control plane (`spec/control-plane.md` §8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{Bound, WaypointName};
use crate::model::attached::PolicyKey;
use crate::model::authentication::{self, Authentication, Fetching};
use crate::model::authorization::{Authorization, Set, Trusted};
use crate::model::declaration::{ExtAuthz, Origin, WaypointFor};
use crate::model::limit::Limit;
use crate::model::route::{PathNormalization, Retry, Route, RouteKey, Target};
use crate::model::service::{AppProtocol, NetworkAddress, ServiceKey};
use crate::model::telemetry::{Defaults, Merged, Setup, Telemetry};
use crate::model::traffic::{LocalityPolicy, TrafficPolicy};
use crate::model::workload::Locality;

/// Everything a waypoint is told of itself, as of one revision. What could not be read is not in it,
/// so what refers to it is refused (§8.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// What it is; without it, all tunnels are refused.
    pub gateway: Option<Arc<GatewayConfig>>,
    /// The services behind it.
    pub services: BTreeMap<ServiceKey, Arc<ServiceBinding>>,
    /// The routes those name.
    pub routes: BTreeMap<RouteKey, Arc<Route>>,
    /// The traffic policies those name.
    pub traffic: BTreeMap<TrafficKey, Arc<NamedTraffic>>,
    /// The authorization policies that are attached.
    pub policies: BTreeMap<PolicyKey, Arc<Authorization>>,
    /// The rate limits that are.
    pub limits: BTreeMap<PolicyKey, Arc<Limit>>,
    /// The providers those name.
    pub extensions: BTreeMap<Arc<str>, Arc<Extension>>,
    /// The request authentications that are attached.
    pub authentications: BTreeMap<PolicyKey, Arc<Authentication>>,
    /// The telemetry that is.
    pub telemetry: BTreeMap<PolicyKey, Arc<Telemetry>>,
}

/// A provider that policies have asked (`spec/waypoint-l7.md` §4.4). One that a policy names and that is
/// not told of is one that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: Arc<str>,
    /// Where it was written.
    pub origin: Origin,
    /// Whom to ask.
    pub to: Target,
    /// How.
    pub check: ExtAuthz,
}

impl Resources {
    /// The authorization policies among what is attached. One that is named and not told of denies
    /// everything.
    pub fn policies_of(&self, set: &AttachedSet) -> Set {
        let named = set.policies.iter();
        let known = |key: &&PolicyKey| self.policies.contains_key(*key);
        let missing = named.clone().find(|key| !known(key)).cloned();
        let policies = named.filter_map(|key| self.policies.get(key).cloned());
        Set::new(policies, missing)
    }

    /// The request authentications among what is attached. Where one is named and not told of, nothing
    /// passes.
    pub fn authentications_of(&self, set: &AttachedSet) -> authentication::Set {
        let (named, told) = (&set.authentications, &self.authentications);
        let missing = named.iter().find(|key| !told.contains_key(*key)).cloned();
        let policies = named.iter().filter_map(|key| told.get(key).cloned());
        authentication::Set::new(policies, missing)
    }

    /// The telemetry among what is attached, the widest first.
    pub fn telemetry_of<'a>(
        &'a self,
        set: &'a AttachedSet,
    ) -> impl Iterator<Item = &'a Arc<Telemetry>> + Clone {
        let named = set.telemetry.iter();
        named.filter_map(|key| self.telemetry.get(key))
    }

    /// What is told of requests by what is attached.
    pub fn merged_of(&self, set: &AttachedSet) -> Merged {
        let defaults = self
            .gateway
            .as_ref()
            .map(|gateway| &gateway.options.telemetry.defaults);
        let levels = self.telemetry_of(set).map(|telemetry| &telemetry.says);
        let none = Defaults::default();
        Merged::new(defaults.unwrap_or(&none), levels)
    }

    /// The rate limits among what is attached.
    ///
    /// # Errors
    /// The first that is named and not told of.
    pub fn limits_of(&self, set: &AttachedSet) -> Result<Vec<Arc<Limit>>, PolicyKey> {
        let named = set.limits.iter();
        let known = named.map(|key| self.limits.get(key).cloned().ok_or_else(|| key.clone()));
        known.collect()
    }

    /// What is attached to what was asked for; none where nothing is told of it.
    pub fn attached_to(&self, bound: &Bound) -> Option<&AttachedSet> {
        match bound {
            Bound::Service { service, .. } => Some(&self.services.get(&service.key)?.set),
            Bound::Workload { .. } => Some(&self.gateway.as_ref()?.workload_set),
        }
    }
}

/// What is attached to a service, or to all that is addressed to workloads, each kind in the order it
/// was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachedSet {
    /// Authorization policies.
    pub policies: Vec<PolicyKey>,
    /// Request authentications.
    pub authentications: Vec<PolicyKey>,
    /// Telemetry, the widest first.
    pub telemetry: Vec<PolicyKey>,
    /// Rate limits.
    pub limits: Vec<PolicyKey>,
}

/// A waypoint as a whole. Which workloads are behind it is not in it: the mesh view says so of each, and the
/// list that §8.2 of `spec/control-plane.md` has would be sent anew whenever one comes or goes.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// Which.
    pub name: WaypointName,
    /// Where it was written.
    pub origin: Origin,
    /// The traffic it takes.
    pub waypoint_for: WaypointFor,
    /// The port it takes tunnels on.
    pub hbone_port: u16,
    /// How it treats what comes.
    pub options: Options,
    /// What holds for all that is addressed to workloads.
    pub workload_set: AttachedSet,
}

/// How a waypoint treats what comes, whatever it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Whether programs are told who the client is, by `x-forwarded-client-cert` (§1.3 of
    /// `spec/waypoint-l7.md`).
    pub xfcc_include_client_identity: bool,
    /// How long the first byte is waited for on a port of unknown protocol; then it is TCP.
    pub sniff_timeout: Duration,
    /// The mesh's `default-http-retry-policy`, for rules that have none of their own.
    pub default_retry: Retry,
    /// The mesh's `locality-lb-setting`, for services of which neither a destination rule nor they
    /// themselves say anything.
    pub locality: LocalityPolicy,
    /// How it gets the keys of those whose tokens it believes.
    pub fetching: Fetching,
    /// Whom it tells of what it did.
    pub telemetry: Setup,
    /// The mesh's `path-normalization`.
    pub paths: PathNormalization,
    /// The mesh's `trusted-proxies`.
    pub trusted: Trusted,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            xfcc_include_client_identity: false,
            sniff_timeout: Duration::from_millis(100),
            default_retry: Retry::usual(),
            locality: LocalityPolicy::usual(),
            fetching: Fetching::usual(),
            telemetry: Setup::default(),
            paths: PathNormalization::Base,
            trusted: Trusted::default(),
        }
    }
}

/// What holds for a service behind a waypoint, or for one that routes lead to.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceBinding {
    /// The service.
    pub key: ServiceKey,
    /// Where it was written.
    pub origin: Origin,
    /// Whether the waypoint stands for it. One that does not is only a backend.
    pub bound: bool,
    /// Its addresses.
    pub addresses: Vec<NetworkAddress>,
    /// Its ports.
    pub ports: Vec<BoundPort>,
    /// What is attached to it.
    pub set: AttachedSet,
    /// Its traffic policy; every default holds where it has none.
    pub traffic: Option<TrafficKey>,
    /// Parts of its endpoints.
    pub subsets: Vec<Subset>,
    /// Its endpoints outside the mesh, for a `service-entry`.
    pub external: Option<External>,
}

/// A port of a service and the routes for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPort {
    /// The service port.
    pub port: u16,
    /// Its name; empty where it has none.
    pub name: Arc<str>,
    /// What is spoken on it.
    pub protocol: AppProtocol,
    /// Routes that name this port, in order; they are tried first (§2.1).
    pub routes: Vec<RouteKey>,
    /// Routes for all ports, in order.
    pub general: Vec<RouteKey>,
}

/// A part of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Its name.
    pub name: Arc<str>,
    /// The uids of its workloads, in order.
    pub uids: Vec<Arc<str>>,
    /// Its own traffic policy, where that differs from the service's.
    pub traffic: Option<TrafficKey>,
}

/// What names a traffic policy: its `destination-rule`, and a subset of that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficKey {
    /// The rule's namespace.
    pub namespace: Arc<str>,
    /// The rule's name.
    pub name: Arc<str>,
    /// The subset; empty for all.
    pub subset: Arc<str>,
}

/// A traffic policy by its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTraffic {
    /// Its name.
    pub key: TrafficKey,
    /// Where it was written.
    pub origin: Origin,
    /// What it says.
    pub policy: TrafficPolicy,
}

/// The endpoints of a `service-entry` (`spec/waypoint-l7.md` §3.7).
#[derive(Clone, Debug, PartialEq)]
pub struct External {
    /// Its host names; a wildcard `*.suffix` for DYNAMIC_DNS.
    pub hosts: Vec<Arc<str>>,
    /// Ranges that it is asked for by, beside its addresses.
    pub ranges: Vec<IpNet>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Those that are listed.
    pub endpoints: Vec<ExternalEndpoint>,
    /// Names of which one must be in a certificate, where TLS is originated.
    pub subject_alt_names: Vec<Arc<str>>,
}

/// How the endpoints of a `service-entry` are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// The address that was asked for.
    #[default]
    None,
    /// Those listed, or the workloads selected.
    Static,
    /// All addresses of the names.
    Dns,
    /// The first address of the latest answer.
    DnsRoundRobin,
    /// The addresses of the host that the request names.
    DynamicDns,
}

/// An endpoint outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalEndpoint {
    /// An IP address, or a name to resolve.
    pub address: Arc<str>,
    /// Its port by service port; the service's target port where that is absent.
    pub ports: BTreeMap<u16, u16>,
    /// Its share beside the others'.
    pub weight: u32,
    /// Where it stands.
    pub locality: Locality,
}
