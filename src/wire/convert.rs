//! Model values to protobuf bytes and back.
//!
//! Encoding is deterministic: equal values give equal bytes in every process, which content
//! versions rest on (`spec/control-plane.md` §3.3). Decoding is strict: what stock proxies
//! silently drop, truncate or default (§2.5) is a [`ConvertError`] that names resource, field and
//! reason, so that it can be put into a NACK.

use std::net::IpAddr;
use std::sync::Arc;

use prost::Message;

use super::proto::workload as proto;
use crate::identity::IdentityError;
use crate::model::route::RegexError;
use crate::model::service::{Service, ServiceKey};
use crate::model::workload::Workload;

mod authorization;
pub mod delta;
mod extension;
mod gateway;
mod health;
mod placement;
pub mod record;
mod report;
mod revision;
mod service;
pub mod span;
mod trust;
mod waypoint;
mod workload;

pub use authorization::{closed_policy, decode_policy, encode_policy};
pub use placement::{decode_placement, encode_placement};
pub use report::{LONGEST_DETAIL, shortened};
pub use revision::{
    REVISION_NAME, RevisionSummary, TRUST_NAME, decode_revision, digest, encode_revision,
};
pub use trust::{BundleError, bundle, decode_bundle};
pub use waypoint::{WaypointResource, waypoint_of};

/// A resource that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {fault}")]
pub struct ConvertError {
    /// The resource's name, as the response gave it.
    pub resource: String,
    /// What is wrong with it; part of the text, so not also a source.
    pub fault: Fault,
}

/// A field that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Fault {
    /// The path of the field inside the resource, such as `waypoint.address`.
    pub field: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The bytes are not the message they should be.
    #[error("not decodable: {0}")]
    Undecodable(prost::DecodeError),
    /// A field that must be there is empty or absent.
    #[error("is missing")]
    Missing,
    /// An address is neither 4 nor 16 bytes long.
    #[error("an address of {0} bytes, must be 4 or 16")]
    AddressLength(usize),
    /// An address range where one address is meant.
    #[error("a range of prefix length {0}, must be one address")]
    Range(u32),
    /// The length of a prefix that its address does not have.
    #[error("prefix length {0} is longer than the address")]
    Prefix(u32),
    /// A number that is no port.
    #[error("port {0} is above 65535")]
    Port(u32),
    /// A value this version's enumeration does not have.
    #[error("unknown value {0}")]
    UnknownEnum(i32),
    /// The tunnel protocol of sidecars, which is not spoken here.
    #[error("legacy Istio mutual TLS is not supported")]
    LegacyMtls,
    /// A preference for scope `UNSPECIFIED_SCOPE`.
    #[error("an unspecified scope")]
    UnspecifiedScope,
    /// A service is named by something other than `namespace/hostname`.
    #[error("`{0}` is not namespace/hostname")]
    ServiceKey(String),
    /// The trust domain is none.
    #[error(transparent)]
    TrustDomain(IdentityError),
    /// The resource goes by another name than its content.
    #[error("the content names itself `{0}`")]
    OtherName(String),
    /// A byte string of fixed length has another.
    #[error("{found} bytes, must be {want}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there must be.
        want: usize,
    },
    /// A time that cannot be represented.
    #[error("time {0} ms is out of range")]
    Time(i64),
    /// A duration that is negative, or none.
    #[error("no duration")]
    Duration,
    /// A number that does not fit.
    #[error("{0} is above 65535")]
    TooLarge(u32),
    /// A share of nothing, or no number at all.
    #[error("no number that could be meant")]
    NoNumber,
    /// A pattern that is none.
    #[error(transparent)]
    Pattern(RegexError),
    /// An address range that is none.
    #[error("`{0}` is no address range")]
    NoRange(String),
    /// A value that is none of its kind.
    #[error("`{0}` is no value of its kind")]
    Value(String),
    /// Something that names no waypoint.
    #[error("`{0}` is no namespace/name of a waypoint")]
    Waypoint(String),
    /// A resource is referred to by what cannot be the name of one.
    #[error("`{0}` names no such resource of this waypoint")]
    Reference(String),
    /// Something that only a later version knows.
    #[error("`{0}` is not known to this version")]
    Unsupported(String),
}

impl Fault {
    fn new(field: &str, reason: Reason) -> Self {
        Self {
            field: field.to_owned(),
            reason,
        }
    }

