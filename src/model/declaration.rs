//! The mesh as the operator declared it: checked, complete, nothing optional that has a default.
//!
//! `config` makes these values and nothing else does; `model::compile` reads them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

mod attribute;
mod authentication;
mod l7;
mod policy;
mod provider;
mod telemetry;

pub use super::policy::{ServiceAccount, Values};
pub use attribute::{Attribute, AttributeError};
pub use authentication::{
    ClaimHeader, JwtRule, KeySource, Location, Remote, RemoteAt, RequestAuthentication,
    configuration_of,
};
pub use l7::{
    Delegate, DestinationRule, Endpoint, ExportTo, ParentKind, ParentRef, Route, ServiceEntry,
    SubsetLabels, is_single,
};
pub use policy::{
    Action, Attachment, AuthorizationPolicy, Condition, MtlsMode, Operation, PathPattern,
    PeerAuthentication, RateLimit, Rule, Source, TargetKind, TargetRef,
};
pub use provider::{
    CheckOver, CheckedBody, ExtAuthz, FileAccessLog, HttpCheck, OpenTelemetry, OtelAccessLog,
    OtlpHttp, Provider, ProviderKind, ProviderService, TraceContext, Zipkin,
};
pub use telemetry::{Telemetry, TelemetryDefaults};

use super::authentication::Fetching;
use super::authorization::Trusted;
use super::route::{PathNormalization, Retry};
use super::service::{AppProtocol, UdpPort};
use super::shared::Shared;
use super::traffic::LocalityPolicy;
use super::workload::{Locality, Transport};
use crate::identity::TrustDomain;

/// Where in the mesh directory a resource was written; the order of two resources is the order of
/// their origins (`spec/labels-and-policy.md`, "Older").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file, relative to the mesh directory.
    pub file: Arc<str>,
    /// Line of the resource's table header, from 1.
    pub line: u32,
}

/// A whole mesh directory, after every check has passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// The `[mesh]` table.
    pub settings: Settings,
    /// Machines by name.
    pub nodes: BTreeMap<Arc<str>, Node>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<Arc<str>, Namespace>,
    /// Workloads in the order they were written.
    pub workloads: Vec<Shared<Workload>>,
    /// Services in the order they were written.
    pub services: Vec<Service>,
    /// Waypoints in the order they were written.
    pub gateways: Vec<Gateway>,
    /// Authorization policies in the order they were written.
    pub authorization_policies: Vec<AuthorizationPolicy>,
    /// Telemetry in the order it was written.
    pub telemetry: Vec<Telemetry>,
    /// Peer authentications in the order they were written.
    pub peer_authentications: Vec<PeerAuthentication>,
    /// Request authentications in the order they were written.
    pub request_authentications: Vec<RequestAuthentication>,
    /// Rate limits in the order they were written.
    pub rate_limits: Vec<RateLimit>,
    /// Routes of every kind in the order they were written.
    pub routes: Vec<Route>,
    /// Destination rules in the order they were written.
    pub destination_rules: Vec<DestinationRule>,
    /// Service entries in the order they were written.
    pub service_entries: Vec<ServiceEntry>,
}

/// Mesh-wide settings, the `[mesh]` table (DESIGN §5).
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where identities are rooted; `cluster.local` unless set.
    pub trust_domain: TrustDomain,
    /// Other trust domains whose identities are believed, under this mesh's roots, and meant when
    /// a policy names one of them (`spec/labels-and-policy.md` §3.9); none unless set.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// The suffix of service host names; `mesh.internal` unless set.
    pub domain: Arc<str>,
    /// The namespace whose policies hold for the whole mesh; `istio-system` unless set.
    pub root_namespace: Arc<str>,
    /// Where service addresses lie; `240.240.0.0/16` and `2001:2::/48` unless set.
    /// Addresses are assigned from the first range of each family.
    pub service_range: Vec<IpNet>,
    /// Life of a workload certificate; 8 days unless set.
    pub certificate_ttl: Duration,
    /// How long nodes take each other's certificates past their end while no control plane is there to
    /// renew them (`spec/control-plane.md` §6.7); not at all unless set.
    pub expired_grace: Duration,
    /// The cluster id told to Istio's tools; `Kubernetes` unless set.
    pub cluster_id: Arc<str>,
    /// The network of workloads that name none; empty unless set.
    pub network: Arc<str>,
    /// Over what tunnels towards workloads go of which nothing else says so; TCP unless set.
    pub transport: Transport,
    /// Whether what is behind a waypoint takes connections from that alone, unless a policy allows
    /// others (`spec/labels-and-policy.md` §3.8); not unless set.
    pub auto_allow_waypoint: bool,
    /// `default-http-retry-policy`: when requests are asked again of which no rule says so
    /// (`spec/waypoint-l7.md` §3.2).
    pub retry: Retry,
    /// `locality-lb-setting`, for services of which nothing else says so (§3.6 there); region, zone and
    /// subzone unless set.
    pub locality: LocalityPolicy,
    /// `extension-providers` in the order they were written.
    pub providers: Vec<Provider>,
    /// How waypoints get the keys of those whose tokens they believe.
    pub fetching: Fetching,
    /// `access-log-file` and `default-providers`.
    pub telemetry: TelemetryDefaults,
    /// `path-normalization`: the form in which paths are routed, judged and sent on.
    pub paths: PathNormalization,
    /// `trusted-proxies` and `num-trusted-proxies`: who may say for whom they ask.
    pub trusted: Trusted,
    /// Order of revisions across control planes, 0 when undeclared (`spec/control-plane.md` §6.5).
    pub serial: u64,
}

