//! `[[namespace]]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::annotations::Annotations;
use super::labels::{DATAPLANE_MODE, Labels};
use super::waypoint::{self, WrittenCanary};
use super::{either, name_of, transport};
use crate::config::read::{Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::{DataplaneMode, UseWaypoint};
use crate::model::workload::Transport;

/// A `[[namespace]]` table.
pub(in crate::config) struct WrittenNamespace {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// `dataplane-mode`, or the label that means the same.
    pub dataplane_mode: Option<At<DataplaneMode>>,
    /// `transport`.
    pub transport: Option<Transport>,
    /// `use-waypoint`, or the label that means the same.
    pub use_waypoint: Option<At<UseWaypoint>>,
    /// `use-waypoint-canary` and what goes with it.
    pub canary: WrittenCanary,
    /// `ingress-use-waypoint`, or the label that means the same.
    pub ingress_use_waypoint: Option<bool>,
    /// `service-accounts`.
    pub service_accounts: Option<Vec<Arc<str>>>,
    /// `labels`, the meaningful ones taken out.
    pub labels: BTreeMap<String, String>,
}

pub(super) fn read(value: &Value<'_>) -> Option<WrittenNamespace> {
    let table = value.resource("namespace")?;
    let mut labels = Labels::read(&table);
    let name = name_of(&table, "namespace", scalar::label);
    let own = name
        .as_ref()
        .map_or_else(|| Arc::from(""), |name| Arc::clone(&name.value));
    let dataplane_mode = either(
        &table,
        "dataplane-mode",
        &mut labels,
        DATAPLANE_MODE,
        dataplane_mode,
    );
    let transport = table.optional("transport", transport::read);
    let use_waypoint = waypoint::read(&table, &mut labels, &own);
    let mut annotations = Annotations::read(&table);
    let canary = waypoint::canary(&table, &mut labels, &mut annotations, &own);
    annotations.finish();
    let ingress_use_waypoint = waypoint::ingress(&table, &mut labels);
    let service_accounts = table.optional("service-accounts", |value| value.list(scalar::name));
    let labels = labels.finish(&table);
    table.finish();
    Some(WrittenNamespace {
        place: table.place().clone(),
        name: name?,
        dataplane_mode,
        transport,
        use_waypoint,
        canary,
        ingress_use_waypoint,
        service_accounts: service_accounts
            .map(|names| names.into_iter().map(|n| n.value).collect()),
        labels,
    })
}

/// `ambient` or `none`. Istio takes any other word for neither; here it is a mistake.
pub(super) fn dataplane_mode(value: &Value<'_>) -> Option<DataplaneMode> {
    let words = [
        ("ambient", DataplaneMode::Ambient),
        ("none", DataplaneMode::None),
    ];
    scalar::choice(value, &words)
}
