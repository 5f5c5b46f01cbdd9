//! A mesh of any size for the benches that look things up.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lateen::model::service::{
    IpFamilies, LoadBalancing, NetworkAddress, Service, ServiceKey, ServicePort, Visibility,
};
use lateen::model::view::View;
use lateen::model::workload::{Health, Locality, NetworkMode, Transport, TunnelProtocol, Workload};

/// Endpoints of each service but the wide one.
const ENDPOINTS: usize = 10;
/// Workloads behind [`Mesh::wide`], in a mesh that has so many.
pub(crate) const WIDE: usize = 1000;

/// A view of `size` workloads, [`ENDPOINTS`] behind each service: what one decision has to look at
/// is the same whatever the size, so a decision that grows with it has lost an index.
pub(crate) struct Mesh {
    pub(crate) view: View,
    pub(crate) workloads: Vec<Arc<Workload>>,
    pub(crate) services: Vec<Arc<Service>>,
    /// The address of a service with [`WIDE`] endpoints.
    pub(crate) wide: IpAddr,
}

impl Mesh {
    pub(crate) fn of(size: usize) -> Self {
        let wide = Arc::new(service("wide", address(200, 0)));
        let services: Vec<_> = (0..size.div_ceil(ENDPOINTS))
            .map(|n| Arc::new(service(&format!("service-{n}"), address(100, n))))
            .collect();
        let workloads: Vec<_> = (0..size)
            .map(|n| {
                let mut workload = workload(n);
                let own = services[n / ENDPOINTS].key.clone();
                workload.services.insert(own, Vec::new());
                if n < WIDE && size >= WIDE {
                    workload.services.insert(wide.key.clone(), Vec::new());
                }
                Arc::new(workload)
            })
            .collect();
        let all = services.iter().chain([&wide]).cloned();
        Self {
            view: View::new(workloads.iter().cloned(), all),
            workloads,
            wide: wide.vips[0].address,
            services,
        }
    }

    /// Sixteen of `things`, from all over: one alone would be found in the first cache.
    pub(crate) fn spread<T>(things: &[T]) -> impl Iterator<Item = &T> + Clone {
        let step = (things.len() / 16).max(1);
        things.iter().step_by(step).take(16).cycle()
    }
}

fn address(net: u8, n: usize) -> IpAddr {
    let [.., high, low] = n.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, net, high, low))
}

fn workload(n: usize) -> Workload {
    let name: Arc<str> = Arc::from(format!("workload-{n}"));
    Workload {
        uid: Arc::from(format!("Kubernetes//Workload/shop/{name}")),
        name: Arc::clone(&name),
        namespace: Arc::from("shop"),
        service_account: Arc::clone(&name),
        trust_domain: Default::default(),
        addresses: vec![address(1, n)],
        hostname: Arc::from(""),
        network: Arc::from(""),
        tunnel: TunnelProtocol::Hbone,
        transport: Transport::Tcp,
        udp: false,
        node: Arc::from("edge-1"),
        network_mode: NetworkMode::Standard,
        health: Health::Healthy,
        capacity: 1,
        locality: Locality::default(),
        services: BTreeMap::new(),
        waypoint: None,
        network_gateway: None,
        authorization_policies: Vec::new(),
        canonical_name: Arc::clone(&name),
        canonical_revision: Arc::from("latest"),
        workload_name: name,
        cluster_id: Arc::from("Kubernetes"),
    }
}

/// A service with one port, 80 to 8080.
fn service(name: &str, vip: IpAddr) -> Service {
    Service {
        key: ServiceKey {
            namespace: Arc::from("shop"),
            hostname: Arc::from(format!("{name}.shop.mesh.internal")),
        },
        name: Arc::from(name),
        vips: vec![NetworkAddress {
            network: Arc::from(""),
            address: vip,
        }],
        ports: vec![ServicePort {
            service_port: 80,
            target_port: 8080,
            app_protocol: Default::default(),
        }],
        udp_ports: Vec::new(),
        subject_alt_names: Vec::new(),
        waypoint: None,
        load_balancing: LoadBalancing::default(),
        ip_families: IpFamilies::Automatic,
        canonical: false,
        ingress_use_waypoint: false,
        weighted_waypoints: Vec::new(),
        visibility: Visibility::Public,
    }
}
