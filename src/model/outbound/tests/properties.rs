//! What holds of every decision, whatever the mesh looks like.

use std::net::IpAddr;

use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::model::workload::NetworkMode;

/// Few enough addresses that workloads, services, waypoints and clients collide often.
const OCTETS: std::ops::Range<u8> = 1..9;
const NAMES: [&str; 3] = ["cart", "pay", "wp"];

fn address() -> impl Strategy<Value = String> {
    (OCTETS, any::<bool>()).prop_map(|(n, v4)| match v4 {
        true => format!("10.0.0.{n}"),
        false => format!("2001:db8::{n}"),
    })
}

fn waypoint() -> impl Strategy<Value = GatewayAddress> {
    prop_oneof![
        address().prop_map(|a| waypoint_at(&a)),
        select(&NAMES[..]).prop_map(waypoint_named),
    ]
}

fn one_workload() -> impl Strategy<Value = Workload> {
    let place = (
        proptest::collection::vec(address(), 0..3),
        weighted(0.3, Just(())),
    );
    let flags = (any::<bool>(), 0..4, 0..4, 0u32..4);
    let bound = (
        weighted(0.3, waypoint()),
        of(waypoint()),
        select(&["", "wp"][..]),
    );
    let member = proptest::collection::vec((select(&NAMES[..]), of(0u16..3)), 0..4);
    (place, flags, bound, member).prop_map(|(place, flags, bound, member)| {
        let (addresses, remote) = place;
        let (hbone, sick, host, weight) = flags;
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut w = workload("w", &addresses).weighing(weight);
        (w.waypoint, w.network_gateway, _) = bound.clone();
        w = if hbone { w } else { w.plain() };
        w = if sick == 0 { w.unhealthy() } else { w };
        w = if host == 0 { w.host_network() } else { w };
        w = if remote.is_some() {
            w.on_network("remote")
        } else {
            w
        };
        w = if bound.2.is_empty() {
            w
        } else {
            w.called("wp")
        };
        member.into_iter().fold(w, |w, (name, port)| match port {
            Some(target) => w.mapping(name, 80, target),
            None => w.of(name),
        })
    })
}

fn one_service() -> impl Strategy<Value = Service> {
    // Written twice is drawn twice as often.
    let modes = [
        BalanceMode::Unspecified,
        BalanceMode::Unspecified,
        BalanceMode::Strict,
        BalanceMode::Failover,
        BalanceMode::Passthrough,
    ];
    let families = [
        IpFamilies::Automatic,
        IpFamilies::Automatic,
        IpFamilies::Ipv6Only,
    ];
    let scopes = proptest::collection::vec(select(&[Scope::Network, Scope::Node][..]), 0..3);
    let names = (
        select(&NAMES[..]),
        proptest::collection::vec(address(), 0..3),
    );
    let hidden = 0..6;
    let how = (select(modes.to_vec()), scopes, select(families.to_vec()));
    (names, hidden, how, weighted(0.3, waypoint()), 0u16..4).prop_map(
        |(names, hidden, how, through, to)| {
            let vips: Vec<&str> = names.1.iter().map(String::as_str).collect();
            let mut s = service(names.0, &vips).ports(&[port(80, to), port(15008, 15008)]);
            s = s.balanced(how.0, &how.1).families(how.2);
            s.waypoint = through;
            match hidden {
                0 => s.in_namespace("secret", Visibility::Namespace),
                1 => s.vips_on("remote"),
                _ => s,
            }
        },
    )
}

fn mesh() -> impl Strategy<Value = (Vec<Workload>, Vec<Service>)> {
    let workloads = proptest::collection::vec(one_workload(), 1..12);
    (workloads, proptest::collection::vec(one_service(), 0..5)).prop_map(
        |(mut workloads, services)| {
            for (n, workload) in workloads.iter_mut().enumerate() {
                workload.uid = Arc::from(format!("w{n}"));
            }
            (workloads, services)
        },
    )
}

/// Where a client may want to go: mostly what somebody has, services before workloads.
fn destinations(workloads: &[Workload], services: &[Service]) -> Vec<IpAddr> {
    let vips = services
        .iter()
        .flat_map(|s| s.vips.iter().map(|v| v.address));
    let own = workloads.iter().flat_map(|w| w.addresses.iter().copied());
    let unknown = "10.0.0.99".parse().unwrap();
    vips.cycle()
        .take(2 * services.len())
        .chain(own)
        .chain([unknown])
        .collect()
}

/// Whether the mesh knows an address on a network: what is sent there must not leak.
fn known(workloads: &[Workload], services: &[Service], network: &str, ip: IpAddr) -> bool {
    let own = |w: &&Workload| w.network_mode == NetworkMode::Standard && &*w.network == network;
    let mut vips = services.iter().flat_map(|s| &s.vips);
    workloads
        .iter()
        .filter(own)
        .any(|w| w.addresses.contains(&ip))
        || vips.any(|v| v.address == ip && &*v.network == network)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_the_mesh_knows_leaks((workloads, services) in mesh(), to in any::<Index>(), port in select(&[80u16, 80, 80, 81][..])) {
        // Of two services with one key the view keeps the later; the property must ask it too.
        let services: BTreeMap<_, _> = services.into_iter().map(|s| (s.key.clone(), s)).collect();
        let services: Vec<Service> = services.into_values().collect();
        let ip = *to.get(&destinations(&workloads, &services));
        let view = view(workloads.clone(), services.clone());
        for source in &workloads {
            let route = decide(&view, source, SocketAddr::new(ip, port), &mut RoundRobin::default());
            let workload = view.workload_at(&source.network, ip);
            let service = match workload {
                Some(_) => None,
                None => view.service_at(&source.network, ip, &source.namespace),
            };
            let by_client = service.is_some_and(|s| {
                s.load_balancing.mode == BalanceMode::Passthrough && s.waypoint.is_none()
            });
            let waypoint = service.and_then(|s| s.waypoint.as_ref());
            match &route {
                Ok(Route::Passthrough { .. }) => {
                    let known = known(&workloads, &services, &source.network, ip);
                    prop_assert!(!known || by_client, "{source:?} leaks to {ip}");
                }
                Ok(Route::Plain { endpoint, .. }) => {
                    prop_assert_eq!(endpoint.workload.tunnel, TunnelProtocol::None);
                    prop_assert_eq!(&endpoint.workload.network, &source.network);
                    prop_assert!(endpoint.workload.addresses.contains(&endpoint.address.ip()));
                    prop_assert!(waypoint.is_none(), "a waypoint was bypassed");
                }
                Ok(Route::Named { workload, .. }) => {
                    prop_assert_eq!(workload.tunnel, TunnelProtocol::None);
                    prop_assert_eq!(&workload.network, &source.network);
                    prop_assert!(workload.addresses.is_empty() && !workload.hostname.is_empty());
                    prop_assert!(waypoint.is_none(), "a waypoint was bypassed");
                }
                Ok(Route::Tunnel(tunnel)) => {
                    prop_assert_eq!(&tunnel.workload.network, &source.network);
                    prop_assert!(tunnel.workload.addresses.contains(&tunnel.hop.ip()));
                    prop_assert!(tunnel.accepted.contains(&tunnel.workload.identity().unwrap()));
                    let asked = SocketAddr::new(ip, port);
                    prop_assert!(waypoint.is_none() || tunnel.target == asked, "a waypoint was bypassed");
                }
                Err(_) => {}
            }
            let passes = !known(&workloads, &services, &source.network, ip) || by_client;
            prop_assert_eq!(passes, matches!(route, Ok(Route::Passthrough { .. })));
        }
    }
}
