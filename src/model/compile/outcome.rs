//! What there is to say of a compilation besides its result.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::service::ServiceKey;

/// Something an operator should know about a mesh that is otherwise in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A workload is enrolled but cannot be captured, so it is reached in plain text.
    NotCaptured {
        /// The workload, as `namespace/name`.
        workload: String,
        /// The missing key: `capture` or `node`.
        missing: &'static str,
    },
    /// A service lost its assigned address to someone who declares it, or to a changed range.
    AddressMoved {
        /// The service.
        service: ServiceKey,
        /// The address it had.
        from: IpAddr,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCaptured { workload, missing } => write!(
                f,
                "workload `{workload}` is enrolled but has no `{missing}`: it is reached in plain text"
            ),
            Self::AddressMoved { service, from } => write!(
                f,
                "service `{service}` no longer has its assigned address {from}: another resource declares it, or it is outside the service range"
            ),
        }
    }
}

/// Why a declaration could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Every address of a service range is taken.
    #[error(
        "service range {range} has no free address for service `{service}`; widen `service-range`"
    )]
    RangeExhausted {
        /// The service left without an address.
        service: ServiceKey,
        /// The range.
        range: IpNet,
    },
    /// A service declares no address and there is no range to take one from.
    #[error("service `{service}` declares no address and the mesh has no service range")]
    NoRange {
        /// The service left without an address.
        service: ServiceKey,
    },
    /// A host name that reads as an address would shadow that address in lookups (§3.2).
    #[error(
        "service host name `{hostname}` reads as an IP address; change the mesh domain or the name"
    )]
    HostnameIsAddress {
        /// The name.
        hostname: Arc<str>,
    },
    /// Two resources have one name.
    #[error("`{name}` is declared twice")]
    Duplicate {
        /// The uid or service key.
        name: String,
    },
}
