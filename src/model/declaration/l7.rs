//! What the operator says of the traffic that passes waypoints: routes, destination rules and
//! service entries (`spec/waypoint-l7.md` §2, §3).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Canary, Origin, Port, UseWaypoint};
use crate::model::route::{BackendRef, RouteKey, Rule};
use crate::model::traffic::TrafficPolicy;
use crate::model::waypoint::{ExternalEndpoint, Resolution};

/// A route of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Where it was written.
    pub origin: Origin,
    /// Its kind, namespace and name.
    pub key: RouteKey,
    /// What it is attached to; none of a `virtual-service`.
    pub parents: Vec<ParentRef>,
    /// `hostnames`: the server names of a `tls-route`, without effect on other kinds. `hosts` of a
    /// `virtual-service`: host names in full, or wildcards; none of one that others delegate to.
    pub hosts: Vec<Arc<str>>,
    /// Its rules in the order they were written.
    pub rules: Vec<Rule<BackendRef>>,
    /// The rules among them, in their order, whose place those of other virtual services take;
    /// `virtual-service` alone.
    pub delegates: Vec<Delegate>,
}

/// A `virtual-service` whose rules take the place of another one's rule (§3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// The rule, by its place in the list.
    pub rule: usize,
    /// The namespace of the virtual service.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// What a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// Of which kind.
    pub kind: ParentKind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The service port meant; absent for all of them.
    pub port: Option<u16>,
    /// Where this was written.
    pub origin: Origin,
}

/// What can be a parent of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParentKind {
    /// `Service`.
    Service,
    /// `ServiceEntry`.
    ServiceEntry,
}

/// `[[destination-rule]]`, or a `[[backend-tls-policy]]`, which means the same.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The host name it is for, in full; a wildcard `*.suffix`, or `*`.
    pub host: Arc<str>,
    /// What holds for all endpoints.
    pub traffic: TrafficPolicy,
    /// Parts of them, by labels.
    pub subsets: Vec<SubsetLabels>,
}

/// A subset.
#[derive(Clone, Debug, PartialEq)]
pub struct SubsetLabels {
    /// Its name, unique in its rule.
    pub name: Arc<str>,
    /// Labels that its workloads carry, all of them.
    pub labels: BTreeMap<String, String>,
    /// What holds for it, everything inherited filled in; absent where it is as for all.
    pub traffic: Option<TrafficPolicy>,
}

/// `[[service-entry]]`: a service outside the mesh, or one by another name.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceEntry {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its host names, at least one; a wildcard `*.suffix` with [`Resolution::DynamicDns`] alone.
    pub hosts: Vec<Arc<str>>,
    /// Addresses and ranges it is asked for by; empty means addresses are assigned.
    pub addresses: Vec<IpNet>,
    /// Its ports, at least one.
    pub ports: Vec<Port>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Those that are listed.
    pub endpoints: Vec<Endpoint>,
    /// Labels of the workloads that are its endpoints instead.
    pub selector: BTreeMap<String, String>,
    /// Names of which one must be in a certificate, where TLS is originated.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Who may see it.
    pub export_to: ExportTo,
    /// The waypoint it is reached through.
    pub use_waypoint: Option<UseWaypoint>,
    /// Its canary.
    pub canary: Canary,
    /// Whether ingress gateways pass its waypoint; absent means as its namespace says.
    pub ingress_use_waypoint: Option<bool>,
    /// Labels, the meaningful ones removed.
    pub labels: BTreeMap<String, String>,
}

impl ServiceEntry {
    /// The addresses among those that it is asked for by.
    pub fn single_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let single = self.addresses.iter().filter(|net| is_single(net));
        single.map(IpNet::addr)
    }

    /// The ranges.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> {
        let all = self.addresses.iter().copied();
        all.filter(|net| !is_single(net))
    }
}

/// Whether it is one address, and not a range.
pub fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// An endpoint that a service entry lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub external: ExternalEndpoint,
    /// What subsets know it by.
    pub labels: BTreeMap<String, String>,
}

/// Who may see something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportTo {
    /// Everyone.
    #[default]
    Everyone,
    /// Its own namespace.
    Own,
}
