//! `GatewayAddress` and `NetworkAddress`, which workloads and services share.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Fault, Reason, ip, ip_bytes, port, proto, service_key};
use crate::model::service::NetworkAddress;
use crate::model::workload::{GatewayAddress, GatewayDestination};

pub(super) fn encode(gateway: &GatewayAddress) -> proto::GatewayAddress {
    let destination = match &gateway.destination {
        GatewayDestination::Hostname(key) => {
            proto::gateway_address::Destination::Hostname(proto::NamespacedHostname {
                namespace: key.namespace.to_string(),
                hostname: key.hostname.to_string(),
            })
        }
        GatewayDestination::Address { network, address } => {
            proto::gateway_address::Destination::Address(encode_address(network, *address))
        }
    };
    proto::GatewayAddress {
        destination: Some(destination),
        hbone_mtls_port: gateway.hbone_port.into(),
    }
}

pub(super) fn decode(
    field: &str,
    gateway: Option<proto::GatewayAddress>,
) -> Result<Option<GatewayAddress>, Fault> {
    let read = |gateway: proto::GatewayAddress| {
        let destination = match gateway.destination {
            Some(proto::gateway_address::Destination::Hostname(name)) => {
                let name = format!("{}/{}", name.namespace, name.hostname);
                GatewayDestination::Hostname(service_key("hostname", &name)?)
            }
            Some(proto::gateway_address::Destination::Address(address)) => {
                let NetworkAddress { network, address } = decode_address(address)?;
                GatewayDestination::Address { network, address }
            }
            None => return Err(Fault::new("destination", Reason::Missing)),
        };
        Ok(GatewayAddress {
            destination,
            hbone_port: port("hbone_mtls_port", gateway.hbone_mtls_port)?,
        })
    };
    let read = gateway.map(read).transpose();
    read.map_err(|fault| fault.within(field))
}

/// `length` is left out: absent means one address to every client (§2.1).
pub(super) fn encode_address(network: &str, address: IpAddr) -> proto::NetworkAddress {
    proto::NetworkAddress {
        network: network.to_owned(),
        address: ip_bytes(address),
        length: None,
    }
}

pub(super) fn decode_address(given: proto::NetworkAddress) -> Result<NetworkAddress, Fault> {
    let address = ip("address", &given.address)?;
    let single = if address.is_ipv4() { 32 } else { 128 };
    match given.length {
        Some(length) if length != single => Err(Fault::new("length", Reason::Range(length))),
        _ => Ok(NetworkAddress {
            network: Arc::from(given.network),
            address,
        }),
    }
}
