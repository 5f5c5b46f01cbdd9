//! Service entries become what they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mesh;
use crate::model::declaration::{
    Canary, Endpoint, ExportTo, Origin, Port, ServiceEntry, UseWaypoint,
};
use crate::model::service::AppProtocol;
use crate::model::waypoint::{ExternalEndpoint, Resolution};
use crate::model::workload::Locality;

fn entries(text: &str) -> Vec<ServiceEntry> {
    mesh(&[("a.toml", text.to_owned())]).service_entries
}

const EVERY_FIELD: &str = r#"[[service-entry]]
name = "every.field"
hosts = ["api.example"]
addresses = ["192.0.2.7", "2001:db8::7"]
ports = [
  { number = 443, name = "secure", protocol = "HTTPS", target-port = 8443 },
  { number = 80, protocol = "HTTP2" },
  { number = 70, protocol = "grpc" },
  { number = 3306 },
]
location = "MESH_INTERNAL"
resolution = "DNS"
endpoints = [
  { address = "origin.example", ports = { secure = 9443 }, weight = 3, locality = "eu/a", labels = { version = "v1" } },
  { address = "2001:DB8::1" },
]
subject-alt-names = ["spiffe://x/y"]
export-to = ["default"]
labels = { team = "a", "istio.io/use-waypoint" = "none" }
ingress-use-waypoint = true
"#;

#[test]
fn every_field_of_a_service_entry() {
    let port = |port, name: Option<&str>, target_port, app_protocol| Port {
        name: name.map(Arc::from),
        port,
        target_port,
        app_protocol,
    };
    let endpoint = |address: &str, weight| Endpoint {
        external: ExternalEndpoint {
            address: Arc::from(address),
            ports: BTreeMap::new(),
            weight,
            locality: Locality::default(),
        },
        labels: BTreeMap::new(),
    };
    let mut first = endpoint("origin.example", 3);
    first.external.ports = BTreeMap::from([(443, 9443)]);
    first.external.locality = Locality {
        region: Arc::from("eu"),
        zone: Arc::from("a"),
        subzone: Arc::from(""),
    };
    first.labels = BTreeMap::from([("version".to_owned(), "v1".to_owned())]);
    let want = ServiceEntry {
        origin: Origin {
            file: Arc::from("a.toml"),
            line: 1,
        },
        name: Arc::from("every.field"),
        namespace: Arc::from("default"),
        hosts: vec![Arc::from("api.example")],
        addresses: vec![
            "192.0.2.7/32".parse().unwrap(),
            "2001:db8::7/128".parse().unwrap(),
        ],
        ports: vec![
            port(443, Some("secure"), 8443, AppProtocol::Tls),
            port(80, None, 80, AppProtocol::Http2),
            port(70, None, 70, AppProtocol::Grpc),
            port(3306, None, 3306, AppProtocol::Tcp),
        ],
        resolution: Resolution::Dns,
        endpoints: vec![first, endpoint("2001:db8::1", 1)],
        selector: BTreeMap::new(),
        subject_alt_names: vec![Arc::from("spiffe://x/y")],
        export_to: ExportTo::Own,
        use_waypoint: Some(UseWaypoint::None),
        canary: Canary::default(),
        ingress_use_waypoint: Some(true),
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
    };
    assert_eq!(entries(EVERY_FIELD), [want]);
}

#[test]
fn what_a_service_entry_leaves_out() {
    let written = "[[service-entry]]\nname = \"e\"\nhosts = [\"a.example\"]\nports = [{ number = 80 }]\naddresses = [\"192.0.2.7\"]\n";
    let [entry] = &entries(written)[..] else {
        panic!("one");
    };
    assert_eq!(entry.resolution, Resolution::None);
    assert_eq!(entry.export_to, ExportTo::Everyone);
    assert_eq!(entry.use_waypoint, None);
    let selecting = "[[service-entry]]\nname = \"e\"\nhosts = [\"a.example\"]\nports = [{ number = 80 }]\nresolution = \"STATIC\"\nexport-to = [\".\", \"*\"]\nworkload-selector = { labels = { app = \"a\" } }\n[[workload]]\nname = \"w\"\naddresses = [\"10.1.0.1\"]\nlabels = { app = \"a\" }\n";
    let [entry] = &entries(selecting)[..] else {
        panic!("one");
    };
    assert_eq!(entry.selector.get("app").map(String::as_str), Some("a"));
    assert_eq!(entry.export_to, ExportTo::Everyone);
}
