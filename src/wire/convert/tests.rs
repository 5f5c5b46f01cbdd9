use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::model::workload::Transport;
use crate::wire::proto::discovery;
use crate::wire::proto::lateen;
use proptest::prelude::*;
use prost::bytes::Bytes;

fn decode(address: proto::Address) -> Result<Address, ConvertError> {
    Address::decode("cluster//w", &address.encode_to_vec())
}

fn workload(change: impl FnOnce(&mut proto::Workload)) -> proto::Address {
    let mut workload = proto::Workload {
        uid: "cluster//w".to_owned(),
        namespace: "shop".to_owned(),
        ..proto::Workload::default()
    };
    change(&mut workload);
    proto::Address {
        r#type: Some(proto::address::Type::Workload(workload)),
    }
}

fn service(change: impl FnOnce(&mut proto::Service)) -> proto::Address {
    let mut service = proto::Service {
        namespace: "shop".to_owned(),
        hostname: "cart".to_owned(),
        ..proto::Service::default()
    };
    change(&mut service);
    proto::Address {
        r#type: Some(proto::address::Type::Service(service)),
    }
}

fn range(address: &[u8], length: Option<u32>) -> Vec<proto::NetworkAddress> {
    vec![proto::NetworkAddress {
        network: String::new(),
        address: address.to_vec(),
        length,
    }]
}

fn ports(port: proto::Port) -> proto::PortList {
    proto::PortList { ports: vec![port] }
}

fn too_high_udp() -> lateen::UdpPorts {
    let port = lateen::udp_ports::Port {
        service_port: 65_536,
        target_port: 53,
    };
    lateen::UdpPorts { ports: vec![port] }
}

fn udp(value: &[u8]) -> proto::Extension {
    proto::Extension {
        name: "lateen/udp".to_owned(),
        config: Some(prost_types::Any {
            type_url: String::new(),
            value: value.to_vec(),
        }),
    }
}

const TOO_HIGH: proto::Port = proto::Port {
    service_port: 65_979,
    target_port: 0,
    app_protocol: 0,
};