/// A machine that may join (`[[node]]`).
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it was written.
    pub origin: Origin,
    /// Its unique name.
    pub name: Arc<str>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it stands; workloads on it inherit it.
    pub locality: Locality,
    /// The network its workloads are on.
    pub network: Arc<str>,
    /// Labels, the meaningful ones removed.
    pub labels: BTreeMap<String, String>,
    /// What carries its workloads' traffic.
    pub proxy: Proxy,
    /// Over what tunnels towards its workloads go; absent means as the mesh says.
    pub transport: Option<Transport>,
}

/// What carries the traffic of a node's workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// Our own, which reports what it has captured.
    #[default]
    Lateen,
    /// Istio's ztunnel, set up by somebody else: it reports nothing, and is taken to tunnel from the
    /// start (`spec/control-plane.md` §7.3).
    Ztunnel,
}

/// Whether traffic of a namespace or workload is captured (`istio.io/dataplane-mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataplaneMode {
    /// Captured and tunnelled.
    Ambient,
    /// Left alone.
    None,
}

/// The value of `use-waypoint`, normalised (`spec/labels-and-policy.md` §1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UseWaypoint {
    /// `none`: opted out.
    None,
    /// A waypoint by namespace and name.
    Named {
        /// The waypoint's namespace.
        namespace: Arc<str>,
        /// The waypoint's name.
        name: Arc<str>,
    },
}

/// A second waypoint that takes a share of the traffic (`spec/labels-and-policy.md` §1.7), as far as
/// one resource says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canary {
    /// `use-waypoint-canary`, with its namespace.
    pub waypoint: Option<UseWaypoint>,
    /// `use-waypoint-canary-weight`; 0 unless set.
    pub weight: Option<CanaryWeight>,
}

/// The share of a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryWeight {
    /// Percent of the connections, at most 100.
    Percent(u8),
    /// No such share, as it was written: the canary is not used.
    Invalid(Arc<str>),
}

/// Which traffic a waypoint takes (`istio.io/waypoint-for`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaypointFor {
    /// What is addressed to services.
    #[default]
    Service,
    /// What is addressed to workloads.
    Workload,
    /// Both.
    All,
    /// Neither.
    None,
}

/// The namespaces whose resources may be bound to a waypoint (`spec/labels-and-policy.md` §1.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedRoutes {
    /// Its own.
    #[default]
    Same,
    /// Every one.
    All,
    /// Those that carry all of these labels.
    Labels(BTreeMap<String, String>),
    /// None: a selector was announced and not given.
    Nobody,
}

/// A waypoint (`[[gateway]]`).
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace and not a service's there. Never `none`.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What it calls itself; its own name unless set.
    pub service_account: Arc<str>,
    /// The machines it runs on.
    pub machines: Machines,
    /// Declared addresses of its service; empty means assigned from the service range.
    pub addresses: Vec<IpAddr>,
    /// The traffic it takes.
    pub waypoint_for: WaypointFor,
    /// Who may be bound to it.
    pub allowed_routes: AllowedRoutes,
    /// Its HBONE port where the files leave no choice.
    pub hbone_port: Option<u16>,
    /// Whether it tells programs who the client is, in `x-forwarded-client-cert`.
    pub tells_identities: bool,
    /// Labels, the meaningful ones removed.
    pub labels: BTreeMap<String, String>,
}

/// The machines a waypoint runs on, an instance on each.
#[derive(Clone, Debug, PartialEq)]
pub enum Machines {
    /// One: its instance is known by the waypoint's name.
    One(Arc<str>),
    /// Any number: each instance is known by its machine's name too.
    Each(Vec<Arc<str>>),
}

impl Machines {
    /// Their names, in the order they were written.
    pub fn names(&self) -> &[Arc<str>] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Each(names) => names,
        }
    }
}

