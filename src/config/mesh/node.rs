//! `[[node]]`: a machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::labels::Labels;
use super::{identifier, name_of, transport};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::Proxy;
use crate::model::workload::{Locality, Transport};

/// A `[[node]]` table.
pub(in crate::config) struct WrittenNode {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// `addresses`.
    pub addresses: Vec<At<IpAddr>>,
    /// `locality`, or the labels that mean the same.
    pub locality: Locality,
    /// `network`.
    pub network: Option<Arc<str>>,
    /// `proxy`.
    pub proxy: Proxy,
    /// `transport`.
    pub transport: Option<At<Transport>>,
    /// `labels`, the meaningful ones taken out.
    pub labels: BTreeMap<String, String>,
}

/// Kubernetes' and Istio's labels for region, zone and subzone.
const LOCALITY_LABELS: [&str; 3] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];

pub(super) fn read(value: &Value<'_>) -> Option<WrittenNode> {
    let table = value.resource("node")?;
    let mut labels = Labels::read(&table);
    let name = name_of(&table, "node", scalar::name);
    let addresses = table.optional("addresses", |value| value.list(scalar::address));
    let locality = node_locality(&table, &mut labels);
    let network = table.optional("network", identifier);
    let proxies = [("lateen", Proxy::Lateen), ("ztunnel", Proxy::Ztunnel)];
    let proxy = table.optional("proxy", |value| scalar::choice(value, &proxies));
    let transport = transport::of(&table);
    table.unsupported("proxy-version", "take it out: nothing depends on it yet");
    let labels = labels.finish(&table);
    table.finish();
    Some(WrittenNode {
        place: table.place().clone(),
        name: name?,
        addresses: addresses.unwrap_or_default(),
        locality,
        network,
        proxy: proxy.unwrap_or_default(),
        transport,
        labels,
    })
}

/// `region/zone/subzone`; the later parts may be left out.
pub(super) fn locality(value: &Value<'_>) -> Option<Locality> {
    let text = value.text()?;
    let parts: Vec<_> = text.split('/').collect();
    let legal = |part: &&str| {
        let byte = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        !part.is_empty() && part.len() <= 63 && part.bytes().all(byte)
    };
    if parts.len() > 3 || !parts.iter().all(legal) {
        value.bad(
            &format!("is not a locality: {text:?}"),
            "not a locality",
            "write `\"region/zone/subzone\"`, or the first one or two of them",
        );
        return None;
    }
    let part = |index: usize| Arc::from(parts.get(index).copied().unwrap_or_default());
    Some(Locality {
        region: part(0),
        zone: part(1),
        subzone: part(2),
    })
}

/// The `locality` key; a label that says otherwise is an error, one that adds to it a value.
fn node_locality<'a>(table: &Table<'a>, labels: &mut Labels<'a>) -> Locality {
    let written = table
        .value("locality")
        .and_then(|value| Some(At::new(locality(&value)?, value.place().clone())));
    let place = written.as_ref().map(|written| written.place.clone());
    let mut merged = written.map(|written| written.value).unwrap_or_default();
    let Locality {
        region,
        zone,
        subzone,
    } = &mut merged;
    for (label, part) in LOCALITY_LABELS.into_iter().zip([region, zone, subzone]) {
        let Some(says) = labels.take(label) else {
            continue;
        };
        let Some(text) = scalar::plain(&says) else {
            continue;
        };
        if let (false, Some(place)) = (part.is_empty() || &**part == text, &place) {
            let message = format!("{}: `locality` and label `{label}` disagree", table.what());
            table.report(
                Diagnostic::new(Code::ConflictingKeys, says.place().clone(), message)
                    .label("the label says this")
                    .related(place.clone(), "the key says this")
                    .help("they mean the same; keep `locality` and drop the label"),
            );
        } else {
            *part = Arc::from(text);
        }
    }
    merged
}
