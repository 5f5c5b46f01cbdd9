//! `istio.workload.Workload`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::extension::{self, Extends};
use super::{
    Fault, Reason, enumeration, gateway, ip, ip_bytes, port, proto, required, service_key,
};
use crate::identity::TrustDomain;
use crate::model::service::ServiceKey;
use crate::model::workload::{
    Health, Locality, NetworkMode, PortMapping, Transport, TunnelProtocol, Workload,
};
use crate::wire::proto::lateen::{WorkloadTransport, workload_transport::Mode};
use crate::wire::proto::workload::Extension;

/// Tells over what tunnels towards a workload may go, and whether datagrams may.
impl Extends for WorkloadTransport {
    const NAME: &'static str = "lateen/transport";
    const MESSAGE: &'static str = "WorkloadTransport";
}

pub(super) fn encode(workload: &Workload) -> proto::Workload {
    proto::Workload {
        uid: workload.uid.to_string(),
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        addresses: workload.addresses.iter().map(|a| ip_bytes(*a)).collect(),
        hostname: workload.hostname.to_string(),
        network: workload.network.to_string(),
        tunnel_protocol: match workload.tunnel {
            TunnelProtocol::None => proto::TunnelProtocol::None,
            TunnelProtocol::Hbone => proto::TunnelProtocol::Hbone,
        }
        .into(),
        trust_domain: workload.trust_domain.to_string(),
        service_account: workload.service_account.to_string(),
        waypoint: workload.waypoint.as_ref().map(gateway::encode),
        network_gateway: workload.network_gateway.as_ref().map(gateway::encode),
        node: workload.node.to_string(),
        canonical_name: workload.canonical_name.to_string(),
        canonical_revision: workload.canonical_revision.to_string(),
        workload_type: proto::WorkloadType::Deployment.into(),
        workload_name: workload.workload_name.to_string(),
        native_tunnel: false,
        authorization_policies: {
            let policies = workload.authorization_policies.iter();
            policies.map(ToString::to_string).collect()
        },
        status: match workload.health {
            Health::Healthy => proto::WorkloadStatus::Healthy,
            Health::Unhealthy => proto::WorkloadStatus::Unhealthy,
        }
        .into(),
        cluster_id: workload.cluster_id.to_string(),
        services: workload.services.iter().map(encode_service).collect(),
        application_tunnel: None,
        locality: encode_locality(&workload.locality),
        network_mode: match workload.network_mode {
            NetworkMode::Standard => proto::NetworkMode::Standard,
            NetworkMode::HostNetwork => proto::NetworkMode::HostNetwork,
        }
        .into(),
        extensions: encode_transport(workload).into_iter().collect(),
        // Absent means 1.
        capacity: (workload.capacity != 1).then_some(workload.capacity),
    }
}

/// Nothing for the usual one, so that what stock proxies are sent stays as small as it was.
fn encode_transport(workload: &Workload) -> Option<Extension> {
    let mode = match workload.transport {
        Transport::Tcp => Mode::Tcp,
        Transport::Auto => Mode::Auto,
        Transport::Quic => Mode::Quic,
    };
    let told = WorkloadTransport {
        mode: mode.into(),
        udp: workload.udp,
    };
    (told != WorkloadTransport::default()).then(|| extension::encode(&told))
}

fn encode_service((key, ports): (&ServiceKey, &Vec<PortMapping>)) -> (String, proto::PortList) {
    let port = |mapping: &PortMapping| proto::Port {
        service_port: mapping.service_port.into(),
        target_port: mapping.target_port.into(),
        app_protocol: proto::AppProtocol::Unknown.into(),
    };
    let ports = proto::PortList {
        ports: ports.iter().map(port).collect(),
    };
    (key.to_string(), ports)
}

fn encode_locality(locality: &Locality) -> Option<proto::Locality> {
    (*locality != Locality::default()).then(|| proto::Locality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        subzone: locality.subzone.to_string(),
    })
}

