//! `lateen.v1.Placement`.

use std::sync::Arc;

use prost::Message;

use super::{ConvertError, Fault, Reason, health, required};
use crate::model::compile::Placement;
use crate::model::declaration::Capture;
use crate::wire::proto::lateen as proto;

/// The `lateen.v1.Placement` of a workload.
pub fn encode_placement(placement: &Placement) -> Vec<u8> {
    let capture = placement.capture.as_ref().map(|capture| match capture {
        Capture::Netns(name) => proto::placement::Capture::Netns(name.to_string()),
        Capture::Unit(name) => proto::placement::Capture::Unit(name.to_string()),
        Capture::Cgroup(path) => proto::placement::Capture::Cgroup(path.to_string()),
        Capture::User(name) => proto::placement::Capture::User(name.to_string()),
        Capture::Interface(name) => proto::placement::Capture::Interface(name.to_string()),
    });
    let placement = proto::Placement {
        uid: placement.uid.to_string(),
        name: placement.name.to_string(),
        namespace: placement.namespace.to_string(),
        service_account: placement.service_account.to_string(),
        enrolled: placement.enrolled,
        capture,
        health: placement.health.as_ref().map(health::encode),
        dns_capture: placement.dns_capture,
    };
    placement.encode_to_vec()
}

/// Reads a `lateen.v1.Placement` sent under `name`.
///
/// # Errors
/// [`ConvertError`] when it does not decode, lacks a part, is enrolled without saying how it is
/// captured, is probed in a way not known here, or belongs under another name.
pub fn decode_placement(name: &str, bytes: &[u8]) -> Result<Placement, ConvertError> {
    decode(name, bytes).map_err(|fault| fault.of(name))
}

fn decode(name: &str, bytes: &[u8]) -> Result<Placement, Fault> {
    let given = proto::Placement::decode(bytes)
        .map_err(|e| Fault::new("placement", Reason::Undecodable(e)))?;
    if given.uid != name {
        return Err(Fault::new("uid", Reason::OtherName(given.uid)));
    }
    let capture = given.capture.map(capture).transpose()?;
    if given.enrolled && capture.is_none() {
        return Err(Fault::new("capture", Reason::Missing));
    }
    let health = given.health.map(health::decode).transpose();
    Ok(Placement {
        uid: required("uid", given.uid)?,
        name: required("name", given.name)?,
        namespace: required("namespace", given.namespace)?,
        service_account: required("service_account", given.service_account)?,
        enrolled: given.enrolled,
        capture,
        health: health.map_err(|fault| fault.within("health"))?,
        dns_capture: given.dns_capture,
    })
}

fn capture(given: proto::placement::Capture) -> Result<Capture, Fault> {
    let (make, text): (fn(Arc<str>) -> Capture, String) = match given {
        proto::placement::Capture::Netns(name) => (Capture::Netns, name),
        proto::placement::Capture::Unit(name) => (Capture::Unit, name),
        proto::placement::Capture::Cgroup(path) => (Capture::Cgroup, path),
        proto::placement::Capture::User(name) => (Capture::User, name),
        proto::placement::Capture::Interface(name) => (Capture::Interface, name),
    };
    required("capture", text).map(make)
}
