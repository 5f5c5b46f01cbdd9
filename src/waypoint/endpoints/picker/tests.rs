use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Endpoints, GroupKey, Outcome, Ruled, UnderWay};
use super::*;
use crate::model::balance::{Unavailable, choose};
use crate::model::service::{BalanceMode, Scope, Service};
use crate::model::testing::{key, service, view, workload};
use crate::model::traffic::{
    Distribute, HashKey, LoadBalancer, LocalityPolicy, OutlierDetection, TrafficPolicy,
};
use crate::model::waypoint::{NamedTraffic, TrafficKey};
use crate::telemetry::Metrics;

const SECOND: Duration = Duration::from_secs(1);

/// A service, whoever serves it, and a waypoint's memory of them.
struct Bench {
    view: Arc<View>,
    endpoints: Endpoints,
    ruled: Ruled,
    now: Instant,
    hash: Option<u64>,
}

impl Bench {
    fn new(settings: Settings, workloads: Vec<Workload>) -> Self {
        Self::of(settings, workloads, service("cart", &["10.9.0.1"]))
    }

    fn of(settings: Settings, workloads: Vec<Workload>, service: Service) -> Self {
        let named = NamedTraffic {
            key: TrafficKey {
                namespace: Arc::from("shop"),
                name: Arc::from("r"),
                subset: Arc::from(""),
            },
            origin: crate::model::declaration::Origin {
                file: Arc::from("a.toml"),
                line: 1,
            },
            policy: TrafficPolicy {
                usual: settings,
                ports: BTreeMap::new(),
            },
        };
        Self {
            view: served(workloads, service),
            endpoints: Endpoints::new(Arc::new(Metrics::default())),
            ruled: Ruled {
                named: Some(Arc::new(named)),
                binding: None,
                gateway: None,
                port: 80,
            },
            now: Instant::now(),
            hash: None,
        }
    }

    fn group(&self) -> Arc<Group> {
        let key = GroupKey {
            service: key("cart"),
            port: 80,
            subset: Arc::from(""),
        };
        self.endpoints.group(key, self.now)
    }

    /// Something goes to an endpoint.
    fn pick(&self) -> Option<UnderWay> {
        let group = self.group();
        let source = waypoint();
        let mut picker = Picker {
            group: &group,
            settings: self.ruled.settings(),
            locality: self.ruled.locality(),
            view: &self.view,
            among: None,
            source: &source,
            subset: None,
            hash: self.hash,
            now: self.now,
        };
        let cart = self.view.service(&key("cart")).unwrap();
        let at = "10.9.0.1:80".parse().unwrap();
        match choose(&self.view, &source, cart, at, &mut picker) {
            Ok(chosen) => {
                let (uid, address) = (&chosen.workload.uid, chosen.address);
                Some(group.enter(uid, address, self.ruled.clone(), self.now))
            }
            Err(Unavailable::Endpoints) => None,
            Err(other) => panic!("{other:?}"),
        }
    }

    /// How often each is picked of so many times, one after the other.
    fn picks(&self, times: usize) -> BTreeMap<String, usize> {
        let mut picks = BTreeMap::new();
        for _ in 0..times {
            let picked = self
                .pick()
                .map_or_else(|| "nobody".to_owned(), |u| u.uid.to_string());
            *picks.entry(picked).or_default() += 1;
        }
        picks
    }

    /// An endpoint fails until it is out.
    fn eject(&self, name: &str) {
        let rule = self.ruled.settings().outlier_detection.unwrap();
        let group = self.group();
        for _ in 0..rule.consecutive_5xx {
            let uid = Arc::from(name);
            group.note(&uid, Outcome::Answered(500), &rule, self.now);
        }
    }
}

fn served(workloads: Vec<Workload>, service: Service) -> Arc<View> {
    let workloads = workloads.into_iter().map(|w| w.of("cart"));
    Arc::new(view(workloads.collect(), vec![service]))
}

fn waypoint() -> Workload {
    workload("wp", &["10.0.0.1"]).at("eu", "a")
}

fn several(count: usize) -> Vec<Workload> {
    let one = |n| workload(&format!("w{n}"), &[&format!("10.1.0.{n}")]).at("eu", "a");
    (1..=count).map(one).collect()
}

fn balancing(policy: Balance) -> Settings {
    Settings {
        load_balancer: LoadBalancer {
            policy,
            ..LoadBalancer::default()
        },
        ..Settings::default()
    }
}

/// Outliers are detected, and any number may be out.
fn detecting(mut settings: Settings) -> Settings {
    settings.outlier_detection = Some(OutlierDetection {
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    });
    settings
}

fn hashing(table: HashTable) -> Settings {
    let key = HashKey::SourceIp;
    balancing(Balance::Hash { key, table })
}

fn names(picks: &BTreeMap<String, usize>) -> Vec<&str> {
    picks.keys().map(String::as_str).collect()
}

