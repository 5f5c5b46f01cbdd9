//! What is attached to a service or a waypoint.

use super::super::{Fault, Reason};
use super::{limit_name, limit_named, policy_name, policy_named};
use crate::model::waypoint::{AttachedSet, WaypointName};
use crate::wire::proto::waypoint as proto;

pub(super) fn encode(waypoint: &WaypointName, set: &AttachedSet) -> proto::AttachedSet {
    let policies = set.policies.iter();
    proto::AttachedSet {
        policies: policies.map(|key| policy_name(waypoint, key)).collect(),
        limits: set
            .limits
            .iter()
            .map(|key| limit_name(waypoint, key))
            .collect(),
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
    let mut unknown = [authn, telemetry, wasm, extensions].into_iter().flatten();
    if let Some(name) = unknown.next() {
        return Err(Fault::new(field, Reason::Unsupported(name)));
    }
    let policies = policies.iter();
    let policies = policies.map(|name| policy_named(field, waypoint, name));
    let limits = limits.iter();
    let limits = limits.map(|name| limit_named(field, waypoint, name));
    Ok(AttachedSet {
        policies: policies.collect::<Result<_, Fault>>()?,
        limits: limits.collect::<Result<_, Fault>>()?,
    })
}
