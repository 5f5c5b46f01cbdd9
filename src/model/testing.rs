//! A mesh in a few words, for the tables of this room.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::service::{
    BalanceMode, HealthPolicy, IpFamilies, LoadBalancing, NetworkAddress, Scope, Service,
    ServiceKey, ServicePort, UdpPort, Visibility,
};
use super::view::View;
use super::workload::{
    GatewayAddress, GatewayDestination, Health, NetworkMode, PortMapping, Transport,
    TunnelProtocol, Workload,
};

/// A service's key in namespace `shop`.
pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: Arc::from("shop"),
        hostname: Arc::from(format!("{name}.shop.mesh.internal")),
    }
}

/// A workload that takes tunnels, with the name as its service account.
pub(crate) fn workload(name: &str, addresses: &[&str]) -> Workload {
    Workload {
        uid: Arc::from(name),
        name: Arc::from(name),
        namespace: Arc::from("shop"),
        service_account: Arc::from(name),
        trust_domain: Default::default(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        hostname: Arc::from(""),
        network: Arc::from(""),
        tunnel: TunnelProtocol::Hbone,
        transport: Transport::Tcp,
        udp: false,
        node: Arc::from("edge-1"),
        network_mode: NetworkMode::Standard,
        health: Health::Healthy,
        capacity: 1,
        locality: Default::default(),
        services: BTreeMap::new(),
        waypoint: None,
        network_gateway: None,
        authorization_policies: Vec::new(),
        canonical_name: Arc::from(name),
        canonical_revision: Arc::from("latest"),
        workload_name: Arc::from(name),
        cluster_id: Arc::from("Kubernetes"),
    }
}

impl Workload {
    pub(crate) fn of(mut self, service: &str) -> Self {
        self.services.insert(key(service), Vec::new());
        self
    }

    pub(crate) fn mapping(mut self, service: &str, from: u16, to: u16) -> Self {
        let mapping = PortMapping {
            service_port: from,
            target_port: to,
        };
        self.services.insert(key(service), vec![mapping]);
        self
    }

    pub(crate) fn plain(mut self) -> Self {
        self.tunnel = TunnelProtocol::None;
        self
    }

    pub(crate) fn udp(mut self) -> Self {
        self.udp = true;
        self
    }

    pub(crate) fn over(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    pub(crate) fn unhealthy(mut self) -> Self {
        self.health = Health::Unhealthy;
        self
    }

    pub(super) fn weighing(mut self, capacity: u32) -> Self {
        self.capacity = capacity;
        self
    }

    pub(super) fn on_network(mut self, network: &str) -> Self {
        self.network = Arc::from(network);
        self
    }

    pub(super) fn gateway(mut self, gateway: GatewayAddress) -> Self {
        self.network_gateway = Some(gateway);
        self
    }

    pub(super) fn called(mut self, hostname: &str) -> Self {
        self.hostname = key(hostname).hostname;
        self
    }

    pub(super) fn on_node(mut self, node: &str) -> Self {
        self.node = Arc::from(node);
        self
    }

    pub(crate) fn at(mut self, region: &str, zone: &str) -> Self {
        self.locality.region = Arc::from(region);
        self.locality.zone = Arc::from(zone);
        self
    }

    pub(crate) fn host_network(mut self) -> Self {
        self.network_mode = NetworkMode::HostNetwork;
        self
    }

    pub(super) fn behind(mut self, waypoint: GatewayAddress) -> Self {
        self.waypoint = Some(waypoint);
        self
    }
}

/// A service with one port, 80 to 8080.
pub(crate) fn service(name: &str, vips: &[&str]) -> Service {
    let vip = |a: &&str| NetworkAddress {
        network: Arc::from(""),
        address: a.parse().unwrap(),
    };
    Service {
        key: key(name),
        name: Arc::from(name),
        vips: vips.iter().map(vip).collect(),
        ports: vec![port(80, 8080)],
        udp_ports: Vec::new(),
        subject_alt_names: Vec::new(),
        waypoint: None,
        load_balancing: LoadBalancing::default(),
        ip_families: IpFamilies::Automatic,
        canonical: false,
        weighted_waypoints: Vec::new(),
        ingress_use_waypoint: false,
        visibility: Visibility::Public,
    }
}

pub(crate) fn port(service_port: u16, target_port: u16) -> ServicePort {
    ServicePort {
        service_port,
        target_port,
        app_protocol: Default::default(),
    }
}

impl Service {
    pub(crate) fn ports(mut self, ports: &[ServicePort]) -> Self {
        self.ports = ports.to_vec();
        self
    }

    /// Of each the service's port and the workloads'.
    pub(crate) fn udp(mut self, ports: &[(u16, u16)]) -> Self {
        let port = |&(service_port, target_port): &(u16, u16)| UdpPort {
            service_port,
            target_port,
        };
        self.udp_ports = ports.iter().map(port).collect();
        self
    }

    pub(crate) fn balanced(mut self, mode: BalanceMode, preference: &[Scope]) -> Self {
        self.load_balancing.mode = mode;
        self.load_balancing.preference = preference.to_vec();
        self
    }

    pub(super) fn allow_all(mut self) -> Self {
        self.load_balancing.health_policy = HealthPolicy::AllowAll;
        self
    }

    pub(crate) fn through(mut self, waypoint: GatewayAddress) -> Self {
        self.waypoint = Some(waypoint);
        self
    }

    pub(super) fn families(mut self, families: IpFamilies) -> Self {
        self.ip_families = families;
        self
    }

    pub(crate) fn in_namespace(mut self, namespace: &str, visibility: Visibility) -> Self {
        self.key.namespace = Arc::from(namespace);
        self.visibility = visibility;
        self
    }

    pub(super) fn canonical(mut self) -> Self {
        self.canonical = true;
        self
    }

    pub(crate) fn vips_on(mut self, network: &str) -> Self {
        for vip in &mut self.vips {
            vip.network = Arc::from(network);
        }
        self
    }

    pub(super) fn accepting(mut self, id: &str) -> Self {
        self.subject_alt_names.push(Arc::from(id));
        self
    }
}

/// A waypoint by address, on the usual port.
pub(super) fn waypoint_at(address: &str) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Address {
            network: Arc::from(""),
            address: address.parse::<IpAddr>().unwrap(),
        },
        hbone_port: 15008,
    }
}

/// A waypoint by its service.
pub(crate) fn waypoint_named(name: &str) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Hostname(key(name)),
        hbone_port: 15008,
    }
}

pub(crate) fn view(workloads: Vec<Workload>, services: Vec<Service>) -> View {
    View::new(
        workloads.into_iter().map(Arc::new),
        services.into_iter().map(Arc::new),
    )
}
