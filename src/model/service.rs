//! Services as the whole mesh sees them: the meaning of `istio.workload.Service`
//! (`spec/control-plane.md` §2.1).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::workload::GatewayAddress;

/// What names a service: `namespace/hostname`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its host name, such as `cart.shop.mesh.internal`.
    pub hostname: Arc<str>,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// What is spoken on a service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// Not declared: detected where it matters.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 in clear text.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque bytes.
    Tcp,
    /// TLS of the programs' own.
    Tls,
}

/// An address on a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkAddress {
    /// The network; empty is the default one.
    pub network: Arc<str>,
    /// The address.
    pub address: IpAddr,
}

/// One port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// The port clients use.
    pub service_port: u16,
    /// The port its workloads listen on; 0 leaves it to each workload.
    pub target_port: u16,
    /// What is spoken on it.
    pub app_protocol: AppProtocol,
}

/// One UDP port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpPort {
    /// The port clients use.
    pub service_port: u16,
    /// The port its workloads are bound to; 0 is none.
    pub target_port: u16,
}

/// Which endpoints a service prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BalanceMode {
    /// All alike.
    #[default]
    Unspecified,
    /// Only those that match every scope.
    Strict,
    /// Those that match the most leading scopes.
    Failover,
    /// No choice: the original destination stays.
    Passthrough,
}

/// A scope endpoints can share with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Same region.
    Region,
    /// Same zone.
    Zone,
    /// Same subzone.
    Subzone,
    /// Same machine.
    Node,
    /// Same cluster id.
    Cluster,
    /// Same network.
    Network,
}

/// Whether unhealthy endpoints are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthPolicy {
    /// Only healthy ones.
    #[default]
    OnlyHealthy,
    /// All of them.
    AllowAll,
}

/// How a service's endpoints are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadBalancing {
    /// Scopes in order of preference.
    pub preference: Vec<Scope>,
    /// What the preference means.
    pub mode: BalanceMode,
    /// Whether unhealthy endpoints are used.
    pub health_policy: HealthPolicy,
}

/// Who may see a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Everyone.
    #[default]
    Public,
    /// Workloads of its own namespace.
    Namespace,
}

/// Which address families a service is reached over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpFamilies {
    /// Whatever its endpoints have.
    #[default]
    Automatic,
    /// IPv4 only.
    Ipv4Only,
    /// IPv6 only.
    Ipv6Only,
    /// Both.
    Dual,
}

/// A waypoint that takes a share of the connections to a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedWaypoint {
    /// Which.
    pub waypoint: GatewayAddress,
    /// Its share, beside those of the others; 0 is none.
    pub weight: u32,
}

impl Service {
    /// Every waypoint that connections to it may pass.
    pub fn waypoints(&self) -> impl Iterator<Item = &GatewayAddress> {
        let weighted = self.weighted_waypoints.iter();
        self.waypoint.iter().chain(weighted.map(|w| &w.waypoint))
    }

    /// The UDP port that clients know by this number.
    pub fn udp_port(&self, port: u16) -> Option<UdpPort> {
        let mut ports = self.udp_ports.iter();
        ports.find(|p| p.service_port == port).copied()
    }
}

/// A service as the whole mesh sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its key.
    pub key: ServiceKey,
    /// Its short name.
    pub name: Arc<str>,
    /// Its addresses.
    pub vips: Vec<NetworkAddress>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
    /// Its UDP ports, of which stock proxies know nothing.
    pub udp_ports: Vec<UdpPort>,
    /// Further SPIFFE ids accepted at its endpoints, as written.
    pub subject_alt_names: Vec<Arc<str>>,
    /// The waypoint it is reached through.
    pub waypoint: Option<GatewayAddress>,
    /// Waypoints that share its connections, the first of them the one above; empty when that takes
    /// them all.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// How its endpoints are chosen.
    pub load_balancing: LoadBalancing,
    /// Which families it is reached over.
    pub ip_families: IpFamilies,
    /// Whether it wins a tie for an address or name.
    pub canonical: bool,
    /// Whether ingress gateways pass its waypoint too.
    pub ingress_use_waypoint: bool,
    /// Who may see it.
    pub visibility: Visibility,
}
