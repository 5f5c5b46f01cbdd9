use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::testing::{key, service, view, workload};

const VIP: &str = "10.9.0.1:80";

/// Keeps what it was offered, and takes the first.
#[derive(Default)]
struct Offered(Vec<String>);

impl Pick for Offered {
    fn pick(&mut self, _: &ServiceKey, _: u16, candidates: &[Candidate<'_>]) -> usize {
        self.0 = candidates
            .iter()
            .map(|c| c.workload.uid.to_string())
            .collect();
        0
    }
}

fn offered(source: &Workload, workloads: Vec<Workload>, service: Service) -> Vec<String> {
    let workloads = workloads.into_iter().map(|w| w.of("cart")).collect();
    let view = view(workloads, vec![service.clone()]);
    let mut offered = Offered::default();
    let _endpoint = choose(&view, source, &service, VIP.parse().unwrap(), &mut offered);
    offered.0
}

/// Name, mode, scopes, endpoints, and those of them that may be picked.
type Row<'a> = (
    &'a str,
    BalanceMode,
    &'a [Scope],
    Vec<Workload>,
    &'a [&'a str],
);

#[test]
fn the_preferred_are_offered() {
    use Scope::{Cluster, Network, Node, Region, Subzone, Zone};
    let w = |name: &str| workload(name, &["10.0.0.2"]);
    let at = |name: &str, region: &str, zone: &str| w(name).at(region, zone);
    let off = |w: Workload| w.on_node("edge-9");
    let other_cluster = |name: &str| Workload {
        cluster_id: Arc::from("other"),
        ..w(name)
    };
    let source = workload("web", &["10.0.0.1"]).at("eu", "z1");
    let all: [Scope; 6] = [Network, Region, Zone, Subzone, Node, Cluster];
    let cases: Vec<Row<'_>> = vec![
        (
            "unspecified: all",
            BalanceMode::Unspecified,
            &[Zone],
            vec![w("a"), at("b", "eu", "z1")],
            &["a", "b"],
        ),
        (
            "strict: all scopes",
            BalanceMode::Strict,
            &[Region, Zone],
            vec![at("a", "eu", "z2"), at("b", "eu", "z1")],
            &["b"],
        ),
        (
            "strict: every scope there is",
            BalanceMode::Strict,
            &all,
            vec![at("a", "eu", "z1"), off(at("b", "eu", "z1"))],
            &["a"],
        ),
        (
            "25 strict: nobody",
            BalanceMode::Strict,
            &[Node],
            vec![off(w("a"))],
            &[],
        ),
        (
            "strict without scopes: all",
            BalanceMode::Strict,
            &[],
            vec![w("a"), off(w("b"))],
            &["a", "b"],
        ),
        (
            "failover: the best rank, all of it",
            BalanceMode::Failover,
            &[Region, Zone],
            vec![
                at("a", "eu", "z1"),
                at("b", "eu", "z2"),
                at("c", "eu", "z1"),
            ],
            &["a", "c"],
        ),
        (
            "failover: only leading scopes count",
            BalanceMode::Failover,
            &[Region, Zone],
            vec![at("a", "us", "z1"), at("b", "eu", "z9")],
            &["b"],
        ),
        (
            "failover: nobody matches, all remain",
            BalanceMode::Failover,
            &[Region],
            vec![at("a", "us", "z1"), at("b", "us", "z2")],
            &["a", "b"],
        ),
        (
            "failover: past a sick one",
            BalanceMode::Failover,
            &[Zone],
            vec![at("a", "eu", "z1").unhealthy(), at("b", "eu", "z2")],
            &["b"],
        ),
        (
            "failover: past one without capacity",
            BalanceMode::Failover,
            &[Zone],
            vec![at("a", "eu", "z1").weighing(0), at("b", "eu", "z2")],
            &["b"],
        ),
        (
            "failover: cluster",
            BalanceMode::Failover,
            &[Cluster],
            vec![other_cluster("a"), w("b")],
            &["b"],
        ),
        (
            "23 network first, then the rest",
            BalanceMode::Failover,
            &[Network, Zone],
            vec![at("a", "eu", "z1"), at("b", "eu", "z2")],
            &["a"],
        ),
        (
            "24 in the network, other region",
            BalanceMode::Failover,
            &[Network, Region, Zone],
            vec![
                at("a", "us", "z9"),
                at("b", "eu", "z1").on_network("remote"),
            ],
            &["a"],
        ),
        (
            "no capacity at all",
            BalanceMode::Unspecified,
            &[],
            vec![w("a").weighing(0)],
            &[],
        ),
    ];
    for (name, mode, scopes, workloads, want) in cases {
        let cart = service("cart", &["10.9.0.1"]).balanced(mode, scopes);
        assert_eq!(offered(&source, workloads, cart), want, "{name}");
    }
}

#[test]
fn the_rank_of_an_endpoint_off_the_network_skips_that_scope() {
    use Scope::{Network, Region, Zone};
    let source = workload("web", &[]).at("eu", "z1");
    let off = |region: &str, zone: &str| workload("x", &[]).at(region, zone).on_network("remote");
    for (name, endpoint, want) in [
        ("on it, nothing else", workload("x", &[]).at("us", "z9"), 3),
        ("on it, everything", workload("x", &[]).at("eu", "z1"), 5),
        ("off it, everything else", off("eu", "z1"), 2),
        ("off it, not leading", off("us", "z1"), 0),
    ] {
        assert_eq!(
            rank(&source, &endpoint, &[Network, Region, Zone]),
            want,
            "{name}"
        );
    }
}

