//! Service entries in a few words.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::origin;
use crate::model::declaration::{Canary, Endpoint, ExportTo, Port, ServiceEntry};
use crate::model::service::AppProtocol;
use crate::model::waypoint::{ExternalEndpoint, Resolution};
use crate::model::workload::Locality;

/// Hosts of namespace `shop` at port 443, found by whatever way.
pub(crate) fn entry(name: &str, hosts: &[&str], resolution: Resolution) -> ServiceEntry {
    ServiceEntry {
        origin: origin(),
        name: Arc::from(name),
        namespace: Arc::from("shop"),
        hosts: hosts.iter().map(|host| Arc::from(*host)).collect(),
        addresses: Vec::new(),
        ports: vec![Port {
            name: Some(Arc::from("tls")),
            port: 443,
            target_port: 8443,
            app_protocol: AppProtocol::Tls,
        }],
        resolution,
        endpoints: Vec::new(),
        selector: BTreeMap::new(),
        subject_alt_names: vec![Arc::from("spiffe://x/y")],
        export_to: ExportTo::Everyone,
        use_waypoint: None,
        canary: Canary::default(),
        ingress_use_waypoint: None,
        labels: BTreeMap::new(),
    }
}

/// One that a service entry lists.
pub(crate) fn endpoint(address: &str) -> Endpoint {
    Endpoint {
        external: ExternalEndpoint {
            address: Arc::from(address),
            ports: BTreeMap::new(),
            weight: 1,
            locality: Locality::default(),
        },
        labels: BTreeMap::new(),
    }
}
