//! What is attached to a service or a waypoint.

use super::super::{Fault, Reason};
use super::{AUTHENTICATION, LIMIT, POLICY, TELEMETRY, attached_name, attached_named};
use crate::model::attached::PolicyKey;
use crate::model::waypoint::{AttachedSet, WaypointName};
use crate::wire::proto::waypoint as proto;

pub(super) fn encode(waypoint: &WaypointName, set: &AttachedSet) -> proto::AttachedSet {
    let names = |kind: &str, keys: &[PolicyKey]| {
        let names = keys.iter().map(|key| attached_name(waypoint, kind, key));
        names.collect()
    };
    proto::AttachedSet {
        policies: names(POLICY, &set.policies),
        authn: names(AUTHENTICATION, &set.authentications),
        telemetry: names(TELEMETRY, &set.telemetry),
        limits: names(LIMIT, &set.limits),
        ..proto::AttachedSet::default()
    }
}

/// Without all that is attached not everything would be in force: who does not know a kind of it must
/// not go on.
pub(super) fn decode(
    field: &str,
    waypoint: &WaypointName,
    given: Option<proto::AttachedSet>,
) -> Result<AttachedSet, Fault> {
    let proto::AttachedSet {
        policies,
        authn,
        telemetry,
        wasm,
        extensions,
        limits,
    } = given.unwrap_or_default();
    let mut unknown = [wasm, extensions].into_iter().flatten();
    if let Some(name) = unknown.next() {
        return Err(Fault::new(field, Reason::Unsupported(name)));
    }
    let keys = |kind: &str, names: Vec<String>| {
        let keys = names.iter();
        let keys = keys.map(|name| attached_named(field, waypoint, kind, name));
        keys.collect::<Result<Vec<PolicyKey>, Fault>>()
    };
    Ok(AttachedSet {
        policies: keys(POLICY, policies)?,
        authentications: keys(AUTHENTICATION, authn)?,
        telemetry: keys(TELEMETRY, telemetry)?,
        limits: keys(LIMIT, limits)?,
    })
}
