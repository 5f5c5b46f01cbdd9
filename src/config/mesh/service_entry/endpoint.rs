//! Endpoints that a service-entry lists.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::diagnose::Code;
use crate::config::mesh::service::once;
use crate::config::mesh::{labels, node};
use crate::config::read::{Table, Value, scalar};
use crate::model::declaration::{Endpoint, Port};
use crate::model::waypoint::{ExternalEndpoint, Resolution};

/// The largest weight, as of a backend.
const HEAVIEST: u32 = 1_000_000;

/// Endpoints, each address once: it is what names them to the rest of the mesh.
pub(super) fn read(
    value: &Value<'_>,
    ports: &[Port],
    resolution: Resolution,
) -> Option<Vec<Endpoint>> {
    let mut seen = HashMap::new();
    value.list(|value| {
        let table = value.nested()?;
        let endpoint = endpoint(&table, ports, resolution);
        table.finish();
        let endpoint = endpoint?;
        let address = Arc::clone(&endpoint.external.address);
        let named = format!("endpoint `{address}`");
        once(&table, &mut seen, address, &named);
        Some(endpoint)
    })
}

fn endpoint(table: &Table<'_>, ports: &[Port], resolution: Resolution) -> Option<Endpoint> {
    let address = table.required("address", "address = \"192.0.2.10\"", |value| {
        address(value, resolution)
    });
    let mapped = table.optional("ports", |value| mapped(value, ports));
    let weight = table.optional("weight", |value| value.count(1..=HEAVIEST));
    let locality = table.optional("locality", node::locality);
    let labels = table.optional("labels", labels::selector);
    for key in ["network", "service-account"] {
        table.unsupported(
            key,
            "declare a `[[workload]]` and select it by `workload-selector`",
        );
    }
    let labels = labels.unwrap_or_default().into_iter();
    Some(Endpoint {
        external: ExternalEndpoint {
            address: address?,
            ports: mapped.unwrap_or_default(),
            weight: weight.unwrap_or(1),
            locality: locality.unwrap_or_default(),
        },
        labels: labels.map(|(key, text)| (key, text.value)).collect(),
    })
}

/// An address, or a name where names are looked up.
fn address(value: &Value<'_>, resolution: Resolution) -> Option<Arc<str>> {
    let text = value.text()?;
    let looked_up = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if text.parse::<IpAddr>().is_ok() {
        return scalar::address(value).map(|address| Arc::from(address.value.to_string()));
    }
    let fault = scalar::name_fault(text);
    match (fault, looked_up) {
        (None, true) => Some(Arc::from(text)),
        (None, false) => {
            value.bad(
                &format!("is a name: {text:?}"),
                "not an address",
                "write an IP address, or `resolution = \"DNS\"` to have names looked up",
            );
            None
        }
        (Some(fault), _) => {
            value.reject(
                Code::BadName,
                &format!("{fault}: {text:?}"),
                "neither an address nor a name",
                "write an IP address, as in `\"192.0.2.10\"`, or a host name in full",
            );
            None
        }
    }
}

/// Its own ports by the names of the entry's.
fn mapped(value: &Value<'_>, ports: &[Port]) -> Option<BTreeMap<u16, u16>> {
    let table = value.nested()?;
    let mut mapped = BTreeMap::new();
    for (name, value) in table.entries() {
        let named = ports.iter().find(|p| p.name.as_deref() == Some(name.value));
        match (named, scalar::port(&value)) {
            (Some(port), Some(own)) => {
                mapped.insert(port.port, own);
            }
            (None, _) => value.bad(
                "is for a port that the service-entry does not name",
                "no such port",
                "write the `name` of one of its `ports`",
            ),
            (Some(_), None) => {}
        }
    }
    Some(mapped)
}
