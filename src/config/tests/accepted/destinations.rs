//! Destination rules become what they mean.

use std::sync::Arc;
use std::time::Duration;

use super::mesh;
use crate::model::declaration::{DestinationRule, Origin};
use crate::model::traffic::{
    Balance, ConnectionPool, Distribute, HashKey, HashTable, Keepalive, LoadBalancer,
    LocalityPolicy, OutlierDetection, ProxyProtocol, RetryBudget, Settings, TlsOrigination,
    TrafficPolicy, UpstreamTls, Warmup,
};

const SERVED: &str = "
[[service]]
name = \"s\"
selector = { app = \"a\" }
ports = [{ port = 80, name = \"http\" }]
[[workload]]
name = \"w\"
addresses = [\"10.1.0.1\"]
labels = { app = \"a\", version = \"v1\" }
";

fn rules(text: &str) -> Vec<DestinationRule> {
    mesh(&[("a.toml", text.to_owned() + SERVED)]).destination_rules
}

const EVERY_FIELD: &str = r#"
[[destination-rule]]
name = "every.field"
host = "s"
labels = { team = "a" }
export-to = ["*"]

[destination-rule.traffic-policy]
load-balancer = { simple = "ROUND_ROBIN", warmup = { duration = "30s", minimum-percent = 12.5, aggression = 2 }, locality-lb-setting = { enabled = true, failover = [{ from = "eu", to = "us" }], failover-priority = ["topology.kubernetes.io/region"] } }
outlier-detection = { consecutive-5xx-errors = 7, consecutive-gateway-errors = 3, split-external-local-origin-errors = true, consecutive-local-origin-failures = 2, interval = "1s", base-ejection-time = "2s", max-ejection-percent = 50, min-health-percent = 20 }
retry-budget = { percent = 25, min-retry-concurrency = 5 }
proxy-protocol = { version = "V2" }
tls = { mode = "MUTUAL", client-certificate = "/tls/c.pem", private-key = "/tls/k.pem", ca-certificates = "/tls/ca.pem", sni = "s.example", subject-alt-names = ["a.example", "spiffe://x/y"], insecure-skip-verify = true }

[destination-rule.traffic-policy.connection-pool]
tcp = { max-connections = 1, connect-timeout = "2s", idle-timeout = "0s", max-connection-duration = "1h", tcp-keepalive = { probes = 3, time = "60s", interval = "5s" } }
http = { http1-max-pending-requests = 2, http2-max-requests = 3, max-retries = 0, max-requests-per-connection = 4, idle-timeout = "30s", max-concurrent-streams = 5, h2-upgrade-policy = "UPGRADE", use-client-protocol = true }

[[destination-rule.traffic-policy.port-level-settings]]
port = { number = 80 }
load-balancer = { consistent-hash = { http-cookie = { name = "user", path = "/", ttl = "60s" }, maglev = {} } }

[[destination-rule.subsets]]
name = "v1"
labels = { version = "v1" }

[[destination-rule.subsets]]
name = "hashed"
labels = { version = "v1" }
traffic-policy = { load-balancer = { consistent-hash = { http-header-name = "X-User", ring-hash = { minimum-ring-size = 64 } } } }
"#;

fn every_group() -> Settings {
    Settings {
        load_balancer: LoadBalancer {
            policy: Balance::RoundRobin,
            warmup: Some(Warmup {
                duration: Duration::from_secs(30),
                minimum_percent: 12.5,
                aggression: 2.0,
            }),
            locality: Some(LocalityPolicy {
                enabled: true,
                distribute: Vec::new(),
                failover: vec![(Arc::from("eu"), Arc::from("us"))],
                failover_priority: vec![Arc::from("topology.kubernetes.io/region")],
            }),
        },
        connection_pool: ConnectionPool {
            max_connections: 1,
            connect_timeout: Duration::from_secs(2),
            tcp_idle_timeout: Duration::ZERO,
            max_connection_duration: Some(Duration::from_secs(3600)),
            tcp_keepalive: Some(Keepalive {
                probes: Some(3),
                time: Some(Duration::from_secs(60)),
                interval: Some(Duration::from_secs(5)),
            }),
            max_pending_requests: 2,
            max_requests: 3,
            max_retries: 0,
            max_requests_per_connection: 4,
            http_idle_timeout: Duration::from_secs(30),
            max_concurrent_streams: 5,
            h2_upgrade: true,
            use_client_protocol: true,
        },
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: 7,
            consecutive_gateway: 3,
            split_local_errors: true,
            consecutive_local: 2,
            interval: Duration::from_secs(1),
            base_ejection: Duration::from_secs(2),
            max_ejection_percent: 50,
            min_health_percent: 20,
        }),
        retry_budget: Some(RetryBudget {
            percent: 25.0,
            min_concurrency: 5,
        }),
        tls: UpstreamTls::Originate(TlsOrigination {
            sni: Some(Arc::from("s.example")),
            subject_alt_names: vec![Arc::from("a.example"), Arc::from("spiffe://x/y")],
            ca_certificates: Some(Arc::from("/tls/ca.pem")),
            insecure_skip_verify: true,
            client_certificate: Some((Arc::from("/tls/c.pem"), Arc::from("/tls/k.pem"))),
        }),
        proxy_protocol: Some(ProxyProtocol::V2),
    }
}

#[test]
fn every_field_of_a_rule_is_taken() {
    let rules = rules(EVERY_FIELD);
    let [rule] = rules.as_slice() else { panic!() };
    let origin = Origin {
        file: Arc::from("a.toml"),
        line: 2,
    };
    assert_eq!(rule.origin, origin);
    assert_eq!(&*rule.host, "s.default.mesh.internal");
    assert_eq!(rule.traffic.usual, every_group());
    let key = HashKey::Cookie {
        name: Arc::from("user"),
        path: Some(Arc::from("/")),
        ttl: Some(Duration::from_secs(60)),
    };
    let policy = |key, table| Balance::Hash { key, table };
    let hashed = Settings {
        load_balancer: LoadBalancer {
            policy: policy(key, HashTable::Maglev(65_537)),
            ..LoadBalancer::default()
        },
        ..Settings::default()
    };
    assert_eq!(rule.traffic.on(80), &hashed);
    let [v1, by_user] = rule.subsets.as_slice() else {
        panic!()
    };
    assert_eq!((&*v1.name, &v1.traffic), ("v1", &None));
    assert_eq!(v1.labels["version"], "v1");
    let key = HashKey::Header(Arc::from("x-user"));
    let load_balancer = LoadBalancer {
        policy: policy(key, HashTable::Ring(64)),
        ..LoadBalancer::default()
    };
    let usual = Settings {
        load_balancer: load_balancer.clone(),
        ..every_group()
    };
    let on_port = Settings {
        load_balancer,
        ..Settings::default()
    };
    let traffic = by_user.traffic.as_ref().unwrap();
    assert_eq!(traffic.usual, usual);
    assert_eq!(traffic.on(80), &on_port);
}

#[test]
fn an_empty_rule_is_all_defaults() {
    let rules = rules("[[destination-rule]]\nname = \"r\"\nhost = \"*\"\n");
    assert_eq!(rules[0].traffic, TrafficPolicy::default());
    assert_eq!(&*rules[0].host, "*");
}

#[test]
fn shares_are_read() {
    let text = "[[destination-rule]]\nname = \"r\"\nhost = \"s\"\ntraffic-policy = { load-balancer = { locality-lb-setting = { distribute = [{ from = \"eu/a/*\", to = { \"eu/a/*\" = 80, \"eu/b\" = 20 } }] } } }\n";
    let rules = rules(text);
    let locality = rules[0].traffic.usual.load_balancer.locality.as_ref();
    let want = Distribute {
        from: Arc::from("eu/a/*"),
        to: vec![(Arc::from("eu/a/*"), 80), (Arc::from("eu/b"), 20)],
    };
    assert_eq!(locality.unwrap().distribute, [want]);
}

#[test]
fn a_backend_tls_policy_means_the_same() {
    let text = "[[backend-tls-policy]]\nname = \"p\"\ntarget-refs = [{ kind = \"Service\", name = \"s\", section-name = \"http\" }]\nvalidation = { hostname = \"s.example\", ca-certificate-refs = [{ name = \"/tls/ca.pem\" }], subject-alt-names = [{ type = \"Hostname\", hostname = \"*.example\" }, { type = \"URI\", uri = \"spiffe://x/y\" }] }\n";
    let rules = rules(text);
    let [rule] = rules.as_slice() else { panic!() };
    let want = UpstreamTls::Originate(TlsOrigination {
        sni: Some(Arc::from("s.example")),
        subject_alt_names: vec![Arc::from("*.example"), Arc::from("spiffe://x/y")],
        ca_certificates: Some(Arc::from("/tls/ca.pem")),
        ..TlsOrigination::default()
    });
    assert_eq!(rule.traffic.on(80).tls, want);
    assert_eq!(rule.traffic.on(443).tls, UpstreamTls::None);
    assert_eq!(&*rule.name, "backend-tls-policy/p/s");
}

#[test]
fn a_service_may_say_which_endpoints_it_prefers() {
    use crate::model::declaration::TrafficDistribution::{SameNode, SameZone};
    let annotation =
        "annotations = { \"networking.istio.io/traffic-distribution\" = \"PreferSameNode\" }";
    for (line, want) in [
        ("", None),
        ("traffic-distribution = \"PreferClose\"", Some(SameZone)),
        ("traffic-distribution = \"PreferSameZone\"", Some(SameZone)),
        (annotation, Some(SameNode)),
    ] {
        let text = SERVED.replacen("[[workload]]", &format!("{line}\n[[workload]]"), 1);
        let mesh = mesh(&[("a.toml", text)]);
        assert_eq!(mesh.services[0].traffic_distribution, want, "{line}");
    }
}
