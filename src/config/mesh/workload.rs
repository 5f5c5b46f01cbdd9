//! `[[workload]]`: a program, or several, under one identity.

mod capture;
mod health;

pub(in crate::config) use capture::read as read_capture;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::labels::{DATAPLANE_MODE, DNS_CAPTURE, Labels};
use super::{either, identifier, name_of, namespace, namespace_of, node, transport, waypoint};
use crate::config::read::{Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::{Capture, DataplaneMode, HealthCheck, UseWaypoint};
use crate::model::sharing::shares;
use crate::model::workload::{Locality, Transport};

/// A `[[workload]]` table.
pub(in crate::config) struct WrittenWorkload {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `service-account`, or `default` at the workload's own place.
    pub service_account: At<Arc<str>>,
    /// `node`.
    pub node: Option<At<Arc<str>>>,
    /// `addresses`; those of its machine where it is on that one's own network and this is empty.
    pub addresses: Vec<At<IpAddr>>,
    /// `network`.
    pub network: Option<Arc<str>>,
    /// `labels`, the meaningful ones taken out.
    pub labels: BTreeMap<String, String>,
    /// `capture`; the inner none when it is written but cannot be read.
    pub capture: Option<At<Option<Capture>>>,
    /// `dataplane-mode`, or the label that means the same.
    pub dataplane_mode: Option<At<DataplaneMode>>,
    /// `transport`.
    pub transport: Option<At<Transport>>,
    /// `dns-capture`, or the label that means the same.
    pub dns_capture: Option<bool>,
    /// `use-waypoint`, or the label that means the same.
    pub use_waypoint: Option<At<UseWaypoint>>,
    /// `health`.
    pub health: Option<At<HealthCheck>>,
    /// `locality`.
    pub locality: Option<Locality>,
    /// `capacity`.
    pub capacity: u32,
}

/// The service account of a workload that names none.
const DEFAULT_ACCOUNT: &str = "default";

/// Largest `capacity`. Capacities of a service's workloads are summed in 32 bits on other people's
/// proxies.
const MOST_CAPACITY: u32 = 65_535;

pub(super) fn read(value: &Value<'_>, home: Option<&At<Arc<str>>>) -> Option<WrittenWorkload> {
    let table = value.resource("workload")?;
    let mut labels = Labels::read(&table);
    let name = name_of(&table, "workload", scalar::name);
    let namespace = namespace_of(&table, home);
    let service_account = table.optional("service-account", scalar::name);
    let node = table.optional("node", scalar::name);
    let capture = table
        .value("capture")
        .map(|value| At::new(capture::read(&value), value.place().clone()));
    // How one is captured that cannot be read is not known.
    let shared = |capture: &At<Option<Capture>>| capture.value.as_ref().is_none_or(shares);
    let addresses = match capture.as_ref().is_some_and(shared) {
        true => table.optional("addresses", addresses),
        false => table.required("addresses", "addresses = [\"10.1.0.11\"]", addresses),
    };
    let network = table.optional("network", identifier);
    let dataplane_mode = either(
        &table,
        "dataplane-mode",
        &mut labels,
        DATAPLANE_MODE,
        namespace::dataplane_mode,
    );
    let transport = transport::of(&table);
    let dns_capture = either(&table, "dns-capture", &mut labels, DNS_CAPTURE, dns_capture);
    let use_waypoint = waypoint::read(&table, &mut labels, &namespace.value);
    let health = table.optional("health", |value| {
        Some(At::new(health::read(value)?, value.place().clone()))
    });
    let locality = table.optional("locality", node::locality);
    let capacity = table.optional("capacity", |value| value.count(0..=MOST_CAPACITY));
    let labels = labels.finish(&table);
    table.finish();
    let place = table.place().clone();
    Some(WrittenWorkload {
        service_account: service_account
            .unwrap_or_else(|| At::new(Arc::from(DEFAULT_ACCOUNT), place.clone())),
        place,
        name: name?,
        namespace,
        node,
        addresses: addresses.unwrap_or_default(),
        network,
        labels,
        capture,
        dataplane_mode,
        transport,
        dns_capture: dns_capture.map(|says| says.value),
        use_waypoint,
        health,
        locality,
        capacity: capacity.unwrap_or(1),
    })
}

fn addresses(value: &Value<'_>) -> Option<Vec<At<IpAddr>>> {
    if value.is_empty_list() {
        value.bad(
            "is empty",
            "no address",
            "name the address its peers reach it at",
        );
    }
    value.list(scalar::address)
}

/// True or false: in a label as text, of which Istio takes these words alone.
fn dns_capture(value: &Value<'_>) -> Option<bool> {
    match value.is_text() {
        true => scalar::choice(value, &[("true", true), ("false", false)]),
        false => value.boolean(),
    }
}