#[test]
fn turns_are_taken_in_order() {
    let bench = Bench::new(balancing(Balance::RoundRobin), several(4));
    assert_eq!(bench.picks(400).into_values().collect::<Vec<_>>(), [100; 4]);
}

#[test]
fn the_busy_are_spared() {
    let bench = Bench::new(Settings::default(), several(3));
    let mut held: BTreeMap<Arc<str>, Vec<UnderWay>> = BTreeMap::new();
    for _ in 0..300 {
        let picked = bench.pick().unwrap();
        held.entry(Arc::clone(&picked.uid))
            .or_default()
            .push(picked);
    }
    let counts: Vec<_> = held.values().map(Vec::len).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 6, "{counts:?}");
    // All that one had is over: it is the least busy by far, and never loses a draw.
    held.remove("w2");
    let picked = bench.picks(100);
    assert!(picked["w2"] > 40, "{picked:?}");
}

#[test]
fn a_key_stays_where_it_is() {
    for table in [HashTable::Ring(1024), HashTable::Maglev(251)] {
        let mut bench = Bench::new(detecting(hashing(table)), several(3));
        bench.hash = Some(hash(b"user", 0));
        let picks = bench.picks(100);
        let [owner] = names(&picks)[..] else {
            panic!("{picks:?}")
        };
        bench.eject(owner);
        let heirs = bench.picks(100);
        assert_eq!(heirs.len(), 1, "{heirs:?}");
        assert!(!heirs.contains_key(owner), "{heirs:?}");
        bench.now += 40 * SECOND;
        assert_eq!(names(&bench.picks(10)), [owner], "back, and so is the key");
        bench.hash = None;
        assert_eq!(bench.picks(200).len(), 3, "without a key, anybody");
    }
}

#[test]
fn who_is_out_is_left_alone_until_the_time_is_over() {
    for policy in [Balance::LeastRequest, Balance::RoundRobin, Balance::Random] {
        let mut bench = Bench::new(detecting(balancing(policy)), several(3));
        bench.picks(10);
        bench.eject("w2");
        assert_eq!(names(&bench.picks(200)), ["w1", "w3"]);
        bench.now += 29 * SECOND;
        assert_eq!(names(&bench.picks(200)), ["w1", "w3"]);
        bench.now += 11 * SECOND;
        assert_eq!(names(&bench.picks(200)), ["w1", "w2", "w3"]);
    }
}

#[test]
fn when_too_many_are_out_nobody_is() {
    for (name, least, want) in [
        ("never", 0, &["nobody"][..]),
        ("below half", 50, &["w1", "w2", "w3"]),
    ] {
        let mut settings = detecting(Settings::default());
        settings
            .outlier_detection
            .as_mut()
            .unwrap()
            .min_health_percent = least;
        let bench = Bench::new(settings, several(3));
        bench.picks(1);
        for endpoint in ["w1", "w2", "w3"] {
            bench.eject(endpoint);
        }
        assert_eq!(names(&bench.picks(100)), want, "{name}");
    }
}

#[test]
fn what_is_known_outlives_a_revision_but_not_the_endpoint() {
    let mut bench = Bench::new(detecting(Settings::default()), several(3));
    bench.picks(1);
    bench.eject("w2");
    bench.view = served(several(4), service("cart", &["10.9.0.1"]));
    assert_eq!(names(&bench.picks(200)), ["w1", "w3", "w4"]);
    let mut without = several(4);
    without.remove(1);
    bench.view = served(without, service("cart", &["10.9.0.1"]));
    bench.picks(1);
    bench.view = served(several(4), service("cart", &["10.9.0.1"]));
    assert_eq!(names(&bench.picks(200)), ["w1", "w2", "w3", "w4"]);
}

#[test]
fn nothing_detected_means_nobody_is_out() {
    let mut bench = Bench::new(detecting(Settings::default()), several(2));
    bench.picks(1);
    bench.eject("w1");
    bench.ruled = Ruled::default();
    assert_eq!(names(&bench.picks(100)), ["w1", "w2"]);
}

#[test]
fn a_new_endpoint_warms_up() {
    for policy in [Balance::RoundRobin, Balance::LeastRequest] {
        let mut settings = balancing(policy.clone());
        settings.load_balancer.warmup = Some(Warmup {
            duration: 30 * SECOND,
            minimum_percent: 10.0,
            aggression: 1.0,
        });
        let mut bench = Bench::new(settings, several(2));
        let picks = bench.picks(1000);
        assert!(
            picks.values().all(|n| (420..=580).contains(n)),
            "{policy:?} {picks:?}"
        );
        bench.view = served(several(3), service("cart", &["10.9.0.1"]));
        let cold = bench.picks(2100)["w3"];
        bench.now += 15 * SECOND;
        let warm = bench.picks(2500)["w3"];
        bench.now += 15 * SECOND;
        let hot = bench.picks(3000)["w3"];
        assert!(
            cold < warm / 2 && warm < hot,
            "{policy:?}: {cold} {warm} {hot}"
        );
        if policy == Balance::RoundRobin {
            assert!((95..=105).contains(&cold), "{cold}");
            assert!((495..=505).contains(&warm), "{warm}");
            assert!((995..=1005).contains(&hot), "{hot}");
        }
    }
}

