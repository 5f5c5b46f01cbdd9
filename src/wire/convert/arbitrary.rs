//! Arbitrary model values, for property tests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proptest::option;
use proptest::prelude::*;

use crate::model::compile::Placement;
use crate::model::declaration::{Capture, HealthCheck, Origin, Probe};
use crate::model::policy::{
    Clause, Effect, Match, Pattern, Policy, Rule, Scope as PolicyScope, ServiceAccount, Values,
};
use crate::model::service::{
    AppProtocol, BalanceMode, HealthPolicy, IpFamilies, LoadBalancing, NetworkAddress, Scope,
    Service, ServiceKey, ServicePort, UdpPort, Visibility, WeightedWaypoint,
};
use crate::model::workload::{
    GatewayAddress, GatewayDestination, Health, Locality, NetworkMode, PortMapping, Transport,
    TunnelProtocol, Workload,
};

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-zé.-]{0,8}".prop_map(Arc::from)
}

fn word() -> impl Strategy<Value = Arc<str>> {
    "[a-z][a-z0-9.-]{0,8}".prop_map(Arc::from)
}

fn key() -> impl Strategy<Value = ServiceKey> {
    (word(), word()).prop_map(|(namespace, hostname)| ServiceKey {
        namespace,
        hostname,
    })
}

fn network_address() -> impl Strategy<Value = NetworkAddress> {
    (text(), any::<IpAddr>()).prop_map(|(network, address)| NetworkAddress { network, address })
}

fn gateway() -> impl Strategy<Value = GatewayAddress> {
    let destination = prop_oneof![
        key().prop_map(GatewayDestination::Hostname),
        network_address().prop_map(|n| GatewayDestination::Address {
            network: n.network,
            address: n.address
        }),
    ];
    (destination, any::<u16>()).prop_map(|(destination, hbone_port)| GatewayAddress {
        destination,
        hbone_port,
    })
}

fn locality() -> impl Strategy<Value = Locality> {
    (text(), text(), text()).prop_map(|(region, zone, subzone)| Locality {
        region,
        zone,
        subzone,
    })
}

fn memberships() -> impl Strategy<Value = BTreeMap<ServiceKey, Vec<PortMapping>>> {
    let mapping = any::<(u16, u16)>().prop_map(|(service_port, target_port)| PortMapping {
        service_port,
        target_port,
    });
    prop::collection::btree_map(key(), prop::collection::vec(mapping, 0..3), 0..3)
}

pub(crate) fn workload() -> impl Strategy<Value = Workload> {
    let names = (word(), text(), word(), word(), text(), text(), text());
    let modes = (
        (
            prop_oneof![Just(TunnelProtocol::None), Just(TunnelProtocol::Hbone)],
            prop::sample::select(vec![Transport::Tcp, Transport::Auto, Transport::Quic]),
            any::<bool>(),
        ),
        prop_oneof![Just(NetworkMode::Standard), Just(NetworkMode::HostNetwork)],
        prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy)],
        any::<u32>(),
        locality(),
    );
    let references = (
        memberships(),
        option::of(gateway()),
        option::of(gateway()),
        prop::collection::vec(text(), 0..3),
        prop::collection::vec(any::<IpAddr>(), 0..3),
    );
    let telemetry = (text(), text(), text(), word(), "[a-z0-9]{1,5}");
    (names, modes, references, telemetry).prop_map(|(names, modes, references, telemetry)| {
        Workload {
            uid: names.0,
            name: names.1,
            namespace: names.2,
            service_account: names.3,
            hostname: names.4,
            network: names.5,
            node: names.6,
            tunnel: modes.0.0,
            transport: modes.0.1,
            udp: modes.0.2,
            network_mode: modes.1,
            health: modes.2,
            capacity: modes.3,
            locality: modes.4,
            services: references.0,
            waypoint: references.1,
            network_gateway: references.2,
            authorization_policies: references.3,
            addresses: references.4,
            canonical_name: telemetry.0,
            canonical_revision: telemetry.1,
            workload_name: telemetry.2,
            cluster_id: telemetry.3,
            trust_domain: telemetry.4.parse().unwrap(),
        }
    })
}

fn ports() -> impl Strategy<Value = Vec<ServicePort>> {
    let protocol = prop::sample::select(vec![
        AppProtocol::Unknown,
        AppProtocol::Http11,
        AppProtocol::Http2,
        AppProtocol::Grpc,
        AppProtocol::Tcp,
        AppProtocol::Tls,
    ]);
    let port = (any::<u16>(), any::<u16>(), protocol).prop_map(
        |(service_port, target_port, app_protocol)| ServicePort {
            service_port,
            target_port,
            app_protocol,
        },
    );
    prop::collection::vec(port, 0..4)
}

fn udp_port() -> impl Strategy<Value = UdpPort> {
    any::<(u16, u16)>().prop_map(|(service_port, target_port)| UdpPort {
        service_port,
        target_port,
    })
}

fn balancing() -> impl Strategy<Value = LoadBalancing> {
    let scope = prop::sample::select(vec![
        Scope::Region,
        Scope::Zone,
        Scope::Subzone,
        Scope::Node,
        Scope::Cluster,
        Scope::Network,
    ]);
    let mode = prop::sample::select(vec![
        BalanceMode::Unspecified,
        BalanceMode::Strict,
        BalanceMode::Failover,
        BalanceMode::Passthrough,
    ]);
    let policy = prop_oneof![
        Just(HealthPolicy::OnlyHealthy),
        Just(HealthPolicy::AllowAll)
    ];
    (prop::collection::vec(scope, 0..4), mode, policy).prop_map(
        |(preference, mode, health_policy)| LoadBalancing {
            preference,
            mode,
            health_policy,
        },
    )
}

