//! Small and large meshes for tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::identity::TrustDomain;
use crate::model::declaration::{
    AllowedRoutes, Canary, Capture, DataplaneMode, Gateway, Machines, Mesh, Namespace, Node,
    Origin, Port, Proxy, Service, Settings, TelemetryDefaults, UseWaypoint, WaypointFor, Workload,
};
use crate::model::route::Retry;
use crate::model::service::AppProtocol;
use crate::model::traffic::LocalityPolicy;
use crate::model::workload::{Locality, Transport};

pub(crate) mod outside;
pub(crate) mod routes;

pub(crate) fn origin() -> Origin {
    Origin {
        file: Arc::from("mesh.toml"),
        line: 1,
    }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

pub(crate) fn node(name: &str) -> Node {
    Node {
        origin: origin(),
        name: Arc::from(name),
        addresses: Vec::new(),
        locality: Locality::default(),
        network: Arc::from(""),
        labels: BTreeMap::new(),
        proxy: Proxy::Lateen,
        transport: None,
    }
}

pub(crate) fn namespace(name: &str) -> Namespace {
    Namespace {
        origin: origin(),
        name: Arc::from(name),
        dataplane_mode: Some(DataplaneMode::Ambient),
        transport: None,
        use_waypoint: None,
        canary: Canary::default(),
        ingress_use_waypoint: None,
        service_accounts: None,
        labels: BTreeMap::new(),
    }
}

/// A captured workload whose label `app` is its service account.
pub(crate) fn workload(name: &str, account: &str, node: &str, address: &str) -> Workload {
    Workload {
        origin: origin(),
        name: Arc::from(name),
        namespace: Arc::from("shop"),
        service_account: Arc::from(account),
        node: Some(Arc::from(node)),
        addresses: vec![address.parse().unwrap()],
        network: Arc::from(""),
        labels: labels(&[("app", account)]),
        capture: Some(Capture::Netns(Arc::from(name))),
        dataplane_mode: None,
        transport: None,
        dns_capture: None,
        use_waypoint: None,
        health: None,
        locality: Locality::default(),
        capacity: 1,
    }
}

/// A service on port 80 → 8080 that selects `app = name`.
pub(crate) fn service(name: &str) -> Service {
    Service {
        origin: origin(),
        name: Arc::from(name),
        namespace: Arc::from("shop"),
        addresses: Vec::new(),
        headless: false,
        traffic_distribution: None,
        ports: vec![Port {
            name: None,
            port: 80,
            target_port: 8080,
            app_protocol: AppProtocol::Http11,
        }],
        udp_ports: Vec::new(),
        selector: labels(&[("app", name)]),
        use_waypoint: None,
        canary: Canary::default(),
        ingress_use_waypoint: None,
        labels: BTreeMap::new(),
    }
}

/// A waypoint of namespace `shop` on `edge-3`, which runs nothing else.
pub(crate) fn gateway(name: &str, waypoint_for: WaypointFor) -> Gateway {
    Gateway {
        origin: origin(),
        name: Arc::from(name),
        namespace: Arc::from("shop"),
        service_account: Arc::from(name),
        machines: Machines::One(Arc::from("edge-3")),
        addresses: Vec::new(),
        waypoint_for,
        allowed_routes: AllowedRoutes::Same,
        hbone_port: None,
        tells_identities: false,
        labels: BTreeMap::new(),
    }
}

/// `use-waypoint = "name"` or `"namespace/name"`, in `shop`.
pub(crate) fn using(waypoint: &str) -> Option<UseWaypoint> {
    let (namespace, name) = waypoint.split_once('/').unwrap_or(("shop", waypoint));
    Some(match name {
        "none" => UseWaypoint::None,
        _ => UseWaypoint::Named {
            namespace: Arc::from(namespace),
            name: Arc::from(name),
        },
    })
}

/// Nodes `edge-1` (runs `cart-1`) and `edge-2` (runs `web-1`), services `cart` and `web`.
pub(crate) fn mesh() -> Mesh {
    let nodes = [node("edge-1"), node("edge-2")];
    let namespaces = [namespace("shop")];
    Mesh {
        settings: Settings {
            trust_domain: TrustDomain::default(),
            trust_domain_aliases: Vec::new(),
            domain: Arc::from("mesh.internal"),
            root_namespace: Arc::from("istio-system"),
            service_range: vec![
                "240.240.0.0/16".parse().unwrap(),
                "2001:2::/48".parse().unwrap(),
            ],
            certificate_ttl: Duration::from_secs(8 * 86_400),
            expired_grace: Duration::ZERO,
            cluster_id: Arc::from("Kubernetes"),
            network: Arc::from(""),
            transport: Transport::Tcp,
            auto_allow_waypoint: false,
            retry: Retry::usual(),
            locality: LocalityPolicy::usual(),
            providers: Vec::new(),
            fetching: crate::model::authentication::Fetching::usual(),
            telemetry: TelemetryDefaults::default(),
            paths: Default::default(),
            trusted: Default::default(),
            serial: 0,
        },
        nodes: nodes.map(|n| (n.name.clone(), n)).into(),
        namespaces: namespaces.map(|n| (n.name.clone(), n)).into(),
        workloads: vec![
            workload("cart-1", "cart", "edge-1", "10.1.0.11").into(),
            workload("web-1", "web", "edge-2", "10.1.0.12").into(),
        ],
        services: vec![service("cart"), service("web")],
        gateways: Vec::new(),
        authorization_policies: Vec::new(),
        rate_limits: Vec::new(),
        peer_authentications: Vec::new(),
        request_authentications: Vec::new(),
        telemetry: Vec::new(),
        routes: Vec::new(),
        destination_rules: Vec::new(),
        service_entries: Vec::new(),
    }
}

/// `workloads` spread evenly over `services` and ten nodes; all carry one label in common.
pub(crate) fn large(workloads: u32, services: u32) -> Mesh {
    let base = mesh();
    let nodes: Vec<Node> = (0..10).map(|n| node(&format!("edge-{n}"))).collect();
    let grown = |n: u32| {
        let account = format!("app-{}", n % services);
        let mut grown = workload(
            &format!("w-{n}"),
            &account,
            &format!("edge-{}", n % 10),
            "::",
        );
        grown.addresses = vec![IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))];
        grown.labels.insert("tier".to_owned(), "all".to_owned());
        grown.into()
    };
    let offered = |n: u32| {
        let mut offered = service(&format!("app-{n}"));
        offered.selector.insert("tier".to_owned(), "all".to_owned());
        offered
    };
    Mesh {
        nodes: nodes.into_iter().map(|n| (n.name.clone(), n)).collect(),
        workloads: (0..workloads).map(grown).collect(),
        services: (0..services).map(offered).collect(),
        ..base
    }
}
