//! `istio.workload.Service`.

use std::sync::Arc;

use super::extension::{self, Extends};
use super::{Fault, Reason, enumeration, gateway, port, proto, service_key};
use crate::model::service::{
    AppProtocol, BalanceMode, HealthPolicy, IpFamilies, LoadBalancing, NetworkAddress, Scope,
    Service, ServicePort, UdpPort, Visibility, WeightedWaypoint,
};
use crate::wire::proto::lateen::{UdpPorts, udp_ports};
use crate::wire::proto::workload::Extension;
use proto::load_balancing as balancing;

/// Tells the UDP ports of a service: stock proxies would take them for TCP among the others.
impl Extends for UdpPorts {
    const NAME: &'static str = "lateen/udp";
    const MESSAGE: &'static str = "UdpPorts";
}

pub(super) fn encode(service: &Service) -> proto::Service {
    let vip = |vip: &NetworkAddress| gateway::encode_address(&vip.network, vip.address);
    proto::Service {
        name: service.name.to_string(),
        namespace: service.key.namespace.to_string(),
        hostname: service.key.hostname.to_string(),
        addresses: service.vips.iter().map(vip).collect(),
        ports: service.ports.iter().map(encode_port).collect(),
        subject_alt_names: {
            let names = service.subject_alt_names.iter();
            names.map(ToString::to_string).collect()
        },
        waypoint: service.waypoint.as_ref().map(gateway::encode),
        load_balancing: encode_balancing(&service.load_balancing),
        ip_families: match service.ip_families {
            IpFamilies::Automatic => proto::IpFamilies::Automatic,
            IpFamilies::Ipv4Only => proto::IpFamilies::Ipv4Only,
            IpFamilies::Ipv6Only => proto::IpFamilies::Ipv6Only,
            IpFamilies::Dual => proto::IpFamilies::Dual,
        }
        .into(),
        extensions: encode_udp(&service.udp_ports).into_iter().collect(),
        canonical: service.canonical,
        ingress_use_waypoint: service.ingress_use_waypoint,
        weighted_waypoints: {
            let weighted = service.weighted_waypoints.iter();
            weighted.map(encode_weighted).collect()
        },
        visibility: match service.visibility {
            Visibility::Public => proto::service::Visibility::Public,
            Visibility::Namespace => proto::service::Visibility::Namespace,
        }
        .into(),
    }
}

fn encode_weighted(weighted: &WeightedWaypoint) -> proto::WeightedWaypoint {
    proto::WeightedWaypoint {
        destination: Some(gateway::encode(&weighted.waypoint)),
        weight: weighted.weight,
    }
}

fn decode_weighted(given: proto::WeightedWaypoint) -> Result<WeightedWaypoint, Fault> {
    let waypoint = gateway::decode("destination", given.destination)?;
    Ok(WeightedWaypoint {
        waypoint: waypoint.ok_or_else(|| Fault::new("destination", Reason::Missing))?,
        weight: given.weight,
    })
}

fn encode_port(declared: &ServicePort) -> proto::Port {
    proto::Port {
        service_port: declared.service_port.into(),
        target_port: declared.target_port.into(),
        app_protocol: match declared.app_protocol {
            AppProtocol::Unknown => proto::AppProtocol::Unknown,
            AppProtocol::Http11 => proto::AppProtocol::Http11,
            AppProtocol::Http2 => proto::AppProtocol::Http2,
            AppProtocol::Grpc => proto::AppProtocol::Grpc,
            AppProtocol::Tcp => proto::AppProtocol::Tcp,
            AppProtocol::Tls => proto::AppProtocol::Tls,
        }
        .into(),
    }
}

fn encode_udp(ports: &[UdpPort]) -> Option<Extension> {
    let port = |port: &UdpPort| udp_ports::Port {
        service_port: port.service_port.into(),
        target_port: port.target_port.into(),
    };
    let ports: Vec<_> = ports.iter().map(port).collect();
    (!ports.is_empty()).then(|| extension::encode(&UdpPorts { ports }))
}

fn encode_balancing(balancing: &LoadBalancing) -> Option<proto::LoadBalancing> {
    let scope = |scope: &Scope| {
        i32::from(match scope {
            Scope::Region => balancing::Scope::Region,
            Scope::Zone => balancing::Scope::Zone,
            Scope::Subzone => balancing::Scope::Subzone,
            Scope::Node => balancing::Scope::Node,
            Scope::Cluster => balancing::Scope::Cluster,
            Scope::Network => balancing::Scope::Network,
        })
    };
    (*balancing != LoadBalancing::default()).then(|| proto::LoadBalancing {
        routing_preference: balancing.preference.iter().map(scope).collect(),
        mode: match balancing.mode {
            BalanceMode::Unspecified => balancing::Mode::UnspecifiedMode,
            BalanceMode::Strict => balancing::Mode::Strict,
            BalanceMode::Failover => balancing::Mode::Failover,
            BalanceMode::Passthrough => balancing::Mode::Passthrough,
        }
        .into(),
        health_policy: match balancing.health_policy {
            HealthPolicy::OnlyHealthy => balancing::HealthPolicy::OnlyHealthy,
            HealthPolicy::AllowAll => balancing::HealthPolicy::AllowAll,
        }
        .into(),
    })
}