#[test]
fn refuses_what_stock_proxies_bend() {
    let scope = || proto::LoadBalancing {
        routing_preference: vec![0],
        ..proto::LoadBalancing::default()
    };
    for (name, given, want) in [
        (
            "nothing inside",
            proto::Address { r#type: None },
            "address: is missing",
        ),
        ("no uid", workload(|w| w.uid.clear()), "uid: is missing"),
        (
            "no namespace",
            workload(|w| w.namespace.clear()),
            "namespace: is missing",
        ),
        (
            "other name",
            workload(|w| w.uid = "x".to_owned()),
            "name: the content names itself `x`",
        ),
        (
            "address of 3 bytes",
            workload(|w| w.addresses = vec![vec![1, 2, 3]]),
            "addresses: an address of 3 bytes",
        ),
        (
            "empty gateway",
            workload(|w| w.waypoint = Some(proto::GatewayAddress::default())),
            "waypoint.destination: is missing",
        ),
        (
            "gateway port",
            workload(|w| {
                w.network_gateway = Some(proto::GatewayAddress {
                    hbone_mtls_port: 70_000,
                    destination: Some(proto::gateway_address::Destination::Hostname(
                        proto::NamespacedHostname {
                            namespace: "a".to_owned(),
                            hostname: "b".to_owned(),
                        },
                    )),
                })
            }),
            "network_gateway.hbone_mtls_port: port 70000",
        ),
        (
            "a share of nobody's",
            service(|s| s.weighted_waypoints = vec![proto::WeightedWaypoint::default()]),
            "weighted_waypoints.destination: is missing",
        ),
        (
            "legacy tunnel",
            workload(|w| w.tunnel_protocol = 2),
            "tunnel_protocol: legacy",
        ),
        (
            "unknown tunnel",
            workload(|w| w.tunnel_protocol = 9),
            "tunnel_protocol: unknown value 9",
        ),
        (
            "unknown status",
            workload(|w| w.status = -1),
            "status: unknown value -1",
        ),
        (
            "unknown mode",
            workload(|w| w.network_mode = 2),
            "network_mode: unknown value 2",
        ),
        (
            "key without slash",
            workload(|w| {
                w.services
                    .insert("cart".to_owned(), proto::PortList::default());
            }),
            "services: `cart` is not namespace/hostname",
        ),
        (
            "key with two",
            workload(|w| {
                w.services
                    .insert("a/b/c".to_owned(), proto::PortList::default());
            }),
            "services: `a/b/c`",
        ),
        (
            "port in a list",
            workload(|w| {
                w.services.insert("a/b".to_owned(), ports(TOO_HIGH));
            }),
            "services.service_port: port 65979",
        ),
        (
            "trust domain",
            workload(|w| w.trust_domain = "A".to_owned()),
            "trust_domain: `A`",
        ),
        (
            "port",
            service(|s| s.ports = vec![TOO_HIGH]),
            "ports.service_port: port 65979",
        ),
        (
            "UDP port",
            service(|s| s.extensions = vec![udp(&too_high_udp().encode_to_vec())]),
            "lateen/udp.service_port: port 65536",
        ),
        (
            "no UDP ports",
            service(|s| s.extensions = vec![udp(&[0xff])]),
            "lateen/udp.ports: not decodable",
        ),
        (
            "no host name",
            service(|s| s.hostname.clear()),
            "hostname: `shop/` is not",
        ),
        (
            "range",
            service(|s| s.addresses = range(&[10, 0, 0, 0], Some(8))),
            "addresses.length: a range of prefix length 8",
        ),
        (
            "IPv4 length on IPv6",
            service(|s| s.addresses = range(&[0; 16], Some(32))),
            "addresses.length: a range",
        ),
        (
            "family of length 0",
            service(|s| s.addresses = range(&[0; 4], Some(0))),
            "addresses.length: a range",
        ),
        (
            "unspecified scope",
            service(|s| s.load_balancing = Some(scope())),
            "load_balancing.routing_preference: an unspecified scope",
        ),
    ] {
        let error = decode(given).unwrap_err().to_string();
        assert!(error.starts_with("cluster//w: "), "{name}: {error}");
        assert!(error.contains(want), "{name}: {error}");
    }
}

#[test]
fn fills_in_what_may_be_left_out() {
    let Address::Workload(read) = decode(workload(|_| ())).unwrap() else {
        panic!("a workload");
    };
    assert_eq!(read.trust_domain.as_str(), "cluster.local");
    assert_eq!(&*read.service_account, "default");
    assert_eq!(&*read.cluster_id, "Kubernetes");
    assert_eq!(read.capacity, 1);
    let single = service(|s| s.addresses = range(&[10, 0, 0, 1], Some(32)));
    assert!(Address::decode("shop/cart", &single.encode_to_vec()).is_ok());
    let newer = service(|s| s.visibility = 7);
    assert!(Address::decode("shop/cart", &newer.encode_to_vec()).is_ok());
}

#[test]
fn a_transport_is_told_to_who_knows_of_it() {
    let told = |name: &str, value: &[u8]| proto::Extension {
        name: name.to_owned(),
        config: Some(prost_types::Any {
            type_url: "type.googleapis.com/lateen.v1.WorkloadTransport".to_owned(),
            value: value.to_vec(),
        }),
    };
    let ours = |mode: i32| {
        let message = lateen::WorkloadTransport {
            mode,
            udp: mode == 1,
        };
        told("lateen/transport", &message.encode_to_vec())
    };
    let bare = proto::Extension {
        name: "lateen/transport".to_owned(),
        config: None,
    };
    for (name, extensions, want) in [
        ("nothing", Vec::new(), (Transport::Tcp, false)),
        ("quic", vec![ours(2)], (Transport::Quic, false)),
        (
            "beside another's",
            vec![told("istio.io/x", &[0xff]), ours(1)],
            (Transport::Auto, true),
        ),
        ("of a later version", vec![ours(3)], (Transport::Tcp, false)),
        (
            "not readable",
            vec![told("lateen/transport", &[0xff])],
            (Transport::Tcp, false),
        ),
        ("without content", vec![bare], (Transport::Tcp, false)),
    ] {
        let Address::Workload(read) = decode(workload(|w| w.extensions = extensions)).unwrap()
        else {
            panic!("a workload");
        };
        assert_eq!((read.transport, read.udp), want, "{name}");
    }
}

#[test]
fn a_workload_that_is_as_usual_has_no_extension() {
    let usual = crate::model::testing::workload("w", &["10.1.0.1"]);
    assert_eq!(workload::encode(&usual).extensions, []);
    for unusual in [usual.clone().over(Transport::Quic), usual.udp()] {
        assert_eq!(workload::encode(&unusual).extensions.len(), 1);
    }
}

#[test]
fn udp_ports_stand_beside_those_that_stock_proxies_read() {
    let dns = crate::model::testing::service("dns", &[]).udp(&[(53, 5353)]);
    let told = service::encode(&dns);
    let ports: Vec<_> = told.ports.iter().map(|p| p.service_port).collect();
    assert_eq!(ports, [80]);
    assert_eq!(told.extensions.len(), 1);
    let bare = service::encode(&dns.udp(&[]));
    assert_eq!(bare.extensions, []);
}

fn check(placement: &mut lateen::Placement) -> &mut lateen::HealthCheck {
    placement.health.as_mut().unwrap()
}

fn tcp(port: u32) -> lateen::health_check::Probe {
    lateen::health_check::Probe::Tcp(lateen::health_check::Tcp { port })
}

fn exec(command: &[&str]) -> lateen::health_check::Probe {
    let command = command.iter().map(ToString::to_string).collect();
    lateen::health_check::Probe::Exec(lateen::health_check::Exec { command })
}

#[test]
fn placements_are_checked() {
    let good = lateen::Placement {
        uid: "u".to_owned(),
        name: "n".to_owned(),
        namespace: "ns".to_owned(),
        service_account: "sa".to_owned(),
        enrolled: true,
        capture: Some(lateen::placement::Capture::Netns("cart".to_owned())),
        health: Some(lateen::HealthCheck {
            probe: Some(tcp(80)),
            interval_ms: 2_000,
            timeout_ms: 1_000,
            rise: 2,
            fall: 2,
            start_timeout_ms: 0,
        }),
        dns_capture: Some(false),
    };
    let with = |change: fn(&mut lateen::Placement)| {
        let mut changed = good.clone();
        change(&mut changed);
        decode_placement("u", &changed.encode_to_vec())
    };
    assert!(with(|_| ()).is_ok());
    for (name, result) in [
        ("enrolled without a way", with(|p| p.capture = None)),
        (
            "empty way",
            with(|p| p.capture = Some(lateen::placement::Capture::User(String::new()))),
        ),
        ("no account", with(|p| p.service_account.clear())),
        ("other uid", with(|p| p.uid = "v".to_owned())),
        ("no probe", with(|p| check(p).probe = None)),
        ("no port", with(|p| check(p).probe = Some(tcp(0)))),
        ("port 65536", with(|p| check(p).probe = Some(tcp(65_536)))),
        ("no program", with(|p| check(p).probe = Some(exec(&[])))),
        ("no name", with(|p| check(p).probe = Some(exec(&["", "x"])))),
        ("no interval", with(|p| check(p).interval_ms = 0)),
        ("no rise", with(|p| check(p).rise = 0)),
    ] {
        assert!(result.is_err(), "{name}");
    }
}

fn summary() -> RevisionSummary {
    RevisionSummary {
        epoch: [7; 16],
        serial: 3,
        number: 42,
        digest: [9; 32],
        source: "git:abc".to_owned(),
        compiled_at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        totals: [(crate::wire::ADDRESS.to_owned(), 4)].into(),
        warnings: 1,
        expired_grace: Duration::from_secs(3600),
        domain: "mesh.internal".to_owned(),
    }
}

#[test]
fn revisions_round_trip_and_are_checked() {
    let bytes = encode_revision(&summary());
    assert_eq!(decode_revision("mesh", &bytes).unwrap(), summary());
    assert!(decode_revision("other", &bytes).is_err());
    let short = lateen::Revision::default().encode_to_vec();
    let error = decode_revision("mesh", &short).unwrap_err();
    assert_eq!(error.to_string(), "mesh: epoch: 0 bytes, must be 16");
}

#[test]
fn digest_ignores_order_only() {
    let a = ("t", "a", "1");
    let b = ("t", "b", "2");
    assert_eq!(digest([a, b]), digest([b, a]));
    assert_ne!(digest([a, b]), digest([a]));
    assert_ne!(digest([a]), digest([("t", "a", "2")]));
}

#[test]
fn shared_responses_are_what_everyone_else_decodes() {
    let body = encode_revision(&summary());
    let response = delta::Response {
        system_version_info: "v".to_owned(),
        resources: vec![delta::encode_resource(
            "t",
            "n",
            "1",
            vec!["/a".to_owned()],
            body.clone(),
        )],
        type_url: "t".to_owned(),
        nonce: "x".to_owned(),
        removed_resources: vec!["gone".to_owned()],
    };
    let bytes = Bytes::from(response.encode_to_vec());
    let read = discovery::DeltaDiscoveryResponse::decode(bytes).unwrap();
    assert_eq!(read.resources.len(), 1);
    assert_eq!(read.resources[0].name, "n");
    assert_eq!(read.resources[0].aliases, ["/a"]);
    assert_eq!(read.resources[0].resource.as_ref().unwrap().value, body);
    assert_eq!(read.removed_resources, ["gone"]);
    assert_eq!((read.type_url.as_str(), read.nonce.as_str()), ("t", "x"));
}

#[test]
fn equal_values_give_one_encoding() {
    let compiled = crate::model::compile::sample::large(50, 5);
    let encode = || {
        let compiled = crate::model::compile::compile(
            &compiled,
            &crate::model::compile::Reported::default(),
            &crate::model::compile::Assignments::default(),
        )
        .unwrap();
        let encode = |w: &Arc<Workload>| Address::Workload(w.clone()).encode();
        compiled.workloads.iter().map(encode).collect::<Vec<_>>()
    };
    let first = encode();
    assert!((0..100).all(|_| encode() == first));
}

proptest! {
    #[test]
    fn workloads_round_trip(workload in arbitrary::workload()) {
        let address = Address::Workload(Arc::new(workload));
        prop_assert_eq!(Address::decode(&address.name(), &address.encode())?, address);
    }

    #[test]
    fn services_round_trip(service in arbitrary::service()) {
        let address = Address::Service(Arc::new(service));
        prop_assert_eq!(Address::decode(&address.name(), &address.encode())?, address);
    }

    #[test]
    fn placements_round_trip(placement in arbitrary::placement()) {
        let bytes = encode_placement(&placement);
        prop_assert_eq!(decode_placement(&placement.uid, &bytes)?, placement);
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(Address::decode("x", &bytes));
        drop(decode_placement("x", &bytes));
        drop(decode_revision("mesh", &bytes));
    }

    #[test]
    fn damaged_resources_never_panic(
        workload in arbitrary::workload(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let mut bytes = Address::Workload(Arc::new(workload)).encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        drop(Address::decode("x", &bytes));
    }
}
