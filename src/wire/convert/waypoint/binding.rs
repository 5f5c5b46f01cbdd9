//! A service behind a waypoint.

use std::sync::Arc;

use super::super::{Fault, Reason, enumeration, ip, ip_bytes, port, required, service_key};
use super::parts::{each, maybe, strings, texts};
use super::{route_name, route_named, set, traffic_name, traffic_named};
use crate::model::declaration::Origin;
use crate::model::service::{AppProtocol, NetworkAddress};
use crate::model::waypoint::{
    BoundPort, External, ExternalEndpoint, Resolution, ServiceBinding, Subset, TrafficKey,
    WaypointName,
};
use crate::model::workload::Locality;
use crate::wire::proto::waypoint as proto;
use proto::bound_port::Protocol;
use proto::external::Resolution as Found;

pub(super) fn encode(waypoint: &WaypointName, service: &ServiceBinding) -> proto::ServiceBinding {
    let traffic = |key: &Option<TrafficKey>| {
        let name = key.as_ref().map(|key| traffic_name(waypoint, key));
        name.unwrap_or_default()
    };
    let address = |address: &NetworkAddress| proto::NetworkAddress {
        network: address.network.to_string(),
        address: ip_bytes(address.address),
    };
    let subset = |subset: &Subset| proto::Subset {
        name: subset.name.to_string(),
        uids: strings(&subset.uids),
        traffic: traffic(&subset.traffic),
    };
    proto::ServiceBinding {
        namespace: service.key.namespace.to_string(),
        hostname: service.key.hostname.to_string(),
        addresses: service.addresses.iter().map(address).collect(),
        ports: {
            let ports = service.ports.iter();
            ports.map(|port| encode_port(waypoint, port)).collect()
        },
        set: Some(set::encode(waypoint, &service.set)),
        traffic: traffic(&service.traffic),
        subsets: service.subsets.iter().map(subset).collect(),
        external: service.external.as_ref().map(encode_external),
        bound: service.bound,
    }
}

pub(super) fn decode(
    waypoint: &WaypointName,
    origin: Origin,
    given: proto::ServiceBinding,
) -> Result<ServiceBinding, Fault> {
    let address = |given: proto::NetworkAddress| {
        Ok(NetworkAddress {
            network: Arc::from(given.network),
            address: ip("address", &given.address)?,
        })
    };
    let subset = |given: proto::Subset| {
        Ok(Subset {
            name: required("name", given.name)?,
            uids: texts(given.uids),
            traffic: traffic_named("traffic", waypoint, &given.traffic)?,
        })
    };
    let name = format!("{}/{}", given.namespace, given.hostname);
    Ok(ServiceBinding {
        key: service_key("hostname", &name)?,
        origin,
        bound: given.bound,
        addresses: each("addresses", given.addresses, address)?,
        ports: each("ports", given.ports, |port| decode_port(waypoint, port))?,
        set: set::decode("set", waypoint, given.set)?,
        traffic: traffic_named("traffic", waypoint, &given.traffic)?,
        subsets: each("subsets", given.subsets, subset)?,
        external: maybe("external", given.external, decode_external)?,
    })
}

fn encode_port(waypoint: &WaypointName, bound: &BoundPort) -> proto::BoundPort {
    let names = |routes: &[_]| routes.iter().map(|key| route_name(waypoint, key)).collect();
    proto::BoundPort {
        port: bound.port.into(),
        name: bound.name.to_string(),
        protocol: match bound.protocol {
            AppProtocol::Unknown => Protocol::Detect,
            AppProtocol::Http11 => Protocol::Http1,
            AppProtocol::Http2 => Protocol::Http2,
            AppProtocol::Grpc => Protocol::Grpc,
            AppProtocol::Tcp => Protocol::Tcp,
            AppProtocol::Tls => Protocol::Tls,
        }
        .into(),
        routes: names(&bound.routes),
        general: names(&bound.general),
    }
}

fn decode_port(waypoint: &WaypointName, given: proto::BoundPort) -> Result<BoundPort, Fault> {
    let names = |field: &str, names: Vec<String>| {
        let read = names.iter().map(|name| route_named(field, waypoint, name));
        read.collect::<Result<Vec<_>, Fault>>()
    };
    Ok(BoundPort {
        port: port("port", given.port)?,
        name: Arc::from(given.name),
        protocol: match enumeration("protocol", given.protocol)? {
            Protocol::Unspecified => return Err(Fault::new("protocol", Reason::Missing)),
            Protocol::Detect => AppProtocol::Unknown,
            Protocol::Http1 => AppProtocol::Http11,
            Protocol::Http2 => AppProtocol::Http2,
            Protocol::Grpc => AppProtocol::Grpc,
            Protocol::Tcp => AppProtocol::Tcp,
            Protocol::Tls => AppProtocol::Tls,
        },
        routes: names("routes", given.routes)?,
        general: names("general", given.general)?,
    })
}

fn encode_external(external: &External) -> proto::External {
    let endpoint = |endpoint: &ExternalEndpoint| proto::Endpoint {
        address: endpoint.address.to_string(),
        ports: {
            let ports = endpoint.ports.iter();
            ports
                .map(|(port, to)| ((*port).into(), (*to).into()))
                .collect()
        },
        weight: endpoint.weight,
        locality: Some(proto::Locality {
            region: endpoint.locality.region.to_string(),
            zone: endpoint.locality.zone.to_string(),
            subzone: endpoint.locality.subzone.to_string(),
        }),
    };
    proto::External {
        hosts: strings(&external.hosts),
        ranges: external.ranges.iter().map(ToString::to_string).collect(),
        resolution: match external.resolution {
            Resolution::None => Found::None,
            Resolution::Static => Found::Static,
            Resolution::Dns => Found::Dns,
            Resolution::DnsRoundRobin => Found::DnsRoundRobin,
            Resolution::DynamicDns => Found::DynamicDns,
        }
        .into(),
        endpoints: external.endpoints.iter().map(endpoint).collect(),
        subject_alt_names: strings(&external.subject_alt_names),
    }
}

fn decode_external(given: proto::External) -> Result<External, Fault> {
    let range = |text: String| {
        let range = text.parse();
        range.map_err(|_none| Fault::new("range", Reason::NoRange(text)))
    };
    Ok(External {
        hosts: texts(given.hosts),
        ranges: each("ranges", given.ranges, range)?,
        resolution: match enumeration("resolution", given.resolution)? {
            Found::Unspecified => return Err(Fault::new("resolution", Reason::Missing)),
            Found::None => Resolution::None,
            Found::Static => Resolution::Static,
            Found::Dns => Resolution::Dns,
            Found::DnsRoundRobin => Resolution::DnsRoundRobin,
            Found::DynamicDns => Resolution::DynamicDns,
        },
        endpoints: each("endpoints", given.endpoints, decode_endpoint)?,
        subject_alt_names: texts(given.subject_alt_names),
    })
}

fn decode_endpoint(given: proto::Endpoint) -> Result<ExternalEndpoint, Fault> {
    let ports = given.ports.into_iter();
    let ports = ports.map(|(from, to)| Ok((port("ports", from)?, port("ports", to)?)));
    let locality = given.locality.unwrap_or_default();
    Ok(ExternalEndpoint {
        address: required("address", given.address)?,
        ports: ports.collect::<Result<_, Fault>>()?,
        weight: given.weight,
        locality: Locality {
            region: Arc::from(locality.region),
            zone: Arc::from(locality.zone),
            subzone: Arc::from(locality.subzone),
        },
    })
}