pub(super) fn decode(service: proto::Service) -> Result<Service, Fault> {
    let vip = |given| gateway::decode_address(given).map_err(|fault| fault.within("addresses"));
    let ports = service.ports.into_iter().map(decode_port);
    let ports: Result<Vec<_>, Fault> = ports.collect();
    let name = format!("{}/{}", service.namespace, service.hostname);
    Ok(Service {
        key: service_key("hostname", &name)?,
        name: Arc::from(service.name),
        vips: service
            .addresses
            .into_iter()
            .map(vip)
            .collect::<Result<_, _>>()?,
        ports: ports.map_err(|fault| fault.within("ports"))?,
        udp_ports: decode_udp(&service.extensions).map_err(|fault| fault.within(UdpPorts::NAME))?,
        subject_alt_names: {
            let names = service.subject_alt_names.into_iter();
            names.map(Arc::from).collect()
        },
        waypoint: gateway::decode("waypoint", service.waypoint)?,
        weighted_waypoints: {
            let weighted = service.weighted_waypoints.into_iter().map(decode_weighted);
            let weighted: Result<_, _> = weighted.collect();
            weighted.map_err(|fault| fault.within("weighted_waypoints"))?
        },
        ingress_use_waypoint: service.ingress_use_waypoint,
        load_balancing: decode_balancing(service.load_balancing.unwrap_or_default())
            .map_err(|fault| fault.within("load_balancing"))?,
        ip_families: match enumeration("ip_families", service.ip_families)? {
            proto::IpFamilies::Automatic => IpFamilies::Automatic,
            proto::IpFamilies::Ipv4Only => IpFamilies::Ipv4Only,
            proto::IpFamilies::Ipv6Only => IpFamilies::Ipv6Only,
            proto::IpFamilies::Dual => IpFamilies::Dual,
        },
        canonical: service.canonical,
        // The one enumeration whose unknown values have a meaning (§2.1).
        visibility: match proto::service::Visibility::try_from(service.visibility) {
            Ok(proto::service::Visibility::Namespace) => Visibility::Namespace,
            Ok(proto::service::Visibility::Public) | Err(_) => Visibility::Public,
        },
    })
}

fn decode_port(given: proto::Port) -> Result<ServicePort, Fault> {
    Ok(ServicePort {
        service_port: port("service_port", given.service_port)?,
        target_port: port("target_port", given.target_port)?,
        app_protocol: match enumeration("app_protocol", given.app_protocol)? {
            proto::AppProtocol::Unknown => AppProtocol::Unknown,
            proto::AppProtocol::Http11 => AppProtocol::Http11,
            proto::AppProtocol::Http2 => AppProtocol::Http2,
            proto::AppProtocol::Grpc => AppProtocol::Grpc,
            proto::AppProtocol::Tcp => AppProtocol::Tcp,
            proto::AppProtocol::Tls => AppProtocol::Tls,
        },
    })
}

/// What does not read is not none: datagrams to these ports would leave in clear text.
fn decode_udp(extensions: &[Extension]) -> Result<Vec<UdpPort>, Fault> {
    let Some(told) = extension::decode::<UdpPorts>(extensions) else {
        return Ok(Vec::new());
    };
    let told = told.map_err(|e| Fault::new("ports", Reason::Undecodable(e)))?;
    let read = |given: udp_ports::Port| {
        Ok(UdpPort {
            service_port: port("service_port", given.service_port)?,
            target_port: port("target_port", given.target_port)?,
        })
    };
    told.ports.into_iter().map(read).collect()
}

fn decode_balancing(given: proto::LoadBalancing) -> Result<LoadBalancing, Fault> {
    let scope = |value: i32| match enumeration("routing_preference", value)? {
        balancing::Scope::UnspecifiedScope => {
            Err(Fault::new("routing_preference", Reason::UnspecifiedScope))
        }
        balancing::Scope::Region => Ok(Scope::Region),
        balancing::Scope::Zone => Ok(Scope::Zone),
        balancing::Scope::Subzone => Ok(Scope::Subzone),
        balancing::Scope::Node => Ok(Scope::Node),
        balancing::Scope::Cluster => Ok(Scope::Cluster),
        balancing::Scope::Network => Ok(Scope::Network),
    };
    Ok(LoadBalancing {
        preference: given
            .routing_preference
            .into_iter()
            .map(scope)
            .collect::<Result<_, _>>()?,
        mode: match enumeration("mode", given.mode)? {
            balancing::Mode::UnspecifiedMode => BalanceMode::Unspecified,
            balancing::Mode::Strict => BalanceMode::Strict,
            balancing::Mode::Failover => BalanceMode::Failover,
            balancing::Mode::Passthrough => BalanceMode::Passthrough,
        },
        health_policy: match enumeration("health_policy", given.health_policy)? {
            balancing::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            balancing::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
        },
    })
}