/// Two of the waypoint's zone, two of another one.
fn two_zones() -> Vec<Workload> {
    let mut workloads = several(4);
    for far in &mut workloads[2..] {
        far.locality.zone = Arc::from("b");
    }
    workloads
}

#[test]
fn the_near_come_first_while_they_are_well() {
    let bench = Bench::new(detecting(Settings::default()), two_zones());
    assert_eq!(names(&bench.picks(200)), ["w1", "w2"]);
    // 140 % of half is 70 %.
    bench.eject("w2");
    let picks = bench.picks(2000);
    assert!((1300..=1500).contains(&picks["w1"]), "{picks:?}");
    assert_eq!(picks.len(), 3, "{picks:?}");
    bench.eject("w1");
    assert_eq!(names(&bench.picks(200)), ["w3", "w4"]);
}

#[test]
fn without_outliers_zones_are_all_the_same() {
    let bench = Bench::new(Settings::default(), two_zones());
    assert_eq!(bench.picks(400).len(), 4);
}

#[test]
fn those_known_to_be_unwell_count_as_missing() {
    let mut workloads = two_zones();
    workloads[1] = workloads[1].clone().unhealthy();
    let bench = Bench::new(detecting(Settings::default()), workloads);
    let picks = bench.picks(2000);
    assert!((1300..=1500).contains(&picks["w1"]), "{picks:?}");
}

#[test]
fn the_services_word_needs_no_outliers() {
    let close = [Scope::Network, Scope::Region, Scope::Zone];
    let cart = service("cart", &["10.9.0.1"]).balanced(BalanceMode::Failover, &close);
    let bench = Bench::of(Settings::default(), two_zones(), cart);
    assert_eq!(names(&bench.picks(200)), ["w1", "w2"]);
    let mut workloads = two_zones();
    workloads[0] = workloads[0].clone().unhealthy();
    workloads[1] = workloads[1].clone().unhealthy();
    let cart = service("cart", &["10.9.0.1"]).balanced(BalanceMode::Failover, &close);
    let bench = Bench::of(Settings::default(), workloads, cart);
    assert_eq!(names(&bench.picks(200)), ["w3", "w4"]);
}

#[test]
fn shares_are_fixed() {
    let mut settings = detecting(Settings::default());
    settings.load_balancer.locality = Some(LocalityPolicy {
        enabled: true,
        distribute: vec![Distribute {
            from: Arc::from("eu/*"),
            to: [("eu/a", 20), ("eu/b/*", 80)]
                .map(|(l, p)| (Arc::from(l), p))
                .to_vec(),
        }],
        ..LocalityPolicy::default()
    });
    let bench = Bench::new(settings, two_zones());
    let picks = bench.picks(2000);
    let near = picks["w1"] + picks["w2"];
    assert!((300..=500).contains(&near), "{picks:?}");
    bench.eject("w3");
    bench.eject("w4");
    assert_eq!(
        names(&bench.picks(200)),
        ["w1", "w2"],
        "nobody is left there"
    );
}

#[test]
fn turns_of_one_level_do_not_upset_anothers() {
    let bench = Bench::new(detecting(balancing(Balance::RoundRobin)), two_zones());
    bench.picks(1);
    bench.eject("w2");
    let picks = bench.picks(2000);
    let (third, fourth) = (picks["w3"], picks["w4"]);
    assert!(third.abs_diff(fourth) <= 1, "{picks:?}");
}

#[test]
fn a_group_that_nobody_asks_for_is_forgotten() {
    let mut bench = Bench::new(Settings::default(), several(1));
    let held = bench.pick().unwrap();
    let count = |bench: &Bench| lock(&bench.endpoints.groups).len();
    bench.now += 7200 * SECOND;
    bench.endpoints.look(bench.now);
    assert_eq!(count(&bench), 1, "something is under way");
    drop(held);
    bench.endpoints.look(bench.now);
    assert_eq!(count(&bench), 0);
}

#[test]
fn how_many_are_out_is_told() {
    let mut bench = Bench::new(detecting(Settings::default()), several(3));
    bench.picks(1);
    bench.eject("w1");
    bench.endpoints.look(bench.now);
    let metric = |bench: &Bench, name: &str| {
        let text = bench.endpoints.metrics.render().unwrap();
        let line = text.lines().find(|l| l.starts_with(name));
        line.map(|l| l.rsplit(' ').next().unwrap().to_owned())
    };
    assert_eq!(
        metric(&bench, "lateen_outlier_ejections_total{").as_deref(),
        Some("1")
    );
    assert_eq!(
        metric(&bench, "lateen_outlier_ejected{").as_deref(),
        Some("1")
    );
    bench.now += 60 * SECOND;
    bench.endpoints.look(bench.now);
    assert_eq!(
        metric(&bench, "lateen_outlier_ejected{").as_deref(),
        Some("0")
    );
}