/// A namespace (`[[namespace]]`).
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// Where it was written.
    pub origin: Origin,
    /// Its unique name.
    pub name: Arc<str>,
    /// Whether its workloads are captured unless they say otherwise; absent means not.
    pub dataplane_mode: Option<DataplaneMode>,
    /// Over what tunnels towards its workloads go; absent means as their nodes say.
    pub transport: Option<Transport>,
    /// The waypoint its services and workloads use unless they say otherwise.
    pub use_waypoint: Option<UseWaypoint>,
    /// The canary of services that leave the waypoint to it.
    pub canary: Canary,
    /// Whether ingress gateways pass its services' waypoints unless these say otherwise.
    pub ingress_use_waypoint: Option<bool>,
    /// When given, the only service accounts its workloads may name.
    pub service_accounts: Option<Vec<Arc<str>>>,
    /// Labels, the meaningful ones removed.
    pub labels: BTreeMap<String, String>,
}

/// How a workload's traffic is taken over on its node (DESIGN §7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capture {
    /// A network namespace by its name under `/run/netns`, or an absolute path.
    Netns(Arc<str>),
    /// A systemd unit on the host's network.
    Unit(Arc<str>),
    /// A cgroup path on the host's network.
    Cgroup(Arc<str>),
    /// Everything a Unix user runs.
    User(Arc<str>),
    /// A guest behind a tap, bridge port or veth of the host.
    Interface(Arc<str>),
}

/// What a health probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// HTTP GET of a path; 200 to 399 passes.
    Http {
        /// The path asked for.
        path: Arc<str>,
        /// The workload's port.
        port: u16,
    },
    /// A TCP connect.
    Tcp {
        /// The workload's port.
        port: u16,
    },
    /// A command; exit 0 passes.
    Exec {
        /// Program and arguments.
        command: Vec<Arc<str>>,
    },
}

/// A workload's `health` table (`spec/control-plane.md` §7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Time between probes; 2 s unless set.
    pub interval: Duration,
    /// Longest wait for an answer; 1 s unless set.
    pub timeout: Duration,
    /// Passes in a row that make it healthy; 2 unless set.
    pub rise: u32,
    /// Failures in a row that make it unhealthy; 2 unless set.
    pub fall: u32,
    /// How long failures are forgiven before the first pass; 60 s unless set.
    pub start_timeout: Duration,
}

/// A workload (`[[workload]]`).
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What it may call itself; `default` unless set.
    pub service_account: Arc<str>,
    /// The machine it runs on; none for one outside every node (reached in plain text).
    pub node: Option<Arc<str>>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The network it is on; its node's, else the mesh's.
    pub network: Arc<str>,
    /// Labels, the meaningful ones removed; what selectors match.
    pub labels: BTreeMap<String, String>,
    /// How its traffic is captured; none when it is not.
    pub capture: Option<Capture>,
    /// Whether its traffic is captured; absent means as its namespace says.
    pub dataplane_mode: Option<DataplaneMode>,
    /// Over what tunnels towards it go; absent means as its namespace says.
    pub transport: Option<Transport>,
    /// Whether its questions for names are captured too; absent means as its node's settings say.
    pub dns_capture: Option<bool>,
    /// The waypoint for traffic to its own addresses.
    pub use_waypoint: Option<UseWaypoint>,
    /// How it is probed; none means it passes while it exists.
    pub health: Option<HealthCheck>,
    /// Where it stands.
    pub locality: Locality,
    /// Its share of traffic beside its peers; 1 unless set, 0 for none.
    pub capacity: u32,
}

/// One TCP port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// An optional name.
    pub name: Option<Arc<str>>,
    /// The port clients use.
    pub port: u16,
    /// The port its workloads listen on; the same unless set.
    pub target_port: u16,
    /// What is spoken on it.
    pub app_protocol: AppProtocol,
}

/// Which endpoints a service prefers, whoever asks (`traffic-distribution`, `spec/waypoint-l7.md` §3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDistribution {
    /// Those of the client's own network, region and zone, as many of these as there are.
    SameZone,
    /// And of its own subzone and machine.
    SameNode,
}

/// A service (`[[service]]`).
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Declared addresses; empty means assigned from the service range, none when headless.
    pub addresses: Vec<IpAddr>,
    /// Whether it has no address of its own and is known by its workloads' addresses.
    pub headless: bool,
    /// Its TCP ports. It has at least one port, of TCP or UDP.
    pub ports: Vec<Port>,
    /// Its UDP ports.
    pub udp_ports: Vec<UdpPort>,
    /// Labels a workload of the same namespace must all carry to belong to it.
    pub selector: BTreeMap<String, String>,
    /// Which endpoints it prefers; all are alike unless set.
    pub traffic_distribution: Option<TrafficDistribution>,
    /// The waypoint it is reached through.
    pub use_waypoint: Option<UseWaypoint>,
    /// Its canary.
    pub canary: Canary,
    /// Whether ingress gateways pass its waypoint; absent means as its namespace says.
    pub ingress_use_waypoint: Option<bool>,
    /// Labels, the meaningful ones removed.
    pub labels: BTreeMap<String, String>,
}