pub(crate) fn service() -> impl Strategy<Value = Service> {
    let families = prop::sample::select(vec![
        IpFamilies::Automatic,
        IpFamilies::Ipv4Only,
        IpFamilies::Ipv6Only,
        IpFamilies::Dual,
    ]);
    let visibility = prop_oneof![Just(Visibility::Public), Just(Visibility::Namespace)];
    let lists = (
        prop::collection::vec(network_address(), 0..3),
        ports(),
        prop::collection::vec(text(), 0..3),
        prop::collection::vec(udp_port(), 0..3),
    );
    let weighted = (gateway(), any::<u32>())
        .prop_map(|(waypoint, weight)| WeightedWaypoint { waypoint, weight });
    let waypoints = (option::of(gateway()), prop::collection::vec(weighted, 0..3));
    let rest = (families, any::<bool>(), any::<bool>(), visibility);
    (key(), text(), lists, waypoints, balancing(), rest).prop_map(
        |(key, name, lists, waypoints, load_balancing, rest)| Service {
            key,
            name,
            vips: lists.0,
            ports: lists.1,
            subject_alt_names: lists.2,
            udp_ports: lists.3,
            waypoint: waypoints.0,
            weighted_waypoints: waypoints.1,
            load_balancing,
            ip_families: rest.0,
            canonical: rest.1,
            ingress_use_waypoint: rest.2,
            visibility: rest.3,
        },
    )
}

pub(crate) fn placement() -> impl Strategy<Value = Placement> {
    let capture = (0..5, word()).prop_map(|(kind, name)| match kind {
        0 => Capture::Netns(name),
        1 => Capture::Unit(name),
        2 => Capture::Cgroup(name),
        3 => Capture::User(name),
        _ => Capture::Interface(name),
    });
    let names = (word(), word(), word(), word());
    let parts = (
        names,
        any::<bool>(),
        option::of(capture),
        option::of(health()),
        option::of(any::<bool>()),
    );
    parts.prop_map(
        |(names, enrolled, capture, health, dns_capture)| Placement {
            uid: names.0,
            name: names.1,
            namespace: names.2,
            service_account: names.3,
            enrolled: enrolled && capture.is_some(),
            capture,
            health,
            dns_capture,
        },
    )
}

fn health() -> impl Strategy<Value = HealthCheck> {
    let probe = prop_oneof![
        (word(), 1u16..).prop_map(|(path, port)| Probe::Http { path, port }),
        (1u16..).prop_map(|port| Probe::Tcp { port }),
        prop::collection::vec(word(), 1..4).prop_map(|command| Probe::Exec { command }),
    ];
    let times = (1u64..100_000, 1u64..100_000, 0u64..100_000);
    (probe, times, 1u32..100, 1u32..100).prop_map(|(probe, times, rise, fall)| HealthCheck {
        probe,
        interval: Duration::from_millis(times.0),
        timeout: Duration::from_millis(times.1),
        rise,
        fall,
        start_timeout: Duration::from_millis(times.2),
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        text().prop_map(Pattern::Exact),
        text().prop_map(Pattern::Prefix),
        text().prop_map(Pattern::Suffix),
        Just(Pattern::Present),
    ]
}

fn values<T: std::fmt::Debug + Clone + 'static>(
    of: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Values<T>> {
    let list = || proptest::collection::vec(of.clone(), 0..3);
    (list(), list()).prop_map(|(any, not)| Values { any, not })
}

fn net() -> impl Strategy<Value = IpNet> + Clone {
    (any::<IpAddr>(), 0..=128_u8).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new_assert(address, length.min(most))
    })
}

fn account() -> impl Strategy<Value = ServiceAccount> {
    (word(), word()).prop_map(|(namespace, name)| ServiceAccount { namespace, name })
}

fn policy_match() -> impl Strategy<Value = Match> {
    let texts = || values(pattern().boxed());
    let nets = || values(net().boxed());
    let accounts = values(account().boxed());
    let ports = values(any::<u16>());
    (texts(), texts(), accounts, nets(), nets(), ports).prop_map(
        |(namespaces, principals, service_accounts, source_ips, destination_ips, ports)| Match {
            namespaces,
            principals,
            service_accounts,
            source_ips,
            destination_ips,
            destination_ports: ports,
        },
    )
}

/// A policy that was written somewhere.
pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let clause = proptest::collection::vec(policy_match(), 0..3);
    let clauses = proptest::collection::vec(clause, 0..3);
    let rule = (any::<u32>(), clauses).prop_map(|(line, clauses)| Rule {
        line,
        clauses: clauses
            .into_iter()
            .map(|matches| Clause { matches })
            .collect(),
    });
    let scope = prop_oneof![
        Just(PolicyScope::Mesh),
        Just(PolicyScope::Namespace),
        Just(PolicyScope::Listed)
    ];
    let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Deny)];
    let rules = proptest::collection::vec(rule, 0..3);
    let origin = (text(), any::<u32>()).prop_map(|(file, line)| Origin { file, line });
    (word(), word(), scope, effect, any::<bool>(), rules, origin).prop_map(
        |(namespace, name, scope, effect, dry_run, rules, origin)| Policy {
            key: Policy::key_of(&namespace, &name),
            namespace,
            name,
            scope,
            effect,
            dry_run,
            rules,
            origin: Some(origin),
            unreadable: None,
        },
    )
}
