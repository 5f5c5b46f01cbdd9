//! `[[service]]`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::annotations::Annotations;
use super::labels::{self, Labels};
use super::protocol;
use super::waypoint::{self, WrittenCanary};
use super::{name_of, namespace_of};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::{Port, TrafficDistribution, UseWaypoint};

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
    /// `ports`.
    pub ports: Vec<Port>,
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
        ports,
    );
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
        ports: ports.unwrap_or_default(),
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

fn ports(value: &Value<'_>) -> Option<Vec<Port>> {
    if value.is_empty_list() {
        value.bad(
            "is empty",
            "no port",
            "name at least one, as in `[{ port = 80 }]`",
        );
    }
    let mut seen = HashMap::new();
    let mut names = HashMap::new();
    value.list(|value| {
        let table = value.nested()?;
        let port = port(&table);
        table.finish();
        let port = port?;
        once(&table, &mut seen, port.port, &format!("port {}", port.port));
        if let Some(name) = &port.name {
            once(
                &table,
                &mut names,
                Arc::clone(name),
                &format!("port name `{name}`"),
            );
        }
        Some(port)
    })
}

/// Reports what is declared for the second time.
pub(super) fn once<K: std::hash::Hash + Eq>(
    table: &Table<'_>,
    seen: &mut HashMap<K, Place>,
    key: K,
    what: &str,
) {
    if let Some(first) = seen.get(&key) {
        let message = format!("{}: {what} is declared twice", table.what());
        table.report(
            Diagnostic::new(Code::DuplicateName, table.place().clone(), message)
                .label("again")
                .related(first.clone(), "first here")
                .help("keep one of the two"),
        );
    } else {
        seen.insert(key, table.place().clone());
    }
}

fn port(table: &Table<'_>) -> Option<Port> {
    let name = table.optional("name", |value| {
        let name = scalar::label(value)?;
        protocol::named(value, &name.value)?;
        Some(name)
    });
    let port = table.required("port", "port = 80", scalar::port);
    let target_port = table.optional("target-port", scalar::port);
    let app_protocol = table.optional("app-protocol", protocol::read);
    let port = port?;
    let name = name.map(|name| name.value);
    Some(Port {
        app_protocol: app_protocol.unwrap_or_else(|| protocol::guessed(name.as_deref(), port)),
        name,
        port,
        target_port: target_port.unwrap_or(port),
    })
}