pub(super) fn decode(workload: proto::Workload) -> Result<Workload, Fault> {
    // An unknown type is only a telemetry word, yet a sender that uses one is newer than us.
    enumeration::<proto::WorkloadType>("workload_type", workload.workload_type)?;
    let transport = decode_transport(&workload.extensions);
    Ok(Workload {
        uid: required("uid", workload.uid)?,
        name: Arc::from(workload.name),
        namespace: required("namespace", workload.namespace)?,
        service_account: or(workload.service_account, "default"),
        trust_domain: trust_domain(&workload.trust_domain)?,
        addresses: addresses(&workload.addresses)?,
        hostname: Arc::from(workload.hostname),
        network: Arc::from(workload.network),
        tunnel: match enumeration("tunnel_protocol", workload.tunnel_protocol)? {
            proto::TunnelProtocol::None => TunnelProtocol::None,
            proto::TunnelProtocol::Hbone => TunnelProtocol::Hbone,
            proto::TunnelProtocol::LegacyIstioMtls => {
                return Err(Fault::new("tunnel_protocol", Reason::LegacyMtls));
            }
        },
        transport: transport.0,
        udp: transport.1,
        node: Arc::from(workload.node),
        network_mode: match enumeration("network_mode", workload.network_mode)? {
            proto::NetworkMode::Standard => NetworkMode::Standard,
            proto::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
        },
        health: match enumeration("status", workload.status)? {
            proto::WorkloadStatus::Healthy => Health::Healthy,
            proto::WorkloadStatus::Unhealthy => Health::Unhealthy,
        },
        capacity: workload.capacity.unwrap_or(1),
        locality: decode_locality(workload.locality.unwrap_or_default()),
        services: services(workload.services)?,
        waypoint: gateway::decode("waypoint", workload.waypoint)?,
        network_gateway: gateway::decode("network_gateway", workload.network_gateway)?,
        authorization_policies: {
            let policies = workload.authorization_policies.into_iter();
            policies.map(Arc::from).collect()
        },
        canonical_name: Arc::from(workload.canonical_name),
        canonical_revision: Arc::from(workload.canonical_revision),
        workload_name: Arc::from(workload.workload_name),
        cluster_id: or(workload.cluster_id, "Kubernetes"),
    })
}

/// What every peer takes, where it does not read or only a later version knows it.
fn decode_transport(extensions: &[Extension]) -> (Transport, bool) {
    let told = extension::decode::<WorkloadTransport>(extensions);
    let told = told.and_then(Result::ok).unwrap_or_default();
    let transport = match Mode::try_from(told.mode) {
        Ok(Mode::Auto) => Transport::Auto,
        Ok(Mode::Quic) => Transport::Quic,
        Ok(Mode::Tcp) | Err(_) => Transport::Tcp,
    };
    (transport, told.udp)
}

fn or(text: String, default: &str) -> Arc<str> {
    match text.is_empty() {
        true => Arc::from(default),
        false => Arc::from(text),
    }
}

fn trust_domain(text: &str) -> Result<TrustDomain, Fault> {
    match text.is_empty() {
        true => Ok(TrustDomain::default()),
        false => text
            .parse()
            .map_err(|e| Fault::new("trust_domain", Reason::TrustDomain(e))),
    }
}

fn addresses(given: &[Vec<u8>]) -> Result<Vec<IpAddr>, Fault> {
    given.iter().map(|bytes| ip("addresses", bytes)).collect()
}

fn decode_locality(locality: proto::Locality) -> Locality {
    Locality {
        region: Arc::from(locality.region),
        zone: Arc::from(locality.zone),
        subzone: Arc::from(locality.subzone),
    }
}

type Services = BTreeMap<ServiceKey, Vec<PortMapping>>;

fn services(given: BTreeMap<String, proto::PortList>) -> Result<Services, Fault> {
    let mapping = |given: proto::Port| {
        enumeration::<proto::AppProtocol>("app_protocol", given.app_protocol)?;
        Ok(PortMapping {
            service_port: port("service_port", given.service_port)?,
            target_port: port("target_port", given.target_port)?,
        })
    };
    let service = |(name, list): (String, proto::PortList)| {
        let key = service_key("services", &name)?;
        let ports: Result<Vec<_>, Fault> = list.ports.into_iter().map(mapping).collect();
        Ok((key, ports.map_err(|fault| fault.within("services"))?))
    };
    given.into_iter().map(service).collect()
}
