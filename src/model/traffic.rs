//! How a waypoint treats the endpoints of a service: `destination-rule` and `backend-tls-policy`
//! (`spec/waypoint-l7.md` §3.4–§3.6).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What holds for a service, or for a subset of it. Every default is filled in, and what a subset or
/// a port leaves open has been taken from where it is inherited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// For every port that has no settings of its own.
    pub usual: Settings,
    /// For these service ports; they inherit nothing.
    pub ports: BTreeMap<u16, Settings>,
}

impl TrafficPolicy {
    /// What holds for a service port.
    pub fn on(&self, port: u16) -> &Settings {
        self.ports.get(&port).unwrap_or(&self.usual)
    }
}

/// The groups of a traffic policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Which endpoint a request gets.
    pub load_balancer: LoadBalancer,
    /// How much may be under way.
    pub connection_pool: ConnectionPool,
    /// Which endpoints are left alone for a while; off unless present.
    pub outlier_detection: Option<OutlierDetection>,
    /// How many retries there may be; no budget unless present.
    pub retry_budget: Option<RetryBudget>,
    /// TLS inside the tunnel.
    pub tls: UpstreamTls,
    /// Ahead of every connection, the PROXY protocol's header.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Which endpoint a request gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalancer {
    /// By what.
    pub policy: Balance,
    /// How a new endpoint grows into its share.
    pub warmup: Option<Warmup>,
    /// Which localities are preferred; the service's own word, else the mesh's, where absent.
    pub locality: Option<LocalityPolicy>,
}

/// How one of several endpoints is picked.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Balance {
    /// The one with fewer requests under way, of two drawn.
    #[default]
    LeastRequest,
    /// In turns.
    RoundRobin,
    /// Any.
    Random,
    /// The address that was asked for.
    Passthrough,
    /// The same for the same key.
    Hash {
        /// Where the key comes from.
        key: HashKey,
        /// How keys are spread.
        table: HashTable,
    },
}

/// What of a request is hashed. Without it any endpoint is picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// A header field, by lower-case name.
    Header(Arc<str>),
    /// A cookie.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Its path.
        path: Option<Arc<str>>,
        /// Issued where it is missing, for so long (zero: as long as the browser runs); never where absent.
        ttl: Option<Duration>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Arc<str>),
}

/// How hash keys are spread over endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTable {
    /// A ring of at least so many points.
    Ring(u32),
    /// Maglev's table of so many places, a prime.
    Maglev(u32),
}

impl Default for HashTable {
    fn default() -> Self {
        Self::Ring(1024)
    }
}

/// How a new endpoint grows into its share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmup {
    /// Over how long.
    pub duration: Duration,
    /// From which percentage of it.
    pub minimum_percent: f64,
    /// How steeply: 1 is in line with time.
    pub aggression: f64,
}

/// What localities are preferred, and where traffic goes when they fail (§3.6).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalityPolicy {
    /// Whether localities count at all.
    pub enabled: bool,
    /// Fixed shares, by the waypoint's own locality; the first that fits.
    pub distribute: Vec<Distribute>,
    /// Region to region.
    pub failover: Vec<(Arc<str>, Arc<str>)>,
    /// Labels, the first counting most: the more of them are equal, the better.
    pub failover_priority: Vec<Arc<str>>,
}

impl LocalityPolicy {
    /// What holds for a mesh that says nothing: region, zone, subzone.
    pub fn usual() -> Self {
        Self {
            enabled: true,
            ..Self::default()
        }
    }
}

/// Fixed shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribute {
    /// For waypoints of this locality: `region/zone/subzone`, `*` for any at its end.
    pub from: Arc<str>,
    /// Locality and percentage.
    pub to: Vec<(Arc<str>, u32)>,
}

/// How much may be under way at a service, per waypoint instance.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionPool {
    /// Connections to all endpoints together.
    pub max_connections: u32,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// How long a TCP connection may be silent; zero is for ever.
    pub tcp_idle_timeout: Duration,
    /// How long a TCP connection may last.
    pub max_connection_duration: Option<Duration>,
    /// Probes on a silent TCP connection.
    pub tcp_keepalive: Option<Keepalive>,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests under way.
    pub max_requests: u32,
    /// Retries under way.
    pub max_retries: u32,
    /// Requests that one connection serves; 0 is no limit.
    pub max_requests_per_connection: u32,
    /// How long an HTTP connection may have nothing to do.
    pub http_idle_timeout: Duration,
    /// Streams on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Whether endpoints of HTTP ports are spoken to in HTTP/2.
    pub h2_upgrade: bool,
    /// Whether endpoints are spoken to in the client's own version.
    pub use_client_protocol: bool,
}

impl Default for ConnectionPool {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            max_connections: u32::MAX,
            connect_timeout: Duration::from_secs(10),
            tcp_idle_timeout: hour,
            max_connection_duration: None,
            tcp_keepalive: None,
            max_pending_requests: u32::MAX,
            max_requests: u32::MAX,
            max_retries: u32::MAX,
            max_requests_per_connection: 0,
            http_idle_timeout: hour,
            max_concurrent_streams: u32::MAX,
            h2_upgrade: false,
            use_client_protocol: false,
        }
    }
}

/// Probes on a silent connection; what is absent is the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// How many go unanswered before it is dead.
    pub probes: Option<u32>,
    /// How long it is silent before the first.
    pub time: Option<Duration>,
    /// How long until the next.
    pub interval: Option<Duration>,
}

/// How many retries there may be beside the requests under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Percent of the requests under way.
    pub percent: f64,
    /// So many always.
    pub min_concurrency: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: 20.0,
            min_concurrency: 3,
        }
    }
}

/// Which endpoints are left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierDetection {
    /// 5xx answers in a row; 0 is off.
    pub consecutive_5xx: u32,
    /// 502, 503 and 504 in a row; 0 is off.
    pub consecutive_gateway: u32,
    /// Whether what fails on our side is counted apart.
    pub split_local_errors: bool,
    /// Such failures in a row, where they are; 0 is off.
    pub consecutive_local: u32,
    /// Between looks at who comes back.
    pub interval: Duration,
    /// How long the first time; each further time as much longer.
    pub base_ejection: Duration,
    /// Percent of the endpoints that may be out. One of at least two always may.
    pub max_ejection_percent: u32,
    /// Below this percentage of endpoints that are in, all are used.
    pub min_health_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway: 0,
            split_local_errors: false,
            consecutive_local: 5,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
        }
    }
}

/// TLS from the waypoint to the program itself, inside the tunnel (§3.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpstreamTls {
    /// None beyond HBONE.
    #[default]
    None,
    /// Verified as described; mutual with a certificate.
    Originate(TlsOrigination),
}

/// How the program's certificate is verified, and what it is shown. Paths are on the waypoint's host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsOrigination {
    /// Server name to ask for; the request's host where absent.
    pub sni: Option<Arc<str>>,
    /// Names of which one must be in the certificate; the server name where empty.
    pub subject_alt_names: Vec<Arc<str>>,
    /// File of roots; the system's where absent.
    pub ca_certificates: Option<Arc<str>>,
    /// Nothing is verified.
    pub insecure_skip_verify: bool,
    /// Files of the certificate and key shown.
    pub client_certificate: Option<(Arc<str>, Arc<str>)>,
}

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}
