//! `[[service]]`.

mod ports;

pub(super) use ports::once;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::annotations::Annotations;
use super::labels::{self, Labels};
use super::waypoint::{self, WrittenCanary};
use super::{name_of, namespace_of};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::{Port, TrafficDistribution, UseWaypoint};
use crate::model::service::UdpPort;

/// A `[[service]]` table.
pub(in crate::config) struct WrittenService {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `addresses`.
    pub addresses: Vec<At<IpAddr>>,
    /// `headless`.
    pub headless: bool,
    /// Those of `ports` that are of TCP.
    pub ports: Vec<Port>,
    /// Those that are of UDP.
    pub udp_ports: Vec<UdpPort>,
    /// `selector`.
    pub selector: BTreeMap<String, String>,
    /// `traffic-distribution`, or the annotation that means the same.
    pub traffic_distribution: Option<TrafficDistribution>,
    /// Where `selector` is written.
    pub selector_place: Place,
    /// `use-waypoint`, or the label that means the same.
    pub use_waypoint: Option<At<UseWaypoint>>,
    /// `use-waypoint-canary` and what goes with it.
    pub canary: WrittenCanary,
    /// `ingress-use-waypoint`, or the label that means the same.
    pub ingress_use_waypoint: Option<bool>,
    /// `labels`, the meaningful ones taken out.
    pub labels: BTreeMap<String, String>,
}

pub(super) fn read(value: &Value<'_>, home: Option<&At<Arc<str>>>) -> Option<WrittenService> {
    let table = value.resource("service")?;
    let mut labels = Labels::read(&table);
    let name = name_of(&table, "service", scalar::label);
    let namespace = namespace_of(&table, home);
    let headless = table.optional("headless", Value::boolean).unwrap_or(false);
    let addresses = addresses(&table, headless);
    let ports = table.required(
        "ports",
        "ports = [{ port = 80, target-port = 8080 }]",
        ports::read,
    );
    let (ports, udp_ports) = ports.unwrap_or_default();
    let selector = table.required("selector", "selector = { app = \"cart\" }", |value| {
        Some(At::new(selector(value)?, value.place().clone()))
    });
    let use_waypoint = waypoint::read(&table, &mut labels, &namespace.value);
    let mut annotations = Annotations::read(&table);
    let canary = waypoint::canary(&table, &mut labels, &mut annotations, &namespace.value);
    let traffic_distribution = distribution(&table, &mut annotations);
    annotations.finish();
    let ingress_use_waypoint = waypoint::ingress(&table, &mut labels);
    let labels = labels.finish(&table);
    table.finish();
    let place = table.place().clone();
    let selector = selector.unwrap_or_else(|| At::new(BTreeMap::new(), place.clone()));
    Some(WrittenService {
        place,
        name: name?,
        namespace,
        addresses,
        headless,
        ports,
        udp_ports,
        selector: selector.value,
        selector_place: selector.place,
        traffic_distribution,
        use_waypoint,
        canary,
        ingress_use_waypoint,
        labels,
    })
}

const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// The names of Kubernetes, the first of which is an old one.
const DISTRIBUTIONS: [(&str, TrafficDistribution); 3] = [
    ("PreferClose", TrafficDistribution::SameZone),
    ("PreferSameZone", TrafficDistribution::SameZone),
    ("PreferSameNode", TrafficDistribution::SameNode),
];

fn distribution<'a>(
    table: &Table<'a>,
    annotations: &mut Annotations<'a>,
) -> Option<TrafficDistribution> {
    let read = |value: Value<'a>| {
        let chosen = scalar::choice(&value, &DISTRIBUTIONS)?;
        Some(At::new(chosen, value.place().clone()))
    };
    let key = table.value("traffic-distribution").and_then(read);
    let annotation = annotations.take(DISTRIBUTION).and_then(read);
    if let (Some(key), Some(annotation)) = (&key, &annotation)
        && key.value != annotation.value
    {
        let message = format!(
            "{}: key `traffic-distribution` and annotation `{DISTRIBUTION}` disagree",
            table.what()
        );
        table.report(
            Diagnostic::new(Code::ConflictingKeys, annotation.place.clone(), message)
                .label("the annotation says this")
                .related(key.place.clone(), "the key says this")
                .help("they mean the same; keep the key and drop the annotation"),
        );
    }
    key.or(annotation).map(|chosen| chosen.value)
}

fn addresses(table: &Table<'_>, headless: bool) -> Vec<At<IpAddr>> {
    let Some(value) = table.value("addresses") else {
        return Vec::new();
    };
    let addresses = value.list(scalar::address).unwrap_or_default();
    if headless && !addresses.is_empty() {
        value.reject(
            Code::ConflictingKeys,
            "is given, and `headless` says that the service has no address",
            "not with `headless`",
            "drop `headless`, or the addresses",
        );
    }
    addresses
}

/// Labels to match. An empty selector would match every workload of the namespace, or none: Istio
/// and Kubernetes disagree, so nobody can have meant it.
fn selector(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let labels = labels::selector(value)?;
    if labels.is_empty() {
        value.bad(
            "is empty",
            "matches nothing in particular",
            "name the labels its workloads carry, as in `{ app = \"cart\" }`",
        );
        return None;
    }
    Some(
        labels
            .into_iter()
            .map(|(key, text)| (key, text.value))
            .collect(),
    )
}