    /// The same fault, seen from the message that holds `field`.
    fn within(self, field: &str) -> Self {
        Self {
            field: format!("{field}.{}", self.field),
            reason: self.reason,
        }
    }

    fn of(self, resource: &str) -> ConvertError {
        ConvertError {
            resource: resource.to_owned(),
            fault: self,
        }
    }
}

/// One resource of the type [`super::ADDRESS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A workload.
    Workload(Arc<Workload>),
    /// A service.
    Service(Arc<Service>),
}

impl Address {
    /// Its resource name (§3.2): the uid, or `namespace/hostname`.
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Workload(workload) => workload.uid.clone(),
            Self::Service(service) => Arc::from(service.key.to_string()),
        }
    }

    /// Other names it can be asked for by (§3.2): `network/ip` of each of its addresses.
    pub fn aliases(&self) -> Vec<String> {
        let alias = |network: &str, ip: IpAddr| format!("{network}/{ip}");
        match self {
            Self::Workload(workload) => {
                let addresses = workload.addresses.iter();
                addresses.map(|ip| alias(&workload.network, *ip)).collect()
            }
            Self::Service(service) => {
                let vips = service.vips.iter();
                vips.map(|vip| alias(&vip.network, vip.address)).collect()
            }
        }
    }

    /// The `istio.workload.Address` that says it.
    pub fn encode(&self) -> Vec<u8> {
        let content = match self {
            Self::Workload(workload) => proto::address::Type::Workload(workload::encode(workload)),
            Self::Service(service) => proto::address::Type::Service(service::encode(service)),
        };
        let address = proto::Address {
            r#type: Some(content),
        };
        address.encode_to_vec()
    }

    /// Reads an `istio.workload.Address` sent under `name`.
    ///
    /// # Errors
    /// [`ConvertError`] for anything that is not wholly understood, and when the content belongs
    /// under another name: its removal would never be noticed (§2.5).
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, ConvertError> {
        let read = || {
            let address = proto::Address::decode(bytes)
                .map_err(|e| Fault::new("address", Reason::Undecodable(e)))?;
            let read = match address.r#type {
                Some(proto::address::Type::Workload(workload)) => {
                    Self::Workload(Arc::new(workload::decode(workload)?))
                }
                Some(proto::address::Type::Service(service)) => {
                    Self::Service(Arc::new(service::decode(service)?))
                }
                None => return Err(Fault::new("address", Reason::Missing)),
            };
            match read.name() {
                own if &*own == name => Ok(read),
                own => Err(Fault::new("name", Reason::OtherName(own.to_string()))),
            }
        };
        read().map_err(|fault: Fault| fault.of(name))
    }
}

/// 4 or 16 bytes to an address, by family.
fn ip(field: &str, bytes: &[u8]) -> Result<IpAddr, Fault> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(four));
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(sixteen) => Ok(IpAddr::from(sixteen)),
        Err(_length) => Err(Fault::new(field, Reason::AddressLength(bytes.len()))),
    }
}

fn ip_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn port(field: &str, value: u32) -> Result<u16, Fault> {
    u16::try_from(value).map_err(|_too_large| Fault::new(field, Reason::Port(value)))
}

/// A value of a protobuf enumeration.
fn enumeration<E>(field: &str, value: i32) -> Result<E, Fault>
where
    E: TryFrom<i32, Error = prost::UnknownEnumValue>,
{
    E::try_from(value).map_err(|unknown| Fault::new(field, Reason::UnknownEnum(unknown.0)))
}

/// A string that must not be empty.
fn required(field: &str, text: String) -> Result<Arc<str>, Fault> {
    match text.is_empty() {
        true => Err(Fault::new(field, Reason::Missing)),
        false => Ok(Arc::from(text)),
    }
}

/// `namespace/hostname`, neither empty, the host name without a further slash.
fn service_key(field: &str, text: &str) -> Result<ServiceKey, Fault> {
    match text.split_once('/') {
        Some((namespace, hostname))
            if !namespace.is_empty() && !hostname.is_empty() && !hostname.contains('/') =>
        {
            Ok(ServiceKey {
                namespace: Arc::from(namespace),
                hostname: Arc::from(hostname),
            })
        }
        _ => Err(Fault::new(field, Reason::ServiceKey(text.to_owned()))),
    }
}

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;
