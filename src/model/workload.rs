//! Workloads as the whole mesh sees them: the meaning of `istio.workload.Workload`
//! (`spec/control-plane.md` §2.1).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::service::ServiceKey;
use crate::identity::{IdentityError, SpiffeId, TrustDomain};

/// Region, zone and subzone; an empty part is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// For example a country or a site.
    pub region: Arc<str>,
    /// For example a room or a rack.
    pub zone: Arc<str>,
    /// For example a half of a rack.
    pub subzone: Arc<str>,
}

/// How peers reach a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// Plain TCP: it is not captured, or not yet.
    #[default]
    None,
    /// HBONE on its port 15008.
    Hbone,
}

/// Which transport tunnels towards a workload may use (`spec/hbone-dataplane.md` §11.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TLS over TCP, which every peer speaks.
    #[default]
    Tcp,
    /// QUIC where it works and is worth it, TCP meanwhile and otherwise.
    Auto,
    /// QUIC, and nothing else.
    Quic,
}

impl Transport {
    /// What a tunnel between two workloads may use, whichever of them opens it: both have to have it.
    pub fn between(self, other: Self) -> Self {
        match (self, other) {
            (Self::Tcp, _) | (_, Self::Tcp) => Self::Tcp,
            (Self::Quic, _) | (_, Self::Quic) => Self::Quic,
            (Self::Auto, Self::Auto) => Self::Auto,
        }
    }

    /// The word of the mesh files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Auto => "auto",
            Self::Quic => "quic",
        }
    }
}

/// Whether an address names one workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// Its addresses are its own.
    #[default]
    Standard,
    /// It shares its node's addresses, so it is never found by address.
    HostNetwork,
}

/// Whether a workload should be given traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Yes.
    #[default]
    Healthy,
    /// Only when every endpoint is unhealthy.
    Unhealthy,
}

/// Where traffic must pass first: a waypoint or a network's gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// How it is found.
    pub destination: GatewayDestination,
    /// Its HBONE port.
    pub hbone_port: u16,
}

/// How a waypoint or gateway is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// By service host name.
    Hostname(ServiceKey),
    /// By address on a network.
    Address {
        /// The network the address is on.
        network: Arc<str>,
        /// The address.
        address: IpAddr,
    },
}

/// A port a workload serves in place of the service's own target port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// The service's port.
    pub service_port: u16,
    /// The workload's port; 0 leaves it to the service.
    pub target_port: u16,
}

/// A workload as the whole mesh sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Primary key, unique in the mesh.
    pub uid: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace; never empty.
    pub namespace: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Where its identity is rooted.
    pub trust_domain: TrustDomain,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// A name to resolve when it has no address.
    pub hostname: Arc<str>,
    /// The network its addresses are on; empty is the default network.
    pub network: Arc<str>,
    /// How peers reach it.
    pub tunnel: TunnelProtocol,
    /// Over what tunnels towards it may go.
    pub transport: Transport,
    /// Whether it has UDP ports and is on a node that carries datagrams.
    pub udp: bool,
    /// The machine it runs on; empty when on none.
    pub node: Arc<str>,
    /// Whether its addresses are its own.
    pub network_mode: NetworkMode,
    /// Whether it should be given traffic.
    pub health: Health,
    /// Its share of traffic; 1 is usual, 0 none.
    pub capacity: u32,
    /// Where it stands.
    pub locality: Locality,
    /// The services it belongs to, with the ports it maps itself.
    pub services: BTreeMap<ServiceKey, Vec<PortMapping>>,
    /// The waypoint for traffic to its own addresses.
    pub waypoint: Option<GatewayAddress>,
    /// How it is reached from other networks.
    pub network_gateway: Option<GatewayAddress>,
    /// Names of the selector policies that hold for it.
    pub authorization_policies: Vec<Arc<str>>,
    /// Telemetry: canonical service name.
    pub canonical_name: Arc<str>,
    /// Telemetry: canonical revision.
    pub canonical_revision: Arc<str>,
    /// Telemetry: the name of what it is an instance of.
    pub workload_name: Arc<str>,
    /// Telemetry: the cluster it belongs to.
    pub cluster_id: Arc<str>,
}

impl Workload {
    /// The identity its certificates carry.
    ///
    /// # Errors
    /// When namespace or service account are no legal path segments; a validated mesh has none such.
    pub fn identity(&self) -> Result<SpiffeId, IdentityError> {
        SpiffeId::workload(&self.trust_domain, &self.namespace, &self.service_account)
    }

    /// Where HBONE to it goes, on the given port of its first address of the wanted family, else
    /// of its first address.
    pub fn hbone_address(&self, like: IpAddr, port: u16) -> Option<SocketAddr> {
        let address = self
            .addresses
            .iter()
            .find(|a| a.is_ipv4() == like.is_ipv4())
            .or_else(|| self.addresses.first())?;
        Some(SocketAddr::new(*address, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_goes_over_what_both_ends_have() {
        use Transport::{Auto, Quic, Tcp};
        for (one, other, want) in [
            (Tcp, Tcp, Tcp),
            (Tcp, Auto, Tcp),
            (Tcp, Quic, Tcp),
            (Auto, Auto, Auto),
            (Auto, Quic, Quic),
            (Quic, Quic, Quic),
        ] {
            assert_eq!(one.between(other), want, "{one:?} to {other:?}");
            assert_eq!(other.between(one), want, "{other:?} to {one:?}");
        }
    }
}