#[test]
fn the_address_is_the_one_asked_for_or_fits_the_families() {
    let dual = &["10.0.0.2", "2001:db8::2"][..];
    let v4 = &["10.0.0.2"][..];
    for (name, addresses, families, asked, want) in [
        (
            "its own",
            dual,
            IpFamilies::Ipv4Only,
            "2001:db8::2",
            Some("2001:db8::2"),
        ),
        (
            "same family",
            dual,
            IpFamilies::Automatic,
            "2001:db8:9::1",
            Some("2001:db8::2"),
        ),
        (
            "only v6",
            dual,
            IpFamilies::Ipv6Only,
            "10.9.0.1",
            Some("2001:db8::2"),
        ),
        (
            "only v4",
            dual,
            IpFamilies::Ipv4Only,
            "2001:db8:9::1",
            Some("10.0.0.2"),
        ),
        (
            "other family where there is no choice",
            v4,
            IpFamilies::Dual,
            "2001:db8:9::1",
            Some("10.0.0.2"),
        ),
        ("none allowed", v4, IpFamilies::Ipv6Only, "10.9.0.1", None),
        ("none", &[][..], IpFamilies::Automatic, "10.9.0.1", None),
    ] {
        let workload = workload("w", addresses);
        let cart = service("cart", &[]).families(families);
        let got = address(&cart, &workload, asked.parse().unwrap());
        assert_eq!(got, want.map(|a| a.parse().unwrap()), "{name}");
    }
}

fn picks(turns: &mut RoundRobin, workloads: &[Arc<Workload>], times: usize) -> Vec<usize> {
    let candidates: Vec<Candidate<'_>> = workloads
        .iter()
        .map(|workload| Candidate {
            workload,
            share: workload.capacity,
            address: VIP.parse().unwrap(),
        })
        .collect();
    let cart = key("cart");
    (0..times)
        .map(|_| turns.pick(&cart, 80, &candidates))
        .collect()
}

fn weighing(capacities: &[u32]) -> Vec<Arc<Workload>> {
    let one = |(n, c): (usize, &u32)| workload(&format!("w{n:03}"), &[]).weighing(*c);
    capacities
        .iter()
        .enumerate()
        .map(one)
        .map(Arc::new)
        .collect()
}

#[test]
fn turns_are_spread_evenly() {
    for (name, start, capacities, want) in [
        ("one", 0, &[1][..], &[0, 0, 0][..]),
        ("two in turn", 0, &[1, 1], &[0, 1, 0, 1]),
        ("begun elsewhere", 1, &[1, 1], &[1, 0, 1, 0]),
        ("begun a round later", 7, &[1, 1, 1], &[1, 2, 0, 1]),
        (
            "heavy ones are not bunched",
            0,
            &[1, 3],
            &[1, 0, 1, 1, 1, 0, 1, 1],
        ),
        ("nginx's own example", 0, &[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]),
        ("huge capacities", 0, &[u32::MAX, u32::MAX], &[0, 1, 0, 1]),
    ] {
        let mut turns = RoundRobin::starting_after(start);
        let got = picks(&mut turns, &weighing(capacities), want.len());
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn who_leaves_is_forgotten_and_who_comes_waits_for_nobody() {
    let all = weighing(&[1, 1, 1]);
    let mut turns = RoundRobin::default();
    assert_eq!(picks(&mut turns, &all, 1), [0]);
    assert_eq!(
        picks(&mut turns, &all[1..], 4),
        [0, 1, 0, 1],
        "one has left"
    );
    let after = picks(&mut turns, &all, 300);
    for n in 0..3 {
        let share = after.iter().filter(|p| **p == n).count();
        assert!((99..=101).contains(&share), "{n} had {share} of 300");
    }
}

#[test]
fn hosts_do_not_all_begin_with_the_same_endpoint() {
    let all = weighing(&[1, 1, 1, 1]);
    let mut first: BTreeMap<usize, usize> = BTreeMap::new();
    for host in 0..100 {
        let mut turns = RoundRobin::starting_after(host);
        *first.entry(picks(&mut turns, &all, 1)[0]).or_default() += 1;
    }
    assert_eq!(first.into_values().collect::<Vec<_>>(), [25, 25, 25, 25]);
}

proptest! {
    /// Over whole rounds the shares are the capacities, to the connection.
    #[test]
    fn shares_are_exact(capacities in proptest::collection::vec(1u32..9, 1..7), start in any::<usize>()) {
        let round: usize = capacities.iter().map(|c| *c as usize).sum();
        let rounds = 10_000 / round;
        let mut turns = RoundRobin::starting_after(start);
        let picked = picks(&mut turns, &weighing(&capacities), rounds * round);
        for (n, capacity) in capacities.iter().enumerate() {
            let share = picked.iter().filter(|p| **p == n).count();
            prop_assert_eq!(share, *capacity as usize * rounds);
        }
    }
}
